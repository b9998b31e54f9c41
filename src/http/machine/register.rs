//! `POST /machine/register`: joining, waiting for a person, coming back, leaving.

use std::sync::Arc;

use hyper::body::Incoming;
use hyper::header::{HeaderValue, RETRY_AFTER};
use hyper::{Request, Response, StatusCode};

use crate::clock;
use crate::engine::EngineError;
use crate::http::App;
use crate::http::body::{self, Body};
use crate::http::machine::{convert, refused};
use crate::http::ts2021::Peer;
use crate::state::command::{Command, RegisterReply, Rejected, Reply};
use crate::state::model::{AuthId, PendingState};
use crate::state::secret;
use crate::tailcfg::register::{RegisterRequest, RegisterResponse};

/// What a client that came too often waits, in seconds.
const RETRY_SECONDS: &str = "10";

pub(super) async fn register(
    app: &Arc<App>,
    peer: Peer,
    request: Request<Incoming>,
) -> Response<Body> {
    let limits = &app.limits;
    let read = body::read_limited(
        request.into_body(),
        limits.register_body,
        limits.request_timeout,
    );
    let bytes = match read.await {
        Ok(bytes) => bytes,
        Err(fault) => return body::text(fault.status(), &fault.to_string()),
    };
    let request = match RegisterRequest::decode(&bytes) {
        Ok(request) => request,
        Err(fault) => return body::text(StatusCode::BAD_REQUEST, &fault.to_string()),
    };
    if !request.version.is_served() {
        return super::map::too_old(request.version);
    }
    if let Some(answer) = slow_down(app, &peer, &request) {
        return answer;
    }
    if let Some(id) = convert::followup(&request.followup) {
        decided(app, &peer, &id).await;
    }
    let Ok(fresh_id) = secret::new_auth_id() else {
        return body::text(StatusCode::SERVICE_UNAVAILABLE, "no random bytes");
    };
    let command = convert::register(
        request,
        peer.machine,
        fresh_id,
        clock::now(),
        limits.hostinfo,
    );
    answer(
        app,
        app.engine.apply(Command::Register(Box::new(command))).await,
    )
}

/// Refuses strangers that come faster than people do: each of them costs a write to flash, and
/// somebody may be guessing keys. Machines that are known are never refused.
fn slow_down(app: &App, peer: &Peer, request: &RegisterRequest) -> Option<Response<Body>> {
    let snapshot = app.engine.snapshot();
    let ours = |node: &Arc<crate::state::model::Node>| node.machine == peer.machine;
    let known = snapshot.node_by_key(&request.node_key).is_some_and(ours);
    let waits = snapshot
        .pending()
        .values()
        .any(|login| login.machine == peer.machine);
    if known || waits || app.newcomers.take(clock::now().mono) {
        return None;
    }
    let fault = "too many new devices at once; try again in a moment";
    let mut answer = body::text(StatusCode::TOO_MANY_REQUESTS, fault);
    answer
        .headers_mut()
        .insert(RETRY_AFTER, HeaderValue::from_static(RETRY_SECONDS));
    Some(answer)
}

/// Waits until somebody has decided about a login of this machine, or it is no more.
///
/// Ends too when hearth shuts down; when the client goes away the future is dropped.
async fn decided(app: &App, peer: &Peer, id: &AuthId) {
    let mut states = app.engine.watch();
    loop {
        let waits = states
            .borrow_and_update()
            .pending()
            .get(id)
            .is_some_and(|login| {
                login.state == PendingState::Waiting && login.machine == peer.machine
            });
        if !waits {
            return;
        }
        tokio::select! {
            biased;
            () = app.shutdown.wait() => return,
            changed = states.changed() => if changed.is_err() { return },
        }
    }
}

fn answer(app: &App, outcome: Result<Reply, EngineError>) -> Response<Body> {
    let response = match outcome {
        Ok(Reply::Registered(RegisterReply::Welcome(node))) => {
            convert::welcome(&app.engine.snapshot(), &node)
        }
        Ok(Reply::Registered(RegisterReply::NeedsLogin(id))) => RegisterResponse {
            auth_url: app.login_url(&id),
            ..RegisterResponse::default()
        },
        Ok(Reply::Registered(RegisterReply::KeyExpired(node))) => RegisterResponse {
            node_key_expired: true,
            ..node.map_or_else(RegisterResponse::default, |node| {
                convert::welcome(&app.engine.snapshot(), &node)
            })
        },
        Ok(_) => return body::text(StatusCode::INTERNAL_SERVER_ERROR, "internal error"),
        Err(EngineError::Rejected(fault @ Rejected::MachineMismatch)) => {
            return body::text(StatusCode::UNAUTHORIZED, &fault.to_string());
        }
        // The client shows this text to its user.
        Err(EngineError::Rejected(fault)) => RegisterResponse {
            error: fault.to_string(),
            ..RegisterResponse::default()
        },
        Err(fault) => return refused(&fault),
    };
    body::json(StatusCode::OK, &response)
}
