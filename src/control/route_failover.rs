//! Route failover: probes subnet routers that have a standby, because a router can stop working while its
//! connection stays open.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::config::RouteSettings;
use crate::control::c2n::NodeCallError;
use crate::control::c2n::request::C2nRequest;
use crate::control::context::ControlContext;
use hearth_core::state::model::{Node, Presence, is_exit_route};
use hearth_core::state::principal::Principal;
use hearth_core::state::snapshot::Snapshot;

/// Most routers probed at the same time; more wait for the next round.
const ROUTERS_MAX: usize = 64;

/// Probes all routers of redundant routes at each interval, until hearth shuts down.
pub async fn probe_routers(context: Arc<ControlContext>, settings: RouteSettings) {
    let Some(interval) = settings.probe_interval else {
        return;
    };
    loop {
        tokio::select! {
            () = context.shutdown.wait() => return,
            () = tokio::time::sleep(interval) => {}
        }
        for router in routers(&context.engine.snapshot()) {
            let probing = probe(context.clone(), router, settings.probe_timeout);
            context.tasks.spawn("route failover probe", probing);
        }
    }
}

/// Probes one router, and updates the state when its health has changed.
async fn probe(context: Arc<ControlContext>, router: Arc<Node>, timeout: Duration) {
    let request = C2nRequest {
        method: "GET",
        path: "/echo",
        body: &[],
        timeout,
    };
    let healthy = match context.calls.ask(&router, &request).await {
        Ok(_) | Err(NodeCallError::Answer) => true,
        Err(NodeCallError::Timeout(_)) => false,
        // The probe was not sent.
        Err(_) => return,
    };
    let snapshot = context.engine.snapshot();
    let Some(now) = snapshot.node(router.id) else {
        return;
    };
    // A router that reconnected meanwhile is not the one that was probed.
    if now.presence != router.presence || now.unhealthy != healthy {
        return;
    }
    tracing::info!(node = %router.id, healthy, "subnet router health changed");
    // Fails only when the node was deleted or hearth stops; nothing to do then.
    let _ = context
        .engine
        .set_health(Principal::System, router.id, healthy)
        .await;
}

/// Connected routers that serve a route which others serve as well.
fn routers(snapshot: &Snapshot) -> Vec<Arc<Node>> {
    let is_there = |node: &&Arc<Node>| {
        node.is_active() && matches!(node.presence, Presence::Online(_)) && !node.is_isolated()
    };
    let mut by_route: BTreeMap<_, Vec<&Arc<Node>>> = BTreeMap::new();
    for node in snapshot.nodes().iter().filter(is_there) {
        for route in node.served_routes().filter(|route| !is_exit_route(route)) {
            by_route.entry(route).or_default().push(node);
        }
    }
    let shared = by_route.into_values().filter(|nodes| nodes.len() > 1);
    let routers: BTreeMap<_, _> = shared.flatten().map(|node| (node.id, node)).collect();
    let routers = routers.into_values().take(ROUTERS_MAX);
    routers.cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use hearth_core::state::command::{Command, NodeUpdate};
    use hearth_core::state::model::Hostinfo;
    use hearth_core::state::testing::World;

    #[test]
    fn only_routers_with_a_standby_are_probed() {
        let (mut world, _) = World::with_user();
        let ids = [1, 2, 3].map(|number| world.node_number(number));
        let offers = ["10.0.0.0/8", "10.0.0.0/8", "192.168.0.0/16"];
        for (id, route) in ids.into_iter().zip(offers) {
            world.open_stream(id);
            let routes = vec![route.parse().unwrap(), "0.0.0.0/0".parse().unwrap()];
            let hostinfo = Hostinfo {
                routable_ips: routes.clone().into(),
                ..Hostinfo::default()
            };
            let update = NodeUpdate {
                node: Some(id),
                hostinfo: Some(Arc::new(hostinfo)),
                ..NodeUpdate::default()
            };
            world.apply(Command::UpdateNode(Box::new(update))).unwrap();
            world.apply(Command::ApproveRoutes(id, routes)).unwrap();
        }
        let asked = |world: &World| -> Vec<_> {
            let routers = routers(&world.snapshot());
            routers.iter().map(|node| node.id).collect()
        };
        assert_eq!(asked(&world), ids[..2]);
        world.apply(Command::DeleteNode(ids[0])).unwrap();
        assert!(asked(&world).is_empty());
    }
}
