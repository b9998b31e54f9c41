//! What a relay without a control server answers.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

use std::future::ready;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use hearth_derp::Arrival;
use hearth_derp::relay::{Relay, WebSocket};
use hyper::body::Incoming;
use hyper::http::request::Parts;
use hyper::{Request, Response, StatusCode};

use super::body::{self, Body};
use super::bootstrap::{self, BootstrapDns};
use super::connection::{Answer, Next, Origin, Service};
use super::derp;
use super::front::RelayUpgrade;
use super::numbers::{self, Numbers};
use super::public;
use super::stream::Stream;
use super::ts2021::Peer;

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
    let arrival = Arrival {
        not_ideal: upgrade.not_ideal,
        ..Arrival::from(source)
    };
    let (stream, received) = match upgrade.is_web_socket {
        true => (
            Box::new(WebSocket::new(stream, received)) as Stream,
            Bytes::new(),
        ),
        false => (stream, received),
    };
    let serve = relay.map(|relay| relay.serve(stream, received, arrival));
    Box::pin(async move {
        if let Some(serve) = serve {
            let closed = serve.await;
            tracing::debug!(%source, ?closed, "relay connection ended");
        }
    })
}

/// A relay without a control server.
pub struct RelayOnly {
    /// The relay and its numbers.
    pub numbers: Numbers,
    /// The names of this server.
    pub names: BootstrapDns,
}

impl Service for RelayOnly {
    fn plain(self: Arc<Self>, request: Request<Incoming>, origin: Origin) -> Answer {
        let (parts, _) = request.into_parts();
        Box::pin(ready(self.answer(&parts, origin)))
    }

    fn machine(self: Arc<Self>, _: Request<Incoming>, _: Peer) -> Answer {
        Box::pin(ready(body::text(
            StatusCode::NOT_FOUND,
            "this is a relay without a control server",
        )))
    }

    fn relay(
        self: Arc<Self>,
        stream: Stream,
        received: Bytes,
        source: SocketAddr,
        upgrade: RelayUpgrade,
    ) -> Next {
        serve_relay(
            self.numbers.relay.clone(),
            stream,
            received,
            source,
            upgrade,
        )
    }
}

impl RelayOnly {
    fn answer(&self, parts: &Parts, origin: Origin) -> Response<Body> {
        let path = parts.uri.path();
        if origin == Origin::Local {
            return match path {
                numbers::PATH => body::json(StatusCode::OK, &self.numbers.report()),
                _ => body::text(
                    StatusCode::NOT_FOUND,
                    "this is a relay without a control server",
                ),
            };
        }
        let relay = self.numbers.relay.as_ref();
        around_relay(parts, relay, &self.names).unwrap_or_else(|| match path {
            "/" => body::text(
                StatusCode::OK,
                "This is a relay of a private network for Tailscale clients.",
            ),
            "/health" => public::health(true),
            _ => body::text(StatusCode::NOT_FOUND, "not found"),
        })
    }
}
