//! HTTP side of the DERP relay: upgrades, probes, admission, mesh links, DERP maps.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

pub mod admission;
pub mod bootstrap_dns;
pub mod context;
pub mod derp_map;
pub mod http;
pub mod own_region;
pub mod probes;
pub mod setup;
mod turns;
