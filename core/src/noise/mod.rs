//! The Noise transport of the control protocol (TS2021): handshake and records.
//!
//! Must not know: HTTP, nodes, what is said over the stream.
//! Source: tailscale `control/controlbase`.

pub mod handshake;
pub mod record;

use crate::keys::ChallengeKey;

/// Bytes that announce an early payload where a client expects the first HTTP/2 frame.
/// Source: `EarlyPayloadMagic` in tailscale `control/ts2021/conn.go`.
pub const EARLY_PAYLOAD_MAGIC: [u8; 5] = *b"\xff\xff\xffTS";

/// The first capability version that reads an early payload.
/// Source: version 49 in tailscale `tailcfg/tailcfg.go`, `CapabilityVersion`.
pub const EARLY_PAYLOAD_FROM: u16 = 49;

/// The early payload: the first plaintext that the server sends to a client which reads it.
///
/// Below 1024 bytes, which is the most that the Rust client takes.
/// Source: `EarlyNoise` in tailscale `tailcfg/tailcfg.go`.
pub fn early_payload(challenge: &ChallengeKey) -> Vec<u8> {
    let json = format!(r#"{{"nodeKeyChallenge":"{challenge}"}}"#);
    let length = u32::try_from(json.len()).unwrap_or(0);
    [
        EARLY_PAYLOAD_MAGIC.as_slice(),
        &length.to_be_bytes(),
        json.as_bytes(),
    ]
    .concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn early_payload_has_magic_length_and_json() {
        let payload = early_payload(&ChallengeKey::from_bytes([0xab; 32]));
        assert_eq!(payload.get(..5), Some(b"\xff\xff\xffTS".as_slice()));
        let json = payload.get(9..).unwrap();
        let length = u32::try_from(json.len()).unwrap();
        assert_eq!(payload.get(5..9), Some(length.to_be_bytes().as_slice()));
        let expected = format!(r#"{{"nodeKeyChallenge":"chalpub:{}"}}"#, "ab".repeat(32));
        assert_eq!(json, expected.as_bytes());
    }
}
