//! Simulation of two linked relays and their clients in virtual time, over networks that delay,
//! split, stall, corrupt and reset. Each packet must be delivered complete or counted as dropped, and
//! all memory must be freed at the end.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hearth_derp::frame::{DISCO_MAGIC, Frame, HEADER_LEN, Header, Kind};
use hearth_derp::nacl::SharedKey;
use hearth_derp::relay::Relay;
use hearth_derp::stats::Tally;
use hearth_derp::{Key, Limits, MeshKey, Rates, ServerSecret};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf, duplex};
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep, sleep, sleep_until, timeout};

/// Duration of one run.
const RUN: Duration = Duration::from_secs(30);

/// A small random generator, so that a seed reproduces a run.
#[derive(Clone)]
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        // SplitMix64 by Steele, Lea and Flood.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, most: u64) -> u64 {
        self.next() % most
    }

    fn one_in(&mut self, number: u64) -> bool {
        self.below(number) == 0
    }

    fn size(&mut self, least: usize, spread: u64) -> usize {
        least + usize::try_from(self.below(spread)).unwrap()
    }
}

/// Faults of one connection: each happens in one of so many reads; 0 is never.
#[derive(Clone, Copy, Default)]
struct Faults {
    stall: u64,
    corrupt: u64,
    reset: u64,
}

/// The relay's end of a network with faults.
struct Faulty<S> {
    stream: S,
    dice: Dice,
    faults: Faults,
    pause: Option<Pin<Box<Sleep>>>,
}

impl<S> Faulty<S> {
    fn new(stream: S, dice: Dice, faults: Faults) -> Self {
        Faulty {
            stream,
            dice,
            faults,
            pause: None,
        }
    }

    fn happens(&mut self, one_in: u64) -> bool {
        one_in > 0 && self.dice.one_in(one_in)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Faulty<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Some(pause) = &mut this.pause {
            ready!(pause.as_mut().poll(cx));
            this.pause = None;
        }
        let faults = this.faults;
        if this.happens(faults.reset) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if this.happens(faults.stall) {
            let mut pause = Box::pin(sleep(Duration::from_millis(this.dice.below(500))));
            if pause.as_mut().poll(cx).is_pending() {
                this.pause = Some(pause);
                return Poll::Pending;
            }
        }
        let mut part = vec![0; this.dice.size(1, 4000).min(buffer.remaining())];
        let mut small = ReadBuf::new(&mut part);
        ready!(Pin::new(&mut this.stream).poll_read(cx, &mut small))?;
        let length = small.filled().len();
        if length > 0 && this.happens(faults.corrupt) {
            let at = this.dice.size(0, length as u64);
            part[at] ^= 1 << this.dice.below(8);
        }
        buffer.put_slice(&part[..length]);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Faulty<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let most = self.dice.size(1, 4000).min(bytes.len());
        Pin::new(&mut self.stream).poll_write(cx, &bytes[..most])
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// What all clients of a run share.
struct World {
    relays: [Relay; 2],
    keys: Vec<Key>,
    /// How often each packet arrived complete, by sender and number.
    arrived: Mutex<HashMap<(u8, u32), u32>>,
}

fn secret(mark: u8) -> ServerSecret {
    ServerSecret::from_bytes([mark; 32])
}

fn mesh_key() -> MeshKey {
    "5a".repeat(32).parse().unwrap()
}

fn encoded(frame: Frame<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame.encode(&mut bytes);
    bytes
}

/// A packet from which its sender can be read, and whether it is complete.
fn packet(dice: &mut Dice, mark: u8, number: u32) -> Vec<u8> {
    let length = dice.size(70, 3000);
    let mut packet = match dice.one_in(4) {
        true => DISCO_MAGIC.to_vec(),
        false => vec![0; DISCO_MAGIC.len()],
    };
    packet.push(mark);
    packet.extend(number.to_be_bytes());
    packet.resize(length, mark.wrapping_add(packet[10]));
    packet
}

/// Sender and number of a packet; none if it is not complete.
fn parse(packet: &[u8]) -> Option<(u8, u32)> {
    let (mark, number) = (*packet.get(6)?, packet.get(7..11)?);
    let fill = mark.wrapping_add(number[3]);
    let number = u32::from_be_bytes(number.try_into().ok()?);
    let is_complete = packet[11..].iter().all(|byte| *byte == fill);
    is_complete.then_some((mark, number))
}

/// One session of a client: it connects, sends to random keys and reads, until it or the connection
/// ends.
async fn session(world: &World, mark: u8, mut dice: Dice, faults: Faults, next: &mut u32) {
    let relay = &world.relays[dice.size(0, 2)];
    let secret = secret(mark);
    let (near, far) = duplex(dice.size(500, 60_000));
    let far = Faulty::new(far, dice.clone(), faults);
    let source = SocketAddr::from(([192, 0, 2, mark], 1));
    let serve = relay.serve(far, Bytes::new(), source);
    let (mut reader, mut writer) = tokio::io::split(near);
    let sealed = SharedKey::new(&secret, &relay.public_key()).seal(&[1; 24], br#"{"version":2}"#);
    let login = encoded(Frame::ClientInfo {
        key: secret.public(),
        sealed: &sealed.unwrap(),
    });
    let write = async {
        if dice.one_in(20) {
            // A client that never logs in.
            sleep(Duration::from_secs(20)).await;
            return;
        }
        let mut written = writer.write_all(&login).await;
        while written.is_ok() && !dice.one_in(400) {
            let destination = world.keys[dice.size(0, world.keys.len() as u64)];
            let packet = packet(&mut dice, mark, *next);
            *next += 1;
            let send = encoded(Frame::SendPacket {
                destination,
                packet: &packet,
            });
            written = writer.write_all(&send).await;
            if dice.one_in(3) {
                sleep(Duration::from_millis(dice.below(40))).await;
            }
        }
    };
    let read = async {
        let mut header = [0; HEADER_LEN];
        while reader.read_exact(&mut header).await.is_ok() {
            let header = Header::decode(&header);
            let mut body = vec![0; header.length as usize];
            if reader.read_exact(&mut body).await.is_err() {
                return;
            }
            let kind = Kind::from_byte(header.kind).expect("a known frame");
            let frame = Frame::decode(kind, &body).expect("a valid frame");
            if let Frame::RecvPacket { source, packet } = frame
                && let Some((mark, number)) = parse(packet)
                && let Some(key) = world.keys.get(usize::from(mark) - 1)
                && *key == source
            {
                let mut arrived = world.arrived.lock().unwrap();
                *arrived.entry((mark, number)).or_default() += 1;
            }
        }
    };
    tokio::select! {
        _ = serve => {}
        _ = async { tokio::join!(write, read) } => {}
        () = sleep(Duration::from_secs(25)) => {}
    }
}

/// The sessions of one client.
async fn client(world: Arc<World>, mark: u8, mut dice: Dice, end: Instant) {
    let faults = Faults {
        stall: 30,
        // Two of the eight have networks that corrupt bytes.
        corrupt: if mark > 6 { 40 } else { 0 },
        reset: 150,
    };
    let mut number = 0;
    while Instant::now() < end {
        let dice = Dice(dice.next());
        let _ = timeout(RUN, session(&world, mark, dice, faults, &mut number)).await;
        sleep(Duration::from_millis(50)).await;
    }
}

/// Links one relay to the other, and reconnects.
async fn link(world: Arc<World>, from: usize, to: usize, mut dice: Dice, end: Instant) {
    let faults = Faults {
        stall: 50,
        corrupt: 0,
        reset: 2000,
    };
    while Instant::now() < end {
        let (near, far) = duplex(30_000);
        let far = Faulty::new(far, Dice(dice.next()), faults);
        let source = SocketAddr::from(([198, 51, 100, 1], 1));
        tokio::select! {
            _ = world.relays[to].serve(far, Bytes::new(), source) => {}
            _ = world.relays[from].serve_mesh_link(near, Bytes::new(), mesh_key()) => {}
            () = sleep_until(end) => {}
        }
        sleep(Duration::from_millis(200)).await;
    }
}

/// One run with a seed.
async fn run(seed: u64) {
    let limits = Limits {
        data_queue_bytes: 20 << 10,
        pool_bytes: 256 << 10,
        pool_reserve_bytes: 32 << 10,
        // Partial frames fit without memory of the pool, so that no packet is dropped before it is
        // counted as received.
        partial_bytes: 4 << 10,
        rates: Rates {
            client_bytes_per_second: 60_000,
            client_burst_bytes: 70_000,
            total_bytes_per_second: 300_000,
            ..Rates::default()
        },
        ..Limits::default()
    };
    let relay = |mark| {
        let admit = Arc::new(|_: &Key, _| true);
        Relay::with_mesh_key(secret(mark), limits.clone(), admit, Some(mesh_key()))
    };
    let world = Arc::new(World {
        relays: [relay(200), relay(201)],
        keys: (1..=8).map(|mark| secret(mark).public()).collect(),
        arrived: Mutex::default(),
    });
    let (mut dice, end) = (Dice(seed), Instant::now() + RUN);
    let mut tasks = JoinSet::new();
    for mark in 1..=8 {
        tasks.spawn(client(world.clone(), mark, Dice(dice.next()), end));
    }
    for (from, to) in [(0, 1), (1, 0)] {
        tasks.spawn(link(world.clone(), from, to, Dice(dice.next()), end));
    }
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    }

    let arrived = world.arrived.lock().unwrap();
    assert!(arrived.len() > 1000, "seed {seed}: {}", arrived.len());
    let is_once = arrived.values().all(|times| *times == 1);
    assert!(is_once, "seed {seed}: a packet arrived twice");
    let (mut came, mut went) = (Tally::default(), Tally::default());
    for relay in &world.relays {
        let stats = relay.stats();
        came.add(stats.received);
        came.add(stats.forwarded_in);
        went.add(stats.sent);
        went.add(stats.forwarded_out);
        went.add(stats.drops.total());
        let busy = stats.forwarded_in.packets > 0 && stats.rate_waits > 0;
        assert!(busy, "seed {seed}: {stats:?}");
        let left = (stats.connections, stats.logins, stats.keys);
        assert_eq!(left, (0, 0, 0), "seed {seed}");
        let left = (stats.mesh_links, stats.remote_keys, stats.pool_bytes_used);
        assert_eq!(left, (0, 0, 0), "seed {seed}");
    }
    assert_eq!(came, went, "seed {seed}: what is not delivered is counted");
}

#[tokio::test(start_paused = true)]
async fn packets_are_delivered_complete_or_counted_on_networks_with_faults() {
    for seed in 0..8 {
        run(seed).await;
    }
}
