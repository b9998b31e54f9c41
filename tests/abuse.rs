//! The relay on a port that anybody reaches: whatever strangers do, memory stays under its bound,
//! clients keep their service, and nothing panics.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use hearth_derp::frame::{Frame, HEADER_LEN, Header, Kind};
use hearth_derp::nacl::SharedKey;
use hearth_derp::{Key, Limits, ServerSecret};
use socket2::{Domain, Socket, Type};

const PROGRAM: &str = env!("CARGO_BIN_EXE_hearth");
const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// The bound of queued packets that the servers here are given, far below what the attackers send.
const POOL: usize = MIB;
/// What the allocator and the program's own pages may add to any of the bounds.
const SLACK: usize = 6 * MIB;
/// What a connection may cost beside what the relay's limits name: its task, TLS aside, and the head
/// of its request.
const CONNECTION: usize = 20 * KIB;

/// One server at a time: they would disturb each other's figures.
static ALONE: Mutex<()> = Mutex::new(());

struct Server {
    child: Child,
    directory: tempfile::TempDir,
    address: SocketAddr,
    _alone: MutexGuard<'static, ()>,
}

impl Server {
    fn start() -> Self {
        Self::with("admit = \"open\"", "")
    }

    /// A server with these lines in the sections `derp` and `limits`.
    #[expect(clippy::disallowed_methods, reason = "nobody misses a file of a test")]
    fn with(derp: &str, limits: &str) -> Self {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("hearth.toml");
        let text = format!(
            "[derp]\n{derp}\n\
             [limits]\nconnections = 4096\nconnections_per_address = 4096\nderp_pool = {POOL}\n{limits}\n"
        );
        std::fs::write(&config, text).unwrap();
        let log = directory.path().join("log");
        let mut child = Command::new(PROGRAM)
            .args(["serve", "--https", "off", "--stun", "off"])
            .args(["--http", "127.0.0.1:0", "--config"])
            .arg(&config)
            .arg("--data-dir")
            .arg(directory.path())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let address = listening_address(&mut child, &log);
        for process in [child.id(), std::process::id()] {
            allow_files(process);
        }
        Self {
            child,
            directory,
            address,
            _alone: alone,
        }
    }

    /// A connection on which nothing was said.
    fn connect(&self) -> TcpStream {
        self.connect_from(1)
    }

    /// A connection from the address 127.0.0.`host`, which the server takes for another source.
    fn connect_from(&self, host: u8) -> TcpStream {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let own = SocketAddr::from(([127, 0, 0, host], 0));
        socket.bind(&own.into()).unwrap();
        socket.connect(&self.address.into()).unwrap();
        let stream = TcpStream::from(socket);
        for set in [TcpStream::set_read_timeout, TcpStream::set_write_timeout] {
            set(&stream, Some(Duration::from_secs(20))).unwrap();
        }
        stream.set_nodelay(true).unwrap();
        stream
    }

    /// A connection that has become a relay connection, and the relay's key.
    fn upgrade(&self) -> std::io::Result<(TcpStream, Key)> {
        self.upgrade_from(1)
    }

    fn upgrade_from(&self, host: u8) -> std::io::Result<(TcpStream, Key)> {
        let mut stream = self.connect_from(host);
        stream.write_all(REQUEST)?;
        match next(&mut stream)? {
            (Kind::ServerKey, body) => match Frame::decode(Kind::ServerKey, &body) {
                Ok(Frame::ServerKey(key)) => Ok((stream, key)),
                other => panic!("{other:?} instead of the relay's key"),
            },
            (kind, _) => panic!("{kind:?} instead of the relay's key"),
        }
    }

    fn login(&self) -> std::io::Result<Client> {
        self.login_from(1)
    }

    fn login_from(&self, host: u8) -> std::io::Result<Client> {
        Self::log_in(self.upgrade_from(host)?)
    }

    /// Logs a client in with a new key.
    fn log_in((mut stream, relay): (TcpStream, Key)) -> std::io::Result<Client> {
        static NEXT: AtomicU8 = AtomicU8::new(1);
        let mark = NEXT.fetch_add(1, Ordering::Relaxed);
        // Keys come again after 256 logins: two connections with one key are part of the storm.
        let secret = ServerSecret::from_bytes([mark; 32]);
        stream.write_all(&client_info(&secret, &relay))?;
        match next(&mut stream)? {
            (Kind::ServerInfo, _) => Ok(Client {
                key: secret.public(),
                stream,
            }),
            (kind, _) => panic!("{kind:?} instead of ServerInfo"),
        }
    }

    /// Resident memory in bytes.
    fn memory(&self) -> usize {
        let status = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(status).expect("the server lives");
        let line = status.lines().find(|line| line.starts_with("VmRSS:"));
        let number = line.and_then(|line| line.split_whitespace().nth(1));
        number.unwrap().parse::<usize>().unwrap() * KIB
    }

    /// How much the memory has grown, which is asserted to be at most `bound`.
    fn assert_grown(&self, before: usize, bound: usize) {
        let grown = self.memory().saturating_sub(before);
        println!("grown by {} KiB of {}", grown / KIB, bound / KIB);
        assert!(grown <= bound, "grown by {grown} bytes, more than {bound}");
    }

    fn log(&self) -> PathBuf {
        self.directory.path().join("log")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let ended = self.child.try_wait();
        let _ = self.child.kill();
        let _ = self.child.wait();
        let log = std::fs::read_to_string(self.log()).unwrap_or_default();
        let panicked = log.contains("panicked");
        if !thread::panicking() {
            assert!(
                matches!(ended, Ok(None)) && !panicked,
                "the server ended: {log}"
            );
        }
    }
}

/// The address of the listener, whose port the system chose: that of the server URL in the server's log.
fn listening_address(child: &mut Child, log: &Path) -> SocketAddr {
    for _ in 0..1200 {
        let text = std::fs::read_to_string(log).unwrap();
        // A line that is not ended may lack digits of the port.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let mut found = whole.split("http://").skip(1).filter_map(|rest| {
            let is_part = |c: char| c.is_ascii_digit() || c == '.' || c == ':';
            rest.split(|c| !is_part(c)).next()?.parse().ok()
        });
        if let Some(address) = found.next() {
            return address;
        }
        assert!(child.try_wait().unwrap().is_none(), "it ended: {text}");
        thread::sleep(Duration::from_millis(25));
    }
    let _ = child.kill();
    panic!("no address in the log within 30 s");
}

/// Thousands of connections need more files than a shell allows by itself.
fn allow_files(process: u32) {
    let allowed = Command::new("prlimit")
        .args(["--pid", &process.to_string(), "--nofile=8192:"])
        .status();
    assert!(
        allowed.is_ok_and(|status| status.success()),
        "prlimit, of util-linux"
    );
}

/// With fast start, so that the answer is frames only.
const REQUEST: &[u8] = b"GET /derp HTTP/1.1\r\nHost: x\r\nUpgrade: DERP\r\nConnection: Upgrade\r\n\
    Derp-Fast-Start: 1\r\n\r\n";

fn client_info(secret: &ServerSecret, relay: &Key) -> Vec<u8> {
    let text = br#"{"version":2,"CanAckPings":true}"#;
    let sealed = SharedKey::new(secret, relay).seal(&[3; 24], text).unwrap();
    encoded(Frame::ClientInfo {
        key: secret.public(),
        sealed: &sealed,
    })
}

fn encoded(frame: Frame<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame.encode(&mut bytes);
    bytes
}

fn send_packet(destination: Key, packet: &[u8]) -> Vec<u8> {
    encoded(Frame::SendPacket {
        destination,
        packet,
    })
}

fn next(stream: &mut TcpStream) -> std::io::Result<(Kind, Vec<u8>)> {
    let mut header = [0; HEADER_LEN];
    stream.read_exact(&mut header)?;
    let header = Header::decode(&header);
    let mut body = vec![0; header.length as usize];
    stream.read_exact(&mut body)?;
    Ok((Kind::from_byte(header.kind).unwrap(), body))
}

struct Client {
    key: Key,
    stream: TcpStream,
}

impl Client {
    fn next_packet(&mut self) -> std::io::Result<(Key, Vec<u8>)> {
        loop {
            let (kind, body) = next(&mut self.stream)?;
            if let Ok(Frame::RecvPacket { source, packet }) = Frame::decode(kind, &body) {
                return Ok((source, packet.to_vec()));
            }
        }
    }
}

/// Two clients that nobody else knows of and that must always be served.
struct Pair(Client, Client);

impl Pair {
    fn new(server: &Server) -> Self {
        Pair(server.login().unwrap(), server.login().unwrap())
    }

    fn exchange(&mut self) {
        let Pair(a, b) = self;
        give(a, b);
        give(b, a);
    }
}

fn give(from: &mut Client, to: &mut Client) {
    for mark in 0..3 {
        let packet = [mark; 1280];
        from.stream
            .write_all(&send_packet(to.key, &packet))
            .unwrap();
        let (source, received) = to.next_packet().expect("a packet in time");
        assert_eq!((source, received.as_slice()), (from.key, packet.as_slice()));
    }
}

/// Ends the attack when it goes out of scope, also by a failed assertion.
struct Attack<'a>(&'a AtomicBool);

impl Drop for Attack<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The worst case of the relay's own memory for this many connections, as its limits state it.
fn relay_bound(connections: usize) -> usize {
    let limits = Limits::default();
    let each = limits.partial_bytes
        + 32 * limits.peer_gone_pending
        + 8 * limits.destinations_per_key
        + 2 * 40 * limits.queue_slots
        + 6 * KIB;
    POOL + connections * each
}

#[test]
fn connections_that_never_finish_their_handshake_keep_nobody_out() {
    const STRANGERS: usize = 2000;
    let server = Server::start();
    let mut pair = Pair::new(&server);
    pair.exchange();
    let before = server.memory();
    let half_a_login = Header {
        kind: Kind::ClientInfo.to_byte(),
        length: 200,
    };
    let mut begun = REQUEST.to_vec();
    half_a_login.encode(&mut begun);
    begun.extend([7; 100]);
    let beginnings: [&[u8]; 4] = [b"", b"GET /derp HTTP/1.1\r\nUpgr", REQUEST, &begun];
    let mut strangers = Vec::new();
    for beginning in beginnings.iter().cycle().take(STRANGERS) {
        let mut stranger = server.connect();
        stranger.write_all(beginning).unwrap();
        strangers.push(stranger);
        if strangers.len() % 200 == 0 {
            pair.exchange();
        }
    }
    let mut late = Pair::new(&server);
    late.exchange();
    pair.exchange();
    server.assert_grown(before, SLACK + STRANGERS * CONNECTION);
    drop(strangers);
}

#[test]
fn a_flood_of_logins_keeps_out_no_slow_client_from_elsewhere() {
    let server = Server::with("admit = \"open\"", "derp_logins = 16");
    let mut flood = Vec::new();
    for _ in 0..3 {
        // Their round trip is so long that the flood comes between the two halves of their login.
        let slow: Vec<(TcpStream, Key)> = (2..10)
            .map(|host| server.upgrade_from(host).unwrap())
            .collect();
        for _ in 0..100 {
            flood.push(server.upgrade().unwrap());
        }
        for connection in slow {
            Server::log_in(connection).expect("a login from elsewhere");
        }
    }
}

#[test]
fn one_address_with_all_connections_of_an_open_relay_makes_room_for_others() {
    let server = Server::with("admit = \"open\"", "derp_connections = 16");
    let mut greedy: Vec<Client> = (0..16).map(|_| server.login().unwrap()).collect();
    let mut pair = Pair(
        server.login_from(2).expect("room for another address"),
        server.login_from(3).expect("room for another address"),
    );
    for _ in 0..50 {
        greedy.extend(server.login());
    }
    pair.exchange();
    assert!(server.login().is_err());
}

#[test]
fn strangers_cannot_fill_the_log_while_admit_url_is_unreachable() {
    // Nothing listens there.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/verify", free.local_addr().unwrap());
    drop(free);
    let server = Server::with(&format!("admit = \"url\"\nadmit_url = \"{url}\""), "");
    for _ in 0..300 {
        assert!(server.login().is_err());
    }
    let log = std::fs::read_to_string(server.log()).unwrap();
    let about = |line: &&str| line.contains("admit_url is unreachable");
    assert_eq!(log.lines().filter(about).count(), 1, "{log}");
    assert!(log.lines().count() < 60, "{log}");
}

#[test]
fn a_fast_sender_and_readers_that_stop_cost_no_more_than_the_pool() {
    const READERS: usize = 60;
    let server = Server::start();
    let mut pair = Pair::new(&server);
    let stopped: Vec<Client> = (0..READERS).map(|_| server.login().unwrap()).collect();
    let mut sender = server.login().unwrap();
    let before = server.memory();
    let mut slow = server.login().unwrap();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let _attack = Attack(&over);
        scope.spawn(|| {
            let packets: Vec<Vec<u8>> = stopped
                .iter()
                .chain([&slow])
                .map(|reader| send_packet(reader.key, &[1; 8192]))
                .collect();
            for packet in packets.iter().cycle() {
                if over.load(Ordering::Relaxed) || sender.stream.write_all(packet).is_err() {
                    break;
                }
            }
        });
        for _ in 0..30 {
            thread::sleep(Duration::from_millis(100));
            pair.exchange();
            server.assert_grown(before, SLACK + relay_bound(READERS + 2));
        }
    });
    // One that was slow and reads again is served again, if it was not too slow to keep.
    while slow.next_packet().is_ok_and(|(_, packet)| packet != b"end") {
        let end = send_packet(slow.key, b"end");
        if sender.stream.write_all(&end).is_err() {
            break;
        }
    }
    pair.exchange();
}

#[test]
fn largest_packets_from_everyone_stay_in_the_pool() {
    const CLIENTS: usize = 48;
    let server = Server::start();
    let mut pair = Pair::new(&server);
    let clients: Vec<Client> = (0..CLIENTS).map(|_| server.login().unwrap()).collect();
    let before = server.memory();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let _attack = Attack(&over);
        for (index, client) in clients.iter().enumerate() {
            let destination = clients[(index + 1) % CLIENTS].key;
            let (mut reader, mut writer) = (&client.stream, &client.stream);
            let over = &over;
            scope.spawn(move || {
                let packet = send_packet(destination, &vec![2; 64 * KIB]);
                while !over.load(Ordering::Relaxed) && writer.write_all(&packet).is_ok() {}
                let _ = writer.shutdown(Shutdown::Both);
            });
            // Every other one reads.
            if index % 2 == 0 {
                scope.spawn(move || {
                    let mut sink = vec![0; 64 * KIB];
                    while reader.read(&mut sink).is_ok_and(|length| length > 0) {}
                });
            }
        }
        for _ in 0..10 {
            thread::sleep(Duration::from_millis(200));
            pair.exchange();
            server.assert_grown(before, SLACK + relay_bound(CLIENTS));
        }
    });
    pair.exchange();
}

#[test]
fn storms_of_connections_leave_nothing_behind() {
    let server = Server::start();
    let mut pair = Pair::new(&server);
    let storm = |rounds: usize| {
        thread::scope(|scope| {
            for _ in 0..6 {
                scope.spawn(|| {
                    for round in 0..rounds {
                        match round % 4 {
                            0 => drop(server.connect()),
                            1 => drop(server.upgrade()),
                            2 => drop(server.login()),
                            _ => {
                                // Leaves with packets on the way to it, which resets the connection.
                                if let Ok(mut client) = server.login() {
                                    let packet = send_packet(client.key, &[3; 1000]);
                                    let _ = client.stream.write_all(&packet.repeat(20));
                                }
                            }
                        }
                    }
                });
            }
        });
    };
    storm(40);
    pair.exchange();
    let before = server.memory();
    storm(300);
    pair.exchange();
    server.assert_grown(before, SLACK);
}

/// The same pseudo-random bytes every time (xorshift).
fn noise(seed: u32, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9) | 1;
    let mut byte = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as u8
    };
    (0..length).map(|_| byte()).collect()
}

fn header(kind: u8, length: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    Header { kind, length }.encode(&mut bytes);
    bytes
}

#[test]
fn malformed_and_oversized_frames_end_their_connection_only() {
    let server = Server::start();
    let mut pair = Pair::new(&server);
    let before = server.memory();
    let is_closed = |stream: &mut TcpStream| {
        let mut sink = [0; 4096];
        loop {
            match stream.read(&mut sink) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => return error.kind() == std::io::ErrorKind::ConnectionReset,
            }
        }
    };
    // Before the login.
    for bytes in [
        header(Kind::ClientInfo.to_byte(), u32::MAX),
        header(Kind::ClientInfo.to_byte(), 3),
        send_packet(pair.0.key, b"too early"),
        header(0xff, 0),
        [header(Kind::ClientInfo.to_byte(), 100), vec![0; 100]].concat(),
    ] {
        let (mut stream, _) = server.upgrade().unwrap();
        stream.write_all(&bytes).unwrap();
        assert!(is_closed(&mut stream), "{bytes:?}");
    }
    // After it.
    for bytes in [
        header(Kind::SendPacket.to_byte(), u32::MAX),
        header(Kind::SendPacket.to_byte(), 31),
        header(Kind::SendPacket.to_byte(), 32 + 65_537),
        header(Kind::Ping.to_byte(), 7),
        header(Kind::NotePreferred.to_byte(), 2),
        encoded(Frame::WatchConns),
        encoded(Frame::ClosePeer(pair.0.key)),
    ] {
        let mut client = server.login().unwrap();
        client.stream.write_all(&bytes).unwrap();
        assert!(is_closed(&mut client.stream), "{bytes:?}");
    }
    // Frames of an unknown type are read over, whatever length they claim.
    let mut talker = server.login().unwrap();
    talker.stream.write_all(&header(0xee, u32::MAX)).unwrap();
    for _ in 0..64 {
        talker.stream.write_all(&vec![0; 256 * KIB]).unwrap();
    }
    // Promises of large packets cost what has come of them.
    let promised: Vec<Client> = (0..200)
        .map(|_| {
            let mut client = server.login().unwrap();
            let promise = header(Kind::SendPacket.to_byte(), 60_000);
            client.stream.write_all(&promise).unwrap();
            client.stream.write_all(&[5; 1000]).unwrap();
            client
        })
        .collect();
    for seed in 1..300 {
        let mut stream = match seed % 3 {
            0 => server.connect(),
            1 => server.upgrade().unwrap().0,
            _ => server.login().unwrap().stream,
        };
        // The relay may close before all is written.
        let _ = stream.write_all(&noise(seed, 3000));
        if seed % 20 == 0 {
            pair.exchange();
        }
    }
    pair.exchange();
    server.assert_grown(before, SLACK + relay_bound(promised.len()));
}
