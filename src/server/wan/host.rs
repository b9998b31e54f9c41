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
use hearth_core::wan::report::Lookup;

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
}

impl ServerHost {
    /// Reads what is remembered of this host.
    pub(super) fn read(data_dir: &Path, host: &Host) -> Self {
        let kept = files::read(&data_dir.join(FILE), FILE_MAX).ok();
        let kept = kept.and_then(|bytes| serde_json::from_slice::<Self>(&bytes).ok());
        let mut ours = kept.unwrap_or_default();
        let host = host.to_string();
        if ours.host != host {
            (ours.host, ours.is_ours) = (host, false);
        }
        ours.earlier.truncate(EARLIER_MAX);
        ours
    }

    /// The host of `server_url` is another one now.
    pub(super) fn moved_to(&mut self, host: &Host) {
        (self.host, self.is_ours) = (host.to_string(), false);
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
