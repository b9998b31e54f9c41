//! A device: it joins, keeps a map stream and comes back by itself, as the official client does.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use data_encoding::BASE64;
use hearth_core::keys::{MachineKey, MachineSecret};
use hearth_core::netmap::frame::testing::text_of;
use hearth_core::netmap::testing::View;
use hearth_core::noise::handshake::{RESPONSE_BYTES, testing::Initiator};
use hearth_derp::ServerSecret;
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper::body::Incoming;
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::network::Network;
use crate::control::noise_stream::NoiseStream;
use crate::net::stream::Stream;
use crate::relay_key::node_key;
use crate::supervise::Tasks;

/// The capability version of the devices.
const VERSION: u16 = 130;
/// Time between two attempts to connect.
const AGAIN: Duration = Duration::from_secs(2);
/// How long a device waits for an answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// After how long without a message a device gives its stream up, which the server keeps alive each ten minutes.
const SILENCE: Duration = Duration::from_secs(12 * 60);

/// How a device stands with the tailnet, as far as it knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Standing {
    /// It wants to join.
    Joining,
    /// It waits for a person, who got this address of a page.
    Waiting(String),
    /// It has joined.
    In,
    /// It has not, or no longer, and tries nothing until somebody logs in.
    Out(String),
}

/// What a device is and knows.
pub(super) struct State {
    pub(super) is_on: bool,
    pub(super) standing: Standing,
    /// The preauth key to log in with.
    pub(super) auth_key: String,
    /// How many node keys it has had.
    keys: u8,
    pub(super) hostname: String,
    pub(super) endpoints: Vec<String>,
    pub(super) offers: Vec<String>,
    pub(super) is_ephemeral: bool,
    /// Whether it has something to report.
    has_news: bool,
    wants_logout: bool,
    /// Inside of the present connection.
    requests: Option<SendRequest<Full<Bytes>>>,
    pub(super) is_streaming: bool,
    pub(super) view: View,
    /// The identity of the server, as first seen.
    server: Option<MachineKey>,
    /// How many streams it has had.
    pub(super) streams: u32,
    /// Why its last connection ended.
    pub(super) last_end: String,
}

/// A device. Clones are the same one.
#[derive(Clone)]
pub(super) struct Device {
    pub(super) number: usize,
    network: Network,
    tasks: Tasks,
    state: Arc<Mutex<State>>,
    changed: watch::Sender<()>,
}

/// Runs a device's part of a connection.
#[derive(Clone)]
struct OnTasks(Tasks);

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for OnTasks {
    fn execute(&self, future: F) {
        self.0.spawn("device", future);
    }
}

type Fallible<T> = Result<T, io::Error>;

fn broken(text: impl ToString) -> io::Error {
    io::Error::other(text.to_string())
}

impl Device {
    /// A device that is off, and its life.
    pub(super) fn new(number: usize, network: &Network, tasks: &Tasks) -> Self {
        let state = State {
            is_on: false,
            standing: Standing::Joining,
            auth_key: String::new(),
            keys: 1,
            hostname: format!("device{number}"),
            endpoints: vec![format!("198.51.100.{}:41641", number + 1)],
            offers: Vec::new(),
            is_ephemeral: false,
            has_news: false,
            wants_logout: false,
            requests: None,
            is_streaming: false,
            view: View::default(),
            server: None,
            streams: 0,
            last_end: String::new(),
        };
        let device = Self {
            number,
            network: network.clone(),
            tasks: tasks.clone(),
            state: Arc::new(Mutex::new(state)),
            changed: watch::Sender::new(()),
        };
        tasks.spawn("device", device.clone().live());
        device
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic while locked")
    }

    /// Changes what it is, and has it act on that.
    pub(super) fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.changed.send_replace(());
    }

    /// Changes what it reports.
    pub(super) fn report(&self, change: impl FnOnce(&mut State)) {
        self.set(|state| {
            change(state);
            state.has_news = true;
        });
    }

    /// Logs in, with a preauth key or without.
    pub(super) fn log_in(&self, auth_key: &str) {
        self.set(|state| {
            state.is_on = true;
            state.auth_key = auth_key.to_owned();
            if matches!(state.standing, Standing::Out(_)) {
                state.keys += 1;
            }
            state.standing = Standing::Joining;
        });
        // It goes on with a connection of its own.
        self.network.cut(Some(self.number));
    }

    pub(super) fn log_out(&self) {
        self.set(|state| state.wants_logout = true);
    }

    /// Switches it off or on.
    pub(super) fn switch(&self, is_on: bool) {
        self.set(|state| state.is_on = is_on);
        if !is_on {
            self.network.cut(Some(self.number));
        }
    }

    /// Whether it would have a map stream if everything worked.
    pub(super) fn should_stream(&self) -> bool {
        let state = self.state();
        state.is_on && state.standing == Standing::In
    }

    pub(super) fn machine(&self) -> MachineKey {
        self.secret().public()
    }

    fn secret(&self) -> MachineSecret {
        MachineSecret::from_bytes([u8::try_from(self.number).expect("few devices") + 1; 32])
    }

    /// The secret of its node key.
    pub(super) fn node_secret(&self) -> ServerSecret {
        let mut bytes = [u8::try_from(self.number).expect("few devices") + 101; 32];
        bytes[31] = self.state().keys;
        ServerSecret::from_bytes(bytes)
    }

    fn node_key(&self) -> String {
        node_key(&self.node_secret().public()).to_string()
    }

    pub(super) fn source(&self) -> SocketAddr {
        let number = u8::try_from(self.number).expect("few devices");
        SocketAddr::from(([198, 51, 100, number + 1], 40_000))
    }

    async fn live(self) {
        loop {
            self.until(|state| state.is_on && !matches!(state.standing, Standing::Out(_)))
                .await;
            let session = self.session();
            tokio::select! {
                biased;
                () = self.until(|state| !state.is_on) => {}
                ended = session => {
                    let ended = ended.map_or_else(|fault| fault.to_string(), |()| "ended".to_owned());
                    self.state().last_end = ended;
                }
            }
            {
                let mut state = self.state();
                state.requests = None;
                state.is_streaming = false;
            }
            sleep(AGAIN).await;
        }
    }

    async fn until(&self, is_so: impl Fn(&State) -> bool) {
        let mut changes = self.changed.subscribe();
        while !is_so(&self.state()) {
            let _ = changes.changed().await;
        }
    }

    async fn session(&self) -> Fallible<()> {
        let stream = timeout(PATIENCE, self.connect()).await??;
        let started = handshake(OnTasks(self.tasks.clone()), TokioIo::new(stream));
        let (requests, connection) = timeout(PATIENCE, started).await?.map_err(broken)?;
        self.tasks.spawn("device", async {
            let _ = connection.await;
        });
        self.state().requests = Some(requests);
        loop {
            let standing = self.state().standing.clone();
            match standing {
                Standing::Joining => self.register("").await?,
                Standing::Waiting(url) => self.register(&url).await?,
                Standing::In => return self.keep_stream().await,
                Standing::Out(_) => return Ok(()),
            }
        }
    }

    async fn connect(&self) -> Fallible<NoiseStream<Stream>> {
        let key = self.server_key().await?;
        let client = Initiator::new(&self.secret(), key, VERSION);
        let request = format!(
            "POST /ts2021 HTTP/1.1\r\nHost: hearth\r\nContent-Length: 0\r\nConnection: upgrade\r\n\
             Upgrade: tailscale-control-protocol\r\nX-Tailscale-Handshake: {}\r\n\r\n",
            BASE64.encode(&client.initiation)
        );
        let mut stream = self.network.connect(self.number, self.source()).await?;
        stream.write_all(request.as_bytes()).await?;
        let head = read_head(&mut stream).await?;
        if !head.starts_with("HTTP/1.1 101 ") {
            return Err(broken(head));
        }
        let mut response = [0; RESPONSE_BYTES];
        stream.read_exact(&mut response).await?;
        let (seal, open) = client.finish(&response);
        let mut stream = NoiseStream::new(stream, seal, open, &[], &[]);
        // The early payload: five bytes that announce it, its length, and JSON.
        let mut start = [0; 9];
        stream.read_exact(&mut start).await?;
        let length = u32::from_be_bytes([start[5], start[6], start[7], start[8]]);
        let mut early = vec![0; length as usize];
        stream.read_exact(&mut early).await?;
        Ok(stream)
    }

    /// The identity of the server, which must never change.
    async fn server_key(&self) -> Fallible<MachineKey> {
        if let Some(key) = self.state().server {
            return Ok(key);
        }
        let mut stream = self.network.connect(self.number, self.source()).await?;
        let request =
            format!("GET /key?v={VERSION} HTTP/1.1\r\nHost: hearth\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        let (_, body) = answer
            .split_once("\r\n\r\n")
            .ok_or_else(|| broken("no body"))?;
        let keys: Value = serde_json::from_str(body)?;
        let key = keys["publicKey"].as_str().and_then(|key| key.parse().ok());
        let key = key.ok_or_else(|| broken("no key"))?;
        self.state().server = Some(key);
        Ok(key)
    }

    /// A request inside Noise.
    async fn ask(&self, path: &str, body: &Value) -> Fallible<(u16, Incoming)> {
        let requests = self.state().requests.clone();
        let mut requests = requests.ok_or_else(|| broken("not connected"))?;
        let request = Request::post(format!("https://unused{path}"))
            .body(Full::from(body.to_string()))
            .map_err(broken)?;
        let answer = requests.send_request(request).await.map_err(broken)?;
        Ok((answer.status().as_u16(), answer.into_body()))
    }

    async fn ask_whole(&self, path: &str, body: &Value) -> Fallible<(u16, Bytes)> {
        let asked = async {
            let (status, body) = self.ask(path, body).await?;
            let body = body.collect().await.map_err(broken)?.to_bytes();
            Ok((status, body))
        };
        timeout(PATIENCE, asked).await?
    }

    fn hostinfo(&self) -> Value {
        let state = self.state();
        json!({"Hostname": state.hostname, "OS": "linux", "RoutableIPs": state.offers})
    }

    async fn register(&self, followup: &str) -> Fallible<()> {
        let mut request = json!({
            "Version": VERSION, "NodeKey": self.node_key(), "Hostinfo": self.hostinfo(),
            "Ephemeral": self.state().is_ephemeral,
        });
        let auth_key = self.state().auth_key.clone();
        if !auth_key.is_empty() {
            request["Auth"] = json!({ "AuthKey": auth_key });
        }
        let (status, body) = match followup {
            "" => self.ask_whole("/machine/register", &request).await?,
            url => {
                request["Followup"] = url.into();
                // Held until a person decides.
                let (status, body) = self.ask("/machine/register", &request).await?;
                (status, body.collect().await.map_err(broken)?.to_bytes())
            }
        };
        if status != 200 {
            sleep(AGAIN).await;
            return Err(broken(String::from_utf8_lossy(&body)));
        }
        let answer: Value = serde_json::from_slice(&body)?;
        let mut state = self.state();
        let text = |name: &str| answer[name].as_str().unwrap_or_default().to_owned();
        if !text("Error").is_empty() {
            state.standing = Standing::Out(text("Error"));
        } else if !text("AuthURL").is_empty() {
            state.standing = Standing::Waiting(text("AuthURL"));
        } else if answer["NodeKeyExpired"] == true {
            state.keys += 1;
            state.standing = Standing::Out("the key has expired".to_owned());
        } else {
            state.standing = Standing::In;
        }
        Ok(())
    }

    fn map_request(&self) -> Value {
        let hostinfo = self.hostinfo();
        let compress = if self.number.is_multiple_of(2) {
            "zstd"
        } else {
            ""
        };
        let key = self.node_key();
        json!({
            "Version": VERSION, "DiscoKey": key.replace("nodekey", "discokey"), "NodeKey": key,
            "KeepAlive": true, "Compress": compress, "Hostinfo": hostinfo,
            "Endpoints": self.state().endpoints,
        })
    }

    /// A map as of now.
    pub(super) async fn fresh_view(&self) -> Fallible<View> {
        let mut request = self.map_request();
        request["ReadOnly"] = true.into();
        let (status, body) = self.ask_whole("/machine/map", &request).await?;
        if status != 200 {
            return Err(broken(format!(
                "{status}: {}",
                String::from_utf8_lossy(&body)
            )));
        }
        let mut received = body.to_vec();
        let message = next_message(&mut received).ok_or_else(|| broken("half a map"))?;
        let mut view = View::default();
        view.apply(&message);
        Ok(view)
    }

    async fn keep_stream(&self) -> Fallible<()> {
        let mut request = self.map_request();
        request["Stream"] = true.into();
        let (status, mut body) = timeout(PATIENCE, self.ask("/machine/map", &request)).await??;
        if status != 200 {
            let body = body.collect().await.map_err(broken)?.to_bytes();
            return Err(broken(format!(
                "{status}: {}",
                String::from_utf8_lossy(&body)
            )));
        }
        let mut received = Vec::new();
        let mut is_first = true;
        loop {
            tokio::select! {
                biased;
                () = self.until(|state| state.has_news || state.wants_logout) => self.act().await?,
                frame = timeout(SILENCE, body.frame()) => {
                    let Some(frame) = frame? else { return Ok(()) };
                    let frame = frame.map_err(broken)?;
                    received.extend_from_slice(frame.data_ref().map_or(&[], |data| data));
                    while let Some(message) = next_message(&mut received) {
                        self.hear(&message, std::mem::take(&mut is_first));
                    }
                    if self.state().standing != Standing::In {
                        return Ok(());
                    }
                }
            }
        }
    }

    fn hear(&self, message: &Value, is_first: bool) {
        let mut state = self.state();
        if is_first {
            state.view = View::default();
            state.is_streaming = true;
            state.streams += 1;
        }
        state.view.apply(message);
        if state.view.is_expired() {
            state.standing = Standing::Out("told to log in again".to_owned());
        }
    }

    /// Does what the person in front of it wants.
    async fn act(&self) -> Fallible<()> {
        let (has_news, wants_logout) = {
            let mut state = self.state();
            (
                std::mem::take(&mut state.has_news),
                std::mem::take(&mut state.wants_logout),
            )
        };
        if has_news {
            let mut request = self.map_request();
            request["OmitPeers"] = true.into();
            let (status, _) = self.ask_whole("/machine/map", &request).await?;
            if status != 200 {
                // A new connection tells all of it.
                return Err(broken(status));
            }
        }
        if wants_logout {
            let request = json!({
                "Version": VERSION, "NodeKey": self.node_key(), "Hostinfo": self.hostinfo(),
                "Expiry": "1970-01-01T00:02:03Z",
            });
            let (status, _) = self.ask_whole("/machine/register", &request).await?;
            // Refused, it is up to the person to try again.
            if status == 200 {
                self.state().standing = Standing::Out("logged out".to_owned());
            }
        }
        Ok(())
    }
}

pub(super) async fn read_head(stream: &mut Stream) -> Fallible<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

/// Takes one message off the front of what was received: a length in little-endian order, and JSON.
fn next_message(received: &mut Vec<u8>) -> Option<Value> {
    let length = u32::from_le_bytes(*received.first_chunk::<4>()?) as usize;
    let body = received.get(4..4 + length)?;
    let message = serde_json::from_slice(&text_of(body)).expect("a message is JSON");
    received.drain(..4 + length);
    Some(message)
}
