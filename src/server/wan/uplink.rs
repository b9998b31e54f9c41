//! The uplink of this machine: clients show a message while it is lost.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::interfaces;
use crate::shutdown::Shutdown;
use hearth_core::netmap::SharedMapData;

/// Time between two checks of the default routes.
const INTERVAL: Duration = Duration::from_secs(30);

/// Checks without a default route until the uplink counts as lost: one may fall into a DHCP renewal.
const MISSES: u32 = 2;

/// Notifies clients when the default routes of this machine are lost and restored.
///
/// A machine that never had a default route has no uplink to lose.
pub(in crate::server) async fn watch_uplink(
    tailnet: watch::Sender<Arc<SharedMapData>>,
    shutdown: Shutdown,
) {
    let mut uplink = Uplink::default();
    loop {
        let offline = uplink.observe(interfaces::has_default_route());
        tailnet.send_if_modified(|now| {
            let is_other = offline != now.home_is_offline;
            if is_other {
                match offline {
                    true => tracing::warn!("internet uplink lost"),
                    false => tracing::info!("internet uplink restored"),
                }
                *now = Arc::new((**now).clone().with_home_offline(offline));
            }
            is_other
        });
        tokio::select! {
            () = shutdown.wait() => return,
            () = tokio::time::sleep(INTERVAL) => {}
        }
    }
}

/// The result of the last checks.
#[derive(Default)]
struct Uplink {
    had_route: bool,
    misses: u32,
}

impl Uplink {
    /// Whether the uplink counts as lost after this check.
    fn observe(&mut self, has_route: bool) -> bool {
        self.had_route |= has_route;
        self.misses = match has_route {
            true => 0,
            false => self.misses.saturating_add(1),
        };
        self.had_route && self.misses >= MISSES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_existing_uplink_can_be_lost() {
        let mut never = Uplink::default();
        assert!((0..5).all(|_| !never.observe(false)));
        let mut uplink = Uplink::default();
        assert!(!uplink.observe(true) && !uplink.observe(false));
        assert!(uplink.observe(false) && uplink.observe(false));
        assert!(!uplink.observe(true));
    }
}
