//! Authentication of API requests over the network, with rate limits.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use data_encoding::BASE64;
use hearth_shares::AddressBuckets;
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

/// Rate of wrong keys of one source: a burst of 10, then one per second.
const WRONG: (u32, Duration) = (10, Duration::from_secs(1));
/// Most sources that are remembered; all others share one bucket.
const SOURCES_MAX: usize = 256;

/// Why authentication failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthError {
    /// No key, or an invalid or expired one.
    Unauthorized,
    /// Too many wrong keys.
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

/// Checks API keys, with a rate limit against guessing.
///
/// Only wrong keys are charged, to the source that shows them: the owner of a valid key is never locked out, also one who
/// shares an address with somebody that guesses. A key with an unknown prefix and one with a wrong secret get the same
/// answers. Rates are no protection of the keys, which have 256 random bits; they keep a client with a wrong key from
/// asking as fast as it can.
#[derive(Debug)]
pub struct ApiKeyGate {
    wrong: AddressBuckets,
}

impl Default for ApiKeyGate {
    fn default() -> Self {
        Self {
            wrong: AddressBuckets::new(WRONG.0, WRONG.1, SOURCES_MAX),
        }
    }
}

impl ApiKeyGate {
    /// Authenticates a client by its API key.
    ///
    /// # Errors
    /// When the key is missing, invalid or expired; [`AuthError::TooMany`] after many invalid ones of this source.
    pub fn admit(
        &self,
        source: IpAddr,
        shown: Option<&HeaderValue>,
        keys: &BTreeMap<ApiKeyId, Arc<ApiKey>>,
        now: Now,
    ) -> Result<Principal, AuthError> {
        let text = shown.and_then(|header| key_in(header.to_str().ok()?));
        let text = text.as_deref().ok_or(AuthError::Unauthorized)?;
        let split = secret::split(SecretKind::Api, text);
        let right = split.and_then(|(prefix, secret)| {
            let mut keys = keys.values();
            keys.find(|key| *key.prefix == *prefix && key.hash.matches(secret))
        });
        let Some(key) = right else {
            return Err(self.wrong_key(source, now));
        };
        if key.has_ended(now) {
            return Err(AuthError::Unauthorized);
        }
        Ok(Principal::ApiKey {
            id: key.id,
            prefix: key.prefix.clone(),
            scopes: key.scopes,
        })
    }

    /// The answer to a wrong key.
    fn wrong_key(&self, source: IpAddr, now: Now) -> AuthError {
        match self.wrong.take(source, now.mono) {
            true => AuthError::Unauthorized,
            false => AuthError::TooMany,
        }
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
    use hearth_core::state::model::Ending;
    use hearth_core::state::scope::Scopes;
    use hearth_core::state::secret::new_secret;
    use std::net::Ipv4Addr;

    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

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
            ending: Ending::Date,
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
        assert!(gate.admit(HERE, Some(&right), &keys, at(1)).is_ok());
        for wrong in [
            basic(text),
            basic(&format!(":{text}")),
            basic(&format!("{text}x:")),
        ] {
            let refusal = gate.admit(HERE, Some(&wrong), &keys, at(1)).map(drop);
            assert_eq!(refusal, Err(AuthError::Unauthorized));
        }
    }

    #[test]
    fn a_valid_key_is_accepted_until_it_expires() {
        let (keys, header) = with_key(Some(at(10).wall));
        let gate = ApiKeyGate::default();
        assert!(gate.admit(HERE, Some(&header), &keys, at(9)).is_ok());
        assert_eq!(
            gate.admit(HERE, Some(&header), &keys, at(10)).map(drop),
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
                .admit(HERE, Some(&header), &keys, now)
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
            let outcome = gate.admit(HERE, Some(&header), &keys, at(0)).map(drop);
            assert_eq!(outcome, Err(AuthError::Unauthorized), "{text}");
        }
        assert_eq!(
            gate.admit(HERE, None, &keys, at(0)).map(drop),
            Err(AuthError::Unauthorized)
        );
    }

    #[test]
    fn only_wrong_keys_are_charged_and_a_valid_one_is_never_locked_out() {
        let (keys, header) = with_key(None);
        let gate = ApiKeyGate::default();
        let text = header.to_str().unwrap();
        let unknown = "Bearer hskey-api-aaaaaaaaaaaa-b".to_owned();
        let outcomes = |source: IpAddr, text: &str| -> Vec<AuthError> {
            let header = HeaderValue::from_str(text).unwrap();
            let tries = (0..40).map(|_| gate.admit(source, Some(&header), &keys, at(0)));
            tries.filter_map(Result::err).collect()
        };
        // A known prefix and an unknown one look the same.
        let elsewhere = |last| IpAddr::from([198, 51, 100, last]);
        let wrong = outcomes(elsewhere(1), &format!("{text}x"));
        assert_eq!(wrong, outcomes(elsewhere(2), &unknown));
        let refused = wrong
            .iter()
            .filter(|fault| **fault == AuthError::Unauthorized);
        assert_eq!((refused.count(), wrong.len()), (10, 40));
        // From the same source as the guesses, too, and however often it comes.
        for source in [HERE, elsewhere(1), elsewhere(2)] {
            assert!(outcomes(source, text).is_empty());
        }
        assert!(
            outcomes(HERE, "")
                .iter()
                .all(|fault| *fault == AuthError::Unauthorized)
        );
        assert_eq!(outcomes(HERE, &unknown), wrong);
    }

    #[test]
    fn no_source_uses_up_the_tries_of_another() {
        let (keys, _) = with_key(None);
        let gate = ApiKeyGate::default();
        let guess = HeaderValue::from_static("Bearer hskey-api-aaaaaaaaaaaa-b");
        for last in 0..=255 {
            for _ in 0..20 {
                let source = IpAddr::from([198, 51, 100, last]);
                assert!(gate.admit(source, Some(&guess), &keys, at(0)).is_err());
            }
        }
        // More sources than are remembered.
        let refused = gate.admit(HERE, Some(&guess), &keys, at(0)).map(drop);
        assert_eq!(refused, Err(AuthError::Unauthorized));
    }
}
