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
use hyper::body::Incoming;
use hyper::http::request::Parts;
use hyper::{Request, Response, StatusCode};

use crate::control::ts2021::Peer;
use crate::metrics as numbers;
use crate::metrics::Numbers;
use crate::net::body;
use crate::net::body::Body;
use crate::net::connection::{Answer, Next, Origin, Service};
use crate::net::http1::RelayUpgrade;
use crate::net::stream::Stream;
use crate::relay::bootstrap_dns::BootstrapDns;
use crate::relay::endpoints::{around_relay, serve_relay};
use crate::relay::probes as public;

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
