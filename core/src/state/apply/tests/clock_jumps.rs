//! What holds whatever the wall clock shows: it may start in 1970, months behind or years ahead, and be set at any time.

use super::*;
use crate::id::{ApiKeyId, AuthId};
use crate::state::command::{NewApiKey, Registration};
use crate::state::model::{Ending, Settings};
use crate::state::scope::Scopes;
use crate::state::secret::SecretHash;
use proptest::prelude::*;

const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// How long a clock must go on unchanged until it is trusted.
const TRUSTED_AFTER: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// How long the keys of nodes live.
const LOGIN: Duration = Duration::from_secs(20 * 24 * 60 * 60);
/// The time that a right clock shows at first.
const RIGHT: Timestamp = Timestamp::from_unix_ms(PLAUSIBLE_FROM.unix_ms() + 1000 * 86_400_000);

/// What a clock shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shows {
    /// The time since 1970 that the system has run.
    Uptime,
    /// The right time and so many days, or less if negative.
    Off(i64),
}

fn shows() -> impl Strategy<Value = Shows> {
    prop_oneof![
        2 => Just(Shows::Uptime),
        3 => Just(Shows::Off(0)),
        3 => prop_oneof![Just(-150), Just(-1), Just(1), Just(3650)].prop_map(Shows::Off),
    ]
}

#[derive(Debug, Clone)]
enum Step {
    PreAuthKey(Asked),
    ApiKey(Asked),
    Join { machine: u8, with: u8 },
    Login { machine: u8 },
    Approve,
    Expire { node: u8, end: Asked },
    Logout { machine: u8 },
    EndKey { key: u8 },
    Come { node: u8 },
    Go { node: u8 },
    Wait(Duration),
    Set(Shows),
    Restart,
    Reboot(Shows),
    Flush,
}

/// An end as somebody asks for it.
#[derive(Debug, Clone, Copy)]
enum Asked {
    Never,
    In(Duration),
    /// So many days after the right time.
    Days(i64),
}

fn asked() -> impl Strategy<Value = Asked> {
    prop_oneof![
        1 => Just(Asked::Never),
        4 => prop_oneof![Just(HOUR), Just(DAY), Just(DAY * 30)].prop_map(Asked::In),
        2 => prop_oneof![Just(2), Just(40), Just(900)].prop_map(Asked::Days),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let pause = prop_oneof![
        3 => (1..120_u64).prop_map(Duration::from_secs),
        3 => Just(HOUR),
        2 => Just(DAY),
        1 => Just(DAY * 15),
    ];
    prop_oneof![
        3 => asked().prop_map(Step::PreAuthKey),
        1 => asked().prop_map(Step::ApiKey),
        5 => (1..5_u8, 1..5_u8).prop_map(|(machine, with)| Step::Join { machine, with }),
        2 => (1..5_u8).prop_map(|machine| Step::Login { machine }),
        2 => Just(Step::Approve),
        2 => (1..6_u8, prop_oneof![4 => asked(), 1 => Just(Asked::In(Duration::ZERO))])
            .prop_map(|(node, end)| Step::Expire { node, end }),
        1 => (1..5_u8).prop_map(|machine| Step::Logout { machine }),
        1 => (1..5_u8).prop_map(|key| Step::EndKey { key }),
        2 => (1..6_u8).prop_map(|node| Step::Come { node }),
        1 => (1..6_u8).prop_map(|node| Step::Go { node }),
        6 => pause.prop_map(Step::Wait),
        5 => shows().prop_map(Step::Set),
        2 => Just(Step::Restart),
        2 => shows().prop_map(Step::Reboot),
        1 => Just(Step::Flush),
    ]
}

/// Something that ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Thing {
    Node(NodeId),
    PreAuthKey(PreAuthKeyId),
    ApiKey(ApiKeyId),
}

/// When it should end, by the true time since the begin of the test.
#[derive(Debug, Clone, Copy)]
enum Truth {
    Never,
    Date(Timestamp),
    Hand,
    Span {
        /// When it was asked for.
        from: Duration,
        life: Duration,
        /// In which run of the system the end was made last.
        boot: u32,
        /// By how much the clock was wrong that made the end, in milliseconds; `None` if it was in 1970.
        error: Option<i64>,
        /// Whether the system was started again while the end was that of a wrong clock, or a wrong one was trusted.
        is_lost: bool,
    },
}

/// A tailnet on a machine whose clock is not that of the world.
struct Machine {
    world: World,
    user: UserId,
    /// True time since the begin.
    time: Duration,
    shows: Shows,
    booted: Duration,
    started: Duration,
    /// When the clock was set last, or hearth started.
    set: Duration,
    boot: u32,
    truths: BTreeMap<Thing, Truth>,
    logins: Vec<(AuthId, Duration)>,
    node_keys: u8,
}

impl Machine {
    fn new(first: Shows) -> Self {
        let (mut world, user) = World::with_user();
        world.model.settings = Arc::new(Settings {
            node_expiry: Some(LOGIN),
            ..(*world.model.settings).clone()
        });
        let mut machine = Self {
            world,
            user,
            time: DAY,
            shows: first,
            booted: DAY - SECOND * 30,
            started: DAY,
            set: DAY,
            boot: 1,
            truths: BTreeMap::new(),
            logins: Vec::new(),
            node_keys: 0,
        };
        machine.start();
        machine
    }

    fn right_wall(&self) -> Timestamp {
        RIGHT.plus(self.time)
    }

    fn wall(&self) -> Timestamp {
        match self.shows {
            Shows::Uptime => Timestamp::from_unix_ms(0).plus(self.time - self.booted),
            Shows::Off(days) => self.right_wall().moved(days * 86_400_000),
        }
    }

    /// By how much the clock is wrong; `None` in 1970.
    fn error(&self) -> Option<i64> {
        match self.shows {
            Shows::Uptime => None,
            Shows::Off(days) => Some(days * 86_400_000),
        }
    }

    fn look(&mut self) {
        self.world.now = Now {
            wall: self.wall(),
            mono: self.time - self.started,
        };
    }

    /// Starts hearth.
    fn start(&mut self) {
        (self.started, self.set) = (self.time, self.time);
        self.look();
        let boot = Boot {
            id: self.boot,
            uptime: self.started - self.booted,
        };
        restart(&mut self.world, boot);
        self.logins.clear();
        self.tick();
    }

    fn tick(&mut self) {
        self.look();
        self.world.tick(Flush::WhenDue);
        let (time, boot, now) = (self.time, self.boot, self.error());
        let is_trusted = time - self.set > TRUSTED_AFTER && now.is_some_and(|error| error != 0);
        for truth in self.truths.values_mut() {
            let Truth::Span {
                from,
                boot: made_in,
                error,
                is_lost,
                ..
            } = truth
            else {
                continue;
            };
            *is_lost |= is_trusted && *made_in != boot;
            match (*error, now) {
                (_, None) => {}
                // Its end follows the clock.
                (_, Some(_)) if *made_in == boot => *error = now,
                // Only now it is known when it ends.
                (None, Some(_)) => (*from, *made_in, *error) = (time, boot, now),
                (Some(_), Some(_)) => {}
            }
        }
    }

    fn end(&self, asked: Asked) -> End {
        match asked {
            Asked::Never => End::Never,
            Asked::In(life) => End::In(life),
            Asked::Days(days) => End::At(RIGHT.plus(DAY).moved(days * 86_400_000)),
        }
    }

    fn truth(&self, end: End) -> Truth {
        match end {
            End::Never => Truth::Never,
            End::At(date) => Truth::Date(date),
            End::In(Duration::ZERO) => Truth::Hand,
            End::In(life) => Truth::Span {
                from: self.time,
                life,
                boot: self.boot,
                error: self.error(),
                is_lost: false,
            },
        }
    }

    /// A node logged in now.
    fn logged_in(&mut self, id: NodeId) {
        let truth = self.truth(End::In(LOGIN));
        self.truths.insert(Thing::Node(id), truth);
    }

    fn register(&mut self, request: Register) -> Option<Registration> {
        let command = Command::Register(Box::new(request));
        match self.world.apply(command) {
            Ok(Outcome::Registered(registration)) => Some(registration),
            Ok(other) => panic!("unexpected: {other:?}"),
            Err(_) => None,
        }
    }

    /// The node key that a machine has, or a new one.
    fn key_of(&mut self, machine: u8) -> u8 {
        let key = crate::keys::MachineKey::from_bytes([machine; 32]);
        let node = self.world.model.nodes_of_machine(&key).next();
        match node.filter(|node| !node.expired) {
            Some(node) => node.key.as_bytes()[0],
            None => {
                self.node_keys += 1;
                self.node_keys
            }
        }
    }

    fn run(&mut self, step: &Step) {
        let node = |number: u8| NodeId::new(number.into()).unwrap();
        match *step {
            Step::PreAuthKey(asked) => {
                let count = self.world.model.preauth_keys.len();
                if count == 4 {
                    return;
                }
                let end = self.end(asked);
                let name = format!("key{}", count + 1);
                // The last one makes ephemeral nodes.
                let ephemeral = count == 3;
                self.world.preauth_key(&name, |key| {
                    (key.expiry, key.reusable, key.ephemeral) = (end, true, ephemeral);
                });
                let id = PreAuthKeyId::new(count as u64 + 1).unwrap();
                self.truths.insert(Thing::PreAuthKey(id), self.truth(end));
            }
            Step::ApiKey(asked) => {
                let new = NewApiKey {
                    scopes: Scopes::ALL,
                    expiry: self.end(asked),
                    prefix: "abcdefghijkl".into(),
                    hash: SecretHash::of("secret"),
                };
                let truth = self.truth(new.expiry);
                if let Ok(Outcome::ApiKey(id)) = self.world.apply(Command::CreateApiKey(new)) {
                    self.truths.insert(Thing::ApiKey(id), truth);
                }
            }
            Step::Join { machine, with } => {
                let key = self.key_of(machine);
                let before = self.world.model.clone();
                let joined = self.register(with_key(machine, key, &format!("key{with}")));
                if let Some(Registration::Welcome(id)) = joined {
                    let stays = before.node(id).is_some_and(|old| {
                        let new = self.world.node(id);
                        !old.expired && (old.expiry, old.ending) == (new.expiry, new.ending)
                    });
                    if !stays {
                        self.logged_in(id);
                    }
                }
            }
            Step::Login { machine } => {
                let key = self.key_of(machine);
                let login = self.register(plain(machine, key));
                if let Some(Registration::NeedsLogin(id)) = login {
                    let asked = self.started + self.world.model.pending[&id].asked;
                    self.logins.retain(|(known, _)| *known != id);
                    self.logins.push((id, asked));
                }
            }
            Step::Approve => {
                let Some((id, _)) = self.logins.first().cloned() else {
                    return;
                };
                let approve = Command::ApproveRegistration(id, self.user);
                if let Ok(Outcome::Node(id)) = self.world.apply(approve) {
                    self.logged_in(id);
                }
            }
            Step::Expire { node: number, end } => {
                let (id, end) = (node(number), self.end(end));
                let was_expired = self.world.model.node(id).is_some_and(|node| node.expired);
                let done = self.world.apply(Command::ExpireNode(id, end)).is_ok();
                // A date that has passed changes nothing of a key that has expired.
                let has_passed = end.time(self.wall()).is_some_and(|at| at <= self.wall());
                if done && !(was_expired && has_passed && matches!(end, End::At(_))) {
                    self.truths.insert(Thing::Node(id), self.truth(end));
                }
            }
            Step::Logout { machine } => {
                let key = crate::keys::MachineKey::from_bytes([machine; 32]);
                let node = self.world.model.nodes_of_machine(&key).next().cloned();
                let Some(node) = node else { return };
                let number = node.key.as_bytes()[0];
                self.register(Register {
                    expiry: RequestedExpiry::Logout,
                    ..plain(machine, number)
                });
                self.truths.insert(Thing::Node(node.id), Truth::Hand);
            }
            Step::EndKey { key } => {
                let id = PreAuthKeyId::new(key.into()).unwrap();
                let over = (self.world.model.preauth_keys.get(&id))
                    .is_some_and(|key| key.has_ended(self.world.now));
                let ended = self.world.apply(Command::ExpirePreAuthKey(id)).is_ok();
                if ended && !over {
                    self.truths.insert(Thing::PreAuthKey(id), Truth::Hand);
                }
            }
            Step::Come { node: number } => {
                if self.world.model.node(node(number)).is_some() {
                    self.world.open_stream(node(number));
                }
            }
            Step::Go { node: number } => {
                if let Some(Presence::Online(session)) = self
                    .world
                    .model
                    .node(node(number))
                    .map(|node| node.presence)
                {
                    let node = node(number);
                    self.world
                        .apply(Command::CloseStream { node, session })
                        .unwrap();
                }
            }
            Step::Wait(time) => self.time += time,
            Step::Set(shows) => self.set(shows),
            Step::Restart => self.start(),
            Step::Reboot(shows) => self.reboot(shows),
            Step::Flush => self.world.tick(Flush::Now),
        }
        // A device that joins by other means asks for nothing any more.
        if !matches!(step, Step::Wait(_) | Step::Set(_) | Step::Flush) {
            let pending = &self.world.model.pending;
            self.logins.retain(|(id, _)| pending.contains_key(id));
        }
    }

    /// Sets the clock. Nothing but ends may follow.
    fn set(&mut self, shows: Shows) {
        let timers = |world: &World| {
            let nodes = world.model.nodes.iter();
            let nodes: Vec<_> = nodes.map(|node| (node.id, node.presence)).collect();
            let logins: Vec<AuthId> = world.model.pending.keys().cloned().collect();
            let due = nodes.iter().map(|(_, presence)| match presence {
                Presence::Leaving { until, .. } => Some(*until),
                Presence::New { since_mono } | Presence::Offline { since_mono, .. } => {
                    Some(*since_mono)
                }
                _ => None,
            });
            let kinds = nodes
                .iter()
                .map(|(id, presence)| (*id, presence.is_online()));
            (
                kinds.collect::<Vec<_>>(),
                due.collect::<Vec<_>>(),
                logins,
                world.model.flush_at,
            )
        };
        let before = timers(&self.world);
        (self.shows, self.set) = (shows, self.time);
        self.tick();
        assert_eq!(
            timers(&self.world),
            before,
            "a timer followed the wall clock"
        );
    }

    /// The power fails. What was made by a wrong clock cannot be told from the rest any more.
    fn reboot(&mut self, shows: Shows) {
        self.time += SECOND * 20;
        self.booted = self.time - SECOND * 10;
        self.boot += 1;
        self.shows = shows;
        for truth in self.truths.values_mut() {
            if let Truth::Span {
                error: Some(error),
                is_lost,
                ..
            } = truth
            {
                *is_lost |= *error != 0;
            }
        }
        self.start();
    }

    /// Whether it is over and how it ends; `None` if it is gone.
    fn state(&self, thing: Thing) -> Option<(bool, Option<Timestamp>, Ending)> {
        let (model, now) = (&self.world.model, self.world.now);
        Some(match thing {
            Thing::Node(id) => {
                let node = model.node(id)?;
                (node.expired, node.expiry, node.ending)
            }
            Thing::PreAuthKey(id) => {
                let key = model.preauth_keys.get(&id)?;
                (key.has_ended(now), key.expiry, key.ending)
            }
            Thing::ApiKey(id) => {
                let key = model.api_keys.get(&id)?;
                (key.has_ended(now), key.expiry, key.ending)
            }
        })
    }

    fn check(&self) {
        for (thing, truth) in &self.truths {
            if let Some((is_over, expiry, ending)) = self.state(*thing) {
                self.check_one(*thing, *truth, is_over, expiry, ending);
            }
        }
        for (id, asked) in &self.logins {
            let waited = self.time - *asked;
            let is_known = self.world.model.pending.contains_key(id);
            assert!(
                is_known || waited > HOUR,
                "{id:?} was dropped after {waited:?}"
            );
            assert!(!is_known || waited <= HOUR, "{id:?} waits for {waited:?}");
            if let (Some(pending), Some(_)) = (self.world.model.pending.get(id), self.error()) {
                assert_eq!(self.wall().since(pending.created), waited);
            }
        }
    }

    fn check_one(
        &self,
        thing: Thing,
        truth: Truth,
        is_over: bool,
        expiry: Option<Timestamp>,
        ending: Ending,
    ) {
        let said = || {
            format!(
                "{thing:?} {truth:?} {expiry:?} {ending:?} at {}",
                self.wall()
            )
        };
        match truth {
            Truth::Never => assert!(!is_over && expiry.is_none(), "{}", said()),
            Truth::Hand => assert!(is_over, "{}", said()),
            Truth::Date(date) => {
                assert_eq!(expiry, Some(date), "{}", said());
                if self.error().is_some() {
                    assert_eq!(is_over, date <= self.wall(), "{}", said());
                }
            }
            Truth::Span {
                from,
                life,
                boot,
                error,
                is_lost,
            } => {
                let has_passed = self.time >= from + life;
                let is_known = self.error().is_some();
                if boot == self.boot && !is_lost {
                    // Also by a clock that is wrong.
                    if is_known {
                        assert_eq!(is_over, has_passed, "{}", said());
                    }
                    assert!(!is_over || has_passed, "too early: {}", said());
                }
                let is_right = self.error() == Some(0);
                if is_right && !is_lost && error == Some(0) {
                    assert!(!is_over || has_passed, "too early: {}", said());
                }
                // What was made ahead may live longer, not shorter.
                let lives = error.is_none_or(|error| error >= 0);
                if is_right && !is_lost && lives {
                    assert!(!is_over || has_passed, "too early: {}", said());
                }
            }
        }
    }

    /// Once the clock is right and stays so, all spans end.
    fn check_that_all_ends(&mut self) {
        self.set(Shows::Off(0));
        for pause in [TRUSTED_AFTER + SECOND, HOUR, LOGIN.max(DAY * 30), DAY] {
            self.time += pause;
            self.tick();
        }
        for (thing, truth) in &self.truths {
            let state = self.state(*thing);
            if let (Truth::Span { .. }, Some((is_over, expiry, _))) = (truth, state) {
                assert!(is_over, "{thing:?} {truth:?} goes on until {expiry:?}");
            }
        }
    }
}

proptest! {
    #[test]
    fn every_span_lasts_as_long_as_it_should_whatever_the_clock_shows(
        first in shows(),
        steps in prop::collection::vec(step(), 1..60)
    ) {
        let mut machine = Machine::new(first);
        for step in &steps {
            machine.run(step);
            machine.tick();
            machine.check();
        }
        machine.check_that_all_ends();
    }
}
