//! The addresses under which the home is reached from outside: which they are, and when a change counts.
//!
//! Pure: what the system and others say goes in, what clients should be told comes out. Time is a value.
//! Must not know: sockets, the configuration, the map.

pub mod address;
pub mod choose;
pub mod mapping;
pub mod netlink;
#[cfg(feature = "portmap")]
pub mod portmap;
pub mod publish;
pub mod report;
pub mod track;

pub use address::{Addresses, Kind, kind_of};
pub use report::{NoticedBy, OutsideFrom, Report};
