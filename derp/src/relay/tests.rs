use std::collections::HashSet;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::Poll;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::*;
use crate::conn::Fault;
use crate::frame::{Frame, Kind, PeerGoneReason};
use crate::stats::{DropReason, PacketKind};
use crate::testing::{Owned, client_info, disco, encoded, secret, take_frame};

/// Who is let in: all but these.
#[derive(Default)]
struct Except(Mutex<HashSet<Key>>);

impl Admit for Except {
    fn admit(&self, key: &Key, _source: IpAddr) -> bool {
        !self.0.lock().unwrap().contains(key)
    }
}

/// A client with its end of the stream, and the task that serves the other end.
struct Client {
    secret: ServerSecret,
    key: Key,
    stream: DuplexStream,
    received: Vec<u8>,
    task: JoinHandle<Closed>,
}

fn source() -> SocketAddr {
    "192.0.2.1:1234".parse().unwrap()
}

fn relay(limits: Limits) -> Relay {
    Relay::new(secret(200), limits, Arc::new(Except::default()))
}

/// A task for the test's own connection; the crate itself spawns none.
fn serve(relay: &Relay, stream: DuplexStream, early: Vec<u8>) -> JoinHandle<Closed> {
    let serve = relay.serve(stream, early.into(), source());
    #[expect(
        clippy::disallowed_methods,
        reason = "each test awaits or outlives its tasks"
    )]
    tokio::spawn(serve)
}

impl Client {
    /// A connection on which nothing was said yet. `room` is what the network holds, in bytes.
    fn connect(relay: &Relay, mark: u8, room: usize) -> Self {
        let (near, far) = duplex(room);
        let task = serve(relay, far, Vec::new());
        let secret = secret(mark);
        Client {
            key: secret.public(),
            secret,
            stream: near,
            received: Vec::new(),
            task,
        }
    }

    /// A client that is logged in.
    async fn login(relay: &Relay, mark: u8, room: usize) -> Self {
        let mut client = Client::connect(relay, mark, room);
        assert_eq!(
            client.next().await.frame(),
            Ok(Frame::ServerKey(relay.public_key()))
        );
        let info = client_info(&client.secret, &relay.public_key());
        client.stream.write_all(&info).await.unwrap();
        assert_eq!(client.next().await.kind, Kind::ServerInfo);
        client
    }

    async fn write(&mut self, frame: Frame<'_>) {
        self.stream.write_all(&encoded(frame)).await.unwrap();
    }

    async fn send(&mut self, destination: Key, packet: &[u8]) {
        self.write(Frame::SendPacket {
            destination,
            packet,
        })
        .await;
    }

    /// The next frame; none at the end of the stream.
    async fn try_next(&mut self) -> Option<Owned> {
        loop {
            if let Some(frame) = take_frame(&mut self.received) {
                return Some(frame);
            }
            if self.stream.read_buf(&mut self.received).await.ok()? == 0 {
                return None;
            }
        }
    }

    async fn next(&mut self) -> Owned {
        let next = timeout(Duration::from_secs(300), self.try_next());
        next.await.expect("a frame in time").expect("a frame")
    }

    async fn expect_packet(&mut self, source: Key, packet: &[u8]) {
        assert_eq!(
            self.next().await.frame(),
            Ok(Frame::RecvPacket { source, packet })
        );
    }

    async fn closed(self) -> Closed {
        timeout(Duration::from_secs(300), self.task)
            .await
            .expect("an end in time")
            .unwrap()
    }
}

/// Lets all drivers do what they can.
async fn settle() {
    sleep(Duration::from_millis(1)).await;
}

#[tokio::test(start_paused = true)]
async fn two_clients_exchange_packets() {
    let relay = relay(Limits::default());
    let mut a = Client::login(&relay, 1, 1 << 20).await;
    let mut b = Client::login(&relay, 2, 1 << 20).await;
    for length in [0, 1, 1280, 20_000, 65_536] {
        let packet = vec![7; length];
        a.send(b.key, &packet).await;
        b.expect_packet(a.key, &packet).await;
        b.send(a.key, &packet).await;
        a.expect_packet(b.key, &packet).await;
    }
    settle().await;
    let stats = relay.stats();
    assert_eq!((stats.connections, stats.logins, stats.accepted), (2, 0, 2));
    assert_eq!(stats.sent, stats.received);
    assert_eq!((stats.sent.packets, stats.pool_bytes_used), (10, 0));
}

/// One read may hold more small packets than a queue has places.
#[tokio::test(start_paused = true)]
async fn burst_of_small_packets_reaches_a_client_that_reads() {
    let relay = relay(Limits::default());
    let mut a = Client::login(&relay, 1, 1 << 20).await;
    let mut b = Client::login(&relay, 2, 1 << 20).await;
    let mut c = Client::login(&relay, 3, 64).await;
    let burst: Vec<u8> = (0..3000_u16)
        .flat_map(|mark| {
            let packet = mark.to_be_bytes();
            let to = |destination| {
                encoded(Frame::SendPacket {
                    destination,
                    packet: &packet,
                })
            };
            // One that does not read holds up nobody.
            [to(b.key), to(c.key)].concat()
        })
        .collect();
    a.stream.write_all(&burst).await.unwrap();
    for mark in 0..3000_u16 {
        b.expect_packet(a.key, &mark.to_be_bytes()).await;
    }
    assert_eq!(relay.stats().received.packets, 6000);
    c.send(b.key, b"still here").await;
    b.expect_packet(c.key, b"still here").await;
}

#[tokio::test(start_paused = true)]
async fn bytes_that_came_with_the_request_are_not_lost() {
    let relay = relay(Limits::default());
    let mut b = Client::login(&relay, 2, 1 << 20).await;
    let (mut near, far) = duplex(1 << 16);
    let mut early = client_info(&secret(1), &relay.public_key());
    early.extend(encoded(Frame::SendPacket {
        destination: b.key,
        packet: b"early",
    }));
    let (first, rest) = early.split_at(early.len() - 3);
    let _task = serve(&relay, far, first.to_vec());
    near.write_all(rest).await.unwrap();
    b.expect_packet(secret(1).public(), b"early").await;
    // The relay speaks first, whatever the client does.
    let mut greeting = [0; 5];
    near.read_exact(&mut greeting).await.unwrap();
    assert_eq!(greeting, [1, 0, 0, 0, 40]);
}

#[tokio::test(start_paused = true)]
async fn client_that_is_not_admitted_gets_no_frame_after_the_key() {
    let admit = Arc::new(Except::default());
    admit.0.lock().unwrap().insert(secret(1).public());
    let relay = Relay::new(secret(200), Limits::default(), admit);
    let mut client = Client::connect(&relay, 1, 1 << 16);
    client.next().await;
    let info = client_info(&client.secret, &relay.public_key());
    client.stream.write_all(&info).await.unwrap();
    assert_eq!(client.try_next().await, None);
    let key = client.key;
    assert_eq!(client.closed().await, Closed::Refused(key));
    let stats = relay.stats();
    assert_eq!((stats.refused, stats.connections, stats.keys), (1, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn admission_is_asked_with_the_plain_ipv4_source() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = seen.clone();
    let admit = move |_: &Key, source: IpAddr| {
        log.lock().unwrap().push(source);
        true
    };
    let relay = Relay::new(secret(200), Limits::default(), Arc::new(admit));
    let (_near, far) = duplex(1 << 16);
    let info = client_info(&secret(1), &relay.public_key());
    let mut serve = relay.serve(
        far,
        info.into(),
        "[::ffff:192.0.2.7]:1".parse::<SocketAddr>().unwrap(),
    );
    poll_fn(|cx| {
        assert!(Pin::new(&mut serve).poll(cx).is_pending());
        Poll::Ready(())
    })
    .await;
    let expected: IpAddr = "192.0.2.7".parse().unwrap();
    assert!(
        seen.lock()
            .unwrap()
            .iter()
            .all(|source| *source == expected)
    );
    assert_eq!(relay.stats().connections, 1);
    drop(serve);
    assert_eq!(relay.stats().connections, 0);
}

#[tokio::test(start_paused = true)]
async fn key_that_loses_admission_during_the_login_is_not_let_in() {
    let calls = Mutex::new(0);
    let admit = move |_: &Key, _: IpAddr| {
        let mut calls = calls.lock().unwrap();
        *calls += 1;
        *calls == 1
    };
    let relay = Relay::new(secret(200), Limits::default(), Arc::new(admit));
    let mut client = Client::connect(&relay, 1, 1 << 16);
    let info = client_info(&client.secret, &relay.public_key());
    client.stream.write_all(&info).await.unwrap();
    let frame = client.try_next().await;
    assert!(frame.is_none_or(|frame| frame.kind == Kind::ServerKey));
    assert!(matches!(client.closed().await, Closed::Refused(_)));
    assert_eq!(relay.stats().keys, 0);
}

#[tokio::test(start_paused = true)]
async fn disconnect_and_retain_cut_clients_off() {
    let relay = relay(Limits::default());
    let mut a = Client::login(&relay, 1, 1 << 16).await;
    let mut b = Client::login(&relay, 2, 1 << 16).await;
    let c = Client::login(&relay, 3, 1 << 16).await;
    a.send(b.key, b"x").await;
    b.expect_packet(a.key, b"x").await;
    relay.disconnect(&a.key);
    let gone = Frame::PeerGone {
        peer: a.key,
        reason: PeerGoneReason::Disconnected,
    };
    assert_eq!(b.next().await.frame(), Ok(gone));
    assert_eq!(a.try_next().await, None);
    assert_eq!(a.closed().await, Closed::Disconnected);
    let kept = b.key;
    relay.retain(|key| *key == kept);
    assert_eq!(c.closed().await, Closed::Disconnected);
    assert_eq!(relay.stats().connections, 1);
}

#[tokio::test(start_paused = true)]
async fn small_pool_still_carries_data() {
    let limits = Limits {
        pool_bytes: 8 << 10,
        ..Limits::default()
    };
    let relay = relay(limits);
    let mut a = Client::login(&relay, 1, 1 << 16).await;
    let mut b = Client::login(&relay, 2, 1 << 16).await;
    a.send(b.key, &[0; 1280]).await;
    b.expect_packet(a.key, &[0; 1280]).await;
}

#[tokio::test(start_paused = true)]
async fn discovery_packet_to_nobody_is_answered() {
    let relay = relay(Limits::default());
    let mut a = Client::login(&relay, 1, 1 << 16).await;
    let nobody = Key::new([9; 32]);
    a.send(nobody, b"data").await;
    a.send(nobody, &disco(80, 1)).await;
    let gone = Frame::PeerGone {
        peer: nobody,
        reason: PeerGoneReason::NotHere,
    };
    assert_eq!(a.next().await.frame(), Ok(gone));
    for _ in 0..10 {
        a.send(nobody, &disco(80, 1)).await;
    }
    settle().await;
    let stats = relay.stats();
    assert_eq!(
        (stats.peer_gone_not_here, stats.peer_gone_suppressed),
        (3, 8)
    );
}

#[tokio::test(start_paused = true)]
async fn idle_client_gets_keepalives_and_stays() {
    let relay = relay(Limits::default());
    let mut a = Client::login(&relay, 1, 1 << 16).await;
    for _ in 0..5 {
        let before = Instant::now();
        assert_eq!(a.next().await.frame(), Ok(Frame::KeepAlive));
        let passed = before.elapsed();
        assert!((59..=66).contains(&passed.as_secs()), "{passed:?}");
    }
    a.write(Frame::Ping([3; 8])).await;
    assert_eq!(a.next().await.frame(), Ok(Frame::Pong([3; 8])));
}

#[tokio::test(start_paused = true)]
async fn silent_and_slow_logins_end_after_ten_seconds() {
    let relay = relay(Limits::default());
    let silent = Client::connect(&relay, 1, 1 << 16);
    let mut slow = Client::connect(&relay, 2, 1 << 16);
    let start = Instant::now();
    let info = client_info(&slow.secret, &relay.public_key());
    for byte in &info[..9] {
        slow.stream.write_all(&[*byte]).await.unwrap();
        sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(silent.closed().await, Closed::Fault(Fault::LoginTimeout));
    assert_eq!(slow.closed().await, Closed::Fault(Fault::LoginTimeout));
    assert_eq!(start.elapsed().as_secs(), 10);
    assert_eq!(relay.stats().logins_failed, 2);
}

#[tokio::test(start_paused = true)]
async fn reader_that_stops_is_closed_and_delays_nobody() {
    let relay = relay(Limits::default());
    let mut a = Client::login(&relay, 1, 1 << 16).await;
    let stopped = Client::login(&relay, 2, 4096).await;
    let mut b = Client::login(&relay, 3, 1 << 16).await;
    let start = Instant::now();
    for number in 0..1000_u32 {
        a.send(stopped.key, &[0; 1000]).await;
        a.send(b.key, &number.to_be_bytes()).await;
        b.expect_packet(a.key, &number.to_be_bytes()).await;
        assert!(relay.stats().pool_bytes_used <= 128 << 10);
    }
    assert!(start.elapsed() < Duration::from_secs(2));
    assert_eq!(stopped.closed().await, Closed::Fault(Fault::WriteTimeout));
    let stats = relay.stats();
    assert_eq!((stats.write_timeouts, stats.pool_bytes_used), (1, 0));
    // Every packet is accounted for: written, or dropped for a reason. A few of those that were
    // written wait in the network for ever.
    assert_eq!(stats.sent.packets + stats.drops.total().packets, 2000);
    assert!(
        stats
            .drops
            .of(DropReason::QueueHead, PacketKind::Other)
            .packets
            > 900
    );
}

#[tokio::test(start_paused = true)]
async fn slow_reader_is_kept_as_long_as_it_reads() {
    let relay = relay(Limits::default());
    let mut a = Client::login(&relay, 1, 1 << 16).await;
    let mut slow = Client::login(&relay, 2, 1000).await;
    for _ in 0..20 {
        a.send(slow.key, &[5; 1000]).await;
    }
    for _ in 0..20 {
        sleep(Duration::from_millis(1500)).await;
        slow.expect_packet(a.key, &[5; 1000]).await;
    }
    assert_eq!(relay.stats().write_timeouts, 0);
}

#[tokio::test(start_paused = true)]
async fn client_that_does_not_read_is_still_read_from() {
    let relay = relay(Limits::default());
    let mut deaf = Client::login(&relay, 1, 2000).await;
    let mut b = Client::login(&relay, 2, 1 << 16).await;
    b.send(deaf.key, &[0; 5000]).await;
    settle().await;
    deaf.send(b.key, b"still here").await;
    b.expect_packet(deaf.key, b"still here").await;
}

#[tokio::test(start_paused = true)]
async fn end_of_a_client_is_told_and_cleaned_up() {
    let relay = relay(Limits::default());
    let mut a = Client::login(&relay, 1, 1 << 16).await;
    let mut b = Client::login(&relay, 2, 1 << 16).await;
    a.send(b.key, b"x").await;
    b.expect_packet(a.key, b"x").await;
    let Client {
        key, stream, task, ..
    } = a;
    drop(stream);
    assert_eq!(task.await.unwrap(), Closed::ByPeer);
    let gone = Frame::PeerGone {
        peer: key,
        reason: PeerGoneReason::Disconnected,
    };
    assert_eq!(b.next().await.frame(), Ok(gone));
    b.task.abort();
    settle().await;
    let stats = relay.stats();
    assert_eq!((stats.connections, stats.keys), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn malformed_frame_ends_only_its_own_connection() {
    let relay = relay(Limits::default());
    let mut a = Client::login(&relay, 1, 1 << 16).await;
    let b = Client::login(&relay, 2, 1 << 16).await;
    a.stream.write_all(&[4, 0, 1, 0, 33]).await.unwrap();
    assert_eq!(a.try_next().await, None);
    assert!(matches!(a.closed().await, Closed::Fault(Fault::Frame(_))));
    assert!(!b.task.is_finished());
    assert_eq!(relay.stats().faults, 1);
}

#[tokio::test(start_paused = true)]
async fn second_connection_of_a_key_takes_over_and_gives_back() {
    let relay = relay(Limits::default());
    let mut sender = Client::login(&relay, 1, 1 << 16).await;
    let mut old = Client::login(&relay, 2, 1 << 16).await;
    let mut new = Client::login(&relay, 2, 1 << 16).await;
    sender.send(new.key, b"1").await;
    new.expect_packet(sender.key, b"1").await;
    old.write(Frame::NotePreferred(true)).await;
    settle().await;
    sender.send(new.key, b"2").await;
    old.expect_packet(sender.key, b"2").await;
    drop(old.stream);
    settle().await;
    sender.send(new.key, b"3").await;
    new.expect_packet(sender.key, b"3").await;
    assert_eq!(relay.stats().connections, 2);
}

#[tokio::test(start_paused = true)]
async fn shutdown_tells_clients_and_then_closes_all() {
    let relay = relay(Limits::default());
    let mut a = Client::login(&relay, 1, 1 << 16).await;
    let deaf = Client::login(&relay, 2, 100).await;
    let waiting = Client::connect(&relay, 3, 1 << 16);
    a.send(deaf.key, &[0; 1000]).await;
    settle().await;
    relay.shutdown(Duration::from_secs(2), Duration::from_secs(30));
    let Ok(Frame::Restarting {
        reconnect_in,
        try_for,
    }) = a.next().await.frame()
    else {
        panic!("Restarting comes first");
    };
    assert!((1000..=2000).contains(&reconnect_in));
    assert_eq!(try_for, 30_000);
    assert_eq!(a.try_next().await, None);
    let start = Instant::now();
    drop(a.stream);
    assert_eq!(a.task.await.unwrap(), Closed::ShuttingDown);
    assert_eq!(waiting.closed().await, Closed::ShuttingDown);
    assert_eq!(deaf.closed().await, Closed::Fault(Fault::WriteTimeout));
    assert!(start.elapsed() <= Duration::from_secs(3));
    let late = Client::connect(&relay, 4, 1 << 16);
    assert_eq!(late.closed().await, Closed::ShuttingDown);
}

#[tokio::test(start_paused = true)]
async fn peer_that_does_not_close_is_waited_for_only_shortly() {
    let relay = relay(Limits::default());
    let mut a = Client::login(&relay, 1, 1 << 16).await;
    relay.shutdown(Duration::ZERO, Duration::ZERO);
    assert_eq!(a.next().await.kind, Kind::Restarting);
    let start = Instant::now();
    // What the client still says is read and thrown away, so that its side is not reset.
    a.send(Key::new([1; 32]), &[0; 5000]).await;
    assert_eq!(a.closed().await, Closed::ShuttingDown);
    assert!(start.elapsed() <= Duration::from_millis(1100));
}

#[tokio::test(start_paused = true)]
async fn connections_that_never_log_in_do_not_keep_others_out() {
    let relay = relay(Limits {
        connections: 50,
        logins: 10,
        ..Limits::default()
    });
    let idle: Vec<Client> = (0..200)
        .map(|_| Client::connect(&relay, 1, 1 << 10))
        .collect();
    settle().await;
    let mut a = Client::login(&relay, 2, 1 << 16).await;
    a.write(Frame::Ping([1; 8])).await;
    assert_eq!(a.next().await.kind, Kind::Pong);
    let stats = relay.stats();
    assert_eq!(
        (stats.logins, stats.connections, stats.logins_evicted),
        (9, 1, 191)
    );
    let evicted = idle
        .iter()
        .filter(|client| client.task.is_finished())
        .count();
    assert_eq!(evicted, 191);
}

#[tokio::test(start_paused = true)]
async fn connections_can_run_on_any_thread() {
    fn is_send<T: Send>(_: &T) {}
    let relay = relay(Limits::default());
    let (_near, far) = duplex(10);
    is_send(&relay.serve(far, Bytes::new(), source()));
}

#[tokio::test(start_paused = true)]
async fn idle_connection_is_small() {
    let relay = relay(Limits::default());
    let (_near, far) = duplex(10);
    let serve = relay.serve(far, Bytes::new(), source());
    let bytes = size_of_val(&serve);
    assert!(bytes < 1024, "{bytes} bytes");
}

fn mesh_key() -> MeshKey {
    "ab".repeat(32).parse().unwrap()
}

fn mesh_relay(mark: u8) -> Relay {
    let admit = Arc::new(Except::default());
    Relay::with_mesh_key(secret(mark), Limits::default(), admit, Some(mesh_key()))
}

/// Links `from` to `to` with this key.
fn link(from: &Relay, to: &Relay, key: MeshKey) -> (JoinHandle<LinkEnd>, JoinHandle<Closed>) {
    let (near, far) = duplex(1 << 16);
    let server = serve(to, far, Vec::new());
    let mesh = from.mesh(near, Bytes::new(), key);
    #[expect(
        clippy::disallowed_methods,
        reason = "each test awaits or outlives its tasks"
    )]
    let client = tokio::spawn(mesh);
    (client, server)
}

#[tokio::test(start_paused = true)]
async fn two_relays_form_one_region() {
    let (one, two) = (mesh_relay(100), mesh_relay(101));
    let mut a = Client::login(&one, 1, 1 << 20).await;
    let mut b = Client::login(&two, 2, 1 << 20).await;
    let there = link(&one, &two, mesh_key());
    let back = link(&two, &one, mesh_key());
    settle().await;
    for length in [0, 1, 1280, 65_536] {
        let packet = vec![7; length];
        a.send(b.key, &packet).await;
        b.expect_packet(a.key, &packet).await;
        b.send(a.key, &packet).await;
        a.expect_packet(b.key, &packet).await;
    }
    let mut c = Client::login(&two, 3, 1 << 20).await;
    settle().await;
    a.send(c.key, b"to a newcomer").await;
    c.expect_packet(a.key, b"to a newcomer").await;
    // A client that leaves the region is gone for those of the other relay too.
    let gone = b.key;
    drop(b.stream);
    let reason = PeerGoneReason::Disconnected;
    assert_eq!(
        a.next().await.frame(),
        Ok(Frame::PeerGone { peer: gone, reason })
    );
    let stats = one.stats();
    assert_eq!((stats.mesh_links, stats.mesh_connections), (1, 1));
    assert_eq!(
        (stats.forwarded_out.packets, stats.forwarded_in.packets),
        (5, 4)
    );
    // When a relay stops, its clients are gone.
    two.shutdown(Duration::from_secs(1), Duration::from_secs(1));
    assert!(there.0.await.is_ok());
    assert_eq!(back.0.await.unwrap(), LinkEnd::ShuttingDown);
    settle().await;
    assert_eq!(one.stats().remote_keys, 0);
}

#[tokio::test(start_paused = true)]
async fn relay_with_a_wrong_mesh_key_is_an_ordinary_client() {
    let (one, two) = (mesh_relay(100), mesh_relay(101));
    let (end, closed) = link(&one, &two, "cd".repeat(32).parse().unwrap());
    let fault = Closed::Fault(Fault::NotMeshPeer(Kind::WatchConns));
    assert_eq!(closed.await.unwrap(), fault);
    assert!(matches!(end.await.unwrap(), LinkEnd::Closed { .. }));
    assert_eq!(two.stats().mesh_connections, 0);
}

#[tokio::test(start_paused = true)]
async fn relay_that_dials_itself_notices() {
    let one = mesh_relay(100);
    let (end, _) = link(&one, &one, mesh_key());
    assert_eq!(
        end.await.unwrap(),
        LinkEnd::Fault(crate::link::LinkFault::Itself)
    );
}

#[tokio::test(start_paused = true)]
async fn mesh_peer_can_close_the_connections_of_a_key() {
    let relay = mesh_relay(100);
    let a = Client::login(&relay, 1, 1 << 16).await;
    let peer = secret(9);
    let text = format!(r#"{{"version":2,"meshKey":"{}"}}"#, *mesh_key().to_hex());
    let body = crate::testing::client_info_body(&peer, &relay.public_key(), text.as_bytes());
    let (mut near, far) = duplex(1 << 16);
    let _task = serve(&relay, far, Vec::new());
    let login = encoded(Frame::decode(Kind::ClientInfo, &body).unwrap());
    near.write_all(&login).await.unwrap();
    near.write_all(&encoded(Frame::ClosePeer(a.key)))
        .await
        .unwrap();
    assert_eq!(a.closed().await, Closed::Disconnected);
}

#[tokio::test(start_paused = true)]
async fn client_that_sends_too_fast_waits_and_loses_nothing() {
    let limits = Limits {
        rates: Rates {
            client_bytes_per_second: 100_000,
            ..Rates::default()
        },
        // The burst must fit, this is about the rate.
        data_queue_bytes: 1 << 20,
        queue_slots: 1000,
        ..Limits::default()
    };
    let relay = relay(limits);
    let mut a = Client::login(&relay, 1, 1 << 16).await;
    let mut b = Client::login(&relay, 2, 1 << 16).await;
    let start = Instant::now();
    let packet = vec![7; 10_000];
    let (to, count) = (b.key, 100);
    let send = async {
        for _ in 0..count {
            a.send(to, &packet).await;
        }
    };
    let receive = async {
        for _ in 0..count {
            assert_eq!(b.next().await.kind, Kind::RecvPacket);
        }
    };
    tokio::join!(send, receive);
    let seconds = start.elapsed().as_secs_f64();
    // A megabyte, less the burst of 256 KiB, at 100 kB a second.
    assert!((7.0..8.0).contains(&seconds), "{seconds}");
    assert!(relay.stats().rate_waits > 0);
}

#[tokio::test(start_paused = true)]
async fn all_clients_together_keep_the_total_rate_and_share_it() {
    let limits = Limits {
        rates: Rates {
            total_bytes_per_second: 100_000,
            total_burst_bytes: 0,
            ..Rates::default()
        },
        ..Limits::default()
    };
    let relay = relay(limits);
    let mut b = Client::login(&relay, 9, 1 << 20).await;
    let mut senders = Vec::new();
    for mark in 1..=4 {
        senders.push(Client::login(&relay, mark, 1 << 14).await);
    }
    let (to, start) = (b.key, Instant::now());
    let mut got = [0_usize; 5];
    let flood = async |client: &mut Client| loop {
        client.send(to, &[7; 5000]).await;
    };
    let [first, second, third, fourth] = &mut senders[..] else {
        unreachable!("four senders")
    };
    let flood = async { tokio::join!(flood(first), flood(second), flood(third), flood(fourth)) };
    let receive = async {
        while start.elapsed() < Duration::from_secs(20) {
            let frame = b.next().await;
            let Ok(Frame::RecvPacket { source, .. }) = frame.frame() else {
                continue;
            };
            let from = (1..=4).find(|mark| secret(*mark).public() == source);
            got[usize::from(from.unwrap())] += 5000;
        }
    };
    tokio::select! {
        _ = flood => {}
        () = receive => {}
    }
    let total: usize = got.iter().sum();
    assert!((1_900_000..=2_200_000).contains(&total), "{got:?}");
    assert!(
        got[1..]
            .iter()
            .all(|bytes| (400_000..=650_000).contains(bytes)),
        "{got:?}"
    );
}

/// Answers after a second.
struct Slow(bool);

impl Admit for Slow {
    fn admit(&self, _key: &Key, _source: IpAddr) -> bool {
        false
    }

    fn ask(&self, _key: &Key, _source: IpAddr) -> Option<crate::admit::Asked> {
        let answer = self.0;
        Some(Box::pin(async move {
            sleep(Duration::from_secs(1)).await;
            answer
        }))
    }
}

#[tokio::test(start_paused = true)]
async fn client_waits_for_an_answer_that_takes_time() {
    let relay = Relay::new(secret(200), Limits::default(), Arc::new(Slow(true)));
    let mut b = Client::login(&relay, 2, 1 << 16).await;
    let (mut near, far) = duplex(1 << 16);
    let _task = serve(&relay, far, Vec::new());
    let mut early = client_info(&secret(1), &relay.public_key());
    early.extend(encoded(Frame::SendPacket {
        destination: b.key,
        packet: b"sent before the answer",
    }));
    near.write_all(&early).await.unwrap();
    b.expect_packet(secret(1).public(), b"sent before the answer")
        .await;

    let relay = Relay::new(secret(200), Limits::default(), Arc::new(Slow(false)));
    let mut client = Client::connect(&relay, 1, 1 << 16);
    let info = client_info(&client.secret, &relay.public_key());
    client.stream.write_all(&info).await.unwrap();
    let key = client.key;
    assert_eq!(client.closed().await, Closed::Refused(key));
}

#[tokio::test(start_paused = true)]
async fn silent_client_is_closed_only_if_that_is_asked_for() {
    let limits = Limits {
        idle_timeout: Duration::from_secs(200),
        ..Limits::default()
    };
    let start = Instant::now();
    let client = Client::login(&relay(limits), 1, 1 << 16).await;
    assert_eq!(client.closed().await, Closed::Idle);
    assert!(start.elapsed() >= Duration::from_secs(200));
}

#[tokio::test(start_paused = true)]
async fn rates_can_change_while_clients_are_connected() {
    let relay = relay(Limits::default());
    let mut a = Client::login(&relay, 1, 1 << 16).await;
    let mut b = Client::login(&relay, 2, 1 << 16).await;
    let mut seconds = async || {
        let start = Instant::now();
        for _ in 0..50 {
            a.send(b.key, &[7; 10_000]).await;
            assert_eq!(b.next().await.kind, Kind::RecvPacket);
        }
        start.elapsed().as_secs()
    };
    assert_eq!(seconds().await, 0);
    relay.set_rates(Rates {
        client_bytes_per_second: 50_000,
        client_burst_bytes: 0,
        ..Rates::default()
    });
    let slow = seconds().await;
    assert!((8..=10).contains(&slow), "{slow}");
    relay.set_rates(Rates::default());
    assert!(seconds().await <= 1);
}
