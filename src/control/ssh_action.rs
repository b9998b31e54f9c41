//! `GET /machine/ssh/action/{source}/to/{target}`: an SSH server asks whether to accept a connection that
//! needs approval (check mode).
//!
//! The first response makes the server show a URL and ask again; the second one waits for the decision.
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
use hearth_core::keys::MachineKey;
use hearth_core::policy::CheckPeriod;
use hearth_core::state::secret::{NoRandomness, new_auth_id};
use hearth_core::state::snapshot::Snapshot;
use hearth_core::tailcfg::ssh_action::SshAction;

/// Path prefix of these requests.
const PATH: &str = "/machine/ssh/action/";

/// Longest local user name, in bytes. Linux allows 32.
const USER_BYTES: usize = 64;

/// Responds with the action of the SSH server.
pub async fn action(context: &ControlContext, peer: Peer, request: &Parts) -> Response<Body> {
    let Some((source, target)) = nodes(request.uri.path()) else {
        return body::text(StatusCode::BAD_REQUEST, "expected two node ids");
    };
    let snapshot = context.engine.snapshot();
    // The SSH server asks about itself: no other machine may start, or wait for, a check for it. The same answer if there
    // is no such node: which ones exist is nobody's business. A source that does not exist, or that the target does not
    // see, has no check in the policy.
    if !is_of_machine(&snapshot, target, &peer.machine) {
        let fault = "machine key does not match the target node";
        return body::text(StatusCode::UNAUTHORIZED, fault);
    }
    let query = request.uri.query();
    let local_user = query::value(query, "local_user");
    if local_user.len() > USER_BYTES {
        return body::text(StatusCode::BAD_REQUEST, "local user name is too long");
    }
    let attempt = SshAttempt {
        source,
        target,
        local_user: local_user.into(),
    };
    // The check period comes from the policy, since the client could change its own.
    let period = period(&snapshot, &attempt);
    let names = [source, target].map(|id| snapshot.name_with_id(id));
    drop(snapshot);
    let checking = SshActions {
        checks: &context.ssh_checks,
        shutdown: &context.shutdown,
        server_url: &context.server_url.to_string(),
        names: &names,
    };
    let waiting = query::value(query, "auth_id");
    match checking.action(attempt, period, &waiting).await {
        Ok(action) => body::json(StatusCode::OK, &action),
        Err(fault) => body::text(fault.status(), &fault.to_string()),
    }
}

fn is_of_machine(snapshot: &Snapshot, node: NodeId, machine: &MachineKey) -> bool {
    let node = snapshot.node(node);
    node.is_some_and(|node| node.machine == *machine)
}

/// Check period of a connection; zero approves that connection only. `None` when the policy has no
/// check for it.
fn period(snapshot: &Snapshot, attempt: &SshAttempt) -> Option<Duration> {
    let compiled = snapshot.compiled();
    let period = compiled.ssh_check(attempt.source, attempt.target, &attempt.local_user)?;
    Some(match period {
        CheckPeriod::Always => Duration::ZERO,
        CheckPeriod::Every(time) => time,
    })
}

fn nodes(path: &str) -> Option<(NodeId, NodeId)> {
    let (source, target) = path.strip_prefix(PATH)?.split_once("/to/")?;
    Some((source.parse().ok()?, target.parse().ok()?))
}

/// Why a check could not be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum SshActionError {
    #[error("invalid auth_id")]
    Id,
    #[error("auth_id belongs to another connection")]
    OtherConnection,
    #[error("hearth is shutting down")]
    Shutdown,
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
}

impl SshActionError {
    fn status(self) -> StatusCode {
        match self {
            Self::Id => StatusCode::BAD_REQUEST,
            Self::OtherConnection => StatusCode::UNAUTHORIZED,
            Self::Shutdown | Self::NoRandomness(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

/// Context of the SSH checks of one target.
struct SshActions<'a> {
    checks: &'a SshChecks,
    shutdown: &'a Shutdown,
    server_url: &'a str,
    /// Names of the source and the target, for the log.
    names: &'a [String; 2],
}

impl SshActions<'_> {
    /// Action for a connection; `waiting` is the ID of its pending check, or empty.
    async fn action(
        &self,
        attempt: SshAttempt,
        period: Option<Duration>,
        waiting: &str,
    ) -> Result<SshAction, SshActionError> {
        let Some(period) = period else {
            let message = "# The policy requires no check for this connection.\r\n";
            return Ok(SshAction::rejected(message));
        };
        if !waiting.is_empty() {
            return self.follow(attempt, waiting).await;
        }
        if self
            .checks
            .is_approved(&attempt, period, system_clock::now())
        {
            return Ok(SshAction::accepted());
        }
        self.hold(attempt)
    }

    /// Starts a check.
    fn hold(&self, attempt: SshAttempt) -> Result<SshAction, SshActionError> {
        let id = new_auth_id()?;
        let action = SshAction {
            message: format!(
                "# This connection needs your approval. Open:\r\n\
                 # {}/ssh/{id}\r\n",
                self.server_url
            ),
            hold_and_delegate: format!(
                "https://unused{PATH}{}/to/{}?local_user={}&auth_id={id}",
                attempt.source,
                attempt.target,
                query::escaped(&attempt.local_user),
            ),
            ..SshAction::default()
        };
        let now = system_clock::now();
        let ([source, target], user) = (self.names, &attempt.local_user);
        if let Some(left_out) = self.checks.is_logged(attempt.target, now) {
            let left_out = (left_out > 0).then_some(left_out);
            let help = "hearth ssh approve --last";
            tracing::info!(
                id = id.short(),
                source,
                target,
                user = &**user,
                help,
                left_out,
                "SSH connection waits for approval"
            );
        }
        self.checks.begin(id, attempt, now);
        Ok(action)
    }

    /// Waits for the decision of a check. An unknown check, for example after a restart, is started again,
    /// because the client would ask for it until it gives up.
    async fn follow(
        &self,
        attempt: SshAttempt,
        waiting: &str,
    ) -> Result<SshAction, SshActionError> {
        let id = waiting.parse().map_err(|_| SshActionError::Id)?;
        match self.checks.find(&id, system_clock::now()) {
            None => return self.hold(attempt),
            Some(known) if known.attempt != attempt => return Err(SshActionError::OtherConnection),
            Some(_) => {}
        }
        let verdict = tokio::select! {
            biased;
            () = self.shutdown.wait() => return Err(SshActionError::Shutdown),
            verdict = self.checks.decided(&id, system_clock::now) => verdict,
        };
        Ok(match verdict {
            Verdict::Approved => SshAction::accepted(),
            Verdict::Rejected | Verdict::Waiting => {
                SshAction::rejected("# This connection was not approved.\r\n")
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
    fn the_check_period_comes_from_the_policy() {
        let (mut world, _) = World::with_user();
        let (source, target) = (world.node_number(1), world.node_number(2));
        world.open_stream(source);
        world.open_stream(target);
        let of = |world: &World, user: &str| {
            let local_user = user.into();
            let attempt = SshAttempt {
                source,
                target,
                local_user,
            };
            period(&world.snapshot(), &attempt)
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

    #[test]
    fn unknown_and_invisible_nodes_look_alike() {
        let (mut world, _) = World::with_user();
        let nodes = [world.node_number(1), world.node_number(2)];
        for node in nodes {
            world.open_stream(node);
        }
        // Nobody sees anybody.
        world.set_policy(r#"{"acls": []}"#);
        let snapshot = world.snapshot();
        let unknown = NodeId::new(99).unwrap();
        let own = MachineKey::from_bytes([2; 32]);
        assert!(is_of_machine(&snapshot, nodes[1], &own));
        for target in [nodes[0], unknown] {
            assert!(!is_of_machine(&snapshot, target, &own), "{target}");
        }
        let period = |source| {
            let attempt = SshAttempt {
                source,
                target: nodes[1],
                local_user: "root".into(),
            };
            period(&snapshot, &attempt)
        };
        assert_eq!((period(unknown), period(nodes[0])), (None, None));
    }

    fn attempt(local_user: &str) -> SshAttempt {
        SshAttempt {
            source: NodeId::new(3).unwrap(),
            target: NodeId::new(12).unwrap(),
            local_user: local_user.into(),
        }
    }

    /// What the client does with the URL of its next request.
    fn asked_next(action: &SshAction) -> (SshAttempt, String) {
        let uri: hyper::Uri = action.hold_and_delegate.parse().unwrap();
        let (source, target) = nodes(uri.path()).unwrap();
        let attempt = SshAttempt {
            source,
            target,
            local_user: query::value(uri.query(), "local_user").into(),
        };
        (attempt, query::value(uri.query(), "auth_id"))
    }

    #[tokio::test]
    async fn a_connection_waits_for_its_decision_and_the_next_one_does_not() {
        let (checks, shutdown) = (SshChecks::new(8), Shutdown::new());
        let checking = SshActions {
            checks: &checks,
            shutdown: &shutdown,
            server_url: "http://192.168.1.1:8080",
            names: &[String::new(), String::new()],
        };
        // A name that would break the URL if it were not escaped.
        let root = attempt("$LOCAL_USER&x");
        let held = checking.action(root.clone(), HOUR, "").await.unwrap();
        let (same, id) = asked_next(&held);
        assert_eq!(same, root);
        assert!(!held.hold_and_delegate.contains('$'));
        assert!(
            held.message
                .contains(&format!("http://192.168.1.1:8080/ssh/{id}\r\n"))
        );

        let other = checking.action(attempt("anna"), HOUR, &id).await;
        assert_eq!(other, Err(SshActionError::OtherConnection));
        let broken = checking.action(root.clone(), HOUR, "../x").await;
        assert_eq!(broken, Err(SshActionError::Id));

        let decide = async {
            let id: AuthId = id.parse().unwrap();
            checks.decide(&id, true, system_clock::now()).unwrap();
        };
        let (followed, ()) = tokio::join!(checking.action(root.clone(), HOUR, &id), decide);
        assert_eq!(followed, Ok(SshAction::accepted()));
        let next = checking.action(root.clone(), HOUR, "").await;
        assert_eq!(next, Ok(SshAction::accepted()));
        // With a check for each connection, an earlier approval does not count.
        let always = checking
            .action(root.clone(), Some(Duration::ZERO), "")
            .await;
        assert!(!always.unwrap().hold_and_delegate.is_empty());
        let none = checking.action(root, None, "").await.unwrap();
        assert!(none.reject && !none.accept);
    }

    #[tokio::test]
    async fn a_rejection_is_final_and_an_unknown_check_starts_again() {
        let (checks, shutdown) = (SshChecks::new(8), Shutdown::new());
        let checking = SshActions {
            checks: &checks,
            shutdown: &shutdown,
            server_url: "http://h",
            names: &[String::new(), String::new()],
        };
        let held = checking.action(attempt("root"), HOUR, "").await.unwrap();
        let (_, id) = asked_next(&held);
        checks
            .decide(&id.parse().unwrap(), false, system_clock::now())
            .unwrap();
        let followed = checking.action(attempt("root"), HOUR, &id).await.unwrap();
        assert!(followed.reject && !followed.accept && followed.hold_and_delegate.is_empty());
        let lost = checking
            .action(attempt("root"), HOUR, "lost")
            .await
            .unwrap();
        let (_, id) = asked_next(&lost);
        shutdown.trigger();
        let stopped = checking.action(attempt("root"), HOUR, &id).await;
        assert_eq!(stopped, Err(SshActionError::Shutdown));
    }
}
