//! WireGuard-only peers.

use super::*;
use crate::keys::{MachineKey, NodeKey};
use crate::state::command::NewWireGuard;
use crate::state::model::{Node, RegisteredBy, WireGuard};

fn device(name: &str, key: u8) -> NewWireGuard {
    NewWireGuard {
        label: name.into(),
        key: NodeKey::from_bytes([key; 32]),
        owner: Owner::User(UserId::FIRST),
        endpoints: vec!["203.0.113.5:51820".parse().unwrap()],
        ipv4: None,
        ipv6: None,
        routes: Vec::new(),
        details: WireGuard::default(),
    }
}

fn add(world: &mut World, new: NewWireGuard) -> Result<Arc<Node>, Rejected> {
    match world.apply(Command::AddWireGuard(Box::new(new)))? {
        Outcome::Node(id) => Ok(world.node(id).clone()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_peer_is_a_member_at_once_and_stays_there() {
    let (mut world, user) = World::with_user();
    let exit = vec!["0.0.0.0/0".parse().unwrap()];
    let new = NewWireGuard {
        routes: exit,
        details: WireGuard {
            exit_dns: ["1.1.1.1".into(), "https://dns.example/q".into()].into(),
            ..WireGuard::default()
        },
        ..device("berlin", 7)
    };
    let peer = add(&mut world, new).unwrap();
    assert_eq!((&*peer.label, peer.user()), ("berlin", Some(user)));
    assert_eq!(peer.ipv4, Ipv4Addr::new(100, 64, 0, 1));
    assert!(peer.is_active() && peer.presence.is_online());
    assert_eq!(peer.served_routes().count(), 2, "an exit node for both");
    assert_eq!(peer.registered_by, RegisteredBy::Hand);
    world.wait(SECOND * 1_000_000);
    assert!(world.node(peer.id).presence.is_online());
}

#[test]
fn a_peer_that_cannot_be_is_refused_with_the_reason() {
    let (mut world, _) = World::with_user();
    let node = world.node_number(1);
    let refusal = |world: &mut World, change: &dyn Fn(&mut NewWireGuard)| {
        let mut new = device("berlin", 7);
        change(&mut new);
        add(world, new).unwrap_err()
    };
    let taken = refusal(&mut world, &|new| new.label = "host1".into());
    assert_eq!(taken, Rejected::NodeNameTaken("host1".into()));
    let key = refusal(&mut world, &|new| new.key = NodeKey::from_bytes([1; 32]));
    assert_eq!(key, Rejected::KeyTaken(node));
    let nowhere = refusal(&mut world, &|new| new.endpoints.clear());
    assert_eq!(nowhere, Rejected::NoEndpoint);
    for bad in [
        "0.0.0.0:51820",
        "127.0.0.1:51820",
        "100.64.0.7:51820",
        "203.0.113.5:0",
    ] {
        let bad = bad.parse().unwrap();
        let refused = refusal(&mut world, &|new| new.endpoints.push(bad));
        assert_eq!(refused, Rejected::BadEndpoint(bad));
    }
    let nobody = refusal(&mut world, &|new| new.owner = Owner::Tags(Arc::default()));
    assert_eq!(nobody, Rejected::NoTags);
    let address = world.node(node).ipv4;
    let there = refusal(&mut world, &|new| new.ipv4 = Some(address));
    assert_eq!(there, Rejected::AddressTaken(address.into(), node));
    for bad in [
        "one.one.one.one",
        "http://dns.example",
        "https://",
        "https://a b",
    ] {
        let resolver = refusal(&mut world, &|new| {
            new.details.exit_dns = [bad.into()].into()
        });
        assert_eq!(resolver, Rejected::BadResolver(bad.into()));
    }
    assert_eq!(world.model.nodes.len(), 1);
}

#[test]
fn no_client_can_take_a_peers_place() {
    let (mut world, user) = World::with_user();
    let peer = add(&mut world, device("berlin", 7)).unwrap();
    let stolen = world.register(plain(1, 7)).unwrap_err();
    assert_eq!(stolen, Rejected::MachineMismatch);
    let Ok(RegisterReply::NeedsLogin(login)) = world.register(Register {
        machine: MachineKey::ZERO,
        ..plain(1, 8)
    }) else {
        panic!("let in without being asked for");
    };
    world
        .apply(Command::ApproveRegistration(login, user))
        .unwrap();
    assert_eq!(world.node(peer.id).key, peer.key);
}

#[test]
fn a_peer_can_be_tagged_moved_named_and_deleted_but_not_logged_out() {
    let (mut world, _) = World::with_user();
    let ben = another_user(&mut world, "ben");
    let one = add(&mut world, device("one", 7)).unwrap().id;
    let two = add(&mut world, device("two", 8)).unwrap().id;
    for id in [one, two] {
        let tags = vec!["tag:exit".into()];
        world.apply(Command::SetTags(id, tags)).unwrap();
        world.apply(Command::MoveNode(id, ben)).unwrap();
    }
    world
        .apply(Command::RenameNode(one, "three".into()))
        .unwrap();
    let end = End::At(world.now.wall);
    let refused = world.apply(Command::ExpireNode(one, end)).unwrap_err();
    assert_eq!(refused, Rejected::WireGuardOnly);
    world.apply(Command::DeleteNode(one)).unwrap();
    assert_eq!(world.model.nodes.len(), 1);
}
