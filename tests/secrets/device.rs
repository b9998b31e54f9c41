//! Devices: a client of the control protocol that joins, keeps a map stream and does what it is asked.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use data_encoding::BASE64;
use hearth::control::noise_stream::NoiseStream;
use hearth::supervise::Tasks;
use hearth_core::keys::{MachineKey, MachineSecret};
use hearth_core::noise::handshake::{RESPONSE_BYTES, testing::Initiator};
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use crate::secret::{Kind, Secrets};
use crate::server::{Auth, Server, http};

/// The capability version that the devices have.
const VERSION: u16 = 130;

/// Devices of one server.
pub struct Devices {
    address: SocketAddr,
    key: MachineKey,
    tasks: Tasks,
    /// Those that have joined, in the order of their node ids.
    pub nodes: Vec<Device>,
    made: u8,
    calls: Arc<Mutex<Vec<String>>>,
}

/// One device with its control connection.
pub struct Device {
    requests: SendRequest<Full<Bytes>>,
    /// `nodekey:` text.
    pub node_key: String,
}

/// Runs a device's part of a connection.
#[derive(Clone)]
struct OnTasks(Tasks);

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for OnTasks {
    fn execute(&self, future: F) {
        self.0.spawn("device", future);
    }
}

impl Devices {
    /// No device.
    pub async fn new(server: &Server, tasks: &Tasks) -> Self {
        let answer = server.get(&format!("/key?v={VERSION}"), &Auth::None).await;
        let (_, body) = answer.body.split_once("\r\n\r\n").unwrap();
        let keys: Value = serde_json::from_str(body).unwrap();
        Self {
            address: server.address,
            key: keys["publicKey"].as_str().unwrap().parse().unwrap(),
            tasks: tasks.clone(),
            nodes: Vec::new(),
            made: 0,
            calls: Arc::default(),
        }
    }

    /// The names of all calls to nodes.
    pub fn calls(&self) -> Vec<String> {
        self.calls.lock().unwrap().clone()
    }

    /// Joins with a preauth key and opens a map stream.
    pub async fn join(&mut self, name: &str, auth_key: &str) {
        let mut device = self.connect().await;
        let answer = device
            .register(name, json!({"Auth": {"AuthKey": auth_key}}))
            .await;
        assert_eq!(answer["MachineAuthorized"], true, "{answer}");
        device.open_stream(name, self).await;
        self.nodes.push(device);
    }

    /// What is answered to a device that shows a key.
    pub async fn try_key(&mut self, name: &str, auth_key: &str) -> Value {
        let mut device = self.connect().await;
        device
            .register(name, json!({"Auth": {"AuthKey": auth_key}}))
            .await
    }

    /// The id of a new registration that waits for a person.
    pub async fn pending(&mut self, secrets: &mut Secrets) -> String {
        let (_, url) = self.ask_to_join("tablet").await;
        let id = last_part(&url);
        secrets.text(Kind::Id, "pending registration", &id);
        id
    }

    /// A device that asks to join, and the URL of the page about it.
    pub async fn ask_to_join(&mut self, name: &str) -> (Device, String) {
        let mut device = self.connect().await;
        let answer = device.register(name, json!({})).await;
        let url = answer["AuthURL"].as_str().unwrap().to_owned();
        assert!(url.contains("/register/"), "{answer}");
        (device, url)
    }

    /// The id of a new SSH connection that waits for a person.
    pub async fn ssh_check(&mut self, secrets: &mut Secrets) -> String {
        let path = "/machine/ssh/action/1/to/2?local_user=root";
        let (_, answer) = self.nodes[1].request("GET", path, "").await;
        let (_, id) = answer.rsplit_once("auth_id=").unwrap();
        let id = id.trim_end_matches(['"', '}']).to_owned();
        secrets.text(Kind::Id, "SSH connection", &id);
        id
    }

    async fn connect(&mut self) -> Device {
        self.made += 1;
        let secret = MachineSecret::from_bytes([self.made; 32]);
        let client = Initiator::new(&secret, self.key, VERSION);
        let request = format!(
            "POST /ts2021 HTTP/1.1\r\nHost: hearth\r\nContent-Length: 0\r\nConnection: upgrade\r\n\
             Upgrade: tailscale-control-protocol\r\nX-Tailscale-Handshake: {}\r\n\r\n",
            BASE64.encode(&client.initiation)
        );
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        let mut response = [0; RESPONSE_BYTES];
        stream.read_exact(&mut response).await.unwrap();
        let (seal, open) = client.finish(&response);
        let mut stream = NoiseStream::new(stream, seal, open, &[], &[]);
        // The early payload: five bytes that announce it, its length, and JSON.
        let mut start = [0; 9];
        stream.read_exact(&mut start).await.unwrap();
        let length = u32::from_be_bytes([start[5], start[6], start[7], start[8]]);
        let mut early = vec![0; length as usize];
        stream.read_exact(&mut early).await.unwrap();
        let started = handshake(OnTasks(self.tasks.clone()), TokioIo::new(stream)).await;
        let (requests, connection) = started.unwrap();
        self.tasks.spawn("device", async {
            let _ = connection.await;
        });
        Device {
            requests,
            node_key: format!("nodekey:{}", format!("{:02x}", self.made).repeat(32)),
        }
    }
}

impl Device {
    /// A request inside Noise: status and body of the answer.
    pub async fn request(&mut self, method: &str, path: &str, body: &str) -> (u16, String) {
        let request = Request::builder()
            .method(method)
            .uri(format!("https://unused{path}"))
            .body(Full::from(body.to_owned()))
            .unwrap();
        let answer = self.requests.send_request(request).await.unwrap();
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    /// Registers, with more fields.
    pub async fn register(&mut self, name: &str, more: Value) -> Value {
        let mut request = json!({
            "Version": VERSION, "NodeKey": self.node_key,
            "Hostinfo": {"Hostname": name, "OS": "linux"},
        });
        let fields = more.as_object().unwrap().clone();
        request.as_object_mut().unwrap().extend(fields);
        let (status, body) = self
            .request("POST", "/machine/register", &request.to_string())
            .await;
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    }

    /// Opens a map stream, reads it to its end in the background and answers what it asks.
    async fn open_stream(&mut self, name: &str, devices: &Devices) {
        let request = json!({
            "Version": VERSION, "NodeKey": self.node_key, "Stream": true, "KeepAlive": true,
            "DiscoKey": self.node_key.replace("nodekey", "discokey"),
            "Hostinfo": {"Hostname": name, "OS": "linux"},
        });
        let request = Request::post("https://unused/machine/map")
            .body(Full::from(request.to_string()))
            .unwrap();
        let mut stream = self
            .requests
            .send_request(request)
            .await
            .unwrap()
            .into_body();
        let mut device = Device {
            requests: self.requests.clone(),
            node_key: self.node_key.clone(),
        };
        let (address, calls) = (devices.address, Arc::clone(&devices.calls));
        let (first, arrived) = oneshot::channel();
        let mut first = Some(first);
        devices.tasks.spawn("map stream", async move {
            let mut received = Vec::new();
            while let Some(Ok(frame)) = stream.frame().await {
                received.extend_from_slice(frame.data_ref().map_or(&[], |data| data));
                while let Some(message) = next_message(&mut received) {
                    if let Some(first) = first.take() {
                        let _ = first.send(());
                    }
                    if let Some(ping) = message.get("PingRequest").filter(|ping| ping.is_object()) {
                        calls
                            .lock()
                            .unwrap()
                            .push(last_part(ping["URL"].as_str().unwrap()));
                        device.answer(ping, address).await;
                    }
                }
            }
        });
        arrived.await.unwrap();
    }

    /// Does what the server asks for.
    async fn answer(&mut self, ping: &Value, address: SocketAddr) {
        let url = ping["URL"].as_str().unwrap();
        if ping["URLIsNoise"] != true {
            let (_, path) = url.split_once("/machine").unwrap();
            http(address, "HEAD", &format!("/machine{path}"), &Auth::None, "").await;
            return;
        }
        let path = url.trim_start_matches("https://unused");
        if ping["Types"] == "c2n" {
            let answer =
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";
            self.request("POST", path, answer).await;
            return;
        }
        for kind in ping["Types"].as_str().unwrap().split(',') {
            let answer = json!({"Type": kind, "IP": ping["IP"], "LatencySeconds": 0.01});
            self.request("POST", path, &answer.to_string()).await;
        }
    }
}

/// Takes one message off the front of what was received: a length in little-endian order, and JSON.
fn next_message(received: &mut Vec<u8>) -> Option<Value> {
    let length = u32::from_le_bytes(*received.first_chunk::<4>()?) as usize;
    let message = received.get(4..4 + length)?;
    let message = serde_json::from_slice(message).unwrap();
    received.drain(..4 + length);
    Some(message)
}

/// What stands behind the last `/` or `=` of a URL.
fn last_part(url: &str) -> String {
    url.rsplit(['/', '=']).next().unwrap().to_owned()
}
