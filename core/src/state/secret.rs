//! Secrets of preauth keys and API keys, which are shown once and stored as a hash.
//!
//! The format is Headscale's (`hskey-auth-<12>-<64>`), so that tools for Headscale accept the keys. The
//! secret part has 256 random bits, so one round of SHA-256 protects it sufficiently.

use std::fmt;

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

use crate::id::AuthId;

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

/// SHA-256 of the secret part of a key. Compared in constant time.
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

/// Creates an unguessable id for a pending registration: 128 random bits in hex, which no command line
/// takes for a flag.
///
/// # Errors
/// When the system's random number generator fails.
pub fn new_auth_id() -> Result<AuthId, NoRandomness> {
    let text = HEXLOWER.encode(&random::<16>()?);
    text.parse().map_err(|_| NoRandomness)
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
