//! What a client meets at `server_url`, as last checked, and upgrade requests that a proxy has spoilt.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hearth_shares::{Lines, Source};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

use hearth_core::clock::Now;
use hearth_core::doctor::public_url::{DroppedUpgrade, PublicCheck};

/// Timeout of a requested check: above the deadlines of its parts, and below the 5 s that the LuCI app waits.
const TIMEOUT: Duration = Duration::from_millis(4500);

/// A spoilt upgrade request of one source is logged once in this time.
const LOG_INTERVAL: Duration = Duration::from_secs(60 * 60);

/// Most machines nearby, and most sources of strangers, that have a share of the log of their own; all others have one
/// together.
const SHARES_MAX: usize = 32;

/// How long a spoilt upgrade request is reported.
const KEPT: Duration = Duration::from_secs(24 * 60 * 60);

/// Longest path that is kept, in characters.
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

    /// Checks now. Returns the last check when this takes too long because another one is under way, when too
    /// many requests are queued, or when the server stops.
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

/// Upgrade requests that lost their `Upgrade` header to a proxy. One is kept: the last one from a private address,
/// where proxies are, else the last one from anywhere, which anyone can forge.
#[derive(Debug)]
pub struct DroppedUpgrades(Mutex<Dropped>);

#[derive(Debug)]
struct Dropped {
    /// With its time on the monotonic clock.
    last: Option<(Duration, DroppedUpgrade)>,
    /// Those from machines nearby, each with a share of the log.
    near: Lines<IpAddr>,
    /// Those of strangers, by the IPv4 address or IPv6 /48.
    far: Lines<IpAddr>,
}

impl Default for DroppedUpgrades {
    fn default() -> Self {
        let lines = || Lines::new(1, LOG_INTERVAL, SHARES_MAX);
        Self(Mutex::new(Dropped {
            last: None,
            near: lines(),
            far: lines(),
        }))
    }
}

impl DroppedUpgrades {
    /// The kept one, for a day, unless an upgrade from its address has worked since.
    pub fn last(&self, now: Now) -> Option<DroppedUpgrade> {
        let mut dropped = self.lock();
        dropped.forget(now);
        dropped.last.as_ref().map(|(_, last)| last.clone())
    }

    /// Records an upgrade request without its header, and logs it at a bounded rate.
    pub fn dropped(&self, source: IpAddr, path: &str, now: Now) {
        let mut dropped = self.lock();
        let new = DroppedUpgrade {
            source,
            path: path.chars().take(PATH_MAX).collect(),
            at: now.wall,
        };
        if let Some(left_out) = dropped.take_line(&new, now) {
            tracing::warn!(
                %source,
                path = new.path,
                left_out = (left_out > 0).then_some(left_out),
                "a proxy removes the Upgrade header, so its clients cannot connect; \
                 `hearth doctor` shows what to change in nginx, Caddy, HAProxy, Traefik, Apache and Cloudflare"
            );
        }
        dropped.forget(now);
        let kept = dropped.last.as_ref().map(|(_, last)| last);
        if new.is_nearby() || !kept.is_some_and(DroppedUpgrade::is_nearby) {
            dropped.last = Some((now.mono, new));
        }
    }

    /// Records an upgrade that worked.
    pub fn passed(&self, source: IpAddr) {
        let mut dropped = self.lock();
        let is_same = |(_, last): &(Duration, DroppedUpgrade)| last.source == source;
        if dropped.last.as_ref().is_some_and(is_same) {
            dropped.last = None;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Dropped> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Dropped {
    /// Whether it is logged. If so, the number of others that were not since the last one was.
    fn take_line(&mut self, new: &DroppedUpgrade, now: Now) -> Option<u32> {
        match new.is_nearby() {
            true => self.near.take(new.source, now.mono),
            false => {
                let source = Source::of(new.source);
                self.far.take(source.wide(), now.mono)
            }
        }
    }

    fn forget(&mut self, now: Now) {
        self.last
            .take_if(|(since, _)| now.mono.saturating_sub(*since) > KEPT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hearth_core::clock::Timestamp;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn after(seconds: u64) -> Now {
        Now {
            wall: Timestamp::from_unix_ms(1_780_000_000_000),
            mono: Duration::from_secs(seconds),
        }
    }

    #[test]
    fn a_dropped_upgrade_is_kept_until_one_from_there_works() {
        let dropped = DroppedUpgrades::default();
        assert_eq!(dropped.last(after(0)), None);
        dropped.dropped(ip("192.168.1.9"), &"/x".repeat(100), after(0));
        dropped.passed(ip("192.168.1.8"));
        let last = dropped.last(after(1)).unwrap();
        assert_eq!(
            (last.source, last.path.len()),
            (ip("192.168.1.9"), PATH_MAX)
        );
        dropped.passed(ip("192.168.1.9"));
        assert_eq!(dropped.last(after(1)), None);
        dropped.dropped(ip("192.168.1.9"), "/ts2021", after(1));
        assert_eq!(dropped.last(after(KEPT.as_secs() + 2)), None);
    }

    #[test]
    fn a_stranger_does_not_hide_the_proxy() {
        let dropped = DroppedUpgrades::default();
        let (proxy, stranger) = (ip("127.0.0.1"), ip("203.0.113.9"));
        let source = || dropped.last(after(0)).map(|last| last.source);
        dropped.dropped(stranger, "/ts2021", after(0));
        assert_eq!(source(), Some(stranger));
        dropped.dropped(proxy, "/ts2021", after(0));
        dropped.dropped(stranger, "/ts2021", after(0));
        assert_eq!(source(), Some(proxy));
        dropped.passed(stranger);
        assert_eq!(source(), Some(proxy));
    }

    #[test]
    fn a_source_hides_no_line_of_another_and_strangers_none_of_a_proxy() {
        let dropped = DroppedUpgrades::default();
        let is_logged = |source: &str| {
            let new = DroppedUpgrade {
                source: ip(source),
                path: "/ts2021".to_owned(),
                at: after(0).wall,
            };
            dropped.lock().take_line(&new, after(0)).is_some()
        };
        assert!(is_logged("203.0.113.9") && !is_logged("203.0.113.9"));
        assert!(is_logged("2001:db8:1:1::1") && !is_logged("2001:db8:1:2::1"));
        assert!(is_logged("192.168.1.9") && is_logged("192.168.1.10"));
        let flood = (0..1000).map(|at| format!("198.51.{}.{}", at / 250, at % 250));
        assert!(flood.filter(|source| is_logged(source)).count() < SHARES_MAX);
        assert!(is_logged("127.0.0.1") && !is_logged("127.0.0.1"));
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
