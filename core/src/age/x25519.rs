//! Recipients and identities: X25519 keys.

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE64_NOPAD;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use super::stanza::Stanza;
use super::{Fault, FileKey, bech32, hkdf, random, unwrap, wrap};

/// The first word of a stanza for a recipient.
pub(super) const TYPE: &str = "X25519";
const INFO: &[u8] = b"age-encryption.org/v1/X25519";
const RECIPIENT: &str = "age";
const IDENTITY: &str = "age-secret-key-";

/// Whom a file is for: `age1…`. Not secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recipient([u8; 32]);

/// Not a recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected an age recipient such as `age1…` (62 characters)")]
pub struct InvalidRecipient;

impl FromStr for Recipient {
    type Err = InvalidRecipient;

    fn from_str(text: &str) -> Result<Self, InvalidRecipient> {
        let bytes = bech32::decode(RECIPIENT, text.trim()).ok_or(InvalidRecipient)?;
        Ok(Self(*bytes))
    }
}

impl fmt::Display for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&bech32::encode(RECIPIENT, &self.0))
    }
}

impl Recipient {
    /// The stanza by which this recipient opens the file.
    pub(super) fn stanza(&self, file_key: &FileKey) -> Result<Stanza, Fault> {
        let ephemeral = StaticSecret::from(random::<32>()?);
        let share = PublicKey::from(&ephemeral).to_bytes();
        let shared = ephemeral.diffie_hellman(&PublicKey::from(self.0));
        // A recipient of low order would get a file that everyone can open.
        if !shared.was_contributory() {
            return Err(Fault::WrongIdentity);
        }
        let key = wrapping_key(&share, &self.0, shared.as_bytes());
        Ok(Stanza {
            words: vec![TYPE.to_owned(), BASE64_NOPAD.encode(&share)],
            body: wrap(&key, file_key),
        })
    }
}

/// What opens the files for a recipient: `AGE-SECRET-KEY-1…`.
pub struct Identity(StaticSecret);

/// Not an identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected an age identity such as `AGE-SECRET-KEY-1…` (74 characters)")]
pub struct InvalidIdentity;

impl FromStr for Identity {
    type Err = InvalidIdentity;

    fn from_str(text: &str) -> Result<Self, InvalidIdentity> {
        let bytes = bech32::decode(IDENTITY, text.trim()).ok_or(InvalidIdentity)?;
        Ok(Self(StaticSecret::from(*bytes)))
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl Identity {
    /// A new identity.
    ///
    /// # Errors
    /// When the system has no random bytes.
    pub fn random() -> Result<Self, Fault> {
        Ok(Self(StaticSecret::from(random::<32>()?)))
    }

    /// The recipient whose files it opens.
    pub fn recipient(&self) -> Recipient {
        Recipient(PublicKey::from(&self.0).to_bytes())
    }

    /// The text, for a person or a file of `age -i`.
    pub fn reveal(&self) -> Zeroizing<String> {
        let text = bech32::encode(IDENTITY, self.0.as_bytes());
        Zeroizing::new(text.to_ascii_uppercase())
    }

    /// The identities in a file of `age-keygen`: one a line, with comments.
    ///
    /// # Errors
    /// When a line is neither.
    pub fn list(text: &str) -> Result<Vec<Self>, InvalidIdentity> {
        let lines = text.lines().map(str::trim);
        let keys = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
        keys.map(str::parse).collect()
    }

    /// The file key in a stanza; `None` when it is for another recipient.
    pub(super) fn open(&self, stanza: &Stanza) -> Option<FileKey> {
        let share = BASE64_NOPAD.decode(stanza.words.get(1)?.as_bytes()).ok()?;
        let share: [u8; 32] = share.try_into().ok()?;
        let shared = self.0.diffie_hellman(&PublicKey::from(share));
        if !shared.was_contributory() {
            return None;
        }
        let key = wrapping_key(&share, &self.recipient().0, shared.as_bytes());
        unwrap(&key, &stanza.body)
    }
}

fn wrapping_key(share: &[u8; 32], recipient: &[u8; 32], shared: &[u8; 32]) -> Zeroizing<[u8; 32]> {
    hkdf(&[share.as_slice(), recipient].concat(), shared, INFO)
}
