//! The published state: immutable, consistent, cheap to share.
//!
//! Readers hold an `Arc<Snapshot>` for as long as they compute and keep only a [`Revision`] across
//! waits, so that a slow client never pins old state in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::id::{ApiKeyId, NodeId, PreAuthKeyId, Revision, UserId};
use crate::keys::NodeKey;
use crate::policy::{Compiled, Policy};
use crate::state::apply;
use crate::state::attributes::Attributes;
use crate::state::dns::DnsRecord;
use crate::state::model::{
    ApiKey, AuthId, Change, Model, Node, Pending, PolicyText, PreAuthKey, Settings, User,
};

/// One published state.
#[derive(Debug, Clone)]
pub struct Snapshot {
    model: Model,
    writable: bool,
}

impl Snapshot {
    /// The state of a model; `writable` says whether the database takes changes.
    pub fn of(model: &Model, writable: bool) -> Self {
        Self {
            model: model.clone(),
            writable,
        }
    }

    /// Number of this state.
    pub fn revision(&self) -> Revision {
        self.model.revision
    }

    /// Whether the database takes changes.
    pub fn is_writable(&self) -> bool {
        self.writable
    }

    /// The configuration's part.
    pub fn settings(&self) -> &Settings {
        &self.model.settings
    }

    /// All nodes by number.
    pub fn nodes(&self) -> &[Arc<Node>] {
        &self.model.nodes
    }

    /// The node with this number.
    pub fn node(&self, id: NodeId) -> Option<&Arc<Node>> {
        self.model.node(id)
    }

    /// The node with this key.
    pub fn node_by_key(&self, key: &NodeKey) -> Option<&Arc<Node>> {
        self.model.node_by_key(key)
    }

    /// All users by number.
    pub fn users(&self) -> &BTreeMap<UserId, Arc<User>> {
        &self.model.users
    }

    /// The attributes of a node for postures.
    pub fn attributes(&self, id: NodeId) -> Arc<Attributes> {
        self.model.attributes.get(&id).cloned().unwrap_or_default()
    }

    /// All preauth keys by number.
    pub fn preauth_keys(&self) -> &BTreeMap<PreAuthKeyId, Arc<PreAuthKey>> {
        &self.model.preauth_keys
    }

    /// All API keys by number.
    pub fn api_keys(&self) -> &BTreeMap<ApiKeyId, Arc<ApiKey>> {
        &self.model.api_keys
    }

    /// The DNS records made by the API. The same pointer means the same records.
    pub fn dns_records(&self) -> &Arc<BTreeSet<DnsRecord>> {
        &self.model.dns_records
    }

    /// All logins that wait or were lately decided.
    pub fn pending(&self) -> &BTreeMap<AuthId, Arc<Pending>> {
        &self.model.pending
    }

    /// The last versions of the policy, oldest first; the last one applies.
    pub fn policies(&self) -> &[Arc<PolicyText>] {
        &self.model.policies
    }

    /// What the policy means for the nodes that take part.
    pub fn compiled(&self) -> &Arc<Compiled> {
        &self.model.compiled
    }

    /// What a policy would mean for the nodes that take part. Compiles anew, which takes its time.
    pub fn compile(&self, policy: &Arc<Policy>) -> Compiled {
        Compiled::compile(policy, &apply::directory(&self.model))
    }

    /// Whether the relay may carry traffic of this key: it belongs to a node that takes part and has not
    /// expired.
    pub fn admits(&self, key: &NodeKey) -> bool {
        self.node_by_key(key).is_some_and(|node| !node.is_alone())
    }

    /// Changes whenever the answer of [`Snapshot::admits`] may have changed for some key.
    pub fn admission(&self) -> Revision {
        self.model.admission
    }

    /// What changed after `since`, oldest first; `None` when that is too long ago to know.
    pub fn changes_since(&self, since: Revision) -> Option<impl Iterator<Item = Change> + '_> {
        if since < self.model.changes_from {
            return None;
        }
        let changes = &self.model.changes;
        let first = changes.partition_point(|(revision, _)| *revision <= since);
        Some(changes.range(first..).map(|(_, change)| *change))
    }
}
