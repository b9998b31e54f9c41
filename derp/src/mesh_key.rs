//! Mesh key: the secret that the relays of one region share. Does no I/O.

use std::fmt;
use std::hint::black_box;
use std::str::FromStr;

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use zeroize::Zeroizing;

/// The mesh key. A client that presents it is trusted as a relay of the same region. Zeroized on
/// drop; never printed. Source: `key.DERPMesh`.
#[derive(Clone)]
pub struct MeshKey(Zeroizing<[u8; MeshKey::LEN]>);

/// Invalid mesh key: not 64 hex digits, or all zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid mesh key: must be 64 hex digits, not all zero")]
pub struct InvalidMeshKey;

impl MeshKey {
    /// Length in bytes.
    pub const LEN: usize = 32;

    /// Whether both keys are equal, compared in constant time.
    pub fn matches(&self, other: &MeshKey) -> bool {
        let pairs = self.0.iter().zip(other.0.iter());
        black_box(pairs.fold(0, |different, (a, b)| black_box(different | (a ^ b)))) == 0
    }

    /// The text form, 64 hex digits. The caller keeps it secret.
    pub fn to_hex(&self) -> Zeroizing<String> {
        Zeroizing::new(HEXLOWER.encode(self.0.as_slice()))
    }
}

impl FromStr for MeshKey {
    type Err = InvalidMeshKey;

    /// Accepts 64 hex digits of either case, with white space around them.
    fn from_str(text: &str) -> Result<Self, InvalidMeshKey> {
        let text = text.trim().as_bytes();
        let mut bytes = Zeroizing::new([0; Self::LEN]);
        // `decode_mut` panics if the lengths do not match.
        if text.len() != Self::LEN.saturating_mul(2) {
            return Err(InvalidMeshKey);
        }
        HEXLOWER_PERMISSIVE
            .decode_mut(text, bytes.as_mut_slice())
            .map_err(|_| InvalidMeshKey)?;
        // The reference reads the zero key as "no key".
        if bytes.iter().all(|byte| *byte == 0) {
            return Err(InvalidMeshKey);
        }
        Ok(MeshKey(bytes))
    }
}

impl PartialEq for MeshKey {
    fn eq(&self, other: &Self) -> bool {
        self.matches(other)
    }
}

impl Eq for MeshKey {}

impl fmt::Debug for MeshKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_round_trips_and_is_never_printed() {
        let text = "0f".repeat(32);
        let key: MeshKey = format!(" {text}\n").parse().unwrap();
        assert_eq!(*key.to_hex(), text);
        assert_eq!(format!("{key:?}"), "[redacted]");
        assert_eq!(text.to_uppercase().parse(), Ok(key));
    }

    #[test]
    fn other_keys_do_not_match() {
        let key: MeshKey = "0f".repeat(32).parse().unwrap();
        for bit in 0..256 {
            let mut other = key.clone();
            other.0[bit / 8] ^= 1 << (bit % 8);
            assert!(!key.matches(&other));
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            "none",
            &"0".repeat(64),
            &"g".repeat(64),
            &"1".repeat(63),
            &"1".repeat(66),
        ] {
            assert_eq!(text.parse::<MeshKey>(), Err(InvalidMeshKey));
        }
    }
}
