//! Places: who makes room when there are too many logins or connections.

use super::*;

#[test]
fn one_connection_too_many_of_a_key_replaces_the_least_active_one() {
    for (connections, share) in [(4, 2), (10, 2), (32, 2), (64, 4), (128, 8), (2000, 8)] {
        let limits = Limits {
            connections,
            ..Limits::default()
        };
        assert_eq!(limits.connections_per_key(), share);
        let mut registry = registry(limits);
        let ids: Vec<ConnId> = (0..share).map(|_| registry.open_client(key(2))).collect();
        registry.note_activity(ids[0]);
        registry.register_waker(ids[1], Waker::noop());
        let (next, _) = registry.connect(conn_info()).unwrap();
        let wakers = registry.login(next, key(2), ClientRole::default(), NOW);
        assert_eq!(wakers.unwrap().len(), 1);
        assert_eq!(registry.close_reason(ids[1]), Some(CloseReason::Replaced));
        assert_eq!(registry.close_reason(ids[0]), None);
        assert_eq!(registry.stats().connections, share);
        registry.check();
    }
}

#[test]
fn oldest_login_is_evicted_by_new_ones() {
    let mut registry = registry(Limits {
        logins: 3,
        ..Limits::default()
    });
    let ids: Vec<ConnId> = (0..5)
        .map(|_| registry.connect(conn_info()).unwrap().0)
        .collect();
    assert_eq!(registry.close_reason(ids[0]), Some(CloseReason::Evicted));
    assert_eq!(registry.close_reason(ids[1]), Some(CloseReason::Evicted));
    assert_eq!(registry.close_reason(ids[2]), None);
    assert_eq!(
        registry
            .login(ids[0], key(1), ClientRole::default(), NOW)
            .err(),
        Some(CloseReason::Evicted)
    );
    assert_eq!(
        (registry.stats().logins, registry.stats().logins_evicted),
        (3, 2)
    );
    registry.check();
}

#[test]
fn a_flood_of_logins_evicts_those_of_its_own_address_only() {
    let mut registry = registry(Limits {
        logins: 8,
        ..Limits::default()
    });
    // One /48 counts as one, however many networks and addresses it uses.
    let floods: [fn(u16) -> String; 2] = [
        |_| "203.0.113.7".into(),
        |at| format!("2001:db8:7:{at:x}::{at:x}"),
    ];
    for flood in floods {
        let slow: Vec<ConnId> = (1..5)
            .map(|host| {
                registry
                    .connect(from(&format!("192.0.2.{host}")))
                    .unwrap()
                    .0
            })
            .collect();
        for at in 0..100 {
            registry.connect(from(&flood(at))).unwrap();
        }
        for (mark, id) in (1..).zip(&slow) {
            let login = registry.login(*id, key(mark), ClientRole::default(), NOW);
            assert!(login.is_ok(), "{login:?}");
        }
        registry.check();
    }
}

#[test]
fn logins_take_no_place_of_clients_that_are_logged_in() {
    let mut registry = registry(Limits {
        connections: 4,
        logins: 4,
        ..Limits::default()
    });
    let clients: Vec<ConnId> = (0..4).map(|mark| registry.open_client(key(mark))).collect();
    for _ in 0..20 {
        assert!(registry.connect(conn_info()).is_ok());
    }
    assert!(
        clients
            .iter()
            .all(|id| registry.close_reason(*id).is_none())
    );
    assert_eq!(registry.stats().logins, 4);
    registry.check();
}

#[test]
fn full_relay_refuses_a_newcomer_where_nobody_has_more_than_it() {
    let mut registry = registry(Limits {
        connections: 3,
        ..Limits::default()
    });
    for role in [ClientRole::default(), STRANGER] {
        let hosts = ["192.0.2.1", "192.0.2.2", "192.0.2.3"];
        let ids: Vec<ConnId> = (1..)
            .zip(hosts)
            .map(|(mark, host)| registry.open_from(host, key(mark), role).unwrap())
            .collect();
        for _ in 0..3 {
            let newcomer = registry.open_from("192.0.2.4", key(4), role);
            assert_eq!(newcomer, Err(CloseReason::Full));
        }
        assert!(ids.iter().all(|id| registry.close_reason(*id).is_none()));
        registry.leave(ids[0]);
        let newcomer = registry.open_from("192.0.2.4", key(4), role);
        registry.check();
        ids.into_iter().chain(newcomer).for_each(|id| {
            registry.leave(id);
        });
    }
    assert_eq!(registry.stats().turned_away, 6);
}

#[test]
fn known_clients_share_a_full_relay_by_key() {
    let mut registry = registry(Limits {
        connections: 4,
        ..Limits::default()
    });
    let known = ClientRole::default();
    let open = |registry: &mut Registry, mark| registry.open_from("192.0.2.1", key(mark), known);
    let first = open(&mut registry, 1).unwrap();
    let others: Vec<ConnId> = [1, 2, 2]
        .map(|mark| open(&mut registry, mark).unwrap())
        .into();
    open(&mut registry, 3).unwrap();
    assert_eq!(registry.close_reason(first), Some(CloseReason::CrowdedOut));
    open(&mut registry, 4).unwrap();
    assert_eq!(open(&mut registry, 5), Err(CloseReason::Full));
    // A second connection of a key that has one is no reason to close another one's.
    assert_eq!(open(&mut registry, 3), Err(CloseReason::Full));
    assert_eq!(registry.close_reason(others[0]), None);
    assert_eq!(registry.stats().crowded_out, 2);
    registry.check();
}

#[test]
fn strangers_share_a_full_relay_by_address_however_many_keys_they_have() {
    let mut registry = registry(Limits {
        connections: 8,
        ..Limits::default()
    });
    let greedy: Vec<ConnId> = (0..8)
        .map(|mark| {
            registry
                .open_from("192.0.2.1", key(mark), STRANGER)
                .unwrap()
        })
        .collect();
    let own = registry.open_from("192.0.2.1", key(9), STRANGER);
    assert_eq!(own, Err(CloseReason::Full));
    let other = registry.open_from("192.0.2.2", key(10), STRANGER).unwrap();
    assert_eq!(
        registry.close_reason(greedy[0]),
        Some(CloseReason::CrowdedOut)
    );
    // The greedy one cannot come back at its cost.
    for mark in 20..40 {
        let again = registry.open_from("192.0.2.1", key(mark), STRANGER);
        assert_eq!(again, Err(CloseReason::Full));
    }
    assert_eq!(registry.close_reason(other), None);
    registry.check();
}

#[test]
fn strangers_make_room_for_known_clients_and_mesh_peers_but_never_get_their_places() {
    let mut registry = registry(Limits {
        connections: 4,
        ..Limits::default()
    });
    let stranger = registry.open_from("192.0.2.1", key(1), STRANGER).unwrap();
    let known: Vec<ConnId> = (2..5).map(|mark| registry.open_client(key(mark))).collect();
    let newcomer = registry.open_from("192.0.2.2", key(5), STRANGER);
    assert_eq!(newcomer, Err(CloseReason::Full));
    let late = registry.open_client(key(6));
    assert_eq!(
        registry.close_reason(stranger),
        Some(CloseReason::CrowdedOut)
    );
    let newcomer = registry.open_from("192.0.2.2", key(5), STRANGER);
    assert_eq!(newcomer, Err(CloseReason::Full));
    registry.check();
    // The other relays of the region always get in.
    let mesh = registry.open_from("192.0.2.3", key(9), MESH).unwrap();
    assert_eq!(
        registry.close_reason(known[0]),
        Some(CloseReason::CrowdedOut)
    );
    assert_eq!(registry.close_reason(late), None);
    assert_eq!(registry.close_reason(mesh), None);
    registry.check();
}

#[test]
fn one_address_cannot_use_all_connections() {
    let limits = Limits {
        connections_per_address: 2,
        ..Limits::default()
    };
    let mut registry = registry(limits);
    let mut marks = 1..;
    let mut open = |registry: &mut Registry, host: &str, role| {
        registry.open_from(host, key(marks.next().unwrap()), role)
    };
    let known = ClientRole::default();
    let first = open(&mut registry, "192.0.2.1", known).unwrap();
    open(&mut registry, "::ffff:192.0.2.1", known).unwrap();
    // Those that have not logged in do not count.
    registry.connect(from("192.0.2.1")).unwrap();
    assert_eq!(
        open(&mut registry, "192.0.2.1", known),
        Err(CloseReason::TooManyFromAddress)
    );
    for host in ["2001:db8::1", "2001:db8::2"] {
        assert!(open(&mut registry, host, STRANGER).is_ok());
    }
    assert_eq!(
        open(&mut registry, "2001:db8::3", STRANGER),
        Err(CloseReason::TooManyFromAddress)
    );
    for (host, role) in [("127.0.0.1", known), ("::1", known), ("192.0.2.1", MESH)] {
        for _ in 0..4 {
            assert!(open(&mut registry, host, role).is_ok());
        }
    }
    registry.leave(first);
    assert!(open(&mut registry, "192.0.2.1", known).is_ok());
    registry.check();
}

#[test]
fn a_known_client_gets_the_place_of_a_stranger_of_its_address() {
    let mut registry = registry(Limits {
        connections: 2,
        connections_per_address: 2,
        ..Limits::default()
    });
    let known = ClientRole::default();
    let open =
        |registry: &mut Registry, mark, role| registry.open_from("192.0.2.1", key(mark), role);
    let strangers = [1, 2].map(|mark| open(&mut registry, mark, STRANGER).unwrap());
    let stranger = open(&mut registry, 3, STRANGER);
    assert_eq!(stranger, Err(CloseReason::TooManyFromAddress));
    for (mark, stranger) in [(4, strangers[0]), (5, strangers[1])] {
        assert!(open(&mut registry, mark, known).is_ok());
        assert_eq!(
            registry.close_reason(stranger),
            Some(CloseReason::CrowdedOut)
        );
        registry.check();
    }
    for role in [STRANGER, known] {
        let newcomer = open(&mut registry, 6, role);
        assert_eq!(newcomer, Err(CloseReason::TooManyFromAddress));
    }
}

#[test]
fn a_key_replaces_its_own_connection_at_the_limit_of_its_address() {
    let mut registry = registry(Limits {
        connections: 2,
        connections_per_address: 2,
        ..Limits::default()
    });
    let first = registry.open_client(key(1));
    registry.open_client(key(1));
    registry.open_client(key(1));
    assert_eq!(registry.close_reason(first), Some(CloseReason::Replaced));
    registry.check();
}
