//! Relay admission: which clients may use the relay.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hearth_derp::admit::AdmissionFuture;
use hearth_derp::relay::Relay;
use hearth_derp::{Admit, Key};
use tokio::sync::{Semaphore, watch};

use crate::config::{Limits, WebUrl};
use crate::outbound::client::{Outbound, OutboundError};
use crate::relay::upgrade::{AdmitAnswer, AdmitRequest, MAX_VERIFY_BYTES, VERIFY};
use crate::relay_key::{node_key, relay_key};
use crate::shutdown::Shutdown;
use crate::system_clock;
use hearth_core::keys::NodeKey;
use hearth_core::state::snapshot::Snapshot;

/// Timeout of one `admit_url` request. Source: `Server.verifyClient` in tailscale
/// `derp/derpserver/derpserver.go`.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Concurrent requests; others wait, within the time of their login.
const REQUESTS: usize = 8;

/// Longest lifetime of a cached refusal, because a client that has just joined the tailnet retries soon.
const REFUSAL_LIFETIME: Duration = Duration::from_secs(5);

/// Time between two checks of the connected clients: a client that is no longer admitted is disconnected.
const RECHECK: Duration = Duration::from_secs(5 * 60);

/// Admits the nodes of the newest snapshot.
pub struct AdmitNodes(pub(super) watch::Receiver<Arc<Snapshot>>);

impl Admit for AdmitNodes {
    fn admit(&self, key: &Key, _source: IpAddr) -> bool {
        self.0.borrow().admits(&node_key(key))
    }
}

/// Admits every client.
pub struct AdmitAnyone;

impl Admit for AdmitAnyone {
    fn admit(&self, _key: &Key, _source: IpAddr) -> bool {
        true
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
    fn admit(&self, key: &Key, _source: IpAddr) -> bool {
        self.0.contains(key)
    }
}

/// Admits clients by asking `admit_url`; responses are cached.
#[derive(Clone)]
pub struct AdmitByUrl(Arc<ByUrl>);

struct ByUrl {
    url: WebUrl,
    is_fail_open: bool,
    outbound: Arc<Outbound>,
    requests: Semaphore,
    cache: Mutex<AdmissionCache>,
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
            requests: Semaphore::new(REQUESTS),
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
                    Ok(true) => {}
                    Ok(false) => relay.disconnect(&key),
                    // Connected clients stay admitted while the URL is unavailable.
                    Err(fault) => {
                        tracing::debug!(%fault, "cannot check admission");
                        break;
                    }
                }
            }
        }
    }
}

impl Admit for AdmitByUrl {
    fn admit(&self, key: &Key, _source: IpAddr) -> bool {
        self.0.known(key) == Some(true)
    }

    fn admit_async(&self, key: &Key, source: IpAddr) -> Option<AdmissionFuture> {
        if self.0.known(key).is_some() {
            return None;
        }
        let (this, key) = (self.0.clone(), *key);
        Some(Box::pin(async move { this.decide(&key, source).await }))
    }
}

impl ByUrl {
    fn known(&self, key: &Key) -> Option<bool> {
        self.cache().fresh(key, system_clock::now().mono)
    }

    fn cache(&self) -> std::sync::MutexGuard<'_, AdmissionCache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn decide(&self, key: &Key, source: IpAddr) -> bool {
        let fault = match self.ask(key, Some(source)).await {
            Ok(answer) => return answer,
            Err(fault) => fault,
        };
        let cached = self.cache().any(key);
        let decision = cached.unwrap_or(self.is_fail_open);
        tracing::warn!(url = %self.url, %fault, ?key, decision, "admit_url is unreachable");
        decision
    }

    async fn ask(&self, key: &Key, source: Option<IpAddr>) -> Result<bool, OutboundError> {
        let _permit = self.requests.acquire().await;
        let request = AdmitRequest {
            node_public: node_key(key),
            source: source.map(|source| source.to_string()).unwrap_or_default(),
        };
        let request = serde_json::to_vec(&request).unwrap_or_default();
        let answer = self
            .outbound
            .post(&self.url, request, MAX_VERIFY_BYTES, TIMEOUT);
        let answer = match answer.await {
            Ok(bytes) => {
                serde_json::from_slice::<AdmitAnswer>(&bytes).is_ok_and(|answer| answer.allow)
            }
            // Another status than 200 is a response. Only a server that could not be reached counts as
            // unavailable, as in the reference.
            Err(OutboundError::Status(status)) => {
                tracing::warn!(url = %self.url, %status, "unexpected response from admit_url");
                return Ok(false);
            }
            Err(fault) => return Err(fault),
        };
        self.cache()
            .remember(*key, answer, system_clock::now().mono);
        Ok(answer)
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
        assert!(admit.admit(&Key::from([1; 32]), source));
        assert!(!admit.admit(&Key::from([2; 32]), source));
    }
}
