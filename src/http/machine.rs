//! What clients ask inside the Noise tunnel: requests are decoded here, turned into commands, and the
//! state's answers turned back into the wire's.

mod convert;
mod map;
mod register;

use std::sync::Arc;

use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};

use crate::engine::EngineError;
use crate::http::App;
use crate::http::body::{self, Body};
use crate::http::ts2021::Peer;

/// Requests of clients that hearth knows of and does not serve. The client handles the status.
const NOT_OFFERED: [&str; 9] = [
    "/machine/set-dns",
    "/machine/set-device-attr",
    "/machine/audit-log",
    "/machine/id-token",
    "/machine/feature/query",
    "/machine/update-health",
    "/machine/webclient/",
    "/machine/tka/",
    "/machine/whoami",
];

/// Answers one request of the client whose Noise session `peer` is.
pub async fn handle(app: Arc<App>, peer: Peer, request: Request<Incoming>) -> Response<Body> {
    // Routing is by path alone: the authority that clients send inside the tunnel means nothing.
    let path = request.uri().path();
    let known = |prefix: &&str| path.starts_with(*prefix);
    match (request.method(), path) {
        (&Method::POST, "/machine/register") => register::register(&app, peer, request).await,
        (&Method::POST, "/machine/map") => map::map(app, peer, request).await,
        (_, "/machine/register" | "/machine/map") => {
            body::text(StatusCode::METHOD_NOT_ALLOWED, "method not allowed")
        }
        _ if NOT_OFFERED.iter().any(known) => body::text(
            StatusCode::NOT_IMPLEMENTED,
            "not implemented by this control server",
        ),
        _ => body::text(StatusCode::NOT_FOUND, "not found"),
    }
}

/// The status for a command that did not happen. Clients repeat their request after a while.
fn refused(fault: &EngineError) -> Response<Body> {
    let status = match fault {
        EngineError::Rejected(_) => StatusCode::BAD_REQUEST,
        EngineError::Busy | EngineError::Unavailable | EngineError::Stopped => {
            StatusCode::SERVICE_UNAVAILABLE
        }
    };
    let mut response = body::text(status, &fault.to_string());
    if status == StatusCode::SERVICE_UNAVAILABLE {
        let later = hyper::header::HeaderValue::from_static("5");
        response
            .headers_mut()
            .insert(hyper::header::RETRY_AFTER, later);
    }
    response
}
