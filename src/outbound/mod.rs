//! Outbound requests: what hearth asks of other servers.

pub mod client;
#[cfg(feature = "portmap")]
pub mod soap;
