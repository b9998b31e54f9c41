use proptest::prelude::*;

use super::*;
use crate::frame::{HEADER_LEN, MAX_PACKET_LEN};
use crate::handshake::LoginError;
use crate::nacl::NotAuthentic;
use crate::queue::{Restart, Route};
use crate::stats::{DropReason, Drops, PacketKind, Tally};
use crate::testing::{Owned, client_info, disco, encoded, frames, secret};

/// The relay's key in `ServerKey`.
const SERVER: Key = Key::new([0x5e; 32]);

const START: Duration = Duration::from_secs(1000);

fn seconds(number: u64) -> Duration {
    START + Duration::from_secs(number)
}

/// An event that owns its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
enum OwnedEvent {
    Login(Key),
    Packet(Key, Vec<u8>),
    PoolExhausted,
    Mesh,
    Preferred(bool),
    Ping,
    Other,
}

impl From<Event<'_>> for OwnedEvent {
    fn from(event: Event<'_>) -> Self {
        match event {
            Event::Login { key, .. } => OwnedEvent::Login(key),
            Event::Packet {
                destination,
                packet,
            } => OwnedEvent::Packet(destination, packet.to_vec()),
            Event::Forward { .. } | Event::Watch | Event::ClosePeer(_) => OwnedEvent::Mesh,
            Event::PoolExhausted => OwnedEvent::PoolExhausted,
            Event::Preferred(preferred) => OwnedEvent::Preferred(preferred),
            Event::Ping => OwnedEvent::Ping,
            Event::Other => OwnedEvent::Other,
        }
    }
}

/// A connection with its mailbox, and a client that reads and writes by hand.
struct Bench {
    conn: Conn,
    mailbox: Mailbox,
    pool: Pool,
    limits: Arc<Limits>,
    drops: Drops,
}

impl Bench {
    fn new(limits: Limits) -> Self {
        let (limits, pool) = (Arc::new(limits.clone()), Pool::new(limits.pool_bytes));
        let greeting = Greeting::new(Arc::new(secret(2)));
        let entropy = Entropy {
            nonce: [4; 24],
            jitter: 1 << 15,
        };
        let conn = Conn::new(
            greeting,
            SERVER,
            limits.clone(),
            pool.clone(),
            entropy,
            START,
        );
        Bench {
            conn,
            mailbox: Mailbox::default(),
            pool,
            limits,
            drops: Drops::default(),
        }
    }

    /// A connection with a logged-in client, without the slow key agreement.
    fn open(limits: Limits) -> Self {
        let mut bench = Bench::new(limits);
        bench.conn.phase = Phase::Open;
        bench.conn.outbox.login_done();
        bench.written();
        bench
    }

    fn feed(&mut self, mut bytes: &[u8]) -> Result<Vec<OwnedEvent>, ConnError> {
        let mut events = Vec::new();
        loop {
            let received = self.conn.recv(bytes)?;
            bytes = &bytes[received.consumed..];
            match received.event {
                Some(event) => events.push(event.into()),
                None if bytes.is_empty() => return Ok(events),
                None => {}
            }
        }
    }

    fn push(&mut self, packet: &[u8]) {
        let Bench {
            mailbox,
            pool,
            limits,
            drops,
            ..
        } = self;
        mailbox.queue.push(
            &Route::Deliver(Key::from([7; 32])),
            packet,
            limits,
            pool,
            drops,
        );
    }

    /// Writes at most `max` bytes.
    fn write_some(&mut self, max: usize) -> Vec<u8> {
        self.conn.load(&mut self.mailbox);
        let bytes: Vec<u8> = self
            .conn
            .outbox()
            .slices()
            .iter()
            .flat_map(|slice| slice.to_vec())
            .collect();
        let length = bytes.len().min(max);
        self.conn.outbox().transmitted(length);
        bytes[..length].to_vec()
    }

    /// Writes all that is queued.
    fn written(&mut self) -> Vec<Owned> {
        let chunks = std::iter::from_fn(|| {
            Some(self.write_some(usize::MAX)).filter(|bytes| !bytes.is_empty())
        });
        let bytes = chunks.collect::<Vec<_>>().concat();
        frames(bytes)
    }
}

fn packet(length: usize) -> Vec<u8> {
    let body: Vec<u8> = (0..length).map(|at| at as u8).collect();
    encoded(Frame::SendPacket {
        destination: Key::from([8; 32]),
        packet: &body,
    })
}

fn header(kind: u8, length: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    Header { kind, length }.encode(&mut bytes);
    bytes
}

#[test]
fn login_sends_the_key_first_and_the_info_after_the_decision() {
    let mut bench = Bench::new(Limits::default());
    let greeting = bench.written();
    assert_eq!(greeting[0].frame(), Ok(Frame::ServerKey(SERVER)));
    let events = bench
        .feed(&client_info(&secret(1), &secret(2).public()))
        .unwrap();
    assert_eq!(events, [OwnedEvent::Login(secret(1).public())]);
    assert_eq!(bench.written(), []);
    bench.conn.accept(&ServerInfo::default(), false).unwrap();
    let info = bench.written();
    assert_eq!(info.len(), 1);
    assert_eq!(info[0].kind, Kind::ServerInfo);
}

#[test]
fn any_frame_but_client_info_fails_the_login() {
    for kind in Kind::ALL
        .into_iter()
        .filter(|kind| *kind != Kind::ClientInfo)
    {
        let mut bench = Bench::new(Limits::default());
        let byte = kind.to_byte();
        assert_eq!(
            bench.feed(&header(byte, 8)),
            Err(ConnError::BeforeLogin(byte))
        );
    }
    // The first bytes of an HTTP request and of a TLS ClientHello.
    assert_eq!(
        Bench::new(Limits::default()).feed(b"GET /"),
        Err(ConnError::BeforeLogin(b'G'))
    );
    assert_eq!(
        Bench::new(Limits::default()).feed(b"\x16\x03\x01\0\0"),
        Err(ConnError::BeforeLogin(0x16))
    );
}

#[test]
fn long_client_info_is_rejected_by_its_header() {
    let limits = Limits::default();
    for length in [55, limits.client_info_bytes + 1, u32::MAX] {
        let fault = Bench::new(limits.clone())
            .feed(&header(2, length))
            .unwrap_err();
        assert_eq!(
            fault,
            FrameError::Length {
                kind: Kind::ClientInfo,
                length
            }
            .into()
        );
    }
}

#[test]
fn forged_login_is_rejected() {
    let mut frame = client_info(&secret(1), &secret(2).public());
    *frame.last_mut().unwrap() ^= 1;
    let fault = Bench::new(Limits::default()).feed(&frame).unwrap_err();
    assert_eq!(fault, ConnError::Login(LoginError::Box(NotAuthentic)));
    assert!(fault.is_login());
}

#[test]
fn login_times_out_even_if_bytes_arrive_slowly() {
    let mut bench = Bench::new(Limits::default());
    assert_eq!(bench.conn.poll_timeout(), seconds(10));
    let frame = client_info(&secret(1), &secret(2).public());
    bench.feed(&frame[..frame.len() - 1]).unwrap();
    assert_eq!(bench.conn.handle_timeout(seconds(9)), Ok(()));
    assert_eq!(
        bench.conn.handle_timeout(seconds(10)),
        Err(ConnError::LoginTimeout)
    );
}

#[test]
fn keepalives_are_sent_before_a_proxy_cuts_an_idle_connection() {
    let limits = Limits::default();
    assert!(limits.keepalive + limits.keepalive_jitter <= seconds(45));
    let mut bench = Bench::open(limits);
    let period = Duration::from_millis(42_500);
    for beat in 1..4 {
        let at = START + period * beat;
        assert_eq!(bench.conn.poll_timeout(), at);
        bench
            .conn
            .handle_timeout(at - Duration::from_millis(1))
            .unwrap();
        assert_eq!(bench.written(), []);
        bench.conn.handle_timeout(at).unwrap();
        assert_eq!(bench.written()[0].frame(), Ok(Frame::KeepAlive));
    }
}

#[test]
fn ping_is_echoed_and_only_one_pong_is_queued() {
    let mut bench = Bench::open(Limits::default());
    let mut pings = encoded(Frame::Ping(*b"12345678"));
    pings.extend(encoded(Frame::Ping(*b"abcdefgh")));
    assert_eq!(
        bench.feed(&pings).unwrap(),
        [OwnedEvent::Ping, OwnedEvent::Ping]
    );
    let written = bench.written();
    assert_eq!(written.len(), 1);
    assert_eq!(written[0].frame(), Ok(Frame::Pong(*b"12345678")));
    let long = [header(0x12, 1000), b"longping".to_vec(), vec![0; 992]].concat();
    assert_eq!(bench.feed(&long).unwrap(), [OwnedEvent::Ping]);
    assert_eq!(bench.written()[0].frame(), Ok(Frame::Pong(*b"longping")));
}

#[test]
fn invalid_lengths_are_rejected_by_the_header_alone() {
    for (kind, length) in [
        (Kind::SendPacket, 31),
        (Kind::SendPacket, 65_569),
        (Kind::NotePreferred, 0),
        (Kind::NotePreferred, 2),
        (Kind::Ping, 7),
        (Kind::Ping, 1001),
    ] {
        let fault = Bench::open(Limits::default())
            .feed(&header(kind.to_byte(), length))
            .unwrap_err();
        assert_eq!(fault, ConnError::Frame(FrameError::Length { kind, length }));
    }
}

#[test]
fn frames_of_mesh_peers_are_rejected_from_clients() {
    for kind in [Kind::ForwardPacket, Kind::WatchConns, Kind::ClosePeer] {
        let fault = Bench::open(Limits::default())
            .feed(&header(kind.to_byte(), 64))
            .unwrap_err();
        assert_eq!(fault, ConnError::NotMeshPeer(kind));
    }
}

#[test]
fn unknown_frames_of_any_length_are_skipped() {
    let mut bench = Bench::open(Limits::default());
    let mut bytes = [header(0x77, 100_000), vec![4; 100_000]].concat();
    bytes.extend([header(0x13, 3), vec![0; 3], header(0x78, 0)].concat());
    bytes.extend(encoded(Frame::NotePreferred(true)));
    bytes.extend(header(0xff, u32::MAX));
    bytes.extend([0; 5000]);
    let other = OwnedEvent::Other;
    let expected = [
        other.clone(),
        other.clone(),
        other.clone(),
        OwnedEvent::Preferred(true),
        other,
    ];
    assert_eq!(bench.feed(&bytes).unwrap(), expected);
    assert_eq!(bench.pool.used(), 0);
}

#[test]
fn length_in_a_header_reserves_no_memory() {
    let mut bench = Bench::open(Limits::default());
    let frame = packet(MAX_PACKET_LEN);
    bench.feed(&frame[..100]).unwrap();
    assert_eq!(bench.pool.used(), 0);
    bench.feed(&frame[100..10_000]).unwrap();
    assert!((7_000..20_000).contains(&bench.pool.used()));
    let events = bench.feed(&frame[10_000..]).unwrap();
    assert_eq!(events.len(), 1);
    assert_eq!(bench.pool.used(), 0);
}

#[test]
fn packet_without_room_is_dropped_alone() {
    let limits = Limits {
        pool_bytes: 20_000,
        pool_reserve_bytes: 1000,
        ..Limits::default()
    };
    let mut bench = Bench::open(limits);
    let bytes = [packet(10), packet(60_000), packet(20)].concat();
    let mut events = Vec::new();
    for chunk in bytes.chunks(1000) {
        events.extend(bench.feed(chunk).unwrap());
    }
    assert_eq!(events.len(), 3);
    assert_eq!(events[1], OwnedEvent::PoolExhausted);
    assert!(matches!(&events[2], OwnedEvent::Packet(_, packet) if packet.len() == 20));
    assert_eq!(bench.pool.used(), 0);
}

#[test]
fn not_here_notices_are_limited_to_three_and_then_one_each_second() {
    let mut bench = Bench::open(Limits::default());
    let ask = |bench: &mut Bench, now| {
        (0..5)
            .filter(|_| bench.conn.push_not_here(Key::from([6; 32]), now))
            .count()
    };
    assert_eq!(ask(&mut bench, seconds(0)), 3);
    let written = bench.written();
    let gone = Frame::PeerGone {
        peer: Key::from([6; 32]),
        reason: PeerGoneReason::NotHere,
    };
    assert_eq!(
        written
            .iter()
            .filter(|frame| frame.frame() == Ok(gone))
            .count(),
        3
    );
    assert_eq!(ask(&mut bench, START + Duration::from_millis(999)), 0);
    assert_eq!(ask(&mut bench, seconds(1)), 1);
    bench.written();
    assert_eq!(ask(&mut bench, seconds(3)), 2);
    bench.written();
    assert_eq!(ask(&mut bench, seconds(100)), 3);
}

#[test]
fn blocked_client_is_closed_unless_it_accepts_bytes() {
    let mut bench = Bench::open(Limits::default());
    bench.push(&[0; 1000]);
    bench.write_some(10);
    bench.conn.outbox().blocked(seconds(0));
    bench.conn.outbox().blocked(seconds(1));
    assert_eq!(bench.conn.poll_timeout(), seconds(2));
    bench.write_some(1);
    bench.conn.outbox().blocked(seconds(1));
    assert_eq!(bench.conn.handle_timeout(seconds(2)), Ok(()));
    assert_eq!(
        bench.conn.handle_timeout(seconds(3)),
        Err(ConnError::WriteTimeout)
    );
}

#[test]
fn mesh_peer_has_the_longer_write_timeout() {
    let mut bench = Bench::open(Limits::default());
    bench.conn.accept(&ServerInfo::default(), true).unwrap();
    bench.conn.outbox().blocked(seconds(0));
    assert_eq!(bench.conn.handle_timeout(seconds(29)), Ok(()));
    let error = bench.conn.handle_timeout(seconds(30));
    assert_eq!(error, Err(ConnError::WriteTimeout));
}

#[test]
fn batch_is_fully_written_before_the_next_is_loaded() {
    let mut bench = Bench::open(Limits::default());
    bench.push(b"first");
    let mut bytes = bench.write_some(20);
    bench.feed(&encoded(Frame::Ping([1; 8]))).unwrap();
    bench.push(b"second");
    bytes.extend(
        std::iter::from_fn(|| Some(bench.write_some(7)).filter(|bytes| !bytes.is_empty()))
            .flatten(),
    );
    let kinds: Vec<Kind> = frames(bytes).iter().map(|frame| frame.kind).collect();
    assert_eq!(kinds, [Kind::RecvPacket, Kind::Pong, Kind::RecvPacket]);
    assert_eq!(
        bench.conn.outbox().take_sent(),
        Tally {
            packets: 2,
            bytes: 11
        }
    );
    assert_eq!(bench.pool.used(), 0);
}

#[test]
fn batch_is_bounded_and_has_at_least_one_packet() {
    let mut bench = Bench::open(Limits {
        batch_bytes: 1000,
        ..Limits::default()
    });
    bench.push(&[1; 3000]);
    bench.push(&[2; 600]);
    bench.push(&[3; 600]);
    assert_eq!(bench.write_some(usize::MAX).len(), 3037);
    assert_eq!(bench.write_some(usize::MAX).len(), 2 * 637);
}

#[test]
fn unwritten_packets_are_counted_as_dropped() {
    let mut bench = Bench::open(Limits::default());
    bench.push(&[0; 100]);
    bench.push(&disco(100, 0));
    bench.write_some(200);
    bench.conn.outbox().abandon(&mut bench.drops);
    let lost = PacketKind::ALL.map(|kind| bench.drops.of(DropReason::WriteError, kind).packets);
    assert_eq!((lost[0] + lost[1], bench.drops.total().packets), (1, 1));
    assert_eq!(bench.pool.used(), 0);
}

#[test]
fn restart_notice_follows_the_queued_packets() {
    let mut bench = Bench::open(Limits {
        batch_bytes: 1,
        ..Limits::default()
    });
    bench.push(b"one");
    bench.push(b"two");
    bench.mailbox.push_gone(Key::from([1; 32]), 9);
    bench.mailbox.restart = Some(Restart {
        reconnect_in: 1000,
        try_for: 60_000,
    });
    let written = bench.written();
    let kinds: Vec<Kind> = written.iter().map(|frame| frame.kind).collect();
    assert_eq!(
        kinds,
        [
            Kind::PeerGone,
            Kind::RecvPacket,
            Kind::RecvPacket,
            Kind::Restarting
        ]
    );
    assert_eq!(
        written[3].frame(),
        Ok(Frame::Restarting {
            reconnect_in: 750,
            try_for: 60_000
        })
    );
    assert!(bench.conn.is_finished());
    assert_eq!(bench.feed(&packet(10)).unwrap(), []);
}

#[test]
fn restart_closes_a_connection_that_is_logging_in() {
    let mut bench = Bench::new(Limits::default());
    bench.mailbox.restart = Some(Restart {
        reconnect_in: 1000,
        try_for: 60_000,
    });
    assert_eq!(bench.written().len(), 1);
    assert!(bench.conn.is_finished());
}

/// Frames of a logged-in client, including unknown ones.
fn client_frames() -> impl Strategy<Value = Vec<u8>> {
    let frame = prop_oneof![
        (0usize..4000).prop_map(packet),
        any::<bool>().prop_map(|preferred| encoded(Frame::NotePreferred(preferred))),
        any::<[u8; 8]>().prop_map(|data| encoded(Frame::Ping(data))),
        (0x20u8.., prop::collection::vec(any::<u8>(), 0..50)).prop_map(|(kind, body)| [
            header(kind, body.len() as u32),
            body
        ]
        .concat()),
    ];
    prop::collection::vec(frame, 0..12).prop_map(|frames| frames.concat())
}

proptest! {
    #[test]
    fn events_do_not_depend_on_how_the_input_is_split(
        bytes in client_frames(),
        cuts in prop::collection::vec(1usize..3000, 1..20),
    ) {
        let whole = Bench::open(Limits::default()).feed(&bytes).unwrap();
        let mut bench = Bench::open(Limits::default());
        let (mut events, mut rest) = (Vec::new(), &bytes[..]);
        for cut in cuts.iter().cycle() {
            let (chunk, after) = rest.split_at((*cut).min(rest.len()));
            events.extend(bench.feed(chunk).unwrap());
            rest = after;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(events, whole);
        prop_assert_eq!(bench.pool.used(), 0);
    }

    #[test]
    fn any_bytes_never_panic_and_stay_within_the_pool(
        chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..20),
        logged_in in any::<bool>(),
    ) {
        let limits = Limits { pool_bytes: 3000, pool_reserve_bytes: 0, ..Limits::default() };
        let mut bench = if logged_in { Bench::open(limits) } else { Bench::new(limits) };
        for chunk in chunks {
            if bench.feed(&chunk).is_err() {
                break;
            }
            prop_assert!(bench.pool.used() <= 3000);
        }
    }

    #[test]
    fn output_does_not_depend_on_how_the_writes_are_split(
        sizes in prop::collection::vec(0usize..400, 1..30),
        cuts in prop::collection::vec(1usize..900, 1..20),
    ) {
        let mut bench = Bench::open(Limits { batch_bytes: 1500, ..Limits::default() });
        for size in &sizes {
            bench.push(&vec![*size as u8; *size]);
        }
        let mut bytes = Vec::new();
        for cut in cuts.iter().cycle() {
            let chunk = bench.write_some(*cut);
            if chunk.is_empty() {
                break;
            }
            bytes.extend(chunk);
        }
        let lengths: Vec<usize> = frames(bytes).iter().map(|frame| frame.body.len() - 32).collect();
        prop_assert_eq!(lengths, sizes);
        prop_assert_eq!(bench.pool.used(), 0);
    }

    #[test]
    fn a_frame_header_is_enough_to_reject_a_frame(kind in any::<u8>(), length in any::<u32>()) {
        let _ = Bench::open(Limits::default()).feed(&header(kind, length));
        let _ = Bench::new(Limits::default()).feed(&header(kind, length)[..HEADER_LEN]);
    }
}
