//! Upgrade requests: which of them a proxy has spoilt.

use std::net::IpAddr;

use hyper::header::{SEC_WEBSOCKET_KEY, UPGRADE, USER_AGENT};
use hyper::http::request::Parts;
use hyper::{Response, StatusCode};

use crate::control::ts2021;
use crate::net::body::Body;
use crate::relay::http as relay_http;
use crate::status::public_url::DroppedUpgrades;
use crate::system_clock;

/// `User-Agent` of official clients that connect to a relay: they set none, and Go sends this.
const GO: &[u8] = b"Go-http-client/";

/// Records whether an upgrade request was answered with an upgrade, or came without its `Upgrade` header.
pub(super) fn note(
    upgrades: &DroppedUpgrades,
    request: &Parts,
    response: &Response<Body>,
    source: IpAddr,
) {
    let path = request.uri.path();
    if ![ts2021::PATH, relay_http::PATH].contains(&path) {
        return;
    }
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        upgrades.passed(source);
    } else if is_spoilt(request) {
        upgrades.dropped(source, path, system_clock::now());
    }
}

/// Whether a client sent this as an upgrade request, and a proxy removed the header.
fn is_spoilt(request: &Parts) -> bool {
    let headers = &request.headers;
    if headers.get(UPGRADE).is_some_and(|value| !value.is_empty()) {
        return false;
    }
    let is_relay = request.uri.path() == relay_http::PATH;
    let by_go = || {
        headers
            .get(USER_AGENT)
            .is_some_and(|agent| agent.as_bytes().starts_with(GO))
    };
    headers.contains_key(ts2021::HANDSHAKE_HEADER)
        || headers.contains_key(SEC_WEBSOCKET_KEY)
        || (is_relay && by_go())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::body;
    use hyper::Request;

    /// Whether a request, which was not upgraded, counts as spoilt.
    fn is_recorded(path: &str, headers: &[(&str, &str)]) -> bool {
        let mut request = Request::builder().uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let upgrades = DroppedUpgrades::default();
        let refused = body::status(StatusCode::BAD_REQUEST);
        let source = IpAddr::from([127, 0, 0, 1]);
        note(&upgrades, &parts, &refused, source);
        let is_recorded = upgrades.last(system_clock::now()).is_some();
        note(
            &upgrades,
            &parts,
            &body::status(StatusCode::SWITCHING_PROTOCOLS),
            source,
        );
        assert_eq!(upgrades.last(system_clock::now()), None);
        is_recorded
    }

    #[test]
    fn requests_of_clients_without_their_upgrade_header_are_recorded() {
        let handshake = ("X-Tailscale-Handshake", "AAE=");
        let key = ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==");
        let go = ("User-Agent", "Go-http-client/1.1");
        assert!(is_recorded("/ts2021", &[handshake]));
        assert!(is_recorded("/ts2021", &[handshake, ("Upgrade", "")]));
        assert!(is_recorded("/ts2021?x=1", &[key]));
        assert!(is_recorded("/derp", &[key]) && is_recorded("/derp", &[go]));
        // Browsers, crawlers, and upgrades that are invalid themselves.
        assert!(!is_recorded("/ts2021", &[]) && !is_recorded("/ts2021", &[go]));
        assert!(!is_recorded("/derp", &[("User-Agent", "Mozilla/5.0")]));
        assert!(!is_recorded("/derp", &[go, ("Upgrade", "h2c")]));
        assert!(!is_recorded("/derp/probe", &[go]));
    }
}
