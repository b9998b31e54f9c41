//! Which routes of a peer a viewer may use.
//!
//! Source: `CanAccessRoute` in headscale `hscontrol/types/node.go` and `ViaRoutesForPeer` in
//! `hscontrol/policy/v2/policy.go`; unlike there, an exit node is offered only to whom a rule lets out to all
//! of the internet.

use std::sync::Arc;

use ipnet::IpNet;

use crate::id::NodeId;
use crate::policy::compiled::{Compiled, Entry, RouteView, Traits};
use crate::policy::program::Rule;

/// How a viewer may reach a subnet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// At the router that serves it for all.
    Primary,
    /// At this one of the routers that the viewer's rules name.
    Router(NodeId),
    /// At none, although a rule leads there.
    Closed,
    /// No rule knows of it.
    Unknown,
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
            Way::Closed => false,
            Way::Primary => peer.node.primary.contains(&route),
            // Two routers of a subnet know of each other.
            Way::Unknown => traits.shared.contains(&route) && peer.node.primary.contains(&route),
        }
    }

    /// Whether the rules without `via` tell a viewer of a subnet. Other nodes have no say in this.
    pub(super) fn may_use(&self, viewer: &Traits, route: IpNet) -> bool {
        self.leads_to(viewer, route) || self.comes_back(viewer, route)
    }

    fn way(&self, viewer: &Traits, route: IpNet) -> Way {
        if self.leads_to(viewer, route) {
            return Way::Primary;
        }
        if self.program.has_via {
            let via = |rule: &&Rule| !rule.via.is_empty() && rule.covers_route(route);
            let rules: Vec<&Rule> = self.rules_from(viewer).filter(via).collect();
            if !rules.is_empty() {
                // Also when none of them is there: else a router that comes would change what others carry.
                return self.router(&rules, route).map_or(Way::Closed, Way::Router);
            }
        }
        match self.comes_back(viewer, route) {
            true => Way::Primary,
            false => Way::Unknown,
        }
    }

    fn leads_to(&self, viewer: &Traits, route: IpNet) -> bool {
        let mut rules = self.rules_from(viewer);
        rules.any(|rule| rule.via.is_empty() && rule.covers_route(route))
    }

    /// Who is reached from behind a router must be able to answer.
    fn comes_back(&self, viewer: &Traits, route: IpNet) -> bool {
        viewer.to.iter().any(|number| {
            let rule = self.program.rules.get(number);
            let sources = rule.and_then(|rule| self.program.sources.get(rule.source));
            sources.is_some_and(|sources| sources.admit_route(route))
        })
    }

    /// The router that carries a subnet for those that reach it by rules with `via`: the one that serves it for
    /// all if it is among the named ones, else the oldest of these.
    fn router(&self, rules: &[&Rule], route: IpNet) -> Option<NodeId> {
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
