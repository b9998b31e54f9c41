//! The journal: one log line for each event, and for registrations that are refused.
//!
//! What strangers can cause is rate-limited, and so is what nodes change about themselves over and over: neither may
//! flood the log or push the rest out of the audit log. Each source of strangers (IPv4 address or IPv6 /48), each node and
//! each preauth key has a share of its own, so that none hides what others do.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hearth_shares::{Buckets, Lines, Source, TokenBucket};

use hearth_core::clock::Now;
use hearth_core::id::NodeId;
use hearth_core::state::command::{Command, PresentedKey, Rejected};
use hearth_core::state::event::{Action, ActorKind, Event, TargetKind};
use hearth_core::state::model::Hostinfo;
use hearth_core::state::tx::Handover;

/// Registrations from one source that are logged, and as many that are refused or that nobody decided in time: 16 at
/// once, then one a minute.
const STRANGER: (u32, Duration) = (16, Duration::from_secs(60));
/// Most sources of strangers that have a share of their own; all others have one together. So strangers cause at most 64
/// lines of each kind a minute.
const SOURCES_MAX: usize = 64;
/// Ephemeral nodes that leave and are logged and audited: 64 at once, then one a minute.
const ENDED: (u32, Duration) = (64, Duration::from_secs(60));
/// Changes by one node that are logged and audited, and as many routes that pass from one router to others and are logged: 64 at
/// once, then one in 10 min.
const NODE: (u32, Duration) = (64, Duration::from_secs(600));
/// Interval at which nodes that join with one preauth key are logged and audited, once as many have joined as there may
/// be nodes.
const KEY_INTERVAL: Duration = Duration::from_secs(60);
/// Most nodes, and most keys, that have a share of their own; all others have one together.
const SHARES_MAX: usize = 256;

/// Decides what is logged.
pub(super) struct Journal {
    requested: Lines<IpAddr>,
    undecided: Lines<IpAddr>,
    refused: Lines<IpAddr>,
    ended: TokenBucket,
    nodes: Buckets<Box<str>>,
    keys: Buckets<Box<str>>,
    /// Events of nodes that were not kept since the last one that was.
    dropped: u32,
    handovers: Lines<NodeId>,
}

/// A device whose registration may be refused.
pub(super) struct Applicant {
    hostinfo: Arc<Hostinfo>,
    source: Source,
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
            source: Source::of(request.source),
            prefix,
        })
    }
}

impl Journal {
    /// A journal for a tailnet of at most `max_nodes`.
    pub(super) fn new(max_nodes: usize) -> Self {
        let joins = u32::try_from(max_nodes).unwrap_or(u32::MAX);
        let strangers = || Lines::new(STRANGER.0, STRANGER.1, SOURCES_MAX);
        Self {
            requested: strangers(),
            undecided: strangers(),
            refused: strangers(),
            ended: TokenBucket::new(ENDED.0, ENDED.1),
            nodes: Buckets::new(NODE.0, NODE.1, SHARES_MAX),
            keys: Buckets::new(joins, KEY_INTERVAL, SHARES_MAX),
            dropped: 0,
            handovers: Lines::new(NODE.0, NODE.1, SHARES_MAX),
        }
    }

    /// Whether an event is logged and audited. How many were not is logged before the next one that is.
    pub(super) fn keeps(&mut self, event: &Event, now: Now) -> bool {
        if let Some(source) = event.source {
            return self.keeps_of_stranger(event, source, now);
        }
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

    /// Whether the pending registration of a stranger is logged.
    fn keeps_of_stranger(&mut self, event: &Event, source: Source, now: Now) -> bool {
        let lines = match event.action {
            Action::Expire => &mut self.undecided,
            _ => &mut self.requested,
        };
        let Some(left_out) = lines.take(source.wide(), now.mono) else {
            return false;
        };
        if left_out > 0 {
            tracing::warn!(
                registrations = left_out,
                help = "hearth pending list",
                "too many pending registrations; some were not logged"
            );
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

    /// Logs which subnet routes have another primary router.
    pub(super) fn handed_over(&mut self, handovers: &[Handover], now: Now) {
        for handover in handovers {
            let Some(left_out) = self.handovers.take(handover.from, now.mono) else {
                continue;
            };
            tracing::info!(
                route = %handover.route,
                from = format!("{} ({})", handover.from_name, handover.from),
                to = format!("{} ({})", handover.to_name, handover.to),
                why = handover.why,
                suppressed = (left_out > 0).then_some(left_out),
                "subnet route has another primary router"
            );
        }
    }

    /// Logs a registration that was refused, with the command that helps. A person's rejection is an event of its own.
    pub(super) fn refused(&mut self, device: &Applicant, rejected: &Rejected, now: Now) {
        if *rejected == Rejected::LoginRejected {
            return;
        }
        let Some(left_out) = self.refused.take(device.source.wide(), now.mono) else {
            return;
        };
        let help = match rejected {
            Rejected::UnknownPreAuthKey
            | Rejected::PreAuthKeyExpired
            | Rejected::PreAuthKeyUsed => Some("hearth invite"),
            Rejected::PrefixesLost => Some("hearth check"),
            _ => None,
        };
        tracing::warn!(
            device = &*device.hostinfo.hostname,
            key = device.prefix.as_deref(),
            reason = %rejected,
            help,
            suppressed = (left_out > 0).then_some(left_out),
            "registration refused"
        );
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
    fn a_restless_router_hides_no_route_of_another() {
        let mut journal = Journal::new(MAX_NODES);
        let [one, other] = [1, 2].map(|id| NodeId::new(id).unwrap());
        let now = World::with_user().0.now.mono;
        while journal.handovers.take(one, now).is_some() {}
        assert_eq!(journal.handovers.take(other, now), Some(1));
    }

    /// Strangers at one address register, are refused and let their registrations expire, over and over.
    #[test]
    fn a_stranger_hides_no_line_of_another() {
        let (mut world, _) = World::with_user();
        let at = |machine: u8, host: u8| {
            let mut request = plain(machine, machine);
            request.source = [198, 51, 100, host].into();
            request
        };
        for machine in 1..=3 {
            world.register(at(machine, 1)).unwrap();
        }
        world.register(at(9, 2)).unwrap();
        world.wait(Duration::from_secs(8 * 24 * 60 * 60));
        let mut journal = Journal::new(MAX_NODES);
        for action in [Action::Request, Action::Expire] {
            let events = world.events.iter();
            let events = events.filter(|event| event.action == action);
            let other = Some(Source::of([198, 51, 100, 2].into()));
            let (other, flood): (Vec<&Event>, Vec<&Event>) =
                events.partition(|event| event.source == other);
            assert_eq!((other.len(), flood.len()), (1, 3), "{action:?}");
            let flood = flood.iter().cycle().take(1000);
            let kept = flood.filter(|event| journal.keeps(event, world.now));
            assert_eq!(kept.count(), 16);
            assert!(journal.keeps(other[0], world.now), "{action:?}");
        }
        let device = |host| {
            let command = Command::Register(Box::new(at(1, host)));
            Applicant::of(&command).unwrap()
        };
        let mut refusals = |host| {
            let before = journal.refused.left_out();
            journal.refused(&device(host), &Rejected::UnknownPreAuthKey, world.now);
            journal.refused.left_out() > before
        };
        let left_out = (0..20).filter(|_| refusals(1)).count();
        assert_eq!(left_out, 4);
        assert!(!refusals(2));
    }

    #[test]
    fn strangers_everywhere_do_not_flood_the_log() {
        let (mut world, _) = World::with_user();
        world.register(plain(9, 9)).unwrap();
        let requested = |event: &&Event| event.action == Action::Request;
        let mut event = world.events.iter().find(requested).unwrap().clone();
        let mut journal = Journal::new(MAX_NODES);
        let mut kept = 0;
        for host in 0..100_000_u32 {
            event.source = Some(Source::of(IpAddr::from(host.to_be_bytes())));
            kept += usize::from(journal.keeps(&event, world.now));
        }
        assert_eq!(kept, SOURCES_MAX + 16);
    }
}
