//! Server status, health, and invitations.

use std::net::SocketAddr;
use std::time::Duration;

use hearth_derp::relay::Relay;

use crate::admin::problem::{ApiError, Code};
use crate::admin::v1::{convert, users};
use crate::admin::{ApiCall, ApiResult, json};
use crate::api::{
    CreateInvite, DatabaseFault, FIRST_USER, HealthAnswer, Invite, RelayStatus, Status, parse_flag,
};
use crate::qr;
use crate::status::ssh_checks::Verdict;
use crate::status::{names, policy};
use hearth_core::doctor::public_url::DroppedUpgrade;
use hearth_core::doctor::{ENABLE_FORWARDING, Level};
use hearth_core::id::UserId;
use hearth_core::state::command::{NewPreAuthKey, NewUser, Rejected};
use hearth_core::state::model::{Node, PendingState};
use hearth_core::state::scope::{Area, Scope};

/// Default lifetime of an invitation.
const INVITE_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);

/// Timeout for the reply of the state engine before the server counts as unhealthy.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(10);

impl ApiCall<'_> {
    /// Asks the state engine itself: the published snapshot looks the same while the engine hangs. With the parameter
    /// `alive` a read-only database is healthy, for service managers: no restart repairs a disk.
    pub(crate) async fn health(&self) -> ApiResult {
        let alive = parse_flag(self.query("alive")).unwrap_or(false);
        let answer = self.admin.engine.answers();
        if !matches!(
            tokio::time::timeout(HEALTH_TIMEOUT, answer).await,
            Ok(Ok(()))
        ) {
            return Err(ApiError::new(
                Code::Internal,
                "the state engine does not respond",
            ));
        }
        let snapshot = self.admin.engine.snapshot();
        match snapshot.disk_fault() {
            Some(fault) if !alive => {
                let advice = fault.cause.advice();
                let text = format!("the database is read-only: {fault}. {advice}");
                Err(ApiError::new(Code::Unavailable, text))
            }
            fault => json(&HealthAnswer {
                database_connectivity: fault.is_none(),
            }),
        }
    }

    pub(crate) fn status(&self) -> ApiResult {
        let snapshot = self.admin.engine.snapshot();
        let nodes = snapshot.nodes();
        let waiting = snapshot.pending().values();
        let about = &self.admin.about;
        let trouble = about.policy_status.borrow().trouble(&snapshot);
        let ambiguous = policy::ambiguous_users(&snapshot);
        let opening = about.opening.iter().cloned();
        let warnings = opening.chain(about.warnings.iter().cloned()).chain(trouble);
        let dropped = nodes.iter().filter_map(|node| {
            let text = self.admin.dropped_routes(node.id)?;
            Some(format!("{}: {text}", node.label))
        });
        let forwarding = names::not_forwarding(&snapshot).into_iter().map(|node| {
            format!(
                "{node}: IP forwarding is off, so its approved routes do not work; {ENABLE_FORWARDING}"
            )
        });
        let warnings = warnings
            .chain(ambiguous)
            .chain(self.left_behind(&snapshot))
            .chain(policy::missing_users(&snapshot))
            .chain(forwarding)
            .chain(self.unconfirmed_names(&snapshot))
            .chain(self.taken_names(&snapshot))
            .chain(about.proxies.warning())
            .chain(self.public_url_warnings())
            .chain(about.copies.borrow().warning(self.now.wall))
            .chain(dropped);
        let checks = self.admin.ssh_checks.list(self.now);
        let named = |which: fn(&Node) -> bool| {
            let nodes = nodes.iter().filter(|node| which(node));
            nodes.map(|node| convert::node_name(node)).collect()
        };
        let text = |address: Option<SocketAddr>| address.map(|address| address.to_string());
        json(&Status {
            version: env!("CARGO_PKG_VERSION").into(),
            server_url: about.addresses.server_url.to_string(),
            ready: true,
            http: text(about.addresses.http),
            https: text(about.addresses.https),
            stun: text(about.addresses.stun),
            relay: about.relay.relay.as_ref().map(relay_status),
            base_domain: about.base_domain.clone(),
            board: about.board.clone(),
            uptime_seconds: self.now.mono.as_secs(),
            clock_is_plausible: self.now.is_plausible(),
            database_is_writable: snapshot.disk_fault().is_none(),
            database_fault: snapshot.disk_fault().map(|fault| DatabaseFault {
                cause: fault.cause.word().to_owned(),
                reason: fault.cause.text().to_owned(),
                detail: fault.detail.to_string(),
                since: fault.since,
                advice: fault.cause.advice().to_owned(),
            }),
            revision: snapshot.revision().number(),
            users: snapshot.users().len(),
            nodes: nodes.len(),
            online: nodes.iter().filter(|node| node.is_online()).count(),
            expired: nodes.iter().filter(|node| node.expired).count(),
            pending: waiting
                .filter(|login| login.state == PendingState::Waiting)
                .count(),
            unauthorized: named(|node| !node.authorized),
            waiting_routes: named(|node| node.waiting_routes().next().is_some()),
            waiting_ssh: checks
                .iter()
                .filter(|check| check.verdict == Verdict::Waiting)
                .count(),
            requested_tags: named(|node| !node.tags_without_login().is_empty()),
            policy_version: snapshot
                .policies()
                .last()
                .map(|newest| newest.id.to_string())
                .unwrap_or_default(),
            policy_is_closed: about.policy_status.borrow().is_closed(&snapshot),
            last_backup: about.copies.borrow().last.map(|last| last.to_string()),
            warnings: warnings.collect(),
        })
    }

    /// One line for each problem that clients meet at `server_url`.
    fn public_url_warnings(&self) -> Vec<String> {
        let about = &self.admin.about;
        let findings = about
            .public_url
            .last()
            .map(|check| check.findings(&about.wan.report()));
        let mut titles: Vec<String> = findings
            .into_iter()
            .flatten()
            .filter(|finding| finding.level >= Level::Warning)
            .map(|finding| finding.title)
            .collect();
        let dropped = about.dropped_upgrades.last(self.now);
        titles.extend(dropped.map(|_| DroppedUpgrade::TITLE.to_owned()));
        for title in &mut titles {
            title.push_str("; see `hearth doctor`");
        }
        titles
    }

    pub(crate) async fn invite(&self) -> ApiResult {
        let request: CreateInvite = self.read()?;
        let expiration = request.expiration.as_deref();
        let expiry = convert::expiry(expiration, INVITE_LIFETIME, self.now)?;
        let owner = self.owner_of_invite(&request.user.0).await?;
        let key = self
            .make_preauth_key(|prefix, hash| NewPreAuthKey {
                user: Some(owner),
                tags: Vec::new(),
                reusable: false,
                ephemeral: false,
                preauthorized: true,
                expiry,
                prefix,
                hash,
            })
            .await?;
        let url = &self.admin.about.addresses.server_url;
        let text = key.key;
        let join_url = format!("{url}/join#{text}");
        json(&Invite {
            user: key.user.ok_or(Rejected::NoSuchUser)?,
            expiration: key.expiration,
            command: format!("tailscale login --login-server={url} --auth-key={text}"),
            qr: qr::rows(&join_url).unwrap_or_default(),
            join_url,
            key: text,
        })
    }

    async fn owner_of_invite(&self, who: &str) -> Result<UserId, ApiError> {
        let snapshot = self.admin.engine.snapshot();
        if !who.is_empty() {
            return users::find(&snapshot, who);
        }
        if let Some(user) = users::only(&snapshot)? {
            return Ok(user);
        }
        self.require(Scope::write(Area::Users))?;
        let new = NewUser {
            name: FIRST_USER.into(),
            ..NewUser::default()
        };
        let made = self.admin.engine.create_user(self.by(), new).await?;
        Ok(made.value.id)
    }
}

fn relay_status(relay: &Relay) -> RelayStatus {
    let stats = relay.stats();
    RelayStatus {
        connections: stats.connections,
        packets_received: stats.received.packets,
        packets_sent: stats.sent.packets,
        bytes_sent: stats.sent.bytes,
        packets_dropped: stats.drops.total().packets,
        refused: stats.refused,
    }
}
