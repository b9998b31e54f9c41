//! `tailcfg.Node` as hearth writes it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use serde::Serialize;
use serde_json::value::RawValue;

use crate::clock::Timestamp;
use crate::keys::{DiscoKey, MachineKey, NodeKey};
use crate::tailcfg::dns::Resolver;

/// Node capabilities and their values; always lists, never null (the Rust client accepts both).
pub type CapMap<'a> = BTreeMap<&'a str, Cow<'a, [serde_json::Value]>>;

/// A node, as sent to itself or to a peer.
///
/// Both forms of the home region and the explicit `AllowedIPs` are always written: clients before
/// capability versions 111 and 112 need them, and newer ones accept them.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Node<'a> {
    /// Number of the node.
    #[serde(rename = "ID")]
    pub id: u64,
    /// The same as a string; opaque to clients.
    #[serde(rename = "StableID")]
    pub stable_id: String,
    /// Full name with a trailing dot.
    pub name: String,
    /// Number of the owner.
    pub user: u64,
    /// WireGuard key.
    pub key: NodeKey,
    /// Key expiry; absent for never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_expiry: Option<Timestamp>,
    /// Machine key; only sent to the node itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub machine: Option<MachineKey>,
    /// Disco key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disco_key: Option<DiscoKey>,
    /// IPv4 and IPv6 address as host prefixes, in this order; no IPv4 if the policy disables it.
    pub addresses: Vec<String>,
    /// Addresses and routes that peers send to it.
    #[serde(rename = "AllowedIPs")]
    pub allowed_ips: Vec<String>,
    /// Subnet routes that it is the primary router of.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub primary_routes: Vec<String>,
    /// Endpoint candidates, as the node reports them.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub endpoints: &'a [SocketAddr],
    /// Home region in the form for old clients; empty for none.
    #[serde(rename = "DERP", skip_serializing_if = "String::is_empty")]
    pub legacy_derp: String,
    /// Home region; 0 for none.
    #[serde(rename = "HomeDERP", skip_serializing_if = "is_zero")]
    pub home_derp: u16,
    /// Hostinfo for peers, as JSON.
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
    /// When it was last online; absent while it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_seen: Option<Timestamp>,
    /// Whether it is online.
    pub online: bool,
    /// Whether it is approved.
    #[serde(skip_serializing_if = "is_false")]
    pub machine_authorized: bool,
    /// Node capabilities.
    #[serde(skip_serializing_if = "CapMap::is_empty")]
    pub cap_map: CapMap<'a>,
    /// Whether its key is expired.
    #[serde(skip_serializing_if = "is_false")]
    pub expired: bool,
    /// Further fields of a WireGuard-only device.
    #[serde(flatten)]
    pub wireguard: Option<WireGuard>,
}

/// The fields of a WireGuard-only node.
#[derive(Debug, Clone, Serialize)]
pub struct WireGuard {
    /// Always true.
    #[serde(rename = "IsWireGuardOnly")]
    pub only: bool,
    /// IPv4 address that the viewer has for this peer.
    #[serde(
        rename = "SelfNodeV4MasqAddrForThisPeer",
        skip_serializing_if = "Option::is_none"
    )]
    pub masquerade_v4: Option<Ipv4Addr>,
    /// IPv6 address that the viewer has for this peer.
    #[serde(
        rename = "SelfNodeV6MasqAddrForThisPeer",
        skip_serializing_if = "Option::is_none"
    )]
    pub masquerade_v6: Option<Ipv6Addr>,
    /// DNS resolvers for peers that use it as an exit node.
    #[serde(rename = "ExitNodeDNSResolvers", skip_serializing_if = "Vec::is_empty")]
    pub exit_dns: Vec<Resolver>,
}

fn is_zero(number: &u16) -> bool {
    *number == 0
}

fn is_false(flag: &bool) -> bool {
    !flag
}

/// The home region in the form for clients before capability version 111.
/// Source: `DerpMagicIP` in tailscale `tailcfg/tailcfg.go`.
pub fn legacy_derp(region: u16) -> String {
    match region {
        0 => String::new(),
        region => format!("127.3.3.40:{region}"),
    }
}

/// Node capabilities that hearth grants. Source: tailscale `tailcfg/nodecap/nodecap.go`.
pub mod cap {
    /// Taildrop.
    pub const FILE_SHARING: &str = "https://tailscale.com/cap/file-sharing";
    /// The user may administer the tailnet.
    pub const IS_ADMIN: &str = "https://tailscale.com/cap/is-admin";
    /// The user owns the tailnet.
    pub const IS_OWNER: &str = "https://tailscale.com/cap/is-owner";
    /// The node may run the SSH server.
    pub const SSH: &str = "https://tailscale.com/cap/ssh";
    /// Of a peer: may be suggested as an exit node (88).
    pub const SUGGEST_EXIT_NODE: &str = "suggest-exit-node";
    /// Of a node or peer: it answers for every subdomain of its name.
    pub const DNS_SUBDOMAIN_RESOLVE: &str = "dns-subdomain-resolve";
    /// The client caches its map, so that it can start while the control server is down (135).
    pub const CACHE_NETWORK_MAPS: &str = "cache-network-maps";
    /// Names have AAAA records too (116).
    pub const MAGICDNS_AAAA: &str = "magicdns-aaaa";
    /// Whether clients update themselves by default (131).
    pub const DEFAULT_AUTO_UPDATE: &str = "default-auto-update";
}
