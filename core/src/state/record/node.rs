//! Nodes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::id::{NodeId, PreAuthKeyId, UserId};
use crate::keys::{DiscoKey, LockKey, MachineKey, NodeKey};
use crate::state::model::{Facets, Node, Owner, Presence, RegisteredBy, WireGuard};
use crate::state::record::codec::{Reader, encode};
use crate::state::record::ending::EndingV1;
use crate::state::record::hostinfo::HostinfoV1;
use crate::state::record::{DecodeError, Stored};
use crate::wan::address::is_endpoint;

const NEWEST: u8 = 4;

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

/// What version 2 added.
#[derive(Serialize, Deserialize)]
struct NodeV2 {
    os_version: Box<str>,
    authorized: bool,
    wireguard: Option<WireGuardV2>,
    /// Each as address and prefix length.
    approved_routes: Vec<(IpAddr, u8)>,
}

/// What version 3 added.
#[derive(Serialize, Deserialize)]
struct NodeV3 {
    expired: bool,
}

/// What version 4 added.
#[derive(Serialize, Deserialize)]
struct NodeV4 {
    ending: EndingV1,
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
enum PresenceV1 {
    New,
    There,
    Away(i64),
}

#[derive(Serialize, Deserialize)]
struct WireGuardV2 {
    masquerade_v4: Option<Ipv4Addr>,
    masquerade_v6: Option<Ipv6Addr>,
    exit_dns: Box<[Box<str>]>,
}

impl Stored for Node {
    fn encode(&self) -> Vec<u8> {
        let third = NodeV3 {
            expired: self.expired,
        };
        let fourth = NodeV4 {
            ending: self.ending.into(),
        };
        encode(NEWEST, &(NodeV1::of(self), NodeV2::of(self), third, fourth))
    }

    /// A node that was connected when it was written is expected back: its presence is `Returning`.
    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::open(bytes, NEWEST)?;
        let first: NodeV1 = reader.read()?;
        let second = reader.added(2, NodeV2::before())?;
        // Before version 3 the clock alone said whether a key had expired.
        let NodeV3 { expired } = reader.added(3, NodeV3 { expired: false })?;
        let ending = EndingV1::before(first.expiry_ms, expired);
        let NodeV4 { ending } = reader.added(4, NodeV4 { ending })?;
        let wireguard = second.wireguard.map(|device| Arc::new(device.into()));
        let routes = second.approved_routes.into_iter();
        Ok(Self {
            id: first.id,
            machine: MachineKey::from_bytes(first.machine),
            key: NodeKey::from_bytes(first.key),
            disco: first.disco.map(DiscoKey::from_bytes),
            lock: first.lock.map(LockKey::from_bytes),
            owner: first.owner.into(),
            label: first.label,
            label_chosen: first.label_chosen,
            hostinfo: first.hostinfo.into_domain(second.os_version),
            ipv4: first.ipv4,
            ipv6: first.ipv6,
            created: Timestamp::from_unix_ms(first.created_ms),
            expiry: first.expiry_ms.map(Timestamp::from_unix_ms),
            ending: ending.into(),
            expired,
            authorized: second.authorized,
            approved_routes: routes
                .filter_map(|(address, bits)| IpNet::new(address, bits).ok())
                .collect(),
            primary_routes: Arc::default(),
            unhealthy: false,
            forwarding_off: false,
            ephemeral: first.ephemeral,
            registered_by: first.registered_by.into(),
            capability: first.capability,
            home_derp: first.home_derp,
            endpoints: first
                .endpoints
                .into_iter()
                .filter(|endpoint| is_endpoint(*endpoint))
                .collect(),
            live: false,
            unmet_tags: Box::default(),
            presence: match wireguard {
                Some(_) => Presence::Fixed,
                None => first.presence.into(),
            },
            wireguard,
            facets: Facets::default(),
            unflushed: false,
        })
    }
}

impl NodeV1 {
    fn of(node: &Node) -> Self {
        Self {
            id: node.id,
            machine: *node.machine.as_bytes(),
            key: *node.key.as_bytes(),
            disco: node.disco.map(|key| *key.as_bytes()),
            lock: node.lock.map(|key| *key.as_bytes()),
            owner: OwnerV1::of(&node.owner),
            label: node.label.clone(),
            label_chosen: node.label_chosen,
            hostinfo: HostinfoV1::of(&node.hostinfo),
            ipv4: node.ipv4,
            ipv6: node.ipv6,
            created_ms: node.created.unix_ms(),
            expiry_ms: node.expiry.map(Timestamp::unix_ms),
            ephemeral: node.ephemeral,
            registered_by: RegisteredByV1::of(node.registered_by),
            capability: node.capability,
            home_derp: node.home_derp,
            endpoints: node.endpoints.to_vec(),
            presence: PresenceV1::of(node.presence),
        }
    }
}

impl NodeV2 {
    fn of(node: &Node) -> Self {
        let routes = node.approved_routes.iter();
        Self {
            os_version: node.hostinfo.os_version.clone(),
            authorized: node.authorized,
            wireguard: node.wireguard.as_deref().map(WireGuardV2::of),
            approved_routes: routes
                .map(|route| (route.addr(), route.prefix_len()))
                .collect(),
        }
    }

    /// For a node of version 1, which needed no approval.
    fn before() -> Self {
        Self {
            os_version: Box::default(),
            authorized: true,
            wireguard: None,
            approved_routes: Vec::new(),
        }
    }
}

impl OwnerV1 {
    fn of(owner: &Owner) -> Self {
        match owner {
            Owner::User(id) => Self::User(*id),
            Owner::Tags(tags) => Self::Tags(tags.to_vec()),
        }
    }
}

impl From<OwnerV1> for Owner {
    fn from(owner: OwnerV1) -> Self {
        match owner {
            OwnerV1::User(id) => Self::User(id),
            OwnerV1::Tags(tags) => Self::Tags(tags.into()),
        }
    }
}

impl RegisteredByV1 {
    fn of(registered_by: RegisteredBy) -> Self {
        match registered_by {
            RegisteredBy::PreAuthKey(id) => Self::PreAuthKey(id),
            RegisteredBy::Approval => Self::Approval,
            RegisteredBy::Hand => Self::Hand,
        }
    }
}

impl From<RegisteredByV1> for RegisteredBy {
    fn from(registered_by: RegisteredByV1) -> Self {
        match registered_by {
            RegisteredByV1::PreAuthKey(id) => Self::PreAuthKey(id),
            RegisteredByV1::Approval => Self::Approval,
            RegisteredByV1::Hand => Self::Hand,
        }
    }
}

impl PresenceV1 {
    fn of(presence: Presence) -> Self {
        match presence {
            Presence::New { .. } => Self::New,
            Presence::Offline { since, .. } => Self::Away(since.unix_ms()),
            Presence::Returning
            | Presence::Online(_)
            | Presence::Leaving { .. }
            | Presence::Fixed => Self::There,
        }
    }
}

impl From<PresenceV1> for Presence {
    fn from(presence: PresenceV1) -> Self {
        match presence {
            PresenceV1::New => Self::New {
                since_mono: Duration::ZERO,
            },
            PresenceV1::There => Self::Returning,
            PresenceV1::Away(since) => Self::Offline {
                since: Timestamp::from_unix_ms(since),
                since_mono: Duration::ZERO,
            },
        }
    }
}

impl WireGuardV2 {
    fn of(device: &WireGuard) -> Self {
        Self {
            masquerade_v4: device.masquerade_v4,
            masquerade_v6: device.masquerade_v6,
            exit_dns: device.exit_dns.clone(),
        }
    }
}

impl From<WireGuardV2> for WireGuard {
    fn from(device: WireGuardV2) -> Self {
        Self {
            masquerade_v4: device.masquerade_v4,
            masquerade_v6: device.masquerade_v6,
            exit_dns: device.exit_dns,
        }
    }
}
