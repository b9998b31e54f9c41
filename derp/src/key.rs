//! Public keys, which are the addresses on a relay, and the private key of the relay. Text forms such
//! as `nodekey:` are not known here.

use std::fmt;

use data_encoding::BASE64_NOPAD;
use ring::rand::{SecureRandom, SystemRandom};
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

/// Public key of a client or relay: its address on the relay.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key([u8; Key::LEN]);

impl Key {
    /// Length in bytes. Source: `derp.KeyLen`.
    pub const LEN: usize = 32;

    /// The key with these bytes.
    pub const fn new(bytes: [u8; Key::LEN]) -> Self {
        Key(bytes)
    }

    /// The raw key.
    pub fn as_bytes(&self) -> &[u8; Key::LEN] {
        &self.0
    }

    /// Whether this is the all-zero key, which the reference reads as "no key".
    pub fn is_zero(&self) -> bool {
        self.0 == [0; Key::LEN]
    }
}

impl From<[u8; Key::LEN]> for Key {
    fn from(bytes: [u8; Key::LEN]) -> Self {
        Key(bytes)
    }
}

/// The short form of the reference's logs: five base64 characters in brackets. Source:
/// `key.NodePublic.ShortString`.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, ..] = self.0;
        let text = BASE64_NOPAD.encode(&[a, b, c, d]);
        write!(f, "[{}]", text.get(..5).unwrap_or_default())
    }
}

/// Private key of the relay. Zeroized on drop; never printed.
#[derive(Clone)]
pub struct ServerSecret(Zeroizing<[u8; Key::LEN]>);

/// The system's random source failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("system random source failed")]
pub struct NoRandomness;

impl ServerSecret {
    /// Generates a key from the system's random source.
    pub fn generate() -> Result<Self, NoRandomness> {
        let mut bytes = Zeroizing::new([0; Key::LEN]);
        SystemRandom::new()
            .fill(bytes.as_mut_slice())
            .map_err(|_| NoRandomness)?;
        Ok(ServerSecret(bytes))
    }

    /// The key with these stored bytes.
    pub fn from_bytes(bytes: [u8; Key::LEN]) -> Self {
        ServerSecret(Zeroizing::new(bytes))
    }

    /// The raw private key, to store it. The caller keeps it secret.
    pub fn to_bytes(&self) -> [u8; Key::LEN] {
        *self.0
    }

    /// The public key.
    pub fn public(&self) -> Key {
        let secret = StaticSecret::from(*self.0);
        Key(PublicKey::from(&secret).to_bytes())
    }
}

impl fmt::Debug for ServerSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_form_is_five_letters_of_base64() {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&[0x01, 0xc2, 0x9d, 0x04]);
        assert_eq!(format!("{:?}", Key::from(bytes)), "[AcKdB]");
        assert_eq!(format!("{:?}", Key::from([0xff; 32])), "[/////]");
    }

    #[test]
    fn secret_prints_nothing_and_round_trips() {
        let secret = ServerSecret::generate().unwrap();
        assert_eq!(format!("{secret:?}"), "[redacted]");
        assert_eq!(
            ServerSecret::from_bytes(secret.to_bytes()).public(),
            secret.public()
        );
        assert_ne!(ServerSecret::generate().unwrap().public(), secret.public());
    }

    /// RFC 7748 section 6.1, Alice.
    #[test]
    fn public_half_is_x25519_of_the_base_point() {
        let secret: [u8; 32] = [
            0x77, 0x07, 0x6d, 0x0a, 0x73, 0x18, 0xa5, 0x7d, 0x3c, 0x16, 0xc1, 0x72, 0x51, 0xb2,
            0x66, 0x45, 0xdf, 0x4c, 0x2f, 0x87, 0xeb, 0xc0, 0x99, 0x2a, 0xb1, 0x77, 0xfb, 0xa5,
            0x1d, 0xb9, 0x2c, 0x2a,
        ];
        let public = ServerSecret::from_bytes(secret).public();
        assert_eq!(public.as_bytes()[..4], [0x85, 0x20, 0xf0, 0x09]);
    }
}
