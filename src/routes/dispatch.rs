//! Router: dispatches requests to handlers, by the route table.

use std::future::ready;
use std::net::IpAddr;
use std::sync::Arc;

use hyper::body::Incoming;
use hyper::header::{ALLOW, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Request, Response, StatusCode};

use super::api;
use super::route::{Access, Bound, Found, Handler, Route, find};
use super::table::ROUTES;
use super::upgrades;
use crate::admin::AdminContext;
use crate::control::context::{ControlContext, NoiseRequest};
use crate::control::ts2021::{self, Peer};
use crate::net::body::{self, Body};
use crate::net::connection::{Origin, Service};
use crate::net::gate::{Holder, Ticket};
use crate::net::json_size;
use crate::net::params::Params;
use crate::net::upgrade::{PendingResponse, Upgrade};
use crate::relay::context::RelayContext;
use crate::status::http_counters::HttpCounters;
use crate::status::public_url::DroppedUpgrades;
use crate::web::WebContext;

/// Path prefix of the API.
const API: &str = "/api/";

/// The server as connections see it.
pub struct Router {
    /// The control protocol.
    pub control: Arc<ControlContext>,
    /// The relay.
    pub relay: RelayContext,
    /// The API.
    pub admin: AdminContext,
    /// The web pages.
    pub web: WebContext,
    /// Request counters by route and status.
    pub counters: Arc<HttpCounters>,
    /// Upgrade requests that a proxy has spoilt.
    pub dropped_upgrades: Arc<DroppedUpgrades>,
}

impl Service for Router {
    fn answer(self: Arc<Self>, request: Request<Incoming>, origin: Origin) -> PendingResponse {
        if request.uri().path().starts_with(API) {
            return Box::pin(async move {
                api::answer(&self.admin, &self.counters, origin, request).await
            });
        }
        match origin {
            Origin::Local => Box::pin(ready(api::outside())),
            Origin::Network { source, .. } => {
                Box::pin(async move { self.public(request, source.ip()).await })
            }
        }
    }

    fn fast_start(&self, path: &str, header: &dyn Fn(&str) -> Vec<u8>) -> Option<Upgrade> {
        self.relay.fast_start(path, header)
    }
}

impl Router {
    async fn public(&self, request: Request<Incoming>, source: IpAddr) -> Response<Body> {
        let is_public = |route: &Route| route.access == Access::Public;
        let path = request.uri().path();
        let (number, route, params) = match find(ROUTES, request.method(), path, is_public) {
            Found::Route(number, route, params) => (number, route, params),
            other => return unfound(&other),
        };
        let (parts, content) = request.into_parts();
        let response = match route.handler {
            Handler::ControlBody(handler) => {
                let limits = &self.control.limits;
                let bound = route.body.bytes(limits);
                match body::read_limited(content, bound, limits.request_timeout).await {
                    Ok(bytes) => handler(&self.control, &bytes),
                    Err(fault) => body::text(fault.status(), &fault.to_string()),
                }
            }
            Handler::WebForm(handler) => {
                let limits = &self.control.limits;
                let bound = route.body.bytes(limits);
                match body::read_limited(content, bound, limits.request_timeout).await {
                    Ok(form) => handler(&self.web, &params, &parts, source, &form).await,
                    Err(fault) => body::text(fault.status(), &fault.to_string()),
                }
            }
            handler => self.head(handler, &parts, &params),
        };
        upgrades::note(&self.dropped_upgrades, &parts, &response, source);
        self.counters.count(number, response.status());
        response
    }

    /// Handlers that need the request head only.
    fn head(&self, handler: Handler, parts: &Parts, params: &Params) -> Response<Body> {
        match handler {
            Handler::Fixed(answer) => answer(),
            Handler::Head(answer) => answer(parts),
            Handler::Relay(answer) => answer(&self.relay, parts),
            Handler::Control(answer) => answer(&self.control, parts),
            Handler::Ts2021 => ts2021_upgrade(&self.control, parts),
            Handler::Web(answer) => answer(&self.web, parts, params),
            Handler::Health(answer) => answer(&self.admin),
            _ => body::text(StatusCode::NOT_FOUND, "not found"),
        }
    }
}

/// The upgrade to a Noise session, whose requests come back to [`answer_noise`].
fn ts2021_upgrade(context: &Arc<ControlContext>, request: &Parts) -> Response<Body> {
    ts2021::upgrade(request, |begin| {
        let answering = Arc::clone(context);
        context.noise.take_over(begin, move |request, peer| {
            answer_noise(Arc::clone(&answering), peer, request)
        })
    })
}

/// Answers a request inside a Noise session. Dropped when the client cancels the request.
///
/// It ends with the response: a map stream is the body of one, and holds no memory of how it was made.
fn answer_noise(
    context: Arc<ControlContext>,
    peer: Peer,
    request: Request<Incoming>,
) -> PendingResponse {
    let ticket = request.extensions().get::<Ticket>().cloned();
    prove(&context, &peer, ticket.as_ref());
    // Routed by path alone: the authority that clients send inside the session is meaningless.
    let is_noise = |route: &Route| route.access == Access::Noise;
    let (number, route) = match find(ROUTES, request.method(), request.uri().path(), is_noise) {
        Found::Route(number, route, _) => (number, route),
        other => return Box::pin(ready(unfound(&other))),
    };
    let counters = Arc::clone(&context.counters);
    match route.handler {
        Handler::Noise(handler) => {
            let bound = route.body;
            Box::pin(async move {
                let response = match noise_request(&context, peer, request, bound).await {
                    Ok(request) => handler(Arc::clone(&context), request).await,
                    Err(response) => response,
                };
                // The request may have made the machine a node.
                prove(&context, &peer, ticket.as_ref());
                counters.count(number, response.status());
                response
            })
        }
        Handler::NoiseBody(handler) => {
            let answering = handler(context, peer, request);
            Box::pin(async move {
                let response = answering.await;
                counters.count(number, response.status());
                response
            })
        }
        _ => Box::pin(ready(body::text(StatusCode::NOT_FOUND, "not found"))),
    }
}

/// Kind of the [`Holder`] of a control connection: its key is a machine key.
pub const MACHINE: &str = "machine";

/// Proves the connection of a machine that has a node. Only a request inside the session shows that the machine key is the
/// client's: the handshake message could be somebody else's, sent again.
fn prove(context: &ControlContext, peer: &Peer, ticket: Option<&Ticket>) {
    let Some(ticket) = ticket.filter(|ticket| !ticket.is_proven()) else {
        return;
    };
    if context.engine.snapshot().has_machine(&peer.machine) {
        ticket.prove(Holder::new(MACHINE, *peer.machine.as_bytes()));
    }
}

/// Longest body of a machine that has no node, in bytes, where the limit of the route is higher. Clients send 1 to 3 KiB,
/// and 17 KiB when they advertise a thousand routes.
const STRANGER_BYTES: usize = 32 * 1024;

/// Reads a body within the budget shared by all sessions. It is JSON with a moderate number of values.
async fn noise_request(
    context: &ControlContext,
    peer: Peer,
    request: Request<Incoming>,
    bound: Bound,
) -> Result<NoiseRequest, Response<Body>> {
    let (parts, content) = request.into_parts();
    let body = match bound {
        Bound::None | Bound::Handler => bytes::Bytes::new(),
        bound => {
            let limits = &context.limits;
            let ticket = parts.extensions.get::<Ticket>();
            let client = ticket.map_or_else(
                || Holder::new(MACHINE, *peer.machine.as_bytes()),
                Ticket::charged_to,
            );
            let most = match context.engine.snapshot().has_machine(&peer.machine) {
                true => bound.bytes(limits),
                false => bound.bytes(limits).min(STRANGER_BYTES),
            };
            let reading = (context.bodies).read(content, client, most, limits.request_timeout);
            let read = reading.await;
            let body = read.map_err(|fault| body::text(fault.status(), &fault.to_string()))?;
            if !json_size::is_modest(&body) {
                return Err(body::text(StatusCode::BAD_REQUEST, json_size::TOO_MANY));
            }
            body
        }
    };
    Ok(NoiseRequest { peer, parts, body })
}

/// A plain-text 404, 405 or 400.
pub(super) fn unfound(found: &Found<'_>) -> Response<Body> {
    match found {
        Found::OtherMethod(allowed) => {
            let mut response = body::text(StatusCode::METHOD_NOT_ALLOWED, "method not allowed");
            if let Ok(allowed) = HeaderValue::try_from(allowed.as_str()) {
                response.headers_mut().insert(ALLOW, allowed);
            }
            response
        }
        Found::Unreadable => body::text(StatusCode::BAD_REQUEST, "the path is not valid UTF-8"),
        Found::Route(..) | Found::Nothing => body::text(StatusCode::NOT_FOUND, "not found"),
    }
}
