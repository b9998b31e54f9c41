//! NaCl box of `ClientInfo` and `ServerInfo`: X25519, XSalsa20 and Poly1305. Does no I/O.
//!
//! Source: `key.NodePrivate.SealTo` and `OpenFrom` (golang.org/x/crypto/nacl/box): 24 bytes of
//! nonce, then the box.

use crypto_box::aead::Aead;
use crypto_box::{PublicKey, SalsaBox, SecretKey};

use crate::{Key, ServerSecret};

/// Length of the nonce in bytes. Source: `derp.NonceLen`.
pub const NONCE_LEN: usize = 24;

/// Bytes by which a sealed box is longer than its text: nonce and authenticator.
pub const OVERHEAD: usize = NONCE_LEN.saturating_add(16);

/// Shared key of two parties, for both directions. It costs a scalar multiplication, so a login
/// computes it once and uses it twice.
pub struct SharedKey(SalsaBox);

/// The box was not sealed with this key, or was altered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("sealed box is not authentic")]
pub struct NotAuthentic;

impl SharedKey {
    /// Computes the shared key of `secret` and `peer`.
    pub fn new(secret: &ServerSecret, peer: &Key) -> Self {
        let secret = SecretKey::from_bytes(secret.to_bytes());
        SharedKey(SalsaBox::new(
            &PublicKey::from_bytes(*peer.as_bytes()),
            &secret,
        ))
    }

    /// Opens a box that starts with its nonce.
    pub fn open(&self, sealed: &[u8]) -> Result<Vec<u8>, NotAuthentic> {
        let (nonce, sealed) = sealed
            .split_first_chunk::<NONCE_LEN>()
            .ok_or(NotAuthentic)?;
        self.0
            .decrypt(nonce.into(), sealed)
            .map_err(|_| NotAuthentic)
    }

    /// Seals `text`; `nonce` must be fresh and random. The result starts with the nonce.
    ///
    /// Fails only for texts longer than the cipher allows (256 GiB).
    pub fn seal(&self, nonce: &[u8; NONCE_LEN], text: &[u8]) -> Result<Vec<u8>, NotAuthentic> {
        let sealed = self
            .0
            .encrypt(nonce.into(), text)
            .map_err(|_| NotAuthentic)?;
        let mut out = Vec::with_capacity(sealed.len().saturating_add(NONCE_LEN));
        out.extend_from_slice(nonce);
        out.extend_from_slice(&sealed);
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_agree_and_every_bit_counts() {
        let (client, server) = (
            ServerSecret::from_bytes([1; 32]),
            ServerSecret::from_bytes([2; 32]),
        );
        let sealed = SharedKey::new(&client, &server.public())
            .seal(&[7; 24], b"hello")
            .unwrap();
        assert_eq!(sealed.len(), 5 + OVERHEAD);
        let opener = SharedKey::new(&server, &client.public());
        assert_eq!(opener.open(&sealed).unwrap(), b"hello");
        for bit in 0..sealed.len() * 8 {
            let mut bad = sealed.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(opener.open(&bad), Err(NotAuthentic));
        }
        for end in 0..sealed.len() {
            assert_eq!(opener.open(&sealed[..end]), Err(NotAuthentic));
        }
    }
}
