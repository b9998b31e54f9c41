//! The addresses outside while the server runs: looking at them, and telling clients of changes.

mod home;
mod hook;
mod host;
mod knowledge;
mod outside;
#[cfg(feature = "portmap")]
mod portmap;
mod system;
mod watcher;

pub(super) use home::watch_home;
pub(super) use watcher::{Watcher, WatcherParts};
