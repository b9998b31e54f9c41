//! Strangers that hold as many connections as they can: a known device gets in at once, what is proven stays open, and
//! newcomers have their part.
//!
//! The test is a trusted proxy: with the PROXY protocol its connections come from any address.

use std::collections::VecDeque;
use std::fs::File;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use data_encoding::{BASE64, HEXLOWER};
use hearth::control::noise_stream::NoiseStream;
use hearth::supervise::Tasks;
use hearth::system_clock;
use hearth_core::keys::{MachineKey, MachineSecret};
use hearth_core::noise::handshake::{RESPONSE_BYTES, testing::Initiator};
use hearth_derp::frame::{Frame, HEADER_LEN, Header, Kind};
use hearth_derp::nacl::SharedKey;
use hearth_derp::{Key, ServerSecret};
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper::body::Incoming;
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::timeout;

const PROGRAM: &str = env!("CARGO_BIN_EXE_hearth");

/// Capability version of the devices: one that gets no early payload.
const VERSION: u16 = 130;
/// Within this time a known device gets its map while strangers do what they can. It takes milliseconds.
const KNOWN: Duration = Duration::from_secs(2);
/// Within this time a newcomer joins with a preauth key meanwhile, and gets the server's key.
const NEWCOMER: Duration = Duration::from_secs(5);
/// On a machine that is busy with something else all of that takes longer without strangers, too: so many times as long
/// may it take with them.
const SLOWER: u32 = 3;
/// How often each is measured; what takes long once may have waited for another program.
const TIMES: usize = 3;
/// How long anything may take at all.
const DEADLINE: Duration = Duration::from_secs(30);

/// Limits of some machines: the rest of the configuration, and `limits.connections`.
const CLASSES: [(&str, usize); 3] = [
    ("board = \"memory-64\"\n", 26),
    ("board = \"memory-128\"\n", 74),
    (UNKNOWN, 1152),
];

/// The defaults, which no board has.
const UNKNOWN: &str = "board = \"memory-4096\"\n[limits]\nconnections = 1152\nconnections_per_address = 512\n\
                       map_streams = 512\nderp_connections = 512\n";

/// The address of known devices.
const HOME: &str = "192.0.2.1";

/// One server at a time: they would take each other's time.
static ALONE: Mutex<()> = Mutex::const_new(());

struct Server {
    _alone: MutexGuard<'static, ()>,
    child: Child,
    directory: tempfile::TempDir,
    address: SocketAddr,
    key: MachineKey,
    tasks: Tasks,
}

impl Server {
    async fn start(class: &str) -> Self {
        let alone = ALONE.lock().await;
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let listen = "[listen]\nhttp = \"127.0.0.1:0\"\nhttps = \"off\"\nstun = \"off\"\ntrusted_proxies = [\"127.0.0.1\"]\n";
        let config = format!("{class}{listen}");
        hearth::files::replace(&path("hearth.toml"), config.as_bytes()).unwrap();
        let child = Command::new(PROGRAM)
            .args(["serve", "--config"])
            .arg(path("hearth.toml"))
            .arg("--data-dir")
            .arg(directory.path())
            .stdin(Stdio::null())
            .stdout(File::create(path("banner")).unwrap())
            .stderr(File::create(path("log")).unwrap())
            .spawn()
            .unwrap();
        for process in [child.id(), std::process::id()] {
            allow_files(process);
        }
        let mut server = Self {
            _alone: alone,
            child,
            directory,
            address: ([127, 0, 0, 1], 0).into(),
            key: MachineKey::from_bytes([0; 32]),
            tasks: Tasks::new(),
        };
        while server.address.port() == 0 {
            tokio::time::sleep(Duration::from_millis(25)).await;
            let ended = server.child.try_wait().unwrap();
            assert!(ended.is_none(), "{ended:?}: {}", server.log());
            let log = server.log();
            let whole = log.rsplit_once('\n').map_or("", |(whole, _)| whole);
            let Some((_, after)) = whole.split_once("server_url=") else {
                continue;
            };
            let text = after.trim_start_matches('"').trim_start_matches("http://");
            let end = text.find(|c: char| !c.is_ascii_digit() && c != '.' && c != ':');
            let (_, port) = text[..end.unwrap_or(text.len())].rsplit_once(':').unwrap();
            server.address.set_port(port.parse().unwrap());
        }
        let keys: Value = serde_json::from_str(&server.key_page(HOME).await.unwrap()).unwrap();
        server.key = keys["publicKey"].as_str().unwrap().parse().unwrap();
        server
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap()
    }

    /// Standard output of a command.
    fn hearth(&self, line: &str) -> String {
        let output = Command::new(PROGRAM)
            .env("HEARTH_SOCKET", self.directory.path().join("hearth.sock"))
            .args(line.split_whitespace())
            .output()
            .unwrap();
        assert!(output.status.success(), "{line}: {output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// A connection from this address.
    async fn connect(&self, source: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let (family, own) = match source.contains(':') {
            true => ("TCP6", "2001:db8:ffff::1"),
            false => ("TCP4", "192.0.2.254"),
        };
        let header = format!("PROXY {family} {source} {own} 4711 8080\r\n");
        stream.write_all(header.as_bytes()).await.unwrap();
        stream
    }

    /// `GET /key`: the body, if there is an answer.
    async fn key_page(&self, source: &str) -> Option<String> {
        let mut stream = self.connect(source).await;
        let request =
            format!("GET /key?v={VERSION} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        Some(answer.split_once("\r\n\r\n")?.1.to_owned())
    }

    /// A Noise session of a machine; `None` if the connection ends before.
    async fn noise(&self, source: &str, machine: u16) -> Option<NoiseStream<TcpStream>> {
        let client = Initiator::new(&machine_secret(machine), self.key, VERSION);
        let request = format!(
            "POST /ts2021 HTTP/1.1\r\nHost: hearth\r\nContent-Length: 0\r\nConnection: upgrade\r\n\
             Upgrade: tailscale-control-protocol\r\nX-Tailscale-Handshake: {}\r\n\r\n",
            BASE64.encode(&client.initiation)
        );
        let mut stream = self.connect(source).await;
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.ok()?);
        }
        let mut response = [0; RESPONSE_BYTES];
        stream.read_exact(&mut response).await.ok()?;
        let (seal, open) = client.finish(&response);
        Some(NoiseStream::new(stream, seal, open, &[], &[]))
    }

    /// A control connection of a machine.
    async fn device(&self, source: &str, machine: u16) -> Option<Device> {
        let mut stream = self.noise(source, machine).await?;
        // The early payload: five bytes that announce it, its length, and JSON.
        let mut start = [0; 9];
        stream.read_exact(&mut start).await.ok()?;
        let [.., a, b, c, d] = start;
        let mut early = vec![0; u32::from_be_bytes([a, b, c, d]) as usize];
        stream.read_exact(&mut early).await.ok()?;
        let started = handshake(OnTasks(self.tasks.clone()), TokioIo::new(stream)).await;
        let (requests, connection) = started.ok()?;
        self.tasks.spawn("device", async {
            let _ = connection.await;
        });
        let node_key = node_secret(machine).public();
        Some(Device {
            requests,
            node_key: format!("nodekey:{}", HEXLOWER.encode(node_key.as_bytes())),
        })
    }

    /// A device that joins with a preauth key.
    async fn join(&self, source: &str, machine: u16, auth_key: &str) -> Device {
        let joined = self.try_to_join(source, machine, auth_key).await;
        joined.expect("a connection")
    }

    /// [`Server::join`]; `None` if the connection ends before.
    async fn try_to_join(&self, source: &str, machine: u16, auth_key: &str) -> Option<Device> {
        let mut device = self.device(source, machine).await?;
        let (status, answer) = device
            .register(json!({"Auth": {"AuthKey": auth_key}}))
            .await?;
        assert_eq!(
            (status, &answer["MachineAuthorized"]),
            (200, &json!(true)),
            "{answer}"
        );
        Some(device)
    }

    fn auth_key(&self) -> String {
        self.hearth("users create home");
        let made = self.hearth("preauthkeys create --user home --reusable");
        let is_key = |word: &&str| word.starts_with("hskey-auth-");
        made.split_whitespace()
            .find(is_key)
            .expect(&made)
            .to_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// As many connections need more files than a shell allows by itself.
fn allow_files(process: u32) {
    let allowed = Command::new("prlimit")
        .args(["--pid", &process.to_string(), "--nofile=8192:"])
        .status();
    assert!(
        allowed.is_ok_and(|status| status.success()),
        "prlimit, of util-linux"
    );
}

fn secret_of(mark: u8, number: u16) -> [u8; 32] {
    let mut bytes = [mark; 32];
    bytes[..2].copy_from_slice(&number.to_be_bytes());
    bytes
}

fn machine_secret(number: u16) -> MachineSecret {
    MachineSecret::from_bytes(secret_of(0x11, number))
}

fn node_secret(number: u16) -> ServerSecret {
    ServerSecret::from_bytes(secret_of(0x22, number))
}

/// Runs a device's part of a connection.
#[derive(Clone)]
struct OnTasks(Tasks);

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for OnTasks {
    fn execute(&self, future: F) {
        self.0.spawn("device", future);
    }
}

/// A control connection.
struct Device {
    requests: SendRequest<Full<Bytes>>,
    node_key: String,
}

impl Device {
    async fn post(&mut self, path: &str, body: &Value) -> Option<(u16, Incoming)> {
        let request = Request::post(format!("https://unused{path}"));
        let request = request.body(Full::from(body.to_string())).unwrap();
        let answer = self.requests.send_request(request).await.ok()?;
        Some((answer.status().as_u16(), answer.into_body()))
    }

    async fn register(&mut self, more: Value) -> Option<(u16, Value)> {
        let mut request = json!({
            "Version": VERSION, "NodeKey": self.node_key,
            "Hostinfo": {"Hostname": "device", "OS": "linux"},
        });
        let fields = more.as_object().unwrap().clone();
        request.as_object_mut().unwrap().extend(fields);
        let (status, body) = self.post("/machine/register", &request).await?;
        let body = body.collect().await.ok()?.to_bytes();
        Some((status, serde_json::from_slice(&body).unwrap_or_default()))
    }

    /// A map stream whose first message has arrived.
    async fn map(&mut self) -> Option<Incoming> {
        Some(self.first_map().await?.0)
    }

    /// A map stream, and the start of its first message.
    async fn first_map(&mut self) -> Option<(Incoming, String)> {
        let request = json!({
            "Version": VERSION, "NodeKey": self.node_key, "Stream": true, "KeepAlive": true,
            "DiscoKey": self.node_key.replace("nodekey", "discokey"),
            "Hostinfo": {"Hostname": "device", "OS": "linux"},
        });
        let (status, mut body) = self.post("/machine/map", &request).await?;
        assert_eq!(status, 200);
        let first = body.frame().await?.ok()?.into_data().ok()?;
        Some((body, String::from_utf8_lossy(&first).into_owned()))
    }
}

/// How long devices wait for what they need.
#[derive(Debug, Clone, Copy, Default)]
struct Delays {
    /// A known device: from its connection to its map.
    map: Duration,
    /// A newcomer: from its connection to the end of its registration with a preauth key.
    join: Duration,
    /// A newcomer: the server's key.
    page: Duration,
}

impl Delays {
    /// The middle ones of some measurements. Known is machine 2, and newcomers are the machines from that number on; what
    /// is not measured takes no time.
    async fn measure(server: &Server, auth_key: &str, newcomers: Option<u16>, what: &str) -> Self {
        let (mut maps, mut joins, mut pages) = (Vec::new(), Vec::new(), Vec::new());
        for number in (0..).take(TIMES) {
            let session = async { server.device(HOME, 2).await?.map().await };
            maps.push(delay(session, &format!("{what}: no map")).await);
            let Some(machine) = newcomers.map(|first| first + number) else {
                continue;
            };
            let source = format!("192.0.2.{}", 100 + machine);
            let joining = server.try_to_join(&source, machine, auth_key);
            joins.push(delay(joining, &format!("{what}: cannot join")).await);
            let page = server.key_page("192.0.2.77");
            pages.push(delay(page, &format!("{what}: no key")).await);
        }
        let delays = Self {
            map: middle(maps),
            join: middle(joins),
            page: middle(pages),
        };
        println!("{what}: {delays:?}");
        delays
    }

    /// The longer ones of two measurements.
    fn max(self, other: Self) -> Self {
        Self {
            map: self.map.max(other.map),
            join: self.join.max(other.join),
            page: self.page.max(other.page),
        }
    }

    /// Fails if something took too long for an attack, and also much longer than it takes without one.
    fn assert_short(self, quiet: Self, what: &str) {
        for (found, quiet, most) in [
            (self.map, quiet.map, KNOWN),
            (self.join, quiet.join, NEWCOMER),
            (self.page, quiet.page, NEWCOMER),
        ] {
            let most = most.max(quiet * SLOWER);
            assert!(found <= most, "{what}: {self:?}, without it {quiet:?}");
        }
    }
}

/// How long something takes that must not fail.
async fn delay<T>(does: impl Future<Output = Option<T>>, fault: &str) -> Duration {
    let began = system_clock::now().mono;
    let done = timeout(DEADLINE, does).await;
    assert!(matches!(done, Ok(Some(_))), "{fault}");
    system_clock::now().mono.saturating_sub(began)
}

/// The middle one; none takes no time.
fn middle(mut delays: Vec<Duration>) -> Duration {
    delays.sort();
    let middle = delays.get(delays.len() / 2);
    middle.copied().unwrap_or_default()
}

/// Whether a map stream is still open.
async fn is_open(stream: &mut Incoming) -> bool {
    loop {
        match timeout(Duration::from_millis(20), stream.frame()).await {
            Err(_) => return true,
            Ok(Some(Ok(_))) => {}
            Ok(_) => return false,
        }
    }
}

/// Whether a connection on which nothing is to be read is still open.
async fn is_silent(stream: &mut TcpStream) -> bool {
    let read = timeout(Duration::from_millis(1), stream.read(&mut [0])).await;
    read.is_err()
}

/// How strangers take connections.
#[derive(Debug, Clone, Copy)]
enum Attack {
    /// Silent connections of two addresses.
    TwoSources,
    /// Silent connections of many networks of one site.
    OneSite,
    /// Half of a request from an address each.
    ManySources,
    /// Noise sessions of unknown machines, from an address each.
    UnknownMachines,
}

impl Attack {
    const ALL: [Self; 4] = [
        Self::TwoSources,
        Self::OneSite,
        Self::ManySources,
        Self::UnknownMachines,
    ];

    fn source(self, number: usize) -> String {
        match self {
            Self::TwoSources => format!("203.0.113.{}", number % 2 + 1),
            Self::OneSite => format!("2001:db8:1:{number:x}::1"),
            Self::ManySources | Self::UnknownMachines => {
                format!("198.51.{}.{}", number / 250, number % 250 + 1)
            }
        }
    }

    /// So many connections, which are held as long as this lives.
    async fn hold(self, server: &Server, count: usize) -> Vec<Box<dyn std::any::Any>> {
        let mut held: Vec<Box<dyn std::any::Any>> = Vec::new();
        for number in 0..count {
            let source = self.source(number);
            match self {
                Self::UnknownMachines => {
                    let machine = u16::try_from(number).unwrap() + 10_000;
                    held.push(Box::new(server.noise(&source, machine).await));
                }
                Self::ManySources => {
                    let mut stream = server.connect(&source).await;
                    let _ = stream.write_all(b"GET /key HTTP/1.1\r\n").await;
                    held.push(Box::new(stream));
                }
                Self::TwoSources | Self::OneSite => {
                    held.push(Box::new(server.connect(&source).await))
                }
            }
        }
        held
    }
}

async fn a_known_device_gets_in(class: (&str, usize)) {
    let (config, connections) = class;
    let server = Server::start(config).await;
    let auth_key = server.auth_key();
    let mut connected = server.join(HOME, 1, &auth_key).await;
    let mut stream = connected.map().await.unwrap();
    drop(server.join(HOME, 2, &auth_key).await);
    let mut newcomers = (3..).step_by(TIMES);
    let mut measure =
        async |what: &str| Delays::measure(&server, &auth_key, newcomers.next(), what).await;
    let quiet = measure("quiet").await;
    let mut attacked = Vec::new();
    for attack in Attack::ALL {
        let held = attack
            .hold(&server, connections + connections / 4 + 8)
            .await;
        let what = format!("{attack:?} with {connections} connections");
        attacked.push((measure(&what).await, what.clone()));
        assert!(
            is_open(&mut stream).await,
            "{what}: the map stream has ended"
        );
        drop(held);
    }
    // What else the machine does may have begun meanwhile.
    let quiet = quiet.max(measure("quiet again").await);
    for (delays, what) in attacked {
        delays.assert_short(quiet, &what);
    }
    let log = server.log();
    assert!(!log.contains("panicked"), "{log}");
}

#[tokio::test]
async fn a_known_device_gets_in_with_64_mb() {
    a_known_device_gets_in(CLASSES[0]).await;
}

#[tokio::test]
async fn a_known_device_gets_in_with_128_mb() {
    a_known_device_gets_in(CLASSES[1]).await;
}

#[tokio::test]
async fn a_known_device_gets_in_with_the_default_limits() {
    a_known_device_gets_in(CLASSES[2]).await;
}

/// While strangers take every place that becomes free. Newcomers, too, if they can be told from the strangers: not if these
/// come from ever new addresses.
async fn a_known_device_gets_in_all_the_time(strangers: Attack) {
    let (config, connections) = CLASSES[0];
    let server = Server::start(config).await;
    let auth_key = server.auth_key();
    drop(server.join(HOME, 2, &auth_key).await);
    let newcomers = |first: u16| matches!(strangers, Attack::TwoSources).then_some(first);
    let quiet = Delays::measure(&server, &auth_key, newcomers(3), "quiet").await;
    let (address, attackers) = (server.address, Tasks::new());
    let taken = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&taken);
    attackers.spawn("strangers", async move {
        let mut held: VecDeque<TcpStream> = VecDeque::new();
        for number in 0_usize.. {
            let Ok(mut stream) = TcpStream::connect(address).await else {
                return;
            };
            let source = strangers.source(number % 50_000);
            let header = format!("PROXY TCP4 {source} 192.0.2.254 1 2\r\n");
            let _ = stream.write_all(header.as_bytes()).await;
            held.push_back(stream);
            count.fetch_add(1, Ordering::Relaxed);
            if held.len() > 2 * connections {
                held.pop_front();
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    // Until every place was taken.
    let filled = async {
        while taken.load(Ordering::Relaxed) < 3 * connections {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Some(())
    };
    delay(filled, "no strangers").await;
    let what = format!("{strangers:?} again and again");
    let attacked = Delays::measure(&server, &auth_key, newcomers(6), &what).await;
    attackers.finish(Duration::ZERO).await;
    let again = Delays::measure(&server, &auth_key, newcomers(9), "quiet again").await;
    attacked.assert_short(quiet.max(again), &what);
}

#[tokio::test]
async fn a_known_device_gets_in_while_two_strangers_connect_again_and_again() {
    a_known_device_gets_in_all_the_time(Attack::TwoSources).await;
}

#[tokio::test]
async fn a_known_device_gets_in_while_many_strangers_connect_again_and_again() {
    a_known_device_gets_in_all_the_time(Attack::ManySources).await;
}

/// Strangers with new machine keys ask for maps, as devices do that were deleted; one of these is told to log in again.
async fn a_deleted_device_is_told_so(strangers: Attack) {
    let (config, connections) = CLASSES[0];
    let server = Server::start(config).await;
    let auth_key = server.auth_key();
    drop(server.join(HOME, 1, &auth_key).await);
    server.hearth("nodes delete 1 --force");
    let mut held = Vec::new();
    for number in 0..connections {
        let machine = u16::try_from(number).unwrap() + 20_000;
        let source = strangers.source(number);
        if let Some(mut stranger) = server.device(&source, machine).await {
            let stream = stranger.map().await;
            held.push((stranger, stream));
        }
    }
    assert!(held.iter().filter(|(_, stream)| stream.is_some()).count() > 4);
    let session = async { server.device(HOME, 1).await?.first_map().await };
    let (mut stream, first) = timeout(DEADLINE, session).await.unwrap().expect("a map");
    assert!(first.contains("\"Expired\":true"), "{strangers:?}: {first}");
    assert!(is_open(&mut stream).await, "it would ask again at once");
}

#[tokio::test]
async fn a_deleted_device_is_told_so_while_two_strangers_ask_for_maps() {
    a_deleted_device_is_told_so(Attack::TwoSources).await;
}

#[tokio::test]
async fn a_deleted_device_is_told_so_while_many_strangers_ask_for_maps() {
    a_deleted_device_is_told_so(Attack::ManySources).await;
}

/// A household has more devices than `connections_per_address` allows strangers.
#[tokio::test]
async fn all_devices_of_a_household_are_connected_at_the_same_time() {
    let config = "board = \"memory-128\"\n[limits]\nconnections_per_address = 4\n";
    let server = Server::start(config).await;
    let auth_key = server.auth_key();
    let mut devices = Vec::new();
    for machine in 0..20 {
        let mut device = server.join(HOME, machine, &auth_key).await;
        let stream = timeout(DEADLINE, device.map()).await.unwrap().unwrap();
        devices.push((device, stream));
    }
    let held = Attack::TwoSources.hold(&server, 100).await;
    for (_, stream) in &mut devices {
        assert!(is_open(stream).await);
    }
    drop(held);
}

/// Strangers of the same address, such as others behind the same router, take the places of other strangers only.
#[tokio::test]
async fn what_is_proven_stays_open() {
    let (config, connections) = CLASSES[0];
    let server = Server::start(config).await;
    let auth_key = server.auth_key();
    drop(server.join(HOME, 1, &auth_key).await);
    let api_key = server.hearth("apikeys create");
    let is_key = |word: &&str| word.starts_with("hskey-api-");
    let api_key = api_key.split_whitespace().find(is_key).expect("a key");

    let mut relay = relay_client(&server, 1).await;
    let mut api = server.connect(HOME).await;
    let mut stranger = server.connect(HOME).await;
    let ask =
        format!("GET /api/v1/node HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {api_key}\r\n\r\n");
    api.write_all(ask.as_bytes()).await.unwrap();
    assert!(head(&mut api).await.starts_with("HTTP/1.1 200 "));

    let mut held = Vec::new();
    for _ in 0..2 * connections {
        held.push(server.connect(HOME).await);
    }
    assert!(server.key_page(HOME).await.is_some());
    assert!(
        !is_silent(&mut stranger).await,
        "the oldest stranger is closed"
    );
    api.write_all(ask.as_bytes()).await.unwrap();
    let answer = timeout(DEADLINE, head(&mut api)).await.unwrap();
    assert!(answer.contains("HTTP/1.1 200 "), "{answer}");
    let mut ping = Vec::new();
    Frame::Ping([7; 8]).encode(&mut ping);
    relay.write_all(&ping).await.unwrap();
    loop {
        let (kind, body) = timeout(DEADLINE, next(&mut relay)).await.unwrap();
        if kind == Kind::Pong {
            assert_eq!(body, [7; 8]);
            break;
        }
    }
    let open = held.iter_mut().rev().take(connections);
    let mut still = 0;
    for stream in open {
        still += usize::from(is_silent(stream).await);
    }
    assert!(
        (2..=12).contains(&still),
        "{still} of connections_per_address"
    );
}

/// What a proxy says that is not in `listen.trusted_proxies` is ignored, and reported once.
#[tokio::test]
async fn a_proxy_that_is_not_trusted_is_reported_once() {
    let server = Server::start("board = \"memory-64\"\n").await;
    for _ in 0..3 {
        // Loopback, too, is not trusted by itself.
        let mut stream = bound("127.0.0.7", server.address).await;
        let request = "GET /key?v=130 HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 192.0.2.9\r\n\r\n";
        stream.write_all(request.as_bytes()).await.unwrap();
        assert!(head(&mut stream).await.starts_with("HTTP/1.1 200 "));
    }
    let said = "carry X-Forwarded-For, but `listen.trusted_proxies` does not contain 127.0.0.7";
    assert_eq!(server.log().matches(said).count(), 1, "{}", server.log());
    let status = server.hearth("status");
    assert!(status.contains(said), "{status}");
}

/// A connection from an address of this machine.
async fn bound(source: &str, to: SocketAddr) -> TcpStream {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket
        .bind(SocketAddr::new(source.parse().unwrap(), 0))
        .unwrap();
    socket.connect(to).await.unwrap()
}

/// Reads an answer up to the end of its head, and what has come of its body.
async fn head(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    while !answer.windows(4).any(|end| end == b"\r\n\r\n") {
        if stream.read_buf(&mut answer).await.unwrap() == 0 {
            break;
        }
    }
    // The rest of the body, so that the next answer is read from its start.
    let _ = timeout(
        Duration::from_millis(50),
        stream.read_to_end(&mut Vec::new()),
    )
    .await;
    String::from_utf8_lossy(&answer).into_owned()
}

/// A connection to the relay with the node key of a machine.
async fn relay_client(server: &Server, machine: u16) -> TcpStream {
    let mut stream = server.connect(HOME).await;
    let request = "GET /derp HTTP/1.1\r\nHost: x\r\nUpgrade: DERP\r\nConnection: Upgrade\r\n\
                   Derp-Fast-Start: 1\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let (kind, body) = next(&mut stream).await;
    let relay: Key = match Frame::decode(kind, &body) {
        Ok(Frame::ServerKey(key)) => key,
        other => panic!("{other:?} instead of the relay's key"),
    };
    let secret = node_secret(machine);
    let sealed = SharedKey::new(&secret, &relay).seal(&[3; 24], br#"{"version":2}"#);
    let login = Frame::ClientInfo {
        key: secret.public(),
        sealed: &sealed.unwrap(),
    };
    let mut bytes = Vec::new();
    login.encode(&mut bytes);
    stream.write_all(&bytes).await.unwrap();
    assert_eq!(next(&mut stream).await.0, Kind::ServerInfo);
    stream
}

async fn next(stream: &mut TcpStream) -> (Kind, Vec<u8>) {
    let mut header = [0; HEADER_LEN];
    stream.read_exact(&mut header).await.unwrap();
    let header = Header::decode(&header);
    let mut body = vec![0; header.length as usize];
    stream.read_exact(&mut body).await.unwrap();
    (Kind::from_byte(header.kind).unwrap(), body)
}
