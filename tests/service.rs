//! The server under a service manager, which these tests play: what it is told, what it hands over, what it
//! watches. Protocols: `sd_notify(3)`, `sd_listen_fds(3)`, `sd_watchdog_enabled(3)`.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use hearth::system_clock;

const PROGRAM: &str = env!("CARGO_BIN_EXE_hearth");

/// How long anything may take.
const DEADLINE: Duration = Duration::from_secs(30);

/// Becomes the program with standard input, output and error as sockets 3, 4 and 5, in the process whose number
/// the variables name.
const HAND_OVER: &str = r#"
    exec 3<&0 4>&1 5>&2 0</dev/null 1>/dev/null 2>"$LOG"
    LISTEN_PID=$$ LISTEN_FDS=3 exec "$@"
"#;

/// Becomes the program in the process that the watchdog watches.
const WATCH: &str = r#"WATCHDOG_PID=$$ exec "$@""#;

/// `stun.Request` of tailscale.com v1.102.5 for transaction 00..0b.
const STUN_REQUEST: &[u8] =
    b"\x00\x01\x00\x14\x21\x12\xa4\x42\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\
    \x80\x22\x00\x08tailnode\x80\x28\x00\x04\x8a\xab\xad\x90";

fn since(began: Duration) -> Duration {
    system_clock::monotonic().saturating_sub(began)
}

struct Manager {
    directory: tempfile::TempDir,
    socket: UnixDatagram,
}

impl Manager {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(directory.path().join("notify")).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        Self { directory, socket }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// `sh -c SCRIPT sh hearth …`, with no port of its own that could be in the way.
    fn command(&self, script: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new("sh");
        command
            .args(["-c", script, "sh", PROGRAM])
            .args(arguments)
            .env("NOTIFY_SOCKET", self.path("notify"))
            .env("HEARTH_DATA_DIR", self.path("data"))
            .env("LOG", self.path("log"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    }

    /// The next message, which has to come.
    fn hear(&self) -> String {
        let mut room = [0; 4096];
        let length = self.socket.recv(&mut room).expect("a message in time");
        String::from_utf8(room[..length].to_vec()).unwrap()
    }

    /// The next message with such a line; those before it are passed over.
    fn hear_of(&self, line: &str) -> String {
        let began = system_clock::monotonic();
        while since(began) < DEADLINE {
            let message = self.hear();
            if message.lines().any(|found| found == line) {
                return message;
            }
        }
        panic!("no {line} in time");
    }

    /// How many messages come within this time.
    fn count_for(&self, time: Duration) -> usize {
        let began = system_clock::monotonic();
        let mut room = [0; 4096];
        let mut count = 0;
        while let Some(left) = time.checked_sub(since(began)).filter(|d| !d.is_zero()) {
            self.socket.set_read_timeout(Some(left)).unwrap();
            count += usize::from(self.socket.recv(&mut room).is_ok());
        }
        self.socket.set_read_timeout(Some(DEADLINE)).unwrap();
        count
    }
}

struct Process(Child);

impl Process {
    fn signal(&self, name: &str) {
        let process = self.0.id().to_string();
        let sent = Command::new("kill").args([name, &process]).status();
        assert!(sent.unwrap().success());
    }

    fn end(&mut self) -> ExitStatus {
        self.signal("-TERM");
        let began = system_clock::monotonic();
        while since(began) < DEADLINE {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("it does not end");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const ALONE: [&str; 7] = [
    "serve",
    "--http",
    "127.0.0.1:0",
    "--https",
    "off",
    "--stun",
    "off",
];

fn monotonic(message: &str) -> Option<Duration> {
    let micros = message
        .lines()
        .find_map(|line| line.strip_prefix("MONOTONIC_USEC="))?;
    Some(Duration::from_micros(micros.parse().ok()?))
}

#[test]
fn the_service_manager_hears_of_start_reload_and_stop() {
    let manager = Manager::new();
    let mut server = Process(manager.command(r#"exec "$@""#, &ALONE).spawn().unwrap());
    let ready = manager.hear_of("READY=1");
    assert!(
        ready.contains("STATUS=serving http://127.0.0.1:"),
        "{ready}"
    );

    // What answers a request for a reload says so with a time not before the request.
    let asked = system_clock::monotonic();
    server.signal("-HUP");
    let reloading = manager.hear_of("RELOADING=1");
    assert!(monotonic(&reloading).unwrap() >= asked, "{reloading}");
    assert!(monotonic(&reloading).unwrap() <= system_clock::monotonic());
    assert!(manager.hear_of("READY=1").contains("STATUS=serving"));

    let status = server.end();
    manager.hear_of("STOPPING=1");
    assert_eq!(status.code(), Some(0));
}

#[test]
fn the_relay_alone_tells_the_same() {
    let manager = Manager::new();
    let arguments = [&["derp"], &ALONE[1..]].concat();
    let mut relay = Process(manager.command(r#"exec "$@""#, &arguments).spawn().unwrap());
    manager.hear_of("READY=1");
    relay.signal("-HUP");
    manager.hear_of("RELOADING=1");
    manager.hear_of("READY=1");
    assert_eq!(relay.end().code(), Some(0));
    manager.hear_of("STOPPING=1");
}

#[test]
fn signs_of_life_come_while_the_server_works_and_stop_while_it_hangs() {
    let manager = Manager::new();
    let mut command = manager.command(WATCH, &ALONE);
    let server = Process(command.env("WATCHDOG_USEC", "600000").spawn().unwrap());
    manager.hear_of("READY=1");
    for _ in 0..3 {
        manager.hear_of("WATCHDOG=1");
    }
    server.signal("-STOP");
    // What was sent before the signal is passed over.
    manager.count_for(Duration::from_millis(100));
    assert_eq!(manager.count_for(Duration::from_millis(900)), 0);
    server.signal("-CONT");
    manager.hear_of("WATCHDOG=1");
}

#[test]
fn nobody_is_told_signs_of_life_that_nobody_wants() {
    let manager = Manager::new();
    let mut command = manager.command(r#"exec "$@""#, &ALONE);
    // Meant for another process, for instance the one that started this one.
    command
        .env("WATCHDOG_USEC", "300000")
        .env("WATCHDOG_PID", "1");
    let _server = Process(command.spawn().unwrap());
    manager.hear_of("READY=1");
    assert_eq!(manager.count_for(Duration::from_millis(600)), 0);
}

/// The sockets of a service manager, which stay open while servers come and go.
struct Sockets {
    http: TcpListener,
    https: TcpListener,
    stun: UdpSocket,
}

impl Sockets {
    fn open() -> Self {
        Self {
            http: TcpListener::bind("127.0.0.1:0").unwrap(),
            https: TcpListener::bind("127.0.0.1:0").unwrap(),
            stun: UdpSocket::bind("127.0.0.1:0").unwrap(),
        }
    }

    fn address(&self) -> SocketAddr {
        self.http.local_addr().unwrap()
    }

    /// The flags say other addresses, which the sockets come before.
    fn start(&self, manager: &Manager, names: &str) -> Process {
        let http = OwnedFd::from(self.http.try_clone().unwrap());
        let https = OwnedFd::from(self.https.try_clone().unwrap());
        let stun = OwnedFd::from(self.stun.try_clone().unwrap());
        let mut command = manager.command(HAND_OVER, &ALONE);
        command.env("LISTEN_FDNAMES", names);
        command.stdin(http).stdout(https).stderr(stun);
        Process(command.spawn().unwrap())
    }
}

fn ask(stream: &mut TcpStream) {
    let request = b"GET /health HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.write_all(request).unwrap();
}

fn is_answered(stream: &mut TcpStream) -> bool {
    let mut answer = String::new();
    stream.read_to_string(&mut answer).is_ok() && answer.starts_with("HTTP/1.1 200")
}

#[test]
fn a_restart_on_sockets_of_the_service_manager_refuses_nobody() {
    let (manager, sockets) = (Manager::new(), Sockets::open());
    // Before there is a server, between two, and while one runs.
    let mut early = TcpStream::connect(sockets.address()).unwrap();
    ask(&mut early);
    let mut first = sockets.start(&manager, "http:https:stun");
    let ready = manager.hear_of("READY=1");
    let url = format!("STATUS=serving http://{}", sockets.address());
    assert!(ready.contains(&url), "{ready}");
    assert!(is_answered(&mut early));
    assert_eq!(first.end().code(), Some(0));
    manager.hear_of("STOPPING=1");

    let mut between = TcpStream::connect(sockets.address()).unwrap();
    ask(&mut between);
    let _second = sockets.start(&manager, "http:https:stun");
    manager.hear_of("READY=1");
    assert!(is_answered(&mut between));

    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.set_read_timeout(Some(DEADLINE)).unwrap();
    client
        .send_to(STUN_REQUEST, sockets.stun.local_addr().unwrap())
        .unwrap();
    let mut answer = [0; 256];
    let (_, from) = client.recv_from(&mut answer).unwrap();
    assert_eq!(from, sockets.stun.local_addr().unwrap());

    // TLS: the first byte of the answer to nonsense is that of an alert (RFC 8446, section 5.1).
    let mut https = TcpStream::connect(sockets.https.local_addr().unwrap()).unwrap();
    https.set_read_timeout(Some(DEADLINE)).unwrap();
    https.write_all(b"this is no ClientHello").unwrap();
    let mut alert = [0];
    https.read_exact(&mut alert).unwrap();
    assert_eq!(alert, [21]);
}

#[test]
fn sockets_that_are_not_meant_for_hearth_are_left_alone_and_named() {
    let (manager, sockets) = (Manager::new(), Sockets::open());
    // The third is no TCP socket, and the second has no name of ours.
    let _server = sockets.start(&manager, "http:hearth.socket:stun");
    manager.hear_of("READY=1");
    let mut stream = TcpStream::connect(sockets.address()).unwrap();
    ask(&mut stream);
    assert!(is_answered(&mut stream));
    let log = std::fs::read_to_string(manager.path("log")).unwrap();
    assert!(log.contains("`hearth.socket`"), "{log}");
    assert!(log.contains("sockets from the service manager"), "{log}");
}

#[test]
fn a_socket_of_the_wrong_kind_stops_the_start_with_a_reason() {
    let (manager, sockets) = (Manager::new(), Sockets::open());
    let mut server = sockets.start(&manager, "stun:https:http");
    let status = server.0.wait().unwrap();
    assert_eq!(status.code(), Some(1));
    let log = std::fs::read_to_string(manager.path("log")).unwrap();
    assert!(log.contains("a socket from the service manager"), "{log}");
}

#[test]
fn the_health_question_finds_the_server_by_the_same_variable() {
    let manager = Manager::new();
    let health = || {
        let command = Command::new(PROGRAM)
            .arg("health")
            .env("HEARTH_DATA_DIR", manager.path("data"))
            .output()
            .unwrap();
        command.status.code()
    };
    assert_eq!(health(), Some(1), "nobody is there");
    let _server = Process(manager.command(r#"exec "$@""#, &ALONE).spawn().unwrap());
    manager.hear_of("READY=1");
    assert_eq!(health(), Some(0));
}
