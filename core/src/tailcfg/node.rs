//! `tailcfg.Node` as hearth writes it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use serde::Serialize;
use serde_json::value::RawValue;

use crate::clock::Timestamp;
use crate::keys::{DiscoKey, MachineKey, NodeKey};
use crate::tailcfg::dns::Resolver;

/// Values of a node capability; hearth sends lists only, never null (the Rust client takes both).
pub type CapMap<'a> = BTreeMap<&'a str, Cow<'a, [serde_json::Value]>>;

/// A node, for itself or for a peer.
///
/// Both forms of the home region and the explicit `AllowedIPs` are always written: clients before
/// capability versions 111 and 112 need them, and newer ones take them.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Node<'a> {
    /// Number of the node.
    #[serde(rename = "ID")]
    pub id: u64,
    /// The same as text; opaque to clients.
    #[serde(rename = "StableID")]
    pub stable_id: String,
    /// Full name with a dot at the end.
    pub name: String,
    /// Number of the owner.
    pub user: u64,
    /// WireGuard key.
    pub key: NodeKey,
    /// When the key ends; absent for never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_expiry: Option<Timestamp>,
    /// Key of the installation; told to the node itself only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub machine: Option<MachineKey>,
    /// Key for path discovery.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disco_key: Option<DiscoKey>,
    /// IPv4 and IPv6 address as host prefixes, in this order; no IPv4 where the policy takes it away.
    pub addresses: Vec<String>,
    /// What may be sent to it.
    #[serde(rename = "AllowedIPs")]
    pub allowed_ips: Vec<String>,
    /// The subnet routes among them that it is the one to serve.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub primary_routes: Vec<String>,
    /// Where it may be tried.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub endpoints: &'a [SocketAddr],
    /// Home region in the form of old clients; empty for none.
    #[serde(rename = "DERP", skip_serializing_if = "String::is_empty")]
    pub legacy_derp: String,
    /// Home region; 0 for none.
    #[serde(rename = "HomeDERP", skip_serializing_if = "is_zero")]
    pub home_derp: u16,
    /// What others may know of its machine, as JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostinfo: Option<&'a RawValue>,
    /// When it joined.
    pub created: Timestamp,
    /// Capability version of its client.
    #[serde(skip_serializing_if = "is_zero")]
    pub cap: u16,
    /// Its tags.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub tags: &'a [Box<str>],
    /// When it was last there; absent while it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_seen: Option<Timestamp>,
    /// Whether it is there.
    pub online: bool,
    /// Whether it may talk.
    #[serde(skip_serializing_if = "is_false")]
    pub machine_authorized: bool,
    /// What it may do.
    #[serde(skip_serializing_if = "CapMap::is_empty")]
    pub cap_map: CapMap<'a>,
    /// Whether its key has ended.
    #[serde(skip_serializing_if = "is_false")]
    pub expired: bool,
    /// What else is to be known of a device without a Tailscale client.
    #[serde(flatten)]
    pub wireguard: Option<WireGuard>,
}

/// The fields of a node that is no Tailscale client.
#[derive(Debug, Clone, Serialize)]
pub struct WireGuard {
    /// Always true.
    #[serde(rename = "IsWireGuardOnly")]
    pub only: bool,
    /// What it takes our IPv4 address for.
    #[serde(
        rename = "SelfNodeV4MasqAddrForThisPeer",
        skip_serializing_if = "Option::is_none"
    )]
    pub masquerade_v4: Option<Ipv4Addr>,
    /// What it takes our IPv6 address for.
    #[serde(
        rename = "SelfNodeV6MasqAddrForThisPeer",
        skip_serializing_if = "Option::is_none"
    )]
    pub masquerade_v6: Option<Ipv6Addr>,
    /// Resolvers for those who use it as their exit node.
    #[serde(rename = "ExitNodeDNSResolvers", skip_serializing_if = "Vec::is_empty")]
    pub exit_dns: Vec<Resolver>,
}

fn is_zero(number: &u16) -> bool {
    *number == 0
}

fn is_false(flag: &bool) -> bool {
    !flag
}

/// The home region as clients before capability version 111 read it.
/// Source: `DerpMagicIP` in tailscale `tailcfg/tailcfg.go`.
pub fn legacy_derp(region: u16) -> String {
    match region {
        0 => String::new(),
        region => format!("127.3.3.40:{region}"),
    }
}

/// Node capabilities that hearth gives. Source: tailscale `tailcfg/nodecap/nodecap.go`.
pub mod cap {
    /// Taildrop.
    pub const FILE_SHARING: &str = "https://tailscale.com/cap/file-sharing";
    /// The user may administer the tailnet.
    pub const IS_ADMIN: &str = "https://tailscale.com/cap/is-admin";
    /// The user owns the tailnet.
    pub const IS_OWNER: &str = "https://tailscale.com/cap/is-owner";
    /// The node may run the SSH server.
    pub const SSH: &str = "https://tailscale.com/cap/ssh";
    /// On a peer: it may be suggested as an exit node (88).
    pub const SUGGEST_EXIT_NODE: &str = "suggest-exit-node";
    /// On a node itself and on peers: names below its own lead to it.
    pub const DNS_SUBDOMAIN_RESOLVE: &str = "dns-subdomain-resolve";
    /// The client keeps its map, so that it comes up while the control server is away (135).
    pub const CACHE_NETWORK_MAPS: &str = "cache-network-maps";
    /// Names have AAAA records too (116).
    pub const MAGICDNS_AAAA: &str = "magicdns-aaaa";
    /// Whether clients update themselves where nobody said otherwise (131).
    pub const DEFAULT_AUTO_UPDATE: &str = "default-auto-update";
}
