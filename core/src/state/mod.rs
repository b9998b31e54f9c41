//! The state of the tailnet, and the rules by which it changes.
//!
//! Pure: commands and the time go in, a changed [`model::Model`] and the records to write come out.
//! Must not know: wire formats, the database, the network, the system's clocks.

pub mod addr;
pub mod apply;
pub mod attributes;
pub mod command;
pub mod content;
pub mod dns;
pub mod ending;
pub mod event;
pub mod model;
pub mod name;
pub mod principal;
pub mod record;
pub mod scope;
pub mod secret;
pub mod snapshot;
pub mod tx;

#[cfg(any(test, feature = "testing"))]
#[allow(missing_docs, reason = "fixtures of tests")]
pub mod testing;
