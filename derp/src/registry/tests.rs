mod places;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Wake;

use proptest::prelude::*;

use super::*;
use crate::conn::ConnError;
use crate::testing::disco;

/// Counts how often a driver was woken.
#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn key(mark: u8) -> Key {
    Key::new([mark; 32])
}

fn conn_info() -> ConnInfo {
    from("192.0.2.1")
}

/// A connection from this address.
fn from(host: &str) -> ConnInfo {
    ConnInfo::from(SocketAddr::new(host.parse().unwrap(), 1234))
}

const NOW: Duration = Duration::from_secs(1000);

/// The role of a client that anyone could be.
const STRANGER: ClientRole = ClientRole {
    is_mesh_peer: false,
    is_prober: false,
    is_stranger: true,
};

fn registry(limits: Limits) -> Registry {
    let pool = Pool::new(limits.pool_bytes);
    Registry::new(Arc::new(limits), pool)
}

impl Registry {
    fn open_client(&mut self, key: Key) -> ConnId {
        let (id, _) = self.connect(conn_info()).unwrap();
        self.login(id, key, ClientRole::default(), NOW).unwrap();
        id
    }

    /// A client that connects from `host` and logs in.
    fn open_from(&mut self, host: &str, key: Key, role: ClientRole) -> Result<ConnId, CloseReason> {
        let (id, _) = self.connect(from(host)).unwrap();
        let login = self.login(id, key, role, NOW);
        if login.is_err() {
            self.leave(id);
        }
        login.map(|_| id)
    }

    /// Takes the packets queued for a connection.
    fn packets(&mut self, id: ConnId) -> Vec<Vec<u8>> {
        let Some(mailbox) = self.mailbox(id) else {
            return Vec::new();
        };
        std::iter::from_fn(|| mailbox.queue.pop())
            .map(|packet| packet.payload().to_vec())
            .collect()
    }

    /// Takes the `PeerGone` notices queued for a connection.
    fn notices(&mut self, id: ConnId) -> Vec<Key> {
        let Some(mailbox) = self.mailbox(id) else {
            return Vec::new();
        };
        std::iter::from_fn(|| mailbox.pop_gone()).collect()
    }

    fn leave(&mut self, id: ConnId) -> usize {
        self.remove(id, Some(CloseReason::ByPeer), |_| {}).len()
    }

    fn send(&mut self, from: ConnId, to: Key, packet: &[u8]) -> bool {
        matches!(self.forward(from, &to, packet, NOW), Forwarded::Queued(_))
    }

    /// Why a connection must close.
    fn close_reason(&mut self, id: ConnId) -> Option<CloseReason> {
        self.register_waker(id, Waker::noop())
    }

    /// Checks the invariants of the type.
    fn check(&self) {
        let mut open = 0;
        for (id, slot) in &self.slots {
            let is_in = |is_stranger| {
                let is_open = matches!(slot.state, State::Open(_)) && !slot.role.is_mesh_peer;
                is_open && slot.role.is_stranger == is_stranger
            };
            assert_eq!(
                self.logins.contains(id.place()),
                matches!(slot.state, State::Login)
            );
            assert_eq!(self.strangers.contains(id.place()), is_in(true));
            assert_eq!(self.known.contains(id.place()), is_in(false));
            let listed = self
                .peers
                .values()
                .filter(|peer| peer.connections().contains(id))
                .count();
            match slot.state {
                State::Open(key) => {
                    open += 1;
                    assert_eq!(listed, 1);
                    assert!(self.peers[&key].connections().contains(id));
                }
                _ => assert_eq!(listed, 0),
            }
        }
        assert_eq!(self.open, open);
        let is = |wanted: fn(&State) -> bool| {
            let states = self.slots.values().map(|slot| &slot.state);
            states.filter(|state| wanted(state)).count()
        };
        assert_eq!(self.logins.len(), is(|state| matches!(state, State::Login)));
        let clients = self.strangers.len() + self.known.len();
        assert!(clients <= self.open);
        for peer in self.peers.values() {
            assert!(peer.is_reachable());
            assert!(peer.destination_count() <= self.limits.destinations_per_key);
        }
        let forwarders: usize = self.peers.values().map(Peer::forwarder_count).sum();
        assert_eq!(self.remote, forwarders);
        assert!(self.addresses.sources() <= self.open);
        assert!(self.open <= self.limits.connections);
        assert!(self.logins.len() <= self.limits.logins);
    }
}

#[test]
fn packet_reaches_the_connection_of_its_key_and_wakes_it_once() {
    let mut registry = registry(Limits::default());
    let (a, b) = (registry.open_client(key(1)), registry.open_client(key(2)));
    let woken = Arc::new(Woken::default());
    assert_eq!(
        registry.register_waker(b, &Waker::from(woken.clone())),
        None
    );
    for _ in 0..3 {
        let Forwarded::Queued(waker) = registry.forward(a, &key(2), b"hello", NOW) else {
            panic!("b is connected");
        };
        waker.into_iter().for_each(Waker::wake);
    }
    assert_eq!(woken.0.load(Ordering::Relaxed), 1);
    assert_eq!(registry.packets(b), [b"hello"; 3]);
    assert_eq!(
        registry.stats().received,
        Tally {
            packets: 3,
            bytes: 15
        }
    );
}

#[test]
fn packet_to_the_sender_itself_arrives() {
    let mut registry = registry(Limits::default());
    let a = registry.open_client(key(1));
    assert!(registry.send(a, key(1), b"self"));
    assert_eq!(registry.packets(a), [b"self"]);
}

#[test]
fn unknown_destination_is_reported_for_discovery_packets_only() {
    let mut registry = registry(Limits::default());
    let a = registry.open_client(key(1));
    assert!(matches!(
        registry.forward(a, &key(9), b"data", NOW),
        Forwarded::Dropped
    ));
    assert!(matches!(
        registry.forward(a, &key(9), &disco(70, 0), NOW),
        Forwarded::NotHere
    ));
    let drops = registry.stats().drops;
    assert_eq!(
        drops
            .of(DropReason::UnknownDestination, PacketKind::Other)
            .packets,
        1
    );
    assert_eq!(
        drops
            .of(DropReason::UnknownDestination, PacketKind::Disco)
            .bytes,
        70
    );
}

/// A handshake initiation.
fn initiation(mark: u8) -> [u8; INITIATION_BYTES] {
    let mut packet = [mark; INITIATION_BYTES];
    packet[..4].copy_from_slice(&[1, 0, 0, 0]);
    packet
}

fn unknown_dropped(registry: &Registry) -> u64 {
    let drops = registry.stats().drops;
    let of = drops.of(DropReason::UnknownDestination, PacketKind::Other);
    of.packets
}

#[test]
fn handshake_initiations_are_held_for_a_receiver_that_connects_soon() {
    let mut registry = registry(Limits::default());
    let a = registry.open_client(key(1));
    registry.forward(a, &key(2), &initiation(1), NOW);
    registry.forward(a, &key(2), &initiation(2), NOW);
    registry.forward(a, &key(2), b"data", NOW);
    assert_eq!(unknown_dropped(&registry), 2);
    let b = registry.open_client(key(2));
    assert_eq!(registry.packets(b), [initiation(2).to_vec()]);
    // Nothing is delivered twice, and the number of held packets is bounded.
    let again = registry.open_client(key(2));
    assert!(registry.packets(again).is_empty());
    for receiver in 10..10 + 2 * u8::try_from(held::MAX_HELD).unwrap() {
        registry.forward(a, &key(receiver), &initiation(3), NOW);
    }
    assert_eq!(unknown_dropped(&registry), 2 + held::MAX_HELD as u64);
}

#[test]
fn held_initiations_of_a_disconnected_key_are_dropped() {
    let mut registry = registry(Limits::default());
    let (a1, a2) = (registry.open_client(key(1)), registry.open_client(key(1)));
    let b = registry.open_client(key(2));
    registry.forward(a1, &key(9), &initiation(1), NOW);
    registry.forward(b, &key(9), &initiation(2), NOW);
    // The key is still connected.
    registry.leave(a1);
    assert_eq!(unknown_dropped(&registry), 0);
    registry.leave(a2);
    assert_eq!(unknown_dropped(&registry), 1);
    // So are those of a key whose admission is revoked.
    registry.forward(b, &key(8), &initiation(3), NOW);
    registry.disconnect(&key(2));
    assert_eq!(unknown_dropped(&registry), 3);
    for mark in [8, 9] {
        let id = registry.open_client(key(mark));
        assert!(registry.packets(id).is_empty());
    }
}

#[test]
fn held_initiations_age() {
    let mut registry = registry(Limits::default());
    let a = registry.open_client(key(1));
    registry.forward(a, &key(9), &initiation(1), NOW);
    let (id, _) = registry.connect(conn_info()).unwrap();
    let late = NOW + held::HELD_FOR;
    registry
        .login(id, key(9), ClientRole::default(), late)
        .unwrap();
    assert!(registry.packets(id).is_empty());
    assert_eq!(unknown_dropped(&registry), 1);
}

#[test]
fn connection_that_is_logging_in_neither_sends_nor_receives() {
    let mut registry = registry(Limits::default());
    let a = registry.open_client(key(1));
    let (b, _) = registry.connect(conn_info()).unwrap();
    assert!(!registry.send(b, key(1), b"early"));
    assert!(!registry.send(a, key(2), b"early"));
    registry
        .login(b, key(2), ClientRole::default(), NOW)
        .unwrap();
    assert!(registry.send(a, key(2), b"now"));
}

#[test]
fn newest_connection_of_a_key_receives_until_another_one_sends() {
    let mut registry = registry(Limits::default());
    let sender = registry.open_client(key(1));
    let (old, new) = (registry.open_client(key(2)), registry.open_client(key(2)));
    assert!(registry.send(sender, key(2), b"1"));
    assert_eq!(registry.packets(new), [b"1"]);
    registry.note_ping(old);
    assert!(registry.send(sender, key(2), b"2"));
    assert_eq!(registry.packets(old), [b"2"]);
    assert!(registry.send(new, key(9), b"unknown") || registry.send(sender, key(2), b"3"));
    assert_eq!(registry.packets(new), [b"3"]);
    registry.leave(new);
    assert!(registry.send(sender, key(2), b"4"));
    assert_eq!(registry.packets(old), [b"4"]);
    registry.check();
}

#[test]
fn last_active_of_the_remaining_connections_receives() {
    let mut registry = registry(Limits::default());
    let sender = registry.open_client(key(1));
    let ids: Vec<ConnId> = (0..3).map(|_| registry.open_client(key(2))).collect();
    registry.note_activity(ids[0]);
    registry.note_activity(ids[2]);
    registry.leave(ids[2]);
    assert!(registry.send(sender, key(2), b"x"));
    assert_eq!(registry.packets(ids[0]), [b"x"]);
    assert_eq!(
        (registry.stats().duplicates, registry.stats().duplicate_keys),
        (2, 1)
    );
}

#[test]
fn receivers_get_peer_gone_when_the_last_connection_of_a_key_closes() {
    let mut registry = registry(Limits::default());
    let (a1, a2) = (registry.open_client(key(1)), registry.open_client(key(1)));
    let (b, c) = (registry.open_client(key(2)), registry.open_client(key(3)));
    assert!(registry.send(a1, key(2), b"x") && registry.send(c, key(1), b"y"));
    registry.register_waker(b, Waker::noop());
    assert_eq!(registry.leave(a1), 0);
    assert_eq!(registry.notices(b), []);
    assert_eq!(registry.leave(a2), 1);
    assert_eq!(registry.notices(b), [key(1)]);
    // c has not received a packet from a; it sent one.
    assert_eq!(registry.notices(c), []);
    let a3 = registry.open_client(key(1));
    registry.leave(a3);
    assert_eq!(registry.notices(b), []);
    assert_eq!(registry.stats().peer_gone_disconnected, 1);
}

#[test]
fn destinations_are_bounded_and_closed_ones_are_removed() {
    let mut registry = registry(Limits {
        destinations_per_key: 4,
        ..Limits::default()
    });
    let a = registry.open_client(key(1));
    let others: Vec<ConnId> = (10..20)
        .map(|mark| registry.open_client(key(mark)))
        .collect();
    for mark in 10..20 {
        assert!(registry.send(a, key(mark), b"x"));
    }
    registry.check();
    for id in &others[..3] {
        registry.leave(*id);
    }
    let late = registry.open_client(key(30));
    assert!(registry.send(a, key(30), b"x"));
    registry.check();
    registry.leave(a);
    assert_eq!(registry.notices(others[3]), [key(1)]);
    assert_eq!(registry.notices(late), [key(1)]);
    assert_eq!(registry.notices(others[4]), []);
}

#[test]
fn disconnect_stops_packets_both_ways_before_the_driver_runs() {
    let mut registry = registry(Limits::default());
    let (a1, a2) = (registry.open_client(key(1)), registry.open_client(key(1)));
    let b = registry.open_client(key(2));
    assert!(registry.send(a1, key(2), b"x") && registry.send(b, key(1), b"queued"));
    for id in [a1, a2, b] {
        registry.register_waker(id, Waker::noop());
    }
    assert_eq!(registry.disconnect(&key(1)).len(), 3);
    assert!(!registry.send(a1, key(2), b"x") && !registry.send(b, key(1), b"x"));
    assert_eq!(registry.close_reason(a1), Some(CloseReason::Disconnected));
    assert_eq!(registry.close_reason(a2), Some(CloseReason::Disconnected));
    assert_eq!(registry.notices(b), [key(1)]);
    registry.check();
    registry.leave(a1);
    registry.leave(a2);
    assert_eq!(
        (registry.stats().connections, registry.stats().disconnected),
        (1, 2)
    );
    // Whether the key may connect again is decided by admission, not by the registry.
    registry.open_client(key(1));
    assert!(registry.send(b, key(1), b"x"));
    assert!(registry.disconnect(&key(77)).is_empty());
}

#[test]
fn queued_packets_of_a_closed_connection_are_counted_and_freed() {
    let mut registry = registry(Limits::default());
    let (a, b) = (registry.open_client(key(1)), registry.open_client(key(2)));
    assert!(registry.send(a, key(2), b"12345"));
    assert!(registry.stats().pool_bytes_used > 0);
    registry.leave(b);
    let stats = registry.stats();
    assert_eq!(
        stats
            .drops
            .of(DropReason::GoneDisconnected, PacketKind::Other)
            .bytes,
        5
    );
    assert_eq!(stats.pool_bytes_used, 0);
}

#[test]
fn shutdown_notifies_all_accepts_none_and_forwards_nothing() {
    let mut registry = registry(Limits::default());
    let (a, b) = (
        registry.open_client(key(1)),
        registry.connect(conn_info()).unwrap().0,
    );
    registry.register_waker(a, Waker::noop());
    registry.register_waker(b, Waker::noop());
    let restart = Restart {
        reconnect_in: 1,
        try_for: 2,
    };
    assert_eq!(registry.shutdown(restart).len(), 2);
    assert_eq!(registry.mailbox(a).unwrap().restart, Some(restart));
    assert_eq!(
        registry.connect(conn_info()).err(),
        Some(CloseReason::ShuttingDown)
    );
    assert!(!registry.send(a, key(1), b"x"));
}

#[test]
fn closed_connections_are_counted_by_reason() {
    let mut registry = registry(Limits::default());
    for reason in [
        CloseReason::Protocol(ConnError::WriteTimeout),
        CloseReason::Protocol(ConnError::LoginTimeout),
        CloseReason::Protocol(ConnError::NotMeshPeer(crate::frame::Kind::WatchConns)),
        CloseReason::NotAdmitted(key(1)),
        CloseReason::ByPeer,
    ] {
        let id = registry.open_client(key(1));
        registry.remove(id, Some(reason), |_| {});
    }
    let stats = registry.stats();
    let counted = (
        stats.write_timeouts,
        stats.logins_failed,
        stats.faults,
        stats.refused,
    );
    assert_eq!(counted, (1, 1, 1, 1));
}

#[test]
fn home_connections_are_counted_while_open() {
    let mut registry = registry(Limits::default());
    let a = registry.open_client(key(1));
    registry.note_preferred(a, true);
    registry.note_preferred(a, true);
    assert_eq!(registry.stats().home_connections, 1);
    registry.note_preferred(a, false);
    assert_eq!(registry.stats().home_connections, 0);
    registry.note_preferred(a, true);
    registry.leave(a);
    assert_eq!(registry.stats().home_connections, 0);
}

#[derive(Clone, Debug)]
enum Step {
    Connect,
    Login(usize, u8),
    Send(usize, u8),
    Activity(usize),
    Leave(usize),
    Disconnect(u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let (at, mark) = (0usize..24, 0u8..6);
    let step = prop_oneof![
        3 => Just(Step::Connect),
        4 => (at.clone(), mark.clone()).prop_map(|(at, mark)| Step::Login(at, mark)),
        6 => (at.clone(), mark.clone()).prop_map(|(at, mark)| Step::Send(at, mark)),
        2 => at.clone().prop_map(Step::Activity),
        2 => at.prop_map(Step::Leave),
        1 => mark.prop_map(Step::Disconnect),
    ];
    prop::collection::vec(step, 0..120)
}

/// Role of a mesh peer.
const MESH: ClientRole = ClientRole {
    is_mesh_peer: true,
    is_prober: false,
    is_stranger: false,
};

impl Registry {
    fn open_mesh_peer(&mut self, key: Key) -> ConnId {
        let (id, _) = self.connect(conn_info()).unwrap();
        self.login(id, key, MESH, NOW).unwrap();
        id
    }

    /// Takes the presence updates queued for a watcher.
    fn presences(&mut self, id: ConnId) -> Vec<(Key, bool)> {
        let mailbox = self.mailbox(id).unwrap();
        std::iter::from_fn(|| mailbox.pop_presence())
            .map(|(key, presence)| (key, presence.is_some()))
            .collect()
    }

    /// Takes the packets queued for a link.
    fn link_packets(&mut self, id: MeshLinkId) -> Vec<Vec<u8>> {
        let queue = self.link_queue(id).unwrap();
        std::iter::from_fn(|| queue.pop())
            .map(|packet| packet.payload().to_vec())
            .collect()
    }
}

#[test]
fn watcher_gets_presence_of_all_but_itself() {
    let mut registry = registry(Limits::default());
    registry.open_client(key(1));
    let watcher = registry.open_mesh_peer(key(9));
    registry.watch(watcher);
    registry.watch(watcher);
    assert_eq!(registry.presences(watcher), [(key(1), true)]);
    let b = registry.open_client(key(2));
    let second = registry.open_client(key(2));
    assert_eq!(registry.presences(watcher), [(key(2), true)]);
    registry.leave(b);
    assert_eq!(registry.presences(watcher), []);
    registry.leave(second);
    assert_eq!(registry.presences(watcher), [(key(2), false)]);
    registry.check();
    registry.leave(watcher);
    registry.open_client(key(3));
    registry.check();
}

#[test]
fn client_without_the_mesh_key_cannot_watch() {
    let mut registry = registry(Limits::default());
    let a = registry.open_client(key(1));
    registry.watch(a);
    registry.open_client(key(2));
    assert_eq!(registry.presences(a), []);
}

#[test]
fn watcher_too_slow_for_presence_updates_is_closed() {
    let limits = Limits {
        connections: 4,
        ..Limits::default()
    };
    let mut registry = registry(limits);
    let watcher = registry.open_mesh_peer(key(9));
    registry.watch(watcher);
    for mark in 10..18 {
        assert_eq!(registry.close_reason(watcher), None);
        let id = registry.open_client(key(mark));
        registry.leave(id);
    }
    let id = registry.open_client(key(18));
    assert_eq!(
        registry.close_reason(watcher),
        Some(CloseReason::MeshPeerTooSlow)
    );
    registry.leave(id);
    registry.check();
}

#[test]
fn local_connection_is_preferred_to_a_link_and_the_first_link_to_others() {
    let mut registry = registry(Limits::default());
    let a = registry.open_client(key(1));
    let (first, second) = (registry.add_link(), registry.add_link());
    for link in [first, second, first] {
        registry.add_forwarder(link, key(2));
    }
    registry.check();
    assert!(registry.send(a, key(2), b"by the first"));
    assert_eq!(registry.link_packets(first), [b"by the first"]);
    let b = registry.open_client(key(2));
    assert!(registry.send(a, key(2), b"here"));
    assert_eq!(registry.packets(b), [b"here"]);
    registry.leave(b);
    assert!(registry.notices(a).is_empty());
    registry.remove_link(first);
    registry.check();
    assert!(registry.send(a, key(2), b"by the second"));
    assert_eq!(registry.link_packets(second), [b"by the second"]);
    registry.remove_forwarder(second, &key(2));
    assert!(!registry.send(a, key(2), b"nowhere"));
    registry.check();
    assert_eq!(registry.stats().keys, 1);
}

#[test]
fn packet_from_a_mesh_peer_is_delivered_or_dropped_but_never_forwarded_again() {
    let mut registry = registry(Limits::default());
    let peer = registry.open_mesh_peer(key(9));
    let a = registry.open_client(key(1));
    let link = registry.add_link();
    registry.add_forwarder(link, key(2));
    let forwarded = registry.forward_from_mesh(peer, &key(2), &key(1), b"hello");
    assert!(matches!(forwarded, Forwarded::Queued(_)));
    assert_eq!(registry.packets(a), [b"hello"]);
    // The sender disconnects from the other relay: the receiver gets `PeerGone`.
    registry.add_forwarder(link, key(3));
    registry.remove_forwarder(link, &key(2));
    assert_eq!(registry.notices(a), [key(2)]);
    let lost = registry.forward_from_mesh(peer, &key(1), &key(3), &disco(70, 1));
    assert!(matches!(lost, Forwarded::NotHere));
    assert!(registry.link_packets(link).is_empty());
    let drops = registry.stats().drops;
    let reason = DropReason::UnknownDestinationOnForward;
    assert_eq!(drops.of(reason, PacketKind::Disco).packets, 1);
}

#[test]
fn keys_of_mesh_links_are_bounded() {
    let limits = Limits {
        mesh_keys: 3,
        ..Limits::default()
    };
    let mut registry = registry(limits);
    let link = registry.add_link();
    for mark in 1..10 {
        registry.add_forwarder(link, key(mark));
    }
    registry.check();
    assert_eq!(registry.stats().remote_keys, 3);
    registry.remove_link(link);
    registry.check();
    assert_eq!(registry.stats().remote_keys, 0);
}

/// A simple model of the registry: logged-in connections in the order of their activity.
#[derive(Default)]
struct Model {
    active: Vec<(ConnId, u8)>,
    /// Key, and connection that received a packet from it.
    had: BTreeSet<(u8, ConnId)>,
    /// Connection, and key for which it must get `PeerGone`.
    notices: Vec<(ConnId, u8)>,
}

impl Model {
    fn touch(&mut self, id: ConnId) -> Option<u8> {
        let at = self.active.iter().position(|(known, _)| *known == id)?;
        let entry = self.active.remove(at);
        self.active.push(entry);
        Some(entry.1)
    }

    fn receiver(&self, mark: u8) -> Option<ConnId> {
        self.active
            .iter()
            .rev()
            .find(|(_, known)| *known == mark)
            .map(|(id, _)| *id)
    }

    fn remove(&mut self, id: ConnId) {
        let Some(mark) = self.touch(id) else { return };
        self.active.pop();
        self.notices.retain(|(known, _)| *known != id);
        if self.receiver(mark).is_none() {
            for (_, id) in self.had.iter().filter(|(known, _)| *known == mark) {
                let open = self.active.iter().any(|(known, _)| known == id);
                if open && !self.notices.contains(&(*id, mark)) {
                    self.notices.push((*id, mark));
                }
            }
            self.had.retain(|(known, _)| *known != mark);
        }
    }
}

proptest! {
    #[test]
    fn registry_agrees_with_a_simple_model(steps in steps()) {
        let mut registry = registry(Limits { connections: 16, logins: 4, ..Limits::default() });
        let mut model = Model::default();
        let mut ids: Vec<ConnId> = Vec::new();
        for step in steps {
            let at = |at: usize| ids.get(at % ids.len().max(1)).copied();
            match step {
                Step::Connect => ids.extend(registry.connect(conn_info()).ok().map(|(id, _)| id)),
                Step::Login(index, mark) => {
                    let Some(id) = at(index).filter(|id| registry.logins.contains(id.place())) else { continue };
                    let share = registry.limits.connections_per_key();
                    if model.active.iter().filter(|(_, known)| *known == mark).count() == share {
                        let first = model.active.iter().find(|(_, known)| *known == mark).unwrap().0;
                        model.active.retain(|(id, _)| *id != first);
                        model.notices.retain(|(id, _)| *id != first);
                    }
                    registry.login(id, key(mark), ClientRole::default(), NOW).unwrap();
                    model.active.push((id, mark));
                }
                Step::Send(index, mark) => {
                    let Some(id) = at(index) else { continue };
                    let source = model.touch(id);
                    let receiver = model.receiver(mark).filter(|_| source.is_some());
                    prop_assert_eq!(registry.send(id, key(mark), b"x"), receiver.is_some());
                    if let (Some(receiver), Some(source)) = (receiver, source) {
                        model.had.insert((source, receiver));
                        prop_assert_eq!(registry.packets(receiver), [b"x"]);
                    }
                }
                Step::Activity(index) => {
                    let Some(id) = at(index) else { continue };
                    registry.note_activity(id);
                    model.touch(id);
                }
                Step::Leave(index) => {
                    let Some(id) = at(index) else { continue };
                    registry.leave(id);
                    model.remove(id);
                }
                Step::Disconnect(mark) => {
                    registry.disconnect(&key(mark));
                    while let Some(id) = model.receiver(mark) {
                        model.remove(id);
                    }
                }
            }
            registry.check();
        }
        for (id, _) in &model.active {
            let mut heard = registry.notices(*id);
            let mut expected: Vec<Key> =
                model.notices.iter().filter(|(known, _)| known == id).map(|(_, mark)| key(*mark)).collect();
            heard.sort();
            expected.sort();
            prop_assert_eq!(heard, expected);
        }
    }
}
