//! `hearth derp`: routes of a relay without a control server.

use std::future::ready;
use std::net::IpAddr;
use std::sync::Arc;

use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};

use super::dispatch::unfound;
use super::route::{Found, Handler, Route, find};
use super::table::ROUTES;
use super::upgrades;
use crate::api;
use crate::net::body::{self, Body};
use crate::net::connection::{Origin, Service};
use crate::net::upgrade::{PendingResponse, Upgrade};
use crate::relay::context::RelayContext;
use crate::relay::probes;
use crate::status::public_url::DroppedUpgrades;
use crate::status::relay::Metrics;

/// A relay without a control server.
pub struct RelayOnly {
    /// The relay.
    pub relay: RelayContext,
    /// The relay's counters.
    pub metrics: Metrics,
    /// Upgrade requests that a proxy has spoilt.
    pub dropped_upgrades: DroppedUpgrades,
}

impl Service for RelayOnly {
    fn answer(self: Arc<Self>, request: Request<Incoming>, origin: Origin) -> PendingResponse {
        Box::pin(ready(match origin {
            Origin::Local => self.local(request.uri().path()),
            Origin::Network { source, .. } => self.public(request, source.ip()),
        }))
    }

    fn fast_start(&self, path: &str, header: &dyn Fn(&str) -> Vec<u8>) -> Option<Upgrade> {
        self.relay.fast_start(path, header)
    }
}

impl RelayOnly {
    fn local(&self, path: &str) -> Response<Body> {
        match path {
            api::RELAY_PATH => body::json(StatusCode::OK, &self.metrics.report()),
            _ => body::text(
                StatusCode::NOT_FOUND,
                "this is a relay without a control server",
            ),
        }
    }

    fn public(&self, request: Request<Incoming>, source: IpAddr) -> Response<Body> {
        let (parts, _) = request.into_parts();
        let response = match find(ROUTES, &parts.method, parts.uri.path(), is_served) {
            Found::Route(_, route, _) => match route.handler {
                Handler::Fixed(answer) => answer(),
                Handler::Head(answer) => answer(&parts),
                Handler::Relay(answer) => answer(&self.relay, &parts),
                Handler::Health(_) => probes::health(None),
                _ => body::text(
                    StatusCode::OK,
                    "This is a private DERP relay for Tailscale clients.",
                ),
            },
            other => unfound(&other),
        };
        upgrades::note(&self.dropped_upgrades, &parts, &response, source);
        response
    }
}

/// Whether a relay without a control server has this route: the stateless ones, and a start page.
fn is_served(route: &Route) -> bool {
    match route.handler {
        Handler::Fixed(_) => route.path != "/openapi.json",
        Handler::Head(_) | Handler::Relay(_) | Handler::Health(_) => true,
        Handler::Web(_) => route.path == "/",
        _ => false,
    }
}
