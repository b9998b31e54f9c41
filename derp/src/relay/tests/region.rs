//! Regions with several relays, rate limits, and asynchronous admission.

use super::*;

fn mesh_key() -> MeshKey {
    "ab".repeat(32).parse().unwrap()
}

fn mesh_relay(mark: u8) -> Relay {
    let admit = Arc::new(Except::default());
    Relay::with_mesh_key(secret(mark), Limits::default(), admit, Some(mesh_key()))
}

/// Links `from` to `to` with this key.
fn link(
    from: &Relay,
    to: &Relay,
    key: MeshKey,
) -> (JoinHandle<MeshLinkEnd>, JoinHandle<CloseReason>) {
    let (near, far) = duplex(1 << 16);
    let server = serve(to, far, Vec::new());
    let mesh = from.serve_mesh_link(near, Bytes::new(), key);
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
    // A disconnected client is announced to the clients of the other relay too.
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
    // When a relay stops, its clients are unreachable.
    two.shutdown(Duration::from_secs(1), Duration::from_secs(1));
    assert!(there.0.await.is_ok());
    assert_eq!(back.0.await.unwrap(), MeshLinkEnd::ShuttingDown);
    settle().await;
    assert_eq!(one.stats().remote_keys, 0);
}

#[tokio::test(start_paused = true)]
async fn relay_with_a_wrong_mesh_key_is_an_ordinary_client() {
    let (one, two) = (mesh_relay(100), mesh_relay(101));
    let (end, closed) = link(&one, &two, "cd".repeat(32).parse().unwrap());
    let fault = CloseReason::Protocol(ConnError::NotMeshPeer(Kind::WatchConns));
    assert_eq!(closed.await.unwrap(), fault);
    assert!(matches!(end.await.unwrap(), MeshLinkEnd::Closed { .. }));
    assert_eq!(two.stats().mesh_connections, 0);
}

#[tokio::test(start_paused = true)]
async fn relay_that_connects_to_itself_closes_the_link() {
    let one = mesh_relay(100);
    let (end, _) = link(&one, &one, mesh_key());
    assert_eq!(
        end.await.unwrap(),
        MeshLinkEnd::Error(crate::mesh_link::MeshLinkError::ConnectedToSelf)
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
    assert_eq!(a.closed().await, CloseReason::Disconnected);
}

#[tokio::test(start_paused = true)]
async fn rate_limited_client_is_slowed_down_and_loses_nothing() {
    let limits = Limits {
        rates: Rates {
            client_bytes_per_second: 100_000,
            ..Rates::default()
        },
        // The burst must fit; this test is about the rate.
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
async fn total_rate_limit_is_shared_by_all_clients() {
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

/// Decides after a second.
struct Slow(bool);

impl Admit for Slow {
    fn admit(&self, _key: &Key, _source: IpAddr) -> Option<Standing> {
        None
    }

    fn admit_async(&self, _key: &Key, _source: IpAddr) -> Option<crate::admit::AdmissionFuture> {
        let is_admitted = self.0;
        Some(Box::pin(async move {
            sleep(Duration::from_secs(1)).await;
            is_admitted.then_some(Standing::Stranger)
        }))
    }
}

#[tokio::test(start_paused = true)]
async fn login_waits_for_asynchronous_admission() {
    let relay = Relay::new(secret(200), Limits::default(), Arc::new(Slow(true)));
    let mut b = Client::login(&relay, 2, 1 << 16).await;
    let (mut near, far) = duplex(1 << 16);
    let _task = serve(&relay, far, Vec::new());
    let mut input = client_info(&secret(1), &relay.public_key());
    input.extend(encoded(Frame::SendPacket {
        destination: b.key,
        packet: b"sent before the decision",
    }));
    near.write_all(&input).await.unwrap();
    b.expect_packet(secret(1).public(), b"sent before the decision")
        .await;

    let relay = Relay::new(secret(200), Limits::default(), Arc::new(Slow(false)));
    let mut client = Client::connect(&relay, 1, 1 << 16);
    let info = client_info(&client.secret, &relay.public_key());
    client.stream.write_all(&info).await.unwrap();
    let key = client.key;
    assert_eq!(client.closed().await, CloseReason::NotAdmitted(key));
}

#[tokio::test(start_paused = true)]
async fn idle_client_is_closed_only_with_an_idle_timeout() {
    let limits = Limits {
        idle_timeout: Duration::from_secs(200),
        ..Limits::default()
    };
    let start = Instant::now();
    let client = Client::login(&relay(limits), 1, 1 << 16).await;
    assert_eq!(client.closed().await, CloseReason::Idle);
    assert!(start.elapsed() >= Duration::from_secs(200));
}

#[tokio::test(start_paused = true)]
async fn rate_limits_can_change_while_clients_are_connected() {
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
