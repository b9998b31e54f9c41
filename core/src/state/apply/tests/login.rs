//! Coming back, renewing a key, and approval of devices.

use super::*;
use crate::state::model::Settings;

fn with_approval() -> (World, UserId) {
    let (mut world, user) = World::with_user();
    world.model.settings = Arc::new(Settings {
        device_approval: true,
        ..(*world.model.settings).clone()
    });
    (world, user)
}

fn knocks(world: &mut World, request: Register) -> crate::id::AuthId {
    match world.register(request) {
        Ok(RegisterReply::NeedsLogin(id)) => id,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_old_key_goes_on_until_the_new_one_is_let_in() {
    let (mut world, user) = World::with_user();
    let id = world.node_number(1);
    let old = world.node(id).key;
    let stream = world.open_stream(id);
    let login = knocks(&mut world, plain(1, 2));
    assert_eq!(world.node(id).key, old);
    assert!(world.snapshot().admits(&old), "the old stream goes on");
    assert_eq!(world.node(id).presence, Presence::Online(stream));
    let admission = world.snapshot().admission();
    world
        .apply(Command::ApproveRegistration(login, user))
        .unwrap();
    let new = world.node(id).key;
    assert!(new != old && world.snapshot().admits(&new) && !world.snapshot().admits(&old));
    assert_ne!(world.snapshot().admission(), admission);
    assert!(world.node(id).presence.is_online(), "nobody sees a gap");
}

#[test]
fn a_new_key_that_nobody_lets_in_changes_nothing() {
    let (mut world, _) = World::with_user();
    let id = world.node_number(1);
    let before = world.node(id).clone();
    let login = knocks(&mut world, plain(1, 2));
    world.apply(Command::RejectRegistration(login)).unwrap();
    assert_eq!(*world.node(id), before);
}

#[test]
fn an_expired_node_comes_back_with_a_fresh_preauth_key() {
    let (mut world, _) = World::with_user();
    let id = world.node_number(1);
    world
        .apply(Command::ExpireNode(id, End::At(world.now.wall)))
        .unwrap();
    let used = world.register(with_key(1, 1, "key1")).unwrap_err();
    assert_eq!(used, Rejected::PreAuthKeyUsed);
    world.preauth_key("fresh", |_| {});
    let node = world.join(with_key(1, 2, "fresh"));
    assert_eq!((node.id, node.expired, node.expiry), (id, false, None));
}

#[test]
fn an_ended_key_keeps_the_nodes_that_it_let_in() {
    let (mut world, _) = World::with_user();
    let end = world.now.wall.plus(SECOND);
    world.preauth_key("short", |key| {
        (key.expiry, key.reusable) = (End::At(end), true);
    });
    let id = world.join(with_key(1, 1, "short")).id;
    world.wait(SECOND * 2);
    assert_eq!(world.join(with_key(1, 1, "short")).id, id);
    assert_eq!(world.join(plain(1, 1)).id, id);
    world
        .apply(Command::ExpirePreAuthKey(PreAuthKeyId::FIRST))
        .unwrap();
    assert_eq!(world.join(with_key(1, 1, "short")).id, id);
    assert!(world.snapshot().admits(&world.node(id).key));
}

#[test]
fn a_machine_that_was_renamed_while_it_was_out_comes_back_with_its_new_name() {
    let (mut world, _) = World::with_user();
    world.preauth_key("k", |key| key.reusable = true);
    let id = world.join(with_key(1, 1, "k")).id;
    let named = |key| {
        let hostinfo = Hostinfo {
            hostname: "attic".into(),
            ..Hostinfo::default()
        };
        Register {
            hostinfo: Arc::new(hostinfo),
            ..with_key(1, key, "k")
        }
    };
    assert_eq!(&*world.join(named(2)).label, "attic");
    world.apply(Command::RenameNode(id, "tv".into())).unwrap();
    world.join(with_key(1, 3, "k"));
    assert_eq!(&*world.join(named(4)).label, "tv");
}

#[test]
fn a_device_waits_unless_its_key_or_a_person_lets_it_take_part() {
    let (mut world, user) = with_approval();
    world.preauth_key("approved", |_| {});
    assert!(world.join(with_key(1, 1, "approved")).authorized);
    world.preauth_key("plain", |key| key.preauthorized = false);
    let waits = world.join(with_key(2, 2, "plain"));
    assert!(!waits.authorized && !world.snapshot().admits(&waits.key));
    let login = knocks(&mut world, plain(3, 3));
    world
        .apply(Command::ApproveRegistration(login, user))
        .unwrap();
    assert!(world.join(plain(3, 3)).authorized);

    world.open_stream(waits.id);
    assert!(!world.node(waits.id).is_active());
    let admission = world.snapshot().admission();
    world.apply(Command::ApproveNode(waits.id)).unwrap();
    assert!(world.node(waits.id).is_active() && world.snapshot().admits(&waits.key));
    assert_ne!(world.snapshot().admission(), admission);
    assert_eq!(world.node(waits.id).facets.core, world.model.revision);
    world.records.clear();
    world.apply(Command::ApproveNode(waits.id)).unwrap();
    assert!(world.records.is_empty());
}

#[test]
fn without_approval_every_key_lets_take_part() {
    let (mut world, _) = World::with_user();
    world.preauth_key("plain", |key| key.preauthorized = false);
    assert!(world.join(with_key(1, 1, "plain")).authorized);
}

#[test]
fn whom_an_administrator_shuts_out_no_key_lets_in_again() {
    for world in [World::with_user(), with_approval()] {
        let (mut world, user) = world;
        world.preauth_key("k", |key| key.reusable = true);
        let id = world.join(with_key(1, 1, "k")).id;
        world.open_stream(id);
        let key = world.node(id).key;
        world.apply(Command::RevokeApproval(id)).unwrap();
        assert!(!world.snapshot().admits(&key) && !world.node(id).is_active());
        assert!(!world.join(with_key(1, 2, "k")).authorized);
        let login = knocks(&mut world, plain(1, 3));
        world
            .apply(Command::ApproveRegistration(login, user))
            .unwrap();
        assert!(world.node(id).authorized, "a person decides");
    }
}

/// Revoked, it came back as an ephemeral node, logged out and joined as a new one.
#[test]
fn a_machine_that_is_shut_out_stays_out_until_a_person_decides() {
    for by in ["nodes approve", "pending approve"] {
        let (mut world, user) = World::with_user();
        let ben = another_user(&mut world, "ben");
        world.preauth_key("k", |key| key.reusable = true);
        world.preauth_key("ben", |key| (key.reusable, key.user) = (true, Some(ben)));
        let id = world.join(with_key(1, 1, "k")).id;
        world.apply(Command::RevokeApproval(id)).unwrap();
        let ephemeral = Register {
            ephemeral: true,
            ..with_key(1, 2, "k")
        };
        assert!(!world.join(ephemeral).authorized);
        let leaving = Register {
            expiry: RequestedExpiry::Logout,
            ..plain(1, 2)
        };
        world.register(leaving).unwrap();
        assert!(world.model.nodes.is_empty());
        restore(&mut world.model, world.now);
        let again = world.join(with_key(1, 3, "k"));
        assert!(!again.authorized && again.id != id);
        // Nor as another user's, nor after an administrator deleted the node.
        assert!(!world.join(with_key(1, 4, "ben")).authorized);
        world.apply(Command::DeleteNode(again.id)).unwrap();
        let again = world.join(with_key(1, 5, "k"));
        assert!(!again.authorized);
        if by == "nodes approve" {
            world.apply(Command::ApproveNode(again.id)).unwrap();
        } else {
            let login = knocks(&mut world, plain(1, 6));
            world
                .apply(Command::ApproveRegistration(login, user))
                .unwrap();
        }
        assert!(world.node(again.id).authorized);
        world.apply(Command::DeleteNode(again.id)).unwrap();
        assert!(world.join(with_key(1, 7, "k")).authorized, "{by}");
        // Other machines never were.
        assert!(world.join(with_key(2, 8, "k")).authorized);
    }
}

/// It joined while devices needed an approval, and nobody decided before they no longer did.
#[test]
fn a_node_that_only_waited_is_not_shut_out_when_approval_is_switched_off() {
    let (mut world, _) = with_approval();
    world.preauth_key("k", |key| (key.reusable, key.preauthorized) = (true, false));
    let id = world.join(with_key(1, 1, "k")).id;
    assert!(!world.node(id).authorized);
    let settings = Arc::make_mut(&mut world.model.settings);
    settings.device_approval = false;
    restore(&mut world.model, world.now);
    assert!(world.model.shut_out.is_empty());
    world.apply(Command::DeleteNode(id)).unwrap();
    assert!(world.join(with_key(1, 2, "k")).authorized);
}

/// The older of two registrations made a node with a key that nobody used any more.
#[test]
fn a_machine_has_one_registration_and_its_newest_key_counts() {
    let (mut world, user) = World::with_user();
    let older = knocks(&mut world, plain(1, 1));
    let newer = knocks(&mut world, plain(1, 2));
    assert_eq!(older, newer, "the older URL leads to the newest request");
    assert_eq!(world.model.pending.len(), 1);
    let approve = Command::ApproveRegistration(older.clone(), user);
    world.apply(approve).unwrap();
    let node = world.join(Register {
        followup: Some(older.clone()),
        ..plain(1, 2)
    });
    assert_eq!(world.model.nodes.len(), 1);
    // A later login is a registration of its own.
    let again = knocks(&mut world, plain(1, 3));
    assert_ne!(again, older);
    // Once the machine goes on with a key that it has, nobody can give it the other one.
    world.join(plain(1, 2));
    let late = world.apply(Command::ApproveRegistration(again, user));
    assert_eq!(late.unwrap_err(), Rejected::NoSuchLogin);
    assert_eq!(world.node(node.id).key, plain(1, 2).key);
}

/// Otherwise a device could ask for tags under an id that a person has already looked at.
#[test]
fn another_name_or_tag_is_another_registration() {
    let (mut world, user) = World::with_user();
    let seen = knocks(&mut world, plain(1, 1));
    let other = |change: fn(&mut Hostinfo)| {
        let mut hostinfo = (*plain(1, 2).hostinfo).clone();
        change(&mut hostinfo);
        Register {
            hostinfo: Arc::new(hostinfo),
            ..plain(1, 2)
        }
    };
    for request in [
        other(|hostinfo| hostinfo.request_tags = ["tag:server".into()].into()),
        other(|hostinfo| hostinfo.hostname = "another".into()),
        Register {
            ephemeral: true,
            ..plain(1, 2)
        },
    ] {
        let again = knocks(&mut world, request);
        assert_ne!(again, seen);
        let late = world.apply(Command::ApproveRegistration(seen.clone(), user));
        assert_eq!(late.unwrap_err(), Rejected::NoSuchLogin);
        assert_eq!(world.model.pending.len(), 1);
    }
}

#[test]
fn a_registration_that_joined_by_key_can_no_longer_be_approved() {
    let (mut world, user) = World::with_user();
    let login = knocks(&mut world, plain(1, 1));
    world.preauth_key("k", |_| {});
    world.join(with_key(1, 2, "k"));
    let late = world.apply(Command::ApproveRegistration(login, user));
    assert_eq!(late.unwrap_err(), Rejected::NoSuchLogin);
}

#[test]
fn registrations_write_nothing_and_a_follow_up_after_a_restart_starts_again() {
    let (mut world, _) = World::with_user();
    world.records.clear();
    let login = knocks(&mut world, plain(1, 1));
    let rejected = knocks(&mut world, plain(2, 2));
    world.apply(Command::RejectRegistration(rejected)).unwrap();
    assert!(world.records.is_empty());
    world.model.pending = Arc::default();
    let again = knocks(
        &mut world,
        Register {
            followup: Some(login.clone()),
            fresh_id: "fresh".parse().unwrap(),
            ..plain(1, 1)
        },
    );
    assert_ne!(again, login);
    world.wait(SECOND * 3601);
    assert!(world.model.pending.is_empty() && world.records.is_empty());
}

/// A stranger with four registrations a second evicted those of everybody else.
#[test]
fn a_source_with_many_registrations_evicts_its_own() {
    let (mut world, _) = World::with_user();
    let home = knocks(&mut world, plain(1, 1));
    for number in 10..100 {
        world.wait(SECOND);
        knocks(
            &mut world,
            Register {
                source: [198, 51, 100, 7].into(),
                ..plain(number, number)
            },
        );
    }
    assert_eq!(world.model.pending.len(), world.model.settings.max_pending);
    assert!(world.model.pending.contains_key(&home));
    let neighbour = knocks(&mut world, plain(2, 2));
    assert!(world.model.pending.contains_key(&home));
    assert!(world.model.pending.contains_key(&neighbour));
}
