//! One durable change: what is committed, exported, imported and migrated, and nothing else.
//!
//! A value is one version byte and a postcard encoding of the version's struct. A struct that has been
//! released is never edited: a new version gets a new struct, and `decode` keeps reading the old one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::id::{ApiKeyId, NodeId, PolicyId, PreAuthKeyId, UserId};
use crate::keys::{DiscoKey, LockKey, MachineKey, NodeKey};
use crate::state::attributes::{AttributeValue, Attributes};
use crate::state::dns::{DnsRecord, DnsValue};
use crate::state::model::{
    ApiKey, AuthId, Counters, Facets, Hostinfo, KeyLife, Node, Owner, Pending, PendingState,
    PolicyText, PreAuthKey, Presence, RegisteredBy, Role, User, WireGuard,
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
    /// A DNS record that is there now.
    PutDnsRecord(DnsRecord),
    /// A DNS record is gone.
    DeleteDnsRecord(DnsRecord),
    /// A version of the policy.
    PutPolicy(Arc<PolicyText>),
    /// A version of the policy is not kept any more.
    DeletePolicy(PolicyId),
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

fn encode_as<V: Serialize>(version: u8, value: &V) -> Vec<u8> {
    let bytes = postcard::to_extend(value, vec![version]);
    bytes.expect("postcard fails only for values of unknown length, and these have none")
}

/// The value of a type that has one version only.
fn decode_as<V: for<'de> Deserialize<'de>>(bytes: &[u8]) -> Result<V, DecodeError> {
    match version_of(bytes)? {
        (1, rest) => parse(rest),
        (version, _) => Err(DecodeError::Newer(version)),
    }
}

/// A stored value's version and the rest of it.
fn version_of(bytes: &[u8]) -> Result<(u8, &[u8]), DecodeError> {
    match bytes.split_first() {
        Some((0, _)) | None => Err(DecodeError::Damaged),
        Some((&version, rest)) => Ok((version, rest)),
    }
}

fn parse<V: for<'de> Deserialize<'de>>(bytes: &[u8]) -> Result<V, DecodeError> {
    postcard::from_bytes(bytes).map_err(|_| DecodeError::Damaged)
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
        encode_as(
            1,
            &CountersV1 {
                node: self.node,
                user: self.user,
                preauth_key: self.preauth_key,
                api_key: self.api_key,
            },
        )
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

#[derive(Serialize, Deserialize)]
enum RoleV2 {
    Owner,
    Admin,
    Member,
}

#[derive(Serialize, Deserialize)]
enum KeyLifeV2 {
    Unlimited,
    Ms(u64),
}

#[derive(Serialize, Deserialize)]
struct UserV2 {
    first: UserV1,
    role: RoleV2,
    node_expiry: Option<KeyLifeV2>,
}

impl UserV1 {
    /// What the first version did not know: whoever came first has set the tailnet up.
    fn into_second(self) -> UserV2 {
        let role = match self.id == UserId::FIRST {
            true => RoleV2::Owner,
            false => RoleV2::Member,
        };
        UserV2 {
            first: self,
            role,
            node_expiry: None,
        }
    }
}

impl Stored for User {
    fn encode(&self) -> Vec<u8> {
        let first = UserV1 {
            id: self.id,
            name: self.name.clone(),
            display_name: self.display_name.clone(),
            email: self.email.clone(),
            picture_url: self.picture_url.clone(),
            created_ms: ms(self.created),
        };
        let second = UserV2 {
            first,
            role: match self.role {
                Role::Owner => RoleV2::Owner,
                Role::Admin => RoleV2::Admin,
                Role::Member => RoleV2::Member,
            },
            node_expiry: self.node_expiry.map(|life| match life {
                KeyLife::Unlimited => KeyLifeV2::Unlimited,
                KeyLife::For(life) => {
                    KeyLifeV2::Ms(u64::try_from(life.as_millis()).unwrap_or(u64::MAX))
                }
            }),
        };
        encode_as(2, &second)
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let stored = match version_of(bytes)? {
            (1, rest) => parse::<UserV1>(rest)?.into_second(),
            (2, rest) => parse(rest)?,
            (version, _) => return Err(DecodeError::Newer(version)),
        };
        let UserV2 { first, .. } = stored;
        Ok(Self {
            id: first.id,
            name: first.name,
            display_name: first.display_name,
            email: first.email,
            picture_url: first.picture_url,
            role: match stored.role {
                RoleV2::Owner => Role::Owner,
                RoleV2::Admin => Role::Admin,
                RoleV2::Member => Role::Member,
            },
            node_expiry: stored.node_expiry.map(|life| match life {
                KeyLifeV2::Unlimited => KeyLife::Unlimited,
                KeyLifeV2::Ms(life) => KeyLife::For(Duration::from_millis(life)),
            }),
            created: Timestamp::from_unix_ms(first.created_ms),
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
    Hand,
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
            routable_ips: hostinfo
                .routable_ips
                .iter()
                .map(|route| route.to_string().into())
                .collect(),
            request_tags: hostinfo.request_tags.clone(),
        }
    }

    fn into_domain(self, os_version: Box<str>) -> Arc<Hostinfo> {
        let routes = self.routable_ips.iter();
        Arc::new(Hostinfo {
            raw: self.raw,
            shared: self.shared,
            hostname: self.hostname,
            os: self.os,
            os_version,
            client_version: self.client_version,
            routable_ips: routes.filter_map(|route| route.parse().ok()).collect(),
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

#[derive(Serialize, Deserialize)]
struct WireGuardV2 {
    masquerade_v4: Option<Ipv4Addr>,
    masquerade_v6: Option<Ipv6Addr>,
    exit_dns: Box<[Box<str>]>,
}

#[derive(Serialize, Deserialize)]
struct NodeV2 {
    first: NodeV1,
    os_version: Box<str>,
    authorized: bool,
    wireguard: Option<WireGuardV2>,
    /// Each as address and length.
    approved_routes: Vec<(IpAddr, u8)>,
}

#[derive(Serialize, Deserialize)]
struct NodeV3 {
    second: NodeV2,
    expired: bool,
}

impl NodeV2 {
    /// What the second version did not know: there, the clock alone says it.
    fn into_third(self) -> NodeV3 {
        NodeV3 {
            second: self,
            expired: false,
        }
    }
}

impl NodeV1 {
    /// What the first version did not know.
    fn into_second(self) -> NodeV2 {
        NodeV2 {
            first: self,
            os_version: Box::default(),
            authorized: true,
            wireguard: None,
            approved_routes: Vec::new(),
        }
    }
}

impl Stored for Node {
    fn encode(&self) -> Vec<u8> {
        let first = NodeV1 {
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
                RegisteredBy::Hand => RegisteredByV1::Hand,
            },
            capability: self.capability,
            home_derp: self.home_derp,
            endpoints: self.endpoints.to_vec(),
            presence: match self.presence {
                Presence::New => PresenceV1::New,
                Presence::Offline { since, .. } => PresenceV1::Away(ms(since)),
                Presence::Returning
                | Presence::Online(_)
                | Presence::Leaving { .. }
                | Presence::Fixed => PresenceV1::There,
            },
        };
        let wireguard = self.wireguard.as_deref().map(|device| WireGuardV2 {
            masquerade_v4: device.masquerade_v4,
            masquerade_v6: device.masquerade_v6,
            exit_dns: device.exit_dns.clone(),
        });
        let routes = self.approved_routes.iter();
        let second = NodeV2 {
            first,
            os_version: self.hostinfo.os_version.clone(),
            authorized: self.authorized,
            wireguard,
            approved_routes: routes
                .map(|route| (route.addr(), route.prefix_len()))
                .collect(),
        };
        let expired = self.expired;
        encode_as(3, &NodeV3 { second, expired })
    }

    /// A node that was there when it was written is expected back: its presence is `Returning`.
    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let NodeV3 { second, expired } = match version_of(bytes)? {
            (1, rest) => parse::<NodeV1>(rest)?.into_second().into_third(),
            (2, rest) => parse::<NodeV2>(rest)?.into_third(),
            (3, rest) => parse(rest)?,
            (version, _) => return Err(DecodeError::Newer(version)),
        };
        let stored = second.first;
        let routes = second.approved_routes.into_iter();
        let wireguard = second.wireguard.map(|device| {
            Arc::new(WireGuard {
                masquerade_v4: device.masquerade_v4,
                masquerade_v6: device.masquerade_v6,
                exit_dns: device.exit_dns,
            })
        });
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
            hostinfo: stored.hostinfo.into_domain(second.os_version),
            ipv4: stored.ipv4,
            ipv6: stored.ipv6,
            created: Timestamp::from_unix_ms(stored.created_ms),
            expiry: stored.expiry_ms.map(Timestamp::from_unix_ms),
            expired,
            authorized: second.authorized,
            approved_routes: routes
                .filter_map(|(address, bits)| IpNet::new(address, bits).ok())
                .collect(),
            primary_routes: Arc::default(),
            unhealthy: false,
            ephemeral: stored.ephemeral,
            registered_by: match stored.registered_by {
                RegisteredByV1::PreAuthKey(id) => RegisteredBy::PreAuthKey(id),
                RegisteredByV1::Approval => RegisteredBy::Approval,
                RegisteredByV1::Hand => RegisteredBy::Hand,
            },
            capability: stored.capability,
            home_derp: stored.home_derp,
            endpoints: stored.endpoints.into(),
            live: false,
            presence: match stored.presence {
                _ if wireguard.is_some() => Presence::Fixed,
                PresenceV1::New => Presence::New,
                PresenceV1::There => Presence::Returning,
                PresenceV1::Away(at) => Presence::Offline {
                    since: Timestamp::from_unix_ms(at),
                    since_mono: Duration::ZERO,
                },
            },
            wireguard,
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
        encode_as(1, &stored)
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

#[derive(Serialize, Deserialize)]
struct PreAuthKeyV2 {
    first: PreAuthKeyV1,
    preauthorized: bool,
}

impl Stored for PreAuthKey {
    fn encode(&self) -> Vec<u8> {
        let first = PreAuthKeyV1 {
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
        };
        let second = PreAuthKeyV2 {
            first,
            preauthorized: self.preauthorized,
        };
        encode_as(2, &second)
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let (stored, preauthorized) = match version_of(bytes)? {
            (1, rest) => (parse::<PreAuthKeyV1>(rest)?, true),
            (2, rest) => {
                let second: PreAuthKeyV2 = parse(rest)?;
                (second.first, second.preauthorized)
            }
            (version, _) => return Err(DecodeError::Newer(version)),
        };
        Ok(Self {
            id: stored.id,
            prefix: stored.prefix,
            hash: SecretHash::from_bytes(stored.hash),
            user: stored.user,
            tags: stored.tags.into(),
            reusable: stored.reusable,
            ephemeral: stored.ephemeral,
            preauthorized,
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
        encode_as(
            1,
            &ApiKeyV1 {
                id: self.id,
                prefix: self.prefix.clone(),
                hash: self.hash.to_bytes(),
                expiry_ms: self.expiry.map(ms),
                created_ms: ms(self.created),
            },
        )
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
        encode_as(
            1,
            &PendingV1 {
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
            },
        )
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let stored: PendingV1 = decode_as(bytes)?;
        Ok(Self {
            id: stored.id.parse().map_err(|_| DecodeError::Damaged)?,
            machine: MachineKey::from_bytes(stored.machine),
            key: NodeKey::from_bytes(stored.key),
            lock: stored.lock.map(LockKey::from_bytes),
            hostinfo: stored.hostinfo.into_domain(Box::default()),
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

#[derive(Serialize, Deserialize)]
enum DnsValueV1 {
    A(Ipv4Addr),
    Aaaa(Ipv6Addr),
    Alias(Box<str>),
}

#[derive(Serialize, Deserialize)]
struct DnsRecordV1 {
    name: Box<str>,
    value: DnsValueV1,
}

impl Stored for DnsRecord {
    fn encode(&self) -> Vec<u8> {
        encode_as(
            1,
            &DnsRecordV1 {
                name: self.name.clone(),
                value: match &self.value {
                    DnsValue::A(address) => DnsValueV1::A(*address),
                    DnsValue::Aaaa(address) => DnsValueV1::Aaaa(*address),
                    DnsValue::Alias(target) => DnsValueV1::Alias(target.clone()),
                },
            },
        )
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let stored: DnsRecordV1 = decode_as(bytes)?;
        Ok(Self {
            name: stored.name,
            value: match stored.value {
                DnsValueV1::A(address) => DnsValue::A(address),
                DnsValueV1::Aaaa(address) => DnsValue::Aaaa(address),
                DnsValueV1::Alias(target) => DnsValue::Alias(target),
            },
        })
    }
}

#[derive(Serialize, Deserialize)]
struct PolicyV1 {
    id: PolicyId,
    source: Box<str>,
    created_ms: i64,
}

impl Stored for PolicyText {
    fn encode(&self) -> Vec<u8> {
        let stored = PolicyV1 {
            id: self.id,
            source: (&*self.source).into(),
            created_ms: ms(self.created),
        };
        encode_as(1, &stored)
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let stored: PolicyV1 = decode_as(bytes)?;
        Ok(Self {
            id: stored.id,
            source: stored.source.into(),
            created: Timestamp::from_unix_ms(stored.created_ms),
        })
    }
}
