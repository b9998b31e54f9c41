//! The gate that every connection passes, and the shares behind it.
//!
//! A connection begins as that of a stranger. It gets a [`Ticket`], with which code that learns who the client is
//! proves it: a machine that has a node, an admitted relay client, the owner of an API key. Nobody waits for a place:
//!
//! - Strangers have all places that the proven leave. One source has at most `per_source` of them, and when there is no
//!   place for one more connection, the oldest of the source with the most is closed. A stranger is closed as well when
//!   it proves nothing for too long. So a client that can prove something always gets a place, and the time to do so.
//!   A source from which something was proven before (a household) is familiar: as long as it holds few places, it loses
//!   none to others, however many they are and however often they connect.
//! - The proven have all places but those that are reserved for strangers. When these are taken, the client with the
//!   most loses its oldest connection. A client for which no place can be made without taking a fair share from another
//!   one stays a stranger.
//!
//! Loopback (127.0.0.1 and ::1) and trusted proxies carry many clients, so `per_source` does not apply to them, and they
//! lose no place to others while they hold no more than half of all. A connection from a trusted proxy counts as that of
//! the proxy only until it says who its client is.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hearth_shares::pool::Group;
use hearth_shares::{Counts, Entry, Held, Pool, Source};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until};

use super::limits::Limits;
use super::proxies::Proxies;

/// Part of the strangers' connections whose turn to be closed is found out at the same time.
const TURN_PART: usize = 16;

/// Who has proven a connection: a kind of key and the key. Must not know which kinds there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Holder {
    kind: &'static str,
    key: [u8; 32],
}

/// Kind of the [`Holder`] that stands for all clients of a source, which have proven nothing else.
const SOURCE: &str = "source";

impl Holder {
    /// The owner of a key.
    pub const fn new(kind: &'static str, key: [u8; 32]) -> Self {
        Self { kind, key }
    }

    /// All clients of a source: the key is its wide group.
    pub fn of_source(source: Source) -> Self {
        let wide = match source.wide() {
            IpAddr::V4(address) => address.to_ipv6_mapped(),
            IpAddr::V6(address) => address,
        };
        let mut key = [0; 32];
        for (byte, of_address) in key.iter_mut().zip(wide.octets()) {
            *byte = of_address;
        }
        Self::new(SOURCE, key)
    }

    /// The kind of its key.
    pub fn kind(&self) -> &'static str {
        self.kind
    }

    /// Its key.
    pub fn key(&self) -> &[u8; 32] {
        &self.key
    }
}

/// Limits concurrent connections. Clones share the limits.
#[derive(Debug, Clone)]
pub struct Gate(Kind);

#[derive(Debug, Clone)]
enum Kind {
    Queue(Arc<Semaphore>),
    Shares(Arc<Shares>),
}

#[derive(Debug)]
struct Shares {
    connections: usize,
    for_proven: usize,
    per_source: usize,
    stranger_life: Duration,
    proxies: Arc<Proxies>,
    /// Locked before any [`Seat`], never across an await.
    pools: Mutex<Pools>,
}

#[derive(Debug)]
struct Pools {
    strangers: Pool<Stranger>,
    /// Number of strangers' connections per wide group.
    held: Counts<IpAddr>,
    /// The same per narrow group.
    held_by_network: Counts<IpAddr>,
    /// The strangers' connections that are closed next.
    turn: VecDeque<Entry>,
    proven: Pool<Proven>,
    familiar: Familiar,
}

/// Sources from which something was proven: the last ones, by the /64 or IPv4 address.
#[derive(Debug, Default)]
struct Familiar {
    /// When each was seen last, counted in proofs.
    sources: BTreeMap<IpAddr, usize>,
    proofs: usize,
}

impl Familiar {
    fn remember(&mut self, source: Source, most: usize) {
        self.proofs = self.proofs.wrapping_add(1);
        self.sources.insert(source.narrow(), self.proofs);
        if self.sources.len() > most {
            let age = |seen: usize| self.proofs.wrapping_sub(seen);
            let oldest = self.sources.iter().max_by_key(|(_, seen)| age(**seen));
            if let Some(oldest) = oldest.map(|(source, _)| *source) {
                self.sources.remove(&oldest);
            }
        }
    }
}

#[derive(Debug)]
struct Stranger {
    source: Source,
    carries_many: bool,
    ticket: Ticket,
    _counted: [Option<Held<IpAddr>>; 2],
}

impl Group for Stranger {
    type Key = IpAddr;

    fn wide(&self) -> IpAddr {
        self.source.wide()
    }

    fn narrow(&self) -> IpAddr {
        self.source.narrow()
    }
}

#[derive(Debug)]
struct Proven {
    holder: Holder,
    ticket: Ticket,
}

impl Group for Proven {
    type Key = Holder;

    fn wide(&self) -> Holder {
        self.holder
    }

    fn narrow(&self) -> Holder {
        self.holder
    }
}

/// A connection that has passed the gate. Clones are of the same connection.
#[derive(Clone)]
pub struct Ticket(Arc<Inner>);

struct Inner {
    shares: Option<Arc<Shares>>,
    seat: Mutex<Seat>,
    /// Notified when the state of the seat has changed.
    changed: Notify,
}

#[derive(Clone, Copy)]
struct Seat {
    source: SocketAddr,
    state: State,
    /// When the connection became that of a stranger.
    since: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Passed a gate without shares.
    Free,
    Stranger(Entry),
    Proven(Entry, Holder),
    /// Evicted, or ended.
    Gone,
}

/// The place of a connection; given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    ticket: Ticket,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Gate {
    /// A gate with shares.
    pub fn new(limits: &Limits, proxies: Arc<Proxies>) -> Self {
        let connections = limits.connections.max(1);
        // The pools are bounded here, by what they have together.
        let unbounded = usize::MAX;
        Self(Kind::Shares(Arc::new(Shares {
            connections,
            for_proven: connections.saturating_sub(limits.reserved_for_strangers),
            per_source: limits.connections_per_source.max(1),
            stranger_life: limits.stranger_life,
            proxies,
            pools: Mutex::new(Pools {
                strangers: Pool::new(unbounded),
                held: Counts::new(unbounded),
                held_by_network: Counts::new(unbounded),
                turn: VecDeque::new(),
                proven: Pool::new(unbounded),
                familiar: Familiar::default(),
            }),
        })))
    }

    /// A gate of so many places that connections wait for, for clients that are all trusted.
    pub fn queue(places: usize) -> Self {
        Self(Kind::Queue(Arc::new(Semaphore::new(places))))
    }

    /// Gives a connection a place. Waits for one only at a [`Gate::queue`]. Cancel safe.
    pub(super) async fn enter(&self, source: Option<SocketAddr>) -> Place {
        let nowhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        let source = source.unwrap_or(nowhere);
        match &self.0 {
            Kind::Queue(places) => Place {
                ticket: Ticket::detached(source),
                // The semaphore is never closed.
                _permit: Arc::clone(places).acquire_owned().await.ok(),
            },
            Kind::Shares(shares) => {
                let ticket = Ticket::new(Some(Arc::clone(shares)), source);
                shares.seat_stranger(&mut shares.lock(), &ticket, source);
                Place {
                    ticket,
                    _permit: None,
                }
            }
        }
    }

    /// Closes a connection of a stranger, because the system has run out of something. False if there is none.
    pub(super) fn make_room(&self) -> bool {
        let Kind::Shares(shares) = &self.0 else {
            return false;
        };
        let mut pools = shares.lock();
        let surplus = shares.next_in_turn(&mut pools);
        surplus.is_some_and(|surplus| pools.evict_stranger(surplus))
    }

    /// Makes strangers of the connections of holders that are gone.
    pub fn demote(&self, mut is_gone: impl FnMut(&Holder) -> bool) {
        let Kind::Shares(shares) = &self.0 else {
            return;
        };
        let mut pools = shares.lock();
        let proven = pools.proven.iter();
        let gone = proven.filter(|(_, proven)| is_gone(&proven.holder));
        let gone: Vec<(Entry, Ticket)> = gone
            .map(|(entry, proven)| (entry, proven.ticket.clone()))
            .collect();
        for (entry, ticket) in gone {
            pools.proven.leave(entry);
            ticket.seat().since = Instant::now();
            let source = ticket.source();
            shares.seat_stranger(&mut pools, &ticket, source);
        }
    }

    /// Number of strangers' connections, and of proven ones.
    #[cfg(test)]
    pub(crate) fn counts(&self) -> (usize, usize) {
        match &self.0 {
            Kind::Queue(_) => (0, 0),
            Kind::Shares(shares) => {
                let pools = shares.lock();
                (pools.strangers.len(), pools.proven.len())
            }
        }
    }
}

impl Shares {
    /// A panic elsewhere cannot spoil the pools: each change of them is complete before the next.
    fn lock(&self) -> MutexGuard<'_, Pools> {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a connection among the strangers and closes one of them if that is one too many.
    fn seat_stranger(&self, pools: &mut Pools, ticket: &Ticket, address: SocketAddr) {
        let source = Source::of(address.ip());
        let carries_many = self.carries_many(address.ip());
        let stranger = Stranger {
            source,
            carries_many,
            ticket: ticket.clone(),
            _counted: [
                pools.held.take(source.wide()),
                pools.held_by_network.take(source.narrow()),
            ],
        };
        let (entry, _) = pools.strangers.enter(stranger);
        {
            let mut seat = ticket.seat();
            seat.source = address;
            seat.state = State::Stranger(entry);
        }
        ticket.0.changed.notify_one();
        let is_over_its_share = pools.held.held(&source.wide()) > self.per_source;
        let surplus = if is_over_its_share && !carries_many {
            pools.oldest_of(source)
        } else if pools.len() > self.connections {
            self.surplus(pools, entry)
        } else {
            None
        };
        if let Some(surplus) = surplus {
            pools.evict_stranger(surplus);
        }
    }

    /// Whether many clients come from this address: a trusted proxy, or any proxy on this machine.
    fn carries_many(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address == Ipv4Addr::LOCALHOST
            || address == Ipv6Addr::LOCALHOST
            || self.proxies.trust(address)
    }

    /// The connection of a stranger that is closed for a new one.
    fn surplus(&self, pools: &mut Pools, new: Entry) -> Option<Entry> {
        let next = self.next_in_turn(pools)?;
        let (new, other) = (pools.strangers.get(new)?, pools.strangers.get(next)?);
        let held = |stranger: &Stranger| pools.held.held(&stranger.source.wide());
        // The turn was fixed before this connection came.
        if held(new) > held(other) && !self.is_spared(pools, new) {
            let source = new.source;
            pools.turn.push_front(next);
            return pools.oldest_of(source);
        }
        Some(next)
    }

    /// The connection of a stranger whose turn to be closed it is. To find out takes long when there are many.
    fn next_in_turn(&self, pools: &mut Pools) -> Option<Entry> {
        while let Some(next) = pools.turn.pop_front() {
            let stranger = pools.strangers.get(next);
            if stranger.is_some_and(|stranger| !self.is_spared(pools, stranger)) {
                return Some(next);
            }
        }
        let most = (pools.strangers.len() / TURN_PART).max(1);
        let may = |stranger: &Stranger| !self.is_spared(pools, stranger);
        let turn = pools.strangers.give_way_in_turn(most, may);
        pools.turn = turn.into();
        let next = pools.turn.pop_front();
        next.or_else(|| pools.strangers.gives_way())
    }

    /// Whether the source of a stranger is familiar and holds few places, or carries many clients and holds no more than
    /// half of all.
    fn is_spared(&self, pools: &Pools, stranger: &Stranger) -> bool {
        let held = pools.held.held(&stranger.source.wide());
        let is_familiar = || {
            let source = stranger.source.narrow();
            pools.familiar.sources.contains_key(&source)
        };
        match stranger.carries_many {
            true => held <= self.connections / 2,
            false => held <= (self.per_source / 2).max(1) && is_familiar(),
        }
    }
}

impl Pools {
    fn len(&self) -> usize {
        self.strangers.len().saturating_add(self.proven.len())
    }

    /// The oldest connection of the /64 with the most connections among those of an IPv6 /48; the oldest one of an IPv4
    /// address.
    fn oldest_of(&self, source: Source) -> Option<Entry> {
        let site = || {
            let strangers = self.strangers.iter();
            strangers.filter(|(_, other)| other.source.wide() == source.wide())
        };
        let held = |other: &Stranger| self.held_by_network.held(&other.source.narrow());
        let most = match source.narrow() == source.wide() {
            true => self.held_by_network.held(&source.narrow()),
            false => site().map(|(_, other)| held(other)).max()?,
        };
        let oldest = site().find(|(_, other)| held(other) == most);
        oldest.map(|(entry, _)| entry)
    }

    fn evict_stranger(&mut self, entry: Entry) -> bool {
        let ticket = self.strangers.get(entry);
        let Some(ticket) = ticket.map(|stranger| stranger.ticket.clone()) else {
            return false;
        };
        self.strangers.leave(entry);
        ticket.close();
        true
    }

    /// Evicts a connection for one of `holder`: the holder with the most loses its oldest connection, if it keeps at
    /// least as many as `holder` gets, and else `holder` its own oldest. False if there is neither.
    fn make_room_for(&mut self, holder: Holder) -> bool {
        let held = |holder: Holder| {
            let proven = self.proven.iter();
            proven.filter(|(_, other)| other.holder == holder).count()
        };
        let own = held(holder);
        let largest = self.proven.gives_way().and_then(|entry| {
            let other = self.proven.get(entry)?.holder;
            (held(other) > own.saturating_add(1)).then_some(entry)
        });
        let oldest = || {
            let mut proven = self.proven.iter();
            let oldest = proven.find(|(_, other)| other.holder == holder);
            oldest.map(|(entry, _)| entry)
        };
        let Some(surplus) = largest.or_else(oldest) else {
            return false;
        };
        if let Some(ticket) = self.proven.get(surplus).map(|proven| proven.ticket.clone()) {
            self.proven.leave(surplus);
            ticket.close();
        }
        true
    }
}

impl Ticket {
    fn new(shares: Option<Arc<Shares>>, source: SocketAddr) -> Self {
        Self(Arc::new(Inner {
            shares,
            seat: Mutex::new(Seat {
                source,
                state: State::Free,
                since: Instant::now(),
            }),
            changed: Notify::new(),
        }))
    }

    /// The ticket of a connection that has passed no gate with shares. It never counts as proven.
    pub fn detached(source: SocketAddr) -> Self {
        Self::new(None, source)
    }

    /// Address of the client: of the peer, or what a trusted proxy says. The port is 0 if the proxy does not say it.
    pub fn source(&self) -> SocketAddr {
        self.seat().source
    }

    /// Whether the client has proven who it is, and has a place among the proven.
    pub fn is_proven(&self) -> bool {
        matches!(self.seat().state, State::Proven(..))
    }

    /// Who is charged for what the client uses: who has proven the connection, or else its source, by the IPv4 address or
    /// the /48.
    pub fn charged_to(&self) -> Holder {
        let seat = *self.seat();
        match seat.state {
            State::Proven(_, holder) => holder,
            _ => Holder::of_source(Source::of(seat.source.ip())),
        }
    }

    /// The client has proven that it is `holder`: the connection moves to the pool of the proven, if there is room for
    /// one more of `holder`. The first proof counts.
    pub fn prove(&self, holder: Holder) {
        let Some(shares) = &self.0.shares else {
            return;
        };
        let mut pools = shares.lock();
        let State::Stranger(entry) = self.seat().state else {
            return;
        };
        if pools.proven.len() >= shares.for_proven && !pools.make_room_for(holder) {
            return;
        }
        pools.strangers.leave(entry);
        let source = Source::of(self.source().ip());
        if holder.kind != SOURCE {
            pools.familiar.remember(source, shares.connections);
        }
        let proven = Proven {
            holder,
            ticket: self.clone(),
        };
        let (entry, _) = pools.proven.enter(proven);
        self.seat().state = State::Proven(entry, holder);
        self.0.changed.notify_one();
    }

    /// The connection carries another client, as a trusted proxy says: it is charged to that source, and what was proven
    /// no longer counts.
    pub(super) fn recharge(&self, source: SocketAddr) {
        let Some(shares) = &self.0.shares else {
            self.seat().source = source;
            return;
        };
        let mut pools = shares.lock();
        let state = self.seat().state;
        match state {
            State::Stranger(entry) => pools.strangers.leave(entry),
            State::Proven(entry, _) => pools.proven.leave(entry),
            State::Free | State::Gone => return,
        };
        shares.seat_stranger(&mut pools, self, source);
    }

    /// Waits until the connection has to end: it was evicted, or has proven nothing for too long. Cancel safe.
    pub(super) async fn ended(&self) {
        loop {
            let changed = self.0.changed.notified();
            let seat = *self.seat();
            match (seat.state, &self.0.shares) {
                (State::Gone, _) => return,
                (State::Stranger(_), Some(shares)) => {
                    let end = seat.since.checked_add(shares.stranger_life);
                    tokio::select! {
                        biased;
                        () = changed => {}
                        () = sleep_until(end.unwrap_or(seat.since)) => self.expire(shares),
                    }
                }
                _ => changed.await,
            }
        }
    }

    fn expire(&self, shares: &Shares) {
        let mut pools = shares.lock();
        let state = self.seat().state;
        if let State::Stranger(entry) = state {
            pools.evict_stranger(entry);
        }
    }

    /// Ends the connection, which is in no pool any more.
    fn close(&self) {
        self.seat().state = State::Gone;
        self.0.changed.notify_one();
    }

    fn seat(&self) -> MutexGuard<'_, Seat> {
        self.0.seat.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seat = *self.seat();
        write!(f, "Ticket({}, {:?})", seat.source, seat.state)
    }
}

impl Place {
    /// The ticket of the connection.
    pub(super) fn ticket(&self) -> Ticket {
        self.ticket.clone()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(shares) = &self.ticket.0.shares else {
            return;
        };
        let mut pools = shares.lock();
        let state = std::mem::replace(&mut self.ticket.seat().state, State::Gone);
        match state {
            State::Stranger(entry) => pools.strangers.leave(entry),
            State::Proven(entry, _) => pools.proven.leave(entry),
            State::Free | State::Gone => false,
        };
    }
}

#[cfg(test)]
mod tests;
