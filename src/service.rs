//! The service manager's side of a process: what systemd is told, what it hands over, what it watches.
//!
//! Everything here does nothing where there is no service manager that asks for it (procd, containers, terminals).
//! Must not know: what the server consists of.
//!
//! Source: the manual pages `sd_notify(3)`, `sd_listen_fds(3)`, `sd_watchdog_enabled(3)` and `systemd.exec(5)`.

mod notify;
mod sockets;
mod watchdog;

pub use notify::Manager;
pub use sockets::{SocketFault, Sockets};
pub use watchdog::Watchdog;
