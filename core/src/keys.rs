//! Typed keys: text prefixes, parsing, redaction.
//!
//! Source of the prefixes: tailscale `types/key/{machine,node,disco,chal,nl}.go`.
//! Must not know: what a key is used for.

use std::fmt;
use std::str::FromStr;

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

/// Bytes in every public key.
pub const KEY_BYTES: usize = 32;

/// Invalid key: the text has another prefix or is not 64 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected `{prefix}` and 64 hexadecimal digits")]
pub struct InvalidKey {
    /// The expected prefix.
    pub prefix: &'static str,
}

macro_rules! public_key {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; KEY_BYTES]);

        impl $name {
            /// The text before the 64 hexadecimal digits.
            pub const PREFIX: &'static str = $prefix;

            /// The all-zero key, "no key" on the wire.
            pub const ZERO: Self = Self([0; KEY_BYTES]);

            /// The key with these bytes.
            pub const fn from_bytes(bytes: [u8; KEY_BYTES]) -> Self {
                Self(bytes)
            }

            /// The bytes of the key.
            pub const fn as_bytes(&self) -> &[u8; KEY_BYTES] {
                &self.0
            }

            /// Whether this is the all-zero key.
            pub fn is_zero(&self) -> bool {
                self.0 == [0; KEY_BYTES]
            }

            /// The key, or `None` for the all-zero one.
            pub fn non_zero(self) -> Option<Self> {
                (!self.is_zero()).then_some(self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str($prefix)?;
                f.write_str(&HEXLOWER.encode(&self.0))
            }
        }

        /// The short form for logs: the first five characters of the base64 form.
        /// Source: `NodePublic.ShortString` in tailscale `types/key/node.go`.
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let text = data_encoding::BASE64.encode(&self.0);
                write!(f, "[{}]", text.get(..5).unwrap_or_default())
            }
        }

        impl FromStr for $name {
            type Err = InvalidKey;

            fn from_str(text: &str) -> Result<Self, InvalidKey> {
                parse_hex(text, $prefix).map(Self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

fn parse_hex(text: &str, prefix: &'static str) -> Result<[u8; KEY_BYTES], InvalidKey> {
    let fault = InvalidKey { prefix };
    let digits = text.strip_prefix(prefix).ok_or(fault)?;
    let bytes = HEXLOWER_PERMISSIVE
        .decode(digits.as_bytes())
        .map_err(|_| fault)?;
    bytes.try_into().map_err(|_| fault)
}

public_key!(
    /// Machine key: the Noise static key of one client installation.
    MachineKey,
    "mkey:"
);
public_key!(
    /// Node key: the WireGuard public key of a node, also its address on DERP.
    NodeKey,
    "nodekey:"
);
public_key!(
    /// Disco key: authenticates a client's path discovery messages.
    DiscoKey,
    "discokey:"
);
public_key!(
    /// Challenge key of the Noise early payload.
    ChallengeKey,
    "chalpub:"
);
public_key!(
    /// Tailnet Lock key (ed25519) of a node.
    LockKey,
    "nlpub:"
);

impl MachineKey {
    /// The short form by which people compare keys, the same wherever hearth shows one: the first ten hexadecimal
    /// digits in two groups, such as `1b97c-0a3f2`.
    pub fn short(&self) -> String {
        let digits = HEXLOWER.encode(self.0.get(..5).unwrap_or_default());
        let (first, second) = digits.split_at_checked(5).unwrap_or((&digits, ""));
        format!("{first}-{second}")
    }
}

/// The server's own Noise static key.
#[derive(Clone)]
pub struct MachineSecret(StaticSecret);

impl MachineSecret {
    /// The secret with these 32 bytes; clamped when used, not here.
    pub fn from_bytes(bytes: [u8; KEY_BYTES]) -> Self {
        Self(StaticSecret::from(bytes))
    }

    /// The bytes, for the database and the Noise handshake; wiped when dropped.
    pub fn to_bytes(&self) -> Zeroizing<[u8; KEY_BYTES]> {
        Zeroizing::new(self.0.to_bytes())
    }

    /// The public half.
    pub fn public(&self) -> MachineKey {
        MachineKey(PublicKey::from(&self.0).to_bytes())
    }
}

impl fmt::Debug for MachineSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_survive_text() {
        let key = NodeKey::from_bytes([0xab; KEY_BYTES]);
        let text = key.to_string();
        assert!(text.starts_with("nodekey:abab"));
        assert_eq!(text.parse(), Ok(key));
        assert_eq!(
            text.to_uppercase().replace("NODEKEY", "nodekey").parse(),
            Ok(key)
        );
    }

    #[test]
    fn a_machine_key_has_one_short_form() {
        let mut bytes = [0; KEY_BYTES];
        bytes[..5].copy_from_slice(&[0x1b, 0x97, 0xc0, 0xa3, 0xf2]);
        assert_eq!(MachineKey::from_bytes(bytes).short(), "1b97c-0a3f2");
    }

    #[test]
    fn a_key_of_another_kind_is_refused() {
        let text = MachineKey::from_bytes([1; KEY_BYTES]).to_string();
        assert_eq!(
            text.parse::<NodeKey>(),
            Err(InvalidKey { prefix: "nodekey:" })
        );
        assert!("nodekey:00".parse::<NodeKey>().is_err());
        assert!("nodekey:zz".parse::<NodeKey>().is_err());
    }

    #[test]
    fn secrets_do_not_show() {
        let secret = MachineSecret::from_bytes([7; KEY_BYTES]);
        assert_eq!(format!("{secret:?}"), "[redacted]");
    }
}
