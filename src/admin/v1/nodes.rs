//! Nodes.

use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use crate::admin::fields::NoFields;
use crate::admin::problem::ApiError;
use crate::admin::v1::{convert, users};
use crate::admin::{ApiCall, ApiResult, json};
use crate::api::{
    self, ApproveRoutes, BackfillAnswer, Confirm, EmptyAnswer, ExpireNode, MoveNode, NodeAnswer,
    NodesAnswer, SetAddresses, SetTags,
};
use crate::config::moment::End;
use crate::engine::Reply;
use hearth_core::id::NodeId;
use hearth_core::state::command::Rejected;
use hearth_core::state::dns::label_in;
use hearth_core::state::model::Node;
use hearth_core::state::snapshot::Snapshot;

impl ApiCall<'_> {
    pub(crate) fn list_nodes(&self) -> ApiResult {
        let snapshot = self.admin.engine.snapshot();
        let owner = match self.query("user") {
            "" => None,
            who => Some(users::find(&snapshot, who)?),
        };
        let nodes = snapshot.nodes().iter();
        let nodes = nodes.filter(|node| owner.is_none() || node.user() == owner);
        let nodes = nodes.map(|node| self.node(node, &snapshot));
        json(&NodesAnswer {
            nodes: nodes.collect(),
        })
    }

    pub(crate) fn show_node(&self, id: &str) -> ApiResult {
        let snapshot = self.admin.engine.snapshot();
        let node = snapshot.node(node_id(id)?).ok_or(Rejected::NoSuchNode)?;
        json(&NodeAnswer {
            node: self.node(node, &snapshot),
            warnings: Vec::new(),
        })
    }

    pub(crate) async fn delete_node(&self, id: &str) -> ApiResult {
        let NoFields {} = self.read()?;
        let engine = &self.admin.engine;
        engine.delete_node(self.by(), node_id(id)?).await?;
        json(&EmptyAnswer {})
    }

    /// Without an expiry the node expires now.
    pub(crate) async fn expire_node(&self, id: &str) -> ApiResult {
        let request: ExpireNode = self.read()?;
        let id = node_id(id)?;
        let expiry = request.expiry.as_deref();
        let expiry = expiry.map(|text| convert::end(text, "expiry"));
        let expiry = match (request.disable_expiry, expiry.transpose()?) {
            (true, Some(End::At(_) | End::In(_))) => {
                return Err(ApiError::invalid(
                    "cannot set both disable_expiry and expiry",
                ));
            }
            (true, _) => End::Never,
            (false, None) => End::In(Duration::ZERO),
            (false, Some(end)) => end,
        };
        let engine = &self.admin.engine;
        self.changed_node(&engine.expire_node(self.by(), id, expiry).await?)
    }

    pub(crate) async fn rename_node(&self, id: &str, name: &str) -> ApiResult {
        let NoFields {} = self.read()?;
        let id = node_id(id)?;
        let engine = &self.admin.engine;
        self.changed_node(&engine.rename_node(self.by(), id, name.into()).await?)
    }

    pub(crate) async fn approve_routes(&self, id: &str) -> ApiResult {
        let request: ApproveRoutes = self.read()?;
        let routes = routes(&request.routes)?;
        let engine = &self.admin.engine;
        let changed = engine.approve_routes(self.by(), node_id(id)?, routes);
        self.changed_node(&changed.await?)
    }

    pub(crate) async fn set_tags(&self, id: &str) -> ApiResult {
        let request: SetTags = self.read()?;
        let tags = request.tags.into_iter().map(Into::into).collect();
        let engine = &self.admin.engine;
        let changed = engine.set_tags(self.by(), node_id(id)?, tags).await?;
        json(&NodeAnswer {
            node: self.node(&changed.value, &changed.snapshot),
            warnings: undeclared(changed.value.tags(), &changed.snapshot),
        })
    }

    pub(crate) async fn move_node(&self, id: &str) -> ApiResult {
        let request: MoveNode = self.read()?;
        let user = users::find(&self.admin.engine.snapshot(), &request.user.0)?;
        let engine = &self.admin.engine;
        self.changed_node(&engine.move_node(self.by(), node_id(id)?, user).await?)
    }

    pub(crate) async fn set_addresses(&self, id: &str) -> ApiResult {
        let request: SetAddresses = self.read()?;
        let ipv4 = address(&request.ipv4, "an IPv4 address")?;
        let ipv6 = address(&request.ipv6, "an IPv6 address")?;
        if ipv4.is_none() && ipv6.is_none() {
            return Err(ApiError::invalid("missing address: set ipv4, ipv6 or both"));
        }
        let engine = &self.admin.engine;
        let changed = engine.set_addresses(self.by(), node_id(id)?, ipv4, ipv6);
        self.changed_node(&changed.await?)
    }

    pub(crate) async fn approve_device(&self, id: &str) -> ApiResult {
        let NoFields {} = self.read()?;
        let engine = &self.admin.engine;
        self.changed_node(&engine.approve_node(self.by(), node_id(id)?).await?)
    }

    pub(crate) async fn revoke_approval(&self, id: &str) -> ApiResult {
        let NoFields {} = self.read()?;
        let engine = &self.admin.engine;
        self.changed_node(&engine.revoke_approval(self.by(), node_id(id)?).await?)
    }

    /// The lines match Headscale's (`BackfillNodeIPs` in `hscontrol/db/ip.go`).
    pub(crate) async fn backfill_addresses(&self) -> ApiResult {
        let request: Confirm = self.read()?;
        if !request.confirmed {
            return Err(ApiError::invalid(
                "not confirmed, aborting: add ?confirmed=true",
            ));
        }
        let before = self.admin.engine.snapshot();
        let moved = self.admin.engine.backfill_addresses(self.by()).await?;
        let mut changes = Vec::new();
        for node in moved.value {
            let whom = format!("to Node({}) {:?}", node.id, node.label);
            let old = before.node(node.id);
            if old.is_none_or(|old| old.ipv4 != node.ipv4) {
                changes.push(format!("assigned IPv4 \"{}\" {whom}", node.ipv4));
            }
            if old.is_none_or(|old| old.ipv6 != node.ipv6) {
                changes.push(format!("assigned IPv6 \"{}\" {whom}", node.ipv6));
            }
        }
        json(&BackfillAnswer { changes })
    }

    fn node(&self, node: &Node, snapshot: &Snapshot) -> api::Node {
        let mut health = self.admin.reports.health(node.id);
        let dropped = self.admin.dropped_routes(node.id);
        health.extend(dropped.map(|text| format!("{}{text}", api::ROUTES_REPORT)));
        api::Node {
            health,
            ..convert::node(node, snapshot, self.now)
        }
    }

    /// Response to a command that changed a node.
    pub(crate) fn changed_node(&self, changed: &Reply<Arc<Node>>) -> ApiResult {
        json(&NodeAnswer {
            node: self.node(&changed.value, &changed.snapshot),
            warnings: Vec::new(),
        })
    }
}

/// A line for each tag that a policy does not declare: Headscale refuses these. Here a tag may come before its policy.
fn undeclared(tags: &[Box<str>], snapshot: &Snapshot) -> Vec<String> {
    if snapshot.policies().is_empty() {
        return Vec::new();
    }
    let compiled = snapshot.compiled();
    let unknown = tags.iter().filter(|tag| !compiled.declares_tag(tag));
    unknown
        .map(|tag| {
            format!(
                "tag not found in the policy: {tag:?}; no rule can name it until it is in \"tagOwners\" (hearth policy get)"
            )
        })
        .collect()
}

pub(in crate::admin) fn node_id(text: &str) -> Result<NodeId, ApiError> {
    text.parse()
        .map_err(|_| ApiError::invalid("invalid node id"))
}

/// The node with this address, ID or name: the label or the full name, in upper or lower case.
///
/// # Errors
/// When the text is the ID of one node and the name of another.
pub(in crate::admin) fn find<'a>(
    snapshot: &'a Snapshot,
    base_domain: &str,
    which: &str,
) -> Result<Option<&'a Arc<Node>>, ApiError> {
    let nodes = snapshot.nodes();
    if let Ok(address) = which.parse::<IpAddr>() {
        let mut nodes = nodes.iter();
        return Ok(nodes.find(|node| address == node.ipv4 || address == node.ipv6));
    }
    let lower = which.trim_end_matches('.').to_ascii_lowercase();
    let label = label_in(&lower, base_domain);
    let by_name = nodes.iter().find(|node| Some(&*node.label) == label);
    let by_id = which.parse().ok().and_then(|id| snapshot.node(id));
    match (by_id, by_name) {
        (Some(one), Some(other)) if one.id != other.id => {
            let (id, name) = (&one.label, other.id);
            let message = format!(
                "{which:?} is ambiguous: the ID of {id} and the name of node {name}; use an address"
            );
            Err(ApiError::invalid(&message))
        }
        (found, named) => Ok(found.or(named)),
    }
}

/// Parses prefixes.
pub fn routes(texts: &[String]) -> Result<Vec<IpNet>, ApiError> {
    let route = |text: &String| {
        let message =
            || format!("invalid route {text:?}: expected a prefix such as 192.168.1.0/24");
        text.parse().map_err(|_| ApiError::invalid(&message()))
    };
    texts.iter().map(route).collect()
}

/// Parses an optional address; `what` names the kind in the error.
pub fn address<T: FromStr>(text: &str, what: &str) -> Result<Option<T>, ApiError> {
    if text.is_empty() {
        return Ok(None);
    }
    let parsed = text.parse().map(Some);
    parsed.map_err(|_| ApiError::invalid(&format!("{text:?} is not {what}")))
}
