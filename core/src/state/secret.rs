//! Secrets that are shown once and kept as a hash only: preauth keys and API keys.
//!
//! The form is Headscale's (`hskey-auth-<12>-<64>`), so that tools made for it accept the keys. The
//! secret part has 256 random bits, so one round of SHA-256 is all the protection its hash needs.

use std::fmt;

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

use crate::state::model::AuthId;

/// What a key is for; part of its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecretKind {
    /// Lets machines join: `hskey-auth-`.
    PreAuth,
    /// Opens the REST interface: `hskey-api-`.
    Api,
}

impl SecretKind {
    /// The text that keys of this kind begin with.
    pub fn lead(self) -> &'static str {
        match self {
            Self::PreAuth => "hskey-auth-",
            Self::Api => "hskey-api-",
        }
    }
}

/// SHA-256 of the secret part of a key. Compared without telling by time how much is right.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SecretHash([u8; 32]);

impl SecretHash {
    /// The hash of a secret part.
    pub fn of(secret: &str) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest(&SHA256, secret.as_bytes()).as_ref());
        Self(bytes)
    }

    /// The hash with these bytes, as the database has it.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes, for the database.
    pub const fn to_bytes(self) -> [u8; 32] {
        self.0
    }

    /// Whether `secret` is the one that this is the hash of.
    pub fn matches(&self, secret: &str) -> bool {
        let other = Self::of(secret).0;
        let difference = self
            .0
            .iter()
            .zip(other)
            .fold(0, |sum, (a, b)| sum | (a ^ b));
        std::hint::black_box(difference) == 0
    }
}

impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// A key just made: the only moment at which its whole text exists.
pub struct NewSecret {
    /// The public part, by which the key is found.
    pub prefix: Box<str>,
    /// What is kept of the secret part.
    pub hash: SecretHash,
    /// The whole text, to be shown once.
    pub text: Zeroizing<String>,
}

/// The system could not give random bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the system gave no random bytes")]
pub struct NoRandomness;

/// Makes a key: 72 random bits to find it by, 256 to prove it.
///
/// # Errors
/// When the system gives no random bytes.
pub fn new_secret(kind: SecretKind) -> Result<NewSecret, NoRandomness> {
    let prefix = BASE64URL_NOPAD.encode(&random::<9>()?);
    let secret = Zeroizing::new(HEXLOWER.encode(&*Zeroizing::new(random::<32>()?)));
    Ok(NewSecret {
        hash: SecretHash::of(&secret),
        text: Zeroizing::new(format!("{}{prefix}-{}", kind.lead(), *secret)),
        prefix: prefix.into(),
    })
}

/// Takes a key's text apart into its public and its secret part; `None` if it has another form.
pub fn split(kind: SecretKind, text: &str) -> Option<(&str, &str)> {
    const PREFIX: usize = 12;
    let rest = text.trim().strip_prefix(kind.lead())?;
    let (prefix, secret) = (rest.get(..PREFIX)?, rest.get(PREFIX..)?);
    Some((prefix, secret.strip_prefix('-')?))
}

/// A new unguessable login id (128 random bits), in digits that no command line takes for a flag.
///
/// # Errors
/// When the system gives no random bytes.
pub fn new_auth_id() -> Result<AuthId, NoRandomness> {
    let text = HEXLOWER.encode(&random::<16>()?);
    text.parse().map_err(|_| NoRandomness)
}

/// Random bytes from the system.
///
/// # Errors
/// When the system gives none.
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
    fn a_prefix_with_a_dash_does_not_confuse() {
        let text = format!("hskey-auth-ab-cd-ef_ghi-{}", "0".repeat(64));
        let (prefix, secret) = split(SecretKind::PreAuth, &text).unwrap();
        assert_eq!((prefix, secret.len()), ("ab-cd-ef_ghi", 64));
    }

    #[test]
    fn keys_of_another_kind_are_refused() {
        let key = new_secret(SecretKind::Api).unwrap();
        assert!(split(SecretKind::PreAuth, &key.text).is_none());
        assert!(split(SecretKind::Api, "hskey-api-").is_none());
        assert!(split(SecretKind::Api, "hskey-api-ééééééé").is_none());
    }
}
