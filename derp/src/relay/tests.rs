mod region;

use std::collections::HashSet;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::Poll;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::*;
use crate::conn::ConnError;
use crate::frame::{Frame, Kind, PeerGoneReason};
use crate::stats::{DropReason, PacketKind};
use crate::testing::{Owned, client_info, disco, encoded, secret, take_frame};

/// Admits all keys but these.
#[derive(Default)]
struct Except(Mutex<HashSet<Key>>);

impl Admit for Except {
    fn admit(&self, key: &Key, _source: IpAddr) -> Option<Standing> {
        (!self.0.lock().unwrap().contains(key)).then_some(Standing::Known)
    }
}

/// A client, its end of the stream, and the task that serves the other end.
struct Client {
    secret: ServerSecret,
    key: Key,
    stream: DuplexStream,
    received: Vec<u8>,
    task: JoinHandle<CloseReason>,
}

fn source() -> SocketAddr {
    "192.0.2.1:1234".parse().unwrap()
}

fn relay(limits: Limits) -> Relay {
    Relay::new(secret(200), limits, Arc::new(Except::default()))
}

/// Spawns a task for a connection; the crate itself spawns none.
fn serve(relay: &Relay, stream: DuplexStream, already_read: Vec<u8>) -> JoinHandle<CloseReason> {
    let serve = relay.serve(stream, already_read.into(), source());
    #[expect(
        clippy::disallowed_methods,
        reason = "each test awaits or outlives its tasks"
    )]
    tokio::spawn(serve)
}

impl Client {
    /// A connection without traffic. `room` is the network buffer in bytes.
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

    /// A logged-in client.
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

    async fn closed(self) -> CloseReason {
        timeout(Duration::from_secs(300), self.task)
            .await
            .expect("an end in time")
            .unwrap()
    }
}

/// Lets all drivers make progress.
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

/// One read can contain more small packets than fit a queue.
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
            // A client that does not read delays nobody.
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
    // The relay sends its greeting first, whatever the client does.
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
    assert_eq!(client.closed().await, CloseReason::NotAdmitted(key));
    let stats = relay.stats();
    assert_eq!((stats.refused, stats.connections, stats.keys), (1, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn admission_sees_ipv4_mapped_sources_as_ipv4() {
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
async fn key_whose_admission_is_revoked_during_the_login_is_not_admitted() {
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
    assert!(matches!(client.closed().await, CloseReason::NotAdmitted(_)));
    assert_eq!(relay.stats().keys, 0);
}

#[tokio::test(start_paused = true)]
async fn disconnect_and_retain_close_connections() {
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
    assert_eq!(a.closed().await, CloseReason::Disconnected);
    let kept = b.key;
    relay.retain(|key| *key == kept);
    assert_eq!(c.closed().await, CloseReason::Disconnected);
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
async fn discovery_packet_to_an_unknown_key_is_answered() {
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
        assert!((39..=45).contains(&passed.as_secs()), "{passed:?}");
    }
    a.write(Frame::Ping([3; 8])).await;
    assert_eq!(a.next().await.frame(), Ok(Frame::Pong([3; 8])));
}

#[tokio::test(start_paused = true)]
async fn silent_and_slow_logins_time_out_after_ten_seconds() {
    let relay = relay(Limits::default());
    let silent = Client::connect(&relay, 1, 1 << 16);
    let mut slow = Client::connect(&relay, 2, 1 << 16);
    let start = Instant::now();
    let info = client_info(&slow.secret, &relay.public_key());
    for byte in &info[..9] {
        slow.stream.write_all(&[*byte]).await.unwrap();
        sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(
        silent.closed().await,
        CloseReason::Protocol(ConnError::LoginTimeout)
    );
    assert_eq!(
        slow.closed().await,
        CloseReason::Protocol(ConnError::LoginTimeout)
    );
    assert_eq!(start.elapsed().as_secs(), 10);
    assert_eq!(relay.stats().logins_failed, 2);
}

#[tokio::test(start_paused = true)]
async fn client_that_stops_reading_is_closed_and_delays_nobody() {
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
    assert_eq!(
        stopped.closed().await,
        CloseReason::Protocol(ConnError::WriteTimeout)
    );
    let stats = relay.stats();
    assert_eq!((stats.write_timeouts, stats.pool_bytes_used), (1, 0));
    // Every packet is counted as written or dropped. A few of the written ones stay in the network
    // buffer.
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
async fn slow_client_is_kept_as_long_as_it_reads() {
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
async fn disconnected_client_is_announced_and_cleaned_up() {
    let relay = relay(Limits::default());
    let mut a = Client::login(&relay, 1, 1 << 16).await;
    let mut b = Client::login(&relay, 2, 1 << 16).await;
    a.send(b.key, b"x").await;
    b.expect_packet(a.key, b"x").await;
    let Client {
        key, stream, task, ..
    } = a;
    drop(stream);
    assert_eq!(task.await.unwrap(), CloseReason::ByPeer);
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
async fn malformed_frame_closes_only_its_own_connection() {
    let relay = relay(Limits::default());
    let mut a = Client::login(&relay, 1, 1 << 16).await;
    let b = Client::login(&relay, 2, 1 << 16).await;
    a.stream.write_all(&[4, 0, 1, 0, 33]).await.unwrap();
    assert_eq!(a.try_next().await, None);
    assert!(matches!(
        a.closed().await,
        CloseReason::Protocol(ConnError::Frame(_))
    ));
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
async fn shutdown_notifies_clients_and_then_closes_all() {
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
    assert_eq!(a.task.await.unwrap(), CloseReason::ShuttingDown);
    assert_eq!(waiting.closed().await, CloseReason::ShuttingDown);
    assert_eq!(
        deaf.closed().await,
        CloseReason::Protocol(ConnError::WriteTimeout)
    );
    assert!(start.elapsed() <= Duration::from_secs(3));
    let late = Client::connect(&relay, 4, 1 << 16);
    assert_eq!(late.closed().await, CloseReason::ShuttingDown);
}

#[tokio::test(start_paused = true)]
async fn client_that_does_not_close_is_cut_off_after_the_linger_time() {
    let relay = relay(Limits::default());
    let mut a = Client::login(&relay, 1, 1 << 16).await;
    relay.shutdown(Duration::ZERO, Duration::ZERO);
    assert_eq!(a.next().await.kind, Kind::Restarting);
    let start = Instant::now();
    // Input is read and discarded, so that the connection is not reset.
    a.send(Key::new([1; 32]), &[0; 5000]).await;
    assert_eq!(a.closed().await, CloseReason::ShuttingDown);
    assert!(start.elapsed() <= Duration::from_millis(1100));
}

#[tokio::test(start_paused = true)]
async fn connections_that_never_log_in_do_not_block_others() {
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
