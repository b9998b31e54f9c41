//! Node authentication: the Noise session proves the machine, the body names the node.

use std::sync::Arc;

use hyper::header::{HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};

use crate::control::context::{ControlContext, NoiseRequest};
use crate::control::ts2021::Peer;
use crate::engine::EngineError;
use crate::net::body;
use crate::net::body::Body;
use hearth_core::keys::NodeKey;
use hearth_core::state::command::Rejected;
use hearth_core::state::model::Node;
use hearth_core::tailcfg::json::DecodeError;
use hearth_core::tailcfg::requests::NodeRequest;

/// Why a node could not be authenticated.
#[derive(Debug, thiserror::Error)]
pub(super) enum NodeAuthError {
    #[error(transparent)]
    Malformed(#[from] DecodeError),
    #[error("missing NodeKey")]
    NoKey,
    #[error("node not found")]
    NoNode,
    #[error("node exists with a different machine key")]
    OtherMachine,
}

impl NodeAuthError {
    /// Response to the client. Source: `getAndValidateNode` in headscale `hscontrol/noise.go`.
    pub(super) fn answer(self) -> Response<Body> {
        let status = match self {
            Self::Malformed(_) | Self::NoKey => StatusCode::BAD_REQUEST,
            Self::NoNode => StatusCode::NOT_FOUND,
            Self::OtherMachine => StatusCode::UNAUTHORIZED,
        };
        body::text(status, &self.to_string())
    }
}

/// The node with this key, if it belongs to this machine; only the Noise session proves the sender.
pub(super) fn node_of(
    context: &ControlContext,
    peer: &Peer,
    key: &NodeKey,
) -> Result<Arc<Node>, NodeAuthError> {
    let snapshot = context.engine.snapshot();
    let node = snapshot.node_by_key(key).ok_or(NodeAuthError::NoNode)?;
    if node.machine != peer.machine {
        return Err(NodeAuthError::OtherMachine);
    }
    Ok(Arc::clone(node))
}

/// Parses a small request and authenticates its node.
pub(super) fn authenticate<'a>(
    context: &ControlContext,
    request: &'a NoiseRequest,
) -> Result<(Arc<Node>, NodeRequest<'a>), NodeAuthError> {
    let decoded = NodeRequest::decode(&request.body)?;
    let key = decoded.node_key.ok_or(NodeAuthError::NoKey)?;
    let node = node_of(context, &request.peer, &key)?;
    Ok((node, decoded))
}

/// `Retry-After` for a device that had too much written, in seconds.
const TOO_OFTEN_SECONDS: &str = "300";

/// Response to a failed command. Clients retry after a while.
pub(super) fn refused(fault: &EngineError) -> Response<Body> {
    let text = fault.to_string();
    match fault {
        EngineError::Rejected(Rejected::TooOften) => too_often(&text, TOO_OFTEN_SECONDS),
        EngineError::Rejected(_) => body::text(StatusCode::BAD_REQUEST, &text),
        EngineError::Busy
        | EngineError::Unavailable(_)
        | EngineError::InDoubt(_)
        | EngineError::Unreadable(_)
        | EngineError::NoCopy(_)
        | EngineError::Stopped => retry_later(StatusCode::SERVICE_UNAVAILABLE, &text, "5"),
    }
}

/// Response to a client that asks too often; it waits so many seconds.
/// Source: `doLogin` in tailscale `control/controlclient/direct.go`.
pub(super) fn too_often(fault: &str, seconds: &'static str) -> Response<Body> {
    retry_later(StatusCode::TOO_MANY_REQUESTS, fault, seconds)
}

fn retry_later(status: StatusCode, fault: &str, seconds: &'static str) -> Response<Body> {
    let mut response = body::text(status, fault);
    let seconds = HeaderValue::from_static(seconds);
    response.headers_mut().insert(RETRY_AFTER, seconds);
    response
}
