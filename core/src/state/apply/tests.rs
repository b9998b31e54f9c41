//! The rules of the state, one scene each.

mod address;
mod clock;
mod clock_jumps;
mod events;
mod invariants;
mod login;
mod names;
mod pending_key;
mod policy;
mod routes;
mod tags;
mod wireguard;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Boot, End, Now, PLAUSIBLE_FROM, Timestamp};
use crate::id::{NodeId, PreAuthKeyId, UserId};
use crate::keys::DiscoKey;
use crate::state::apply::{Flush, next_deadline, restore};
use crate::state::command::{
    Command, NewUser, NodeUpdate, Outcome, Register, RegisterReply, Rejected, RequestedExpiry,
};
use crate::state::model::{Hostinfo, Model, Node, Owner, PendingState, Presence, SessionId};
use crate::state::record::{Record, Stored};
use crate::state::testing::{World, plain, with_key};

const SECOND: Duration = Duration::from_secs(1);

/// Goes on from what was written, at the time of the world.
fn restart(world: &mut World, boot: Boot) {
    fn read<T: Stored>(value: &T) -> Arc<T> {
        Arc::new(T::decode(&value.encode()).unwrap())
    }
    let before = world.model.clone();
    let mut nodes = BTreeMap::new();
    let (mut preauth_keys, mut api_keys) = (BTreeMap::new(), BTreeMap::new());
    for record in &world.records {
        match record {
            Record::PutNode(node) => drop(nodes.insert(node.id, read(&**node))),
            Record::DeleteNode(id) => drop(nodes.remove(id)),
            Record::PutPreAuthKey(key) => drop(preauth_keys.insert(key.id, read(&**key))),
            Record::PutApiKey(key) => drop(api_keys.insert(key.id, read(&**key))),
            _ => {}
        }
    }
    let mut model = Model::new((*before.settings).clone(), world.now);
    model.boot = boot;
    model.set_nodes(nodes.into_values().collect());
    (model.counters, model.cursors) = (before.counters, before.cursors);
    (model.users, model.shut_out) = (before.users, before.shut_out);
    model.preauth_keys = Arc::new(preauth_keys);
    model.api_keys = Arc::new(api_keys);
    restore(&mut model, world.now);
    world.model = model;
}

/// Makes a user besides the one that a world has, and gives its id.
fn another_user(world: &mut World, name: &str) -> UserId {
    let new = NewUser {
        name: name.into(),
        ..NewUser::default()
    };
    match world.apply(Command::CreateUser(new)) {
        Ok(Outcome::User(user)) => user,
        other => panic!("{other:?}"),
    }
}

fn says(node: NodeId, endpoint: &str) -> NodeUpdate {
    let endpoint: SocketAddr = endpoint.parse().unwrap();
    NodeUpdate {
        node: Some(node),
        endpoints: Some(Arc::from([endpoint])),
        disco: Some(DiscoKey::from_bytes([9; 32])),
        ..NodeUpdate::default()
    }
}

#[test]
fn a_key_lets_in_one_machine_and_names_and_addresses_it() {
    let (mut world, user) = World::with_user();
    world.preauth_key("k", |_| {});
    let node = world.join(with_key(1, 1, "k"));
    assert_eq!(node.owner, Owner::User(user));
    assert_eq!(
        (&*node.label, node.ipv4),
        ("host1", Ipv4Addr::new(100, 64, 0, 1))
    );
    let again = world.register(with_key(2, 2, "k"));
    assert_eq!(again.unwrap_err(), Rejected::PreAuthKeyUsed);
}

#[test]
fn wrong_and_ended_keys_are_refused() {
    let (mut world, _) = World::with_user();
    let unknown = world.register(with_key(1, 1, "nope")).unwrap_err();
    assert_eq!(unknown, Rejected::UnknownPreAuthKey);
    let end = world.now.wall.plus(SECOND);
    world.preauth_key("short", |key| key.expiry = End::At(end));
    world.wait(SECOND * 2);
    let ended = world.register(with_key(1, 1, "short")).unwrap_err();
    assert_eq!(ended, Rejected::PreAuthKeyExpired);
    assert!(world.model.nodes.is_empty());
}

#[test]
fn nothing_ends_before_the_clock_is_right() {
    let (mut world, _) = World::with_user();
    world.now.wall = Timestamp::from_unix_ms(0);
    let end = world.now.wall.plus(SECOND);
    world.preauth_key("short", |key| key.expiry = End::At(end));
    world.wait(SECOND * 60);
    world.join(with_key(1, 1, "short"));
    world.now.wall = PLAUSIBLE_FROM;
    let ended = world.register(with_key(2, 2, "short")).unwrap_err();
    assert_eq!(ended, Rejected::PreAuthKeyExpired);
}

#[test]
fn a_container_that_restarts_may_show_its_used_or_deleted_key() {
    let (mut world, _) = World::with_user();
    world.preauth_key("k", |_| {});
    let first = world.join(with_key(1, 1, "k"));
    assert_eq!(world.join(with_key(1, 1, "k")).id, first.id);
    world
        .apply(Command::DeletePreAuthKey(PreAuthKeyId::FIRST))
        .unwrap();
    assert_eq!(world.join(with_key(1, 1, "k")).id, first.id);
    let new_node_key = world.register(with_key(1, 2, "k")).unwrap_err();
    assert_eq!(new_node_key, Rejected::UnknownPreAuthKey);
}

#[test]
fn a_machine_with_a_new_key_stays_the_same_node() {
    let (mut world, _) = World::with_user();
    world.preauth_key("k", |key| key.reusable = true);
    let before = world.join(with_key(1, 1, "k"));
    let after = world.join(with_key(1, 2, "k"));
    assert_eq!(
        (before.id, before.ipv4, &before.label),
        (after.id, after.ipv4, &after.label)
    );
    assert!(world.model.node_by_key(&before.key).is_none());
    assert_eq!(world.model.node_by_key(&after.key).unwrap().id, before.id);
}

#[test]
fn another_user_on_the_same_machine_is_another_node() {
    let (mut world, _) = World::with_user();
    let new = NewUser {
        name: "ben".into(),
        ..NewUser::default()
    };
    world.apply(Command::CreateUser(new)).unwrap();
    world.preauth_key("anna", |_| {});
    world.preauth_key("ben", |key| key.user = UserId::new(2));
    let anna = world.join(with_key(1, 1, "anna"));
    let ben = world.join(with_key(1, 2, "ben"));
    assert_ne!(anna.id, ben.id);
    assert_eq!(&*ben.label, "host1-1");
}

#[test]
fn a_node_key_of_another_machine_is_refused() {
    let (mut world, _) = World::with_user();
    world.node_number(1);
    world.preauth_key("k", |_| {});
    let stolen = world.register(with_key(2, 1, "k")).unwrap_err();
    assert_eq!(stolen, Rejected::MachineMismatch);
}

#[test]
fn tags_come_from_the_key_and_leave_no_owner() {
    let (mut world, _) = World::with_user();
    world.model.settings = Arc::new(crate::state::model::Settings {
        node_expiry: Some(SECOND * 60),
        ..(*world.model.settings).clone()
    });
    world.preauth_key("k", |key| key.tags = vec!["tag:b".into(), "tag:a".into()]);
    let node = world.join(with_key(1, 1, "k"));
    assert_eq!(node.tags(), [Box::from("tag:a"), Box::from("tag:b")]);
    assert_eq!((node.user(), node.expiry), (None, None));
}

#[test]
fn a_login_waits_for_a_person() {
    let (mut world, user) = World::with_user();
    let Ok(RegisterReply::NeedsLogin(id)) = world.register(plain(1, 1)) else {
        panic!("let in without being asked for");
    };
    let Ok(RegisterReply::NeedsLogin(same)) = world.register(plain(1, 1)) else {
        panic!("let in without being asked for");
    };
    assert_eq!(id, same);
    world
        .apply(Command::ApproveRegistration(id.clone(), user))
        .unwrap();
    let node = world.join(Register {
        followup: Some(id.clone()),
        ..plain(1, 1)
    });
    assert_eq!(node.owner, Owner::User(user));
    let twice = world
        .apply(Command::ApproveRegistration(id, user))
        .unwrap_err();
    assert_eq!(twice, Rejected::LoginDecided);
}

#[test]
fn a_rejected_login_is_told_and_may_be_tried_anew() {
    let (mut world, _) = World::with_user();
    let Ok(RegisterReply::NeedsLogin(id)) = world.register(plain(1, 1)) else {
        panic!("let in without being asked for");
    };
    world
        .apply(Command::RejectRegistration(id.clone()))
        .unwrap();
    let told = world.register(Register {
        followup: Some(id.clone()),
        ..plain(1, 1)
    });
    assert_eq!(told.unwrap_err(), Rejected::LoginRejected);
    let anew = Register {
        fresh_id: "other".parse().unwrap(),
        ..plain(1, 1)
    };
    let Ok(RegisterReply::NeedsLogin(other)) = world.register(anew) else {
        panic!("let in without being asked for");
    };
    assert_ne!(id, other);
}

#[test]
fn logins_are_bounded_and_the_oldest_gives_way() {
    let (mut world, _) = World::with_user();
    for number in 1..=9 {
        world.wait(SECOND);
        world.register(plain(number, number)).unwrap();
    }
    assert_eq!(world.model.pending.len(), world.model.settings.max_pending);
    let newest = "login-9-9".parse().unwrap();
    assert_eq!(world.model.pending[&newest].state, PendingState::Waiting);
    world.wait(SECOND * 3601);
    assert!(world.model.pending.is_empty());
}

#[test]
fn logout_ends_the_key_now_and_a_new_login_brings_the_node_back() {
    let (mut world, user) = World::with_user();
    let id = world.node_number(1);
    let left = world.register(Register {
        expiry: RequestedExpiry::Logout,
        ..plain(1, 1)
    });
    assert!(matches!(left, Ok(RegisterReply::KeyExpired(_))));
    assert_eq!(world.node(id).expiry, Some(world.now.wall));
    assert!(!world.snapshot().admits(&world.node(id).key));
    assert!(matches!(
        world.register(plain(1, 1)),
        Ok(RegisterReply::KeyExpired(Some(_)))
    ));
    let Ok(RegisterReply::NeedsLogin(login)) = world.register(plain(1, 2)) else {
        panic!("let in without being asked for");
    };
    world
        .apply(Command::ApproveRegistration(login, user))
        .unwrap();
    assert_eq!(world.join(plain(1, 2)).id, id);
    assert!(world.snapshot().admits(&world.node(id).key));
}

#[test]
fn logout_with_the_preauth_key_still_in_hand_is_a_logout() {
    let (mut world, _) = World::with_user();
    let id = world.node_number(1);
    let leaving = Register {
        expiry: RequestedExpiry::Logout,
        ..with_key(1, 1, "key1")
    };
    assert!(matches!(
        world.register(leaving),
        Ok(RegisterReply::KeyExpired(_))
    ));
    assert!(world.node(id).expired);
}

#[test]
fn an_ephemeral_node_goes_at_logout_and_after_being_away() {
    let (mut world, _) = World::with_user();
    world.preauth_key("e", |key| (key.ephemeral, key.reusable) = (true, true));
    let one = world.join(with_key(1, 1, "e")).id;
    let two = world.join(with_key(2, 2, "e")).id;
    world
        .register(Register {
            expiry: RequestedExpiry::Logout,
            ..plain(1, 1)
        })
        .unwrap();
    assert!(world.model.node(one).is_none());
    let three = world.join(with_key(3, 3, "e")).id;
    world.wait(SECOND * 59);
    let session = world.open_stream(two);
    assert!(world.model.node(three).is_some());
    world.wait(SECOND);
    assert!(
        world.model.node(three).is_none(),
        "it never came since it registered"
    );
    world
        .apply(Command::CloseStream { node: two, session })
        .unwrap();
    world.wait(SECOND * 10);
    world.wait(SECOND * 59);
    assert!(world.model.node(two).is_some());
    world.wait(SECOND);
    assert!(world.model.node(two).is_none());
}

#[test]
fn expiry_is_announced_when_it_comes_and_the_engine_wakes_for_it() {
    let (mut world, _) = World::with_user();
    let id = world.node_number(1);
    let end = world.now.wall.plus(SECOND * 5);
    world.apply(Command::ExpireNode(id, End::At(end))).unwrap();
    assert_eq!(
        next_deadline(&world.model, world.now, Flush::WhenDue),
        world.now.mono + SECOND * 5
    );
    let before = world.node(id).facets.core;
    world.wait(SECOND * 5);
    assert!(world.node(id).expired && world.node(id).facets.core > before);
    world.apply(Command::ExpireNode(id, End::Never)).unwrap();
    assert!(!world.node(id).expired && world.snapshot().admits(&world.node(id).key));
}

#[test]
fn a_router_that_boots_in_1970_lets_nobody_back_in() {
    let (mut world, _) = World::with_user();
    let now = world.now;
    let (ended, lives) = (world.node_number(1), world.node_number(2));
    for (id, at) in [(ended, now.wall), (lives, now.wall.plus(SECOND))] {
        world.apply(Command::ExpireNode(id, End::At(at))).unwrap();
        let stored = Node::decode(&world.node(id).encode()).unwrap();
        world.model.put_node(stored);
    }
    let mut expired_at = |wall| {
        restore(&mut world.model, Now { wall, ..now });
        [ended, lives].map(|id| world.node(id).expired)
    };
    assert_eq!(expired_at(Timestamp::from_unix_ms(0)), [true, false]);
    assert_eq!(expired_at(now.wall), [true, false]);
    assert_eq!(expired_at(now.wall.plus(SECOND)), [true, true]);
}

#[test]
fn a_client_may_shorten_its_expiry_and_not_extend_it() {
    let (mut world, _) = World::with_user();
    world.node_number(1);
    let at = |seconds| RequestedExpiry::At(PLAUSIBLE_FROM.plus(SECOND * seconds));
    world.join(Register {
        expiry: at(100),
        ..plain(1, 1)
    });
    world.join(Register {
        expiry: at(50),
        ..plain(1, 1)
    });
    let written = world.records.len();
    world.join(Register {
        expiry: at(50),
        ..plain(1, 1)
    });
    assert_eq!(world.records.len(), written, "nothing new, nothing written");
    let longer = world.register(Register {
        expiry: at(60),
        ..plain(1, 1)
    });
    assert_eq!(longer.unwrap_err(), Rejected::ExpiryExtended);
}

#[test]
fn a_short_absence_goes_unnoticed() {
    let (mut world, _) = World::with_user();
    let id = world.node_number(1);
    let session = world.open_stream(id);
    let seen = world.node(id).facets;
    world
        .apply(Command::CloseStream { node: id, session })
        .unwrap();
    world.wait(SECOND * 9);
    world.open_stream(id);
    assert_eq!(world.node(id).facets, seen);
    assert!(world.node(id).presence.is_online());
}

#[test]
fn a_long_absence_is_told_with_the_time_of_leaving() {
    let (mut world, _) = World::with_user();
    let id = world.node_number(1);
    let session = world.open_stream(id);
    let left = world.now.wall;
    world
        .apply(Command::CloseStream { node: id, session })
        .unwrap();
    world.wait(SECOND * 10);
    assert_eq!(world.node(id).presence.last_seen(), Some(left));
}

#[test]
fn the_end_of_a_replaced_stream_does_not_count() {
    let (mut world, _) = World::with_user();
    let id = world.node_number(1);
    let old = world.open_stream(id);
    let new = world.open_stream(id);
    world
        .apply(Command::CloseStream {
            node: id,
            session: old,
        })
        .unwrap();
    assert_eq!(world.node(id).presence, Presence::Online(new));
}

#[test]
fn a_stream_that_ends_before_it_is_open_ends_the_one_that_it_replaced() {
    let (mut world, _) = World::with_user();
    let id = world.node_number(1);
    let SessionId(open) = world.open_stream(id);
    let session = SessionId(open + 1);
    world
        .apply(Command::CloseStream { node: id, session })
        .unwrap();
    assert!(matches!(world.node(id).presence, Presence::Leaving { .. }));
}

#[test]
fn endpoints_alone_are_never_written() {
    let (mut world, _) = World::with_user();
    let id = world.node_number(1);
    world.open_stream(id);
    world
        .apply(Command::UpdateNode(Box::new(says(id, "192.0.2.1:1"))))
        .unwrap();
    world.records.clear();
    world
        .apply(Command::UpdateNode(Box::new(says(id, "192.0.2.2:2"))))
        .unwrap();
    assert!(world.records.is_empty());
    assert_eq!(world.node(id).facets.endpoints, world.model.revision);
    world.wait(SECOND * 1800);
    assert!(matches!(world.records[..], [Record::PutNode(_)]));
}

/// What every client says again by itself after a restart of hearth.
#[test]
fn what_devices_report_is_written_with_the_next_flush_and_published_at_once() {
    let (mut world, _) = World::with_user();
    let id = world.node_number(1);
    world.open_stream(id);
    world.tick(Flush::Now);
    let hostinfo = |number: u8| Hostinfo {
        hostname: format!("name{number}").into(),
        raw: format!("{{\"n\":{number}}}").into(),
        routable_ips: vec![format!("10.{number}.0.0/16").parse().unwrap()].into(),
        ..Hostinfo::default()
    };
    let reports: [fn(u8) -> NodeUpdate; 4] = [
        |number| NodeUpdate {
            home_derp: Some(900 + u16::from(number)),
            ..NodeUpdate::default()
        },
        |number| NodeUpdate {
            capability: Some(100 + u16::from(number)),
            ..NodeUpdate::default()
        },
        |number| NodeUpdate {
            lock: Some(crate::keys::LockKey::from_bytes([number; 32])),
            ..NodeUpdate::default()
        },
        |number| NodeUpdate {
            disco: Some(DiscoKey::from_bytes([number; 32])),
            ..NodeUpdate::default()
        },
    ];
    for number in 1..=9 {
        let mut all: Vec<NodeUpdate> = reports.iter().map(|report| report(number)).collect();
        all.push(NodeUpdate {
            hostinfo: Some(Arc::new(hostinfo(number))),
            ..NodeUpdate::default()
        });
        for update in all {
            world.records.clear();
            let before = world.model.revision;
            let update = NodeUpdate {
                node: Some(id),
                ..update
            };
            world.apply(Command::UpdateNode(Box::new(update))).unwrap();
            assert!(world.records.is_empty(), "{:?}", world.records);
            assert!(world.model.changed && world.model.revision > before);
        }
        // The same at a plain registration, and when a stream opens.
        world.join(Register {
            hostinfo: Arc::new(hostinfo(number + 100)),
            capability: u16::from(number),
            lock: Some(crate::keys::LockKey::from_bytes([number + 100; 32])),
            ..plain(1, 1)
        });
        world.open_stream(id);
        assert!(world.records.is_empty(), "{:?}", world.records);
    }
    world.wait(SECOND * 1800);
    let [Record::PutNode(written)] = &world.records[..] else {
        panic!("{:?}", world.records);
    };
    assert_eq!((&*written.label, written.capability), ("name109", 9));
    world.wait(SECOND * 1800);
    assert_eq!(world.records.len(), 1, "nothing new, nothing written");
}

/// A thousand roaming nodes write no more bytes a day than ten.
#[test]
fn a_flush_of_many_nodes_pays_for_more_time() {
    let (mut world, _) = World::with_user();
    world.preauth_key("k", |key| key.reusable = true);
    let ids: Vec<NodeId> = (1..=80)
        .map(|number| world.join(with_key(number, number, "k")).id)
        .collect();
    let roam = |world: &mut World, count: usize, port: usize| {
        for id in &ids[..count] {
            let endpoint = format!("192.0.2.1:{port}");
            world
                .apply(Command::UpdateNode(Box::new(says(*id, &endpoint))))
                .unwrap();
        }
    };
    for (count, flushes) in [(1, 24), (80, 6)] {
        world.tick(Flush::Now);
        roam(&mut world, count, 1);
        world.tick(Flush::Now);
        let mut seen = 0;
        for minute in 0..(12 * 60) {
            roam(&mut world, count, 10 + minute);
            world.records.clear();
            world.wait(SECOND * 60);
            seen += usize::from(!world.records.is_empty());
        }
        assert!(seen <= flushes, "{count} nodes: {seen} flushes in 12 hours");
        assert!(seen > 0);
    }
}

/// A name that follows the hostname is written later than that of the node which takes the former name.
#[test]
fn after_a_power_cut_no_two_nodes_have_one_name() {
    let (mut world, _) = World::with_user();
    let (one, two) = (world.node_number(1), world.node_number(2));
    let renamed = Hostinfo {
        hostname: "other".into(),
        ..Hostinfo::default()
    };
    let update = NodeUpdate {
        node: Some(one),
        hostinfo: Some(Arc::new(renamed)),
        ..NodeUpdate::default()
    };
    world.apply(Command::UpdateNode(Box::new(update))).unwrap();
    world
        .apply(Command::RenameNode(two, "host1".into()))
        .unwrap();
    for record in std::mem::take(&mut world.records) {
        if let Record::PutNode(node) = record {
            world.model.put_node(Node::decode(&node.encode()).unwrap());
        }
    }
    restore(&mut world.model, world.now);
    assert_eq!(&*world.node(two).label, "host1");
    assert_eq!(&*world.node(one).label, "host1-1");
}

#[test]
fn deciding_the_same_again_writes_nothing() {
    let (mut world, _) = World::with_user();
    let id = world.node_number(1);
    let end = world.now.wall.plus(SECOND * 60);
    let route = || vec!["10.0.0.0/8".parse().unwrap()];
    let commands: [fn(NodeId, Timestamp) -> Command; 4] = [
        |id, _| Command::RenameNode(id, "tv".into()),
        |id, end| Command::ExpireNode(id, End::At(end)),
        |id, _| Command::SetTags(id, vec!["tag:a".into()]),
        |_, _| Command::ExpirePreAuthKey(PreAuthKeyId::FIRST),
    ];
    for command in commands {
        world.apply(command(id, end)).unwrap();
        world.records.clear();
        world.events.clear();
        world.apply(command(id, end)).unwrap();
        assert!(world.records.is_empty() && world.events.is_empty());
        assert!(!world.model.changed);
    }
    world.apply(Command::ApproveRoutes(id, route())).unwrap();
    world
        .apply(Command::ExpireNode(id, End::At(world.now.wall)))
        .unwrap();
    world.wait(SECOND);
    world.records.clear();
    world.apply(Command::ApproveRoutes(id, route())).unwrap();
    let now = world.now.wall;
    world.apply(Command::ExpireNode(id, End::At(now))).unwrap();
    assert!(world.records.is_empty() && world.node(id).expired);
}

#[test]
fn saying_the_same_again_writes_and_tells_nothing() {
    let (mut world, _) = World::with_user();
    let id = world.node_number(1);
    world.open_stream(id);
    world
        .apply(Command::UpdateNode(Box::new(says(id, "192.0.2.1:1"))))
        .unwrap();
    world.records.clear();
    world
        .apply(Command::UpdateNode(Box::new(says(id, "192.0.2.1:1"))))
        .unwrap();
    assert!(!world.model.changed);
    world.join(with_key(1, 1, "key1"));
    assert!(world.records.is_empty() && !world.model.changed);
}

#[test]
fn a_streams_own_words_count_only_while_nothing_newer_is_known() {
    let (mut world, _) = World::with_user();
    let id = world.node_number(1);
    world.open_stream_saying(id, says(id, "192.0.2.1:1"));
    assert_eq!(
        world.node(id).endpoints[..],
        ["192.0.2.1:1".parse().unwrap()]
    );
    world.open_stream_saying(id, says(id, "192.0.2.2:2"));
    assert_eq!(
        world.node(id).endpoints[..],
        ["192.0.2.2:2".parse().unwrap()]
    );
    world
        .apply(Command::UpdateNode(Box::new(says(id, "192.0.2.3:3"))))
        .unwrap();
    world.open_stream_saying(id, says(id, "192.0.2.9:9"));
    assert_eq!(
        world.node(id).endpoints[..],
        ["192.0.2.3:3".parse().unwrap()]
    );
}

#[test]
fn a_new_host_name_renames_unless_somebody_chose_the_name() {
    let (mut world, _) = World::with_user();
    let id = world.node_number(1);
    let named = |name: &str| {
        let hostinfo = Hostinfo {
            hostname: name.into(),
            ..Hostinfo::default()
        };
        let hostinfo = Some(Arc::new(hostinfo));
        Command::UpdateNode(Box::new(NodeUpdate {
            node: Some(id),
            hostinfo,
            ..NodeUpdate::default()
        }))
    };
    world.apply(named("Living Room")).unwrap();
    assert_eq!(&*world.node(id).label, "living-room");
    world.apply(Command::RenameNode(id, "tv".into())).unwrap();
    world.apply(named("Kitchen")).unwrap();
    assert_eq!(&*world.node(id).label, "tv");
    let bad = world
        .apply(Command::RenameNode(id, "T V".into()))
        .unwrap_err();
    assert_eq!(bad, Rejected::BadNodeName("T V".into()));
}

#[test]
fn a_user_with_nodes_stays_and_one_without_takes_only_its_own_keys_along() {
    let (mut world, user) = World::with_user();
    let new = NewUser {
        name: "ben".into(),
        ..NewUser::default()
    };
    world.apply(Command::CreateUser(new)).unwrap();
    world.preauth_key("ben", |key| key.user = UserId::new(2));
    let id = world.node_number(1);
    let refused = world.apply(Command::DeleteUser(user)).unwrap_err();
    assert_eq!(refused, Rejected::UserHasNodes { nodes: 1 });
    world.apply(Command::DeleteNode(id)).unwrap();
    world.apply(Command::DeleteUser(user)).unwrap();
    let left: Vec<_> = world
        .model
        .preauth_keys
        .values()
        .map(|key| &*key.prefix)
        .collect();
    assert_eq!(left, ["ben"]);
}

#[test]
fn user_names_are_unique_and_never_look_like_ids() {
    let (mut world, user) = World::with_user();
    let create = |world: &mut World, name: &str| {
        world.apply(Command::CreateUser(NewUser {
            name: name.into(),
            ..NewUser::default()
        }))
    };
    let long = "x".repeat(255);
    let bad = [
        "",
        "42",
        "\u{661}\u{662}",
        "-x",
        "+x",
        "a b",
        "<b>",
        "a@b@c",
        "na\u{200b}s",
        "\u{3164}x",
        &long,
    ];
    for bad in bad {
        let refused = create(&mut world, bad).unwrap_err();
        assert_eq!(refused, Rejected::BadUserName(bad.into()), "{bad:?}");
    }
    for good in [
        "J\u{fc}rgen",
        "anna+home@example.com",
        "a.b-c_d",
        "1abc",
        "\u{5f20}\u{4f1f}",
    ] {
        create(&mut world, good).unwrap();
        let other = good.to_uppercase();
        let refused = create(&mut world, &other).unwrap_err();
        assert_eq!(refused, Rejected::UserNameTaken(other.into()), "{good}");
    }
    let new = NewUser {
        name: "Anna".into(),
        ..NewUser::default()
    };
    let refused = world.apply(Command::CreateUser(new)).unwrap_err();
    assert_eq!(refused, Rejected::UserNameTaken("Anna".into()));
    // Nor in another spelling that a policy can use.
    let mut create = |name: &str, email: &str| {
        let new = NewUser {
            name: name.into(),
            email: email.into(),
            ..NewUser::default()
        };
        world.apply(Command::CreateUser(new)).err()
    };
    let taken = |name: &str| Some(Rejected::UserNameTaken(name.into()));
    assert_eq!(create("anna@", ""), taken("anna@"));
    assert_eq!(create("ben", "ben@example.com"), None);
    assert_eq!(create("Ben@", ""), taken("Ben@"));
    assert_eq!(create("BEN@example.com", ""), taken("BEN@example.com"));
    assert_eq!(create("benjamin", "ben@"), taken("ben@"));
    assert_eq!(create("ben@example.org", ""), None);
    // A user keeps its own spellings.
    let rename = Command::RenameUser(user, "anna@".into());
    world.apply(rename).unwrap();
    world
        .apply(Command::RenameUser(user, "anne".into()))
        .unwrap();
    assert_eq!(&*world.model.users[&user].name, "anne");
}

#[test]
fn a_full_tailnet_says_so() {
    let (mut world, _) = World::with_user();
    world.preauth_key("k", |key| key.reusable = true);
    for number in 0..100 {
        world.join(with_key(number, number, "k"));
    }
    let refused = world.register(with_key(200, 200, "k")).unwrap_err();
    assert_eq!(refused, Rejected::TooManyNodes { limit: 100 });
}

#[test]
fn shutting_down_writes_what_was_only_in_memory() {
    let (mut world, _) = World::with_user();
    let id = world.node_number(1);
    world.open_stream(id);
    world
        .apply(Command::UpdateNode(Box::new(says(id, "192.0.2.1:1"))))
        .unwrap();
    world
        .apply(Command::UpdateNode(Box::new(says(id, "192.0.2.2:2"))))
        .unwrap();
    world.records.clear();
    world.tick(Flush::Now);
    let [Record::PutNode(written)] = &world.records[..] else {
        panic!("not written: {:?}", world.records);
    };
    assert_eq!(written.endpoints[..], ["192.0.2.2:2".parse().unwrap()]);
}
