//! What holds after every sequence of commands.

use super::*;
use crate::keys::{MachineKey, NodeKey};
use crate::state::addr::Prefixes;
use crate::state::command::{NewWireGuard, Registration};
use crate::state::model::{Node, SessionId, Settings, WireGuard};
use ipnet::IpNet;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// What happens to a small tailnet: few machines, keys and nodes, so that they often meet.
#[derive(Debug, Clone)]
enum Step {
    Join { machine: u8, key: u8, with: u8 },
    Login { machine: u8, key: u8, user: u8 },
    Logout { machine: u8, key: u8 },
    Offer { node: u8, routes: u8 },
    Approve { node: u8, routes: u8 },
    Tag { node: u8, tag: u8 },
    Move { node: u8, user: u8 },
    Address { node: u8, last: u8 },
    Authorize { node: u8, whether: bool },
    Expire { node: u8, now: bool },
    Health { node: u8, healthy: bool },
    Delete { node: u8 },
    WireGuard { key: u8, user: u8 },
    Come { node: u8 },
    Go { node: u8 },
    Wait { seconds: u8 },
    Backfill,
    PowerCut,
}

fn step() -> impl Strategy<Value = Step> {
    let (machine, key, user, node) = (1..4_u8, 1..9_u8, 1..3_u8, 1..9_u8);
    prop_oneof![
        4 => (machine.clone(), key.clone(), 0..4_u8)
            .prop_map(|(machine, key, with)| Step::Join { machine, key, with }),
        3 => (machine.clone(), key.clone(), user.clone())
            .prop_map(|(machine, key, user)| Step::Login { machine, key, user }),
        1 => (machine, key.clone()).prop_map(|(machine, key)| Step::Logout { machine, key }),
        2 => (node.clone(), 0..8_u8).prop_map(|(node, routes)| Step::Offer { node, routes }),
        2 => (node.clone(), 0..8_u8).prop_map(|(node, routes)| Step::Approve { node, routes }),
        2 => (node.clone(), 0..2_u8).prop_map(|(node, tag)| Step::Tag { node, tag }),
        2 => (node.clone(), user.clone()).prop_map(|(node, user)| Step::Move { node, user }),
        1 => (node.clone(), 0..9_u8).prop_map(|(node, last)| Step::Address { node, last }),
        1 => (node.clone(), any::<bool>())
            .prop_map(|(node, whether)| Step::Authorize { node, whether }),
        1 => (node.clone(), any::<bool>()).prop_map(|(node, now)| Step::Expire { node, now }),
        1 => (node.clone(), any::<bool>())
            .prop_map(|(node, healthy)| Step::Health { node, healthy }),
        1 => node.clone().prop_map(|node| Step::Delete { node }),
        1 => (key, user).prop_map(|(key, user)| Step::WireGuard { key, user }),
        3 => node.clone().prop_map(|node| Step::Come { node }),
        2 => node.prop_map(|node| Step::Go { node }),
        2 => (0..90_u8).prop_map(|seconds| Step::Wait { seconds }),
        1 => Just(Step::Backfill),
        1 => Just(Step::PowerCut),
    ]
}

/// Users anna (1) and ben (2), and keys of either, with tags, and for ephemeral nodes.
fn world() -> World {
    let (mut world, _) = World::with_user();
    let ben = another_user(&mut world, "ben");
    // So few addresses that they run out, and that chosen ones lie outside.
    let v6 = ("fd7a:115c:a1e0::".parse().unwrap(), 48);
    let prefixes = Prefixes::new((Ipv4Addr::new(100, 64, 0, 0), 29), v6);
    world.model.settings = Arc::new(Settings {
        prefixes: prefixes.unwrap(),
        ..(*world.model.settings).clone()
    });
    world.preauth_key("key0", |key| key.reusable = true);
    world.preauth_key("key1", |key| (key.reusable, key.user) = (true, Some(ben)));
    world.preauth_key("key2", |key| {
        (key.reusable, key.user, key.tags) = (true, None, vec!["tag:a".into()]);
    });
    world.preauth_key("key3", |key| (key.reusable, key.ephemeral) = (true, true));
    world
}

/// Some of three routes, one of them an exit route.
fn routes(bits: u8) -> Vec<IpNet> {
    let all = ["10.0.0.0/8", "10.1.0.0/16", "0.0.0.0/0"];
    let chosen = all.iter().enumerate().filter(|(n, _)| bits >> n & 1 == 1);
    chosen.map(|(_, route)| route.parse().unwrap()).collect()
}

fn command(world: &World, step: &Step) -> Option<Command> {
    let id = |number: u8| NodeId::new(number.into()).unwrap();
    let user = |number: u8| UserId::new(number.into()).unwrap();
    let register = |request: Register| Command::Register(Box::new(request));
    Some(match *step {
        Step::Join { machine, key, with } => {
            register(with_key(machine, key, &format!("key{with}")))
        }
        Step::Login { machine, key, .. } => register(plain(machine, key)),
        Step::Logout { machine, key } => register(Register {
            expiry: RequestedExpiry::Logout,
            ..plain(machine, key)
        }),
        Step::Offer { node, routes: bits } => {
            let hostinfo = Hostinfo {
                routable_ips: routes(bits).into(),
                ..(*world.model.node(id(node))?.hostinfo).clone()
            };
            Command::UpdateNode(Box::new(NodeUpdate {
                node: Some(id(node)),
                hostinfo: Some(Arc::new(hostinfo)),
                ..NodeUpdate::default()
            }))
        }
        Step::Approve { node, routes: bits } => Command::ApproveRoutes(id(node), routes(bits)),
        Step::Tag { node, tag } => {
            let tag = ["tag:a", "tag:b"][usize::from(tag)];
            Command::SetTags(id(node), vec![tag.into()])
        }
        Step::Move { node, user: to } => Command::MoveNode(id(node), user(to)),
        Step::Address { node, last } => {
            let address = Ipv4Addr::new(100, 64 + last % 2, 0, last);
            Command::SetAddresses(id(node), Some(address), None)
        }
        Step::Authorize {
            node,
            whether: true,
        } => Command::ApproveNode(id(node)),
        Step::Authorize { node, .. } => Command::RevokeApproval(id(node)),
        Step::Expire { node, now } => {
            let life = if now { Duration::ZERO } else { SECOND * 50 };
            Command::ExpireNode(id(node), End::In(life))
        }
        Step::Health { node, healthy } => Command::SetHealth(id(node), healthy),
        Step::Delete { node } => Command::DeleteNode(id(node)),
        Step::WireGuard { key, user: owner } => Command::AddWireGuard(Box::new(NewWireGuard {
            label: format!("peer{key}").into(),
            key: NodeKey::from_bytes([key; 32]),
            owner: Owner::User(user(owner)),
            endpoints: vec!["203.0.113.5:51820".parse().unwrap()],
            ipv4: None,
            ipv6: None,
            routes: routes(key),
            details: WireGuard::default(),
        })),
        Step::Come { node } => Command::OpenStream {
            node: id(node),
            session: SessionId(u64::from(node)),
            fallback: Box::default(),
        },
        Step::Go { node } => Command::CloseStream {
            node: id(node),
            session: SessionId(u64::from(node)),
        },
        Step::Backfill => Command::BackfillAddresses,
        Step::Wait { .. } | Step::PowerCut => return None,
    })
}

fn run(world: &mut World, step: &Step) {
    if let Step::Wait { seconds } = step {
        world.wait(SECOND * u32::from(*seconds));
        return;
    }
    if let Step::PowerCut = step {
        restart(world, world.model.boot);
        return;
    }
    let Some(command) = command(world, step) else {
        return;
    };
    // A WireGuard-only peer has no streams.
    if let Command::OpenStream { node, .. } = &command
        && world
            .model
            .node(*node)
            .is_some_and(|node| node.wireguard.is_some())
    {
        return;
    }
    let before = world.model.clone();
    let (written, noted) = (world.records.len(), world.events.len());
    match world.apply(command) {
        Ok(Outcome::Registered(Registration::NeedsLogin(login))) => {
            let Step::Login { user, .. } = step else {
                return;
            };
            let user = UserId::new((*user).into()).unwrap();
            let _ = world.apply(Command::ApproveRegistration(login, user));
        }
        Ok(_) if matches!(step, Step::Join { .. } | Step::Logout { .. }) => {
            let approved = |node: &&Arc<Node>| node.authorized;
            let was = |id| before.node(id).is_some_and(|node| node.authorized);
            let mut approved = world.model.nodes.iter().filter(approved);
            assert!(
                approved.all(|node| was(node.id) || !before.shut_out.contains(&node.machine)),
                "a device let itself in"
            );
        }
        Ok(_) => {}
        Err(_) => {
            assert_eq!(
                world.model.nodes, before.nodes,
                "a refusal changed something"
            );
            assert_eq!(world.model.pending, before.pending);
            assert_eq!(world.records.len(), written, "a refusal was written");
            assert_eq!(world.events.len(), noted, "a refusal was noted");
        }
    }
}

fn check(world: &World) {
    let nodes = &world.model.nodes;
    fn count<T: Ord>(values: impl Iterator<Item = T>) -> usize {
        values.collect::<BTreeSet<_>>().len()
    }
    assert_eq!(
        count(nodes.iter().map(|node| node.key)),
        nodes.len(),
        "keys"
    );
    assert_eq!(
        count(nodes.iter().map(|node| node.ipv4)),
        nodes.len(),
        "IPv4"
    );
    assert_eq!(
        count(nodes.iter().map(|node| node.ipv6)),
        nodes.len(),
        "IPv6"
    );
    assert_eq!(
        count(nodes.iter().map(|node| &node.label)),
        nodes.len(),
        "labels"
    );
    assert_eq!(world.model.by_key.len(), nodes.len());
    let clients = || nodes.iter().filter(|node| node.wireguard.is_none());
    assert_eq!(world.model.by_machine.len(), clients().count());
    for node in nodes.iter() {
        assert_eq!(world.model.by_key.get(&node.key), Some(&node.id));
        let of_machine = |other: &&Arc<Node>| other.machine == node.machine;
        let searched: Vec<_> = clients().filter(of_machine).collect();
        let found: Vec<_> = world.model.nodes_of_machine(&node.machine).collect();
        assert_eq!(found, searched);
    }
    let identities = clients().map(|node| (node.machine, node.user()));
    assert_eq!(count(identities), clients().count(), "identities");
    check_routes(nodes);
    check_policy(world);
    check_records(world);
    check_registrations(world);
}

/// A machine has one registration.
fn check_registrations(world: &World) {
    let pending = world.model.pending.values();
    let machines: BTreeSet<MachineKey> = pending.map(|pending| pending.machine).collect();
    assert_eq!(machines.len(), world.model.pending.len());
    assert!(world.model.pending.len() <= world.model.settings.max_pending);
}

/// Each subnet route that somebody may serve has one node that does, and nothing else is served.
fn check_routes(nodes: &[Arc<Node>]) {
    let mut served: BTreeMap<IpNet, usize> = BTreeMap::new();
    for node in nodes {
        let members = node.served_routes().filter(|_| node.is_active());
        let subnets = members.filter(|route| route.prefix_len() > 0);
        let subnets: BTreeSet<IpNet> = subnets.collect();
        for route in &subnets {
            served.entry(*route).or_default();
        }
        for route in node.primary_routes.iter() {
            assert!(
                subnets.contains(route),
                "{} does not serve {route}",
                node.id
            );
            *served.entry(*route).or_default() += 1;
        }
    }
    assert!(served.values().all(|count| *count == 1), "{served:?}");
}

/// The policy knows the members as they are, and nobody else.
fn check_policy(world: &World) {
    for number in 1..64 {
        let id = NodeId::new(number).unwrap();
        let known = world.model.compiled.node(id).cloned();
        let member = world.model.node(id).filter(|node| node.is_active());
        assert_eq!(
            known,
            member.map(|node| crate::state::apply::routes::facts(&world.model, node))
        );
    }
}

/// What was written last of each node is the node, but for what is told again after a restart.
fn check_records(world: &World) {
    let mut written: BTreeMap<NodeId, &Node> = BTreeMap::new();
    for record in &world.records {
        match record {
            Record::PutNode(node) => drop(written.insert(node.id, node)),
            Record::DeleteNode(id) => drop(written.remove(id)),
            _ => {}
        }
    }
    let durable = |node: &Node| {
        let identity = (node.id, node.machine, node.key, node.owner.clone());
        let place = (node.ipv4, node.ipv6, node.label_chosen);
        let rights = (node.expiry, node.authorized);
        (identity, place, rights, node.ephemeral, node.registered_by)
    };
    let now: Vec<_> = world.model.nodes.iter().map(|node| durable(node)).collect();
    let then: Vec<_> = written.values().map(|node| durable(node)).collect();
    assert_eq!(now, then);
    for node in world.model.nodes.iter().filter(|node| !node.unflushed) {
        let stored = written[&node.id];
        assert_eq!(
            (&node.label, &node.hostinfo),
            (&stored.label, &stored.hostinfo)
        );
        assert_eq!(node.approved_routes, stored.approved_routes);
    }
    let no_machine = |node: &&Arc<Node>| node.machine == MachineKey::ZERO;
    let peers = world.model.nodes.iter().filter(no_machine);
    assert!(peers.clone().all(|node| node.wireguard.is_some()));
}

proptest! {
    #[test]
    fn every_sequence_of_commands_leaves_a_sound_tailnet(
        steps in prop::collection::vec(step(), 1..60)
    ) {
        let mut world = world();
        for step in &steps {
            run(&mut world, step);
            check(&world);
        }
    }
}
