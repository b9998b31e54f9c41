//! `GET /key`: the Noise public key of the server.

use hyper::header::{ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Response, StatusCode};
use serde::Serialize;

use crate::net::body::{self, Body};
use hearth_core::keys::MachineKey;

/// First capability version that uses the Noise protocol, and so reads `/key` as JSON.
/// Source: `NoiseCapabilityVersion` in headscale `hscontrol/handlers.go`.
pub const FIRST_NOISE_VERSION: u16 = 39;

/// `GET /key?v=<capability version>`: the server's Noise key.
///
/// 400 without a version, or with a version that is too old to use the key.
/// Source: `OverTLSPublicKeyResponse` in tailscale `tailcfg/tailcfg.go`.
pub fn key(request: &Parts, server: &MachineKey) -> Response<Body> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct KeyAnswer<'a> {
        // Zero: the protocol before Noise is not supported. Both fields are required.
        legacy_public_key: MachineKey,
        public_key: &'a MachineKey,
    }
    let version = request
        .uri
        .query()
        .unwrap_or_default()
        .split('&')
        .find_map(|pair| pair.strip_prefix("v="));
    match version.map(str::parse::<u16>) {
        None | Some(Err(_)) => {
            body::text(StatusCode::BAD_REQUEST, "capability version must be set")
        }
        Some(Ok(version)) if version < FIRST_NOISE_VERSION => {
            body::text(StatusCode::BAD_REQUEST, "this client is too old; update it")
        }
        Some(Ok(_)) => {
            let answer = KeyAnswer {
                legacy_public_key: MachineKey::ZERO,
                public_key: server,
            };
            let mut response = body::json(StatusCode::OK, &answer);
            // Clients in a browser run on a page of another site, which needs this header to read the response.
            let anyone = HeaderValue::from_static("*");
            response
                .headers_mut()
                .insert(ACCESS_CONTROL_ALLOW_ORIGIN, anyone);
            response
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;
    use hyper::Request;

    fn request(uri: &str) -> Parts {
        Request::builder().uri(uri).body(()).unwrap().into_parts().0
    }

    async fn read(response: Response<Body>) -> String {
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[tokio::test]
    async fn the_key_has_both_fields() {
        let server = MachineKey::from_bytes([0xab; 32]);
        let answer = key(&request("/key?x=1&v=137"), &server);
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.headers()[ACCESS_CONTROL_ALLOW_ORIGIN], "*");
        let expected = format!(
            r#"{{"legacyPublicKey":"mkey:{}","publicKey":"mkey:{}"}}"#,
            "00".repeat(32),
            "ab".repeat(32)
        );
        assert_eq!(read(answer).await, expected);
    }

    #[test]
    fn a_missing_bad_or_old_version_is_refused() {
        let server = MachineKey::from_bytes([1; 32]);
        for uri in ["/key", "/key?v=", "/key?v=-1", "/key?v=99999", "/key?v=38"] {
            let answer = key(&request(uri), &server);
            assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "{uri}");
        }
    }
}
