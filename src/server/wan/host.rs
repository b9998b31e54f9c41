//! Whether the host of `server_url` leads to this machine: only then may clients be told the machine's own
//! addresses in its place. With a proxy in front it does not.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, watch};

use crate::config::Host;
use crate::files;
use crate::shutdown::Shutdown;
use hearth_core::wan::report::Lookup;

/// Where it is kept, below the data directory.
const FILE: &str = "wan.json";

/// Longest such file, in bytes.
const FILE_MAX: usize = 4096;

/// Most addresses of earlier times that are kept.
const EARLIER_MAX: usize = 16;

/// Most addresses of one name.
const FOUND_MAX: usize = 16;

/// How often the name is looked up.
const REFRESH: Duration = Duration::from_secs(10 * 60);

/// The same while nobody answers.
const RETRY: Duration = Duration::from_secs(30);

/// How long one look may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// What is known about the host, and kept over a restart: the address may change while the server is off, and
/// DNS still tells the old one then.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Ours {
    /// The host this is about.
    host: String,
    /// Whether it led to this machine when it was last looked up.
    is_ours: bool,
    /// Addresses that the machine had outside.
    earlier: Vec<IpAddr>,
}

impl Ours {
    /// What is kept about this host.
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

    /// Whether clients may be told the machine's own addresses.
    pub(super) fn is_ours(&self) -> bool {
        self.is_ours
    }

    /// Takes over where the host leads, and which addresses the machine has now.
    pub(super) fn learn(&mut self, leads_to: &[IpAddr], now: &[IpAddr]) {
        let known = |ip: &IpAddr| now.contains(ip) || self.earlier.contains(ip);
        if !leads_to.is_empty() {
            self.is_ours = leads_to.iter().any(known);
        }
    }

    /// Remembers addresses outside.
    pub(super) fn remember(&mut self, outside: impl Iterator<Item = IpAddr>) {
        for ip in outside {
            self.earlier.retain(|earlier| *earlier != ip);
            self.earlier.insert(0, ip);
        }
        self.earlier.truncate(EARLIER_MAX);
    }

    /// Keeps it for the next start.
    pub(super) fn write(&self, data_dir: &Path) {
        let path: PathBuf = data_dir.join(FILE);
        let bytes = serde_json::to_vec(self).unwrap_or_default();
        if let Err(fault) = files::replace(&path, &bytes) {
            let file = path.display();
            tracing::warn!(%file, %fault, "the addresses outside cannot be kept for the next start");
        }
    }
}

/// Looks the name up at once, now and then, and when told to by `again`.
pub(super) async fn keep_looking(
    name: String,
    found: watch::Sender<Lookup>,
    again: Arc<Notify>,
    shutdown: Shutdown,
) {
    loop {
        let lookup = tokio::net::lookup_host((name.as_str(), 0));
        let answer = tokio::select! {
            () = shutdown.wait() => return,
            answer = tokio::time::timeout(PATIENCE, lookup) => answer,
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
            Err(_) => Lookup::Failed("no answer in time".to_owned()),
        };
        let pause = match lookup {
            Lookup::Found(_) => REFRESH,
            Lookup::Failed(_) | Lookup::None => RETRY,
        };
        found.send_if_modified(|known| {
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
    fn a_name_that_still_leads_to_an_earlier_address_is_ours_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let host: Host = Host::Name("home.example".parse().unwrap());
        let mut ours = Ours::read(dir.path(), &host);
        assert!(!ours.is_ours());
        ours.remember([ip("203.0.113.5")].into_iter());
        ours.learn(&[ip("203.0.113.5")], &[ip("203.0.113.5")]);
        ours.write(dir.path());

        let mut ours = Ours::read(dir.path(), &host);
        assert!(ours.is_ours());
        ours.learn(&[ip("203.0.113.5")], &[ip("203.0.113.9")]);
        assert!(ours.is_ours());
        // No answer says nothing; a proxy elsewhere does.
        ours.learn(&[], &[ip("203.0.113.9")]);
        assert!(ours.is_ours());
        ours.learn(&[ip("198.51.100.1")], &[ip("203.0.113.9")]);
        assert!(!ours.is_ours());

        let other = Host::Name("other.example".parse().unwrap());
        assert!(!Ours::read(dir.path(), &other).is_ours());
    }

    #[test]
    fn earlier_addresses_are_few_and_the_newest_stay() {
        let mut ours = Ours::default();
        for last in 0..40 {
            ours.remember([IpAddr::from([203, 0, 113, last])].into_iter());
            ours.remember([IpAddr::from([203, 0, 113, last])].into_iter());
        }
        assert_eq!(ours.earlier.len(), EARLIER_MAX);
        assert_eq!(ours.earlier[0], ip("203.0.113.39"));
        let dir = tempfile::tempdir().unwrap();
        ours.write(dir.path());
        assert!(files::read(&dir.path().join(FILE), FILE_MAX).is_ok());
    }
}
