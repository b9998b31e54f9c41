//! Registry of all connections and mesh links, with their mailboxes. Does no I/O; the relay keeps it
//! behind one lock that is held only briefly.

mod held;
mod mesh;
mod peer;
mod room;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasherDefault, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use crate::conn::ConnError;
use crate::frame::Presence;
use crate::pool::Pool;
use crate::queue::{Mailbox, Restart, Route};
use crate::stats::{DropReason, PacketKind, Stats, Tally, count};
use crate::{Key, Limits};
use hearth_shares::pool::{Entry, Pool as Places, Sole};
use hearth_shares::{Counts, Held as HeldPlace, Source};
use held::{Held, INITIATION_BYTES};
use mesh::LinkSlot;
pub use mesh::MeshLinkId;
use peer::Peer;

/// ID of a connection; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(u64);

impl ConnId {
    /// Its name in the pools of places.
    fn place(self) -> Entry {
        Entry::numbered(self.0)
    }
}

/// Where a connection comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnInfo {
    /// The client's address.
    pub source: SocketAddr,
    /// Whether the client prefers another relay of the region, see
    /// [`IDEAL_NODE_HEADER`](crate::headers::IDEAL_NODE_HEADER).
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
    /// The host program admits everyone, and knows nothing of it.
    pub is_stranger: bool,
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
    /// Closed to make room: its key, or its address, had the most connections.
    #[error("closed to make room for a client with fewer connections")]
    CrowdedOut,
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
    /// Its place among those of its address, once it is logged in.
    place: Option<HeldPlace<IpAddr>>,
}

impl Slot {
    fn source(&self) -> Source {
        Source::of(self.conn_info.source.ip())
    }
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
/// of slots in state `Open`; of these, `strangers` and `known` are those of strangers and of known
/// clients, without mesh peers; `watchers` are slots in state `Open` of mesh peers; `remote` is the
/// number of forwarders of all peers; `held` is from connected keys only.
pub struct Registry {
    limits: Arc<Limits>,
    pool: Pool,
    next: u64,
    slots: IdMap<Box<Slot>>,
    logins: Places<Source>,
    strangers: Places<Source>,
    known: Places<Sole<Key>>,
    addresses: Counts<IpAddr>,
    peers: HashMap<Key, Peer>,
    links: BTreeMap<MeshLinkId, LinkSlot>,
    remote: usize,
    watchers: Vec<ConnId>,
    open: usize,
    held: Held,
    restart: Option<Restart>,
    stats: Stats,
}

impl Registry {
    /// An empty registry. `pool` is the one that the connections use.
    pub fn new(limits: Arc<Limits>, pool: Pool) -> Self {
        Registry {
            logins: Places::new(limits.logins),
            strangers: Places::new(limits.connections),
            known: Places::new(limits.connections),
            addresses: Counts::new(limits.connections_per_address),
            limits,
            pool,
            next: 0,
            slots: IdMap::default(),
            peers: HashMap::new(),
            links: BTreeMap::new(),
            remote: 0,
            watchers: Vec::new(),
            open: 0,
            held: Held::new(),
            restart: None,
            stats: Stats::default(),
        }
    }

    /// Adds a connection, which then has to log in. If too many clients are logging in, evicts the
    /// oldest login of the address with the most; wake its driver. Until its login a connection takes
    /// no place of those that are logged in.
    pub fn connect(&mut self, conn_info: ConnInfo) -> Result<(ConnId, Option<Waker>), CloseReason> {
        if self.restart.is_some() {
            count(&mut self.stats.turned_away);
            return Err(CloseReason::ShuttingDown);
        }
        let id = ConnId(self.next);
        self.next = self.next.wrapping_add(1);
        let source = Source::of(conn_info.source.ip());
        let surplus = self.logins.enter_as(id.place(), source);
        let evicted = surplus.and_then(|surplus| {
            count(&mut self.stats.logins_evicted);
            self.close(ConnId(surplus.number()), CloseReason::Evicted)
        });
        let slot = Slot {
            state: State::Login,
            mailbox: Mailbox::default(),
            waker: None,
            preferred: false,
            conn_info,
            role: ClientRole::default(),
            missed_presence: false,
            place: None,
        };
        self.slots.insert(id, Box::new(slot));
        count(&mut self.stats.accepted);
        Ok((id, evicted))
    }

    /// Makes a connection the receiver for `key`. If the key has too many connections, closes the
    /// least active one; if the relay is full, another one makes room, see
    /// [`Standing`](crate::Standing). Sends presence updates to the mesh peers. Wake the drivers.
    /// Source: `derpserver.Server.registerClient`.
    ///
    /// # Errors
    /// Why the connection must close, for example that the relay is full.
    pub fn login(
        &mut self,
        id: ConnId,
        key: Key,
        role: ClientRole,
        now: Duration,
    ) -> Result<Vec<Waker>, CloseReason> {
        let slot = self.slots.get(&id).ok_or(CloseReason::Disconnected)?;
        let source = slot.source();
        match slot.state {
            State::Closed(reason) => return Err(reason),
            State::Open(_) => return Ok(Vec::new()),
            State::Login => {}
        }
        let own = self.peers.get(&key).map(Peer::connections);
        let own = own.filter(|own| own.len() >= self.limits.connections_per_key());
        let surplus = own.and_then(|own| own.first().copied());
        let room = self.make_room(key, role, source, surplus);
        let (place, mut wakers) = room.inspect_err(|_| count(&mut self.stats.turned_away))?;
        if let Some(surplus) = surplus {
            count(&mut self.stats.replaced);
            wakers.extend(self.close(surplus, CloseReason::Replaced));
        }
        let Some(slot) = self.slots.get_mut(&id) else {
            return Err(CloseReason::Disconnected);
        };
        slot.state = State::Open(key);
        slot.role = role;
        slot.place = place;
        let presence = role.presence(slot.conn_info);
        self.logins.leave(id.place());
        self.open = self.open.saturating_add(1);
        match role {
            ClientRole {
                is_mesh_peer: true, ..
            } => None,
            ClientRole {
                is_stranger: true, ..
            } => self.strangers.enter_as(id.place(), source),
            _ => self.known.enter_as(id.place(), Sole(key)),
        };
        let peer = self.peers.entry(key).or_default();
        if peer.is_connected() {
            count(&mut self.stats.duplicates);
        }
        // There is room in its list now.
        peer.add(id);
        wakers.extend(self.announce(key, Some(presence)));
        wakers.extend(self.deliver_held(id, key, now));
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
    pub fn forward(
        &mut self,
        id: ConnId,
        destination: &Key,
        payload: &[u8],
        now: Duration,
    ) -> Forwarded {
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
            if let Some(payload) = held::initiation(payload) {
                let dropped = self.held.hold(source, *destination, payload, now);
                self.note_held_dropped(dropped);
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

    /// Counts held initiations that were dropped.
    fn note_held_dropped(&mut self, packets: usize) {
        for _ in 0..packets {
            let reason = DropReason::UnknownDestination;
            self.stats.drops.record(reason, &[0; INITIATION_BYTES]);
        }
    }

    /// Queues the held initiations for a receiver that has connected.
    fn deliver_held(&mut self, receiver: ConnId, key: Key, now: Duration) -> Vec<Waker> {
        let mut wakers = Vec::new();
        let (initiations, dropped) = self.held.take(key, now);
        self.note_held_dropped(dropped);
        for (source, payload) in initiations {
            match self.push(receiver, source, &payload) {
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
        self.logins.leave(id.place());
        if let Some(mut slot) = self.slots.remove(&id) {
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
            slot.place = None;
        }
        self.strangers.leave(id.place());
        self.known.leave(id.place());
        self.watchers.retain(|watcher| *watcher != id);
        let Some(peer) = self.peers.get_mut(&key) else {
            return Vec::new();
        };
        peer.remove(id);
        if peer.is_connected() {
            return Vec::new();
        }
        let dropped = self.held.drop_from(key);
        self.note_held_dropped(dropped);
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
            // Needs no `PeerGone`: an open connection is closed here only if its key has others, or
            // gets a new one.
            self.detach(id);
        }
        self.logins.leave(id.place());
        let slot = self.slots.get_mut(&id)?;
        slot.state = State::Closed(reason);
        slot.waker.take()
    }
}
