//! Public addresses of this machine: which they are, when a change counts, and what clients get.
//!
//! Pure: reports of the system and of others go in, the addresses to advertise come out. Time is a value.
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
pub use report::{AddressSource, NoticedBy, Report};
