//! Who is connected, and what waits for whom. Pure; the relay keeps it behind one lock that is held
//! shortly.

mod mesh;
mod peer;
#[cfg(test)]
mod tests;

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::task::Waker;

use crate::address::source_prefix;
use crate::conn::ConnError;
use crate::frame::Presence;
use crate::pool::Pool;
use crate::queue::{Mailbox, Restart, Route};
use crate::stats::{DropReason, PacketKind, Stats, Tally, count};
use crate::{Key, Limits};
use mesh::LinkSlot;
pub use mesh::MeshLinkId;
use peer::Peer;

/// Names a connection; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(u64);

/// How a connection came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnInfo {
    /// Where it comes from.
    pub source: SocketAddr,
    /// Whether the client would rather use another relay of the region, see
    /// [`IDEAL_NODE_HEADER`](crate::http::IDEAL_NODE_HEADER).
    pub not_ideal: bool,
}

impl From<SocketAddr> for ConnInfo {
    /// A connection from there, of a client that wants this relay.
    fn from(source: SocketAddr) -> Self {
        ConnInfo {
            source: SocketAddr::new(source.ip().to_canonical(), source.port()),
            not_ideal: false,
        }
    }
}

/// What a client is, beside its key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientRole {
    /// It has shown the mesh key: it is another relay of the region.
    pub is_mesh_peer: bool,
    /// It says that it measures the relay rather than using it.
    pub is_prober: bool,
}

impl ClientRole {
    /// What other relays are told. Source: `derpserver.sclient.presentFlags`.
    fn presence(self, conn_info: ConnInfo) -> Presence {
        let mut flags = 0;
        for (bit, set) in [
            (2, self.is_mesh_peer),
            (4, self.is_prober),
            (8, conn_info.not_ideal),
        ] {
            flags |= if set { bit } else { 0 };
        }
        Presence {
            address: conn_info.source,
            flags: if flags == 0 { 1 } else { flags },
        }
    }
}

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CloseReason {
    /// The client closed it.
    #[error("client closed the connection")]
    ByPeer,
    /// The stream failed.
    #[error("connection failed: {0}")]
    Io(std::io::ErrorKind),
    /// The client broke the protocol or ran out of time.
    #[error("{0}")]
    Protocol(#[from] ConnError),
    /// The client is not admitted.
    #[error("client {0:?} is not admitted")]
    NotAdmitted(Key),
    /// The client's key was disconnected: it is not admitted any more.
    #[error("client is not admitted any more")]
    Disconnected,
    /// The client's key has more connections than allowed, this was the least active one.
    #[error("too many connections with the same key")]
    Replaced,
    /// It had not logged in when the room was needed for others.
    #[error("pushed out before the login by newer connections")]
    Evicted,
    /// All connections are taken.
    #[error("relay is full")]
    Full,
    /// The address has all the connections that one address may have.
    #[error("too many connections from one address")]
    TooManyFromAddress,
    /// Another relay of the region did not take the notices about clients that come and go.
    #[error("relay of the region takes no notices")]
    MeshPeerTooSlow,
    /// It said nothing for too long.
    #[error("client said nothing for too long")]
    Idle,
    /// The relay shuts down.
    #[error("relay is shutting down")]
    ShuttingDown,
    /// The system's random source failed.
    #[error("no randomness")]
    NoRandomness,
}

/// What became of a packet.
#[derive(Debug)]
pub enum Forwarded {
    /// It waits for its receiver, or for the link to the receiver's relay; the driver is to be
    /// woken.
    Queued(Option<Waker>),
    /// The same, and the queue has become half full: the sender should let its receiver have a turn
    /// before it sends more.
    Filling(Option<Waker>),
    /// It was dropped.
    Dropped,
    /// It was dropped and the sender should hear that the receiver is not here.
    NotHere,
}

impl Forwarded {
    fn queued(is_filling: bool, waker: Option<Waker>) -> Self {
        match is_filling {
            true => Forwarded::Filling(waker),
            false => Forwarded::Queued(waker),
        }
    }
}

/// Hashes connection ids, which no peer can choose.
#[derive(Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, value: u64) {
        // Fibonacci hashing: consecutive ids differ in the high bits too, which the map looks at.
        self.0 = (self.0 ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

type IdMap<V> = HashMap<ConnId, V, BuildHasherDefault<IdHasher>>;

enum State {
    Login,
    Open(Key),
    Closed(CloseReason),
}

struct Slot {
    state: State,
    mailbox: Mailbox,
    waker: Option<Waker>,
    preferred: bool,
    conn_info: ConnInfo,
    role: ClientRole,
    /// There was no room for a notice that it must not miss.
    missed_presence: bool,
}

/// Bytes of a WireGuard handshake initiation, and what each begins with.
/// Source: `MessageInitiationSize`, `MessageInitiationType` in wireguard-go `device/noise-protocol.go`.
const INITIATION_BYTES: usize = 148;
const INITIATION_START: [u8; 4] = [1, 0, 0, 0];

/// Handshake initiations that are kept for receivers which are not here yet.
const MAX_HELD_INITIATIONS: usize = 64;

/// A handshake initiation for a receiver that is not here yet. A client that joins is told to others when it
/// asks for its first map, a moment before it connects here; without this the initiation of whoever dials
/// it at once is lost, and WireGuard repeats it only after five seconds.
struct HeldInitiation {
    source: Key,
    destination: Key,
    payload: [u8; INITIATION_BYTES],
}

/// Where a packet goes next.
#[derive(Clone, Copy)]
enum Hop {
    Connection(ConnId),
    Link(MeshLinkId),
}

/// All connections of the relay.
///
/// Invariants: `logins` are the slots in state `Login`; each slot in state `Open` is in the list of
/// the peer of its key, and in no other; every peer has a connection or a link; `open` is the number
/// of slots in state `Open`; `watchers` are slots in state `Open` of mesh peers; `remote` is the
/// number of forwarders of all peers; `sources` counts the slots by address.
pub struct Registry {
    limits: Arc<Limits>,
    pool: Pool,
    next: u64,
    slots: IdMap<Box<Slot>>,
    logins: BTreeSet<ConnId>,
    peers: HashMap<Key, Peer>,
    links: BTreeMap<MeshLinkId, LinkSlot>,
    remote: usize,
    watchers: Vec<ConnId>,
    sources: HashMap<IpAddr, usize>,
    open: usize,
    /// The oldest first.
    held: VecDeque<HeldInitiation>,
    restart: Option<Restart>,
    stats: Stats,
}

impl Registry {
    /// An empty registry. `pool` is the one that the connections use.
    pub fn new(limits: Arc<Limits>, pool: Pool) -> Self {
        Registry {
            limits,
            pool,
            next: 0,
            slots: IdMap::default(),
            logins: BTreeSet::new(),
            peers: HashMap::new(),
            links: BTreeMap::new(),
            remote: 0,
            watchers: Vec::new(),
            sources: HashMap::new(),
            open: 0,
            held: VecDeque::new(),
            restart: None,
            stats: Stats::default(),
        }
    }

    /// Takes a new connection, which has to log in. The bound for one address does not hold for
    /// loopback, where a proxy may stand for all its clients. If too many are logging in, or the relay is
    /// full, the oldest of those logging in gives way; its driver is to be woken.
    pub fn connect(&mut self, conn_info: ConnInfo) -> Result<(ConnId, Option<Waker>), CloseReason> {
        let source = source_prefix(conn_info.source.ip());
        let is_local = conn_info.source.ip().to_canonical().is_loopback();
        let from_there = self.sources.get(&source).copied().unwrap_or_default();
        let refusal = if self.restart.is_some() {
            Some(CloseReason::ShuttingDown)
        } else if self.open >= self.limits.connections || self.limits.logins == 0 {
            Some(CloseReason::Full)
        } else if from_there >= self.limits.connections_per_address && !is_local {
            Some(CloseReason::TooManyFromAddress)
        } else {
            None
        };
        if let Some(refusal) = refusal {
            count(&mut self.stats.turned_away);
            return Err(refusal);
        }
        let mut evicted = None;
        let full = self.open.saturating_add(self.logins.len()) >= self.limits.connections;
        if (full || self.logins.len() >= self.limits.logins)
            && let Some(oldest) = self.logins.first().copied()
        {
            count(&mut self.stats.logins_evicted);
            evicted = self.close(oldest, CloseReason::Evicted);
        }
        let id = ConnId(self.next);
        self.next = self.next.wrapping_add(1);
        let slot = Slot {
            state: State::Login,
            mailbox: Mailbox::default(),
            waker: None,
            preferred: false,
            conn_info,
            role: ClientRole::default(),
            missed_presence: false,
        };
        self.sources.insert(source, from_there.saturating_add(1));
        self.slots.insert(id, Box::new(slot));
        self.logins.insert(id);
        count(&mut self.stats.accepted);
        Ok((id, evicted))
    }

    /// Makes a connection the receiver for `key`. If the key has too many connections, the least
    /// active one gives way. Other relays that asked for it are told. The drivers are to be woken.
    /// Source: `derpserver.Server.registerClient`.
    pub fn login(
        &mut self,
        id: ConnId,
        key: Key,
        role: ClientRole,
    ) -> Result<Vec<Waker>, CloseReason> {
        let slot = self.slots.get_mut(&id).ok_or(CloseReason::Disconnected)?;
        if let State::Closed(reason) = slot.state {
            return Err(reason);
        }
        if !self.logins.remove(&id) {
            return Ok(Vec::new());
        }
        slot.state = State::Open(key);
        slot.role = role;
        let presence = role.presence(slot.conn_info);
        self.open = self.open.saturating_add(1);
        let peer = self.peers.entry(key).or_default();
        if peer.is_connected() {
            count(&mut self.stats.duplicates);
        }
        let surplus = peer.add(id);
        let mut wakers = self.announce(key, Some(presence));
        wakers.extend(surplus.and_then(|surplus| {
            count(&mut self.stats.replaced);
            self.close(surplus, CloseReason::Replaced)
        }));
        wakers.extend(self.deliver_held(id, key));
        Ok(wakers)
    }

    /// Notes that a connection sent a frame of any type: of several with one key, it becomes the
    /// receiver. Source: `derpserver.Server.noteClientActivity` with `lastWriterIsActive`.
    pub fn note_activity(&mut self, id: ConnId) {
        if let Some(Slot {
            state: State::Open(key),
            ..
        }) = self.slots.get(&id).map(Box::as_ref)
            && let Some(peer) = self.peers.get_mut(key)
        {
            peer.note_activity(id);
        }
    }

    /// Queues a packet from `id` for the connection of `destination`.
    pub fn forward(&mut self, id: ConnId, destination: &Key, payload: &[u8]) -> Forwarded {
        self.stats.received.record(payload.len());
        // During a shutdown nothing is added to the queues, so that they run empty.
        let slot = self.slots.get(&id).filter(|_| self.restart.is_none());
        let Some(State::Open(source)) = slot.map(|slot| &slot.state) else {
            self.stats
                .drops
                .record(DropReason::GoneDisconnected, payload);
            return Forwarded::Dropped;
        };
        let source = *source;
        // Sending makes this connection the receiver for its key, so a packet to oneself stays here.
        let hop = match self.peers.get(destination) {
            Some(_) if *destination == source => Some(Hop::Connection(id)),
            Some(peer) => {
                let here = peer.receiver().map(Hop::Connection);
                here.or_else(|| peer.forwarder().map(Hop::Link))
            }
            None => None,
        };
        let Some(hop) = hop else {
            self.note_activity(id);
            if payload.starts_with(&INITIATION_START)
                && let Ok(payload) = payload.try_into()
            {
                self.hold_initiation(source, *destination, payload);
                return Forwarded::Dropped;
            }
            self.stats
                .drops
                .record(DropReason::UnknownDestination, payload);
            return match PacketKind::of(payload) {
                PacketKind::Disco => Forwarded::NotHere,
                PacketKind::Other => Forwarded::Dropped,
            };
        };
        match hop {
            Hop::Link(link) => {
                self.note_activity(id);
                self.push_to_link(link, source, *destination, payload)
            }
            Hop::Connection(receiver) => {
                if let Some(peer) = self.peers.get_mut(&source) {
                    peer.note_activity(id);
                }
                self.push(receiver, source, payload)
            }
        }
    }

    /// Keeps an initiation for a receiver that may come; of one sender to it the newest only.
    fn hold_initiation(&mut self, source: Key, destination: Key, payload: [u8; INITIATION_BYTES]) {
        let same = |held: &HeldInitiation| held.source == source && held.destination == destination;
        let old = self.held.iter().position(same);
        let gone = match old {
            Some(at) => self.held.remove(at),
            None if self.held.len() >= MAX_HELD_INITIATIONS => self.held.pop_front(),
            None => None,
        };
        if let Some(gone) = gone {
            let reason = DropReason::UnknownDestination;
            self.stats.drops.record(reason, &gone.payload);
        }
        self.held.push_back(HeldInitiation {
            source,
            destination,
            payload,
        });
    }

    /// Queues what was kept for a receiver that is here now.
    fn deliver_held(&mut self, receiver: ConnId, key: Key) -> Vec<Waker> {
        let mut wakers = Vec::new();
        let (mine, others) = std::mem::take(&mut self.held)
            .into_iter()
            .partition::<VecDeque<HeldInitiation>, _>(|held| held.destination == key);
        self.held = others;
        for held in mine {
            match self.push(receiver, held.source, &held.payload) {
                Forwarded::Queued(waker) | Forwarded::Filling(waker) => wakers.extend(waker),
                Forwarded::Dropped | Forwarded::NotHere => {}
            }
        }
        wakers
    }

    /// Queues a packet for a connection, which will be told when `source` leaves the region.
    fn push(&mut self, receiver: ConnId, source: Key, payload: &[u8]) -> Forwarded {
        if let Some(peer) = self.peers.get_mut(&source) {
            let slots = &self.slots;
            peer.note_destination(
                receiver,
                self.limits.destinations_per_key,
                self.next,
                |id| slots.contains_key(id),
            );
        }
        let Some(slot) = self.slots.get_mut(&receiver) else {
            return Forwarded::Dropped;
        };
        let queue = &mut slot.mailbox.queue;
        if queue.push(
            &Route::Deliver(source),
            payload,
            &self.limits,
            &self.pool,
            &mut self.stats.drops,
        ) {
            Forwarded::queued(queue.is_filling(&self.limits), slot.waker.take())
        } else {
            Forwarded::Dropped
        }
    }

    /// Notes a packet that was lost because the pool had no room to assemble it. Its length is not
    /// known.
    pub fn note_pool_exhausted(&mut self, id: ConnId) {
        self.note_activity(id);
        self.stats.drops.record(DropReason::QueueTail, &[]);
    }

    /// Notes whether the relay is the home of a connection.
    pub fn note_preferred(&mut self, id: ConnId, preferred: bool) {
        self.note_activity(id);
        if let Some(slot) = self.slots.get_mut(&id)
            && std::mem::replace(&mut slot.preferred, preferred) != preferred
        {
            count(if preferred {
                &mut self.stats.home_moves_in
            } else {
                &mut self.stats.home_moves_out
            });
        }
    }

    /// Notes a ping.
    pub fn note_ping(&mut self, id: ConnId) {
        self.note_activity(id);
        count(&mut self.stats.pings);
    }

    /// Notes whether a client was told that a peer is not here.
    pub fn note_not_here(&mut self, told: bool) {
        count(if told {
            &mut self.stats.peer_gone_not_here
        } else {
            &mut self.stats.peer_gone_suppressed
        });
    }

    /// Notes that a client has to wait because of a rate.
    pub fn note_rate_wait(&mut self) {
        count(&mut self.stats.rate_waits);
    }

    /// Notes packets that were written.
    pub fn note_sent(&mut self, sent: Tally) {
        self.stats.sent.add(sent);
    }

    /// Called by a driver at the start of each turn: remembers how to wake it, and says whether it
    /// has to end.
    pub fn register_waker(&mut self, id: ConnId, waker: &Waker) -> Option<CloseReason> {
        let Some(slot) = self.slots.get_mut(&id) else {
            return Some(CloseReason::Disconnected);
        };
        if let State::Closed(reason) = slot.state {
            return Some(reason);
        }
        if slot.missed_presence {
            return Some(CloseReason::MeshPeerTooSlow);
        }
        if !slot
            .waker
            .as_ref()
            .is_some_and(|known| known.will_wake(waker))
        {
            slot.waker = Some(waker.clone());
        }
        None
    }

    /// What waits for a connection.
    pub fn mailbox(&mut self, id: ConnId) -> Option<&mut Mailbox> {
        self.slots.get_mut(&id).map(|slot| &mut slot.mailbox)
    }

    /// Closes every connection of a key at once: nothing from or to them is forwarded any more. The
    /// drivers are to be woken.
    pub fn disconnect(&mut self, key: &Key) -> Vec<Waker> {
        let Some(peer) = self.peers.get(key) else {
            return Vec::new();
        };
        // Keys that are connected to other relays are those relays' business.
        let ids: Vec<ConnId> = peer.connections().to_vec();
        let mut wakers = Vec::new();
        for id in ids {
            count(&mut self.stats.disconnected);
            wakers.extend(self.detach(id));
            wakers.extend(self.close(id, CloseReason::Disconnected));
        }
        wakers
    }

    /// The keys that are connected here, in no order. Other relays of the region are left out: it is
    /// the mesh key that lets them in.
    pub fn keys(&self) -> Vec<Key> {
        let clients = self.slots.values().filter_map(|slot| match slot.state {
            State::Open(key) if !slot.role.is_mesh_peer => Some(key),
            _ => None,
        });
        clients.collect()
    }

    /// Takes no new connections and leaves the notice of a restart to all others. The drivers are
    /// to be woken.
    pub fn shutdown(&mut self, restart: Restart) -> Vec<Waker> {
        self.restart = Some(restart);
        let notify = |slot: &mut Box<Slot>| {
            slot.mailbox.restart = Some(restart);
            slot.waker.take()
        };
        let slots = self.slots.values_mut().filter_map(notify);
        let links = self.links.values_mut().filter_map(LinkSlot::take_waker);
        slots.chain(links).collect()
    }

    /// Removes a connection that has ended. If it was the last of its key, all who had packets from
    /// it will be told; their drivers are to be woken. `last` adds the connection's own last
    /// numbers. Source: `derpserver.Server.unregisterClient`.
    pub fn remove(
        &mut self,
        id: ConnId,
        reason: Option<CloseReason>,
        last: impl FnOnce(&mut Stats),
    ) -> Vec<Waker> {
        last(&mut self.stats);
        match reason {
            Some(CloseReason::Protocol(ConnError::WriteTimeout)) => {
                count(&mut self.stats.write_timeouts)
            }
            Some(CloseReason::Protocol(fault)) if fault.is_login() => {
                count(&mut self.stats.logins_failed)
            }
            Some(CloseReason::Protocol(_)) => count(&mut self.stats.faults),
            Some(CloseReason::NotAdmitted(_)) => count(&mut self.stats.refused),
            _ => {}
        }
        let wakers = self.detach(id);
        self.logins.remove(&id);
        if let Some(mut slot) = self.slots.remove(&id) {
            let source = source_prefix(slot.conn_info.source.ip());
            if let Entry::Occupied(mut entry) = self.sources.entry(source) {
                *entry.get_mut() = entry.get().saturating_sub(1);
                if *entry.get() == 0 {
                    entry.remove();
                }
            }
            while let Some(packet) = slot.mailbox.queue.pop() {
                self.stats
                    .drops
                    .record(DropReason::GoneDisconnected, packet.payload());
            }
        }
        // The maps give memory back after a storm; the margin keeps them from resizing at every
        // connection.
        if self.slots.capacity() > self.slots.len().saturating_mul(4).saturating_add(64) {
            self.slots.shrink_to(self.slots.len().saturating_mul(2));
            self.peers.shrink_to(self.peers.len().saturating_mul(2));
            self.sources.shrink_to(self.sources.len().saturating_mul(2));
        }
        wakers
    }

    /// The counters.
    pub fn stats(&self) -> Stats {
        let open = || {
            let slots = self.slots.values();
            slots.filter(|slot| matches!(slot.state, State::Open(_)))
        };
        let waiting = self.slots.values().map(|slot| slot.mailbox.queue.len());
        Stats {
            connections: self.open,
            logins: self.logins.len(),
            keys: self
                .peers
                .values()
                .filter(|peer| peer.is_connected())
                .count(),
            duplicate_keys: self
                .peers
                .values()
                .filter(|peer| peer.connections().len() > 1)
                .count(),
            home_connections: open().filter(|slot| slot.preferred).count(),
            not_ideal_connections: open().filter(|slot| slot.conn_info.not_ideal).count(),
            mesh_connections: open().filter(|slot| slot.role.is_mesh_peer).count(),
            mesh_links: self.links.len(),
            remote_keys: self
                .peers
                .values()
                .filter(|peer| peer.forwarder().is_some())
                .count(),
            queued_packets: waiting.fold(0, usize::saturating_add),
            pool_bytes_used: self.pool.used(),
            ..self.stats
        }
    }

    /// Takes a connection out of the list of its key.
    fn detach(&mut self, id: ConnId) -> Vec<Waker> {
        let Some(Slot {
            state: State::Open(key),
            ..
        }) = self.slots.get(&id).map(Box::as_ref)
        else {
            return Vec::new();
        };
        let key = *key;
        self.open = self.open.saturating_sub(1);
        if let Some(slot) = self.slots.get_mut(&id) {
            slot.state = State::Closed(CloseReason::Disconnected);
        }
        self.watchers.retain(|watcher| *watcher != id);
        let Some(peer) = self.peers.get_mut(&key) else {
            return Vec::new();
        };
        peer.remove(id);
        if peer.is_connected() {
            return Vec::new();
        }
        let mut wakers = self.announce(key, None);
        wakers.extend(self.forget_unreachable(key));
        wakers
    }

    /// Forgets a key that is not reached any more, and tells those who had packets from it.
    fn forget_unreachable(&mut self, key: Key) -> Vec<Waker> {
        if self.peers.get(&key).is_none_or(Peer::is_reachable) {
            return Vec::new();
        }
        let destinations = self
            .peers
            .remove(&key)
            .map(Peer::into_destinations)
            .unwrap_or_default();
        let mut wakers = Vec::new();
        for destination in destinations {
            let Some(slot) = self.slots.get_mut(&destination) else {
                continue;
            };
            if !matches!(slot.state, State::Open(_)) {
                continue;
            }
            if slot.mailbox.push_gone(key, self.limits.peer_gone_pending) {
                count(&mut self.stats.peer_gone_disconnected);
            } else {
                count(&mut self.stats.peer_gone_suppressed);
            }
            wakers.extend(slot.waker.take());
        }
        wakers
    }

    /// Marks a connection as closed; its driver ends it at its next turn.
    fn close(&mut self, id: ConnId, reason: CloseReason) -> Option<Waker> {
        if let Some(Slot {
            state: State::Open(_),
            ..
        }) = self.slots.get(&id).map(Box::as_ref)
        {
            // Nobody is to be told: only connections whose key has others are closed while open.
            self.detach(id);
        }
        self.logins.remove(&id);
        let slot = self.slots.get_mut(&id)?;
        slot.state = State::Closed(reason);
        slot.waker.take()
    }
}
