//! One durable change: what is committed, exported, imported and migrated, and nothing else.
//!
//! A value is one version byte and a postcard encoding of the version's struct. A struct that has been
//! released is never edited: a new version gets a new struct, and `decode` keeps reading the old one.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::id::{ApiKeyId, NodeId, PreAuthKeyId, UserId};
use crate::keys::{DiscoKey, LockKey, MachineKey, NodeKey};
use crate::state::attributes::{AttributeValue, Attributes};
use crate::state::model::{
    ApiKey, AuthId, Counters, Facets, Hostinfo, Node, Owner, Pending, PendingState, PreAuthKey,
    Presence, RegisteredBy, User,
};
use crate::state::secret::SecretHash;

/// One durable put or delete.
#[derive(Debug, Clone)]
pub enum Record {
    /// The next numbers.
    Counters(Counters),
    /// A user as it now is.
    PutUser(Arc<User>),
    /// A user is gone.
    DeleteUser(UserId),
    /// A node as it now is.
    PutNode(Arc<Node>),
    /// A node is gone.
    DeleteNode(NodeId),
    /// The attributes of a node as they now are.
    PutAttributes(NodeId, Arc<Attributes>),
    /// A node has no attributes any more.
    DeleteAttributes(NodeId),
    /// A preauth key as it now is.
    PutPreAuthKey(Arc<PreAuthKey>),
    /// A preauth key is gone.
    DeletePreAuthKey(PreAuthKeyId),
    /// An API key as it now is.
    PutApiKey(Arc<ApiKey>),
    /// An API key is gone.
    DeleteApiKey(ApiKeyId),
    /// A login as it now stands.
    PutPending(Arc<Pending>),
    /// A login is gone.
    DeletePending(AuthId),
}

/// A stored value that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A newer hearth wrote it.
    #[error("written by a newer hearth (record version {0})")]
    Newer(u8),
    /// It is damaged.
    #[error("damaged")]
    Damaged,
}

const VERSION: u8 = 1;

/// A domain type with a stored form.
pub trait Stored: Sized {
    /// The bytes to store.
    fn encode(&self) -> Vec<u8>;
    /// The value that these bytes hold.
    ///
    /// # Errors
    /// When a newer hearth wrote them, or they are damaged.
    fn decode(bytes: &[u8]) -> Result<Self, DecodeError>;
}

fn encode_as<V: Serialize>(value: &V) -> Vec<u8> {
    let bytes = postcard::to_extend(value, vec![VERSION]);
    bytes.expect("postcard fails only for values of unknown length, and these have none")
}

fn decode_as<V: for<'de> Deserialize<'de>>(bytes: &[u8]) -> Result<V, DecodeError> {
    match bytes.split_first() {
        Some((&VERSION, rest)) => postcard::from_bytes(rest).map_err(|_| DecodeError::Damaged),
        Some((&version, _)) if version > VERSION => Err(DecodeError::Newer(version)),
        _ => Err(DecodeError::Damaged),
    }
}

fn ms(time: Timestamp) -> i64 {
    time.unix_ms()
}

#[derive(Serialize, Deserialize)]
struct CountersV1 {
    node: NodeId,
    user: UserId,
    preauth_key: PreAuthKeyId,
    api_key: ApiKeyId,
}

impl Stored for Counters {
    fn encode(&self) -> Vec<u8> {
        encode_as(&CountersV1 {
            node: self.node,
            user: self.user,
            preauth_key: self.preauth_key,
            api_key: self.api_key,
        })
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let stored: CountersV1 = decode_as(bytes)?;
        Ok(Self {
            node: stored.node,
            user: stored.user,
            preauth_key: stored.preauth_key,
            api_key: stored.api_key,
        })
    }
}

#[derive(Serialize, Deserialize)]
struct UserV1 {
    id: UserId,
    name: Box<str>,
    display_name: Box<str>,
    email: Box<str>,
    picture_url: Box<str>,
    created_ms: i64,
}

impl Stored for User {
    fn encode(&self) -> Vec<u8> {
        encode_as(&UserV1 {
            id: self.id,
            name: self.name.clone(),
            display_name: self.display_name.clone(),
            email: self.email.clone(),
            picture_url: self.picture_url.clone(),
            created_ms: ms(self.created),
        })
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let stored: UserV1 = decode_as(bytes)?;
        Ok(Self {
            id: stored.id,
            name: stored.name,
            display_name: stored.display_name,
            email: stored.email,
            picture_url: stored.picture_url,
            created: Timestamp::from_unix_ms(stored.created_ms),
        })
    }
}

#[derive(Serialize, Deserialize)]
enum OwnerV1 {
    User(UserId),
    Tags(Vec<Box<str>>),
}

#[derive(Serialize, Deserialize)]
enum RegisteredByV1 {
    PreAuthKey(PreAuthKeyId),
    Approval,
}

#[derive(Serialize, Deserialize)]
struct HostinfoV1 {
    raw: Box<str>,
    shared: Box<str>,
    hostname: Box<str>,
    os: Box<str>,
    client_version: Box<str>,
    routable_ips: Box<[Box<str>]>,
    request_tags: Box<[Box<str>]>,
}

impl HostinfoV1 {
    fn of(hostinfo: &Hostinfo) -> Self {
        Self {
            raw: hostinfo.raw.clone(),
            shared: hostinfo.shared.clone(),
            hostname: hostinfo.hostname.clone(),
            os: hostinfo.os.clone(),
            client_version: hostinfo.client_version.clone(),
            routable_ips: hostinfo.routable_ips.clone(),
            request_tags: hostinfo.request_tags.clone(),
        }
    }

    fn into_domain(self) -> Arc<Hostinfo> {
        Arc::new(Hostinfo {
            raw: self.raw,
            shared: self.shared,
            hostname: self.hostname,
            os: self.os,
            client_version: self.client_version,
            routable_ips: self.routable_ips,
            request_tags: self.request_tags,
        })
    }
}

#[derive(Serialize, Deserialize)]
enum PresenceV1 {
    New,
    There,
    Away(i64),
}

#[derive(Serialize, Deserialize)]
struct NodeV1 {
    id: NodeId,
    machine: [u8; 32],
    key: [u8; 32],
    disco: Option<[u8; 32]>,
    lock: Option<[u8; 32]>,
    owner: OwnerV1,
    label: Box<str>,
    label_chosen: bool,
    hostinfo: HostinfoV1,
    ipv4: Ipv4Addr,
    ipv6: Ipv6Addr,
    created_ms: i64,
    expiry_ms: Option<i64>,
    ephemeral: bool,
    registered_by: RegisteredByV1,
    capability: u16,
    home_derp: u16,
    endpoints: Vec<SocketAddr>,
    presence: PresenceV1,
}

impl Stored for Node {
    fn encode(&self) -> Vec<u8> {
        encode_as(&NodeV1 {
            id: self.id,
            machine: *self.machine.as_bytes(),
            key: *self.key.as_bytes(),
            disco: self.disco.map(|key| *key.as_bytes()),
            lock: self.lock.map(|key| *key.as_bytes()),
            owner: match &self.owner {
                Owner::User(id) => OwnerV1::User(*id),
                Owner::Tags(tags) => OwnerV1::Tags(tags.to_vec()),
            },
            label: self.label.clone(),
            label_chosen: self.label_chosen,
            hostinfo: HostinfoV1::of(&self.hostinfo),
            ipv4: self.ipv4,
            ipv6: self.ipv6,
            created_ms: ms(self.created),
            expiry_ms: self.expiry.map(ms),
            ephemeral: self.ephemeral,
            registered_by: match self.registered_by {
                RegisteredBy::PreAuthKey(id) => RegisteredByV1::PreAuthKey(id),
                RegisteredBy::Approval => RegisteredByV1::Approval,
            },
            capability: self.capability,
            home_derp: self.home_derp,
            endpoints: self.endpoints.to_vec(),
            presence: match self.presence {
                Presence::New => PresenceV1::New,
                Presence::Offline { since, .. } => PresenceV1::Away(ms(since)),
                Presence::Returning | Presence::Online(_) | Presence::Leaving { .. } => {
                    PresenceV1::There
                }
            },
        })
    }

    /// A node that was there when it was written is expected back: its presence is `Returning`.
    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let stored: NodeV1 = decode_as(bytes)?;
        Ok(Self {
            id: stored.id,
            machine: MachineKey::from_bytes(stored.machine),
            key: NodeKey::from_bytes(stored.key),
            disco: stored.disco.map(DiscoKey::from_bytes),
            lock: stored.lock.map(LockKey::from_bytes),
            owner: match stored.owner {
                OwnerV1::User(id) => Owner::User(id),
                OwnerV1::Tags(tags) => Owner::Tags(tags.into()),
            },
            label: stored.label,
            label_chosen: stored.label_chosen,
            hostinfo: stored.hostinfo.into_domain(),
            ipv4: stored.ipv4,
            ipv6: stored.ipv6,
            created: Timestamp::from_unix_ms(stored.created_ms),
            expiry: stored.expiry_ms.map(Timestamp::from_unix_ms),
            expired: false,
            ephemeral: stored.ephemeral,
            registered_by: match stored.registered_by {
                RegisteredByV1::PreAuthKey(id) => RegisteredBy::PreAuthKey(id),
                RegisteredByV1::Approval => RegisteredBy::Approval,
            },
            capability: stored.capability,
            home_derp: stored.home_derp,
            endpoints: stored.endpoints.into(),
            live: false,
            presence: match stored.presence {
                PresenceV1::New => Presence::New,
                PresenceV1::There => Presence::Returning,
                PresenceV1::Away(at) => Presence::Offline {
                    since: Timestamp::from_unix_ms(at),
                    since_mono: std::time::Duration::ZERO,
                },
            },
            facets: Facets::default(),
            unflushed: false,
        })
    }
}

#[derive(Serialize, Deserialize)]
enum AttributeV1 {
    Text(Box<str>),
    Number(i64),
    Flag(bool),
}

impl Stored for Attributes {
    fn encode(&self) -> Vec<u8> {
        let stored: Vec<(&str, AttributeV1)> = self
            .iter()
            .map(|(name, value)| {
                let value = match value {
                    AttributeValue::Text(text) => AttributeV1::Text(text.clone()),
                    AttributeValue::Number(number) => AttributeV1::Number(*number),
                    AttributeValue::Flag(flag) => AttributeV1::Flag(*flag),
                };
                (&**name, value)
            })
            .collect();
        encode_as(&stored)
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let stored: Vec<(Box<str>, AttributeV1)> = decode_as(bytes)?;
        let attributes = stored.into_iter().map(|(name, value)| {
            let value = match value {
                AttributeV1::Text(text) => AttributeValue::Text(text),
                AttributeV1::Number(number) => AttributeValue::Number(number),
                AttributeV1::Flag(flag) => AttributeValue::Flag(flag),
            };
            (name, value)
        });
        Ok(attributes.collect())
    }
}

#[derive(Serialize, Deserialize)]
struct PreAuthKeyV1 {
    id: PreAuthKeyId,
    prefix: Box<str>,
    hash: [u8; 32],
    user: Option<UserId>,
    tags: Vec<Box<str>>,
    reusable: bool,
    ephemeral: bool,
    used: bool,
    expiry_ms: Option<i64>,
    created_ms: i64,
}

impl Stored for PreAuthKey {
    fn encode(&self) -> Vec<u8> {
        encode_as(&PreAuthKeyV1 {
            id: self.id,
            prefix: self.prefix.clone(),
            hash: self.hash.to_bytes(),
            user: self.user,
            tags: self.tags.to_vec(),
            reusable: self.reusable,
            ephemeral: self.ephemeral,
            used: self.used,
            expiry_ms: self.expiry.map(ms),
            created_ms: ms(self.created),
        })
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let stored: PreAuthKeyV1 = decode_as(bytes)?;
        Ok(Self {
            id: stored.id,
            prefix: stored.prefix,
            hash: SecretHash::from_bytes(stored.hash),
            user: stored.user,
            tags: stored.tags.into(),
            reusable: stored.reusable,
            ephemeral: stored.ephemeral,
            used: stored.used,
            expiry: stored.expiry_ms.map(Timestamp::from_unix_ms),
            created: Timestamp::from_unix_ms(stored.created_ms),
        })
    }
}

#[derive(Serialize, Deserialize)]
struct ApiKeyV1 {
    id: ApiKeyId,
    prefix: Box<str>,
    hash: [u8; 32],
    expiry_ms: Option<i64>,
    created_ms: i64,
}

impl Stored for ApiKey {
    fn encode(&self) -> Vec<u8> {
        encode_as(&ApiKeyV1 {
            id: self.id,
            prefix: self.prefix.clone(),
            hash: self.hash.to_bytes(),
            expiry_ms: self.expiry.map(ms),
            created_ms: ms(self.created),
        })
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let stored: ApiKeyV1 = decode_as(bytes)?;
        Ok(Self {
            id: stored.id,
            prefix: stored.prefix,
            hash: SecretHash::from_bytes(stored.hash),
            expiry: stored.expiry_ms.map(Timestamp::from_unix_ms),
            created: Timestamp::from_unix_ms(stored.created_ms),
        })
    }
}

#[derive(Serialize, Deserialize)]
enum PendingStateV1 {
    Waiting,
    Rejected,
    Approved(NodeId),
}

#[derive(Serialize, Deserialize)]
struct PendingV1 {
    id: Box<str>,
    machine: [u8; 32],
    key: [u8; 32],
    lock: Option<[u8; 32]>,
    hostinfo: HostinfoV1,
    ephemeral: bool,
    expiry_ms: Option<i64>,
    capability: u16,
    created_ms: i64,
    state: PendingStateV1,
}

impl Stored for Pending {
    fn encode(&self) -> Vec<u8> {
        encode_as(&PendingV1 {
            id: self.id.as_str().into(),
            machine: *self.machine.as_bytes(),
            key: *self.key.as_bytes(),
            lock: self.lock.map(|key| *key.as_bytes()),
            hostinfo: HostinfoV1::of(&self.hostinfo),
            ephemeral: self.ephemeral,
            expiry_ms: self.expiry.map(ms),
            capability: self.capability,
            created_ms: ms(self.created),
            state: match self.state {
                PendingState::Waiting => PendingStateV1::Waiting,
                PendingState::Rejected => PendingStateV1::Rejected,
                PendingState::Approved(node) => PendingStateV1::Approved(node),
            },
        })
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let stored: PendingV1 = decode_as(bytes)?;
        Ok(Self {
            id: stored.id.parse().map_err(|_| DecodeError::Damaged)?,
            machine: MachineKey::from_bytes(stored.machine),
            key: NodeKey::from_bytes(stored.key),
            lock: stored.lock.map(LockKey::from_bytes),
            hostinfo: stored.hostinfo.into_domain(),
            ephemeral: stored.ephemeral,
            expiry: stored.expiry_ms.map(Timestamp::from_unix_ms),
            capability: stored.capability,
            created: Timestamp::from_unix_ms(stored.created_ms),
            state: match stored.state {
                PendingStateV1::Waiting => PendingState::Waiting,
                PendingStateV1::Rejected => PendingState::Rejected,
                PendingStateV1::Approved(node) => PendingState::Approved(node),
            },
        })
    }
}
