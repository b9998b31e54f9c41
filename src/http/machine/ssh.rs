//! `GET /machine/ssh/action/{source}/to/{target}`: an SSH server asks whether to let somebody in whom the
//! policy wants confirmed by a person (check mode).
//!
//! The first answer has the server show an address and ask again; the second waits for the decision.
//! Source: `SSHActionHandler` in headscale `hscontrol/noise.go`; `fetchSSHAction` in tailscale
//! `ssh/tailssh/tailssh.go`.

use std::time::Duration;

use hyper::http::request::Parts;
use hyper::{Response, StatusCode};

use crate::clock;
use crate::http::App;
use crate::http::body::{self, Body};
use crate::http::contact::ssh_check::{Check, Verdict, Way};
use crate::http::query;
use crate::http::ts2021::Peer;
use crate::id::NodeId;
use crate::state::secret::new_auth_id;
use crate::state::snapshot::Snapshot;
use crate::tailcfg::ssh_action::SshAction;

/// What paths of this request begin with.
pub(super) const PATH: &str = "/machine/ssh/action/";

/// Longest name of a local user, in bytes. Linux has 32.
const USER_BYTES: usize = 64;

/// How long a confirmation of an SSH connection between two nodes, as this local user, counts; zero is for
/// one connection. `None` where the policy asks for none.
pub type CheckPeriod =
    Box<dyn Fn(&Snapshot, NodeId, NodeId, &str) -> Option<Duration> + Send + Sync>;

pub(super) async fn action(app: &App, peer: Peer, request: &Parts) -> Response<Body> {
    let Some((source, target)) = nodes(request.uri.path()) else {
        return body::text(StatusCode::BAD_REQUEST, "expected two node ids");
    };
    let snapshot = app.engine.snapshot();
    // The SSH server asks about itself: nobody else may make, or wait for, a connection to it.
    let Some(node) = snapshot.node(target) else {
        return body::text(StatusCode::NOT_FOUND, "target node not found");
    };
    if node.machine != peer.machine {
        let fault = "machine key does not match the target node";
        return body::text(StatusCode::UNAUTHORIZED, fault);
    }
    if snapshot.node(source).is_none() {
        return body::text(StatusCode::NOT_FOUND, "source node not found");
    }
    let query = request.uri.query();
    let local_user = query::value(query, "local_user");
    if local_user.len() > USER_BYTES {
        return body::text(StatusCode::BAD_REQUEST, "the local user's name is too long");
    }
    let way = Way {
        source,
        target,
        local_user: local_user.into(),
    };
    // The period is the policy's: what the client says of it, the client could change.
    let period = (app.check_period)(&snapshot, source, target, &way.local_user);
    drop(snapshot);
    let Some(period) = period else {
        let action = SshAction::rejected("# The policy has no check for this connection.\r\n");
        return body::json(StatusCode::OK, &action);
    };
    let waiting = query::value(query, "auth_id");
    match waiting.is_empty() {
        true if app
            .contact
            .ssh_checks
            .is_approved(&way, period, clock::now()) =>
        {
            body::json(StatusCode::OK, &SshAction::accepted())
        }
        true => hold(app, way),
        false => follow(app, way, &waiting).await,
    }
}

fn nodes(path: &str) -> Option<(NodeId, NodeId)> {
    let (source, target) = path.strip_prefix(PATH)?.split_once("/to/")?;
    Some((source.parse().ok()?, target.parse().ok()?))
}

/// Has the connection wait for a person.
fn hold(app: &App, way: Way) -> Response<Body> {
    let Ok(id) = new_auth_id() else {
        return body::text(StatusCode::SERVICE_UNAVAILABLE, "no random bytes");
    };
    let url = app.ssh_check_url(&id);
    let action = SshAction {
        message: format!(
            "# This connection has to be confirmed by the owner of the network.\r\n# Its page: {url}\r\n"
        ),
        hold_and_delegate: format!(
            "https://unused{PATH}{}/to/{}?local_user={}&auth_id={id}",
            way.source,
            way.target,
            query::escaped(&way.local_user),
        ),
        ..SshAction::default()
    };
    tracing::info!(%id, source = %way.source, target = %way.target, user = %way.local_user, "an SSH connection waits to be confirmed");
    app.contact.ssh_checks.begin(id, way, clock::now());
    body::json(StatusCode::OK, &action)
}

/// Waits for the decision about a connection. One that is not known, after a restart perhaps, begins anew:
/// the client would ask for it until it gives up.
async fn follow(app: &App, way: Way, id: &str) -> Response<Body> {
    let Ok(id) = id.parse() else {
        return body::text(StatusCode::BAD_REQUEST, "invalid auth_id");
    };
    let checks = &app.contact.ssh_checks;
    match checks.find(&id, clock::now()) {
        None => return hold(app, way),
        Some(Check { way: known, .. }) if known != way => {
            let fault = "auth_id belongs to another connection";
            return body::text(StatusCode::UNAUTHORIZED, fault);
        }
        Some(_) => {}
    }
    let verdict = tokio::select! {
        biased;
        () = app.shutdown.wait() => {
            return body::text(StatusCode::SERVICE_UNAVAILABLE, "hearth is shutting down");
        }
        verdict = checks.decided(&id, clock::now) => verdict,
    };
    let action = match verdict {
        Verdict::Approved => SshAction::accepted(),
        Verdict::Rejected | Verdict::Waiting => {
            SshAction::rejected("# The connection was not confirmed.\r\n")
        }
    };
    body::json(StatusCode::OK, &action)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_names_two_nodes() {
        let ids =
            |path: &str| nodes(path).map(|(source, target)| (source.number(), target.number()));
        assert_eq!(ids("/machine/ssh/action/3/to/12"), Some((3, 12)));
        for bad in ["3/to/", "3/12", "0/to/1", "a/to/b", "$SRC_NODE_ID/to/2"] {
            assert_eq!(ids(&format!("{PATH}{bad}")), None, "{bad}");
        }
    }
}
