//! Integration with systemd: notifications, socket activation, watchdog.
//!
//! Everything here does nothing without a service manager that requests it (procd, containers, terminals).
//! Must not know: what the server consists of.
//!
//! Source: the manual pages `sd_notify(3)`, `sd_listen_fds(3)`, `sd_watchdog_enabled(3)` and `systemd.exec(5)`.

mod notify;
mod sockets;
mod watchdog;

pub use notify::SystemdNotifier;
pub use sockets::{SocketFault, Sockets};
pub use watchdog::Watchdog;
