//! The WAN interface as the system reports it, and notifications of changes.

use std::io;

use tokio::net::UnixDatagram;

use crate::interfaces::{self, Interfaces};
use hearth_core::wan::choose::{WanInterface, select_wan};
use hearth_core::wan::{Addresses, NoticedBy};

/// Most notifications that are drained at once.
const NOTIFICATIONS: usize = 64;

/// The network of the system.
pub(super) struct System {
    /// Notifications of the kernel; `None` where netlink is not allowed, as in some containers.
    events: Option<UnixDatagram>,
    wanted: Option<String>,
}

impl System {
    /// Subscribes to changes. `wanted` is the configured WAN interface; `poll_seconds` is the interval
    /// without notifications.
    pub(super) fn open(wanted: Option<String>, poll_seconds: u64) -> Self {
        let events = interfaces::watch().and_then(|socket| {
            // tokio has no netlink sockets; this one is only waited for and received from.
            UnixDatagram::from_std(std::os::unix::net::UnixDatagram::from(socket))
        });
        if let Err(fault) = &events {
            tracing::info!(%fault, "netlink unavailable; polling for address changes every {poll_seconds} s");
        }
        Self {
            events: events.ok(),
            wanted,
        }
    }

    /// How changes are detected.
    pub(super) fn noticed_by(&self) -> NoticedBy {
        match self.events {
            Some(_) => NoticedBy::Netlink,
            None => NoticedBy::Polling,
        }
    }

    /// Waits until something may have changed, and drains the notifications. Cancel safe.
    pub(super) async fn changed(&self) {
        let Some(events) = &self.events else {
            return std::future::pending().await;
        };
        if events.readable().await.is_err() {
            return std::future::pending().await;
        }
        self.drain();
    }

    /// Drains the notifications so far.
    pub(super) fn drain(&self) {
        let Some(events) = &self.events else {
            return;
        };
        let mut buffer = [0; 4096];
        // The rest follows in the next turn. An error such as a full buffer is a change as well.
        for _ in 0..NOTIFICATIONS {
            match events.try_recv(&mut buffer) {
                Err(fault) if fault.kind() == io::ErrorKind::WouldBlock => return,
                Ok(_) | Err(_) => {}
            }
        }
    }

    /// The WAN interface now.
    pub(super) fn look(&self) -> WanInterface {
        match Interfaces::read() {
            Ok(interfaces) => {
                let wanted = self.wanted.as_deref();
                select_wan(&interfaces.table, &interfaces.names, wanted)
            }
            Err(fault) => {
                tracing::debug!(%fault, "cannot read addresses over netlink");
                fallback()
            }
        }
    }
}

/// Without netlink: the source addresses of packets to the internet.
fn fallback() -> WanInterface {
    let sources = interfaces::route_sources();
    WanInterface {
        interface: String::new(),
        addresses: Addresses {
            v4: sources.v4,
            v6: sources.public().v6,
        },
        all: sources.iter().collect(),
        has_route: !sources.is_empty(),
        gateway: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;

    #[tokio::test]
    async fn the_kernel_answers_and_the_fallback_agrees() {
        let system = System::open(None, 10);
        assert_eq!(system.noticed_by(), NoticedBy::Netlink);
        let wan = system.look();
        let loopback: IpAddr = [127, 0, 0, 1].into();
        assert!(!wan.all.contains(&loopback), "{wan:?}");
        let named: Vec<IpAddr> = wan.addresses.iter().collect();
        assert!(named.iter().all(|ip| wan.all.contains(ip)), "{wan:?}");
        let fallback = fallback();
        if wan.addresses.v4.is_some() && fallback.addresses.v4.is_some() {
            assert_eq!(wan.addresses.v4, fallback.addresses.v4);
        }
        assert!(fallback.has_route || !wan.has_route);
    }
}
