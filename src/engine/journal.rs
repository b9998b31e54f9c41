//! The journal: one log line for each event, and for registrations that are refused.
//!
//! What strangers can cause is rate-limited, and so is what nodes change about themselves over and over: neither may
//! flood the log or push the rest out of the audit log.

use std::sync::Arc;
use std::time::Duration;

use hearth_derp::bucket::TokenBucket;

use hearth_core::clock::Now;
use hearth_core::state::command::{Command, PresentedKey, Rejected};
use hearth_core::state::event::{Action, ActorKind, Event, TargetKind};
use hearth_core::state::model::Hostinfo;

/// Registrations by strangers that are logged: 16 at once, then one in 10 s.
const STRANGERS: (u32, Duration) = (16, Duration::from_secs(10));
/// Changes by nodes that are logged and audited: 64 at once, then one a minute.
const NODES: (u32, Duration) = (64, Duration::from_secs(60));
/// Joins, logouts and ends of nodes that are logged and audited: 128 at once, then one in 10 s.
const LIFECYCLE: (u32, Duration) = (128, Duration::from_secs(10));

/// Decides what is logged.
pub(super) struct Journal {
    requested: TokenBucket,
    refused: TokenBucket,
    nodes: TokenBucket,
    lifecycle: TokenBucket,
    /// Events of nodes that were not kept since the last one that was.
    dropped: u32,
    /// Refusals that were not logged since the last one that was.
    suppressed: u32,
}

/// A device whose registration may be refused.
pub(super) struct Applicant {
    hostinfo: Arc<Hostinfo>,
    /// The public part of the preauth key.
    prefix: Option<Box<str>>,
}

impl Applicant {
    /// The device that sends a command, where it is a registration.
    pub(super) fn of(command: &Command) -> Option<Self> {
        let Command::Register(request) = command else {
            return None;
        };
        let prefix = match &request.auth_key {
            Some(PresentedKey::WellFormed { prefix, .. }) => Some(prefix.clone()),
            Some(PresentedKey::Malformed) | None => None,
        };
        Some(Self {
            hostinfo: request.hostinfo.clone(),
            prefix,
        })
    }
}

impl Journal {
    pub(super) fn new() -> Self {
        Self {
            requested: TokenBucket::new(STRANGERS.0, STRANGERS.1),
            refused: TokenBucket::new(STRANGERS.0, STRANGERS.1),
            nodes: TokenBucket::new(NODES.0, NODES.1),
            lifecycle: TokenBucket::new(LIFECYCLE.0, LIFECYCLE.1),
            dropped: 0,
            suppressed: 0,
        }
    }

    /// Whether an event is logged and audited.
    pub(super) fn keeps(&mut self, event: &Event, now: Now) -> bool {
        let is_node = event.target.kind == TargetKind::Node;
        let bucket = match (event.action, event.actor.kind) {
            (Action::Request, _) => return self.requested.take(now.mono),
            (Action::Update | Action::Login, ActorKind::Node) => &mut self.nodes,
            // With a reusable key a device can join and leave over and over, or log out and in again.
            (Action::Create | Action::Logout | Action::Expire, ActorKind::Node) if is_node => {
                &mut self.lifecycle
            }
            (Action::Delete | Action::Expire, ActorKind::System) if is_node => &mut self.lifecycle,
            _ => return true,
        };
        if !bucket.take(now.mono) {
            self.dropped = self.dropped.saturating_add(1);
            return false;
        }
        if self.dropped > 0 {
            tracing::warn!(
                events = self.dropped,
                "too many changes by nodes; some were neither logged nor audited"
            );
            self.dropped = 0;
        }
        true
    }

    /// Logs a registration that was refused, with the command that helps. A person's rejection is an event of its own.
    pub(super) fn refused(&mut self, device: &Applicant, rejected: &Rejected, now: Now) {
        if *rejected == Rejected::LoginRejected {
            return;
        }
        if !self.refused.take(now.mono) {
            self.suppressed = self.suppressed.saturating_add(1);
            return;
        }
        let help = match rejected {
            Rejected::UnknownPreAuthKey
            | Rejected::PreAuthKeyExpired
            | Rejected::PreAuthKeyUsed => Some("hearth preauthkeys create --user USER"),
            _ => None,
        };
        tracing::warn!(
            device = &*device.hostinfo.hostname,
            key = device.prefix.as_deref(),
            reason = %rejected,
            help,
            suppressed = (self.suppressed > 0).then_some(self.suppressed),
            "registration refused"
        );
        self.suppressed = 0;
    }
}

/// Logs an event.
pub(super) fn log(event: &Event) {
    let (target, values) = (&event.target, &event.values);
    let named = |kind| (target.kind == kind).then_some(&*target.name);
    let text = |text| Some(text).filter(|text: &&str| !text.is_empty());
    let (new, details) = (text(&values.new), text(&values.details));
    let is_join = target.kind == TargetKind::Node
        && matches!(event.action, Action::Create | Action::Login)
        && event.actor.kind == ActorKind::Node;
    let is_policy = target.kind == TargetKind::Policy;
    let gives_owner = matches!(target.kind, TargetKind::Node | TargetKind::Registration)
        && matches!(
            event.action,
            Action::Create | Action::Login | Action::Approve
        )
        || target.kind == TargetKind::PreAuthKey;
    let key = named(TargetKind::PreAuthKey)
        .or(named(TargetKind::ApiKey))
        .or(details.filter(|_| is_join));
    tracing::info!(
        node = named(TargetKind::Node).map(display),
        user = named(TargetKind::User).map(display),
        key = key.map(display),
        device = named(TargetKind::Registration),
        id = named(TargetKind::Registration).map(|_| display(&target.id)),
        record = named(TargetKind::DnsRecord).map(display),
        version = new.filter(|_| is_policy).map(display),
        owner = new.filter(|_| gives_owner).map(display),
        from = text(&values.old),
        to = new.filter(|_| !is_policy && !gives_owner),
        details = details.filter(|_| !is_join),
        by = event.actor.to_string(),
        help = (event.action == Action::Request).then_some("hearth pending list"),
        "{}",
        event.summary()
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use hearth_core::state::command::{Register, RequestedExpiry};
    use hearth_core::state::testing::{World, plain, with_key};

    #[test]
    fn strangers_and_restless_nodes_are_limited_and_nobody_else() {
        let (mut world, _) = World::with_user();
        world.preauth_key("k", |key| key.reusable = true);
        world.join(with_key(1, 1, "k"));
        world.join(with_key(1, 2, "k"));
        world.register(plain(9, 9)).unwrap();
        let kept = |summary: &str| {
            let mut journal = Journal::new();
            let mut events = world.events.iter();
            let event = events.find(|event| event.summary() == summary).unwrap();
            (0..100).filter(|_| journal.keeps(event, world.now)).count()
        };
        assert_eq!(kept("registration requested"), 16);
        assert_eq!(kept("node logged in"), 64);
        assert_eq!(kept("node joined"), 100);
        assert_eq!(kept("user created"), 100);
    }

    #[test]
    fn a_device_that_joins_and_leaves_over_and_over_does_not_fill_the_audit_log() {
        let (mut world, _) = World::with_user();
        world.preauth_key("k", |key| {
            key.reusable = true;
            key.ephemeral = true;
        });
        world.events.clear();
        for _ in 0..200 {
            world.join(with_key(1, 1, "k"));
            let leaves = Register {
                expiry: RequestedExpiry::Logout,
                ..plain(1, 1)
            };
            world.register(leaves).unwrap();
        }
        let mut journal = Journal::new();
        let events = &world.events;
        assert_eq!(events.len(), 400, "one join and one logout each time");
        let kept = events
            .iter()
            .filter(|event| journal.keeps(event, world.now));
        assert_eq!(kept.count(), 128);
        assert_eq!(journal.dropped, 272);
    }

    #[test]
    fn refusals_beyond_the_limit_are_counted_and_not_logged() {
        let world = World::new();
        let mut journal = Journal::new();
        let command = Command::Register(Box::new(with_key(1, 1, "wrong")));
        let device = Applicant::of(&command).unwrap();
        for _ in 0..20 {
            journal.refused(&device, &Rejected::UnknownPreAuthKey, world.now);
        }
        assert_eq!(journal.suppressed, 4);
        // A rejection is an event of its own.
        journal.refused(&device, &Rejected::LoginRejected, world.now);
        assert_eq!(journal.suppressed, 4);
    }
}
