//! The report on public addresses, for people and programs.

use std::net::{IpAddr, Ipv4Addr};

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::wan::address::Addresses;
use crate::wan::mapping::Mapping;

/// How changes are detected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NoticedBy {
    /// By notifications of the kernel.
    Netlink,
    /// By polling.
    #[default]
    Polling,
}

/// The source of the public addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AddressSource {
    /// There are none.
    #[default]
    None,
    /// The configuration.
    Configuration,
    /// An interface.
    Interface,
    /// The upstream router.
    Mapping,
    /// A STUN server.
    Stun,
}

impl AddressSource {
    /// The word for programs; empty for none.
    pub fn word(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Configuration => "configuration",
            Self::Interface => "interface",
            Self::Mapping => "port-mapping",
            Self::Stun => "stun",
        }
    }
}

/// The DNS lookup of the host of `server_url`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Lookup {
    /// Not done: the host is an address, or the lookup is pending.
    #[default]
    None,
    /// The addresses.
    Found(Vec<IpAddr>),
    /// The error.
    Failed(String),
}

/// A change of the LAN address that `server_url` follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moved {
    /// The address before.
    pub from: IpAddr,
    /// When the change was noticed.
    pub at: Timestamp,
}

/// The report.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// WAN interface; empty for none.
    pub interface: String,
    /// Its addresses of any kind.
    pub own: Addresses,
    /// Public addresses, which outlast a short loss.
    pub public: Addresses,
    /// Public addresses from STUN servers or the upstream router, whether or not they count.
    pub reported: Addresses,
    /// The source of the public addresses.
    pub public_source: AddressSource,
    /// The LAN address.
    pub lan: Option<Ipv4Addr>,
    /// Whether there is a default route.
    pub has_route: bool,
    /// Whether public addresses are advertised to clients.
    pub is_published: bool,
    /// The advertised addresses.
    pub advertised: Vec<IpAddr>,
    /// Time of the last change of the public addresses; `None` if there was none since the start.
    pub since: Option<Timestamp>,
    /// How changes are detected.
    pub noticed_by: NoticedBy,
    /// The DNS lookup of the host of `server_url`.
    pub lookup: Lookup,
    /// Port mapping on the upstream router.
    pub mapping: Mapping,
    /// The last change of the LAN address that `server_url` follows; `None` with a configured `server_url`.
    pub moved: Option<Moved>,
}
