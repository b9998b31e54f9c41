//! Network maps (netmaps): the full map of a node, then changes to it.
//!
//! Pure: snapshots in, bytes out. Peers are serialised once and shared by all streams.
//! Must not know: HTTP, the database, the system's clocks.

pub mod cache;
mod chunk;
mod client_version;
pub mod context;
pub mod delta;
pub mod dial_plan;
mod display_messages;
pub mod dns;
pub mod dns_sources;
pub mod farewell;
pub mod fragment;
pub mod frame;
pub mod full;
pub mod peer_view;
pub mod reverse;
pub mod session;
pub mod shared_data;
#[cfg(any(test, feature = "testing"))]
#[allow(missing_docs, clippy::expect_used, reason = "fixtures of tests")]
pub mod testing;
pub mod user_profiles;

pub use cache::MapCache;
pub use context::MapContext;
pub use dial_plan::DialPlan;
pub use dns_sources::DnsSources;
pub use shared_data::SharedMapData;
pub use user_profiles::{owner_number, owner_profile};

use crate::clock::Timestamp;

/// A keep-alive message. It carries the time as well: a bare `{"KeepAlive":true}` makes the official
/// client remember its compressed form and mistake other messages of the same length for it
/// (`decodeMsg` in tailscale `control/controlclient/direct.go`).
pub fn keep_alive(now: Timestamp) -> String {
    format!(r#"{{"KeepAlive":true,"ControlTime":"{now}"}}"#)
}
