//! `tailcfg.DNSConfig`.
//!
//! Empty lists are left out, except those of `Routes`, which have a meaning. No list is ever null, which
//! tailscale-rs cannot parse (`ts_control_serde`).

use std::collections::BTreeMap;

use serde::Serialize;

/// DNS settings of a node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct DnsConfig {
    /// Resolvers that replace those of the device.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub resolvers: Vec<Resolver>,
    /// Domains and their resolvers. With an empty list the client answers itself, from its map; a null would be
    /// lost inside the client (`DNSConfig.Clone`).
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub routes: BTreeMap<String, Vec<Resolver>>,
    /// Resolvers for devices that cannot combine their own resolvers with routes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fallback_resolvers: Vec<Resolver>,
    /// Search domains, without a trailing dot.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub domains: Vec<String>,
    /// Whether the client answers for the tailnet's names (MagicDNS).
    pub proxied: bool,
    /// Records beside the names of nodes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub extra_records: Vec<ExtraRecord>,
}

/// `dnstype.Resolver`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Resolver {
    /// Address of the resolver: an IP address, one with a port, or an `https://` URL.
    pub addr: String,
    /// Whether it is used while the client uses an exit node (125).
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub use_with_exit_node: bool,
}

/// `tailcfg.DNSRecord`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ExtraRecord {
    /// The full name, without a trailing dot.
    pub name: String,
    /// `A` or `AAAA`; clients know no others.
    pub r#type: &'static str,
    /// The address.
    pub value: String,
}
