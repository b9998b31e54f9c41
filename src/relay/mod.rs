//! HTTP side of the DERP relay: upgrades, probes, admission, mesh links, DERP maps.

pub mod admission;
pub mod bootstrap_dns;
pub mod context;
pub mod derp_map;

pub mod probes;
pub mod regions;
pub mod setup;
pub mod upgrade;
