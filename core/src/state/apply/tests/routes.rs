//! Routes: offered, approved, and who serves them.

use super::*;
use crate::state::model::SessionId;
use ipnet::IpNet;

const LAN: &str = "192.168.1.0/24";

fn nets(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn offer(world: &mut World, node: NodeId, routes: &[&str]) {
    let hostinfo = Hostinfo {
        routable_ips: nets(routes).into(),
        ..(*world.node(node).hostinfo).clone()
    };
    let update = NodeUpdate {
        node: Some(node),
        hostinfo: Some(Arc::new(hostinfo)),
        ..NodeUpdate::default()
    };
    world.apply(Command::UpdateNode(Box::new(update))).unwrap();
}

fn approve(world: &mut World, node: NodeId, routes: &[&str]) {
    world
        .apply(Command::ApproveRoutes(node, nets(routes)))
        .unwrap();
}

/// A node that is there, offers the route to the LAN and may serve it.
fn router(world: &mut World, number: u8) -> (NodeId, SessionId) {
    let id = world.node_number(number);
    let session = world.open_stream(id);
    offer(world, id, &[LAN]);
    approve(world, id, &[LAN]);
    (id, session)
}

fn leave(world: &mut World, node: NodeId, session: SessionId) {
    world.apply(Command::CloseStream { node, session }).unwrap();
    world.wait(world.model.settings.offline_grace);
}

fn serves(world: &World, node: NodeId) -> bool {
    *world.node(node).primary_routes == nets(&[LAN])[..]
}

#[test]
fn a_route_is_served_once_it_is_offered_and_approved() {
    let (mut world, _) = World::with_user();
    let id = world.node_number(1);
    world.open_stream(id);
    offer(&mut world, id, &[LAN]);
    assert!(!serves(&world, id));
    assert_eq!(world.node(id).waiting_routes().count(), 1);
    approve(&mut world, id, &[LAN]);
    assert!(serves(&world, id));
    assert_eq!(world.node(id).facets.core, world.model.revision);
    approve(&mut world, id, &[]);
    assert!(!serves(&world, id));
    approve(&mut world, id, &[LAN]);
    offer(&mut world, id, &[]);
    assert!(!serves(&world, id), "it is offered no more");
    assert_eq!(*world.node(id).approved_routes, nets(&[LAN])[..]);
}

#[test]
fn approving_before_the_offer_counts_and_approving_again_writes_nothing() {
    let (mut world, _) = World::with_user();
    let id = world.node_number(1);
    world.open_stream(id);
    approve(&mut world, id, &["192.168.1.7/24", LAN]);
    assert_eq!(*world.node(id).approved_routes, nets(&[LAN])[..]);
    offer(&mut world, id, &[LAN]);
    assert!(serves(&world, id));
    world.records.clear();
    approve(&mut world, id, &[LAN]);
    assert!(world.records.is_empty() && !world.model.changed);
}

#[test]
fn an_exit_route_stands_for_both_families() {
    let (mut world, _) = World::with_user();
    let id = world.node_number(1);
    world.open_stream(id);
    offer(&mut world, id, &["0.0.0.0/0", "::/0"]);
    approve(&mut world, id, &["::/0"]);
    let both = nets(&["0.0.0.0/0", "::/0"]);
    assert_eq!(world.node(id).served_routes().collect::<Vec<_>>(), both);
    assert!(
        world.node(id).primary_routes.is_empty(),
        "exit nodes are not chosen between"
    );
}

#[test]
fn all_exit_nodes_stay_exit_nodes() {
    let (mut world, _) = World::with_user();
    for number in 1..=2 {
        let id = world.node_number(number);
        world.open_stream(id);
        offer(&mut world, id, &["0.0.0.0/0", "::/0"]);
        approve(&mut world, id, &["0.0.0.0/0"]);
        assert_eq!(world.node(id).served_routes().count(), 2);
    }
}

#[test]
fn a_second_router_stands_by_takes_over_and_keeps_the_route() {
    let (mut world, _) = World::with_user();
    let (one, one_stream) = router(&mut world, 1);
    let (two, _) = router(&mut world, 2);
    assert!(serves(&world, one) && !serves(&world, two));
    leave(&mut world, one, one_stream);
    assert!(!serves(&world, one) && serves(&world, two));
    world.open_stream(one);
    assert!(
        !serves(&world, one) && serves(&world, two),
        "connections that go on would break"
    );
}

#[test]
fn the_last_holder_keeps_the_route_while_nobody_is_there() {
    let (mut world, _) = World::with_user();
    let (one, one_stream) = router(&mut world, 1);
    let (two, two_stream) = router(&mut world, 2);
    leave(&mut world, one, one_stream);
    leave(&mut world, two, two_stream);
    assert!(serves(&world, two));
    world.open_stream(one);
    assert!(serves(&world, one), "the first to come back serves");
    world.open_stream(two);
    assert!(serves(&world, one));
}

#[test]
fn a_router_that_does_not_answer_gives_way_and_serves_if_no_other_does() {
    let (mut world, _) = World::with_user();
    let (one, _) = router(&mut world, 1);
    let (two, two_stream) = router(&mut world, 2);
    world.records.clear();
    world.apply(Command::SetHealth(one, false)).unwrap();
    assert!(serves(&world, two));
    assert!(world.records.is_empty(), "who serves is not durable");
    leave(&mut world, two, two_stream);
    assert!(serves(&world, two), "neither is better");
    world.apply(Command::SetHealth(one, true)).unwrap();
    assert!(serves(&world, one));
}

fn set_forwarding(world: &mut World, node: NodeId, is_on: bool) {
    let update = NodeUpdate {
        node: Some(node),
        forwarding_off: Some(!is_on),
        ..NodeUpdate::default()
    };
    world.apply(Command::UpdateNode(Box::new(update))).unwrap();
}

#[test]
fn a_router_that_does_not_forward_gives_way_to_one_that_does() {
    let (mut world, _) = World::with_user();
    let (one, _) = router(&mut world, 1);
    let (two, two_stream) = router(&mut world, 2);
    world.records.clear();
    set_forwarding(&mut world, one, false);
    assert!(serves(&world, two) && !serves(&world, one));
    assert!(world.records.is_empty(), "the next request says it again");
    let handover = &world.handovers[0];
    assert_eq!((handover.from, handover.to), (one, two));
    assert_eq!(handover.why, "IP forwarding is off on it");
    set_forwarding(&mut world, one, true);
    assert!(serves(&world, two), "connections that go on would break");
    // One that does not forward is better than one that is not there, and serves no longer than that.
    set_forwarding(&mut world, one, false);
    leave(&mut world, two, two_stream);
    assert!(serves(&world, one));
    assert_eq!(world.handovers.last().unwrap().why, "it is offline");
    world.open_stream(two);
    assert!(serves(&world, two));
    // Alone or among others of its kind it keeps the route.
    set_forwarding(&mut world, two, false);
    assert!(serves(&world, two));
    assert_eq!(world.handovers.len(), 3);
}

#[test]
fn a_new_stream_is_a_sign_of_life() {
    let (mut world, _) = World::with_user();
    let (one, _) = router(&mut world, 1);
    world.apply(Command::SetHealth(one, false)).unwrap();
    assert!(serves(&world, one), "there is no other");
    world.open_stream(one);
    assert!(!world.node(one).unhealthy);
}

#[test]
fn a_router_that_expires_is_shut_out_or_is_deleted_gives_way() {
    let ends: [fn(&World, NodeId) -> Command; 3] = [
        |world, id| Command::ExpireNode(id, End::At(world.now.wall)),
        |_, id| Command::RevokeApproval(id),
        |_, id| Command::DeleteNode(id),
    ];
    for end in ends {
        let (mut world, _) = World::with_user();
        let (one, _) = router(&mut world, 1);
        let (two, _) = router(&mut world, 2);
        let command = end(&world, one);
        world.apply(command).unwrap();
        assert!(serves(&world, two));
    }
}

#[test]
fn overlapping_routes_are_different_routes() {
    let (mut world, _) = World::with_user();
    let (one, _) = router(&mut world, 1);
    let two = world.node_number(2);
    world.open_stream(two);
    offer(&mut world, two, &["192.168.0.0/16"]);
    approve(&mut world, two, &["192.168.0.0/16"]);
    assert!(serves(&world, one));
    assert_eq!(
        *world.node(two).primary_routes,
        nets(&["192.168.0.0/16"])[..]
    );
}

#[test]
fn a_4via6_route_is_a_route_like_others() {
    let (mut world, _) = World::with_user();
    let one = world.node_number(1);
    world.open_stream(one);
    // `tailscale debug via 7 10.1.1.0/24`
    let site = "fd7a:115c:a1e0:b1a:0:7:a01:100/120";
    offer(&mut world, one, &[site]);
    approve(&mut world, one, &[site]);
    assert_eq!(*world.node(one).primary_routes, nets(&[site])[..]);
}

#[test]
fn what_is_approved_outlives_a_new_login() {
    let (mut world, user) = World::with_user();
    let (id, _) = router(&mut world, 1);
    let offer = world.node(id).hostinfo.clone();
    let Ok(RegisterReply::NeedsLogin(login)) = world.register(Register {
        hostinfo: offer,
        ..plain(1, 9)
    }) else {
        panic!("let in without being asked for");
    };
    world
        .apply(Command::ApproveRegistration(login, user))
        .unwrap();
    assert!(serves(&world, id));
}

#[test]
fn more_routes_than_are_kept_are_refused() {
    let (mut world, _) = World::with_user();
    let id = world.node_number(1);
    let many = (0..=1024_u32).map(|number| Ipv4Addr::from(number << 8));
    let many = many.map(|base| IpNet::new(base.into(), 24).unwrap());
    let refused = world.apply(Command::ApproveRoutes(id, many.collect()));
    assert!(matches!(refused, Err(Rejected::TooMany { .. })));
    assert!(world.node(id).approved_routes.is_empty());
}
