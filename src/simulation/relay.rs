//! A client of the relay: it connects while its device is in the tailnet, and stays until the relay ends the connection.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use hearth_core::keys::NodeKey;
use hearth_derp::frame::{Frame, HEADER_LEN, Header, Kind};
use hearth_derp::nacl::SharedKey;
use hearth_derp::{Key, ServerSecret};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf, split};
use tokio::sync::Mutex as AsyncMutex;
use tokio::time::{sleep, timeout};

use super::device::{Device, read_head};
use super::network::Network;
use crate::net::stream::Stream;
use crate::relay_key::node_key;
use crate::supervise::Tasks;

/// Time between two attempts to connect.
const AGAIN: Duration = Duration::from_secs(2);
/// How long a login may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// A relay client. Clones are the same one.
#[derive(Clone)]
pub(super) struct Client {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// The key with which it is connected, and where packets are written.
    connected: Option<(Key, Arc<AsyncMutex<WriteHalf<Stream>>>)>,
    /// What arrived: from whom, and what.
    arrived: Vec<(Key, Vec<u8>)>,
}

fn encoded(frame: Frame<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame.encode(&mut bytes);
    bytes
}

async fn read_frame(reader: &mut ReadHalf<Stream>) -> io::Result<(Kind, Vec<u8>)> {
    let mut header = [0; HEADER_LEN];
    reader.read_exact(&mut header).await?;
    let header = Header::decode(&header);
    let mut body = vec![0; header.length as usize];
    reader.read_exact(&mut body).await?;
    let kind = Kind::from_byte(header.kind).ok_or_else(|| io::Error::other("unknown frame"))?;
    Ok((kind, body))
}

type Halves = (ReadHalf<Stream>, WriteHalf<Stream>);

/// Connects to the relay with this key; an error if it is not admitted.
async fn log_in(
    network: &Network,
    (owner, source): (usize, SocketAddr),
    secret: &ServerSecret,
) -> io::Result<Halves> {
    let mut stream = network.connect(owner, source).await?;
    let request =
        "GET /derp HTTP/1.1\r\nHost: hearth\r\nConnection: Upgrade\r\nUpgrade: DERP\r\n\r\n";
    stream.write_all(request.as_bytes()).await?;
    let head = read_head(&mut stream).await?;
    if !head.starts_with("HTTP/1.1 101 ") {
        return Err(io::Error::other(head));
    }
    let (mut reader, mut writer) = split(stream);
    let (kind, body) = read_frame(&mut reader).await?;
    let Ok(Frame::ServerKey(relay)) = Frame::decode(kind, &body) else {
        return Err(io::Error::other("no key of the relay"));
    };
    let sealed = SharedKey::new(secret, &relay).seal(&[1; 24], br#"{"version":2}"#);
    let sealed = sealed.map_err(io::Error::other)?;
    let key = secret.public();
    let login = encoded(Frame::ClientInfo {
        key,
        sealed: &sealed,
    });
    writer.write_all(&login).await?;
    let (kind, _) = read_frame(&mut reader).await?;
    match kind {
        Kind::ServerInfo => Ok((reader, writer)),
        other => Err(io::Error::other(format!("{other:?}"))),
    }
}

/// Whether the relay takes a client with this key.
pub(super) async fn admits(device: &Device, network: &Network) -> bool {
    let place = (device.number, device.source());
    let secret = device.node_secret();
    let login = log_in(network, place, &secret);
    matches!(timeout(PATIENCE, login).await, Ok(Ok(_)))
}

impl Client {
    /// The client of a device.
    pub(super) fn new(device: &Device, network: &Network, tasks: &Tasks) -> Self {
        let client = Self {
            state: Arc::default(),
        };
        let life = client.clone().live(device.clone(), network.clone());
        tasks.spawn("relay client", life);
        client
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic while locked")
    }

    async fn live(self, device: Device, network: Network) {
        loop {
            if device.should_stream() {
                let secret = device.node_secret();
                let place = (device.number, device.source());
                let login = log_in(&network, place, &secret);
                if let Ok(Ok((reader, writer))) = timeout(PATIENCE, login).await {
                    let writer = Arc::new(AsyncMutex::new(writer));
                    self.state().connected = Some((secret.public(), writer.clone()));
                    let _ = self.receive(reader, &writer).await;
                    self.state().connected = None;
                }
            }
            sleep(AGAIN).await;
        }
    }

    async fn receive(
        &self,
        mut reader: ReadHalf<Stream>,
        writer: &AsyncMutex<WriteHalf<Stream>>,
    ) -> io::Result<()> {
        loop {
            let (kind, body) = read_frame(&mut reader).await?;
            match Frame::decode(kind, &body).map_err(io::Error::other)? {
                Frame::RecvPacket { source, packet } => {
                    self.state().arrived.push((source, packet.to_vec()));
                }
                Frame::Ping(bytes) => {
                    let pong = encoded(Frame::Pong(bytes));
                    writer.lock().await.write_all(&pong).await?;
                }
                _ => {}
            }
        }
    }

    /// The node key with which it is connected.
    pub(super) fn key(&self) -> Option<NodeKey> {
        self.state()
            .connected
            .as_ref()
            .map(|(key, _)| node_key(key))
    }

    /// Sends a packet to another one, and says whether it arrives.
    pub(super) async fn reaches(&self, other: &Self, packet: &[u8]) -> bool {
        let ours = self.state().connected.clone();
        let theirs = other.state().connected.clone();
        let (Some((source, writer)), Some((destination, _))) = (ours, theirs) else {
            return true;
        };
        let frame = encoded(Frame::SendPacket {
            destination,
            packet,
        });
        if writer.lock().await.write_all(&frame).await.is_err() {
            return false;
        }
        for _ in 0..10 {
            sleep(Duration::from_millis(300)).await;
            let arrived = std::mem::take(&mut other.state().arrived);
            if arrived.contains(&(source, packet.to_vec())) {
                return true;
            }
        }
        false
    }
}
