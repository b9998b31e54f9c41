//! Outbound requests: what hearth asks of other servers.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

pub mod client;
pub mod probe;
#[cfg(feature = "portmap")]
pub mod soap;
