//! `POST /register/<id>`: the key of an invitation admits the device of a pending registration.
//!
//! Apps for phones take no key, but lead to the page of their registration. The key proves the right to join, as it does
//! when a client presents it; neither the page nor its URL proves anything. There is no session that another site could
//! use: the sender of the form has to know both the URL, which is a secret, and the key.

use std::net::IpAddr;
use std::time::Duration;

use hearth_shares::AddressBuckets;
use hyper::StatusCode;
use hyper::header::HeaderMap;

use crate::engine::EngineError;
use crate::net::query;
use hearth_core::clock::Now;
use hearth_core::state::command::{PresentedKey, Rejected};
use hearth_core::state::model::UnusableKey;
use hearth_core::state::secret::SecretKind;
use hearth_core::state::snapshot::Snapshot;

/// Longest form, in bytes: people paste the whole link or command.
pub const FORM_MAX: usize = 4096;

/// Wrong keys of one source: 5 at once, then one in 20 s.
const WRONG: (u32, Duration) = (5, Duration::from_secs(20));
/// Sources that are remembered; all others share one bucket.
const SOURCES_MAX: usize = 128;

/// Counts keys that may not be used, by source. A key that may be is not counted, whatever becomes of the device: nobody can
/// keep others from joining.
pub struct WrongKeys(AddressBuckets);

impl Default for WrongKeys {
    fn default() -> Self {
        Self(AddressBuckets::new(WRONG.0, WRONG.1, SOURCES_MAX))
    }
}

impl WrongKeys {
    /// Counts a wrong key. Returns false if there were too many.
    pub fn count(&self, source: IpAddr, now: Now) -> bool {
        self.0.take(source, now.mono)
    }
}

/// Whether a browser says that another site sends the form. Older browsers, and those of pages without TLS, say nothing.
/// Source: W3C Fetch Metadata, `Sec-Fetch-Site`.
pub fn is_from_elsewhere(headers: &HeaderMap) -> bool {
    let site = headers.get("sec-fetch-site");
    site.is_some_and(|site| site != "same-origin" && site != "none")
}

/// The key in a form, if it may be used now.
///
/// # Errors
/// Why it may not be used, for the person who entered it.
pub fn usable_key(
    form: &[u8],
    snapshot: &Snapshot,
    now: Now,
) -> Result<PresentedKey, &'static str> {
    let text = str::from_utf8(form).unwrap_or_default();
    let text = query::value(Some(text), "key");
    let presented = PresentedKey::read(key_in(&text).unwrap_or_default());
    let Some(key) = presented.find(snapshot.preauth_keys().values()) else {
        return Err(
            "This key is not valid. Copy it again from the invitation, or ask the owner for a new one.",
        );
    };
    match key.may_join(now) {
        Ok(()) => Ok(presented),
        Err(UnusableKey::Used) => Err(
            "This invitation was used already: it is for one device. Ask the owner for a new one.",
        ),
        Err(UnusableKey::Expired) => {
            Err("This invitation has expired. Ask the owner for a new one.")
        }
    }
}

/// The key in a text: also of a link, of a command, or with a full stop after it.
fn key_in(text: &str) -> Option<&str> {
    let start = text.find(SecretKind::PreAuth.lead())?;
    let rest = text.get(start..)?;
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_');
    let end = rest.find(|letter| !is_part(letter));
    rest.get(..end.unwrap_or(rest.len()))
}

/// Status and text for a device that cannot join although the key is right.
pub fn refusal(fault: &EngineError) -> (StatusCode, String) {
    match fault {
        EngineError::Rejected(Rejected::TooManyNodes { .. }) => (
            StatusCode::CONFLICT,
            "The network has as many devices as it may have. Ask the owner.".to_owned(),
        ),
        EngineError::Rejected(reason) => (
            StatusCode::CONFLICT,
            format!("The device cannot join: {reason}"),
        ),
        _ => (
            StatusCode::SERVICE_UNAVAILABLE,
            "The server cannot do this now. Try again in a moment.".to_owned(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hearth_core::clock::{End, Timestamp};
    use hearth_core::id::PreAuthKeyId;
    use hearth_core::state::command::Command;
    use hearth_core::state::secret::new_secret;
    use hearth_core::state::testing::World;

    #[test]
    fn a_key_is_found_in_whatever_was_pasted() {
        let key = new_secret(SecretKind::PreAuth).unwrap().text;
        for text in [
            key.to_string(),
            format!("  {}\n", *key),
            format!("{}.", *key),
            format!("http://192.168.1.1:8080/join#{}", *key),
            format!(
                "tailscale up --login-server=http://a --auth-key={} --hostname=x",
                *key
            ),
            format!("“{}”", *key),
        ] {
            assert_eq!(key_in(&text), Some(&**key), "{text}");
        }
        assert_eq!(key_in("hskey-api-1"), None);
    }

    #[test]
    fn only_a_key_that_may_be_used_is_usable() {
        let (mut world, _) = World::with_user();
        let made = new_secret(SecretKind::PreAuth).unwrap();
        let text = made.text.to_string();
        world.preauth_key("k", |key| {
            key.prefix = made.prefix.clone();
            key.hash = made.hash;
            key.expiry = End::At(world_end());
        });
        let form = |text: &str| format!("key={}", query::escaped(text)).into_bytes();
        let usable =
            |form: &[u8], world: &World| usable_key(form, &world.snapshot(), world.now).map(drop);
        assert_eq!(usable(&form(&text), &world), Ok(()));
        let mut wrong = text.clone();
        let last = wrong.pop().unwrap();
        wrong.push(if last == '0' { '1' } else { '0' });
        for form in [
            form(&wrong),
            form(""),
            form(&text.replace("auth", "api")),
            b"".to_vec(),
            b"key=%ff".to_vec(),
            b"\xff\xfe".to_vec(),
            format!("other={text}").into_bytes(),
        ] {
            assert!(usable(&form, &world).unwrap_err().contains("not valid"));
        }
        world.wait(Duration::from_secs(3600));
        assert!(
            usable(&form(&text), &world)
                .unwrap_err()
                .contains("expired")
        );
    }

    /// Also before anybody knows the time.
    #[test]
    fn a_key_that_was_ended_by_hand_is_not_usable() {
        for wall in [World::new().now.wall, Timestamp::from_unix_ms(20_000)] {
            let (mut world, _) = World::with_user();
            world.now.wall = wall;
            let made = new_secret(SecretKind::PreAuth).unwrap();
            world.preauth_key("k", |key| {
                key.prefix = made.prefix.clone();
                key.hash = made.hash;
            });
            let form = format!("key={}", *made.text).into_bytes();
            let usable = |world: &World| usable_key(&form, &world.snapshot(), world.now).map(drop);
            assert_eq!(usable(&world), Ok(()));
            let end = Command::ExpirePreAuthKey(PreAuthKeyId::FIRST);
            world.apply(end).unwrap();
            assert!(usable(&world).unwrap_err().contains("expired"), "{wall}");
        }
    }

    fn world_end() -> Timestamp {
        World::new().now.wall.plus(Duration::from_secs(60))
    }

    #[test]
    fn wrong_keys_are_counted_by_site_and_keep_nobody_else_from_joining() {
        let wrong = WrongKeys::default();
        let now = World::new().now;
        let tries = |address: &str| {
            let source = address.parse().unwrap();
            (0..50).filter(|_| wrong.count(source, now)).count()
        };
        assert_eq!(tries("192.0.2.1"), 5);
        assert_eq!(tries("2001:db8:1:1::1"), 5);
        // Another network of the same site.
        assert_eq!(tries("2001:db8:1:2::1"), 0);
        assert_eq!(tries("192.0.2.2"), 5);
    }

    #[test]
    fn forms_of_other_sites_are_recognized() {
        let headers = |site: Option<&str>| {
            let pairs = site.map(|site| ("sec-fetch-site".parse().unwrap(), site.parse().unwrap()));
            pairs.into_iter().collect::<HeaderMap>()
        };
        for site in ["cross-site", "same-site", "anything"] {
            assert!(is_from_elsewhere(&headers(Some(site))), "{site}");
        }
        for site in [Some("same-origin"), Some("none"), None] {
            assert!(!is_from_elsewhere(&headers(site)), "{site:?}");
        }
    }
}
