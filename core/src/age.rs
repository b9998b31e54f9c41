//! Encrypted files in the format of age, which `age -d` opens and `age` makes: a passphrase or X25519 recipients.
//!
//! Source: <https://age-encryption.org/v1> (C2SP `age.md`). What is not here: ASCII armor, SSH keys, plugins and
//! post-quantum recipients. Both directions work on streams, 64 KiB at a time.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

mod bech32;
mod header;
mod payload;
mod scrypt;
mod stanza;
mod x25519;

pub use payload::{Decryptor, Encryptor};
pub use x25519::{Identity, InvalidIdentity, InvalidRecipient, Recipient};

use std::fmt;
use std::io;

use ring::rand::{SecureRandom as _, SystemRandom};
use zeroize::Zeroizing;

/// First line of every file.
pub const FIRST_LINE: &[u8] = b"age-encryption.org/v1\n";
/// First line of a file in ASCII armor, which is not read here.
pub const ARMOR: &[u8] = b"-----BEGIN AGE ENCRYPTED FILE-----";
/// Work factor of a passphrase at its strongest, as `age` uses it: 256 MiB.
pub const STRONGEST: u8 = 18;
/// The weakest work factor that is written: 8 MiB.
pub const WEAKEST: u8 = 13;

/// The largest work factor whose memory is at most `memory` bytes, between [`WEAKEST`] and [`STRONGEST`].
pub fn work_factor(memory: u64) -> u8 {
    let fits = |factor: &u8| scrypt::memory(*factor) <= memory;
    let fitting = (WEAKEST..=STRONGEST).rev().find(fits);
    fitting.unwrap_or(WEAKEST)
}

/// Who can open a file.
pub enum Lock<'a> {
    /// Anyone who knows the passphrase; `work_factor` is the base-2 logarithm of the cost.
    Passphrase {
        /// The passphrase.
        passphrase: &'a str,
        /// From [`work_factor`].
        work_factor: u8,
    },
    /// Anyone who has the identity of one of these.
    Recipients(&'a [Recipient]),
}

/// What opens a file.
#[derive(Default)]
pub struct Keys<'a> {
    /// The passphrase.
    pub passphrase: Option<&'a str>,
    /// Identities, tried in order.
    pub identities: &'a [Identity],
    /// Most bytes of memory for a passphrase.
    pub memory: u64,
}

/// How a file is locked, as its header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// By a passphrase.
    Passphrase,
    /// For recipients.
    Recipients,
}

impl Kind {
    /// What is missing to open a file of this kind.
    fn missing(self) -> Fault {
        match self {
            Self::Passphrase => Fault::NeedsPassphrase,
            Self::Recipients => Fault::NeedsIdentity,
        }
    }
}

/// Why a file cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The file cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The header is damaged, or has something that the format does not allow.
    #[error("the age header is damaged")]
    Header,
    /// Nobody is among the recipients whose kind is supported.
    #[error("encrypted for recipients of another kind; decrypt it with `age -d` first")]
    Unsupported,
    /// A passphrase is necessary.
    #[error("encrypted with a passphrase")]
    NeedsPassphrase,
    /// An identity is necessary.
    #[error("encrypted for a recipient; its identity is necessary (`--identity FILE`)")]
    NeedsIdentity,
    /// The passphrase is wrong.
    #[error("wrong passphrase")]
    WrongPassphrase,
    /// No identity fits.
    #[error("none of the identities fits this file")]
    WrongIdentity,
    /// The work factor needs more memory than there is.
    #[error(
        "the passphrase of this file needs {needs} MiB of memory, more than this machine should use; decrypt it on a \
         larger one with `age -d`"
    )]
    TooMuchWork {
        /// Mebibytes.
        needs: u64,
    },
    /// The authentication of the header failed: it was changed.
    #[error("the age header was changed")]
    Tampered,
    /// The system has no random bytes.
    #[error("no random bytes from the system")]
    NoRandomness,
}

/// Bytes of a wrapped file key: sixteen, and the tag of Poly1305.
const WRAPPED_BYTES: usize = 32;

/// The key of a payload.
type PayloadKey = Zeroizing<[u8; 32]>;

/// The key of one file: sixteen random bytes.
struct FileKey(Zeroizing<[u8; 16]>);

impl FileKey {
    fn random() -> Result<Self, Fault> {
        random().map(|bytes| Self(Zeroizing::new(bytes)))
    }

    /// A key derived from this one.
    fn derived(&self, salt: &[u8], info: &[u8]) -> Zeroizing<[u8; 32]> {
        hkdf(salt, &*self.0, info)
    }
}

impl fmt::Debug for FileKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

fn random<const N: usize>() -> Result<[u8; N], Fault> {
    let mut bytes = [0; N];
    let filled = SystemRandom::new().fill(&mut bytes);
    filled.map_err(|_| Fault::NoRandomness)?;
    Ok(bytes)
}

/// HKDF-SHA-256 (RFC 5869) with an output of 32 bytes, which is one block.
fn hkdf(salt: &[u8], secret: &[u8], info: &[u8]) -> Zeroizing<[u8; 32]> {
    use ring::hmac::{HMAC_SHA256, Key, sign};
    let extracted = sign(&Key::new(HMAC_SHA256, salt), secret);
    let block = [info, &[1]].concat();
    let expanded = sign(&Key::new(HMAC_SHA256, extracted.as_ref()), &block);
    let mut out = Zeroizing::new([0; 32]);
    out.copy_from_slice(expanded.as_ref());
    out
}

/// Wraps a file key with ChaCha20-Poly1305 and a nonce of zeros: the wrapping key is used once.
fn wrap(key: &[u8; 32], file_key: &FileKey) -> Vec<u8> {
    let mut body = file_key.0.to_vec();
    payload::seal(key, [0; 12], &mut body);
    body
}

/// Unwraps a file key; `None` when the key is wrong. A body of another length is refused first: it would let a sender
/// find out which of several keys fits (C2SP `age.md`).
fn unwrap(key: &[u8; 32], body: &[u8]) -> Option<FileKey> {
    if body.len() != WRAPPED_BYTES {
        return None;
    }
    let mut body = Zeroizing::new(body.to_vec());
    let opened = payload::open(key, [0; 12], &mut body)?;
    let bytes: [u8; 16] = opened.try_into().ok()?;
    Some(FileKey(Zeroizing::new(bytes)))
}

#[cfg(test)]
mod tests;
