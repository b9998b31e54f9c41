//! The addresses outside, and what `hearth doctor` finds.

use serde::{Deserialize, Serialize};

use hearth_core::clock::Timestamp;

/// The addresses outside.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Wan {
    /// Only in the answer to a refresh: whether the addresses of the interface are others than at the
    /// refresh before.
    pub changed: bool,
    /// Interface outside; empty for none.
    pub interface: String,
    /// Its IPv4 address, of whatever kind; empty for none.
    pub ipv4: String,
    /// Its IPv6 address; empty for none.
    pub ipv6: String,
    /// What the IPv4 address is good for: `public`, `private`, `carrier` (shared by several homes), `local`;
    /// empty without one.
    pub kind: String,
    /// The IPv4 address that others reach; empty for none.
    pub outside_ipv4: String,
    /// The IPv6 address that others reach; empty for none.
    pub outside_ipv6: String,
    /// Who says so: `interface`, `configuration`, `port-mapping`, `stun`; empty without one.
    pub outside_from: String,
    /// Whether clients are told the addresses outside.
    pub publishing: bool,
    /// Where clients are told to find the server without DNS.
    pub published: Vec<String>,
    /// When the addresses outside last changed; `null` since the start of hearth.
    pub since: Option<Timestamp>,
    /// How changes are noticed: `netlink`, or `looking` where the system does not tell of them.
    pub noticed_by: String,
    /// Ports that the router in front forwards.
    pub port_mapping: PortMapping,
}

/// Ports that the router in front forwards.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PortMapping {
    /// Whether the owner wants it.
    pub enabled: bool,
    /// How the router is asked: `pcp`, `nat-pmp`, `upnp`; empty while none answers.
    pub protocol: String,
    /// The router; empty while none is known.
    pub gateway: String,
    /// What is wrong; empty for nothing.
    pub fault: String,
    /// The ports.
    pub ports: Vec<MappedPort>,
}

/// A port and the one outside that leads to it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MappedPort {
    /// `tcp` or `udp`.
    pub protocol: String,
    /// The port of this machine.
    pub internal: u16,
    /// The port outside; 0 while there is none.
    pub external: u16,
    /// Whether the router forwards it.
    pub mapped: bool,
}

/// What `hearth doctor` found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Diagnosis {
    /// When.
    pub checked_at: Timestamp,
    /// The level of the worst finding.
    pub worst: String,
    /// How many findings of each level there are.
    pub counts: Counts,
    /// The findings, worst first.
    pub findings: Vec<Finding>,
    /// The addresses outside.
    pub wan: Wan,
}

/// How many findings of each level there are.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counts {
    /// Good news.
    pub ok: usize,
    /// What is good to know.
    pub note: usize,
    /// What may go wrong.
    pub warning: usize,
    /// What does not work.
    pub problem: usize,
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// A word that stays the same, such as `wan.carrier-nat`.
    pub id: String,
    /// `ok`, `note`, `warning` or `problem`.
    pub level: String,
    /// One line.
    pub title: String,
    /// What was seen, and what it means; may be empty.
    pub detail: String,
    /// What to do; may be empty.
    pub advice: String,
}
