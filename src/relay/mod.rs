//! The HTTP side of the DERP relay: upgrades, probes, admission, links to other relays, maps of relays.

pub mod admission;
pub mod bootstrap_dns;
pub mod derp_map;
pub mod endpoints;
pub mod probes;
pub mod regions;
pub mod setup;
#[cfg(feature = "standalone-relay")]
pub mod standalone;
pub mod upgrade;
