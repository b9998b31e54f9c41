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
        .apply(Command::ExpireNode(id, Some(world.now.wall)))
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
        (key.expiry, key.reusable) = (Some(end), true);
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
