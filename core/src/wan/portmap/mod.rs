//! Messages of the port mapping protocols.
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

/// Requested lifetime of a mapping. Source: RFC 6886 section 3.3.
pub const LIFETIME: Duration = Duration::from_secs(7200);

/// Longest response, in bytes. Source: RFC 6887 section 7.
pub const ANSWER_MAX: usize = 1100;

/// Why the router refuses a mapping.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The protocol or its version is not supported.
    #[error("protocol not supported")]
    Version,
    /// Port mapping is disabled on the router.
    #[error("port mapping is disabled on the router")]
    Forbidden,
    /// The router has no internet connection.
    #[error("the router has no internet connection")]
    NoNetwork,
    /// The port is in use, or the table of the router is full.
    #[error("port in use, or too many mappings")]
    Taken,
    /// Another error code.
    #[error("error {0}")]
    Other(u32),
}

/// A granted mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Granted {
    /// The external port.
    pub external: u16,
    /// Lifetime; zero is forever.
    pub lifetime: Duration,
}

fn seconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_secs()).unwrap_or(u32::MAX)
}
