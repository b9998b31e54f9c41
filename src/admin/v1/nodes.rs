//! Nodes.

use std::str::FromStr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::admin::problem::Fault;
use crate::admin::v1::{convert, users};
use crate::admin::{Answer, Call, json};
use crate::api::{
    self, ApproveRoutes, BackfillAnswer, EmptyAnswer, ExpireNode, MoveNode, NodeAnswer,
    NodesAnswer, SetAddresses, SetTags,
};
use crate::engine::Reply;
use hearth_core::id::NodeId;
use hearth_core::state::command::Rejected;
use hearth_core::state::model::Node;
use hearth_core::state::snapshot::Snapshot;

impl Call<'_> {
    pub(crate) fn list_nodes(&self) -> Answer {
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

    pub(crate) fn show_node(&self, id: &str) -> Answer {
        let snapshot = self.admin.engine.snapshot();
        let node = snapshot.node(node_id(id)?).ok_or(Rejected::NoSuchNode)?;
        json(&NodeAnswer {
            node: self.node(node, &snapshot),
        })
    }

    pub(crate) async fn delete_node(&self, id: &str) -> Answer {
        let engine = &self.admin.engine;
        engine.delete_node(self.by(), node_id(id)?).await?;
        json(&EmptyAnswer {})
    }

    /// The wishes may stand in the body or in the query; without any the node expires now.
    pub(crate) async fn expire_node(&self, id: &str) -> Answer {
        let id = node_id(id)?;
        let mut wish: ExpireNode = self.read()?;
        let query = |key| self.query(key);
        wish.disable_expiry |= query("disableExpiry") == "true";
        if wish.expiry.is_none() && !query("expiry").is_empty() {
            let time = hearth_core::clock::Timestamp::parse(query("expiry"));
            wish.expiry = Some(time.ok_or_else(|| Fault::invalid("expiry is no RFC 3339 time"))?);
        }
        let expiry = match (wish.disable_expiry, wish.expiry) {
            (true, Some(_)) => {
                return Err(Fault::invalid("cannot set both disable_expiry and expiry"));
            }
            (true, None) => None,
            (false, None) => Some(self.now.wall),
            (false, expiry) => expiry,
        };
        let engine = &self.admin.engine;
        self.changed_node(&engine.expire_node(self.by(), id, expiry).await?)
    }

    pub(crate) async fn rename_node(&self, id: &str, name: &str) -> Answer {
        let id = node_id(id)?;
        let engine = &self.admin.engine;
        self.changed_node(&engine.rename_node(self.by(), id, name.into()).await?)
    }

    pub(crate) async fn approve_routes(&self, id: &str) -> Answer {
        let wish: ApproveRoutes = self.read()?;
        let routes = routes(&wish.routes)?;
        let engine = &self.admin.engine;
        let changed = engine.approve_routes(self.by(), node_id(id)?, routes);
        self.changed_node(&changed.await?)
    }

    pub(crate) async fn set_tags(&self, id: &str) -> Answer {
        let wish: SetTags = self.read()?;
        let tags = wish.tags.into_iter().map(Into::into).collect();
        let engine = &self.admin.engine;
        self.changed_node(&engine.set_tags(self.by(), node_id(id)?, tags).await?)
    }

    /// The user may stand in the body or in the query, as with Headscale up to 0.27 (`MoveNode`).
    pub(crate) async fn move_node(&self, id: &str) -> Answer {
        let wish: MoveNode = self.read()?;
        let who = match wish.user.0.as_str() {
            "" => self.query("user"),
            who => who,
        };
        let user = users::find(&self.admin.engine.snapshot(), who)?;
        let engine = &self.admin.engine;
        self.changed_node(&engine.move_node(self.by(), node_id(id)?, user).await?)
    }

    pub(crate) async fn set_addresses(&self, id: &str) -> Answer {
        let wish: SetAddresses = self.read()?;
        let ipv4 = address(&wish.ipv4, "an IPv4 address")?;
        let ipv6 = address(&wish.ipv6, "an IPv6 address")?;
        if ipv4.is_none() && ipv6.is_none() {
            return Err(Fault::invalid("name the new address: ipv4, ipv6 or both"));
        }
        let engine = &self.admin.engine;
        let changed = engine.set_addresses(self.by(), node_id(id)?, ipv4, ipv6);
        self.changed_node(&changed.await?)
    }

    pub(crate) async fn approve_node(&self, id: &str) -> Answer {
        let engine = &self.admin.engine;
        self.changed_node(&engine.approve_node(self.by(), node_id(id)?).await?)
    }

    pub(crate) async fn revoke_approval(&self, id: &str) -> Answer {
        let engine = &self.admin.engine;
        self.changed_node(&engine.revoke_approval(self.by(), node_id(id)?).await?)
    }

    /// The lines are those of Headscale (`BackfillNodeIPs` in `hscontrol/db/ip.go`).
    pub(crate) async fn backfill_addresses(&self) -> Answer {
        if self.query("confirmed") != "true" {
            return Err(Fault::invalid(
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
        api::Node {
            health: self.admin.reports.health(node.id),
            ..convert::node(node, snapshot, self.now)
        }
    }

    /// The answer to a command that changed a node.
    pub(crate) fn changed_node(&self, changed: &Reply<Arc<Node>>) -> Answer {
        json(&NodeAnswer {
            node: self.node(&changed.value, &changed.snapshot),
        })
    }
}

pub(in crate::admin) fn node_id(text: &str) -> Result<NodeId, Fault> {
    text.parse().map_err(|_| Fault::invalid("invalid node id"))
}

/// Prefixes in their text form.
pub fn routes(texts: &[String]) -> Result<Vec<IpNet>, Fault> {
    let route = |text: &String| {
        let message = || format!("{text:?} is no route: expected a prefix such as 192.168.1.0/24");
        text.parse().map_err(|_| Fault::invalid(&message()))
    };
    texts.iter().map(route).collect()
}

/// A text that may be empty, and is `what` otherwise.
pub fn address<T: FromStr>(text: &str, what: &str) -> Result<Option<T>, Fault> {
    if text.is_empty() {
        return Ok(None);
    }
    let parsed = text.parse().map(Some);
    parsed.map_err(|_| Fault::invalid(&format!("{text:?} is not {what}")))
}
