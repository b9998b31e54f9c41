//! Which routes of a peer a viewer may use.
//!
//! Source: `CanAccessRoute` in headscale `hscontrol/types/node.go` and `ViaRoutesForPeer` in
//! `hscontrol/policy/v2/policy.go`; unlike there, an exit node is offered only to viewers with a rule that
//! reaches the whole internet.

use std::sync::Arc;

use ipnet::IpNet;

use super::compiled::{Compiled, Entry, RouteView, Traits};
use super::resolved::ResolvedRule;
use crate::id::NodeId;

/// By which subnet router a viewer may reach a subnet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SubnetAccess {
    /// By the primary router.
    Primary,
    /// By this router, which the viewer's rules name in `via`.
    Router(NodeId),
    /// By none: no router that a rule names in `via` serves it.
    Closed,
    /// No rule mentions it.
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
        match self.subnet_access(traits, route) {
            SubnetAccess::Router(router) => router == peer.node.id,
            SubnetAccess::Closed => false,
            SubnetAccess::Primary => peer.node.primary.contains(&route),
            // Routers of the same subnet see each other's route.
            SubnetAccess::Unknown => {
                traits.shared.contains(&route) && peer.node.primary.contains(&route)
            }
        }
    }

    /// Whether the rules without `via` let a viewer use a subnet, whatever other nodes there are.
    pub(super) fn may_use(&self, viewer: &Traits, route: IpNet) -> bool {
        self.leads_to(viewer, route) || self.comes_back(viewer, route)
    }

    fn subnet_access(&self, viewer: &Traits, route: IpNet) -> SubnetAccess {
        if self.leads_to(viewer, route) {
            return SubnetAccess::Primary;
        }
        if self.resolved.has_via {
            let via = |rule: &&ResolvedRule| !rule.via.is_empty() && rule.covers_route(route);
            let rules: Vec<&ResolvedRule> = self.rules_from(viewer).filter(via).collect();
            if !rules.is_empty() {
                // Even if no such router exists: otherwise a new router would change the routes of others.
                return self
                    .router(&rules, route)
                    .map_or(SubnetAccess::Closed, SubnetAccess::Router);
            }
        }
        match self.comes_back(viewer, route) {
            true => SubnetAccess::Primary,
            false => SubnetAccess::Unknown,
        }
    }

    fn leads_to(&self, viewer: &Traits, route: IpNet) -> bool {
        let mut rules = self.rules_from(viewer);
        rules.any(|rule| rule.via.is_empty() && rule.covers_route(route))
    }

    /// Whether hosts of a subnet may reach the viewer, which must be able to answer.
    fn comes_back(&self, viewer: &Traits, route: IpNet) -> bool {
        viewer.to.iter().any(|number| {
            let rule = self.resolved.rules.get(number);
            let sources = rule.and_then(|rule| self.resolved.sources.get(rule.source));
            sources.is_some_and(|sources| sources.admit_route(route))
        })
    }

    /// The router of a subnet for rules with `via`: the primary one if it is among the named ones, else the oldest
    /// of these.
    fn router(&self, rules: &[&ResolvedRule], route: IpNet) -> Option<NodeId> {
        let named = |entry: &&Arc<Entry>| {
            entry.node.routes.contains(&route)
                && rules.iter().any(|rule| rule.goes_via(&entry.node))
        };
        let routers = self.routers.iter().filter(named);
        let best =
            routers.min_by_key(|entry| (!entry.node.primary.contains(&route), entry.node.id));
        best.map(|entry| entry.node.id)
    }

    fn rules_from<'c>(&'c self, viewer: &'c Traits) -> impl Iterator<Item = &'c ResolvedRule> {
        let numbers = viewer.from.iter();
        numbers.filter_map(|number| self.resolved.rules.get(number))
    }
}
