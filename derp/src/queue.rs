//! Send queue and mailbox of one connection: packets in two lanes, and notices. Does no I/O; the
//! caller holds the lock.

use std::collections::{BTreeMap, VecDeque};

use crate::frame::{Frame, HEADER_LEN, Presence};
use crate::pool::{Pool, Reservation};
use crate::stats::{DropReason, Drops, PacketKind};
use crate::{Key, Limits};

/// Overhead charged to the pool for each packet, in bytes: allocator and queue.
const PACKET_COST: usize = 64;

/// Addresses of a packet, and with them the type of its frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// To the receiver itself, from this key: `RecvPacket`.
    Deliver(Key),
    /// To another relay of the region: `ForwardPacket`.
    Forward {
        /// The sender's key.
        source: Key,
        /// The receiver's key.
        destination: Key,
    },
}

impl Route {
    /// Bytes of the frame before the payload: header and keys.
    fn prefix(&self) -> usize {
        HEADER_LEN.saturating_add(match self {
            Route::Deliver(_) => Key::LEN,
            Route::Forward { .. } => Key::LEN.saturating_mul(2),
        })
    }
}

/// An encoded `RecvPacket` or `ForwardPacket` frame, with its pool memory.
#[derive(Debug)]
pub struct Packet {
    frame: Box<[u8]>,
    reserved: Reservation,
    prefix: u8,
}

impl Packet {
    fn charge(route: &Route, payload: &[u8]) -> usize {
        payload
            .len()
            .saturating_add(route.prefix())
            .saturating_add(PACKET_COST)
    }

    fn new(route: &Route, payload: &[u8], reserved: Reservation) -> Self {
        // With the exact capacity, `into_boxed_slice` does not allocate again.
        let prefix = route.prefix();
        let mut frame = Vec::with_capacity(payload.len().saturating_add(prefix));
        match *route {
            Route::Deliver(source) => Frame::RecvPacket {
                source,
                packet: payload,
            },
            Route::Forward {
                source,
                destination,
            } => Frame::ForwardPacket {
                source,
                destination,
                packet: payload,
            },
        }
        .encode(&mut frame);
        Packet {
            frame: frame.into_boxed_slice(),
            reserved,
            prefix: u8::try_from(prefix).unwrap_or(u8::MAX),
        }
    }

    /// The whole frame, including its header.
    pub fn frame(&self) -> &[u8] {
        &self.frame
    }

    /// The packet without header and keys.
    pub fn payload(&self) -> &[u8] {
        self.frame
            .get(usize::from(self.prefix)..)
            .unwrap_or_default()
    }
}

/// Packets of one kind, oldest first.
#[derive(Debug, Default)]
struct Lane {
    packets: VecDeque<Packet>,
    /// Bytes charged to the pool for the packets.
    bytes: usize,
}

impl Lane {
    fn pop(&mut self) -> Option<Packet> {
        let packet = self.packets.pop_front()?;
        self.bytes = self.bytes.saturating_sub(packet.reserved.bytes());
        Some(packet)
    }

    fn push(&mut self, packet: Packet) {
        self.bytes = self.bytes.saturating_add(packet.reserved.bytes());
        self.packets.push_back(packet);
    }
}

/// Send queue of a connection. The discovery lane protects discovery packets from a flood of data;
/// packets of different lanes may be reordered, as in the reference.
#[derive(Debug, Default)]
pub struct Queue {
    disco: Lane,
    data: Lane,
    disco_next: bool,
    /// Bytes charged to the pool for the packets that are being written.
    writing: usize,
    /// Whether [`Queue::is_filling`] has returned true since the last packet was taken.
    filling_reported: bool,
}

impl Queue {
    /// Queues a copy of a packet. If the lane is full, drops its oldest packets. If the pool has no
    /// room even so, drops the new packet and returns false. Drops are counted in `drops`.
    pub fn push(
        &mut self,
        route: &Route,
        payload: &[u8],
        limits: &Limits,
        pool: &Pool,
        drops: &mut Drops,
    ) -> bool {
        let kind = PacketKind::of(payload);
        let (lane, lane_bytes, spare) = match kind {
            PacketKind::Disco => (&mut self.disco, limits.disco_queue_bytes, 0),
            PacketKind::Other => (
                &mut self.data,
                limits.data_queue_bytes,
                limits.pool_reserve_bytes,
            ),
        };
        let charge = Packet::charge(route, payload);
        loop {
            // A receiver may use as much memory as the pool has left: the more receivers stall, the
            // less each of them gets, and there is always room for the others.
            let bytes = lane.bytes.saturating_add(charge);
            let full = lane.packets.len() >= limits.queue_slots
                || bytes > lane_bytes
                || bytes.saturating_add(self.writing) > pool.free().saturating_sub(spare);
            let Some(oldest) = full.then(|| lane.pop()).flatten() else {
                break;
            };
            drops.record(DropReason::QueueHead, oldest.payload());
        }
        // For the same reason no data packet takes more than half of the free pool.
        let spare = match kind {
            PacketKind::Disco => spare,
            PacketKind::Other => spare.saturating_add(charge),
        };
        match pool.reserve(charge, spare) {
            Some(reserved) => {
                lane.push(Packet::new(route, payload, reserved));
                true
            }
            None => {
                drops.record(DropReason::QueueTail, payload);
                false
            }
        }
    }

    /// Whether a lane has become half full since a packet was last taken. Returns true only once, so
    /// that a stalled receiver does not delay senders.
    pub fn is_filling(&mut self, limits: &Limits) -> bool {
        if self.filling_reported {
            return false;
        }
        let is_half_full = |lane: &Lane, lane_bytes: usize| {
            lane.packets.len() >= limits.queue_slots.div_ceil(2)
                || lane.bytes >= lane_bytes.div_ceil(2)
        };
        self.filling_reported = is_half_full(&self.data, limits.data_queue_bytes)
            || is_half_full(&self.disco, limits.disco_queue_bytes);
        self.filling_reported
    }

    /// Takes the next packet; the lanes take turns.
    pub fn pop(&mut self) -> Option<Packet> {
        self.filling_reported = false;
        self.disco_next = !self.disco_next;
        let (first, second) = if self.disco_next {
            (&mut self.disco, &mut self.data)
        } else {
            (&mut self.data, &mut self.disco)
        };
        let packet = first.pop().or_else(|| second.pop())?;
        self.writing = self.writing.saturating_add(packet.reserved.bytes());
        Some(packet)
    }

    /// Notes that all packets taken so far were written.
    pub fn note_written(&mut self) {
        self.writing = 0;
    }

    /// Number of queued packets.
    pub fn len(&self) -> usize {
        self.disco
            .packets
            .len()
            .saturating_add(self.data.packets.len())
    }

    /// Whether no packet is queued.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Frees the memory of an empty queue.
    pub fn release(&mut self) {
        if self.is_empty() {
            *self = Queue::default();
        }
    }
}

/// When clients should reconnect after a restart of the relay, in milliseconds, as in the
/// `Restarting` frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restart {
    /// When to reconnect.
    pub reconnect_in: u32,
    /// How long to retry.
    pub try_for: u32,
}

/// Everything that is queued for a connection to send.
#[derive(Debug, Default)]
pub struct Mailbox {
    /// Packets.
    pub queue: Queue,
    /// Disconnected keys that the client has received packets from.
    gone: VecDeque<Key>,
    /// Presence updates for a mesh peer that subscribed; none means gone.
    presence: BTreeMap<Key, Option<Presence>>,
    /// Set when the relay shuts down.
    pub restart: Option<Restart>,
}

impl Mailbox {
    /// Queues the notice that `peer` has disconnected. Returns false if `max` notices are queued.
    pub fn push_gone(&mut self, peer: Key, max: usize) -> bool {
        if self.gone.contains(&peer) {
            return true;
        }
        let room = self.gone.len() < max;
        if room {
            self.gone.push_back(peer);
        }
        room
    }

    /// Takes the oldest notice about a disconnected key.
    pub fn pop_gone(&mut self) -> Option<Key> {
        let peer = self.gone.pop_front();
        if self.gone.is_empty() {
            self.gone = VecDeque::new();
        }
        peer
    }

    /// Queues a presence update; it replaces an earlier one about the same client. Returns false if
    /// `max` updates are queued.
    pub fn push_presence(&mut self, peer: Key, presence: Option<Presence>, max: usize) -> bool {
        if self.presence.len() >= max && !self.presence.contains_key(&peer) {
            return false;
        }
        self.presence.insert(peer, presence);
        true
    }

    /// Takes a presence update.
    pub fn pop_presence(&mut self) -> Option<(Key, Option<Presence>)> {
        self.presence.pop_first()
    }

    /// Whether nothing is queued. A restart does not count: it is a state.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.gone.is_empty() && self.presence.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::Tally;
    use crate::testing::disco;

    fn limits() -> Limits {
        Limits {
            queue_slots: 4,
            data_queue_bytes: 1000,
            disco_queue_bytes: 500,
            pool_reserve_bytes: 0,
            ..Limits::default()
        }
    }

    struct Bench {
        queue: Queue,
        limits: Limits,
        pool: Pool,
        drops: Drops,
    }

    impl Bench {
        fn new(limits: Limits, pool: usize) -> Self {
            Bench {
                queue: Queue::default(),
                limits,
                pool: Pool::new(pool),
                drops: Drops::default(),
            }
        }

        fn push(&mut self, payload: &[u8]) -> bool {
            let Bench {
                queue,
                limits,
                pool,
                drops,
            } = self;
            queue.push(
                &Route::Deliver(Key::from([9; 32])),
                payload,
                limits,
                pool,
                drops,
            )
        }

        fn payloads(&mut self) -> Vec<Vec<u8>> {
            std::iter::from_fn(|| self.queue.pop())
                .map(|packet| packet.payload().to_vec())
                .collect()
        }

        fn dropped(&self, reason: DropReason, kind: PacketKind) -> Tally {
            self.drops.of(reason, kind)
        }
    }

    #[test]
    fn packet_is_a_complete_frame_of_exact_size() {
        let mut bench = Bench::new(limits(), 10_000);
        assert!(bench.push(b"hello"));
        let packet = bench.queue.pop().unwrap();
        let expected = [&[5, 0, 0, 0, 37][..], &[9; 32], b"hello"].concat();
        assert_eq!(packet.frame(), expected);
        assert_eq!(bench.pool.used(), expected.len() + PACKET_COST);
        drop(packet);
        assert_eq!(bench.pool.used(), 0);
    }

    #[test]
    fn full_queue_drops_oldest() {
        let mut bench = Bench::new(limits(), 10_000);
        for mark in 0..6 {
            assert!(bench.push(&[mark]));
        }
        assert_eq!(bench.payloads(), [[2], [3], [4], [5]]);
        assert_eq!(
            bench.dropped(DropReason::QueueHead, PacketKind::Other),
            Tally {
                packets: 2,
                bytes: 2
            }
        );
    }

    #[test]
    fn bytes_are_bounded_as_well_as_slots() {
        let mut bench = Bench::new(limits(), 10_000);
        for mark in 0..4 {
            assert!(bench.push(&[mark; 300]));
        }
        assert_eq!(bench.payloads(), [[2; 300], [3; 300]]);
    }

    #[test]
    fn filling_is_reported_once_until_a_packet_is_taken() {
        let mut bench = Bench::new(limits(), 10_000);
        let reported: Vec<bool> = (0..6)
            .map(|mark| bench.push(&[mark]) && bench.queue.is_filling(&bench.limits))
            .collect();
        assert_eq!(reported, [false, true, false, false, false, false]);
        assert!(bench.queue.pop().is_some() && bench.push(&[6]));
        assert!(bench.queue.is_filling(&bench.limits));
    }

    #[test]
    fn packet_larger_than_the_lane_passes_alone() {
        let mut bench = Bench::new(limits(), 11_000);
        assert!(bench.push(&[1; 10]));
        assert!(bench.push(&[2; 5000]));
        assert_eq!(bench.payloads(), [vec![2; 5000]]);
    }

    #[test]
    fn flood_of_data_leaves_the_discovery_lane_alone() {
        let mut bench = Bench::new(limits(), 10_000);
        assert!(bench.push(&disco(70, 7)));
        for mark in 0..20 {
            assert!(bench.push(&[mark; 100]));
        }
        let payloads = bench.payloads();
        assert_eq!(payloads[0], disco(70, 7));
        assert_eq!(payloads.len(), 5);
    }

    #[test]
    fn lanes_take_turns() {
        let mut bench = Bench::new(limits(), 10_000);
        for mark in 0..2 {
            assert!(bench.push(&[mark; 70]) && bench.push(&disco(70, mark)));
        }
        assert_eq!(
            bench.payloads(),
            [disco(70, 0), vec![0; 70], disco(70, 1), vec![1; 70]]
        );
    }

    #[test]
    fn empty_pool_drops_the_new_packet_and_counts_it() {
        let mut bench = Bench::new(limits(), 250);
        assert!(!bench.push(&[0; 300]));
        assert_eq!(
            bench.dropped(DropReason::QueueTail, PacketKind::Other),
            Tally {
                packets: 1,
                bytes: 300
            }
        );
        assert!(bench.push(&[0; 10]));
    }

    #[test]
    fn reserve_of_the_pool_is_for_discovery() {
        let mut bench = Bench::new(limits(), 1000);
        bench.limits.pool_reserve_bytes = 1000;
        assert!(!bench.push(&[0; 10]));
        assert!(bench.push(&disco(62, 0)));
    }

    #[test]
    fn stalled_receivers_share_the_pool_evenly() {
        let limits = Limits {
            queue_slots: 1000,
            data_queue_bytes: 100_000,
            ..limits()
        };
        let (pool, mut drops) = (Pool::new(100_000), Drops::default());
        let mut queues: Vec<Queue> = (0..9).map(|_| Queue::default()).collect();
        for _ in 0..1000 {
            for queue in &mut queues {
                assert!(queue.push(
                    &Route::Deliver(Key::from([9; 32])),
                    &[0; 100],
                    &limits,
                    &pool,
                    &mut drops
                ));
            }
        }
        for queue in &queues {
            assert!(
                (9_000..=11_000).contains(&queue.data.bytes),
                "{}",
                queue.data.bytes
            );
        }
        assert!(pool.free() >= 9_000);
    }

    #[test]
    fn packets_being_written_count_as_memory_of_the_receiver() {
        let limits = Limits {
            queue_slots: 1000,
            data_queue_bytes: 100_000,
            pool_reserve_bytes: 1000,
            ..limits()
        };
        let (pool, mut drops) = (Pool::new(100_000), Drops::default());
        let mut queues: Vec<Queue> = (0..9).map(|_| Queue::default()).collect();
        let mut written = Vec::new();
        for queue in &mut queues {
            for _ in 0..1000 {
                queue.push(
                    &Route::Deliver(Key::from([9; 32])),
                    &[0; 1000],
                    &limits,
                    &pool,
                    &mut drops,
                );
                written.extend(queue.pop());
            }
            for _ in 0..1000 {
                queue.push(
                    &Route::Deliver(Key::from([9; 32])),
                    &[0; 1000],
                    &limits,
                    &pool,
                    &mut drops,
                );
            }
        }
        assert!(pool.free() >= 2000, "{}", pool.free());
        written.clear();
        queues[0].note_written();
        assert!(queues[0].push(
            &Route::Deliver(Key::from([9; 32])),
            &[0; 20_000],
            &limits,
            &pool,
            &mut drops
        ));
    }

    #[test]
    fn notices_are_bounded_and_not_repeated() {
        let mut mailbox = Mailbox::default();
        assert!(
            mailbox.push_gone(Key::from([1; 32]), 2) && mailbox.push_gone(Key::from([1; 32]), 2)
        );
        assert!(mailbox.push_gone(Key::from([2; 32]), 2));
        assert!(!mailbox.push_gone(Key::from([3; 32]), 2));
        assert_eq!(mailbox.pop_gone(), Some(Key::from([1; 32])));
        assert_eq!(mailbox.pop_gone(), Some(Key::from([2; 32])));
        assert!(mailbox.is_empty());
    }
}
