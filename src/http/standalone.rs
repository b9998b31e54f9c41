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

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;

use bytes::Bytes;
use hearth_derp::relay::{Relay, WebSocket};
use hearth_derp::{Arrival, Closed};
use hyper::body::Incoming;
use hyper::http::request::Parts;
use hyper::{Request, Response, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite};

use super::body::{self, Body};
use super::bootstrap::{self, BootstrapDns};
use super::connection::{Origin, Service};
use super::derp;
use super::front::RelayUpgrade;
use super::numbers::{self, Numbers};
use super::outbound::Io;
use super::public;
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
pub fn serve_relay<S>(
    relay: Option<Relay>,
    stream: S,
    received: Bytes,
    source: SocketAddr,
    upgrade: RelayUpgrade,
) -> impl Future<Output = ()> + Send + 'static
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let arrival = Arrival {
        not_ideal: upgrade.not_ideal,
        ..Arrival::from(source)
    };
    let serve = relay.map(|relay| -> Pin<Box<dyn Future<Output = Closed> + Send>> {
        if upgrade.is_web_socket {
            // Few clients come this way: one copy of the code serves all kinds of connections.
            let stream: Box<dyn Io> = Box::new(stream);
            let stream = WebSocket::new(stream, received);
            Box::pin(relay.serve(stream, Bytes::new(), arrival))
        } else {
            Box::pin(relay.serve(stream, received, arrival))
        }
    });
    async move {
        if let Some(serve) = serve {
            let closed = serve.await;
            tracing::debug!(%source, ?closed, "relay connection ended");
        }
    }
}

/// A relay without a control server.
#[derive(Clone)]
pub struct RelayOnly {
    /// The relay and its numbers.
    pub numbers: Numbers,
    /// The names of this server.
    pub names: BootstrapDns,
}

impl Service for RelayOnly {
    async fn plain(self, request: Request<Incoming>, origin: Origin) -> Response<Body> {
        let (parts, _) = request.into_parts();
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
        around_relay(&parts, relay, &self.names).unwrap_or_else(|| match path {
            "/" => body::text(
                StatusCode::OK,
                "This is a relay of a private network for Tailscale clients.",
            ),
            "/health" => public::health(true),
            _ => body::text(StatusCode::NOT_FOUND, "not found"),
        })
    }

    async fn machine(self, _: Request<Incoming>, _: Peer) -> Response<Body> {
        body::text(
            StatusCode::NOT_FOUND,
            "this is a relay without a control server",
        )
    }

    fn relay<S>(
        self,
        stream: S,
        received: Bytes,
        source: SocketAddr,
        upgrade: RelayUpgrade,
    ) -> impl Future<Output = ()> + Send + 'static
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        serve_relay(self.numbers.relay, stream, received, source, upgrade)
    }
}
