//! What clients ask inside the Noise tunnel: requests are decoded here, turned into commands, and the
//! state's answers turned back into the wire's.

use std::sync::Arc;

use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};

use crate::control::c2n::request::ANSWERS;
use crate::control::ts2021::Peer;
use crate::control::{c2n_reply, map, register, reports, ssh_action, unsupported};
use crate::engine::EngineError;
use crate::http::App;
use crate::net::body;
use crate::net::body::Body;
use hearth_core::keys::NodeKey;
use hearth_core::state::model::Node;
use hearth_core::tailcfg::requests::NodeRequest;

/// Body of a small request, in bytes.
pub(super) const SMALL_BODY: usize = 32 * 1024;

/// Answers one request of the client whose Noise session `peer` is.
pub async fn handle(app: Arc<App>, peer: Peer, request: Request<Incoming>) -> Response<Body> {
    // Routing is by path alone: the authority that clients send inside the tunnel means nothing.
    let path = request.uri().path();
    match (request.method(), path) {
        (&Method::POST, "/machine/register") => register::register(&app, peer, request).await,
        (&Method::POST, "/machine/map") => map::map(app, peer, request).await,
        (&Method::POST, _) if path.starts_with(ANSWERS) => {
            c2n_reply::answer(&app, peer, request).await
        }
        (&Method::POST, "/machine/update-health") => reports::health(&app, peer, request).await,
        (&Method::POST, "/machine/audit-log") => reports::audit(&app, peer, request).await,
        (&Method::PATCH, "/machine/set-device-attr") => {
            reports::attributes(&app, peer, request).await
        }
        (&Method::POST, "/machine/feature/query") => {
            unsupported::feature(&app, peer, request).await
        }
        (&Method::POST, "/machine/set-dns") => unsupported::set_dns(&app, peer, request).await,
        (&Method::POST, "/machine/id-token") => unsupported::id_token(&app, peer, request).await,
        (&Method::POST, "/machine/ssh/notify") => reports::ssh_event(&app, peer, request).await,
        (&Method::GET, _) if path.starts_with(ssh_action::PATH) => {
            let (parts, _) = request.into_parts();
            ssh_action::action(&app, peer, &parts).await
        }
        (&Method::GET, "/machine/whoami") => c2n_reply::whoami(&app, peer),
        (_, _) if path.starts_with("/machine/tka/") => unsupported::tailnet_lock(),
        (_, _) if path.starts_with("/machine/webclient/") => unsupported::web_client(),
        (_, _) if is_known(path) => {
            body::text(StatusCode::METHOD_NOT_ALLOWED, "method not allowed")
        }
        _ => body::text(StatusCode::NOT_FOUND, "not found"),
    }
}

/// Whether a path exists, if with another method.
fn is_known(path: &str) -> bool {
    const PATHS: [&str; 11] = [
        "/machine/register",
        "/machine/map",
        "/machine/update-health",
        "/machine/audit-log",
        "/machine/set-device-attr",
        "/machine/feature/query",
        "/machine/set-dns",
        "/machine/id-token",
        "/machine/ssh/notify",
        "/machine/whoami",
        ANSWERS,
    ];
    PATHS.contains(&path) || path.starts_with(ssh_action::PATH) || path.starts_with(ANSWERS)
}

/// Why a request is not believed to come from the node that it names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Stranger {
    #[error("node not found")]
    NoNode,
    #[error("node exists with a different machine key")]
    OtherMachine,
}

impl Stranger {
    /// What the client is told. Source: `getAndValidateNode` in headscale `hscontrol/noise.go`.
    pub(super) fn answer(self) -> Response<Body> {
        let status = match self {
            Self::NoNode => StatusCode::NOT_FOUND,
            Self::OtherMachine => StatusCode::UNAUTHORIZED,
        };
        body::text(status, &self.to_string())
    }
}

/// The node with this key, if it is one of this machine: only the Noise session says who asks.
pub(super) fn node_of(app: &App, peer: &Peer, key: &NodeKey) -> Result<Arc<Node>, Stranger> {
    let snapshot = app.engine.snapshot();
    let node = snapshot.node_by_key(key).ok_or(Stranger::NoNode)?;
    if node.machine != peer.machine {
        return Err(Stranger::OtherMachine);
    }
    Ok(Arc::clone(node))
}

/// Reads a small request, and finds out which node asks.
pub(super) async fn ask(
    app: &App,
    peer: Peer,
    request: Request<Incoming>,
) -> Result<(Arc<Node>, NodeRequest), Response<Body>> {
    let patience = app.limits.request_timeout;
    let bytes = app
        .bodies
        .read(request.into_body(), SMALL_BODY, patience)
        .await;
    let bytes = bytes.map_err(|fault| body::text(fault.status(), &fault.to_string()))?;
    let request = NodeRequest::decode(&bytes)
        .map_err(|fault| body::text(StatusCode::BAD_REQUEST, &fault.to_string()))?;
    let key = request
        .node_key
        .ok_or_else(|| body::text(StatusCode::BAD_REQUEST, "the request names no node"))?;
    let node = node_of(app, &peer, &key).map_err(Stranger::answer)?;
    Ok((node, request))
}

/// The status for a command that did not happen. Clients repeat their request after a while.
pub(super) fn refused(fault: &EngineError) -> Response<Body> {
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
