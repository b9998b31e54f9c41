//! Requests that hearth makes of others.

pub mod client;
#[cfg(feature = "portmap")]
pub mod soap;
