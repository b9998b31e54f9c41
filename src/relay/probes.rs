//! The small public answers that need no state: each a function of the request's head.

use hyper::header::{ACCESS_CONTROL_ALLOW_ORIGIN, CACHE_CONTROL, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Response, StatusCode};
use serde::Serialize;

use crate::net::body;
use crate::net::body::Body;
use hearth_core::keys::MachineKey;

/// The first capability version that speaks the Noise protocol and so reads `/key` as JSON.
/// Source: `NoiseCapabilityVersion` in headscale `hscontrol/handlers.go`.
pub const FIRST_NOISE_VERSION: u16 = 39;

/// The longest challenge that is sent back, in bytes.
/// Source: `ServeNoContent` in tailscale `derp/derpserver/handler.go`.
const MAX_CHALLENGE_BYTES: usize = 64;

/// `GET /key?v=<capability version>`: the server's Noise key.
///
/// 400 without a version, or with one that is too old to use the key.
/// Source: `OverTLSPublicKeyResponse` in tailscale `tailcfg/tailcfg.go`.
pub fn key(request: &Parts, server: &MachineKey) -> Response<Body> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Answer<'a> {
        // Zero: the protocol before Noise is not spoken. Both fields have to be there.
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
        Some(Ok(version)) if version < FIRST_NOISE_VERSION => body::text(
            StatusCode::BAD_REQUEST,
            "this client is too old; please update it",
        ),
        Some(Ok(_)) => {
            let answer = Answer {
                legacy_public_key: MachineKey::ZERO,
                public_key: server,
            };
            let mut response = body::json(StatusCode::OK, &answer);
            // A client in a browser is on a page of another site, which may read this only so.
            let anyone = HeaderValue::from_static("*");
            response
                .headers_mut()
                .insert(ACCESS_CONTROL_ALLOW_ORIGIN, anyone);
            response
        }
    }
}

/// `GET /generate_204`: tells a client that no captive portal is in between.
///
/// Source: `ServeNoContent` in tailscale `derp/derpserver/handler.go`.
pub fn generate_204(request: &Parts) -> Response<Body> {
    let mut response = body::status(StatusCode::NO_CONTENT);
    let headers = response.headers_mut();
    headers.insert(
        CACHE_CONTROL,
        HeaderValue::from_static("no-cache, no-store, must-revalidate, no-transform, max-age=0"),
    );
    let challenge = request
        .headers
        .get("x-tailscale-challenge")
        .map(HeaderValue::as_bytes)
        .unwrap_or_default();
    let answered = (1..=MAX_CHALLENGE_BYTES).contains(&challenge.len())
        && challenge
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b".-_:".contains(byte));
    if answered && let Ok(value) = HeaderValue::from_bytes(&[b"response ", challenge].concat()) {
        headers.insert("x-tailscale-response", value);
    }
    response
}

/// `GET /robots.txt`: nothing here is for search machines.
pub fn robots() -> Response<Body> {
    body::typed(StatusCode::OK, "text/plain", "User-agent: *\nDisallow: /\n")
}

/// `GET /health`: whether changes can be stored; 500 when not.
///
/// Source: `HealthHandler` in headscale `hscontrol/handlers.go`.
pub fn health(healthy: bool) -> Response<Body> {
    let (status, text) = match healthy {
        true => (StatusCode::OK, r#"{"status":"pass"}"#),
        false => (StatusCode::INTERNAL_SERVER_ERROR, r#"{"status":"fail"}"#),
    };
    body::typed(status, "application/health+json; charset=utf-8", text)
}

/// `GET /version`: which hearth this is.
pub fn version() -> Response<Body> {
    #[derive(Serialize)]
    struct Answer {
        name: &'static str,
        version: &'static str,
    }
    body::json(
        StatusCode::OK,
        &Answer {
            name: env!("CARGO_PKG_NAME"),
            version: env!("CARGO_PKG_VERSION"),
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;
    use hyper::Request;

    fn request(uri: &str, challenge: Option<&str>) -> Parts {
        let mut request = Request::builder().uri(uri);
        if let Some(challenge) = challenge {
            request = request.header("X-Tailscale-Challenge", challenge);
        }
        request.body(()).unwrap().into_parts().0
    }

    async fn read(response: Response<Body>) -> String {
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[tokio::test]
    async fn the_key_has_both_fields() {
        let server = MachineKey::from_bytes([0xab; 32]);
        let answer = key(&request("/key?x=1&v=137", None), &server);
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
            let answer = key(&request(uri, None), &server);
            assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "{uri}");
        }
    }

    #[test]
    fn only_a_harmless_challenge_is_answered() {
        let answer = generate_204(&request("/generate_204", Some("ts_hearth.lan:1-2")));
        assert_eq!(answer.status(), StatusCode::NO_CONTENT);
        let header = &answer.headers()["x-tailscale-response"];
        assert_eq!(header, "response ts_hearth.lan:1-2");
        for bad in ["", "a b", "<x>", &"a".repeat(65)] {
            let answer = generate_204(&request("/generate_204", Some(bad)));
            assert!(!answer.headers().contains_key("x-tailscale-response"));
            assert!(answer.headers().contains_key(CACHE_CONTROL));
        }
    }

    #[tokio::test]
    async fn health_and_version_are_json() {
        assert_eq!(read(health(true)).await, r#"{"status":"pass"}"#);
        assert_eq!(health(false).status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert!(read(version()).await.contains(env!("CARGO_PKG_VERSION")));
        assert!(read(robots()).await.contains("Disallow: /"));
    }
}
