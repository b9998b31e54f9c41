//! `GET /machine/ssh/action/{source}/to/{target}`: an SSH server asks whether to let somebody in whom the
//! policy wants confirmed by a person (check mode).
//!
//! The first answer has the server show an address and ask again; the second waits for the decision.
//! Source: `SSHActionHandler` in headscale `hscontrol/noise.go`; `fetchSSHAction` in tailscale
//! `ssh/tailssh/tailssh.go`.

use std::time::Duration;

use hyper::http::request::Parts;
use hyper::{Response, StatusCode};

use crate::control::context::ControlContext;
use crate::control::ts2021::Peer;
use crate::net::body::Body;
use crate::net::{body, query};
use crate::shutdown::Shutdown;
use crate::status::ssh_checks::{SshAttempt, SshChecks, Verdict};
use crate::system_clock;
use hearth_core::id::NodeId;
use hearth_core::policy::CheckPeriod;
use hearth_core::state::secret::{NoRandomness, new_auth_id};
use hearth_core::state::snapshot::Snapshot;
use hearth_core::tailcfg::ssh_action::SshAction;

/// What paths of this request begin with.
const PATH: &str = "/machine/ssh/action/";

/// Longest name of a local user, in bytes. Linux has 32.
const USER_BYTES: usize = 64;

/// Answers with what the SSH server is to do.
pub async fn action(context: &ControlContext, peer: Peer, request: &Parts) -> Response<Body> {
    let Some((source, target)) = nodes(request.uri.path()) else {
        return body::text(StatusCode::BAD_REQUEST, "expected two node ids");
    };
    let snapshot = context.engine.snapshot();
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
    let way = SshAttempt {
        source,
        target,
        local_user: local_user.into(),
    };
    // The period is the policy's: what the client says of it, the client could change.
    let period = period(&snapshot, &way);
    drop(snapshot);
    let checking = Checking {
        checks: &context.ssh_checks,
        shutdown: &context.shutdown,
        server_url: &context.server_url,
    };
    let waiting = query::value(query, "auth_id");
    match checking.action(way, period, &waiting).await {
        Ok(action) => body::json(StatusCode::OK, &action),
        Err(fault) => body::text(fault.status(), &fault.to_string()),
    }
}

/// How long a confirmation of a connection counts; zero is for that connection only. `None` where the policy
/// asks for none.
fn period(snapshot: &Snapshot, way: &SshAttempt) -> Option<Duration> {
    let compiled = snapshot.compiled();
    let period = compiled.ssh_check(way.source, way.target, &way.local_user)?;
    Some(match period {
        CheckPeriod::Always => Duration::ZERO,
        CheckPeriod::Every(time) => time,
    })
}

fn nodes(path: &str) -> Option<(NodeId, NodeId)> {
    let (source, target) = path.strip_prefix(PATH)?.split_once("/to/")?;
    Some((source.parse().ok()?, target.parse().ok()?))
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum Fault {
    #[error("invalid auth_id")]
    Id,
    #[error("auth_id belongs to another connection")]
    OtherConnection,
    #[error("hearth is shutting down")]
    Shutdown,
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
}

impl Fault {
    fn status(self) -> StatusCode {
        match self {
            Self::Id => StatusCode::BAD_REQUEST,
            Self::OtherConnection => StatusCode::UNAUTHORIZED,
            Self::Shutdown | Self::NoRandomness(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

/// What the decision about a connection needs.
struct Checking<'a> {
    checks: &'a SshChecks,
    shutdown: &'a Shutdown,
    server_url: &'a str,
}

impl Checking<'_> {
    /// What becomes of a connection; `waiting` is the id under which it waits already, or empty.
    async fn action(
        &self,
        way: SshAttempt,
        period: Option<Duration>,
        waiting: &str,
    ) -> Result<SshAction, Fault> {
        let Some(period) = period else {
            let message = "# The policy has no check for this connection.\r\n";
            return Ok(SshAction::rejected(message));
        };
        if !waiting.is_empty() {
            return self.follow(way, waiting).await;
        }
        if self.checks.is_approved(&way, period, system_clock::now()) {
            return Ok(SshAction::accepted());
        }
        self.hold(way)
    }

    /// Has the connection wait for a person.
    fn hold(&self, way: SshAttempt) -> Result<SshAction, Fault> {
        let id = new_auth_id()?;
        let action = SshAction {
            message: format!(
                "# This connection has to be confirmed by the owner of the network.\r\n\
                 # Its page: {}/ssh/{id}\r\n",
                self.server_url
            ),
            hold_and_delegate: format!(
                "https://unused{PATH}{}/to/{}?local_user={}&auth_id={id}",
                way.source,
                way.target,
                query::escaped(&way.local_user),
            ),
            ..SshAction::default()
        };
        let (source, target, user) = (way.source, way.target, &way.local_user);
        tracing::info!(%id, %source, %target, %user, "an SSH connection waits to be confirmed");
        self.checks.begin(id, way, system_clock::now());
        Ok(action)
    }

    /// Waits for the decision about a connection. One that is not known, after a restart perhaps, begins
    /// anew: the client would ask for it until it gives up.
    async fn follow(&self, way: SshAttempt, waiting: &str) -> Result<SshAction, Fault> {
        let id = waiting.parse().map_err(|_| Fault::Id)?;
        match self.checks.find(&id, system_clock::now()) {
            None => return self.hold(way),
            Some(known) if known.way != way => return Err(Fault::OtherConnection),
            Some(_) => {}
        }
        let verdict = tokio::select! {
            biased;
            () = self.shutdown.wait() => return Err(Fault::Shutdown),
            verdict = self.checks.decided(&id, system_clock::now) => verdict,
        };
        Ok(match verdict {
            Verdict::Approved => SshAction::accepted(),
            Verdict::Rejected | Verdict::Waiting => {
                SshAction::rejected("# The connection was not confirmed.\r\n")
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hearth_core::id::AuthId;
    use hearth_core::state::testing::World;

    const HOUR: Option<Duration> = Some(Duration::from_secs(3600));

    #[test]
    fn the_path_names_two_nodes() {
        let ids =
            |path: &str| nodes(path).map(|(source, target)| (source.number(), target.number()));
        assert_eq!(ids("/machine/ssh/action/3/to/12"), Some((3, 12)));
        for bad in ["3/to/", "3/12", "0/to/1", "a/to/b", "$SRC_NODE_ID/to/2"] {
            assert_eq!(ids(&format!("{PATH}{bad}")), None, "{bad}");
        }
    }

    #[test]
    fn how_long_a_confirmation_counts_is_the_policys() {
        let (mut world, _) = World::with_user();
        let (source, target) = (world.node_number(1), world.node_number(2));
        world.open_stream(source);
        world.open_stream(target);
        let of = |world: &World, user: &str| {
            let local_user = user.into();
            let way = SshAttempt {
                source,
                target,
                local_user,
            };
            period(&world.snapshot(), &way)
        };
        assert_eq!(of(&world, "root"), None);
        let rule = |period: &str| {
            format!(
                r#"{{"ssh": [{{"action": "check", "src": ["autogroup:member"], "dst": ["autogroup:self"],
                "users": ["root"], "checkPeriod": {period:?}}}]}}"#
            )
        };
        world.set_policy(&rule("1h"));
        assert_eq!((of(&world, "root"), of(&world, "anna")), (HOUR, None));
        world.set_policy(&rule("always"));
        assert_eq!(of(&world, "root"), Some(Duration::ZERO));
    }

    fn way(local_user: &str) -> SshAttempt {
        SshAttempt {
            source: NodeId::new(3).unwrap(),
            target: NodeId::new(12).unwrap(),
            local_user: local_user.into(),
        }
    }

    /// What the client would do with the URL that it is to ask next.
    fn asked_next(action: &SshAction) -> (SshAttempt, String) {
        let uri: hyper::Uri = action.hold_and_delegate.parse().unwrap();
        let (source, target) = nodes(uri.path()).unwrap();
        let way = SshAttempt {
            source,
            target,
            local_user: query::value(uri.query(), "local_user").into(),
        };
        (way, query::value(uri.query(), "auth_id"))
    }

    #[tokio::test]
    async fn a_connection_waits_for_its_decision_and_the_next_one_does_not() {
        let (checks, shutdown) = (SshChecks::new(8), Shutdown::new());
        let checking = Checking {
            checks: &checks,
            shutdown: &shutdown,
            server_url: "http://192.168.1.1:8080",
        };
        // A name that the client would otherwise put another value for.
        let root = way("$LOCAL_USER&x");
        let held = checking.action(root.clone(), HOUR, "").await.unwrap();
        let (same, id) = asked_next(&held);
        assert_eq!(same, root);
        assert!(!held.hold_and_delegate.contains('$'));
        assert!(
            held.message
                .contains(&format!("http://192.168.1.1:8080/ssh/{id}\r\n"))
        );

        let other = checking.action(way("anna"), HOUR, &id).await;
        assert_eq!(other, Err(Fault::OtherConnection));
        let broken = checking.action(root.clone(), HOUR, "../x").await;
        assert_eq!(broken, Err(Fault::Id));

        let decide = async {
            let id: AuthId = id.parse().unwrap();
            checks.decide(&id, true, system_clock::now()).unwrap();
        };
        let (followed, ()) = tokio::join!(checking.action(root.clone(), HOUR, &id), decide);
        assert_eq!(followed, Ok(SshAction::accepted()));
        let next = checking.action(root.clone(), HOUR, "").await;
        assert_eq!(next, Ok(SshAction::accepted()));
        // Where each connection is to be checked, an earlier confirmation does not count.
        let always = checking
            .action(root.clone(), Some(Duration::ZERO), "")
            .await;
        assert!(!always.unwrap().hold_and_delegate.is_empty());
        let none = checking.action(root, None, "").await.unwrap();
        assert!(none.reject && !none.accept);
    }

    #[tokio::test]
    async fn no_is_no_and_a_lost_connection_begins_anew() {
        let (checks, shutdown) = (SshChecks::new(8), Shutdown::new());
        let checking = Checking {
            checks: &checks,
            shutdown: &shutdown,
            server_url: "http://h",
        };
        let held = checking.action(way("root"), HOUR, "").await.unwrap();
        let (_, id) = asked_next(&held);
        checks
            .decide(&id.parse().unwrap(), false, system_clock::now())
            .unwrap();
        let followed = checking.action(way("root"), HOUR, &id).await.unwrap();
        assert!(followed.reject && !followed.accept && followed.hold_and_delegate.is_empty());
        let lost = checking.action(way("root"), HOUR, "lost").await.unwrap();
        let (_, id) = asked_next(&lost);
        shutdown.trigger();
        let stopped = checking.action(way("root"), HOUR, &id).await;
        assert_eq!(stopped, Err(Fault::Shutdown));
    }
}
