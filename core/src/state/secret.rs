//! Secrets of preauth keys and API keys, which are shown once and stored as a hash.
//!
//! The format is Headscale's (`hskey-auth-<12>-<64>`), so that tools for Headscale accept the keys. The
//! secret part has 256 random bits, so one round of SHA-256 protects it sufficiently.

use std::fmt;

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use ring::digest::{SHA256, digest};
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

use crate::id::AuthId;
use crate::keys::MachineKey;

/// Kind of a secret, which its text starts with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecretKind {
    /// A preauth key: `hskey-auth-`.
    PreAuth,
    /// An API key: `hskey-api-`.
    Api,
}

impl SecretKind {
    /// The text that secrets of this kind start with.
    pub fn lead(self) -> &'static str {
        match self {
            Self::PreAuth => "hskey-auth-",
            Self::Api => "hskey-api-",
        }
    }
}

/// SHA-256 of the secret part of a key. Compared in constant time, which is the only comparison that it has: it is in no
/// order, and cannot be looked up.
///
/// ```compile_fail,E0277
/// use hearth_core::state::secret::SecretHash;
/// std::collections::BTreeSet::from([SecretHash::of("a")]);
/// ```
/// ```compile_fail,E0277
/// use hearth_core::state::secret::SecretHash;
/// std::collections::HashSet::from([SecretHash::of("a")]);
/// ```
#[derive(Clone, Copy, Eq)]
pub struct SecretHash([u8; 32]);

impl PartialEq for SecretHash {
    fn eq(&self, other: &Self) -> bool {
        let pairs = self.0.iter().zip(other.0);
        let difference = pairs.fold(0, |sum, (a, b)| sum | (a ^ b));
        std::hint::black_box(difference) == 0
    }
}

impl SecretHash {
    /// The hash of a secret part.
    pub fn of(secret: &str) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest(&SHA256, secret.as_bytes()).as_ref());
        Self(bytes)
    }

    /// The hash with these bytes, from the database.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes, for the database.
    pub const fn to_bytes(self) -> [u8; 32] {
        self.0
    }

    /// Whether this is the hash of `secret`.
    pub fn matches(&self, secret: &str) -> bool {
        *self == Self::of(secret)
    }
}

impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// A new key. Its whole text exists only here.
pub struct NewSecret {
    /// Public part of the key, by which it is looked up.
    pub prefix: Box<str>,
    /// Hash of the secret part.
    pub hash: SecretHash,
    /// Whole text of the key, shown once.
    pub text: Zeroizing<String>,
}

/// The system's random number generator failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the system's random number generator failed")]
pub struct NoRandomness;

/// Creates a key: 72 random bits to look it up by, 256 as its secret.
///
/// # Errors
/// When the system's random number generator fails.
pub fn new_secret(kind: SecretKind) -> Result<NewSecret, NoRandomness> {
    let prefix = BASE64URL_NOPAD.encode(&random::<9>()?);
    let secret = Zeroizing::new(HEXLOWER.encode(&*Zeroizing::new(random::<32>()?)));
    Ok(NewSecret {
        hash: SecretHash::of(&secret),
        text: Zeroizing::new(format!("{}{prefix}-{}", kind.lead(), *secret)),
        prefix: prefix.into(),
    })
}

/// Splits the text of a key into its public and its secret part; `None` if the format is different.
pub fn split(kind: SecretKind, text: &str) -> Option<(&str, &str)> {
    const PREFIX: usize = 12;
    let rest = text.trim().strip_prefix(kind.lead())?;
    let (prefix, secret) = (rest.get(..PREFIX)?, rest.get(PREFIX..)?);
    Some((prefix, secret.strip_prefix('-')?))
}

/// Creates an unguessable id for what waits for a person: 128 random bits in hex, which no command line takes for a flag.
///
/// # Errors
/// When the system's random number generator fails.
pub fn new_auth_id() -> Result<AuthId, NoRandomness> {
    let text = HEXLOWER.encode(&random::<16>()?);
    text.parse().map_err(|_| NoRandomness)
}

/// Makes ids of pending registrations that prove to which machine they were given: 64 random bits, and as many of an HMAC
/// over them and the machine key. A registration is only in memory; with its id, which the client shows again, it keeps its
/// URL across a restart, and no other machine can take that URL over.
#[derive(Debug)]
pub struct AuthIds(hmac::Key);

impl AuthIds {
    /// With a secret of the server, which is used for this purpose under a key of its own.
    pub fn new(secret: &[u8; 32]) -> Self {
        let secret = hmac::Key::new(hmac::HMAC_SHA256, secret);
        let own = hmac::sign(&secret, b"ids of pending registrations");
        Self(hmac::Key::new(hmac::HMAC_SHA256, own.as_ref()))
    }

    /// A new id for a machine.
    ///
    /// # Errors
    /// When the system's random number generator fails.
    pub fn make(&self, machine: &MachineKey) -> Result<AuthId, NoRandomness> {
        self.with(random::<8>()?, machine).ok_or(NoRandomness)
    }

    /// Whether an id was given to this machine.
    pub fn is_given_to(&self, id: &AuthId, machine: &MachineKey) -> bool {
        let nonce = id.as_str().get(..16);
        let nonce = nonce.and_then(|nonce| HEXLOWER.decode(nonce.as_bytes()).ok());
        let nonce = nonce.and_then(|nonce| nonce.try_into().ok());
        let given = nonce.and_then(|nonce| self.with(nonce, machine));
        given.is_some_and(|given| SecretHash::of(given.as_str()).matches(id.as_str()))
    }

    fn with(&self, nonce: [u8; 8], machine: &MachineKey) -> Option<AuthId> {
        let proof = hmac::sign(&self.0, &[&nonce[..], machine.as_bytes()].concat());
        let proof = proof.as_ref().get(..8)?;
        let text = HEXLOWER.encode(&nonce) + &HEXLOWER.encode(proof);
        text.parse().ok()
    }
}

/// Random bytes from the system.
///
/// # Errors
/// When the system's random number generator fails.
pub fn random<const N: usize>() -> Result<[u8; N], NoRandomness> {
    let mut bytes = [0; N];
    let filled = SystemRandom::new().fill(&mut bytes);
    filled.map_err(|_| NoRandomness)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_proves_itself_and_nothing_else_does() {
        let key = new_secret(SecretKind::PreAuth).unwrap();
        let (prefix, secret) = split(SecretKind::PreAuth, &key.text).unwrap();
        assert_eq!(prefix, &*key.prefix);
        assert!(key.hash.matches(secret));
        assert!(!key.hash.matches(&secret.to_uppercase()));
        assert!(!key.hash.matches(""));
    }

    #[test]
    fn an_id_proves_to_which_machine_it_was_given() {
        let ids = AuthIds::new(&[1; 32]);
        let (one, other) = (
            MachineKey::from_bytes([1; 32]),
            MachineKey::from_bytes([2; 32]),
        );
        let id = ids.make(&one).unwrap();
        assert_eq!(id.as_str().len(), 32);
        assert_ne!(id, ids.make(&one).unwrap());
        assert!(ids.is_given_to(&id, &one) && !ids.is_given_to(&id, &other));
        assert!(!AuthIds::new(&[2; 32]).is_given_to(&id, &one));
        for end in 1..32 {
            let cut = id.as_str()[..end].parse().unwrap();
            assert!(!ids.is_given_to(&cut, &one));
        }
        let upper = id.as_str().to_uppercase() + "A";
        assert!(!ids.is_given_to(&upper.parse().unwrap(), &one));
        assert!(!ids.is_given_to(&new_auth_id().unwrap(), &one));
    }

    #[test]
    fn a_prefix_may_contain_dashes() {
        let text = format!("hskey-auth-ab-cd-ef_ghi-{}", "0".repeat(64));
        let (prefix, secret) = split(SecretKind::PreAuth, &text).unwrap();
        assert_eq!((prefix, secret.len()), ("ab-cd-ef_ghi", 64));
    }

    #[test]
    fn keys_of_another_kind_are_rejected() {
        let key = new_secret(SecretKind::Api).unwrap();
        assert!(split(SecretKind::PreAuth, &key.text).is_none());
        assert!(split(SecretKind::Api, "hskey-api-").is_none());
        assert!(split(SecretKind::Api, "hskey-api-ééééééé").is_none());
    }
}
