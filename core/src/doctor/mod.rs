//! Diagnosis of this server and its connectivity, in plain words for its administrator.
//!
//! Pure: facts in, findings out.
//! Must not know: how the facts are gathered, the configuration, the state.

pub mod backup;
mod network;
pub mod public_url;
mod server;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ipnet::Ipv4Net;

use crate::clock::Timestamp;
use crate::disk::DiskFault;
use crate::wan::Report;
use backup::Backups;
use public_url::{DroppedUpgrade, PublicCheck};

/// The severity of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Works.
    Ok,
    /// Information.
    Note,
    /// A risk, or a problem for some devices.
    Warning,
    /// A failure.
    Problem,
}

impl Level {
    /// The word for people and programs.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Problem => "problem",
        }
    }
}

/// A finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Stable ID.
    pub id: &'static str,
    /// Severity.
    pub level: Level,
    /// One line.
    pub title: String,
    /// The observation and its consequence.
    pub detail: String,
    /// What to do.
    pub advice: String,
}

impl Finding {
    fn new(id: &'static str, level: Level, title: impl Into<String>) -> Self {
        Self {
            id,
            level,
            title: title.into(),
            detail: String::new(),
            advice: String::new(),
        }
    }

    fn detail(self, detail: impl Into<String>) -> Self {
        Self {
            detail: detail.into(),
            ..self
        }
    }

    fn advice(self, advice: impl Into<String>) -> Self {
        Self {
            advice: advice.into(),
            ..self
        }
    }
}

/// The host of `server_url`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// A name.
    Name(String),
    /// An address.
    Address(IpAddr),
}

/// The certificate of the HTTPS listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// Whether it is self-signed; relay clients verify it by its hash.
    pub is_own: bool,
    /// Start and end of its validity; `None` if unreadable.
    pub validity: Option<(Timestamp, Timestamp)>,
    /// Whether it is valid for the host of `server_url`.
    pub is_for_host: bool,
}

/// The usage of a limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitUsage {
    /// The items, in the plural.
    pub what: &'static str,
    /// The key of the limit.
    pub key: &'static str,
    /// Current number.
    pub used: usize,
    /// Limit.
    pub most: usize,
}

/// Memory usage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Resident memory in bytes.
    pub used: usize,
    /// Memory budget in bytes.
    pub budget: usize,
}

/// How to enable IP forwarding on a device that offers routes.
pub const ENABLE_FORWARDING: &str = "run `sudo sysctl -w net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1` on it, and make it permanent as docs/routes.md shows";

/// The facts for a diagnosis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Now.
    pub now: Timestamp,
    /// Whether the clock is plausible.
    pub clock_is_plausible: bool,
    /// Public addresses.
    pub wan: Report,
    /// What a client meets at `server_url`; `None` if it was not asked.
    pub public: Option<PublicCheck>,
    /// The last upgrade request that lost its `Upgrade` header to a proxy.
    pub dropped_upgrade: Option<DroppedUpgrade>,
    /// The `server_url`.
    pub server_url: String,
    /// Its host.
    pub host: Host,
    /// Its port.
    pub port: u16,
    /// Whether it is https.
    pub is_https: bool,
    /// The HTTP listener.
    pub http: Option<SocketAddr>,
    /// The HTTPS listener.
    pub https: Option<SocketAddr>,
    /// The STUN listener.
    pub stun: Option<SocketAddr>,
    /// Whether the relay is on.
    pub relay_is_on: bool,
    /// Number of other regions in the DERP map.
    pub other_regions: usize,
    /// The IPv4 addresses of this machine; empty if unknown.
    pub local_v4: Vec<Ipv4Addr>,
    /// Names in settings and records that mean no device because the devices with these names chose them themselves,
    /// each with the way to confirm it.
    pub unconfirmed_names: Vec<String>,
    /// Records that have the name of a device, each with the way out.
    pub taken_names: Vec<String>,
    /// IPv4 prefix of the nodes.
    pub nodes_v4: Ipv4Net,
    /// The certificate; `None` without an HTTPS listener.
    pub certificate: Option<Certificate>,
    /// What happened to a damaged or lost database at this start; `None` if it was whole.
    pub opening: Option<String>,
    /// Why the database is read-only; `None` while it is writable.
    pub database_fault: Option<DiskFault>,
    /// Automatic backups.
    pub backups: Backups,
    /// Usage of limits.
    pub limit_usages: Vec<LimitUsage>,
    /// Memory usage, if there is a budget.
    pub memory: Option<Memory>,
    /// Whether something is closed because a setting or the policy cannot be read.
    pub is_closed: bool,
    /// Faults of the configuration and the policy.
    pub warnings: Vec<String>,
    /// What to say of devices that a change of `server_url` has left behind, if there are any.
    pub left_behind: Option<String>,
    /// Names of devices with approved routes whose clients say that IP forwarding is off.
    pub not_forwarding: Vec<String>,
    /// Devices with routes that await approval.
    pub waiting_routes: usize,
    /// Devices that await approval.
    pub unauthorized: usize,
    /// Pending registrations.
    pub pending: usize,
}

impl Facts {
    /// The host of `server_url` if it is an address.
    fn host_address(&self) -> Option<IpAddr> {
        match self.host {
            Host::Address(address) => Some(address),
            Host::Name(_) => None,
        }
    }

    fn own_v4(&self) -> Option<Ipv4Addr> {
        self.wan.own.v4
    }

    /// Whether clients connect to the control server by `server_url`, as far as this machine can tell.
    fn control_works(&self) -> bool {
        self.public.as_ref().is_some_and(PublicCheck::control_works)
    }
}

/// All findings, the most severe first.
pub fn diagnose(facts: &Facts) -> Vec<Finding> {
    let mut findings = network::findings(facts);
    findings.extend(public_url::findings(facts));
    findings.extend(server::findings(facts));
    findings.extend(backup::findings(facts));
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.level));
    findings
}

#[cfg(test)]
mod tests;
