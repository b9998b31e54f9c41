//! Records: what the database holds, and how each kind is stored.
//!
//! A stored value is one version byte and a postcard encoding. A struct that has been released is never
//! edited: a new version appends a struct with the fields that it adds, and `decode` fills them in for
//! values that an older version wrote.

mod api_key;
mod attributes;
mod audit;
mod codec;
mod counters;
mod cursors;
mod dns;
mod ending;
mod hostinfo;
mod node;
mod policy;
mod preauth_key;
mod shut_out;
mod user;

use std::sync::Arc;

use crate::id::{ApiKeyId, NodeId, PolicyId, PreAuthKeyId, UserId};
use crate::keys::MachineKey;
use crate::state::addr::Cursors;
use crate::state::attributes::Attributes;
use crate::state::dns::DnsRecord;
use crate::state::model::{ApiKey, Counters, Model, Node, PolicyText, PreAuthKey, User};

/// One durable change: a value to store, or one to delete.
#[derive(Debug, Clone)]
pub enum Record {
    /// The next ids.
    Counters(Counters),
    /// Stores a user.
    PutUser(Arc<User>),
    /// Deletes a user.
    DeleteUser(UserId),
    /// Stores a node.
    PutNode(Arc<Node>),
    /// Deletes a node.
    DeleteNode(NodeId),
    /// Stores all attributes of a node.
    PutAttributes(NodeId, Arc<Attributes>),
    /// Deletes the attributes of a node.
    DeleteAttributes(NodeId),
    /// Stores a preauth key.
    PutPreAuthKey(Arc<PreAuthKey>),
    /// Deletes a preauth key.
    DeletePreAuthKey(PreAuthKeyId),
    /// Stores an API key.
    PutApiKey(Arc<ApiKey>),
    /// Deletes an API key.
    DeleteApiKey(ApiKeyId),
    /// Stores a DNS record.
    PutDnsRecord(DnsRecord),
    /// Deletes a DNS record.
    DeleteDnsRecord(DnsRecord),
    /// Stores a version of the policy.
    PutPolicy(Arc<PolicyText>),
    /// Deletes a version of the policy.
    DeletePolicy(PolicyId),
    /// The last addresses that were given out.
    Cursors(Arc<Cursors>),
    /// Stores that a machine is shut out.
    PutShutOut(MachineKey),
    /// Deletes that.
    DeleteShutOut(MachineKey),
}

impl Record {
    /// The records that store a whole model.
    pub fn whole(model: &Model) -> Vec<Self> {
        let single = [
            Self::Counters(model.counters),
            Self::Cursors(Arc::clone(&model.cursors)),
        ];
        let users = model.users.values().cloned().map(Self::PutUser);
        let nodes = model.nodes.iter().cloned().map(Self::PutNode);
        let attributes = model.attributes.iter();
        let attributes = attributes.map(|(node, all)| Self::PutAttributes(*node, Arc::clone(all)));
        let preauth_keys = model.preauth_keys.values().cloned();
        let api_keys = model.api_keys.values().cloned().map(Self::PutApiKey);
        let dns_records = model.dns_records.iter().cloned().map(Self::PutDnsRecord);
        let policies = model.policies.iter().cloned().map(Self::PutPolicy);
        let shut_out = model.shut_out.iter().copied().map(Self::PutShutOut);
        let all = single.into_iter().chain(users).chain(nodes);
        let all = all.chain(attributes);
        let all = all.chain(preauth_keys.map(Self::PutPreAuthKey));
        let all = all.chain(api_keys).chain(dns_records);
        all.chain(policies).chain(shut_out).collect()
    }
}

/// Why a stored value cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A newer hearth wrote it.
    #[error("written by a newer hearth (record version {0})")]
    Newer(u8),
    /// The bytes do not make sense.
    #[error("damaged")]
    Damaged,
}

/// A domain type with a stored form.
pub trait Stored: Sized {
    /// The bytes to store, in the newest version.
    fn encode(&self) -> Vec<u8>;
    /// The value in these bytes, whichever version wrote them.
    ///
    /// # Errors
    /// When a newer hearth wrote them, or they are damaged.
    fn decode(bytes: &[u8]) -> Result<Self, DecodeError>;
}

#[cfg(test)]
mod tests;
