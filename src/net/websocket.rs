//! WebSocket handshake, for the relay and for control connections.
//!
//! Any origin is accepted: clients prove their key inside, so a page of another site gains nothing.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

use hearth_derp::websocket;
use hyper::header::{
    CONNECTION, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use hyper::{HeaderMap, Response, StatusCode};

use crate::net::body;
use crate::net::body::Body;

/// Whether the client offers this subprotocol.
pub fn speaks(request: &HeaderMap, subprotocol: &str) -> bool {
    request
        .get_all(SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
        .any(|name| name.trim_ascii() == subprotocol.as_bytes())
}

/// The 101 response that starts a WebSocket with this subprotocol, or with none. Otherwise 426 for an
/// unsupported version, 400 for an invalid key.
///
/// Source: RFC 6455 section 4.2.
pub fn accept(request: &HeaderMap, subprotocol: Option<&'static str>) -> Response<Body> {
    let value = |name| {
        let value = request.get(name).map(HeaderValue::as_bytes);
        value.unwrap_or_default().trim_ascii()
    };
    if value(SEC_WEBSOCKET_VERSION) != websocket::VERSION.as_bytes() {
        let mut response = body::text(
            StatusCode::UPGRADE_REQUIRED,
            "unsupported WebSocket version",
        );
        let version = HeaderValue::from_static(websocket::VERSION);
        response
            .headers_mut()
            .insert(SEC_WEBSOCKET_VERSION, version);
        return response;
    }
    let Some(accept) = websocket::accept(value(SEC_WEBSOCKET_KEY)) else {
        return body::text(StatusCode::BAD_REQUEST, "invalid Sec-WebSocket-Key");
    };
    let Ok(accept) = HeaderValue::try_from(accept) else {
        return body::status(StatusCode::INTERNAL_SERVER_ERROR);
    };
    let mut response = body::status(StatusCode::SWITCHING_PROTOCOLS);
    let headers = response.headers_mut();
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    if let Some(subprotocol) = subprotocol {
        let protocol = HeaderValue::from_static(subprotocol);
        headers.insert(SEC_WEBSOCKET_PROTOCOL, protocol);
    }
    response
}
