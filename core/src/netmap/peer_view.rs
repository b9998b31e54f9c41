//! How viewers of the same node differ.

use crate::id::NodeId;
use crate::policy::{Compiled, RouteView};
use crate::state::model::Node;

/// What a viewer sees of a peer beyond what all viewers see: viewers with equal views get the same JSON.
#[derive(Debug, Clone, PartialEq, Eq, Default, Hash)]
pub struct PeerView {
    /// The routes of the peer that the viewer may use.
    pub(super) routes: RouteView,
    /// Whether the peer's IPv4 address is left out.
    pub(super) without_ipv4: bool,
}

impl PeerView {
    /// How `viewer` sees `peer`. Most nodes serve no routes, and those skip the policy's route lookup.
    pub(super) fn of(compiled: &Compiled, viewer: NodeId, peer: &Node) -> Self {
        Self {
            routes: match peer.approved_routes.is_empty() {
                true => RouteView::default(),
                false => compiled.routes(viewer, peer.id),
            },
            without_ipv4: compiled.without_ipv4(viewer, peer.id),
        }
    }

    /// How a node sees itself: with all routes that it serves.
    pub(super) fn of_self(compiled: &Compiled, node: &Node) -> Self {
        Self {
            routes: RouteView {
                allowed: node.served_routes().collect(),
                primary: node.primary_routes.clone(),
            },
            without_ipv4: compiled.without_ipv4(node.id, node.id),
        }
    }
}
