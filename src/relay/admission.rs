//! Who may use the relay: the deciders that the configuration can name.

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

/// How long one question may take. Source: `Server.verifyClient` in tailscale
/// `derp/derpserver/derpserver.go`.
const PATIENCE: Duration = Duration::from_secs(5);

/// Questions at the same time; others wait, within the time of their login.
const QUESTIONS: usize = 8;

/// The longest time for which a refusal is believed: whoever has just joined the tailnet comes again
/// soon.
const REFUSED: Duration = Duration::from_secs(5);

/// How often the clients that are connected are asked about again, so that one who is not admitted any
/// more is cut off.
const ASK_AGAIN: Duration = Duration::from_secs(5 * 60);

/// Lets onto the relay whoever the newest state admits.
pub struct AdmitNodes(pub(super) watch::Receiver<Arc<Snapshot>>);

impl Admit for AdmitNodes {
    fn admit(&self, key: &Key, _source: IpAddr) -> bool {
        self.0.borrow().admits(&node_key(key))
    }
}

/// Lets anybody in.
pub struct AdmitAnyone;

impl Admit for AdmitAnyone {
    fn admit(&self, _key: &Key, _source: IpAddr) -> bool {
        true
    }
}

/// Lets the owners of these keys in.
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

/// Asks another server, and remembers its answers for a while.
#[derive(Clone)]
pub struct AdmitByUrl(Arc<ByUrl>);

struct ByUrl {
    url: WebUrl,
    is_fail_open: bool,
    outbound: Arc<Outbound>,
    questions: Semaphore,
    answers: Mutex<Answers>,
}

impl AdmitByUrl {
    /// Asks this URL for each client, and remembers its answers for a while.
    pub fn new(url: &WebUrl, is_fail_open: bool, outbound: Arc<Outbound>, limits: &Limits) -> Self {
        let url = match url.has_no_path() {
            true => url.with_path(VERIFY),
            false => url.clone(),
        };
        Self(Arc::new(ByUrl {
            url,
            is_fail_open,
            outbound,
            questions: Semaphore::new(QUESTIONS),
            answers: Mutex::new(Answers::new(
                limits.derp_admit_cache,
                limits.derp_admit_time,
            )),
        }))
    }

    /// Asks about the clients that are connected, now and then, until the server stops.
    pub async fn keep_asking(self, relay: Relay, shutdown: Shutdown) {
        loop {
            tokio::select! {
                () = shutdown.wait() => return,
                () = tokio::time::sleep(ASK_AGAIN) => {}
            }
            for key in relay.keys() {
                let asked = tokio::select! {
                    () = shutdown.wait() => return,
                    asked = self.0.ask(&key, None) => asked,
                };
                match asked {
                    Ok(true) => {}
                    Ok(false) => relay.disconnect(&key),
                    // Whoever is in stays in while nobody can be asked.
                    Err(fault) => {
                        tracing::debug!(%fault, "nobody to ask about admission");
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
        self.answers().fresh(key, system_clock::now().mono)
    }

    fn answers(&self) -> std::sync::MutexGuard<'_, Answers> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn decide(&self, key: &Key, source: IpAddr) -> bool {
        let fault = match self.ask(key, Some(source)).await {
            Ok(answer) => return answer,
            Err(fault) => fault,
        };
        let remembered = self.answers().any(key);
        let decision = remembered.unwrap_or(self.is_fail_open);
        tracing::warn!(url = %self.url, %fault, ?key, decision, "cannot ask about admission");
        decision
    }

    async fn ask(&self, key: &Key, source: Option<IpAddr>) -> Result<bool, OutboundError> {
        let _permit = self.questions.acquire().await;
        let question = AdmitRequest {
            node_public: node_key(key),
            source: source.map(|source| source.to_string()).unwrap_or_default(),
        };
        let question = serde_json::to_vec(&question).unwrap_or_default();
        let answer = self
            .outbound
            .post(&self.url, question, MAX_VERIFY_BYTES, PATIENCE);
        let answer = match answer.await {
            Ok(bytes) => {
                serde_json::from_slice::<AdmitAnswer>(&bytes).is_ok_and(|answer| answer.allow)
            }
            // A server that answers something else than 200 has been asked. Only one that could not be
            // asked counts as away, as in the reference.
            Err(OutboundError::Status(status)) => {
                tracing::warn!(url = %self.url, %status, "bad answer about admission");
                return Ok(false);
            }
            Err(fault) => return Err(fault),
        };
        self.answers()
            .remember(*key, answer, system_clock::now().mono);
        Ok(answer)
    }
}

/// Answers by key, a bounded number of them.
struct Answers {
    most: usize,
    lifetime: Duration,
    known: HashMap<Key, (bool, Duration)>,
}

impl Answers {
    fn new(most: usize, lifetime: Duration) -> Self {
        Self {
            most,
            lifetime,
            known: HashMap::new(),
        }
    }

    /// The answer, if it is not old.
    fn fresh(&self, key: &Key, now: Duration) -> Option<bool> {
        let (answer, at) = self.known.get(key)?;
        let lifetime = match answer {
            true => self.lifetime,
            false => self.lifetime.min(REFUSED),
        };
        (now.saturating_sub(*at) < lifetime).then_some(*answer)
    }

    /// The answer, however old.
    fn any(&self, key: &Key) -> Option<bool> {
        self.known.get(key).map(|(answer, _)| *answer)
    }

    /// Remembers an answer. When there is no room the oldest refusal goes, or else the oldest answer:
    /// strangers can bring any number of keys, and must not push out those who belong.
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
    fn answers_grow_old_and_refusals_make_room_first() {
        let second = Duration::from_secs;
        let key = |mark| Key::from([mark; 32]);
        let mut answers = Answers::new(2, second(60));
        answers.remember(key(1), true, second(0));
        answers.remember(key(2), false, second(10));
        assert_eq!(answers.fresh(&key(1), second(59)), Some(true));
        assert_eq!(answers.fresh(&key(1), second(60)), None);
        assert_eq!(answers.any(&key(1)), Some(true));
        let asked = |at| answers.fresh(&key(2), second(at));
        assert_eq!((asked(14), asked(15)), (Some(false), None));
        answers.remember(key(3), false, second(20));
        assert_eq!(
            (answers.any(&key(2)), answers.any(&key(1))),
            (None, Some(true))
        );
        assert_eq!(answers.known.len(), 2);
    }

    #[test]
    fn only_the_listed_keys_are_let_in() {
        let admit = AdmitKeys::new(&[NodeKey::from_bytes([1; 32])]);
        let source = IpAddr::from([192, 0, 2, 1]);
        assert!(admit.admit(&Key::from([1; 32]), source));
        assert!(!admit.admit(&Key::from([2; 32]), source));
    }
}
