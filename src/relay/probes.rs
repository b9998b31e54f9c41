//! Public probes that need no state: health, version, captive portal detection, robots.txt.

use hyper::header::{CACHE_CONTROL, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Response, StatusCode};
use serde::Serialize;

use crate::net::body;
use crate::net::body::Body;

/// Longest challenge that is echoed, in bytes.
/// Source: `ServeNoContent` in tailscale `derp/derpserver/handler.go`.
const MAX_CHALLENGE_BYTES: usize = 64;

/// `GET /generate_204`: captive portal detection.
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

/// `GET /robots.txt`: disallows all crawlers.
pub fn robots() -> Response<Body> {
    body::typed(StatusCode::OK, "text/plain", "User-agent: *\nDisallow: /\n")
}

/// `GET /health`: 503 with the fault while there is one.
///
/// Source: `HealthHandler` in headscale `hscontrol/handlers.go`; `output` is that of draft-inadarei-api-health-check.
pub fn health(fault: Option<&str>) -> Response<Body> {
    #[derive(Serialize)]
    struct Health<'a> {
        status: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        output: Option<&'a str>,
    }
    let (code, status) = match fault {
        None => (StatusCode::OK, "pass"),
        Some(_) => (StatusCode::SERVICE_UNAVAILABLE, "fail"),
    };
    let answer = Health {
        status,
        output: fault,
    };
    let text = serde_json::to_vec(&answer).unwrap_or_default();
    body::typed(code, "application/health+json; charset=utf-8", text)
}

/// `GET /version`: name and version of this server.
pub fn version() -> Response<Body> {
    #[derive(Serialize)]
    struct VersionAnswer {
        name: &'static str,
        version: &'static str,
    }
    body::json(
        StatusCode::OK,
        &VersionAnswer {
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
        assert_eq!(read(health(None)).await, r#"{"status":"pass"}"#);
        let failing = health(Some("no space left"));
        assert_eq!(failing.status(), StatusCode::SERVICE_UNAVAILABLE);
        let expected = r#"{"status":"fail","output":"no space left"}"#;
        assert_eq!(read(failing).await, expected);
        assert!(read(version()).await.contains(env!("CARGO_PKG_VERSION")));
        assert!(read(robots()).await.contains("Disallow: /"));
    }
}
