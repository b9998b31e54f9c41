//! `c2n` and `whoami`: replies of nodes to requests, and the identity of the client.

use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};

use crate::control::c2n::calls::ReplyChannel;
use crate::control::c2n::request::ANSWERS;
use crate::control::context::ControlContext;
use crate::control::ts2021::Peer;
use crate::net::body;
use crate::net::body::Body;
use hearth_core::netmap::owner_profile;

/// `POST /machine/c2n/<call>`. Only the machine of the request may reply, and only while the call is pending.
pub async fn answer(
    context: &ControlContext,
    peer: Peer,
    request: Request<Incoming>,
) -> Response<Body> {
    let path = request.uri().path();
    let call = path.strip_prefix(ANSWERS).unwrap_or_default();
    // Claimed before the body is read, so unexpected replies take no memory.
    let Some(claim) = context
        .calls
        .pending
        .claim(call, ReplyChannel::Noise(peer.machine))
    else {
        return nobody();
    };
    let (most, patience) = (claim.answer_bytes(), context.limits.request_timeout);
    match body::read_limited(request.into_body(), most, patience).await {
        Ok(answer) => match claim.give(answer) {
            true => body::status(StatusCode::NO_CONTENT),
            false => nobody(),
        },
        Err(fault) => body::text(fault.status(), &fault.to_string()),
    }
}

fn nobody() -> Response<Body> {
    body::text(
        StatusCode::NOT_FOUND,
        "no request is waiting for this reply",
    )
}

/// `GET /machine/whoami`: plain text for people.
pub fn whoami(context: &ControlContext, peer: Peer) -> Response<Body> {
    let snapshot = context.engine.snapshot();
    let mut text = format!("machine {}", peer.machine);
    for node in snapshot.nodes_of_machine(&peer.machine) {
        let owner = owner_profile(&snapshot, &node.owner).login_name;
        text.push_str(&format!("\nnode {} {} of {owner}", node.id, node.label));
    }
    body::text(StatusCode::OK, &text)
}
