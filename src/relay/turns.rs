//! Turns of requests that strangers cause: few at once, and fair among those who wait.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use hearth_shares::Source;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Turns of requests, of which each source has a few at once; its other requests wait behind these, and not in the
/// way of other sources.
pub(super) struct Turns {
    all: Arc<Semaphore>,
    per_source: usize,
    /// Those of the sources with requests.
    sources: Mutex<HashMap<IpAddr, Arc<Semaphore>>>,
}

/// A turn; it ends when dropped.
#[must_use = "the turn ends when this is dropped"]
pub(super) struct Turn {
    _of_source: Option<OwnedSemaphorePermit>,
    _of_all: Option<OwnedSemaphorePermit>,
}

impl Turns {
    /// At most `most` requests at once, and of them `per_source` of each IPv4 address or IPv6 /48.
    pub(super) fn new(most: usize, per_source: usize) -> Self {
        Self {
            all: Arc::new(Semaphore::new(most)),
            per_source,
            sources: Mutex::default(),
        }
    }

    /// Waits for a turn. Loopback is exempt from the share of a source, because it may be a proxy. Cancel safe.
    pub(super) async fn take(&self, source: Source) -> Turn {
        let of_source = match source.is_loopback() {
            true => None,
            // These semaphores are never closed.
            false => self.source(source.wide()).acquire_owned().await.ok(),
        };
        Turn {
            _of_source: of_source,
            _of_all: self.all.clone().acquire_owned().await.ok(),
        }
    }

    fn source(&self, source: IpAddr) -> Arc<Semaphore> {
        let sources = self.sources.lock();
        let mut sources = sources.unwrap_or_else(PoisonError::into_inner);
        // Nobody else has those without a request.
        sources.retain(|_, turns| Arc::strong_count(turns) > 1);
        let fresh = || Arc::new(Semaphore::new(self.per_source));
        sources.entry(source).or_insert_with(fresh).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    fn source(text: &str) -> Source {
        Source::of(text.parse().unwrap())
    }

    fn is_ready<T>(future: impl Future<Output = T>) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        matches!(pin!(future).poll(&mut context), Poll::Ready(_))
    }

    #[tokio::test]
    async fn a_source_waits_behind_itself_only() {
        let turns = Turns::new(3, 2);
        let greedy = [
            turns.take(source("2001:db8:1:1::1")).await,
            turns.take(source("2001:db8:1:2::1")).await,
        ];
        assert!(!is_ready(turns.take(source("2001:db8:1:3::1"))));
        let other = turns.take(source("192.0.2.1")).await;
        assert!(!is_ready(turns.take(source("192.0.2.2"))));
        drop(other);
        assert!(is_ready(turns.take(source("192.0.2.2"))));
        drop(greedy);
        for _ in 0..3 {
            assert!(is_ready(turns.take(source("127.0.0.1"))));
        }
        let _ = turns.source([192, 0, 2, 9].into());
        assert_eq!(turns.sources.lock().unwrap().len(), 1);
    }
}
