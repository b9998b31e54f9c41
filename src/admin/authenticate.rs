//! Authentication of API requests over the network, with rate limits.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use data_encoding::BASE64;
use hearth_shares::SharedTokenBucket;
use hyper::header::HeaderValue;
use hyper::{Response, StatusCode};
use zeroize::Zeroizing;

use crate::admin::problem::{ApiError, Code};
use crate::admin::{Style, later};
use crate::net::body;
use crate::net::body::Body;
use hearth_core::clock::Now;
use hearth_core::id::ApiKeyId;
use hearth_core::state::model::ApiKey;
use hearth_core::state::principal::Principal;
use hearth_core::state::secret;
use hearth_core::state::secret::SecretKind;

/// Rate of requests with an existing key, valid or not: a burst of 100, then 20 per second.
const CHECKED: (u32, Duration) = (100, Duration::from_millis(50));
/// Rate of requests with an unknown key: a burst of 10, then one per second.
const STRANGERS: (u32, Duration) = (10, Duration::from_secs(1));

/// Why authentication failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthError {
    /// No key, or an invalid or expired one.
    Unauthorized,
    /// Rate limit reached.
    TooMany,
}

impl AuthError {
    /// The response. Source of the text: `httpAuthenticationMiddleware` in headscale `hscontrol/app.go`,
    /// which ends without a newline; headscale-admin compares it whole.
    pub fn response(self, style: Style) -> Response<Body> {
        match (self, style) {
            (Self::Unauthorized, Style::V1) => {
                body::typed(StatusCode::UNAUTHORIZED, "text/plain", "Unauthorized")
            }
            (Self::Unauthorized, Style::V2) => {
                style.refuse(&ApiError::new(Code::Unauthenticated, "API token invalid"))
            }
            (Self::TooMany, _) => later(
                style.refuse(&ApiError::new(Code::ResourceExhausted, "too many requests")),
                1,
            ),
        }
    }
}

/// Checks API keys, with rate limits against guessing.
///
/// Two buckets, so that a client that guesses unknown keys cannot lock out the owner of an existing one.
#[derive(Debug)]
pub struct ApiKeyGate {
    checked: SharedTokenBucket,
    strangers: SharedTokenBucket,
}

impl Default for ApiKeyGate {
    fn default() -> Self {
        Self {
            checked: SharedTokenBucket::new(CHECKED.0, CHECKED.1),
            strangers: SharedTokenBucket::new(STRANGERS.0, STRANGERS.1),
        }
    }
}

impl ApiKeyGate {
    /// Authenticates a client by its API key.
    ///
    /// # Errors
    /// When the key is missing, invalid or expired, or the rate limit is reached.
    pub fn admit(
        &self,
        shown: Option<&HeaderValue>,
        keys: &BTreeMap<ApiKeyId, Arc<ApiKey>>,
        now: Now,
    ) -> Result<Principal, AuthError> {
        let text = shown.and_then(|header| key_in(header.to_str().ok()?));
        let split = text.as_deref().map(String::as_str);
        let split = split.and_then(|text| secret::split(SecretKind::Api, text));
        let known = split.and_then(|(prefix, secret)| {
            let key = keys.values().find(|key| *key.prefix == *prefix)?;
            Some((key, secret))
        });
        let Some((key, secret)) = known else {
            return Err(match self.strangers.take(now.mono) {
                true => AuthError::Unauthorized,
                false => AuthError::TooMany,
            });
        };
        if !self.checked.take(now.mono) {
            return Err(AuthError::TooMany);
        }
        if key.has_ended(now) || !key.hash.matches(secret) {
            return Err(AuthError::Unauthorized);
        }
        Ok(Principal::ApiKey {
            id: key.id,
            prefix: key.prefix.clone(),
            scopes: key.scopes,
        })
    }
}

/// The key in an `Authorization` header: `Bearer`, or `Basic` with the key as user name, as clients of
/// tailscale.com's API send it. Source: `applyNewACL` in tailscale `cmd/gitops-pusher/gitops-pusher.go`.
fn key_in(header: &str) -> Option<Zeroizing<String>> {
    if let Some(text) = header.strip_prefix("Bearer ") {
        return Some(Zeroizing::new(text.into()));
    }
    let encoded = header.strip_prefix("Basic ")?;
    let decoded = Zeroizing::new(BASE64.decode(encoded.as_bytes()).ok()?);
    let (user, _) = str::from_utf8(&decoded).ok()?.split_once(':')?;
    Some(Zeroizing::new(user.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hearth_core::clock::{PLAUSIBLE_FROM, Timestamp};
    use hearth_core::state::scope::Scopes;
    use hearth_core::state::secret::new_secret;

    fn at(seconds: u64) -> Now {
        let mono = Duration::from_secs(seconds);
        Now {
            wall: PLAUSIBLE_FROM.plus(mono),
            mono,
        }
    }

    fn with_key(expiry: Option<Timestamp>) -> (BTreeMap<ApiKeyId, Arc<ApiKey>>, HeaderValue) {
        let secret = new_secret(SecretKind::Api).unwrap();
        let key = ApiKey {
            id: ApiKeyId::FIRST,
            prefix: secret.prefix.clone(),
            hash: secret.hash,
            scopes: Scopes::ALL,
            expiry,
            created: PLAUSIBLE_FROM,
        };
        let header = HeaderValue::from_str(&format!("Bearer {}", *secret.text)).unwrap();
        (BTreeMap::from([(key.id, Arc::new(key))]), header)
    }

    #[test]
    fn a_key_may_come_as_the_name_of_a_user() {
        let (keys, header) = with_key(None);
        let text = header.to_str().unwrap().strip_prefix("Bearer ").unwrap();
        let basic = |pair: &str| {
            let header = format!("Basic {}", BASE64.encode(pair.as_bytes()));
            HeaderValue::from_str(&header).unwrap()
        };
        let gate = ApiKeyGate::default();
        let right = basic(&format!("{text}:"));
        assert!(gate.admit(Some(&right), &keys, at(1)).is_ok());
        for wrong in [
            basic(text),
            basic(&format!(":{text}")),
            basic(&format!("{text}x:")),
        ] {
            let refusal = gate.admit(Some(&wrong), &keys, at(1)).map(drop);
            assert_eq!(refusal, Err(AuthError::Unauthorized));
        }
    }

    #[test]
    fn a_valid_key_is_accepted_until_it_expires() {
        let (keys, header) = with_key(Some(at(10).wall));
        let gate = ApiKeyGate::default();
        assert!(gate.admit(Some(&header), &keys, at(9)).is_ok());
        assert_eq!(
            gate.admit(Some(&header), &keys, at(10)).map(drop),
            Err(AuthError::Unauthorized)
        );
    }

    #[test]
    fn an_implausible_clock_expires_no_key() {
        let (keys, header) = with_key(Some(Timestamp::from_unix_ms(5)));
        let now = Now {
            wall: Timestamp::from_unix_ms(10),
            mono: Duration::ZERO,
        };
        assert!(
            ApiKeyGate::default()
                .admit(Some(&header), &keys, now)
                .is_ok()
        );
    }

    #[test]
    fn invalid_keys_are_refused() {
        let (keys, header) = with_key(None);
        let right = header.to_str().unwrap();
        let mut wrong = right.to_owned();
        let last = wrong.pop().unwrap();
        wrong.push(if last == '0' { '1' } else { '0' });
        let basic = right.replace("Bearer", "Basic");
        let preauth = right.replace("hskey-api", "hskey-auth");
        let gate = ApiKeyGate::default();
        for text in ["", "Bearer ", "Bearer x", &wrong, &basic, &preauth] {
            let header = HeaderValue::from_str(text).unwrap();
            let outcome = gate.admit(Some(&header), &keys, at(0)).map(drop);
            assert_eq!(outcome, Err(AuthError::Unauthorized), "{text}");
        }
        assert_eq!(
            gate.admit(None, &keys, at(0)).map(drop),
            Err(AuthError::Unauthorized)
        );
    }

    #[test]
    fn guessing_is_rate_limited_and_unknown_clients_lock_nobody_out() {
        let (keys, header) = with_key(None);
        let gate = ApiKeyGate::default();
        let unknown = HeaderValue::from_static("Bearer hskey-api-aaaaaaaaaaaa-b");
        let refused = |refusal, header: &HeaderValue, tries: u32| {
            (0..tries)
                .filter(|_| gate.admit(Some(header), &keys, at(0)).map(drop) == Err(refusal))
                .count()
        };
        assert_eq!(refused(AuthError::Unauthorized, &unknown, 1000), 10);
        assert!(gate.admit(Some(&header), &keys, at(0)).is_ok());
        let wrong = format!("{}x", header.to_str().unwrap());
        let wrong = HeaderValue::from_str(&wrong).unwrap();
        assert_eq!(refused(AuthError::Unauthorized, &wrong, 1000), 99);
        assert_eq!(
            gate.admit(Some(&header), &keys, at(0)).map(drop),
            Err(AuthError::TooMany)
        );
        assert!(gate.admit(Some(&header), &keys, at(1)).is_ok());
    }
}
