//! Relay admission: which clients may use the relay.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hearth_derp::admit::AdmissionFuture;
use hearth_derp::relay::Relay;
use hearth_derp::{Admit, Key, Standing};
use hearth_shares::{Source, TokenBucket};
use tokio::sync::{Semaphore, watch};

use crate::config::{Limits, WebUrl};
use crate::outbound::client::{Outbound, OutboundError};
use crate::relay::http::{AdmitAnswer, AdmitRequest, MAX_VERIFY_BYTES, VERIFY};
use crate::relay::turns::Turns;
use crate::relay_key::{node_key, relay_key};
use crate::shutdown::Shutdown;
use crate::system_clock;
use hearth_core::keys::NodeKey;
use hearth_core::state::snapshot::Snapshot;

/// Timeout of one `admit_url` request. Source: `Server.verifyClient` in tailscale
/// `derp/derpserver/derpserver.go`.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Concurrent requests about clients that were admitted before, and as many about others. Further ones wait, within
/// the time of their login.
const REQUESTS: usize = 4;

/// Concurrent requests about clients of one source that were not admitted before.
const REQUESTS_PER_SOURCE: usize = 2;

/// Longest lifetime of a cached refusal, because a client that has just joined the tailnet retries soon.
const REFUSAL_LIFETIME: Duration = Duration::from_secs(5);

/// How long the URL is not asked after it was unreachable.
const PAUSE: Duration = Duration::from_secs(5);

/// Log lines about outages of the URL, and as many about unexpected statuses: so many at once, and then one in this
/// interval. Clients cause the requests.
const LOG_LINES: (u32, Duration) = (4, Duration::from_secs(10 * 60));

/// Time between two checks of the connected clients: a client that is no longer admitted is disconnected.
const RECHECK: Duration = Duration::from_secs(5 * 60);

/// Admits the nodes of the newest snapshot.
pub struct AdmitNodes(pub(super) watch::Receiver<Arc<Snapshot>>);

impl Admit for AdmitNodes {
    fn admit(&self, key: &Key, _source: IpAddr) -> Option<Standing> {
        let is_node = self.0.borrow().admits(&node_key(key));
        is_node.then_some(Standing::Known)
    }
}

/// Admits every client. Those that are nodes of the newest snapshot, if there is one, are known clients.
pub struct AdmitAnyone(pub(super) Option<watch::Receiver<Arc<Snapshot>>>);

impl Admit for AdmitAnyone {
    fn admit(&self, key: &Key, _source: IpAddr) -> Option<Standing> {
        let states = self.0.as_ref();
        let is_node = states.is_some_and(|states| states.borrow().admits(&node_key(key)));
        Some(match is_node {
            true => Standing::Known,
            false => Standing::Stranger,
        })
    }
}

/// Admits the clients with these keys.
pub struct AdmitKeys(BTreeSet<Key>);

impl AdmitKeys {
    /// Admits these keys only.
    pub fn new(keys: &[NodeKey]) -> Self {
        Self(keys.iter().map(relay_key).collect())
    }
}

impl Admit for AdmitKeys {
    fn admit(&self, key: &Key, _source: IpAddr) -> Option<Standing> {
        self.0.contains(key).then_some(Standing::Known)
    }
}

/// Admits clients by asking `admit_url`; responses are cached.
#[derive(Clone)]
pub struct AdmitByUrl(Arc<ByUrl>);

struct ByUrl {
    url: WebUrl,
    is_fail_open: bool,
    outbound: Arc<Outbound>,
    /// Requests about clients that were admitted before.
    known: Semaphore,
    /// Requests about others.
    strangers: Turns,
    cache: Mutex<AdmissionCache>,
    health: Mutex<UrlHealth>,
}

impl AdmitByUrl {
    /// Asks this URL about each client.
    pub fn new(url: &WebUrl, is_fail_open: bool, outbound: Arc<Outbound>, limits: &Limits) -> Self {
        let url = match url.has_no_path() {
            true => url.with_path(VERIFY),
            false => url.clone(),
        };
        Self(Arc::new(ByUrl {
            url,
            is_fail_open,
            outbound,
            known: Semaphore::new(REQUESTS),
            strangers: Turns::new(REQUESTS, REQUESTS_PER_SOURCE),
            health: Mutex::new(UrlHealth::new()),
            cache: Mutex::new(AdmissionCache::new(
                limits.derp_admit_cache,
                limits.derp_admit_time,
            )),
        }))
    }

    /// Checks the connected clients periodically, until the server stops.
    pub async fn keep_checking(self, relay: Relay, shutdown: Shutdown) {
        loop {
            tokio::select! {
                () = shutdown.wait() => return,
                () = tokio::time::sleep(RECHECK) => {}
            }
            for key in relay.keys() {
                let asked = tokio::select! {
                    () = shutdown.wait() => return,
                    asked = self.0.ask(&key, None) => asked,
                };
                match asked {
                    Some(true) => {}
                    Some(false) => relay.disconnect(&key),
                    // Connected clients stay admitted while the URL is unreachable.
                    None => break,
                }
            }
        }
    }
}

impl Admit for AdmitByUrl {
    fn admit(&self, key: &Key, _source: IpAddr) -> Option<Standing> {
        (self.0.fresh(key) == Some(true)).then_some(Standing::Known)
    }

    fn admit_async(&self, key: &Key, source: IpAddr) -> Option<AdmissionFuture> {
        if self.0.fresh(key).is_some() {
            return None;
        }
        let (this, key) = (self.0.clone(), *key);
        Some(Box::pin(async move { this.decide(&key, source).await }))
    }
}

impl ByUrl {
    fn fresh(&self, key: &Key) -> Option<bool> {
        self.cache().fresh(key, system_clock::now().mono)
    }

    fn was_admitted(&self, key: &Key) -> bool {
        self.cache().any(key) == Some(true)
    }

    fn cache(&self) -> MutexGuard<'_, AdmissionCache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn health(&self) -> MutexGuard<'_, UrlHealth> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Without an answer the last one counts, and with `is_fail_open` a client without one is a stranger.
    async fn decide(&self, key: &Key, source: IpAddr) -> Option<Standing> {
        let answer = self.ask(key, Some(source)).await;
        let decision = match answer.or_else(|| self.cache().any(key)) {
            Some(is_admitted) => is_admitted.then_some(Standing::Known),
            None => self.is_fail_open.then_some(Standing::Stranger),
        };
        if answer.is_none() {
            self.health().note_undecided();
            tracing::debug!(?key, %source, ?decision, "admission decided without admit_url");
        }
        decision
    }

    /// Asks the URL about a client; `source` is missing for one that is connected. `None` means that the URL is
    /// unreachable.
    async fn ask(&self, key: &Key, source: Option<IpAddr>) -> Option<bool> {
        let stranger = source.filter(|_| !self.was_admitted(key));
        let _turn = match stranger {
            Some(source) => Some(self.strangers.take(Source::of(source)).await),
            None => None,
        };
        let _permit = match stranger {
            Some(_) => None,
            None => self.known.acquire().await.ok(),
        };
        // Another connection of the client may have been answered meanwhile.
        let known = stranger.and_then(|_| self.fresh(key));
        if known.is_some() || self.health().is_paused(system_clock::now().mono) {
            return known;
        }
        let request = AdmitRequest {
            node_public: node_key(key),
            source: source.map(|source| source.to_string()).unwrap_or_default(),
        };
        let request = serde_json::to_vec(&request).unwrap_or_default();
        let outbound = &self.outbound;
        let answer = outbound
            .post(&self.url, request, MAX_VERIFY_BYTES, TIMEOUT)
            .await;
        let now = system_clock::now().mono;
        match answer {
            Ok(bytes) => {
                let answer = serde_json::from_slice::<AdmitAnswer>(&bytes);
                let is_admitted = answer.is_ok_and(|answer| answer.allow);
                if let Some(undecided) = self.health().note_answer(now) {
                    tracing::info!(url = %self.url, undecided, "admit_url is reachable again");
                }
                self.cache().remember(*key, is_admitted, now);
                Some(is_admitted)
            }
            // Another status than 200 is a refusal. Only a server that could not be reached counts as
            // unreachable, as in the reference.
            Err(OutboundError::Status(status)) => {
                if self.health().may_log_status(now) {
                    tracing::warn!(url = %self.url, %status, "unexpected response from admit_url; clients are refused");
                }
                // What an outage of the server behind a proxy says does not replace an earlier answer.
                if !self.was_admitted(key) {
                    self.cache().remember(*key, false, now);
                }
                Some(false)
            }
            Err(fault) => {
                if self.health().note_failure(now) {
                    let others = if self.is_fail_open {
                        "admitted"
                    } else {
                        "refused"
                    };
                    tracing::warn!(
                        url = %self.url, %fault,
                        "admit_url is unreachable; clients that it admitted before are admitted, others {others}"
                    );
                }
                None
            }
        }
    }
}

/// Whether the URL responds, and how much of that was logged.
struct UrlHealth {
    /// The URL is not asked before this time.
    paused_until: Duration,
    is_reachable: bool,
    /// Decisions without an answer since that was last logged.
    undecided: u64,
    outages: TokenBucket,
    statuses: TokenBucket,
}

impl UrlHealth {
    fn new() -> Self {
        let lines = TokenBucket::new(LOG_LINES.0, LOG_LINES.1);
        Self {
            paused_until: Duration::ZERO,
            is_reachable: true,
            undecided: 0,
            outages: lines,
            statuses: lines,
        }
    }

    fn is_paused(&self, now: Duration) -> bool {
        now < self.paused_until
    }

    fn note_undecided(&mut self) {
        self.undecided = self.undecided.saturating_add(1);
    }

    /// Whether to log an unexpected status.
    fn may_log_status(&mut self, now: Duration) -> bool {
        self.statuses.take(now)
    }

    /// Notes that the URL is unreachable. Returns whether to log that: once in each outage.
    fn note_failure(&mut self, now: Duration) -> bool {
        self.paused_until = now.saturating_add(PAUSE);
        std::mem::replace(&mut self.is_reachable, false) && self.outages.take(now)
    }

    /// Notes an answer. After an outage, returns the number of decisions without one, if that is to be logged.
    fn note_answer(&mut self, now: Duration) -> Option<u64> {
        self.paused_until = Duration::ZERO;
        let is_back = !std::mem::replace(&mut self.is_reachable, true);
        (is_back && self.outages.take(now)).then(|| std::mem::take(&mut self.undecided))
    }
}

/// Cached answers by key, in bounded number.
struct AdmissionCache {
    most: usize,
    lifetime: Duration,
    known: HashMap<Key, (bool, Duration)>,
}

impl AdmissionCache {
    fn new(most: usize, lifetime: Duration) -> Self {
        Self {
            most,
            lifetime,
            known: HashMap::new(),
        }
    }

    /// The cached response, unless expired.
    fn fresh(&self, key: &Key, now: Duration) -> Option<bool> {
        let (answer, at) = self.known.get(key)?;
        let lifetime = match answer {
            true => self.lifetime,
            false => self.lifetime.min(REFUSAL_LIFETIME),
        };
        (now.saturating_sub(*at) < lifetime).then_some(*answer)
    }

    /// The cached response, even if expired.
    fn any(&self, key: &Key) -> Option<bool> {
        self.known.get(key).map(|(answer, _)| *answer)
    }

    /// Caches a response. When full, the oldest refusal is evicted, or else the oldest response:
    /// unknown clients can bring any number of keys, and must not evict admitted ones.
    fn remember(&mut self, key: Key, answer: bool, now: Duration) {
        if self.known.len() >= self.most && !self.known.contains_key(&key) {
            let oldest = self.known.iter().min_by_key(|(_, known)| **known);
            if let Some(oldest) = oldest.map(|(key, _)| *key) {
                self.known.remove(&oldest);
            }
        }
        self.known.insert(key, (answer, now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervise::Tasks;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[test]
    fn answers_expire_and_refusals_are_evicted_first() {
        let second = Duration::from_secs;
        let key = |mark| Key::from([mark; 32]);
        let mut cache = AdmissionCache::new(2, second(60));
        cache.remember(key(1), true, second(0));
        cache.remember(key(2), false, second(10));
        assert_eq!(cache.fresh(&key(1), second(59)), Some(true));
        assert_eq!(cache.fresh(&key(1), second(60)), None);
        assert_eq!(cache.any(&key(1)), Some(true));
        let asked = |at| cache.fresh(&key(2), second(at));
        assert_eq!((asked(14), asked(15)), (Some(false), None));
        cache.remember(key(3), false, second(20));
        assert_eq!((cache.any(&key(2)), cache.any(&key(1))), (None, Some(true)));
        assert_eq!(cache.known.len(), 2);
    }

    #[test]
    fn only_the_listed_keys_are_admitted() {
        let admit = AdmitKeys::new(&[NodeKey::from_bytes([1; 32])]);
        let source = IpAddr::from([192, 0, 2, 1]);
        let known = admit.admit(&Key::from([1; 32]), source);
        assert_eq!(known, Some(Standing::Known));
        assert_eq!(admit.admit(&Key::from([2; 32]), source), None);
    }

    #[test]
    fn an_outage_is_logged_once_and_the_url_is_left_alone_for_a_while() {
        let second = Duration::from_secs;
        let mut health = UrlHealth::new();
        assert!(health.note_failure(second(1)));
        for at in 1..1000 {
            health.note_undecided();
            assert!(!health.note_failure(second(at)));
        }
        assert!(health.is_paused(second(1003)) && !health.is_paused(second(1004)));
        assert_eq!(health.note_answer(second(1004)), Some(999));
        assert_eq!(health.note_answer(second(1004)), None);
        // A URL that comes and goes does not fill the log either.
        let lines = (1005..2005).filter(|at| {
            let said = health.note_failure(second(*at));
            said | health.note_answer(second(*at)).is_some()
        });
        assert!(lines.count() <= 6);
    }

    /// An `admit_url` that answers each request with `answer` until the tasks are dropped, and how many it has got.
    async fn by_url(answer: &'static str) -> (AdmitByUrl, Arc<AtomicUsize>, Tasks) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        let serving = async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::Relaxed);
                let mut request = Vec::new();
                while !request.ends_with(b"}") && stream.read_buf(&mut request).await.unwrap() > 0 {
                }
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        };
        let tasks = Tasks::new();
        tasks.spawn("admission server", serving);
        let limits = Limits::default();
        let admit = AdmitByUrl::new(&url.parse().unwrap(), false, Arc::default(), &limits);
        (admit, asked, tasks)
    }

    async fn decide(admit: &AdmitByUrl, mark: u8) -> Option<Standing> {
        let (key, source) = (Key::from([mark; 32]), IpAddr::from([192, 0, 2, 1]));
        match admit.admit_async(&key, source) {
            Some(decision) => decision.await,
            None => admit.admit(&key, source),
        }
    }

    #[tokio::test]
    async fn an_unreachable_url_is_not_asked_for_each_client() {
        // It closes the connection without a word.
        let (admit, asked, _tasks) = by_url("").await;
        for mark in 0..50 {
            assert_eq!(decide(&admit, mark).await, None);
        }
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        let now = system_clock::now().mono;
        admit.0.cache().remember(
            Key::from([1; 32]),
            true,
            now.saturating_sub(Duration::from_secs(3600)),
        );
        assert_eq!(decide(&admit, 1).await, Some(Standing::Known));
    }

    #[tokio::test]
    async fn refusals_of_any_kind_are_cached() {
        for answer in [
            "HTTP/1.1 500 Oops\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 15\r\nConnection: close\r\n\r\n{\"Allow\":false}",
        ] {
            let (admit, asked, _tasks) = by_url(answer).await;
            for _ in 0..20 {
                assert_eq!(decide(&admit, 7).await, None);
            }
            assert_eq!(asked.load(Ordering::Relaxed), 1);
        }
    }
}
