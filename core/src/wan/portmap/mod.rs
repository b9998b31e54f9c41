//! How a router in front is asked to forward ports: what is sent, and what the answers say.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

pub mod nat_pmp;
pub mod pcp;
pub mod upnp;

use std::time::Duration;

/// UDP port of routers that speak PCP or NAT-PMP. Source: RFC 6887 section 19.1.
pub const SERVER_PORT: u16 = 5351;

/// How long a forwarding shall last unless it is renewed. Source: RFC 6886 section 3.3.
pub const LIFETIME: Duration = Duration::from_secs(7200);

/// Longest answer, in bytes. Source: RFC 6887 section 7.
pub const ANSWER_MAX: usize = 1100;

/// Why the router forwards no port.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It speaks another version of the protocol, or another protocol.
    #[error("it does not speak this protocol")]
    Version,
    /// It may not: its owner has switched that off.
    #[error("its owner has switched that off")]
    Forbidden,
    /// It has no connection itself.
    #[error("it has no connection to the internet")]
    NoNetwork,
    /// It has no room left, or the port is another one's.
    #[error("the port is taken, or there is no room")]
    Taken,
    /// Another reason, by its number.
    #[error("fault {0}")]
    Other(u32),
}

/// A port that is forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Granted {
    /// The port outside.
    pub external: u16,
    /// How long it lasts; zero is for ever.
    pub lifetime: Duration,
}

fn seconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_secs()).unwrap_or(u32::MAX)
}
