//! What a client meets at `server_url`, as last checked, and upgrade requests that a proxy has spoilt.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hearth_shares::TokenBucket;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

use hearth_core::clock::Now;
use hearth_core::doctor::public_url::{DroppedUpgrade, PublicCheck};

/// Timeout of a requested check, above the deadlines of its parts.
const TIMEOUT: Duration = Duration::from_secs(12);

/// A spoilt upgrade request is logged once in this time.
const LOG_INTERVAL: Duration = Duration::from_secs(60 * 60);

/// Longest path that is kept, in bytes.
const PATH_MAX: usize = 32;

/// The checks of `server_url`.
#[derive(Debug, Clone)]
pub struct PublicUrlStatus {
    last: watch::Receiver<Option<Arc<PublicCheck>>>,
    asks: mpsc::Sender<oneshot::Sender<Arc<PublicCheck>>>,
}

impl PublicUrlStatus {
    /// Status that reads `last` and sends requests for a check to `asks`.
    pub fn new(
        last: watch::Receiver<Option<Arc<PublicCheck>>>,
        asks: mpsc::Sender<oneshot::Sender<Arc<PublicCheck>>>,
    ) -> Self {
        Self { last, asks }
    }

    /// The last check; `None` before the first.
    pub fn last(&self) -> Option<Arc<PublicCheck>> {
        self.last.borrow().clone()
    }

    /// Checks now. Returns the last check when too many requests are queued, or the server stops.
    /// Cancel safe: the check is done anyway.
    pub async fn check(&self) -> Option<Arc<PublicCheck>> {
        let (asker, answer) = oneshot::channel();
        if self.asks.try_send(asker).is_ok()
            && let Ok(Ok(check)) = timeout(TIMEOUT, answer).await
        {
            return Some(check);
        }
        self.last()
    }
}

/// Upgrade requests that lost their `Upgrade` header to a proxy. Only the last one is kept.
#[derive(Debug)]
pub struct DroppedUpgrades(Mutex<Dropped>);

#[derive(Debug)]
struct Dropped {
    last: Option<DroppedUpgrade>,
    log: TokenBucket,
}

impl Default for DroppedUpgrades {
    fn default() -> Self {
        Self(Mutex::new(Dropped {
            last: None,
            log: TokenBucket::new(1, LOG_INTERVAL),
        }))
    }
}

impl DroppedUpgrades {
    /// The last one, unless upgrades from its address have worked since.
    pub fn last(&self) -> Option<DroppedUpgrade> {
        self.lock().last.clone()
    }

    /// Records an upgrade request without its header, and logs it at a bounded rate.
    pub fn dropped(&self, source: IpAddr, path: &str, now: Now) {
        let mut dropped = self.lock();
        let dropped_upgrade = DroppedUpgrade {
            source,
            path: path.chars().take(PATH_MAX).collect(),
            at: now.wall,
        };
        if dropped.log.take(now.mono) {
            tracing::warn!(
                %source,
                path = dropped_upgrade.path,
                "a proxy removes the Upgrade header, so its clients cannot connect; \
                 `hearth doctor` shows what to change in nginx, Caddy, HAProxy, Traefik, Apache and Cloudflare"
            );
        }
        dropped.last = Some(dropped_upgrade);
    }

    /// Records an upgrade that worked.
    pub fn passed(&self, source: IpAddr) {
        let mut dropped = self.lock();
        if dropped
            .last
            .as_ref()
            .is_some_and(|last| last.source == source)
        {
            dropped.last = None;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Dropped> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hearth_core::clock::Timestamp;

    #[test]
    fn a_dropped_upgrade_is_kept_until_one_from_there_works() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let now = Now {
            wall: Timestamp::from_unix_ms(1_780_000_000_000),
            mono: Duration::ZERO,
        };
        let dropped = DroppedUpgrades::default();
        assert_eq!(dropped.last(), None);
        dropped.dropped(ip("192.0.2.1"), &"/x".repeat(100), now);
        dropped.passed(ip("192.0.2.2"));
        let last = dropped.last().unwrap();
        assert_eq!((last.source, last.path.len()), (ip("192.0.2.1"), PATH_MAX));
        dropped.passed(ip("192.0.2.1"));
        assert_eq!(dropped.last(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn without_an_answer_the_last_check_counts() {
        let (sender, last) = watch::channel(None);
        let (asks, mut queue) = mpsc::channel(1);
        let status = PublicUrlStatus::new(last, asks);
        assert_eq!(status.check().await, None);
        assert!(queue.try_recv().is_ok());
        drop((sender, queue));
        assert_eq!(status.check().await, None);
    }
}
