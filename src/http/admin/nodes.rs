//! Nodes.

use super::fault::Fault;
use super::{Answer, Call, convert, json, users};
use crate::api::{self, EmptyAnswer, ExpireNode, NodeAnswer, NodesAnswer};
use crate::id::NodeId;
use crate::state::command::{Command, Rejected, Reply};
use crate::state::model::Node;
use crate::state::snapshot::Snapshot;

impl Call<'_> {
    pub(super) fn list_nodes(&self) -> Answer {
        let snapshot = self.admin.engine.snapshot();
        let owner = match self.target.query("user") {
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

    pub(super) fn show_node(&self, id: &str) -> Answer {
        let snapshot = self.admin.engine.snapshot();
        let node = snapshot.node(node_id(id)?).ok_or(Rejected::NoSuchNode)?;
        json(&NodeAnswer {
            node: self.node(node, &snapshot),
        })
    }

    pub(super) async fn delete_node(&self, id: &str) -> Answer {
        let command = Command::DeleteNode(node_id(id)?);
        self.admin.engine.apply(command).await?;
        json(&EmptyAnswer {})
    }

    /// The wishes may stand in the body or in the query; without any the node expires now.
    pub(super) async fn expire_node(&self, id: &str) -> Answer {
        let id = node_id(id)?;
        let mut wish: ExpireNode = self.read()?;
        let query = |key| self.target.query(key);
        wish.disable_expiry |= query("disableExpiry") == "true";
        if wish.expiry.is_none() && !query("expiry").is_empty() {
            let time = crate::clock::Timestamp::parse(query("expiry"));
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
        self.node_after(Command::ExpireNode(id, expiry)).await
    }

    pub(super) async fn rename_node(&self, id: &str, name: &str) -> Answer {
        let id = node_id(id)?;
        self.node_after(Command::RenameNode(id, name.into())).await
    }

    fn node(&self, node: &Node, snapshot: &Snapshot) -> api::Node {
        api::Node {
            health: self.admin.contact.reports.health(node.id),
            ..convert::node(node, snapshot, self.now)
        }
    }

    pub(super) async fn node_after(&self, command: Command) -> Answer {
        match self.admin.engine.apply(command).await? {
            Reply::Node(node) => {
                let snapshot = self.admin.engine.snapshot();
                json(&NodeAnswer {
                    node: self.node(&node, &snapshot),
                })
            }
            _ => json(&EmptyAnswer {}),
        }
    }
}

pub(super) fn node_id(text: &str) -> Result<NodeId, Fault> {
    text.parse().map_err(|_| Fault::invalid("invalid node id"))
}
