//! What is right and wrong with this server and its way to the outside, in words for its owner.
//!
//! Pure: facts in, findings out.
//! Must not know: how the facts are gathered, the configuration, the state.

mod network;
mod server;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ipnet::Ipv4Net;

use crate::clock::Timestamp;
use crate::wan::Report;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Good news.
    Ok,
    /// Good to know.
    Note,
    /// Something may go wrong, or goes wrong for some.
    Warning,
    /// Something does not work.
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

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Stays the same as long as the matter does.
    pub id: &'static str,
    /// How bad it is.
    pub level: Level,
    /// One line.
    pub title: String,
    /// What was seen, and what it means.
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

/// The certificate of the listener for HTTPS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// hearth made it; clients of the relay know it by its hash.
    pub is_own: bool,
    /// From when and until when it is good; `None` when that cannot be read.
    pub validity: Option<(Timestamp, Timestamp)>,
    /// Whether it is for the host of `server_url`.
    pub is_for_host: bool,
}

/// How full something is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filling {
    /// What, in the plural.
    pub what: &'static str,
    /// The key of the configuration that bounds it.
    pub key: &'static str,
    /// How many there are.
    pub used: usize,
    /// How many there may be.
    pub most: usize,
}

/// The memory of the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// What it takes, in bytes.
    pub used: usize,
    /// What it should take at most, in bytes.
    pub budget: usize,
}

/// All that is looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Now.
    pub now: Timestamp,
    /// Whether that can be believed.
    pub clock_is_plausible: bool,
    /// The addresses outside.
    pub wan: Report,
    /// What clients are told to connect to.
    pub server_url: String,
    /// Its host.
    pub host: Host,
    /// Its port.
    pub port: u16,
    /// Whether it is https.
    pub is_https: bool,
    /// The listener for plain HTTP.
    pub http: Option<SocketAddr>,
    /// The listener for HTTPS.
    pub https: Option<SocketAddr>,
    /// The listener for STUN.
    pub stun: Option<SocketAddr>,
    /// Whether there is a relay here.
    pub relay_is_on: bool,
    /// How many regions of relays clients are told of, beside that of this server.
    pub other_regions: usize,
    /// Where nodes get their IPv4 addresses from.
    pub nodes_v4: Ipv4Net,
    /// The certificate; `None` without a listener for HTTPS.
    pub certificate: Option<Certificate>,
    /// Whether the database takes changes.
    pub database_is_writable: bool,
    /// How full things are.
    pub fillings: Vec<Filling>,
    /// The memory of the program, where it has a budget.
    pub memory: Option<Memory>,
    /// What is wrong with the configuration.
    pub warnings: Vec<String>,
    /// Devices of which routes await approval.
    pub waiting_routes: usize,
    /// Devices that may not take part yet.
    pub unauthorized: usize,
    /// Logins that await a decision.
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
}

/// Everything that there is to say, the worst first.
pub fn diagnose(facts: &Facts) -> Vec<Finding> {
    let mut findings = network::findings(facts);
    findings.extend(server::findings(facts));
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.level));
    findings
}

#[cfg(test)]
mod tests;
