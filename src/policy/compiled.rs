//! What a policy means for the nodes that there are.

use std::sync::Arc;

use ipnet::IpNet;
use serde_json::Value;
use std::collections::BTreeMap;

use crate::id::NodeId;
use crate::policy::{Directory, Node, Owner, User};
use crate::tailcfg::filter::allow_all;

/// A policy applied to a directory. Immutable; a changed directory gives a new one.
#[derive(Debug, Clone)]
pub struct Compiled {
    nodes: BTreeMap<NodeId, Node>,
    filter: Arc<str>,
}

/// The routes of a peer that a viewer may use.
#[derive(Debug, Clone, PartialEq, Eq, Default, Hash)]
pub struct RouteView {
    /// What goes into `AllowedIPs` after the addresses, sorted.
    pub allowed: Arc<[IpNet]>,
    /// What goes into `PrimaryRoutes`, sorted; no exit routes.
    pub primary: Arc<[IpNet]>,
}

/// Between which nodes something may have changed from one [`Compiled`] to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Touched {
    /// Only what these nodes see, and how others see these: everything else is as before.
    Nodes(Vec<NodeId>),
    /// Nothing is known to be as before.
    Everything,
}

impl Compiled {
    /// What applies where there is no policy: everyone reaches everyone.
    pub fn allow_all(directory: &Directory) -> Self {
        let nodes = directory.nodes.iter().cloned();
        Self {
            nodes: nodes.map(|node| (node.id, node)).collect(),
            filter: serde_json::to_string(&[allow_all()])
                .unwrap_or_default()
                .into(),
        }
    }

    /// The same policy for a directory in which these nodes are new or changed, and those gone.
    pub fn with_nodes(&self, changed: &[Node], removed: &[NodeId]) -> Self {
        let mut nodes = self.nodes.clone();
        nodes.extend(changed.iter().map(|node| (node.id, node.clone())));
        nodes.retain(|id, _| !removed.contains(id));
        Self {
            nodes,
            filter: self.filter.clone(),
        }
    }

    /// The same policy when the users are these.
    pub fn with_users(&self, _users: Vec<User>) -> Self {
        self.clone()
    }

    /// The node as it was compiled.
    pub fn node(&self, id: NodeId) -> Option<&Node> {
        self.nodes.get(&id)
    }

    /// What may differ from an older one of the same tailnet.
    pub fn touched_since(&self, _older: &Self) -> Touched {
        Touched::Everything
    }

    /// Whether two nodes are peers: either may reach the other. Symmetric; false for a node and itself, and
    /// for nodes that are not in the directory.
    pub fn are_peers(&self, one: NodeId, other: NodeId) -> bool {
        one != other && self.nodes.contains_key(&one) && self.nodes.contains_key(&other)
    }

    /// A number that two nodes share only when they see every third node alike: the same peers, with the
    /// same routes.
    pub fn view_class(&self, _viewer: NodeId) -> u32 {
        0
    }

    /// The routes of `peer` that `viewer` may use.
    pub fn routes(&self, _viewer: NodeId, peer: NodeId) -> RouteView {
        let Some(node) = self.nodes.get(&peer) else {
            return RouteView::default();
        };
        let exit = node.routes.iter().filter(|route| route.prefix_len() == 0);
        let mut allowed: Vec<IpNet> = node.primary.iter().chain(exit).copied().collect();
        allowed.sort();
        RouteView {
            allowed: allowed.into(),
            primary: node.primary.clone(),
        }
    }

    /// The packet filter of a node as a JSON list of `tailcfg.FilterRule`; shared by the nodes that have the
    /// same. An empty list blocks everything.
    pub fn filter(&self, _node: NodeId) -> Arc<str> {
        self.filter.clone()
    }

    /// The SSH policy of a node as JSON (`tailcfg.SSHPolicy`); `None` when nobody may come in by SSH.
    pub fn ssh(&self, _node: NodeId) -> Option<Arc<str>> {
        None
    }

    /// The capabilities that the policy gives to a node itself (`nodeAttrs`), with the values of each.
    pub fn attributes(&self, _node: NodeId) -> Arc<BTreeMap<Box<str>, Vec<Value>>> {
        Arc::default()
    }

    /// Whether an owner may give this tag to a node: a user that is named in `tagOwners` itself or by a group,
    /// or a node with a tag that owns it.
    pub fn may_tag(&self, _who: &Owner, _tag: &str) -> bool {
        false
    }

    /// Whether a route that this node offers needs no administrator.
    pub fn auto_approves(&self, _node: &Node, _route: &IpNet) -> bool {
        false
    }

    /// The IPv4 prefix from which a node gets its address (`nodeAttrs` with `ipPool`), if there is one.
    pub fn ip_pool(&self, _node: &Node) -> Option<ipnet::Ipv4Net> {
        None
    }

    /// Whether a node is among those that a selector names (`*`, a user, group, tag, autogroup, address
    /// or host); `None` when the selector is none.
    pub fn selects(&self, selector: &str, node: NodeId) -> Option<bool> {
        let node = self.nodes.get(&node)?;
        match &node.owner {
            _ if selector == "*" => Some(true),
            Owner::Tags(tags) => Some(tags.iter().any(|tag| **tag == *selector)),
            Owner::User(_) => Some(false),
        }
    }
}
