//! Ports that the router in front forwards, because hearth asked it to.

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

/// How the router in front is asked.
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

/// A port and the one outside that leads to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mapped {
    /// The port of this machine.
    pub port: Port,
    /// The port outside; `None` while the router forwards none.
    pub external: Option<u16>,
}

/// How the forwarding is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Mapping {
    /// Whether the owner wants it.
    pub is_wanted: bool,
    /// How the router is asked; `None` while none answers.
    pub protocol: Option<Protocol>,
    /// The router.
    pub gateway: Option<IpAddr>,
    /// The address that it has outside.
    pub outside: Option<Ipv4Addr>,
    /// The ports.
    pub ports: Vec<Mapped>,
    /// What is wrong; empty for nothing.
    pub fault: String,
}
