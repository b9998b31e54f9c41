//! Registry of all connections and mesh links, with their mailboxes. Does no I/O; the relay keeps it
//! behind one lock that is held only briefly.

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

use crate::conn::ConnError;
use crate::frame::Presence;
use crate::pool::Pool;
use crate::queue::{Mailbox, Restart, Route};
use crate::stats::{DropReason, PacketKind, Stats, Tally, count};
use crate::{Key, Limits};
use hearth_shares::Source;
use mesh::LinkSlot;
pub use mesh::MeshLinkId;
use peer::Peer;

/// ID of a connection; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(u64);

/// Where a connection comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnInfo {
    /// The client's address.
    pub source: SocketAddr,
    /// Whether the client prefers another relay of the region, see
    /// [`IDEAL_NODE_HEADER`](crate::http::IDEAL_NODE_HEADER).
    pub not_ideal: bool,
}

impl From<SocketAddr> for ConnInfo {
    /// A connection from this address, of a client that prefers this relay.
    fn from(source: SocketAddr) -> Self {
        ConnInfo {
            source: SocketAddr::new(source.ip().to_canonical(), source.port()),
            not_ideal: false,
        }
    }
}

/// Role of a client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientRole {
    /// Another relay of the region: it has presented the mesh key.
    pub is_mesh_peer: bool,
    /// It says that it only measures the relay.
    pub is_prober: bool,
}

impl ClientRole {
    /// Presence that mesh peers are sent. Source: `derpserver.sclient.presentFlags`.
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
    /// Protocol error or timeout of the client.
    #[error("{0}")]
    Protocol(#[from] ConnError),
    /// The client is not admitted.
    #[error("client {0:?} is not admitted")]
    NotAdmitted(Key),
    /// The admission of the client's key was revoked, or a mesh peer requested the close.
    #[error("client is no longer admitted")]
    Disconnected,
    /// The client's key had too many connections; this was the least active one.
    #[error("too many connections with the same key")]
    Replaced,
    /// Evicted before its login, to make room for a newer connection.
    #[error("evicted before the login by a newer connection")]
    Evicted,
    /// The connection limit is reached.
    #[error("too many connections")]
    Full,
    /// The connection limit of the address is reached.
    #[error("too many connections from one address")]
    TooManyFromAddress,
    /// Too many presence updates were queued for a mesh peer.
    #[error("mesh peer too slow for presence updates")]
    MeshPeerTooSlow,
    /// The client sent nothing for the idle timeout.
    #[error("idle timeout")]
    Idle,
    /// The relay is shutting down.
    #[error("relay is shutting down")]
    ShuttingDown,
    /// The system's random source failed.
    #[error("system random source failed")]
    NoRandomness,
}

/// What happened to a packet.
#[derive(Debug)]
pub enum Forwarded {
    /// It was queued for its receiver, or for the link to the receiver's relay. Wake the driver.
    Queued(Option<Waker>),
    /// It was queued, and the queue has become half full: the receiver needs a turn to write before
    /// more is read from the sender.
    Filling(Option<Waker>),
    /// It was dropped.
    Dropped,
    /// It was dropped, and the sender should get a "not here" notice.
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

/// Hasher for connection IDs, which no peer can choose.
#[derive(Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, value: u64) {
        // Fibonacci hashing: consecutive IDs also differ in the high bits, which the map uses.
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
    /// A presence update was lost, so that the mesh peer has to reconnect.
    missed_presence: bool,
}

/// Length of a WireGuard handshake initiation in bytes, and its first bytes.
/// Source: `MessageInitiationSize`, `MessageInitiationType` in wireguard-go `device/noise-protocol.go`.
const INITIATION_BYTES: usize = 148;
const INITIATION_START: [u8; 4] = [1, 0, 0, 0];

/// Most handshake initiations held for receivers that are not connected yet.
const MAX_HELD_INITIATIONS: usize = 64;

/// A handshake initiation held for a receiver that is not connected yet. A new node is announced to
/// its peers with its first map request, a moment before it connects to the relay. Without this, the
/// initiation of a peer that dials at once would be lost, and WireGuard retries only after five
/// seconds.
struct HeldInitiation {
    source: Key,
    destination: Key,
    payload: [u8; INITIATION_BYTES],
}

/// Next hop of a packet.
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

    /// Adds a connection, which then has to log in. Loopback is exempt from the limit for one address,
    /// because it may be a proxy. If too many clients are logging in, or the relay is full, evicts the
    /// oldest login; wake its driver.
    pub fn connect(&mut self, conn_info: ConnInfo) -> Result<(ConnId, Option<Waker>), CloseReason> {
        let source = Source::of(conn_info.source.ip()).narrow();
        let is_local = conn_info.source.ip().to_canonical().is_loopback();
        let from_source = self.sources.get(&source).copied().unwrap_or_default();
        let refusal = if self.restart.is_some() {
            Some(CloseReason::ShuttingDown)
        } else if self.open >= self.limits.connections || self.limits.logins == 0 {
            Some(CloseReason::Full)
        } else if from_source >= self.limits.connections_per_address && !is_local {
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
        self.sources.insert(source, from_source.saturating_add(1));
        self.slots.insert(id, Box::new(slot));
        self.logins.insert(id);
        count(&mut self.stats.accepted);
        Ok((id, evicted))
    }

    /// Makes a connection the receiver for `key`. If the key has too many connections, closes the
    /// least active one. Sends presence updates to the mesh peers. Wake the drivers.
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

    /// Notes that a connection sent a frame of any type: it becomes the receiver among the connections
    /// of its key. Source: `derpserver.Server.noteClientActivity` with `lastWriterIsActive`.
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
        // During a shutdown nothing is queued, so that the queues drain.
        let slot = self.slots.get(&id).filter(|_| self.restart.is_none());
        let Some(State::Open(source)) = slot.map(|slot| &slot.state) else {
            self.stats
                .drops
                .record(DropReason::GoneDisconnected, payload);
            return Forwarded::Dropped;
        };
        let source = *source;
        // Sending makes this connection the receiver for its key, so a packet to itself comes back.
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

    /// Holds an initiation for a receiver that may connect soon; only the newest for each pair of keys.
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

    /// Queues the held initiations for a receiver that has connected.
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

    /// Queues a packet for a connection, which will get `PeerGone` when `source` disconnects.
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

    /// Counts a packet that was dropped because the pool had no room to assemble it. Its length is
    /// unknown.
    pub fn note_pool_exhausted(&mut self, id: ConnId) {
        self.note_activity(id);
        self.stats.drops.record(DropReason::QueueTail, &[]);
    }

    /// Notes whether the relay is the home of a client.
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

    /// Counts a ping.
    pub fn note_ping(&mut self, id: ConnId) {
        self.note_activity(id);
        count(&mut self.stats.pings);
    }

    /// Counts a "not here" notice that was sent or suppressed.
    pub fn note_not_here(&mut self, sent: bool) {
        count(if sent {
            &mut self.stats.peer_gone_not_here
        } else {
            &mut self.stats.peer_gone_suppressed
        });
    }

    /// Counts a wait of a client because of a rate limit.
    pub fn note_rate_wait(&mut self) {
        count(&mut self.stats.rate_waits);
    }

    /// Counts packets that were written.
    pub fn note_sent(&mut self, sent: Tally) {
        self.stats.sent.add(sent);
    }

    /// Stores the waker of a driver, which calls this at the start of each poll. Returns a reason if
    /// the connection must close.
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

    /// The mailbox of a connection.
    pub fn mailbox(&mut self, id: ConnId) -> Option<&mut Mailbox> {
        self.slots.get_mut(&id).map(|slot| &mut slot.mailbox)
    }

    /// Closes all connections of a key: from now on nothing from or to them is forwarded. Wake the
    /// drivers.
    pub fn disconnect(&mut self, key: &Key) -> Vec<Waker> {
        let Some(peer) = self.peers.get(key) else {
            return Vec::new();
        };
        // Other relays close their own connections of the key.
        let ids: Vec<ConnId> = peer.connections().to_vec();
        let mut wakers = Vec::new();
        for id in ids {
            count(&mut self.stats.disconnected);
            wakers.extend(self.detach(id));
            wakers.extend(self.close(id, CloseReason::Disconnected));
        }
        wakers
    }

    /// Keys of the connected clients, in no order. Mesh peers are left out, because the mesh key admits
    /// them.
    pub fn keys(&self) -> Vec<Key> {
        let clients = self.slots.values().filter_map(|slot| match slot.state {
            State::Open(key) if !slot.role.is_mesh_peer => Some(key),
            _ => None,
        });
        clients.collect()
    }

    /// Stops accepting connections, and queues the restart notice for all others. Wake the drivers.
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

    /// Removes a closed connection. If it was the last one of its key, queues `PeerGone` for all
    /// receivers of its packets; wake their drivers. `last` adds the connection's final counters.
    /// Source: `derpserver.Server.unregisterClient`.
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
            let source = Source::of(slot.conn_info.source.ip()).narrow();
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
        // Frees memory after a peak; the margin avoids a resize with every connection.
        if self.slots.capacity() > self.slots.len().saturating_mul(4).saturating_add(64) {
            self.slots.shrink_to(self.slots.len().saturating_mul(2));
            self.peers.shrink_to(self.peers.len().saturating_mul(2));
            self.sources.shrink_to(self.sources.len().saturating_mul(2));
        }
        wakers
    }

    /// The current statistics.
    pub fn stats(&self) -> Stats {
        let open = || {
            let slots = self.slots.values();
            slots.filter(|slot| matches!(slot.state, State::Open(_)))
        };
        let queued = self.slots.values().map(|slot| slot.mailbox.queue.len());
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
            queued_packets: queued.fold(0, usize::saturating_add),
            pool_bytes_used: self.pool.used(),
            ..self.stats
        }
    }

    /// Removes a connection from the list of its key.
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

    /// Removes a key that is no longer reachable, and queues `PeerGone` for the receivers of its
    /// packets.
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

    /// Marks a connection as closed; its driver ends it at its next poll.
    fn close(&mut self, id: ConnId, reason: CloseReason) -> Option<Waker> {
        if let Some(Slot {
            state: State::Open(_),
            ..
        }) = self.slots.get(&id).map(Box::as_ref)
        {
            // Needs no `PeerGone`: an open connection is closed here only if its key has others.
            self.detach(id);
        }
        self.logins.remove(&id);
        let slot = self.slots.get_mut(&id)?;
        slot.state = State::Closed(reason);
        slot.waker.take()
    }
}
