//! Client reports: health warnings, audit messages, and device attributes for postures.

use hyper::{Response, StatusCode};
use serde_json::json;

use crate::control::context::{ControlContext, NoiseRequest};
use crate::control::node_auth::{authenticate, refused};
use crate::net::body;
use crate::net::body::Body;
use crate::system_clock;
use hearth_core::state::attributes::AttributeValue;
use hearth_core::state::principal::Principal;

/// `POST /machine/update-health`, from clients before October 2025, which ignore the response.
pub async fn health(context: &ControlContext, request: NoiseRequest) -> Response<Body> {
    let (node, request) = match authenticate(context, &request) {
        Ok(asked) => asked,
        Err(fault) => return fault.answer(),
    };
    match request.health() {
        Ok((part, problem)) => {
            context.reports.set_health(node.id, &part, &problem);
            body::status(StatusCode::NO_CONTENT)
        }
        Err(fault) => body::text(StatusCode::BAD_REQUEST, &fault.to_string()),
    }
}

/// `POST /machine/audit-log`.
pub async fn audit(context: &ControlContext, request: NoiseRequest) -> Response<Body> {
    let (node, request) = match authenticate(context, &request) {
        Ok(asked) => asked,
        Err(fault) => return fault.answer(),
    };
    match request.audit() {
        Ok((action, details)) => {
            log_report(context, node.id, &action, &details);
            body::json(StatusCode::OK, &json!({}))
        }
        Err(fault) => body::text(StatusCode::BAD_REQUEST, &fault.to_string()),
    }
}

/// `POST /machine/ssh/notify`, the URL in `onRecordingFailure.NotifyURL`: an SSH session could not be
/// recorded. Clients expect 201.
pub async fn ssh_event(context: &ControlContext, request: NoiseRequest) -> Response<Body> {
    let (node, request) = match authenticate(context, &request) {
        Ok(asked) => asked,
        Err(fault) => return fault.answer(),
    };
    match request.ssh_event() {
        Ok((event, source, user)) => {
            let event = match event {
                1 => "rejected",
                2 => "terminated",
                _ => "not recorded",
            };
            let details = format!("from node {source} as {user:?}: {event}");
            log_report(context, node.id, "SSH_RECORDING_FAILED", &details);
            body::status(StatusCode::CREATED)
        }
        Err(fault) => body::text(StatusCode::BAD_REQUEST, &fault.to_string()),
    }
}

fn log_report(
    context: &ControlContext,
    node: hearth_core::id::NodeId,
    action: &str,
    details: &str,
) {
    let now = system_clock::now();
    if let Some((report, left_out)) = context.reports.audit(now, node, action, details) {
        let (action, details) = (&*report.action, &*report.details);
        let left_out = (left_out > 0).then_some(left_out);
        tracing::info!(%node, action, details, left_out, "client report");
    }
}

/// Node attribute (`nodeAttrs` in the policy) of nodes that may set their own device attributes. Without it
/// a device could satisfy a posture by its own claim.
const OWN_ATTRIBUTES: &str = "hearth:set-device-attr";

/// `PATCH /machine/set-device-attr`.
pub async fn attributes(context: &ControlContext, request: NoiseRequest) -> Response<Body> {
    let (node, request) = match authenticate(context, &request) {
        Ok(asked) => asked,
        Err(fault) => return fault.answer(),
    };
    let snapshot = context.engine.snapshot();
    let given = snapshot.compiled().attributes(node.id);
    if !given.contains_key(OWN_ATTRIBUTES) {
        let fault = format!(
            "this device may not set its own attributes; set them with hearth nodes attributes, \
             or grant it {OWN_ATTRIBUTES:?} in the nodeAttrs of the policy"
        );
        return body::text(StatusCode::FORBIDDEN, &fault);
    }
    drop(snapshot);
    let updates = match request.attributes() {
        Ok(updates) => updates.into_iter(),
        Err(fault) => return body::text(StatusCode::BAD_REQUEST, &fault.to_string()),
    };
    let updates =
        updates.map(|(name, value)| Some((name.into(), AttributeValue::from_json(&value?)?)));
    let Some(updates) = updates.collect::<Option<Vec<_>>>() else {
        let fault = "the value of an attribute must be a string, an integer, true, false or null";
        return body::text(StatusCode::BAD_REQUEST, fault);
    };
    let node = node.id;
    let by = Principal::Node { id: node };
    match context.engine.set_attributes(by, node, updates).await {
        Ok(_) => body::json(StatusCode::OK, &json!({})),
        Err(fault) => refused(&fault),
    }
}
