//! The journal: one log line for each event, and for registrations that are refused.
//!
//! What strangers can cause is rate-limited, and so is what nodes change about themselves over and over: neither may
//! flood the log or push the rest out of the audit log. Each node and each preauth key has a share of its own, so that
//! none hides what others do.

use std::sync::Arc;
use std::time::Duration;

use hearth_shares::{Buckets, TokenBucket};

use hearth_core::clock::Now;
use hearth_core::state::command::{Command, PresentedKey, Rejected};
use hearth_core::state::event::{Action, ActorKind, Event, TargetKind};
use hearth_core::state::model::Hostinfo;

/// Registrations by strangers that are logged: 16 at once, then one in 10 s.
const STRANGERS: (u32, Duration) = (16, Duration::from_secs(10));
/// Registrations that end without a decision and are logged, and ephemeral nodes that leave and are logged and audited:
/// 64 at once, then one a minute.
const ENDED: (u32, Duration) = (64, Duration::from_secs(60));
/// Changes by one node that are logged and audited: 64 at once, then one in 10 min.
const NODE: (u32, Duration) = (64, Duration::from_secs(600));
/// Interval at which nodes that join with one preauth key are logged and audited, once as many have joined as there may
/// be nodes.
const KEY_INTERVAL: Duration = Duration::from_secs(60);
/// Most nodes, and most keys, that have a share of their own; all others have one together.
const SHARES_MAX: usize = 256;

/// Decides what is logged.
pub(super) struct Journal {
    requested: TokenBucket,
    refused: TokenBucket,
    ended: TokenBucket,
    nodes: Buckets<Box<str>>,
    keys: Buckets<Box<str>>,
    /// Events that were not kept since the last one that was.
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
    /// A journal for a tailnet of at most `max_nodes`.
    pub(super) fn new(max_nodes: usize) -> Self {
        let joins = u32::try_from(max_nodes).unwrap_or(u32::MAX);
        Self {
            requested: TokenBucket::new(STRANGERS.0, STRANGERS.1),
            refused: TokenBucket::new(STRANGERS.0, STRANGERS.1),
            ended: TokenBucket::new(ENDED.0, ENDED.1),
            nodes: Buckets::new(NODE.0, NODE.1, SHARES_MAX),
            keys: Buckets::new(joins, KEY_INTERVAL, SHARES_MAX),
            dropped: 0,
            suppressed: 0,
        }
    }

    /// Whether an event is logged and audited. How many were not is logged with the next one that is.
    pub(super) fn keeps(&mut self, event: &Event, now: Now) -> bool {
        if !self.has_room(event, now) {
            self.dropped = self.dropped.saturating_add(1);
            return false;
        }
        if self.dropped > 0 {
            tracing::warn!(
                events = self.dropped,
                "too many changes by devices; some were neither logged nor audited"
            );
            self.dropped = 0;
        }
        true
    }

    fn has_room(&mut self, event: &Event, now: Now) -> bool {
        let is_by_person = !matches!(
            event.actor.kind,
            ActorKind::Node | ActorKind::Device | ActorKind::System
        );
        let (target, now) = (&event.target, now.mono);
        match (target.kind, event.action) {
            (TargetKind::Registration, Action::Request) => self.requested.take(now),
            (TargetKind::Registration, Action::Expire) => self.ended.take(now),
            (TargetKind::Node, _) if is_by_person => true,
            // The details are the key with which it joined.
            (TargetKind::Node, Action::Create) => self.keys.take(event.values.details.clone(), now),
            // A deleted ephemeral node joins again with another id, and so another share.
            (TargetKind::Node, Action::Logout | Action::Delete)
                if !event.values.details.is_empty() =>
            {
                self.ended.take(now)
            }
            (TargetKind::Node, _) => self.nodes.take(target.id.clone(), now),
            _ => true,
        }
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
    use hearth_core::state::command::RequestedExpiry;
    use hearth_core::state::testing::{World, plain, with_key};

    const MAX_NODES: usize = 100;

    #[test]
    fn strangers_and_restless_nodes_are_limited_and_nobody_else() {
        let (mut world, _) = World::with_user();
        world.preauth_key("k", |key| key.reusable = true);
        world.join(with_key(1, 1, "k"));
        world.join(with_key(1, 2, "k"));
        world.register(plain(9, 9)).unwrap();
        let kept = |summary: &str| {
            let mut journal = Journal::new(MAX_NODES);
            let mut events = world.events.iter();
            let event = events.find(|event| event.summary() == summary).unwrap();
            (0..100).filter(|_| journal.keeps(event, world.now)).count()
        };
        assert_eq!(kept("registration requested"), 16);
        assert_eq!(kept("node logged in"), 64);
        assert_eq!(kept("node joined"), 100);
        assert_eq!(kept("user created"), 100);
    }

    /// A device with a reusable key joins and leaves in a circle, with another node key each time.
    #[test]
    fn no_circle_of_logins_floods_the_log() {
        for ephemeral in [false, true] {
            let (mut world, _) = World::with_user();
            world.preauth_key("k", |key| {
                key.reusable = true;
                key.ephemeral = ephemeral;
            });
            for round in 0..8 {
                world.join(with_key(1, round, "k"));
                let mut leaving = plain(1, round);
                leaving.expiry = RequestedExpiry::Logout;
                world.register(leaving).unwrap();
            }
            let mut journal = Journal::new(MAX_NODES);
            let events: Vec<&Event> = world
                .events
                .iter()
                .filter(|event| is_circle(event))
                .collect();
            assert_eq!(events.len(), 16);
            let circles = events.iter().cycle().take(100_000);
            let kept = circles
                .filter(|event| journal.keeps(event, world.now))
                .count();
            assert!(kept <= 8 * 64 + MAX_NODES, "{kept}");
        }
    }

    fn is_circle(event: &Event) -> bool {
        let actions = [Action::Create, Action::Login, Action::Logout];
        event.actor.kind == ActorKind::Node && actions.contains(&event.action)
    }

    #[test]
    fn a_restless_node_hides_no_other_node() {
        let (mut world, _) = World::with_user();
        world.preauth_key("k", |key| key.reusable = true);
        for machine in 1..=2 {
            world.join(with_key(machine, machine, "k"));
            world.join(with_key(machine, machine + 10, "k"));
        }
        let mut journal = Journal::new(MAX_NODES);
        let events = world.events.iter();
        let logins: Vec<&Event> = events
            .filter(|event| event.action == Action::Login)
            .collect();
        assert_eq!(logins.len(), 2);
        while journal.keeps(logins[0], world.now) {}
        assert!(journal.keeps(logins[1], world.now));
    }

    #[test]
    fn refusals_beyond_the_limit_are_counted_and_not_logged() {
        let world = World::new();
        let mut journal = Journal::new(MAX_NODES);
        let command = Command::Register(Box::new(with_key(1, 1, "wrong")));
        let device = Applicant::of(&command).unwrap();
        for _ in 0..20 {
            journal.refused(&device, &Rejected::UnknownPreAuthKey, world.now);
        }
        assert_eq!(journal.suppressed, 4);
    }
}
