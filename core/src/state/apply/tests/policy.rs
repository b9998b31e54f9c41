//! What a policy lets the state do by itself: give tags, approve routes, choose addresses.

use super::*;
use crate::policy::Policy;
use crate::state::apply::restore;
use crate::state::command::NewPolicy;
use ipnet::IpNet;

const TAGS: &str = r#"{
    "tagOwners": {"tag:x": ["anna@"], "tag:sub": ["tag:x"]},
    "acls": [{"action": "accept", "src": ["*"], "dst": ["*:*"]}],
}"#;

const APPROVERS: &str = r#"{
    "tagOwners": {"tag:router": ["anna@"]},
    "autoApprovers": {"routes": {"10.0.0.0/8": ["tag:router"]}, "exitNode": ["tag:router"]},
    "acls": [{"action": "accept", "src": ["*"], "dst": ["*:*"]}],
}"#;

fn set(world: &mut World, source: &str) {
    let policy = Policy::parse(source).unwrap_or_else(|faults| panic!("{faults:?}"));
    let new = NewPolicy {
        source: source.into(),
        policy: Arc::new(policy),
        must_hold: true,
    };
    world.apply(Command::SetPolicy(Box::new(new))).unwrap();
}

fn wants(tags: &[&str], request: Register) -> Register {
    let tags: Vec<Box<str>> = tags.iter().map(|tag| (*tag).into()).collect();
    let hostinfo = Hostinfo {
        request_tags: tags.into(),
        ..(*request.hostinfo).clone()
    };
    Register {
        hostinfo: Arc::new(hostinfo),
        ..request
    }
}

fn offers(routes: &[&str], request: Register) -> Register {
    let routes: Vec<IpNet> = routes.iter().map(|text| text.parse().unwrap()).collect();
    let hostinfo = Hostinfo {
        routable_ips: routes.into(),
        ..(*request.hostinfo).clone()
    };
    Register {
        hostinfo: Arc::new(hostinfo),
        ..request
    }
}

fn served(world: &World, id: NodeId) -> Vec<String> {
    let node = world.node(id);
    node.served_routes()
        .map(|route| route.to_string())
        .collect()
}

#[test]
fn a_client_gets_the_tags_that_its_user_may_give() {
    let (mut world, anna) = World::with_user();
    let ben = another_user(&mut world, "ben");
    set(&mut world, TAGS);
    world.preauth_key("k", |_| {});
    let node = world.join(wants(&["tag:x"], with_key(1, 1, "k")));
    assert_eq!((node.user(), node.tags()), (None, &["tag:x".into()][..]));

    let mut login = |machine, user| {
        let request = wants(&["tag:x"], plain(machine, machine));
        let Ok(RegisterReply::NeedsLogin(login)) = world.register(request) else {
            panic!("let in without being asked for");
        };
        let id = match world.apply(Command::ApproveRegistration(login, user))? {
            Outcome::Node(id) => id,
            other => panic!("{other:?}"),
        };
        Ok(world.node(id).user())
    };
    assert_eq!(login(2, anna), Ok(None));
    assert!(matches!(login(3, ben), Err(Rejected::TagsNotPermitted(_))));
}

#[test]
fn one_tag_that_may_not_be_given_is_enough_for_a_refusal() {
    let (mut world, _) = World::with_user();
    set(&mut world, TAGS);
    world.preauth_key("k", |_| {});
    let refused = world.register(wants(&["tag:x", "tag:y"], with_key(1, 1, "k")));
    let Err(Rejected::TagsNotPermitted(named)) = refused else {
        panic!("not refused");
    };
    assert!(
        named.contains("tag:y") && !named.contains("tag:x"),
        "{named}"
    );
    world.join(with_key(1, 1, "k"));
}

#[test]
fn a_users_device_that_logs_in_again_with_tags_keeps_its_id_and_address() {
    let (mut world, anna) = World::with_user();
    set(&mut world, TAGS);
    let id = world.node_number(1);
    let before = world.node(id).clone();
    let Ok(RegisterReply::NeedsLogin(login)) = world.register(wants(&["tag:x"], plain(1, 2)))
    else {
        panic!("let in without being asked for");
    };
    world
        .apply(Command::ApproveRegistration(login, anna))
        .unwrap();
    let after = world.node(id).clone();
    assert_eq!((after.id, after.ipv4), (before.id, before.ipv4));
    assert_eq!(after.tags(), ["tag:x".into()]);
    assert_eq!(world.model.nodes.len(), 1);
}

#[test]
fn offered_routes_are_approved_by_policy_and_nobody_elses_are() {
    let (mut world, _) = World::with_user();
    set(&mut world, APPROVERS);
    world.preauth_key("tagged", |key| key.tags = vec!["tag:router".into()]);
    world.preauth_key("plain", |_| {});
    let all = ["0.0.0.0/0", "10.1.0.0/16", "192.168.1.0/24", "::/0"];
    let router = world.join(offers(&all, with_key(1, 1, "tagged"))).id;
    let other = world.join(offers(&all, with_key(2, 2, "plain"))).id;
    assert_eq!(served(&world, router), ["0.0.0.0/0", "10.1.0.0/16", "::/0"]);
    assert!(served(&world, other).is_empty());
    let tags = vec!["tag:router".into()];
    world.apply(Command::SetTags(other, tags)).unwrap();
    assert_eq!(served(&world, other), ["0.0.0.0/0", "10.1.0.0/16", "::/0"]);
}

#[test]
fn a_new_policy_approves_what_waits_and_takes_nothing_back() {
    let (mut world, _) = World::with_user();
    world.preauth_key("tagged", |key| key.tags = vec!["tag:router".into()]);
    let request = offers(&["10.1.0.0/16"], with_key(1, 1, "tagged"));
    let id = world.join(request).id;
    assert!(served(&world, id).is_empty());
    set(&mut world, APPROVERS);
    assert_eq!(served(&world, id), ["10.1.0.0/16"]);
    set(&mut world, TAGS);
    assert_eq!(served(&world, id), ["10.1.0.0/16"]);
}

#[test]
fn nodes_get_their_addresses_from_their_pool_and_backfilling_leaves_them_there() {
    let (mut world, _) = World::with_user();
    set(
        &mut world,
        r#"{
            "tagOwners": {"tag:x": ["anna@"]},
            "nodeAttrs": [{"target": ["tag:x"], "ipPool": ["100.90.0.0/24"]}],
        }"#,
    );
    world.preauth_key("tagged", |key| {
        (key.tags, key.reusable) = (vec!["tag:x".into()], true);
    });
    let first = world.join(with_key(1, 1, "tagged"));
    let second = world.join(with_key(2, 2, "tagged"));
    assert_eq!(first.ipv4, Ipv4Addr::new(100, 90, 0, 1));
    assert_eq!(second.ipv4, Ipv4Addr::new(100, 90, 0, 2));
    let v6 = ("fd7a:115c:a1e0::".parse().unwrap(), 48);
    let prefixes = crate::state::addr::Prefixes::new((Ipv4Addr::new(100, 80, 0, 0), 16), v6);
    world.model.settings = Arc::new(crate::state::model::Settings {
        prefixes: prefixes.unwrap(),
        ..(*world.model.settings).clone()
    });
    let other = world.node_number(3);
    let moved = world.apply(Command::BackfillAddresses).unwrap();
    assert_eq!(moved, Outcome::Nodes(Vec::new()));
    assert_eq!(world.node(other).ipv4, Ipv4Addr::new(100, 80, 0, 1));
}

#[test]
fn peers_hear_of_attributes_that_a_change_of_the_user_gives() {
    let (mut world, user) = World::with_user();
    let id = world.node_number(1);
    world.open_stream(id);
    set(
        &mut world,
        r#"{"nodeAttrs": [{"target": ["berta@"], "attr": ["dns-subdomain-resolve"]}]}"#,
    );
    let before = world.node(id).facets.core;
    world
        .apply(Command::RenameUser(user, "berta".into()))
        .unwrap();
    assert!(world.model.compiled.attributes(id).len() == 1);
    assert!(world.node(id).facets.core > before);
}

#[test]
fn where_no_stored_policy_can_be_read_nobody_reaches_anybody() {
    let (mut world, _) = World::with_user();
    let (one, two) = (world.node_number(1), world.node_number(2));
    world.open_stream(one);
    world.open_stream(two);
    set(&mut world, TAGS);
    let load_with = |world: &mut World, source: &str| {
        let version = Arc::make_mut(&mut world.model.policies).last_mut().unwrap();
        Arc::make_mut(version).source = source.into();
        restore(&mut world.model, world.now);
        world.model.compiled.are_peers(one, two)
    };
    assert!(load_with(&mut world, TAGS));
    assert!(!load_with(&mut world, r#"{"of a newer hearth": 1}"#));
    Arc::make_mut(&mut world.model.policies).clear();
    restore(&mut world.model, world.now);
    assert!(world.model.compiled.are_peers(one, two));
}

#[test]
fn where_a_policy_is_configured_and_none_was_ever_valid_nobody_reaches_anybody() {
    let (mut world, _) = World::with_user();
    Arc::make_mut(&mut world.model.settings).policy_is_configured = true;
    restore(&mut world.model, world.now);
    let (one, two) = (world.node_number(1), world.node_number(2));
    world.open_stream(one);
    world.open_stream(two);
    assert!(!world.model.compiled.are_peers(one, two));
    set(&mut world, TAGS);
    assert!(world.model.compiled.are_peers(one, two));
}
