//! What is known about the way to the outside, for people and programs.

use std::net::{IpAddr, Ipv4Addr};

use crate::clock::Timestamp;
use crate::wan::address::Addresses;
use crate::wan::mapping::Mapping;

/// How hearth hears of changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NoticedBy {
    /// The kernel tells.
    Netlink,
    /// hearth looks now and then.
    #[default]
    Looking,
}

/// Where the addresses outside come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OutsideFrom {
    /// There is none.
    #[default]
    Nowhere,
    /// The owner set one.
    Configuration,
    /// An interface has it.
    Interface,
    /// The router in front said it.
    Mapping,
    /// A STUN server said it.
    Stun,
}

impl OutsideFrom {
    /// The word for programs; empty for none.
    pub fn word(self) -> &'static str {
        match self {
            Self::Nowhere => "",
            Self::Configuration => "configuration",
            Self::Interface => "interface",
            Self::Mapping => "port-mapping",
            Self::Stun => "stun",
        }
    }
}

/// What DNS said about the host of `server_url`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Lookup {
    /// It is an address, or nobody asked yet.
    #[default]
    None,
    /// It leads there.
    Found(Vec<IpAddr>),
    /// It leads nowhere, or nobody answers.
    Failed(String),
}

/// All that is known.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// Interface outside; empty for none.
    pub interface: String,
    /// Its addresses, of whatever kind.
    pub own: Addresses,
    /// The addresses that others reach, which outlive a short loss.
    pub outside: Addresses,
    /// What STUN servers or the router in front said, whether or not it counts.
    pub learnt: Addresses,
    /// Where the addresses outside come from.
    pub outside_from: OutsideFrom,
    /// The address at home.
    pub home: Option<Ipv4Addr>,
    /// Whether there is a default route.
    pub has_route: bool,
    /// Whether clients are told.
    pub is_published: bool,
    /// What they are told.
    pub told: Vec<IpAddr>,
    /// When the addresses outside last changed; `None` is since the start.
    pub since: Option<Timestamp>,
    /// How hearth hears of changes.
    pub noticed_by: NoticedBy,
    /// What DNS says.
    pub lookup: Lookup,
    /// Port forwarding by the router in front.
    pub mapping: Mapping,
}
