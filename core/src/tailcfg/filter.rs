//! `tailcfg.FilterRule`.

use serde::Serialize;

/// A packet filter rule: sources and the destination ports that they may reach.
#[derive(Debug, Clone, Serialize)]
pub struct FilterRule {
    /// Sources: addresses, prefixes, ranges or `*`.
    #[serde(rename = "SrcIPs")]
    pub src_ips: Vec<String>,
    /// Destinations.
    #[serde(rename = "DstPorts")]
    pub dst_ports: Vec<NetPortRange>,
}

/// Ports of a destination.
#[derive(Debug, Clone, Serialize)]
pub struct NetPortRange {
    /// Address, prefix, range or `*`.
    #[serde(rename = "IP")]
    pub ip: String,
    /// The ports.
    #[serde(rename = "Ports")]
    pub ports: PortRange,
}

/// Ports from first to last.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct PortRange {
    /// First port.
    #[serde(rename = "First")]
    pub first: u16,
    /// Last port.
    #[serde(rename = "Last")]
    pub last: u16,
}

/// The rule that lets everyone reach everyone.
/// Source: `FilterAllowAll` in tailscale `tailcfg/tailcfg.go`.
pub fn allow_all() -> FilterRule {
    let ports = PortRange {
        first: 0,
        last: u16::MAX,
    };
    FilterRule {
        src_ips: vec!["*".to_owned()],
        dst_ports: vec![NetPortRange {
            ip: "*".to_owned(),
            ports,
        }],
    }
}
