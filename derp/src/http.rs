//! The HTTP words around DERP: the upgrade request's headers and the answer to it. Does no I/O.

use std::fmt::Write;

use crate::Key;
use crate::frame::PROTOCOL_VERSION;

/// Path of the upgrade request.
pub const PATH: &str = "/derp";

/// Value of the `Upgrade` header of request and answer; compare without case. Source:
/// `derpserver.Handler`.
pub const UPGRADE: &str = "DERP";

/// Request header with value `1`: the client wants no HTTP answer, the relay speaks DERP at once.
/// Source: `derp.FastStartHeader`.
pub const FAST_START_HEADER: &str = "Derp-Fast-Start";

/// Request header with the name of the node that the client would rather use. Source:
/// `derp.IdealNodeHeader`.
pub const IDEAL_NODE_HEADER: &str = "Ideal-Node";

/// Answer header with the protocol version, see [`PROTOCOL_VERSION`].
pub const VERSION_HEADER: &str = "Derp-Version";

/// Answer header with the relay's public key, see [`public_key_hex`].
pub const PUBLIC_KEY_HEADER: &str = "Derp-Public-Key";

/// The relay's key as the answer header writes it: 64 lower-case hex digits without a prefix.
pub fn public_key_hex(key: &Key) -> String {
    let mut text = String::with_capacity(64);
    for byte in key.as_bytes() {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// The whole answer to an upgrade request without fast start, up to and with the empty line.
/// Source: `derpserver.Handler`.
pub fn upgrade_response(key: &Key) -> Vec<u8> {
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: {UPGRADE}\r\nConnection: Upgrade\r\n\
         {VERSION_HEADER}: {PROTOCOL_VERSION}\r\n{PUBLIC_KEY_HEADER}: {}\r\n\r\n",
        public_key_hex(key)
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn response_has_the_headers_of_the_reference() {
        let key = Key::from([0xab; 32]);
        let expected = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: DERP\r\nConnection: Upgrade\r\nDerp-Version: 2\r\n\
             Derp-Public-Key: {}\r\n\r\n",
            "ab".repeat(32)
        );
        assert_eq!(upgrade_response(&key), expected.into_bytes());
    }
}
