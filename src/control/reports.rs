//! What clients report: their health, what was done on them, attributes for postures.

use hyper::{Response, StatusCode};
use serde_json::json;

use crate::control::context::{ControlContext, NoiseRequest};
use crate::control::node_auth::{ask, refused};
use crate::net::body;
use crate::net::body::Body;
use crate::system_clock;
use hearth_core::state::attributes::AttributeValue;
use hearth_core::state::principal::Principal;

/// `POST /machine/update-health`, of clients from before October 2025. They do not look at the answer.
pub async fn health(context: &ControlContext, request: NoiseRequest) -> Response<Body> {
    let (node, request) = match ask(context, &request) {
        Ok(asked) => asked,
        Err(answer) => return answer,
    };
    match request.health() {
        Ok((part, problem)) => {
            context.reports.set_health(node.id, part, problem);
            body::status(StatusCode::NO_CONTENT)
        }
        Err(fault) => body::text(StatusCode::BAD_REQUEST, &fault.to_string()),
    }
}

/// `POST /machine/audit-log`.
pub async fn audit(context: &ControlContext, request: NoiseRequest) -> Response<Body> {
    let (node, request) = match ask(context, &request) {
        Ok(asked) => asked,
        Err(answer) => return answer,
    };
    match request.audit() {
        Ok((action, details)) => {
            note(context, node.id, action, details);
            body::json(StatusCode::OK, &json!({}))
        }
        Err(fault) => body::text(StatusCode::BAD_REQUEST, &fault.to_string()),
    }
}

/// `POST /machine/ssh/notify`, the address for `onRecordingFailure.NotifyURL`: a session could not be
/// recorded. Clients want to hear 201.
pub async fn ssh_event(context: &ControlContext, request: NoiseRequest) -> Response<Body> {
    let (node, request) = match ask(context, &request) {
        Ok(asked) => asked,
        Err(answer) => return answer,
    };
    match request.ssh_event() {
        Ok((event, source, user)) => {
            let event = match event {
                1 => "rejected",
                2 => "terminated",
                _ => "not recorded",
            };
            let details = format!("from node {source} as {user:?}: {event}");
            note(context, node.id, "SSH_RECORDING_FAILED", &details);
            body::status(StatusCode::CREATED)
        }
        Err(fault) => body::text(StatusCode::BAD_REQUEST, &fault.to_string()),
    }
}

fn note(context: &ControlContext, node: hearth_core::id::NodeId, action: &str, details: &str) {
    tracing::info!(%node, action, details, "a node reports");
    let now = system_clock::now().wall;
    context.reports.audit(now, node, action, details);
}

/// What the policy (`nodeAttrs`) gives to nodes that may set their own attributes. Others may not: a
/// posture would let in whoever says of itself what the posture asks for.
const OWN_ATTRIBUTES: &str = "hearth:set-device-attr";

/// `PATCH /machine/set-device-attr`.
pub async fn attributes(context: &ControlContext, request: NoiseRequest) -> Response<Body> {
    let (node, request) = match ask(context, &request) {
        Ok(asked) => asked,
        Err(answer) => return answer,
    };
    let snapshot = context.engine.snapshot();
    let given = snapshot.compiled().attributes(node.id);
    if !given.contains_key(OWN_ATTRIBUTES) {
        let fault = format!(
            "this device may not set its own attributes: an administrator does (hearth nodes attributes), \
             or gives it the attribute {OWN_ATTRIBUTES:?} by the policy's nodeAttrs"
        );
        return body::text(StatusCode::FORBIDDEN, &fault);
    }
    drop(snapshot);
    let updates = match request.attributes() {
        Ok(updates) => updates.into_iter(),
        Err(fault) => return body::text(StatusCode::BAD_REQUEST, &fault.to_string()),
    };
    let updates =
        updates.map(|(name, value)| Some((name.into(), AttributeValue::from_json(value)?)));
    let Some(updates) = updates.collect::<Option<Vec<_>>>() else {
        let fault = "the value of an attribute is a text, a whole number, true, false or null";
        return body::text(StatusCode::BAD_REQUEST, fault);
    };
    let node = node.id;
    let by = Principal::Node { id: node };
    match context.engine.set_attributes(by, node, updates).await {
        Ok(_) => body::json(StatusCode::OK, &json!({})),
        Err(fault) => refused(&fault),
    }
}
