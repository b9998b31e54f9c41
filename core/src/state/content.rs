//! A digest of what people and devices decided: users, nodes, keys, policies. It tells whether a backup is worth its
//! bytes, so what clients report again by themselves (hostinfo, endpoints, presence) is not part of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ring::digest::{Context, SHA256};

use crate::clock::Timestamp;
use crate::id::{ApiKeyId, NodeId, PreAuthKeyId, UserId};
use crate::keys::MachineKey;
use crate::state::attributes::Attributes;
use crate::state::dns::DnsRecord;
use crate::state::model::{ApiKey, Hostinfo, Model, Node, PolicyText, PreAuthKey, Presence, User};
use crate::state::record::Stored;

/// What is compared. Fields as in [`Model`].
#[derive(Debug)]
pub struct Content<'a> {
    /// Users by id.
    pub users: &'a BTreeMap<UserId, Arc<User>>,
    /// Nodes, sorted by id.
    pub nodes: &'a [Arc<Node>],
    /// Posture attributes.
    pub attributes: &'a BTreeMap<NodeId, Arc<Attributes>>,
    /// Preauth keys by id.
    pub preauth_keys: &'a BTreeMap<PreAuthKeyId, Arc<PreAuthKey>>,
    /// API keys by id.
    pub api_keys: &'a BTreeMap<ApiKeyId, Arc<ApiKey>>,
    /// DNS records made by the API.
    pub dns_records: &'a BTreeSet<DnsRecord>,
    /// Versions of the policy, oldest first.
    pub policies: &'a [Arc<PolicyText>],
    /// Machines whose approval a person revoked.
    pub shut_out: &'a BTreeSet<MachineKey>,
}

/// The digest of some [`Content`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Digest([u8; 32]);

/// Nobody reads all of it.
impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = data_encoding::HEXLOWER.encode(&self.0);
        f.write_str(text.get(..8).unwrap_or_default())
    }
}

impl<'a> Content<'a> {
    /// The content of a model.
    pub fn of(model: &'a Model) -> Self {
        Self {
            users: &model.users,
            nodes: &model.nodes,
            attributes: &model.attributes,
            preauth_keys: &model.preauth_keys,
            api_keys: &model.api_keys,
            dns_records: &model.dns_records,
            policies: &model.policies,
            shut_out: &model.shut_out,
        }
    }

    /// The digest. Equal contents have equal ones, whichever version of hearth wrote them last.
    pub fn digest(&self) -> Digest {
        let mut sum = Sum(Context::new(&SHA256));
        sum.all(self.users.values().map(|user| user.encode()));
        sum.all(self.nodes.iter().map(|node| durable(node).encode()));
        sum.all(self.attributes.iter().map(|(node, attributes)| {
            let mut bytes = node.number().to_le_bytes().to_vec();
            bytes.extend(attributes.encode());
            bytes
        }));
        sum.all(self.preauth_keys.values().map(|key| key.encode()));
        sum.all(self.api_keys.values().map(|key| key.encode()));
        sum.all(self.dns_records.iter().map(Stored::encode));
        sum.all(self.policies.iter().map(|version| version.encode()));
        sum.all(self.shut_out.iter().map(Stored::encode));
        let mut digest = [0; 32];
        digest.copy_from_slice(sum.0.finish().as_ref());
        Digest(digest)
    }
}

/// The node without what its client reports, and without what follows from time and other nodes.
fn durable(node: &Node) -> Node {
    Node {
        disco: None,
        hostinfo: Arc::new(Hostinfo::default()),
        primary_routes: Arc::default(),
        unhealthy: false,
        forwarding_off: false,
        capability: 0,
        home_derp: 0,
        endpoints: Arc::default(),
        live: false,
        presence: Presence::Offline {
            since: Timestamp::from_unix_ms(0),
            since_mono: Duration::ZERO,
        },
        unflushed: false,
        ..node.clone()
    }
}

struct Sum(Context);

impl Sum {
    /// Adds the values of a table, each with its length, and their number.
    fn all(&mut self, values: impl Iterator<Item = Vec<u8>>) {
        let mut count = 0_u64;
        for value in values {
            let length = u64::try_from(value.len()).unwrap_or(u64::MAX);
            self.0.update(&length.to_le_bytes());
            self.0.update(&value);
            count = count.saturating_add(1);
        }
        self.0.update(&u64::MAX.to_le_bytes());
        self.0.update(&count.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::command::{Command, NodeUpdate};
    use crate::state::testing::{World, with_key};

    #[test]
    fn reports_of_clients_change_no_digest_and_decisions_do() {
        let (mut world, _) = World::with_user();
        world.preauth_key("k", |key| key.reusable = true);
        let node = world.join(with_key(1, 1, "k")).id;
        let digest = |world: &World| Content::of(&world.model).digest();
        let before = digest(&world);
        let report = NodeUpdate {
            node: Some(node),
            endpoints: Some(Arc::from(["192.0.2.1:1".parse().unwrap()])),
            home_derp: Some(901),
            hostinfo: Some(Arc::new(Hostinfo {
                raw: r#"{"Hostname":"a","OSVersion":"2"}"#.into(),
                ..(*world.node(node).hostinfo).clone()
            })),
            ..NodeUpdate::default()
        };
        world.apply(Command::UpdateNode(Box::new(report))).unwrap();
        assert_eq!(digest(&world), before);
        world.apply(Command::RenameNode(node, "tv".into())).unwrap();
        assert_ne!(digest(&world), before);
    }
}
