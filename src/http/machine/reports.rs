//! What clients report: their health, what was done on them, attributes for postures.

use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use serde_json::{Value, json};

use crate::http::App;
use crate::http::body::{self, Body};
use crate::http::machine::{ask, refused};
use crate::http::ts2021::Peer;
use crate::state::attributes::AttributeValue;
use crate::state::command::Command;
use crate::system_clock;

/// `POST /machine/update-health`, of clients from before October 2025. They do not look at the answer.
pub(super) async fn health(app: &App, peer: Peer, request: Request<Incoming>) -> Response<Body> {
    let (node, request) = match ask(app, peer, request).await {
        Ok(asked) => asked,
        Err(answer) => return answer,
    };
    match request.health() {
        Ok((part, problem)) => {
            app.contact.reports.set_health(node.id, part, problem);
            body::status(StatusCode::NO_CONTENT)
        }
        Err(fault) => body::text(StatusCode::BAD_REQUEST, &fault.to_string()),
    }
}

/// `POST /machine/audit-log`.
pub(super) async fn audit(app: &App, peer: Peer, request: Request<Incoming>) -> Response<Body> {
    let (node, request) = match ask(app, peer, request).await {
        Ok(asked) => asked,
        Err(answer) => return answer,
    };
    match request.audit() {
        Ok((action, details)) => {
            note(app, node.id, action, details);
            body::json(StatusCode::OK, &json!({}))
        }
        Err(fault) => body::text(StatusCode::BAD_REQUEST, &fault.to_string()),
    }
}

/// `POST /machine/ssh/notify`, the address for `onRecordingFailure.NotifyURL`: a session could not be
/// recorded. Clients want to hear 201.
pub(super) async fn ssh_event(app: &App, peer: Peer, request: Request<Incoming>) -> Response<Body> {
    let (node, request) = match ask(app, peer, request).await {
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
            note(app, node.id, "SSH_RECORDING_FAILED", &details);
            body::status(StatusCode::CREATED)
        }
        Err(fault) => body::text(StatusCode::BAD_REQUEST, &fault.to_string()),
    }
}

fn note(app: &App, node: crate::id::NodeId, action: &str, details: &str) {
    tracing::info!(%node, action, details, "a node reports");
    let now = system_clock::now().wall;
    app.contact.reports.audit(now, node, action, details);
}

/// What the policy (`nodeAttrs`) gives to nodes that may set their own attributes. Others may not: a
/// posture would let in whoever says of itself what the posture asks for.
const OWN_ATTRIBUTES: &str = "hearth:set-device-attr";

/// `PATCH /machine/set-device-attr`.
pub(super) async fn attributes(
    app: &App,
    peer: Peer,
    request: Request<Incoming>,
) -> Response<Body> {
    let (node, request) = match ask(app, peer, request).await {
        Ok(asked) => asked,
        Err(answer) => return answer,
    };
    let snapshot = app.engine.snapshot();
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
    let updates = updates.map(|(name, value)| Some((name.into(), attribute(value)?)));
    let Some(updates) = updates.collect::<Option<Vec<_>>>() else {
        let fault = "the value of an attribute is a text, a whole number, true, false or null";
        return body::text(StatusCode::BAD_REQUEST, fault);
    };
    let node = node.id;
    match app
        .engine
        .apply(Command::SetAttributes { node, updates })
        .await
    {
        Ok(_) => body::json(StatusCode::OK, &json!({})),
        Err(fault) => refused(&fault),
    }
}

/// A value as the state has it; the inner `None` takes the attribute away, the outer one says that there
/// are no such values.
pub(in crate::http) fn attribute(value: &Value) -> Option<Option<AttributeValue>> {
    match value {
        Value::Null => Some(None),
        Value::Bool(flag) => Some(Some(AttributeValue::Flag(*flag))),
        Value::Number(number) => number.as_i64().map(AttributeValue::Number).map(Some),
        Value::String(text) => Some(Some(AttributeValue::Text(text.as_str().into()))),
        Value::Array(_) | Value::Object(_) => None,
    }
}
