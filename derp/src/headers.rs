//! HTTP upgrade to DERP: headers of the request, and the response. Does no I/O.

use data_encoding::HEXLOWER;

use crate::Key;
use crate::frame::PROTOCOL_VERSION;

/// Path of the upgrade request.
pub const PATH: &str = "/derp";

/// Value of the `Upgrade` header of request and response; case-insensitive. Source:
/// `derpserver.Handler`.
pub const UPGRADE: &str = "DERP";

/// Request header with value `1`: the client wants no HTTP response; the relay starts with DERP at
/// once.
/// Source: `derp.FastStartHeader`.
pub const FAST_START_HEADER: &str = "Derp-Fast-Start";

/// Request header with the name of the relay that the client prefers. Source:
/// `derp.IdealNodeHeader`.
pub const IDEAL_NODE_HEADER: &str = "Ideal-Node";

/// Response header with the protocol version, see [`PROTOCOL_VERSION`].
pub const VERSION_HEADER: &str = "Derp-Version";

/// Response header with the relay's public key, see [`public_key_hex`].
pub const PUBLIC_KEY_HEADER: &str = "Derp-Public-Key";

/// The relay's key in the form of the response header: 64 lower-case hex digits without a prefix.
pub fn public_key_hex(key: &Key) -> String {
    HEXLOWER.encode(key.as_bytes())
}

/// The response to an upgrade request without fast start, including the empty line at its end.
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
