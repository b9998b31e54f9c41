//! The world of a simulation: carries out the steps of a plan.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hearth_core::clock::End;
use hearth_core::disk::Cause;
use hearth_core::id::{NodeId, PreAuthKeyId, UserId};
use hearth_core::state::command::{NewPolicy, NewPreAuthKey, NewUser};
use hearth_core::state::dns::DnsRecord;
use hearth_core::state::model::{Node, PendingState};
use hearth_core::state::principal::Principal;
use hearth_core::state::secret::{SecretKind, new_secret};
use hearth_core::state::snapshot::Snapshot;
use tokio::time::{Instant, sleep};

use super::device::{Device, Standing};
use super::facts::{Facts, difference, facts};
use super::machine::{Machine, Shows};
use super::network::Network;
use super::plan::{DEVICES, KeyKind, Order, Step, Trouble, USERS};
use super::relay::Client;
use crate::engine::{EngineError, Handle};
use crate::net::stream::Stream;
use crate::store::{Chance, Mood, Plan};
use crate::supervise::Tasks;

/// How long it is quiet after a step at least.
const QUIET: Duration = Duration::from_secs(5);
/// How long a device may take to be back.
const BACK_WITHIN: Duration = Duration::from_secs(90);

/// Devices that use the relay.
const RELAYED: usize = 3;
/// The number of a stranger among the owners of lines.
const STRANGER: usize = 1000;

/// A preauth key as its maker knows it.
pub(super) struct Key {
    pub(super) id: PreAuthKeyId,
    pub(super) text: String,
    pub(super) is_deleted: bool,
}

/// When an end was made, at the earliest and at the latest.
pub(super) struct Life {
    /// The node key with which it was made.
    pub(super) of: String,
    pub(super) from: Instant,
    pub(super) boot: u32,
    /// Whether nobody can know any more when it should end.
    pub(super) is_lost: bool,
}

/// A server, its devices, and what is known of both.
pub(super) struct World {
    pub(super) machine: Machine,
    pub(super) network: Network,
    pub(super) devices: Vec<Device>,
    /// The relay clients of the first devices.
    pub(super) clients: Vec<Client>,
    pub(super) keys: Vec<Key>,
    pub(super) lives: BTreeMap<NodeId, Life>,
    pub(super) away: Vec<usize>,
    /// What may be otherwise after a restart, as the names of facts begin.
    doubt: BTreeSet<&'static str>,
    /// Connections of a stranger.
    flood: Vec<Stream>,
    pub(super) packets: u32,
    chance: Chance,
    users: usize,
    strangers: usize,
    tasks: Tasks,
    /// What happened, as far as it is the same in each run.
    pub(super) trace: Vec<String>,
}

/// What came of a simulation.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// What happened, as far as it is the same in each run.
    pub(super) trace: Vec<String>,
    /// Map streams that devices had.
    pub(super) streams: u32,
    /// Peers that they knew in the end.
    pub(super) peers: usize,
    /// Packets that the relay delivered.
    pub(super) packets: u32,
}

/// What is wrong.
pub(super) type Wrong = String;

fn admin() -> Principal {
    Principal::Socket
}

impl World {
    /// A running server with users, and devices that are off.
    pub(super) async fn new(seed: u64, shows: Shows) -> Result<Self, Wrong> {
        let mut chance = Chance::new(seed ^ 0x5eed);
        let tasks = Tasks::new();
        let network = Network::new(chance.next(), tasks.clone());
        let approval = chance.one_in(3);
        let machine = Machine::new(chance.next(), network.clone(), shows, approval);
        let devices = (0..DEVICES).map(|number| Device::new(number, &network, &tasks));
        let devices: Vec<Device> = devices.collect();
        let clients = devices.iter().take(RELAYED);
        let clients = clients.map(|device| Client::new(device, &network, &tasks));
        let mut world = Self {
            machine,
            clients: clients.collect(),
            devices,
            network,
            keys: Vec::new(),
            lives: BTreeMap::new(),
            away: Vec::new(),
            doubt: BTreeSet::new(),
            flood: Vec::new(),
            packets: 0,
            chance,
            users: 0,
            strangers: 0,
            tasks,
            trace: Vec::new(),
        };
        world.machine.start().await?;
        for _ in 0..USERS {
            let made = world.order(Order::NewUser).await;
            made.map_err(|fault| fault.to_string())?;
        }
        Ok(world)
    }

    pub(super) fn engine(&self) -> &Handle {
        let process = self.machine.process.as_ref();
        &process.expect("the server runs").engine
    }

    pub(super) fn snapshot(&self) -> Arc<Snapshot> {
        self.engine().snapshot()
    }

    /// The node of a device.
    pub(super) fn node(&self, device: usize) -> Option<Arc<Node>> {
        let machine = self.devices[device].machine();
        let snapshot = self.snapshot();
        let mut nodes = snapshot.nodes_of_machine(&machine);
        nodes.next().cloned()
    }

    /// What came of it.
    pub(super) fn outcome(&mut self) -> Outcome {
        let streams = self.devices.iter().map(|device| device.state().streams);
        let peers = self
            .devices
            .iter()
            .map(|device| device.state().view.peers.len());
        Outcome {
            trace: std::mem::take(&mut self.trace),
            streams: streams.sum(),
            peers: peers.sum(),
            packets: self.packets,
        }
    }

    pub(super) fn clear_flood(&mut self) {
        self.flood.clear();
    }

    /// Ends everything.
    pub(super) async fn end(mut self) {
        self.machine.kill().await;
        self.tasks.finish(Duration::ZERO).await;
    }

    /// Carries out a step, waits until it is quiet, and looks at everything.
    pub(super) async fn step(&mut self, number: usize, step: Step) -> Result<(), Wrong> {
        let outcome = self.carry_out(step).await?;
        self.settle().await?;
        self.look().await?;
        match self.snapshot().disk_fault() {
            // What devices asked for may be in doubt, too.
            Some(_) => self.doubt.extend(["node", "key"]),
            None => self.doubt.clear(),
        }
        let errors = super::errors::take();
        if let Some(error) = errors.iter().find(|error| error.contains("task failed")) {
            return Err(error.clone());
        }
        let facts = facts(&self.snapshot());
        let standings: Vec<String> = self.devices.iter().map(|device| device.words()).collect();
        self.trace.push(format!(
            "{number} {step}: {outcome}; {standings:?}; {facts:?}"
        ));
        Ok(())
    }

    /// Waits until all that should be connected is.
    async fn settle(&self) -> Result<(), Wrong> {
        sleep(QUIET).await;
        let deadline = Instant::now() + BACK_WITHIN;
        let is_there = |device: &&Device| {
            self.away.contains(&device.number)
                || !device.should_stream()
                || device.state().is_streaming
        };
        while let Some(missing) = self.devices.iter().find(|device| !is_there(device)) {
            if Instant::now() > deadline {
                let errors = super::errors::take();
                let last = missing.state().last_end.clone();
                let number = missing.number;
                return Err(format!("device {number} is not back ({last}) {errors:?}"));
            }
            sleep(QUIET).await;
        }
        Ok(())
    }

    async fn carry_out(&mut self, step: Step) -> Result<String, Wrong> {
        match step {
            Step::Join { device, key } => {
                let Some(key) = self.key(key) else {
                    return Ok("no key".to_owned());
                };
                let text = self.keys[key].text.clone();
                self.devices[device].log_in(&text);
            }
            Step::Knock(device) => self.devices[device].log_in(""),
            Step::SwitchOff(device) => self.devices[device].switch(false),
            Step::SwitchOn(device) => self.devices[device].switch(true),
            Step::Cut(device) => self.network.cut(Some(device)),
            Step::Away(device) => {
                self.network.set_away(device, true);
                self.away.push(device);
            }
            Step::Back(device) => {
                self.network.set_away(device, false);
                self.away.retain(|other| *other != device);
            }
            Step::LogOut(device) => self.devices[device].log_out(),
            Step::Roam(device, number) => self.devices[device].report(|state| {
                state.endpoints = vec![format!("198.51.100.{}:{}", device + 1, 1000 + number)];
            }),
            Step::Hostname(device, number) => self.devices[device].report(|state| {
                state.hostname = format!("host{number}");
            }),
            Step::Offer(device, number) => {
                let offers = routes(number);
                self.devices[device].report(|state| state.offers = offers);
            }
            Step::Order(order) => return self.ordered(order).await,
            Step::DeadKey(number) => return self.show_dead_key(number).await,
            Step::Flood => {
                self.flood.clear();
                let source = SocketAddr::from(([192, 0, 2, 66], 1));
                for _ in 0..2 * super::CONNECTIONS {
                    let opened = self.network.connect(STRANGER, source).await;
                    self.flood.extend(opened.ok());
                }
            }
            Step::Wait(time) => sleep(time).await,
            Step::Restart => {
                let engine = self.engine().clone();
                self.machine.stop().await;
                let before = facts(&engine.snapshot());
                drop(engine);
                self.start(&before).await?;
            }
            Step::Kill => {
                let before = facts(&self.snapshot());
                self.machine.kill().await;
                self.start(&before).await?;
            }
            Step::PowerCut(cut, shows) => {
                let before = facts(&self.snapshot());
                self.lose_lives(shows);
                self.machine.cut_power(cut, shows, &mut self.chance).await;
                self.start(&before).await?;
            }
            Step::CutDuring(order, after, cut, shows) => {
                if self.snapshot().disk_fault().is_some() {
                    self.doubt.extend(["node", "key"]);
                }
                let before = facts(&self.snapshot());
                let plan = Plan {
                    steps_until_off: Some(after),
                    ..Plan::default()
                };
                self.machine.disk.plan(plan);
                let outcome = self.order(order).await;
                let (before, may_be) = match &outcome {
                    // It was acknowledged before the power was off.
                    Ok(()) => (facts(&self.snapshot()), ""),
                    Err(EngineError::Rejected(_)) => (before, ""),
                    Err(_) => (before, touched(order)),
                };
                if self.snapshot().disk_fault().is_some() {
                    self.doubt.extend(["node", "key"]);
                }
                self.lose_lives(shows);
                self.machine.cut_power(cut, shows, &mut self.chance).await;
                self.doubt.extend(may_be.split_terminator(' '));
                self.start(&before).await?;
            }
            Step::SetClock(shows) => {
                self.machine.set_clock(shows);
                self.lose_lives_in_other_boots();
            }
            Step::Trouble(trouble) => {
                self.set_trouble(trouble);
                return Ok("now".to_owned());
            }
            Step::DiskWorks => {
                self.machine.disk.set(Mood::Works);
                self.machine.disk.plan(Plan::default());
                self.machine.set_hanging(false);
                // The next try to write comes after ten seconds.
                sleep(Duration::from_secs(30)).await;
                if let Some(fault) = self.snapshot().disk_fault() {
                    return Err(format!("the disk works, and hearth says: {fault}"));
                }
            }
        }
        Ok("done".to_owned())
    }

    /// Starts the server and compares what it has with what was there, but for what is in doubt.
    async fn start(&mut self, before: &Facts) -> Result<(), Wrong> {
        self.machine.disk.plan(Plan::default());
        self.machine.disk.set(Mood::Works);
        self.machine.set_hanging(false);
        self.machine.start().await?;
        let now = facts(&self.snapshot());
        let mut wrong = difference(&now, before);
        wrong.retain(|words| !self.doubt.iter().any(|kind| words.starts_with(kind)));
        self.doubt.clear();
        match wrong.is_empty() {
            true => Ok(()),
            false => Err(format!("after the start: {}", wrong.join("; "))),
        }
    }

    fn set_trouble(&mut self, trouble: Trouble) {
        let plan = match trouble {
            Trouble::Full => return self.machine.disk.set(Mood::Fails),
            Trouble::Hangs => return self.machine.set_hanging(true),
            Trouble::FailedSyncs(syncs) => Plan {
                syncs,
                ..Plan::default()
            },
            Trouble::FailedFolderSync => Plan {
                syncs: 1,
                folder_syncs: 1,
                ..Plan::default()
            },
            Trouble::WritesFailAfter(writes) => Plan {
                writes_until: Some(writes),
                ..Plan::default()
            },
        };
        self.machine.disk.plan(plan);
    }

    /// Notes which ends nobody can know any more once the machine is switched on with this clock.
    fn lose_lives(&mut self, shows: Shows) {
        let was_wrong = self.machine.error().is_some_and(|error| error != 0);
        let is_wrong = matches!(shows, Shows::Off(days) if days != 0);
        for life in self.lives.values_mut() {
            life.is_lost |= was_wrong || is_wrong;
        }
    }

    /// The same while it runs.
    fn lose_lives_in_other_boots(&mut self) {
        let boot = self.machine.boot();
        let is_wrong = self.machine.error().is_some_and(|error| error != 0);
        for life in self.lives.values_mut() {
            life.is_lost |= is_wrong && life.boot != boot;
        }
    }

    async fn ordered(&mut self, order: Order) -> Result<String, Wrong> {
        let before = facts(&self.snapshot());
        match self.order(order).await {
            Ok(()) => Ok("done".to_owned()),
            Err(fault) => {
                let is_refused = !matches!(fault, EngineError::InDoubt(_));
                if !is_refused {
                    self.doubt.extend(touched(order).split(' '));
                }
                let now = facts(&self.snapshot());
                let words = difference(&now, &before);
                // Devices may have done something meanwhile, but nothing to what only administrators change.
                let mut words = words.iter().filter(|words| !words.starts_with("node"));
                match words
                    .next()
                    .filter(|words| is_refused && !words.starts_with("key"))
                {
                    Some(words) => Err(format!("refused ({fault}), and yet: {words}")),
                    None => Ok(format!("refused: {}", kind_of(&fault))),
                }
            }
        }
    }

    fn key(&self, number: usize) -> Option<usize> {
        let count = self.keys.len();
        (count > 0).then(|| number % count)
    }

    fn user(&self, number: usize) -> UserId {
        let snapshot = self.snapshot();
        let users: Vec<UserId> = snapshot.users().keys().copied().collect();
        *users
            .get(number % users.len().max(1))
            .unwrap_or(&UserId::FIRST)
    }

    fn id(&self, device: usize) -> NodeId {
        self.node(device)
            .map_or(NodeId::new(9999).expect("not zero"), |node| node.id)
    }

    /// Asks for something as an administrator does.
    async fn order(&mut self, order: Order) -> Result<(), EngineError> {
        let engine = self.engine().clone();
        match order {
            Order::NewUser => {
                self.users += 1;
                let new = NewUser {
                    name: format!("user{}", self.users).into(),
                    ..NewUser::default()
                };
                engine.create_user(admin(), new).await.map(drop)
            }
            Order::RenameUser(user) => {
                self.users += 1;
                let name = format!("user{}", self.users).into();
                let id = self.user(user);
                engine.rename_user(admin(), id, name).await.map(drop)
            }
            Order::DeleteUser(user) => engine.delete_user(admin(), self.user(user)).await.map(drop),
            Order::NewKey { user, kind, life } => {
                let secret = new_secret(SecretKind::PreAuth).expect("randomness");
                let is_tagged = kind == KeyKind::Tagged;
                let new = NewPreAuthKey {
                    user: (!is_tagged).then(|| self.user(user)),
                    tags: is_tagged.then(|| "tag:server".into()).into_iter().collect(),
                    reusable: kind != KeyKind::Once,
                    ephemeral: kind == KeyKind::Ephemeral,
                    preauthorized: true,
                    expiry: life.map_or(End::Never, End::In),
                    prefix: secret.prefix.clone(),
                    hash: secret.hash,
                };
                let made = engine.create_preauth_key(admin(), new).await?;
                self.keys.push(Key {
                    id: made.value.id,
                    text: secret.text.to_string(),
                    is_deleted: false,
                });
                Ok(())
            }
            Order::ExpireKey(key) => match self.key(key) {
                Some(key) => {
                    let id = self.keys[key].id;
                    engine.expire_preauth_key(admin(), id).await.map(drop)
                }
                None => Ok(()),
            },
            Order::DeleteKey(key) => match self.key(key) {
                Some(key) => {
                    let id = self.keys[key].id;
                    let done = engine.delete_preauth_key(admin(), id).await.map(drop);
                    self.keys[key].is_deleted |= done.is_ok();
                    done
                }
                None => Ok(()),
            },
            Order::Approve { device, user } => match self.pending(device) {
                Some(id) => {
                    let user = self.user(user);
                    engine
                        .approve_registration(admin(), id, user)
                        .await
                        .map(drop)
                }
                None => Ok(()),
            },
            Order::Reject(device) => match self.pending(device) {
                Some(id) => engine.reject_registration(admin(), id).await.map(drop),
                None => Ok(()),
            },
            Order::Delete(device) => engine.delete_node(admin(), self.id(device)).await.map(drop),
            Order::Expire(device) => {
                let end = End::In(Duration::ZERO);
                engine
                    .expire_node(admin(), self.id(device), end)
                    .await
                    .map(drop)
            }
            Order::Extend(device, life) => {
                let id = self.id(device);
                let end = life.map_or(End::Never, End::In);
                let done = engine.expire_node(admin(), id, end).await.map(drop);
                if done.is_ok() {
                    self.lives.remove(&id);
                }
                done
            }
            Order::Rename(device, number) => {
                let label = format!("name{number}").into();
                engine
                    .rename_node(admin(), self.id(device), label)
                    .await
                    .map(drop)
            }
            Order::Tag(device, number) => {
                let tags = match number {
                    0 => vec!["tag:server".into()],
                    1 => vec!["tag:phone".into()],
                    _ => vec!["tag:server".into(), "tag:phone".into()],
                };
                engine
                    .set_tags(admin(), self.id(device), tags)
                    .await
                    .map(drop)
            }
            Order::Give { device, user } => {
                let (id, user) = (self.id(device), self.user(user));
                engine.move_node(admin(), id, user).await.map(drop)
            }
            Order::Admit(device) => engine
                .approve_node(admin(), self.id(device))
                .await
                .map(drop),
            Order::ShutOut(device) => engine
                .revoke_approval(admin(), self.id(device))
                .await
                .map(drop),
            Order::ApproveRoutes(device, number) => {
                let list = routes(number);
                let list = list
                    .iter()
                    .map(|route| route.parse().expect("a route"))
                    .collect();
                engine
                    .approve_routes(admin(), self.id(device), list)
                    .await
                    .map(drop)
            }
            Order::Policy(number) => {
                let text = super::invariants::policy_text(number);
                let new = NewPolicy::parse(&text, true).expect("a policy");
                engine.set_policy(admin(), new).await.map(drop)
            }
            Order::Record(number) => {
                let value = format!("10.0.0.{number}");
                let record = DnsRecord::parse("git.example", "A", &value).expect("a record");
                match self.snapshot().dns_records().contains(&record) {
                    true => engine.delete_dns_record(admin(), record).await.map(drop),
                    false => engine.add_dns_record(admin(), record).await.map(drop),
                }
            }
        }
    }

    fn pending(&self, device: usize) -> Option<hearth_core::id::AuthId> {
        let machine = self.devices[device].machine();
        let snapshot = self.snapshot();
        let mut pending = snapshot.pending().values();
        let waits = pending
            .find(|pending| pending.machine == machine && pending.state == PendingState::Waiting);
        waits.map(|pending| pending.id.clone())
    }

    /// Nobody may come in with a key that was deleted.
    async fn show_dead_key(&mut self, number: usize) -> Result<String, Wrong> {
        let dead: Vec<&Key> = self.keys.iter().filter(|key| key.is_deleted).collect();
        let Some(key) = dead.get(number % dead.len().max(1)) else {
            return Ok("no key".to_owned());
        };
        let number = DEVICES + self.strangers % 20;
        let stranger = Device::new(number, &self.network, &self.tasks);
        stranger.log_in(&key.text);
        self.strangers += 1;
        sleep(Duration::from_secs(20)).await;
        let standing = stranger.state().standing.clone();
        stranger.switch(false);
        if super::relay::admits(&stranger, &self.network).await {
            return Err("the relay takes a stranger".to_owned());
        }
        match standing {
            Standing::In | Standing::Waiting(_) => {
                Err("a deleted key lets a stranger in".to_owned())
            }
            Standing::Joining | Standing::Out(_) => Ok("refused".to_owned()),
        }
    }
}

/// What an order changes, as the names of facts begin.
fn touched(order: Order) -> &'static str {
    match order {
        Order::NewUser | Order::RenameUser(_) => "user",
        Order::DeleteUser(_) => "user key",
        Order::NewKey { .. } | Order::ExpireKey(_) | Order::DeleteKey(_) => "key",
        Order::Policy(_) => "policy",
        Order::Record(_) => "record",
        _ => "node",
    }
}

/// Routes to choose from.
fn routes(number: usize) -> Vec<String> {
    let all = [
        vec!["10.1.0.0/16"],
        vec!["10.1.0.0/16", "10.2.0.0/16"],
        vec!["0.0.0.0/0", "::/0"],
        vec![],
    ];
    all[number % all.len()]
        .iter()
        .map(|route| (*route).to_owned())
        .collect()
}

fn kind_of(fault: &EngineError) -> String {
    match fault {
        EngineError::Rejected(rejected) => rejected.to_string(),
        EngineError::Unavailable(fault) => format!("cannot be written, {}", cause(fault.cause)),
        EngineError::InDoubt(fault) => format!("in doubt, {}", cause(fault.cause)),
        other => other.to_string(),
    }
}

fn cause(cause: Cause) -> String {
    format!("{cause:?}")
}
