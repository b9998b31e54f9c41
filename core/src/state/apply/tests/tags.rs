//! Whose a node is: tags, moves, roles and expiry of users.

use super::*;
use crate::state::model::{KeyLifetime, Node, Role, Settings};

fn tags(texts: &[&str]) -> Vec<Box<str>> {
    texts.iter().map(|text| (*text).into()).collect()
}

fn tag(world: &mut World, node: NodeId, texts: &[&str]) {
    world.apply(Command::SetTags(node, tags(texts))).unwrap();
}

fn let_in(world: &mut World, request: Register, user: UserId) -> Result<Arc<Node>, Rejected> {
    let Ok(RegisterReply::NeedsLogin(login)) = world.register(request) else {
        panic!("let in without being asked for");
    };
    match world.apply(Command::ApproveRegistration(login, user))? {
        Outcome::Node(id) => Ok(world.node(id).clone()),
        other => panic!("{other:?}"),
    }
}

fn wants(texts: &[&str], request: Register) -> Register {
    let hostinfo = Hostinfo {
        request_tags: tags(texts).into(),
        ..(*request.hostinfo).clone()
    };
    Register {
        hostinfo: Arc::new(hostinfo),
        ..request
    }
}

#[test]
fn tags_take_the_place_of_the_user_and_end_the_expiry() {
    let (mut world, _) = World::with_user();
    let id = world.node_number(1);
    let end = world.now.wall.plus(SECOND * 60);
    world.apply(Command::ExpireNode(id, End::At(end))).unwrap();
    tag(&mut world, id, &["tag:b", "tag:a", "tag:b"]);
    let node = world.node(id).clone();
    assert_eq!(node.tags(), tags(&["tag:a", "tag:b"]));
    assert_eq!((node.user(), node.expiry), (None, None));
    tag(&mut world, id, &["tag:c"]);
    assert_eq!(world.node(id).tags(), tags(&["tag:c"]));
    world.records.clear();
    tag(&mut world, id, &["tag:c"]);
    assert!(world.records.is_empty() && !world.model.changed);
}

#[test]
fn tags_do_not_bring_a_node_back_that_has_expired() {
    let (mut world, _) = World::with_user();
    let id = world.node_number(1);
    world
        .apply(Command::ExpireNode(id, End::At(world.now.wall)))
        .unwrap();
    tag(&mut world, id, &["tag:a"]);
    assert!(world.node(id).expired && !world.snapshot().admits(&world.node(id).key));
}

#[test]
fn a_node_keeps_an_owner_and_tags_have_a_form() {
    let (mut world, _) = World::with_user();
    let id = world.node_number(1);
    let none = world.apply(Command::SetTags(id, Vec::new())).unwrap_err();
    assert_eq!(none, Rejected::NoTags);
    for bad in ["web", "tag:", "tag:1", "tag:a b"] {
        let refused = world.apply(Command::SetTags(id, tags(&[bad]))).unwrap_err();
        assert_eq!(refused, Rejected::BadTag(bad.into()));
    }
    let nobody = Command::SetTags(NodeId::new(99).unwrap(), tags(&["tag:a"]));
    assert_eq!(world.apply(nobody).unwrap_err(), Rejected::NoSuchNode);
}

#[test]
fn tags_that_a_client_asks_for_need_somebody_who_may_give_them() {
    let (mut world, user) = World::with_user();
    world.preauth_key("k", |_| {});
    let refused = world.register(wants(&["tag:x"], with_key(1, 1, "k")));
    assert!(matches!(refused, Err(Rejected::TagsNotPermitted(_))));
    let refused = let_in(&mut world, wants(&["tag:x"], plain(2, 2)), user);
    assert!(matches!(refused, Err(Rejected::TagsNotPermitted(_))));
    assert!(world.model.nodes.is_empty());
    world.preauth_key("t", |key| key.tags = tags(&["tag:y"]));
    let node = world.join(wants(&["tag:x"], with_key(3, 3, "t")));
    assert_eq!(node.tags(), tags(&["tag:y"]), "the key's tags count more");
}

#[test]
fn a_node_moves_to_another_user_as_it_is() {
    let (mut world, _) = World::with_user();
    let ben = another_user(&mut world, "ben");
    let id = world.node_number(1);
    let before = world.node(id).clone();
    world.apply(Command::MoveNode(id, ben)).unwrap();
    let after = world.node(id).clone();
    assert_eq!(after.user(), Some(ben));
    assert_eq!((after.ipv4, after.key), (before.ipv4, before.key));
    tag(&mut world, id, &["tag:a"]);
    world.apply(Command::MoveNode(id, ben)).unwrap();
    assert_eq!(world.node(id).owner, Owner::User(ben));
    let nobody = world.apply(Command::MoveNode(id, UserId::new(99).unwrap()));
    assert_eq!(nobody.unwrap_err(), Rejected::NoSuchUser);
}

#[test]
fn a_machine_never_gets_two_nodes_of_one_owner() {
    let (mut world, anna) = World::with_user();
    let ben = another_user(&mut world, "ben");
    let first = let_in(&mut world, plain(1, 1), anna).unwrap().id;
    let second = let_in(&mut world, plain(1, 2), ben).unwrap().id;
    let moved = world.apply(Command::MoveNode(second, anna)).unwrap_err();
    assert_eq!(moved, Rejected::MachineHasNode(first));
    tag(&mut world, first, &["tag:a"]);
    let tagged = world.apply(Command::SetTags(second, tags(&["tag:b"])));
    assert_eq!(tagged.unwrap_err(), Rejected::MachineHasNode(first));
}

#[test]
fn two_nodes_never_get_one_key() {
    let (mut world, anna) = World::with_user();
    let ben = another_user(&mut world, "ben");
    world.preauth_key("anna", |key| key.reusable = true);
    let first = world.join(with_key(1, 1, "anna")).id;
    let second = let_in(&mut world, plain(1, 2), ben).unwrap().id;
    let refused = world.register(with_key(1, 2, "anna")).unwrap_err();
    assert_eq!(refused, Rejected::MachineHasNode(first));
    assert_eq!(world.node(second).user(), Some(ben));
    assert_eq!(world.node(first).user(), Some(anna));
}

#[test]
fn a_container_whose_node_was_given_away_restarts_with_its_old_key() {
    let (mut world, _) = World::with_user();
    let ben = another_user(&mut world, "ben");
    let id = world.node_number(1);
    tag(&mut world, id, &["tag:a"]);
    assert_eq!(world.join(with_key(1, 1, "key1")).id, id);
    assert_eq!(world.node(id).tags(), tags(&["tag:a"]));
    world.apply(Command::MoveNode(id, ben)).unwrap();
    assert_eq!(world.join(with_key(1, 1, "key1")).user(), Some(ben));
}

#[test]
fn a_node_that_was_given_away_stays_so_when_it_comes_back_with_a_new_key() {
    let (mut world, _) = World::with_user();
    world.preauth_key("k", |key| key.reusable = true);
    let id = world.join(with_key(1, 1, "k")).id;
    tag(&mut world, id, &["tag:a"]);
    let node = world.join(with_key(1, 2, "k"));
    assert_eq!((node.id, node.tags()), (id, &tags(&["tag:a"])[..]));
    world
        .apply(Command::ExpireNode(id, End::At(world.now.wall)))
        .unwrap();
    let node = world.join(with_key(1, 2, "k"));
    assert_eq!((node.id, node.tags()), (id, &tags(&["tag:a"])[..]));
    assert!(!node.expired);
}

#[test]
fn a_key_with_tags_keeps_the_id_of_its_users_device() {
    let (mut world, anna) = World::with_user();
    let id = let_in(&mut world, plain(1, 1), anna).unwrap().id;
    world.preauth_key("t", |key| key.tags = tags(&["tag:a"]));
    let node = world.join(with_key(1, 2, "t"));
    assert_eq!((node.id, node.user()), (id, None));
}

#[test]
fn a_login_of_a_person_ends_the_tags_of_a_machines_only_node() {
    let (mut world, anna) = World::with_user();
    world.preauth_key("t", |key| {
        (key.tags, key.user) = (tags(&["tag:a"]), None);
    });
    let id = world.join(with_key(1, 1, "t")).id;
    let node = let_in(&mut world, plain(1, 2), anna).unwrap();
    assert_eq!((node.id, node.user()), (id, Some(anna)));
}

#[test]
fn the_first_user_owns_the_tailnet_and_roles_can_change() {
    let (mut world, anna) = World::with_user();
    let ben = another_user(&mut world, "ben");
    let role = |world: &World, user| world.model.users[&user].role;
    assert_eq!(role(&world, anna), Role::Owner);
    assert_eq!(role(&world, ben), Role::Member);
    let id = world.node_number(1);
    world.apply(Command::SetRole(anna, Role::Admin)).unwrap();
    assert_eq!(role(&world, anna), Role::Admin);
    assert_eq!(
        world.node(id).facets.core,
        world.model.revision,
        "its nodes are told"
    );
    world.records.clear();
    world.apply(Command::SetRole(anna, Role::Admin)).unwrap();
    assert!(world.records.is_empty());
}

#[test]
fn a_users_expiry_comes_before_the_configurations_from_the_next_login_on() {
    let (mut world, anna) = World::with_user();
    world.model.settings = Arc::new(Settings {
        node_expiry: Some(SECOND * 60),
        ..(*world.model.settings).clone()
    });
    world.preauth_key("k", |key| key.reusable = true);
    let ends = |world: &mut World, key| world.join(with_key(1, key, "k")).expiry;
    let start = world.now.wall;
    assert_eq!(ends(&mut world, 1), Some(start.plus(SECOND * 60)));
    let mut set = |life| world.apply(Command::SetUserExpiry(anna, life)).unwrap();
    set(Some(KeyLifetime::For(SECOND * 5)));
    assert_eq!(world.model.nodes[0].expiry, Some(start.plus(SECOND * 60)));
    assert_eq!(ends(&mut world, 2), Some(start.plus(SECOND * 5)));
    let mut set = |life| world.apply(Command::SetUserExpiry(anna, life)).unwrap();
    set(Some(KeyLifetime::Unlimited));
    assert_eq!(ends(&mut world, 3), None);
    let mut set = |life| world.apply(Command::SetUserExpiry(anna, life)).unwrap();
    set(None);
    assert_eq!(ends(&mut world, 4), Some(start.plus(SECOND * 60)));
}

#[test]
fn another_key_replaces_owner_and_tags_and_the_same_key_does_not() {
    let (mut world, anna) = World::with_user();
    let ben = another_user(&mut world, "ben");
    let key =
        |world: &mut World, name: &str, change: fn(&mut crate::state::command::NewPreAuthKey)| {
            world.preauth_key(name, |key| {
                key.reusable = true;
                change(key);
            });
        };
    key(&mut world, "a", |key| {
        (key.user, key.tags) = (None, tags(&["tag:a"]))
    });
    key(&mut world, "b", |key| {
        (key.user, key.tags) = (None, tags(&["tag:b", "tag:c"]))
    });
    key(&mut world, "e", |key| {
        (key.user, key.tags, key.ephemeral) = (None, tags(&["tag:b", "tag:c"]), true);
    });
    key(&mut world, "anna", |_| {});
    world.preauth_key("ben", |key| (key.reusable, key.user) = (true, Some(ben)));
    let id = world.join(with_key(1, 1, "a")).id;
    // With the node key that it has, and with a new one.
    for node_key in [1, 2] {
        let node = world.join(with_key(1, node_key, "b"));
        assert_eq!((node.id, node.tags()), (id, &tags(&["tag:b", "tag:c"])[..]));
        tag(&mut world, id, &["tag:z"]);
        let node = world.join(with_key(1, node_key, "b"));
        assert_eq!(
            node.tags(),
            tags(&["tag:z"]),
            "an administrator changed them"
        );
        let node = world.join(with_key(1, node_key, "e"));
        assert!(node.ephemeral && node.tags().len() == 2);
        let node = world.join(with_key(1, node_key, "anna"));
        assert_eq!((node.id, node.owner.clone()), (id, Owner::User(anna)));
        assert!(!node.ephemeral);
        let node = world.join(with_key(1, node_key, "a"));
        assert_eq!((node.id, node.tags()), (id, &tags(&["tag:a"])[..]));
    }
    let node = world.join(with_key(1, 2, "ben"));
    assert_eq!((node.id, node.user()), (id, Some(ben)));
    assert_eq!(world.model.nodes.len(), 1);
}

#[test]
fn a_key_that_changes_nothing_is_not_used_up() {
    let (mut world, _) = World::with_user();
    let id = world.node_number(1);
    world.preauth_key("other", |_| {});
    world.records.clear();
    assert_eq!(world.join(with_key(1, 1, "other")).id, id);
    assert!(world.records.is_empty());
    assert_eq!(
        world.join(with_key(2, 2, "other")).user(),
        Some(UserId::FIRST)
    );
    // One that is used up may be shown as long as it would change nothing.
    assert_eq!(world.join(with_key(1, 1, "other")).id, id);
    world.preauth_key("t", |key| key.tags = tags(&["tag:a"]));
    world.join(with_key(3, 3, "t"));
    let refused = world.register(with_key(1, 1, "t")).unwrap_err();
    assert_eq!(refused, Rejected::PreAuthKeyUsed);
    assert_eq!(world.node(id).user(), Some(UserId::FIRST));
}

#[test]
fn a_key_with_tags_only_replaces_the_node_of_a_users_machine() {
    let (mut world, anna) = World::with_user();
    let id = let_in(&mut world, plain(1, 1), anna).unwrap().id;
    world.preauth_key("t", |key| {
        (key.tags, key.user, key.reusable) = (tags(&["tag:a"]), None, true);
    });
    let node = world.join(with_key(1, 2, "t"));
    assert_eq!((node.id, node.user()), (id, None));
    assert_eq!(world.model.nodes.len(), 1);
}

#[test]
fn an_approval_with_other_tags_replaces_them() {
    let (mut world, anna) = World::with_user();
    world.set_policy(r#"{"tagOwners": {"tag:x": ["anna@"], "tag:y": ["anna@"]}, "acls": []}"#);
    let id = let_in(&mut world, wants(&["tag:x"], plain(1, 1)), anna)
        .unwrap()
        .id;
    assert_eq!(world.node(id).tags(), tags(&["tag:x"]));
    let node = let_in(&mut world, wants(&["tag:y"], plain(1, 2)), anna).unwrap();
    assert_eq!((node.id, node.tags()), (id, &tags(&["tag:y"])[..]));
    // So does the same key with other tags than at the last login.
    world.preauth_key("k", |key| key.reusable = true);
    let node = world.join(wants(&["tag:x"], with_key(2, 3, "k")));
    assert_eq!(node.tags(), tags(&["tag:x"]));
    tag(&mut world, node.id, &["tag:z"]);
    let same = world.join(wants(&["tag:x"], with_key(2, 4, "k")));
    assert_eq!(same.tags(), tags(&["tag:z"]));
    let other = world.join(wants(&["tag:y"], with_key(2, 5, "k")));
    assert_eq!((other.id, other.tags()), (node.id, &tags(&["tag:y"])[..]));
}

/// `tailscale up --advertise-tags` without `--force-reauth`.
#[test]
fn tags_that_only_a_login_can_give_are_noted_until_there_is_one() {
    let (mut world, _) = World::with_user();
    let id = world.node_number(1);
    let reported = |texts: &[&str]| {
        let hostinfo = wants(texts, plain(1, 1)).hostinfo;
        Command::UpdateNode(Box::new(NodeUpdate {
            node: Some(id),
            hostinfo: Some(hostinfo),
            ..NodeUpdate::default()
        }))
    };
    world.apply(reported(&["tag:x"])).unwrap();
    assert_eq!(world.node(id).tags_without_login(), tags(&["tag:x"]));
    assert_eq!(world.node(id).user(), Some(UserId::FIRST));
    world.model.changed = false;
    world.apply(reported(&["tag:x"])).unwrap();
    assert!(!world.model.changed);
    tag(&mut world, id, &["tag:x"]);
    assert!(
        world.node(id).tags_without_login().is_empty(),
        "it has them"
    );
    world.apply(reported(&[])).unwrap();
    assert!(world.node(id).unmet_tags.is_empty());
    world.join(wants(&["tag:y"], plain(1, 1)));
    assert_eq!(world.node(id).tags_without_login(), tags(&["tag:y"]));
}
