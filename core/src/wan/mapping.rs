//! Port mapping: ports that the upstream router forwards on request.

use std::net::{IpAddr, Ipv4Addr};

/// The protocol of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Transport {
    /// The word for people and programs.
    pub fn word(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// A port of this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Port {
    /// Its protocol.
    pub transport: Transport,
    /// Its number.
    pub number: u16,
}

/// The protocol of a port mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// Port Control Protocol (RFC 6887).
    Pcp,
    /// NAT Port Mapping Protocol (RFC 6886).
    NatPmp,
    /// UPnP Internet Gateway Device.
    Upnp,
}

impl Protocol {
    /// The word for programs.
    pub fn word(self) -> &'static str {
        match self {
            Self::Pcp => "pcp",
            Self::NatPmp => "nat-pmp",
            Self::Upnp => "upnp",
        }
    }
}

/// A port and its external port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mapped {
    /// The port of this machine.
    pub port: Port,
    /// The external port; `None` while it is not forwarded.
    pub external: Option<u16>,
}

/// The state of the port mapping.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Mapping {
    /// Whether it is configured.
    pub is_wanted: bool,
    /// The protocol; `None` while no router answers.
    pub protocol: Option<Protocol>,
    /// The router.
    pub gateway: Option<IpAddr>,
    /// The external address of the router.
    pub external: Option<Ipv4Addr>,
    /// The ports.
    pub ports: Vec<Mapped>,
    /// The error; empty for none.
    pub fault: String,
}
