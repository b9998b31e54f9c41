//! Snapshots: the published state, immutable, consistent and cheap to share.
//!
//! Readers hold an `Arc<Snapshot>` while they compute and keep only a [`Revision`] across waits, so that a
//! slow client never pins old state in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::disk::DiskFault;
use crate::id::{ApiKeyId, AuthId, NodeId, PreAuthKeyId, Revision, UserId};
use crate::keys::{MachineKey, NodeKey};
use crate::policy::{Compiled, Policy};
use crate::state::apply;
use crate::state::attributes::Attributes;
use crate::state::dns::DnsRecord;
use crate::state::model::{
    ApiKey, Change, Model, Node, PendingRegistration, PolicyText, PreAuthKey, Settings, User,
};

/// A snapshot of the state.
#[derive(Debug, Clone)]
pub struct Snapshot {
    model: Model,
    disk_fault: Option<Arc<DiskFault>>,
}

impl Snapshot {
    /// The snapshot of a model; `disk_fault` is why the database cannot be written, if so.
    pub fn of(model: &Model, disk_fault: Option<Arc<DiskFault>>) -> Self {
        Self {
            model: model.clone(),
            disk_fault,
        }
    }

    /// Revision of this state.
    pub fn revision(&self) -> Revision {
        self.model.revision
    }

    /// Why the database cannot be written, and since when; `None` while it can.
    pub fn disk_fault(&self) -> Option<&Arc<DiskFault>> {
        self.disk_fault.as_ref()
    }

    /// Settings from the configuration.
    pub fn settings(&self) -> &Settings {
        &self.model.settings
    }

    /// All nodes, sorted by id.
    pub fn nodes(&self) -> &[Arc<Node>] {
        &self.model.nodes
    }

    /// The node with this id.
    pub fn node(&self, id: NodeId) -> Option<&Arc<Node>> {
        self.model.node(id)
    }

    /// Name and number of a node, as the log shows it: `nas (3)`.
    pub fn name_with_id(&self, id: NodeId) -> String {
        match self.node(id) {
            Some(node) => format!("{} ({id})", node.label),
            None => id.to_string(),
        }
    }

    /// The node with this key.
    pub fn node_by_key(&self, key: &NodeKey) -> Option<&Arc<Node>> {
        self.model.node_by_key(key)
    }

    /// The nodes of this machine, by id: one for each owner.
    pub fn nodes_of_machine(&self, machine: &MachineKey) -> impl Iterator<Item = &Arc<Node>> {
        self.model.nodes_of_machine(machine)
    }

    /// Whether a node belongs to this machine.
    pub fn has_machine(&self, machine: &MachineKey) -> bool {
        self.nodes_of_machine(machine).next().is_some()
    }

    /// All users by id.
    pub fn users(&self) -> &BTreeMap<UserId, Arc<User>> {
        &self.model.users
    }

    /// The posture attributes of a node.
    pub fn attributes(&self, id: NodeId) -> Arc<Attributes> {
        self.model.attributes.get(&id).cloned().unwrap_or_default()
    }

    /// All preauth keys by id.
    pub fn preauth_keys(&self) -> &BTreeMap<PreAuthKeyId, Arc<PreAuthKey>> {
        &self.model.preauth_keys
    }

    /// All API keys by id.
    pub fn api_keys(&self) -> &BTreeMap<ApiKeyId, Arc<ApiKey>> {
        &self.model.api_keys
    }

    /// The DNS records made by the API. The same pointer means the same records.
    pub fn dns_records(&self) -> &Arc<BTreeSet<DnsRecord>> {
        &self.model.dns_records
    }

    /// All pending registrations, recently decided ones included.
    pub fn pending(&self) -> &BTreeMap<AuthId, Arc<PendingRegistration>> {
        &self.model.pending
    }

    /// The versions of the policy that are kept, oldest first; the last one is in force.
    pub fn policies(&self) -> &[Arc<PolicyText>] {
        &self.model.policies
    }

    /// The policy compiled for the active nodes.
    pub fn compiled(&self) -> &Arc<Compiled> {
        &self.model.compiled
    }

    /// Compiles another policy for the active nodes. Slow: it compiles the whole policy.
    pub fn compile(&self, policy: &Arc<Policy>) -> Compiled {
        Compiled::compile(policy, &apply::directory(&self.model))
    }

    /// Whether the relay admits this key: it belongs to an approved node and has not expired.
    pub fn admits(&self, key: &NodeKey) -> bool {
        self.node_by_key(key)
            .is_some_and(|node| !node.is_isolated())
    }

    /// Revision at which [`Snapshot::admits`] last changed for some key.
    pub fn admission(&self) -> Revision {
        self.model.admission
    }

    /// The changes after `since`, oldest first; `None` if they are not all kept any more.
    pub fn changes_since(&self, since: Revision) -> Option<impl Iterator<Item = Change> + '_> {
        if since < self.model.changes_from {
            return None;
        }
        let changes = &self.model.changes;
        let first = changes.partition_point(|(revision, _)| *revision <= since);
        Some(changes.range(first..).map(|(_, change)| *change))
    }
}
