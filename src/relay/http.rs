//! DERP requests: upgrades to relay connections, client verification, and latency probes.
//!
//! Source: tailscale `derp/derpserver/handler.go`.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

use hearth_derp::frame::PROTOCOL_VERSION;
use hearth_derp::headers::{
    FAST_START_HEADER, IDEAL_NODE_HEADER, PUBLIC_KEY_HEADER, VERSION_HEADER, public_key_hex,
};
pub use hearth_derp::headers::{PATH, UPGRADE as PROTOCOL};
use hearth_derp::websocket::SUBPROTOCOL;
use hyper::header::{
    ACCESS_CONTROL_ALLOW_ORIGIN, CONNECTION, HeaderValue, SEC_WEBSOCKET_PROTOCOL, UPGRADE,
};
use hyper::http::request::Parts;
use hyper::{HeaderMap, Response, StatusCode};
use serde::{Deserialize, Serialize};

use crate::net::body;
use crate::net::body::Body;
use crate::net::upgrade::Upgrade;
use crate::net::websocket;
use hearth_core::keys::NodeKey;

/// DERP upgrade of a client.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RelayUpgrade {
    /// DERP frames are inside WebSocket messages.
    pub is_web_socket: bool,
    /// The client would prefer another relay of the region.
    pub not_ideal: bool,
}

/// Kind of a request to the relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Requested {
    Frames,
    WebSocket,
    Nothing,
}

/// Old clients request a WebSocket without naming the subprotocol and mean plain DERP.
/// Source: `AddWebSocketSupport` in tailscale `derp/derpserver/websocket.go`.
fn requested(upgrade: &[u8], subprotocol: &[u8]) -> Requested {
    let names_derp = subprotocol.windows(4).any(|part| part == b"derp");
    if upgrade.eq_ignore_ascii_case(PROTOCOL.as_bytes()) {
        Requested::Frames
    } else if !upgrade.eq_ignore_ascii_case(b"websocket") {
        Requested::Nothing
    } else if names_derp {
        Requested::WebSocket
    } else {
        Requested::Frames
    }
}

/// Any method on [`PATH`]: 101 followed by DERP frames, or 426.
///
/// `take_over` makes the upgrade in the response.
pub fn upgrade(
    request: &Parts,
    relay: &hearth_derp::Key,
    take_over: impl FnOnce(RelayUpgrade) -> Upgrade,
) -> Response<Body> {
    let upgrade = value(&request.headers, UPGRADE.as_str());
    let subprotocol = value(&request.headers, SEC_WEBSOCKET_PROTOCOL.as_str());
    match requested(upgrade, subprotocol) {
        Requested::Nothing => {
            return body::text(
                StatusCode::UPGRADE_REQUIRED,
                "DERP requires connection upgrade",
            );
        }
        Requested::WebSocket => return web_socket(&request.headers, take_over),
        Requested::Frames => {}
    }
    let Ok(key) = HeaderValue::try_from(public_key_hex(relay)) else {
        return body::status(StatusCode::INTERNAL_SERVER_ERROR);
    };
    let mut response = body::status(StatusCode::SWITCHING_PROTOCOLS);
    let headers = response.headers_mut();
    headers.insert(UPGRADE, HeaderValue::from_static(PROTOCOL));
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(VERSION_HEADER, HeaderValue::from(PROTOCOL_VERSION));
    headers.insert(PUBLIC_KEY_HEADER, key);
    let upgrade = RelayUpgrade {
        is_web_socket: false,
        not_ideal: !value(&request.headers, IDEAL_NODE_HEADER).is_empty(),
    };
    response.extensions_mut().insert(take_over(upgrade));
    response
}

/// Source: `AddWebSocketSupport` in tailscale `derp/derpserver/websocket.go`.
fn web_socket(
    request: &HeaderMap,
    take_over: impl FnOnce(RelayUpgrade) -> Upgrade,
) -> Response<Body> {
    if !websocket::speaks(request, SUBPROTOCOL) {
        return body::text(
            StatusCode::BAD_REQUEST,
            "client must speak the derp subprotocol",
        );
    }
    let mut response = websocket::accept(request, Some(SUBPROTOCOL));
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let upgrade = RelayUpgrade {
            is_web_socket: true,
            not_ideal: !value(request, IDEAL_NODE_HEADER).is_empty(),
        };
        response.extensions_mut().insert(take_over(upgrade));
    }
    response
}

/// Upgrade of a fast-start request, which has no response yet, because its client expects frames instead
/// of an HTTP response.
pub fn fast_start(path: &str, header: &dyn Fn(&str) -> Vec<u8>) -> Option<RelayUpgrade> {
    // The path first: this is asked of every connection that begins with a GET request.
    if path.split('?').next() != Some(PATH) {
        return None;
    }
    let upgrade = header(UPGRADE.as_str());
    let requested = requested(&upgrade, &header(SEC_WEBSOCKET_PROTOCOL.as_str()));
    let is_fast = header(FAST_START_HEADER) == b"1" && requested == Requested::Frames;
    is_fast.then(|| RelayUpgrade {
        is_web_socket: false,
        not_ideal: !header(IDEAL_NODE_HEADER).is_empty(),
    })
}

/// Path for other relays to verify clients. Source: `VerifyHandler` in headscale `hscontrol/handlers.go`.
pub const VERIFY: &str = "/verify";

/// Longest verify request, in bytes. Source: `Server.verifyClient` in tailscale
/// `derp/derpserver/derpserver.go` reads as much of an answer.
pub const MAX_VERIFY_BYTES: usize = 4096;

/// Verify request of a relay. Source: `DERPAdmitClientRequest` in tailscale `tailcfg/tailcfg.go`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct AdmitRequest {
    /// Node key of the client.
    pub node_public: NodeKey,
    /// Address of the client.
    #[serde(default)]
    pub source: String,
}

/// Verify response. Source: `DERPAdmitClientResponse` in tailscale `tailcfg/tailcfg.go`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct AdmitAnswer {
    /// Whether the client may use the relay.
    #[serde(default)]
    pub allow: bool,
}

/// `POST /verify`: whether a client is a node of this tailnet.
pub fn verify(content: &[u8], is_admitted: impl FnOnce(&NodeKey) -> bool) -> Response<Body> {
    match serde_json::from_slice::<AdmitRequest>(content) {
        Ok(request) => body::json(
            StatusCode::OK,
            &AdmitAnswer {
                allow: is_admitted(&request.node_public),
            },
        ),
        Err(_) => body::text(StatusCode::BAD_REQUEST, "invalid verify request"),
    }
}

/// `/derp/probe` and `/derp/latency-check`: an empty response, to measure latency.
pub fn probe() -> Response<Body> {
    let mut response = body::status(StatusCode::OK);
    let anyone = HeaderValue::from_static("*");
    response
        .headers_mut()
        .insert(ACCESS_CONTROL_ALLOW_ORIGIN, anyone);
    response
}

fn value<'a>(headers: &'a HeaderMap, name: &str) -> &'a [u8] {
    headers
        .get(name)
        .map(HeaderValue::as_bytes)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::{Method, Request};

    fn parts(headers: &[(&str, &str)], method: Method) -> Parts {
        let mut request = Request::builder().uri(PATH).method(method);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    /// The response, and its upgrade.
    fn upgraded(request: &Parts, key: &hearth_derp::Key) -> (Response<Body>, Option<RelayUpgrade>) {
        let mut begin = None;
        let response = upgrade(request, key, |asked| {
            begin = Some(asked);
            Upgrade::new(PROTOCOL, |_, _, _| Box::pin(std::future::ready(())))
        });
        (response, begin)
    }

    #[test]
    fn an_upgrade_is_answered_with_the_key() {
        let key = hearth_derp::Key::from([0xab; 32]);
        for method in [Method::GET, Method::POST] {
            let (answer, begin) = upgraded(&parts(&[("Upgrade", "DERP")], method), &key);
            assert_eq!(answer.status(), StatusCode::SWITCHING_PROTOCOLS);
            assert_eq!(answer.headers()["upgrade"], "DERP");
            assert_eq!(answer.headers()["connection"], "Upgrade");
            assert_eq!(answer.headers()["derp-version"], "2");
            let text = answer.headers()["derp-public-key"].to_str().unwrap();
            assert_eq!(text, "ab".repeat(32));
            assert_eq!(begin, Some(RelayUpgrade::default()));
            assert!(answer.extensions().get::<Upgrade>().is_some());
        }
    }

    #[test]
    fn requests_without_an_upgrade_are_refused() {
        let key = hearth_derp::Key::from([1; 32]);
        for (headers, status) in [
            (&[][..], 426),
            (&[("Upgrade", "h2c")], 426),
            (&[("Upgrade", "websocket")], 101),
            (
                &[("Upgrade", "websocket"), ("Sec-WebSocket-Protocol", "derp")],
                426,
            ),
            (
                &[
                    ("Upgrade", "websocket"),
                    ("Sec-WebSocket-Protocol", "underpin"),
                    ("Sec-WebSocket-Version", "13"),
                    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
                ],
                400,
            ),
        ] {
            let (answer, _) = upgraded(&parts(headers, Method::GET), &key);
            assert_eq!(answer.status(), status, "{headers:?}");
        }
    }

    #[test]
    fn fast_start_needs_path_upgrade_and_header() {
        let header = |upgrade: &'static [u8], fast: &'static [u8]| {
            move |name: &str| match name {
                "upgrade" => upgrade.to_vec(),
                FAST_START_HEADER => fast.to_vec(),
                _ => Vec::new(),
            }
        };
        assert!(fast_start("/derp", &header(b"DERP", b"1")).is_some());
        assert!(fast_start("/derp", &header(b"", b"1")).is_none());
        assert!(fast_start("/derp", &header(b"DERP", b"0")).is_none());
        assert!(fast_start("/derp/probe", &header(b"DERP", b"1")).is_none());
    }

    /// The key and its response are those of RFC 6455 section 1.3.
    #[test]
    fn a_web_socket_handshake_follows_the_standard() {
        let headers = [
            ("Upgrade", "WebSocket"),
            ("Sec-WebSocket-Protocol", "chat, derp"),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("Ideal-Node", "900b"),
        ];
        let key = hearth_derp::Key::from([1; 32]);
        let (answer, begin) = upgraded(&parts(&headers, Method::GET), &key);
        assert_eq!(answer.status(), StatusCode::SWITCHING_PROTOCOLS);
        let accept = &answer.headers()["sec-websocket-accept"];
        assert_eq!(accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(answer.headers()["sec-websocket-protocol"], "derp");
        let requested = RelayUpgrade {
            is_web_socket: true,
            not_ideal: true,
        };
        assert_eq!(begin, Some(requested));
    }

    #[tokio::test]
    async fn other_relays_can_verify_clients() {
        let key = NodeKey::from_bytes([0xab; 32]);
        let ask = |text: &str| verify(text.as_bytes(), |asked| *asked == key);
        for (digits, allow) in [("ab", true), ("cd", false)] {
            let text = format!(
                r#"{{"NodePublic":"nodekey:{}","Source":"::1"}}"#,
                digits.repeat(32)
            );
            let answer = ask(&text);
            assert_eq!(answer.status(), StatusCode::OK);
            let bytes = http_body_util::BodyExt::collect(answer.into_body())
                .await
                .unwrap();
            assert_eq!(bytes.to_bytes(), format!(r#"{{"Allow":{allow}}}"#));
        }
        assert_eq!(ask("{}").status(), 400);
    }

    #[test]
    fn probes_may_be_read_by_pages_of_other_sites() {
        let answer = probe();
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.headers()["access-control-allow-origin"], "*");
    }
}
