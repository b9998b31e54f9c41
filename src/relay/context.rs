//! RelayContext: what HTTP handlers need to start relay connections.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

use std::future::{Future, poll_fn};
use std::pin::Pin;

use bytes::Bytes;
use hearth_derp::relay::Relay;
use hearth_derp::websocket::WebSocket;
use hearth_derp::{ConnInfo, Key, Standing};
use hearth_shares::Source;
use hyper::http::request::Parts;
use hyper::{Response, StatusCode};

use super::bootstrap_dns::BootstrapDns;
use super::http::{self, RelayUpgrade};
use crate::net::body::{self, Body};
use crate::net::gate::{Holder, Ticket};
use crate::net::stream::Stream;
use crate::net::upgrade::{Continuation, Upgrade};

/// Shared state of the HTTP handlers of the relay.
#[derive(Clone)]
pub struct RelayContext {
    /// The relay; `None` when it is disabled.
    pub relay: Option<Relay>,
    /// Bootstrap DNS records.
    pub names: BootstrapDns,
}

impl RelayContext {
    /// `/derp`: upgrades to a relay connection; 404 when the relay is disabled.
    pub fn upgrade(&self, request: &Parts) -> Response<Body> {
        match &self.relay {
            Some(relay) => {
                let key = relay.public_key();
                http::upgrade(request, &key, |asked| self.take_over(relay.clone(), asked))
            }
            None => body::text(StatusCode::NOT_FOUND, "the relay is disabled"),
        }
    }

    /// Takes over the connection of a fast-start client, which expects no HTTP response.
    pub fn fast_start(&self, path: &str, header: &dyn Fn(&str) -> Vec<u8>) -> Option<Upgrade> {
        let asked = http::fast_start(path, header)?;
        Some(match &self.relay {
            Some(relay) => self.take_over(relay.clone(), asked),
            None => Upgrade::new(http::PROTOCOL, |_, _, _| Box::pin(std::future::ready(()))),
        })
    }

    fn take_over(&self, relay: Relay, asked: RelayUpgrade) -> Upgrade {
        Upgrade::new(http::PROTOCOL, move |stream, received, ticket| {
            let source = ticket.source();
            // The key of a stranger proves nothing: anyone can make as many as they like.
            let holder = move |key: Key, standing| match standing {
                Standing::Stranger => Holder::of_source(Source::of(source.ip())),
                Standing::Known => Holder::new(RELAY, *key.as_bytes()),
            };
            serve(&relay, stream, received, ticket, holder, asked)
        })
    }
}

/// Kind of the [`Holder`] of a relay connection: its key is the client's.
const RELAY: &str = "relay";

/// Serves a relay connection until it ends. It is proven when the client is admitted.
///
/// Not an async function, which would hold the stream twice as long as it lives.
fn serve(
    relay: &Relay,
    stream: Stream,
    received: Bytes,
    ticket: Ticket,
    holder: impl FnOnce(Key, Standing) -> Holder + Send + 'static,
    asked: RelayUpgrade,
) -> Continuation {
    let source = ticket.source();
    let arrival = ConnInfo {
        not_ideal: asked.not_ideal,
        ..ConnInfo::from(source)
    };
    let (stream, received) = match asked.is_web_socket {
        true => (
            Box::new(WebSocket::new(stream, received)) as Stream,
            Bytes::new(),
        ),
        false => (stream, received),
    };
    let mut serving = relay.serve(stream, received, arrival);
    Box::pin(async move {
        let mut unproven = Some((ticket, holder));
        let closed = poll_fn(|context| {
            let polled = Pin::new(&mut serving).poll(context);
            if let Some((key, standing)) = serving.admitted()
                && let Some((ticket, holder)) = unproven.take()
            {
                ticket.prove(holder(key, standing));
            }
            polled
        })
        .await;
        tracing::debug!(%source, ?closed, "relay connection ended");
    })
}
