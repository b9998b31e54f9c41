//! Public addresses at runtime: detection, and announcements of changes to clients.

mod for_lan;
mod hook;
mod host;
#[cfg(feature = "portmap")]
mod portmap;
mod state;
mod stun;
mod system;
mod uplink;
mod watcher;

pub(super) use for_lan::answer_lan;
pub(super) use stun::ask as ask_stun;
pub(super) use uplink::watch_uplink;
pub(super) use watcher::{Watcher, WatcherParts};
