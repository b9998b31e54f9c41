//! The HTTP side of the DERP relay: upgrades, probes, admission, links to other relays, maps of relays.

pub mod admission;
pub mod bootstrap_dns;
pub mod context;
pub mod derp_map;

pub mod probes;
pub mod regions;
pub mod setup;
pub mod upgrade;
