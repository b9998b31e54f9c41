//! Which routes of a peer a viewer may use.
//!
//! Source: `CanAccessRoute` in headscale `hscontrol/types/node.go` and `ViaRoutesForPeer` in
//! `hscontrol/policy/v2/policy.go`; unlike there, an exit node is offered only to whom a rule lets out to all
//! of the internet.

use std::sync::Arc;

use ipnet::IpNet;

use super::compiled::{Compiled, Entry, RouteView, Traits};
use super::program::Rule;
use crate::id::NodeId;

/// How a viewer may reach a subnet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// At the router that serves it for all.
    Primary,
    /// At this one of the routers that the viewer's rules name.
    Router(NodeId),
    None,
}

impl Compiled {
    /// The routes of `peer` that `viewer` may use.
    pub fn routes(&self, viewer: NodeId, peer: NodeId) -> RouteView {
        let (Some(viewer), Some(peer)) = (self.find(viewer), self.find(peer)) else {
            return RouteView::default();
        };
        if peer.node.routes.is_empty() || !viewer.is_peer(peer) {
            return RouteView::default();
        }
        let uses = |route: &&IpNet| self.uses(viewer, peer, **route);
        let allowed: Vec<IpNet> = peer.node.routes.iter().filter(uses).copied().collect();
        if *allowed == *peer.routes.allowed {
            return peer.routes.clone();
        }
        let subnets = allowed.iter().filter(|route| route.prefix_len() != 0);
        RouteView {
            primary: subnets.copied().collect::<Vec<_>>().into(),
            allowed: allowed.into(),
        }
    }

    fn uses(&self, viewer: &Entry, peer: &Entry, route: IpNet) -> bool {
        let traits = &viewer.class.traits;
        if route.prefix_len() == 0 {
            let mut rules = self.rules_from(traits);
            return rules.any(|rule| {
                rule.reaches_internet() && (rule.via.is_empty() || rule.goes_via(&peer.node))
            });
        }
        match self.way(traits, route) {
            Way::Router(router) => router == peer.node.id,
            Way::Primary => peer.node.primary.contains(&route),
            // Two routers of a subnet know of each other.
            Way::None => traits.shared.contains(&route) && peer.node.primary.contains(&route),
        }
    }

    /// Whether a viewer may use a subnet at some router, not counting that it is a router itself.
    pub(super) fn may_use(&self, viewer: &Traits, route: IpNet) -> bool {
        self.way(viewer, route) != Way::None
    }

    fn way(&self, viewer: &Traits, route: IpNet) -> Way {
        let is_plain = |rule: &&Rule| rule.via.is_empty();
        let leads = |rule: &Rule| rule.covers_route(route);
        if self.rules_from(viewer).filter(is_plain).any(leads) {
            return Way::Primary;
        }
        if self.program.has_via
            && let Some(router) = self.router(viewer, route)
        {
            return Way::Router(router);
        }
        // Who is reached from behind a router must be able to answer.
        let comes = |number: usize| {
            let rule = self.program.rules.get(number);
            let sources = rule.and_then(|rule| self.program.sources.get(rule.source));
            sources.is_some_and(|sources| sources.admit_route(route))
        };
        match viewer.to.iter().any(comes) {
            true => Way::Primary,
            false => Way::None,
        }
    }

    /// The router that carries a subnet for those that reach it by rules with `via`: the one that serves it for
    /// all if it is among the named ones, else the oldest of these.
    fn router(&self, viewer: &Traits, route: IpNet) -> Option<NodeId> {
        let rules: Vec<&Rule> = self
            .rules_from(viewer)
            .filter(|rule| !rule.via.is_empty() && rule.covers_route(route))
            .collect();
        let named = |entry: &&Arc<Entry>| {
            entry.node.routes.contains(&route)
                && rules.iter().any(|rule| rule.goes_via(&entry.node))
        };
        let routers = self.routers.iter().filter(named);
        let best =
            routers.min_by_key(|entry| (!entry.node.primary.contains(&route), entry.node.id));
        best.map(|entry| entry.node.id)
    }

    fn rules_from<'c>(&'c self, viewer: &'c Traits) -> impl Iterator<Item = &'c Rule> {
        let numbers = viewer.from.iter();
        numbers.filter_map(|number| self.program.rules.get(number))
    }
}
