//! `tailcfg.DNSConfig`.

use std::collections::BTreeMap;

use serde::Serialize;

/// DNS settings of a node.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct DnsConfig {
    /// Names and who answers them; an empty list is answered by the client itself.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub routes: BTreeMap<String, Vec<Resolver>>,
    /// Search domains, without a dot at the end.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub domains: Vec<String>,
    /// Whether the client answers for the tailnet's names (MagicDNS).
    pub proxied: bool,
}

/// `dnstype.Resolver`.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Resolver {
    /// Address of the resolver.
    pub addr: String,
}
