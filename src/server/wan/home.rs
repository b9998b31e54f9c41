//! Whether the home has a way to the internet: told to clients, whose person may wonder.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::shutdown::Shutdown;
use hearth_core::netmap::SharedMapData;

/// How often the routes of this machine are looked at.
const LOOK: Duration = Duration::from_secs(30);

/// Looks after which a missing route counts: one look may fall into a renewal of the address.
const LOOKS: u32 = 2;

/// Tells clients when the default routes of this machine go away, and when one is back.
///
/// A machine that never had one has no way to lose, so nothing is said there, nor on systems without
/// these files.
pub(in crate::server) async fn watch_home(
    tailnet: watch::Sender<Arc<SharedMapData>>,
    shutdown: Shutdown,
) {
    let mut watch = Watch::default();
    loop {
        let offline = watch.look(has_way_out());
        tailnet.send_if_modified(|now| {
            let is_other = offline != now.home_is_offline;
            if is_other {
                tracing::info!(offline, "the way to the internet has changed");
                *now = Arc::new((**now).clone().with_home_offline(offline));
            }
            is_other
        });
        tokio::select! {
            () = shutdown.wait() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

/// What the last looks gave.
#[derive(Default)]
struct Watch {
    had_one: bool,
    misses: u32,
}

impl Watch {
    /// Whether the home counts as offline after this look.
    fn look(&mut self, has_way_out: bool) -> bool {
        self.had_one |= has_way_out;
        self.misses = match has_way_out {
            true => 0,
            false => self.misses.saturating_add(1),
        };
        self.had_one && self.misses >= LOOKS
    }
}

/// Whether there is a default route.
pub(super) fn has_way_out() -> bool {
    let v4 = fs::read_to_string("/proc/net/route").unwrap_or_default();
    let v6 = fs::read_to_string("/proc/net/ipv6_route").unwrap_or_default();
    has_default_v4(&v4) || has_default_v6(&v6)
}

/// Columns of `/proc/net/route`: interface, destination, gateway, flags, …, mask at place 7.
fn has_default_v4(table: &str) -> bool {
    table.lines().skip(1).any(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let at = |place: usize| columns.get(place).copied().unwrap_or_default();
        at(1) == "00000000" && at(7) == "00000000"
    })
}

/// Columns of `/proc/net/ipv6_route`: destination, its length, …, interface at the end. The kernel's own
/// rejecting entry stands on `lo`.
fn has_default_v6(table: &str) -> bool {
    table.lines().any(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        columns.get(1) == Some(&"00")
            && columns
                .first()
                .is_some_and(|destination| destination.bytes().all(|digit| digit == b'0'))
            && columns.last().is_some_and(|interface| *interface != "lo")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_routes_are_found() {
        let head = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\n";
        let home = "br-lan\t0001A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\n";
        let out = "wan\t00000000\t0100000A\t0003\t0\t0\t0\t00000000\n";
        assert!(has_default_v4(&format!("{head}{home}{out}")));
        assert!(!has_default_v4(&format!("{head}{home}")));
        let zero = "0".repeat(32);
        let line = |interface: &str| {
            format!("{zero} 00 {zero} 00 {zero} ffffffff 00000001 00000000 00200200 {interface}\n")
        };
        assert!(has_default_v6(&line("wan")));
        assert!(!has_default_v6(&line("lo")));
        assert!(!has_default_v6(""));
    }

    #[test]
    fn only_a_way_that_was_there_can_be_lost() {
        let mut never = Watch::default();
        assert!((0..5).all(|_| !never.look(false)));
        let mut watch = Watch::default();
        assert!(!watch.look(true) && !watch.look(false));
        assert!(watch.look(false) && watch.look(false));
        assert!(!watch.look(true));
    }
}
