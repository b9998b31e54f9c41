//! What waits for one connection: packets in two lanes, and notices. Pure; the caller holds the
//! lock.

use std::collections::{BTreeMap, VecDeque};

use crate::frame::{Frame, HEADER_LEN, Presence};
use crate::pool::{Pool, Reservation};
use crate::stats::{DropReason, Drops, PacketKind};
use crate::{Key, Limits};

/// Bytes charged to the pool for each packet beside its frame: the allocator's and the queue's own
/// cost.
const PACKET_COST: usize = 64;

/// Who sends a packet, and who is to get it if the next hop is another relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// To the receiver itself, from this key.
    Deliver(Key),
    /// To another relay.
    Forward {
        /// Who sent it.
        source: Key,
        /// Who shall get it.
        destination: Key,
    },
}

impl Route {
    /// Bytes of the frame before the packet's own: header and keys.
    fn prefix(&self) -> usize {
        HEADER_LEN.saturating_add(match self {
            Route::Deliver(_) => Key::LEN,
            Route::Forward { .. } => Key::LEN.saturating_mul(2),
        })
    }
}

/// A `RecvPacket` or `ForwardPacket` frame ready to be written, with its share of the pool.
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
        // The exact capacity, so that the box below is made without another allocation.
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

    /// The whole frame, header and all.
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
    /// What the packets are charged for in the pool.
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

/// The send queue of a connection. The discovery lane only protects discovery packets from a flood
/// of data; packets of different lanes may overtake each other, as in the reference.
#[derive(Debug, Default)]
pub struct Queue {
    disco: Lane,
    data: Lane,
    disco_next: bool,
    /// What the packets that are being written are charged for.
    writing: usize,
    /// That it fills was told since the last packet was taken.
    filling_reported: bool,
}

impl Queue {
    /// Copies a packet in. Makes room by dropping the oldest packets of the same lane; says false
    /// if the pool has no room even so, then the packet is dropped. Every drop is counted in
    /// `drops`.
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
            // A receiver may hold as much as the pool has left. So the more receivers stall, the
            // less each of them can hold, and there is always room for those that do not.
            let bytes = lane.bytes.saturating_add(charge);
            let full = lane.packets.len() >= limits.queue_slots
                || bytes > lane_bytes
                || bytes.saturating_add(self.writing) > pool.free().saturating_sub(spare);
            let Some(oldest) = full.then(|| lane.pop()).flatten() else {
                break;
            };
            drops.record(DropReason::QueueHead, oldest.payload());
        }
        // For the same reason no data takes more than half of what is left.
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

    /// Whether a lane has become half full since a packet was last taken. Says so once, so that a
    /// receiver that takes nothing holds nobody up.
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

    /// Takes the next packet, from the lanes in turn.
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

    /// Notes that all packets taken so far are written.
    pub fn note_written(&mut self) {
        self.writing = 0;
    }

    /// How many packets wait.
    pub fn len(&self) -> usize {
        self.disco
            .packets
            .len()
            .saturating_add(self.data.packets.len())
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Gives the memory of an empty queue back.
    pub fn release(&mut self) {
        if self.is_empty() {
            *self = Queue::default();
        }
    }
}

/// When clients shall come back after a restart of the relay, in milliseconds as the frame has
/// them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restart {
    /// When to connect again.
    pub reconnect_in: u32,
    /// How long to keep trying.
    pub try_for: u32,
}

/// Everything that others leave for a connection to send.
#[derive(Debug, Default)]
pub struct Mailbox {
    /// Packets.
    pub queue: Queue,
    /// Keys that have left, which the client has had packets from.
    gone: VecDeque<Key>,
    /// Who came and went, for a relay that asked to be told; none means gone.
    presence: BTreeMap<Key, Option<Presence>>,
    /// Set once the relay shuts down.
    pub restart: Option<Restart>,
}

impl Mailbox {
    /// Leaves the notice that `peer` has left. Says false if there are `most` notices already.
    pub fn push_gone(&mut self, peer: Key, most: usize) -> bool {
        if self.gone.contains(&peer) {
            return true;
        }
        let room = self.gone.len() < most;
        if room {
            self.gone.push_back(peer);
        }
        room
    }

    /// Takes the oldest notice.
    pub fn pop_gone(&mut self) -> Option<Key> {
        let peer = self.gone.pop_front();
        if self.gone.is_empty() {
            self.gone = VecDeque::new();
        }
        peer
    }

    /// Leaves the notice that a client is here, or is not any more; it replaces an earlier one about
    /// the same client. Says false if there are `most` notices already.
    pub fn push_presence(&mut self, peer: Key, presence: Option<Presence>, most: usize) -> bool {
        if self.presence.len() >= most && !self.presence.contains_key(&peer) {
            return false;
        }
        self.presence.insert(peer, presence);
        true
    }

    /// Takes a notice about a client that is here or not any more.
    pub fn pop_presence(&mut self) -> Option<(Key, Option<Presence>)> {
        self.presence.pop_first()
    }

    /// Whether nothing waits. A restart does not count: it is a state.
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
    fn packet_is_a_whole_frame_of_exact_size() {
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
    fn filling_is_told_once_until_something_is_taken() {
        let mut bench = Bench::new(limits(), 10_000);
        let told: Vec<bool> = (0..6)
            .map(|mark| bench.push(&[mark]) && bench.queue.is_filling(&bench.limits))
            .collect();
        assert_eq!(told, [false, true, false, false, false, false]);
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
    fn packets_being_written_count_as_the_receivers_share() {
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
