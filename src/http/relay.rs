//! What is answered around a relay, and how a connection comes to it.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

use std::net::SocketAddr;

use bytes::Bytes;
use hearth_derp::ConnInfo;
use hearth_derp::relay::Relay;
use hearth_derp::websocket::WebSocket;
use hyper::http::request::Parts;
use hyper::{Response, StatusCode};

use super::body::{self, Body};
use super::bootstrap::{self, BootstrapDns};
use super::connection::Next;
use super::derp;
use super::front::RelayUpgrade;
use super::public;
use super::stream::Stream;

/// The public answers around a relay, with and without a control server: none if the path is none of
/// them. Source: tailscale `cmd/derper/derper.go`.
pub fn around_relay(
    request: &Parts,
    relay: Option<&Relay>,
    names: &BootstrapDns,
) -> Option<Response<Body>> {
    Some(match request.uri.path() {
        "/generate_204" => public::generate_204(request),
        "/robots.txt" => public::robots(),
        "/version" => public::version(),
        "/derp/probe" | "/derp/latency-check" => derp::probe(request),
        bootstrap::PATH => names.answer(request),
        derp::PATH => match relay {
            Some(relay) => derp::upgrade(request, &relay.public_key()),
            None => body::text(StatusCode::NOT_FOUND, "the relay is off"),
        },
        _ => return None,
    })
}

/// Hands a connection to the relay, if there is one, until it ends.
///
/// Not an async function: one would hold the stream a second time as long as it lives.
pub fn serve_relay(
    relay: Option<Relay>,
    stream: Stream,
    received: Bytes,
    source: SocketAddr,
    upgrade: RelayUpgrade,
) -> Next {
    let conn_info = ConnInfo {
        not_ideal: upgrade.not_ideal,
        ..ConnInfo::from(source)
    };
    let (stream, received) = match upgrade.is_web_socket {
        true => (
            Box::new(WebSocket::new(stream, received)) as Stream,
            Bytes::new(),
        ),
        false => (stream, received),
    };
    let serve = relay.map(|relay| relay.serve(stream, received, conn_info));
    Box::pin(async move {
        if let Some(serve) = serve {
            let closed = serve.await;
            tracing::debug!(%source, ?closed, "relay connection ended");
        }
    })
}
