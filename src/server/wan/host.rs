//! Whether the host of `server_url` resolves to this machine: only then may its public addresses be advertised
//! to clients. Behind a remote proxy it does not.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, watch};

use crate::config::Host;
use crate::files::{self, Saver};
use crate::shutdown::Shutdown;
use crate::system_clock;
use hearth_core::clock::Timestamp;
use hearth_core::wan::report::{Lookup, Moved};

/// The file with it, in the data directory.
const FILE: &str = "wan.json";

/// Longest such file, in bytes.
const FILE_MAX: usize = 4096;

/// Most earlier addresses that are remembered.
const EARLIER_MAX: usize = 16;

/// Most addresses of the name.
const FOUND_MAX: usize = 16;

/// Time between two lookups.
const REFRESH: Duration = Duration::from_secs(10 * 60);

/// Time between two lookups after a failure.
const RETRY: Duration = Duration::from_secs(30);

/// Timeout of a lookup.
const TIMEOUT: Duration = Duration::from_secs(20);

/// The host of `server_url`, remembered across restarts: the address may change while the server is off, and
/// DNS still has the old one then.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ServerHost {
    /// The host.
    host: String,
    /// Whether it resolved to this machine at the last lookup.
    is_ours: bool,
    /// Public addresses that this machine had.
    earlier: Vec<IpAddr>,
    /// The last change of the host from one address to another.
    #[serde(skip_serializing_if = "Option::is_none")]
    moved: Option<Moved>,
}

impl ServerHost {
    /// Reads what is remembered of this host.
    pub(super) fn read(data_dir: &Path, host: &Host) -> Self {
        let kept = files::read(&data_dir.join(FILE), FILE_MAX).ok();
        let kept = kept.and_then(|bytes| serde_json::from_slice::<Self>(&bytes).ok());
        let mut ours = kept.unwrap_or_default();
        if ours.host != host.to_string() {
            ours.moved_to(host, system_clock::now().wall);
        }
        ours.earlier.truncate(EARLIER_MAX);
        ours
    }

    /// The host of `server_url` is another one now.
    pub(super) fn moved_to(&mut self, host: &Host, at: Timestamp) {
        let is_address = matches!(host, Host::Address(_));
        let from: Option<IpAddr> = self.host.parse().ok();
        // Back where it was, the devices find it again.
        let is_back = self
            .moved
            .is_some_and(|moved| host.to_string() == moved.from.to_string());
        self.moved = match from {
            _ if is_back || !is_address => None,
            Some(from) if !from.is_loopback() => Some(Moved { from, at }),
            // A start without a network in between.
            _ => self.moved,
        };
        (self.host, self.is_ours) = (host.to_string(), false);
    }

    /// `server_url` is configured: its host changes only when somebody changes it.
    pub(super) fn stay(&mut self) {
        self.moved = None;
    }

    /// The last change from one address to another that nobody configured.
    pub(super) fn moved(&self) -> Option<Moved> {
        self.moved
    }

    /// Whether the host resolves to this machine.
    pub(super) fn is_ours(&self) -> bool {
        self.is_ours
    }

    /// Takes the addresses of the host and those of this machine.
    pub(super) fn resolved(&mut self, found: &[IpAddr], now: &[IpAddr]) {
        let known = |ip: &IpAddr| now.contains(ip) || self.earlier.contains(ip);
        if !found.is_empty() {
            self.is_ours = found.iter().any(known);
        }
    }

    /// Remembers public addresses.
    pub(super) fn remember(&mut self, public: impl Iterator<Item = IpAddr>) {
        for ip in public {
            self.earlier.retain(|earlier| *earlier != ip);
            self.earlier.insert(0, ip);
        }
        self.earlier.truncate(EARLIER_MAX);
    }

    /// Writes it for the next start. Does not wait.
    pub(super) fn write(&self, data_dir: &Path, saver: &Saver) {
        let bytes = serde_json::to_vec(self).unwrap_or_default();
        saver.save(data_dir.join(FILE), bytes);
    }
}

/// Looks the name up at once, periodically, and when `again` is notified.
pub(super) async fn keep_resolving(
    name: String,
    result: watch::Sender<Lookup>,
    again: Arc<Notify>,
    shutdown: Shutdown,
) {
    loop {
        let lookup = tokio::net::lookup_host((name.as_str(), 0));
        let answer = tokio::select! {
            () = shutdown.wait() => return,
            answer = tokio::time::timeout(TIMEOUT, lookup) => answer,
        };
        let lookup = match answer {
            Ok(Ok(addresses)) => {
                let all = addresses.map(|address| address.ip().to_canonical());
                let mut all: Vec<IpAddr> = all.take(FOUND_MAX).collect();
                all.sort_unstable();
                all.dedup();
                Lookup::Found(all)
            }
            Ok(Err(fault)) => Lookup::Failed(fault.to_string()),
            Err(_) => Lookup::Failed("timeout".to_owned()),
        };
        let pause = match lookup {
            Lookup::Found(_) => REFRESH,
            Lookup::Failed(_) | Lookup::None => RETRY,
        };
        result.send_if_modified(|known| {
            let is_other = *known != lookup;
            *known = lookup;
            is_other
        });
        tokio::select! {
            () = shutdown.wait() => return,
            () = again.notified() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_name_that_resolves_to_an_earlier_address_is_ours_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let host: Host = Host::Name("home.example".parse().unwrap());
        let mut ours = ServerHost::read(dir.path(), &host);
        assert!(!ours.is_ours());
        ours.remember([ip("203.0.113.5")].into_iter());
        ours.resolved(&[ip("203.0.113.5")], &[ip("203.0.113.5")]);
        let saver = Saver::default();
        ours.write(dir.path(), &saver);
        saver.finish(Duration::from_secs(30));

        let mut ours = ServerHost::read(dir.path(), &host);
        assert!(ours.is_ours());
        ours.resolved(&[ip("203.0.113.5")], &[ip("203.0.113.9")]);
        assert!(ours.is_ours());
        // No answer changes nothing; a remote proxy does.
        ours.resolved(&[], &[ip("203.0.113.9")]);
        assert!(ours.is_ours());
        ours.resolved(&[ip("198.51.100.1")], &[ip("203.0.113.9")]);
        assert!(!ours.is_ours());

        let other = Host::Name("other.example".parse().unwrap());
        assert!(!ServerHost::read(dir.path(), &other).is_ours());
    }

    #[test]
    fn a_host_that_moved_is_remembered_across_restarts_until_it_is_back() {
        let dir = tempfile::tempdir().unwrap();
        let [one, other] = ["192.168.1.10", "192.168.1.11"].map(|text| Host::Address(ip(text)));
        let save = |ours: &ServerHost| {
            let saver = Saver::default();
            ours.write(dir.path(), &saver);
            saver.finish(Duration::from_secs(30));
        };
        let ours = ServerHost::read(dir.path(), &one);
        assert_eq!(ours.moved(), None, "the first start");
        save(&ours);
        let moved = ServerHost::read(dir.path(), &other);
        let from = moved.moved().map(|moved| moved.from);
        assert_eq!(from, Some(ip("192.168.1.10")));
        save(&moved);
        let mut same = ServerHost::read(dir.path(), &other);
        assert_eq!(same.moved(), moved.moved());
        same.moved_to(&one, Timestamp::from_unix_ms(0));
        assert_eq!(same.moved(), None);
        let mut configured = moved;
        configured.stay();
        assert_eq!(configured.moved(), None);
    }

    #[test]
    fn earlier_addresses_are_bounded_and_the_newest_are_kept() {
        let mut ours = ServerHost::default();
        for last in 0..40 {
            ours.remember([IpAddr::from([203, 0, 113, last])].into_iter());
            ours.remember([IpAddr::from([203, 0, 113, last])].into_iter());
        }
        assert_eq!(ours.earlier.len(), EARLIER_MAX);
        assert_eq!(ours.earlier[0], ip("203.0.113.39"));
        let dir = tempfile::tempdir().unwrap();
        let saver = Saver::default();
        ours.write(dir.path(), &saver);
        saver.finish(Duration::from_secs(30));
        assert!(files::read(&dir.path().join(FILE), FILE_MAX).is_ok());
    }
}
