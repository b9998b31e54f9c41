//! Public addresses, and the findings of `hearth doctor`.

use serde::{Deserialize, Serialize};

use hearth_core::clock::Timestamp;

/// Public addresses.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Wan {
    /// Whether the addresses of the WAN interface differ from those of the refresh before; only in the
    /// response to a refresh.
    pub changed: bool,
    /// WAN interface; empty for none.
    pub interface: String,
    /// IPv4 address of the WAN interface, public or not; empty for none.
    pub ipv4: String,
    /// IPv6 address of the WAN interface; empty for none.
    pub ipv6: String,
    /// Kind of the IPv4 address: `public`, `private`, `carrier` (carrier-grade NAT), `local`;
    /// empty without one.
    pub kind: String,
    /// Public IPv4 address; empty for none.
    pub outside_ipv4: String,
    /// Public IPv6 address; empty for none.
    pub outside_ipv6: String,
    /// Source of the public IPv4 address: `interface`, `configuration`, `port-mapping`, `stun`; empty without one.
    pub outside_from: String,
    /// Whether the public addresses are advertised to clients.
    pub publishing: bool,
    /// Addresses advertised to clients, so that they find the server without DNS.
    pub published: Vec<String>,
    /// When the public addresses last changed; `null` if not since hearth started.
    pub since: Option<Timestamp>,
    /// How changes are detected: `netlink`, or `looking` (polling) where netlink is unavailable.
    pub noticed_by: String,
    /// Port mappings on the upstream router.
    pub port_mapping: PortMapping,
}

/// Port mappings on the upstream router.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PortMapping {
    /// Whether port mapping is enabled.
    pub enabled: bool,
    /// Protocol: `pcp`, `nat-pmp`, `upnp`; empty while the router has not responded.
    pub protocol: String,
    /// Address of the router; empty while unknown.
    pub gateway: String,
    /// Error; empty for none.
    pub fault: String,
    /// The ports.
    pub ports: Vec<MappedPort>,
}

/// A mapped port.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MappedPort {
    /// `tcp` or `udp`.
    pub protocol: String,
    /// Local port.
    pub internal: u16,
    /// External port; 0 while there is none.
    pub external: u16,
    /// Whether the mapping is active.
    pub mapped: bool,
}

/// Result of `hearth doctor`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Diagnosis {
    /// Time of the diagnosis.
    pub checked_at: Timestamp,
    /// Level of the worst finding.
    pub worst: String,
    /// Number of findings by level.
    pub counts: Counts,
    /// The findings, worst first.
    pub findings: Vec<Finding>,
    /// Public addresses.
    pub wan: Wan,
}

/// Number of findings by level.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counts {
    /// Level `ok`.
    pub ok: usize,
    /// Level `note`.
    pub note: usize,
    /// Level `warning`.
    pub warning: usize,
    /// Level `problem`.
    pub problem: usize,
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Stable identifier, such as `wan.carrier-nat`.
    pub id: String,
    /// `ok`, `note`, `warning` or `problem`.
    pub level: String,
    /// Summary in one line.
    pub title: String,
    /// Details; may be empty.
    pub detail: String,
    /// Advice; may be empty.
    pub advice: String,
}
