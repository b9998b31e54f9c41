//! `tailcfg.DNSConfig`.
//!
//! Lists are left out or full, but for those of `Routes`, which say something when they are empty; none
//! is ever null, which tailscale-rs does not read (`ts_control_serde`).

use std::collections::BTreeMap;

use serde::Serialize;

/// DNS settings of a node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct DnsConfig {
    /// Resolvers that replace those of the device.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub resolvers: Vec<Resolver>,
    /// Domains and who answers for the names in them. With an empty list it is the client itself, from
    /// what it knows; a null would be lost on its way through the client (`DNSConfig.Clone`).
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub routes: BTreeMap<String, Vec<Resolver>>,
    /// Resolvers for devices that cannot use their own and the routes at the same time.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fallback_resolvers: Vec<Resolver>,
    /// Search domains, without a dot at the end.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub domains: Vec<String>,
    /// Whether the client answers for the tailnet's names (MagicDNS).
    pub proxied: bool,
    /// Names beside those of the nodes.
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
    /// The full name, without a dot at the end.
    pub name: String,
    /// `A` or `AAAA`; clients know no others.
    pub r#type: &'static str,
    /// The address.
    pub value: String,
}
