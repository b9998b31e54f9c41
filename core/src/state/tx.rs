//! One batch of changes to a model: the only way for commands to change it.
//!
//! Each put and remove stamps the revision, notes the change for map streams and adds the record that makes it
//! durable, so that a command cannot forget one of them.

use std::collections::BTreeSet;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use hearth_shares::Source;
use ipnet::IpNet;

use crate::clock::{End, Now, Timestamp};
use crate::id::{ApiKeyId, AuthId, NodeId, PreAuthKeyId, UserId};
use crate::keys::MachineKey;
use crate::policy::Compiled;
use crate::state::addr::{Cursors, Prefixes};
use crate::state::attributes::Attributes;
use crate::state::command::Rejected;
use crate::state::dns::{DnsRecord, ReservedNames};
use crate::state::ending::{Ending, Span};
use crate::state::event::{Action, Actor, Event, Target, Values};
use crate::state::model::{
    ApiKey, Change, ClockSeen, Model, Node, PendingRegistration, PolicyText, PreAuthKey, User,
};
use crate::state::principal::Principal;
use crate::state::record::Record;

/// Least bytes that a commit writes, measured: six pages of 4 KiB.
const COMMIT_BYTES: usize = 24 * 1024;
/// What a node takes in the database beside its host information, half-empty pages included: `benches/flash`.
const NODE_BYTES: usize = 2048;
/// Longest time between two flushes, unless the configured interval is longer.
const FLUSH_LATEST: Duration = Duration::from_secs(24 * 60 * 60);

/// A model, what changed in it, and the time. The model is read through it.
pub struct Tx<'a> {
    model: &'a mut Model,
    changes: Changes,
    now: Now,
    actor: Actor,
}

/// What a batch changed.
#[derive(Debug, Default)]
pub struct Changes {
    /// What must be on disk before anybody is answered.
    pub records: Vec<Record>,
    /// What happened, for the log and the audit log.
    pub events: Vec<Event>,
    /// Subnet routes that have another primary router now, for the log.
    pub handovers: Vec<Handover>,
}

/// A subnet route that passed from one router to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handover {
    /// The route.
    pub route: IpNet,
    /// The router that had it.
    pub from: NodeId,
    /// Its name.
    pub from_name: Box<str>,
    /// The router that has it.
    pub to: NodeId,
    /// Its name.
    pub to_name: Box<str>,
    /// Why the earlier one gave way.
    pub why: &'static str,
}

/// Which facets of a node a change touched, and whether it must be on disk.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Touched {
    pub(super) core: bool,
    pub(super) endpoints: bool,
    pub(super) presence: bool,
    /// It must be on disk before anybody is answered: a person decided it, or it cannot be asked for again.
    pub(super) durable: bool,
    /// It is written with the next flush: the client repeats it by itself.
    pub(super) soft: bool,
}

impl Touched {
    /// A node that is new, or changed as a whole.
    pub(super) const WHOLE: Self = Self {
        core: true,
        endpoints: false,
        presence: false,
        durable: true,
        soft: false,
    };
}

impl Deref for Tx<'_> {
    type Target = Model;

    fn deref(&self) -> &Model {
        self.model
    }
}

impl<'a> Tx<'a> {
    /// Begins a batch at the next revision.
    pub fn begin(model: &'a mut Model, now: Now) -> Self {
        model.revision = model.revision.next();
        model.changed = false;
        Self::resume(model, now)
    }

    /// Goes on at the revision that the model has.
    pub(super) fn resume(model: &'a mut Model, now: Now) -> Self {
        let actor = Actor::of(&Principal::System, model);
        Self {
            model,
            changes: Changes::default(),
            now,
            actor,
        }
    }

    /// The time of the batch.
    pub fn now(&self) -> Now {
        self.now
    }

    /// Says who makes the changes that follow.
    pub(super) fn act_as(&mut self, principal: &Principal) {
        self.actor = Actor::of(principal, self.model);
    }

    /// Notes what the actor did.
    pub(super) fn event(&mut self, action: Action, target: Target, values: Values) {
        self.note(action, target, values, None);
    }

    /// Notes what became of a pending registration by its device alone: it was requested, or nobody decided in time.
    pub(super) fn event_of_stranger(&mut self, action: Action, pending: &PendingRegistration) {
        let target = Target::registration(pending);
        self.note(action, target, Values::default(), Some(pending.source));
    }

    fn note(&mut self, action: Action, target: Target, values: Values, source: Option<Source>) {
        self.changes.events.push(Event {
            time: self.now.wall,
            actor: self.actor.clone(),
            action,
            target,
            values,
            source,
        });
    }

    /// Notes that a subnet route has another primary router now.
    pub(super) fn hand_over(&mut self, handover: Handover) {
        self.changes.handovers.push(handover);
    }

    /// Number of records that the batch has to write so far.
    pub fn written(&self) -> usize {
        self.changes.records.len()
    }

    /// Ends the batch, and gives what to commit.
    pub fn finish(self) -> Changes {
        self.changes
    }

    /// Runs `change`, and undoes all that it did when it fails.
    ///
    /// # Errors
    /// Those of `change`.
    pub(super) fn attempt<T>(
        &mut self,
        change: impl FnOnce(&mut Self) -> Result<T, Rejected>,
    ) -> Result<T, Rejected> {
        let before = self.model.clone();
        let written = self.changes.records.len();
        let noted = self.changes.events.len();
        let outcome = change(self);
        if outcome.is_err() {
            *self.model = before;
            self.changes.records.truncate(written);
            self.changes.events.truncate(noted);
        }
        outcome
    }
}

/// Nodes.
impl Tx<'_> {
    /// The number of a new node.
    ///
    /// # Errors
    /// When all are used up.
    pub(super) fn take_node_id(&mut self) -> Result<NodeId, Rejected> {
        let id = self.model.counters.node;
        self.model.counters.node = id.next().ok_or(Rejected::NoIds)?;
        self.put_counters();
        Ok(id)
    }

    /// Adds a node, or replaces the one with the same number. Peers and the disk get what `touched` says.
    pub(super) fn put_node(&mut self, mut node: Node, touched: Touched) {
        let id = node.id;
        let revision = self.model.revision;
        if touched.core {
            node.facets.core = revision;
        }
        if touched.endpoints {
            node.facets.endpoints = revision;
        }
        if touched.presence {
            node.facets.presence = revision;
        }
        let has_owner = |old: &Arc<Node>| old.owner == node.owner;
        if !self.model.node(id).is_some_and(has_owner) {
            node.facets.owner = revision;
        }
        node.unflushed = (node.unflushed || touched.soft) && !touched.durable;
        let old = self.model.node(id);
        let (is_changed, is_admission) = match old {
            Some(old) => (**old != node, old.is_isolated() != node.is_isolated()),
            None => (true, true),
        };
        self.model.changed |= is_changed;
        if is_admission {
            self.model.admission = revision;
        }
        self.model.put_node(node);
        if touched.core || touched.endpoints || touched.presence {
            self.model.note(Change::Node(id));
        }
        if touched.durable {
            self.write_node(id);
        }
    }

    /// Puts a node that is new, or changed as a whole.
    pub(super) fn put_whole_node(&mut self, node: Node) {
        self.put_node(node, Touched::WHOLE);
    }

    /// Puts a node of which nothing changed that peers get or that is on disk.
    pub(super) fn put_node_silently(&mut self, node: Node) {
        self.model.put_node(node);
    }

    /// Has nodes sent whole to their peers, without anything of their own having changed.
    pub(super) fn resend_nodes(&mut self, which: impl Fn(&Node) -> bool) {
        let nodes = self.model.nodes.iter().filter(|node| which(node));
        let nodes: Vec<Arc<Node>> = nodes.cloned().collect();
        for node in nodes {
            let touched = Touched {
                core: true,
                ..Touched::default()
            };
            self.put_node((*node).clone(), touched);
        }
    }

    /// Takes a node out for good, with its attributes. What is known of its machine and addresses stays.
    pub(super) fn remove_node(&mut self, id: NodeId) {
        let Some(node) = self.model.node(id).cloned() else {
            return;
        };
        self.model.take_node(id);
        let prefixes = self.model.settings.prefixes;
        self.put_cursors(|cursors| cursors.pass(&prefixes, node.ipv4, node.ipv6));
        self.changes.records.push(Record::DeleteNode(id));
        if self.model.attributes.contains_key(&id) {
            Arc::make_mut(&mut self.model.attributes).remove(&id);
            self.changes.records.push(Record::DeleteAttributes(id));
        }
        self.model.note(Change::NodeRemoved(id));
    }

    /// Sets all attributes of a node.
    pub(super) fn put_attributes(&mut self, id: NodeId, attributes: Attributes) {
        self.model.changed = true;
        Arc::make_mut(&mut self.model.touched).insert(id);
        let all = Arc::make_mut(&mut self.model.attributes);
        if attributes.is_empty() {
            all.remove(&id);
            self.changes.records.push(Record::DeleteAttributes(id));
        } else {
            let attributes = Arc::new(attributes);
            all.insert(id, attributes.clone());
            self.changes
                .records
                .push(Record::PutAttributes(id, attributes));
        }
    }

    /// Writes what of the nodes is only in memory, and says when to do so next: each interval pays for one small commit,
    /// so that what devices report writes the same number of bytes a day however many there are.
    pub(super) fn flush_nodes(&mut self) {
        let unflushed = self.model.nodes.iter().filter(|node| node.unflushed);
        let unflushed: Vec<Arc<Node>> = unflushed.cloned().collect();
        let sizes = unflushed.iter().map(|node| {
            let hostinfo = &node.hostinfo;
            let texts = hostinfo.raw.len().saturating_add(hostinfo.shared.len());
            NODE_BYTES.saturating_add(texts)
        });
        let bytes = sizes.fold(0, usize::saturating_add);
        let interval = self.model.settings.flush_interval;
        let more = bytes.checked_div(COMMIT_BYTES).unwrap_or_default();
        let more = interval.saturating_mul(u32::try_from(more).unwrap_or(u32::MAX));
        let pause = interval.saturating_add(more);
        let pause = pause.min(FLUSH_LATEST.max(interval));
        self.model.flush_at = self.now.mono.saturating_add(pause);
        for node in unflushed {
            let id = node.id;
            self.model.put_node(Node {
                unflushed: false,
                ..(*node).clone()
            });
            self.write_node(id);
        }
    }

    /// Notes which addresses are given out or free again.
    fn put_cursors(&mut self, change: impl FnOnce(&mut Cursors)) {
        change(Arc::make_mut(&mut self.model.cursors));
        let record = Record::Cursors(self.model.cursors.clone());
        self.changes.records.push(record);
    }

    /// Notes that a node was given its addresses, the IPv4 address from the prefix of `prefixes`.
    pub(super) fn addresses_given(&mut self, prefixes: &Prefixes, node: &Node) {
        self.put_cursors(|cursors| cursors.give(prefixes, node.ipv4, node.ipv6));
    }

    /// Keeps a machine out: no key approves its nodes until a person lets it in.
    pub(super) fn shut_out(&mut self, machine: MachineKey) {
        if machine != MachineKey::ZERO && !self.model.shut_out.contains(&machine) {
            Arc::make_mut(&mut self.model.shut_out).insert(machine);
            self.changes.records.push(Record::PutShutOut(machine));
        }
    }

    /// Ends [`Tx::shut_out`].
    pub(super) fn let_in(&mut self, machine: MachineKey) {
        if self.model.shut_out.contains(&machine) {
            Arc::make_mut(&mut self.model.shut_out).remove(&machine);
            self.changes.records.push(Record::DeleteShutOut(machine));
        }
    }

    /// The time of an end that somebody asks for now, and how it comes about.
    pub(super) fn end(&self, end: End) -> (Option<Timestamp>, Ending) {
        let ending = match end {
            End::Never | End::At(_) => Ending::Date,
            End::In(life) if life.is_zero() => Ending::Hand,
            End::In(life) => Ending::Span(self.span(life)),
        };
        (end.time(self.now.wall), ending)
    }

    /// A span of time whose end the clock of now makes.
    pub(super) fn span(&self, life: Duration) -> Span {
        Span {
            life,
            boot: self.model.boot.id,
            boot_ms: self.model.boot.wall_ms(self.now),
        }
    }

    /// Remembers what the clock shows.
    pub(super) fn clock_seen(&mut self, seen: ClockSeen) {
        self.model.clock = Some(seen);
    }

    fn write_node(&mut self, id: NodeId) {
        if let Some(node) = self.model.node(id) {
            self.changes.records.push(Record::PutNode(Arc::clone(node)));
        }
    }

    fn put_counters(&mut self) {
        self.model.changed = true;
        self.changes
            .records
            .push(Record::Counters(self.model.counters));
    }
}

/// Users, keys, pending registrations, DNS records.
impl Tx<'_> {
    /// The number of a new user.
    ///
    /// # Errors
    /// When all are used up.
    pub(super) fn take_user_id(&mut self) -> Result<UserId, Rejected> {
        let id = self.model.counters.user;
        self.model.counters.user = id.next().ok_or(Rejected::NoIds)?;
        self.put_counters();
        Ok(id)
    }

    /// The number of a new preauth key.
    ///
    /// # Errors
    /// When all are used up.
    pub(super) fn take_preauth_key_id(&mut self) -> Result<PreAuthKeyId, Rejected> {
        let id = self.model.counters.preauth_key;
        self.model.counters.preauth_key = id.next().ok_or(Rejected::NoIds)?;
        self.put_counters();
        Ok(id)
    }

    /// The number of a new API key.
    ///
    /// # Errors
    /// When all are used up.
    pub(super) fn take_api_key_id(&mut self) -> Result<ApiKeyId, Rejected> {
        let id = self.model.counters.api_key;
        self.model.counters.api_key = id.next().ok_or(Rejected::NoIds)?;
        self.put_counters();
        Ok(id)
    }

    /// Adds a user, or replaces the one with the same number.
    pub(super) fn put_user(&mut self, user: User) {
        let user = Arc::new(user);
        Arc::make_mut(&mut self.model.users).insert(user.id, user.clone());
        self.model.note(Change::User(user.id));
        self.changes.records.push(Record::PutUser(user));
    }

    /// Takes a user out, with its preauth keys, and says how many these were.
    pub(super) fn remove_user(&mut self, id: UserId) -> usize {
        self.model.changed = true;
        Arc::make_mut(&mut self.model.users).remove(&id);
        self.changes.records.push(Record::DeleteUser(id));
        let keys = self.model.preauth_keys.values();
        let keys = keys.filter(|key| key.user == Some(id)).map(|key| key.id);
        let keys: Vec<PreAuthKeyId> = keys.collect();
        for key in &keys {
            self.remove_preauth_key(*key);
        }
        keys.len()
    }

    /// Adds a preauth key, or replaces the one with the same number.
    pub(super) fn put_preauth_key(&mut self, key: PreAuthKey) {
        let key = Arc::new(key);
        self.model.changed = true;
        Arc::make_mut(&mut self.model.preauth_keys).insert(key.id, key.clone());
        self.changes.records.push(Record::PutPreAuthKey(key));
    }

    /// Takes a preauth key out.
    pub(super) fn remove_preauth_key(&mut self, id: PreAuthKeyId) {
        self.model.changed = true;
        Arc::make_mut(&mut self.model.preauth_keys).remove(&id);
        self.changes.records.push(Record::DeletePreAuthKey(id));
    }

    /// Adds an API key, or replaces the one with the same number.
    pub(super) fn put_api_key(&mut self, key: ApiKey) {
        let key = Arc::new(key);
        self.model.changed = true;
        Arc::make_mut(&mut self.model.api_keys).insert(key.id, key.clone());
        self.changes.records.push(Record::PutApiKey(key));
    }

    /// Takes an API key out.
    pub(super) fn remove_api_key(&mut self, id: ApiKeyId) {
        self.model.changed = true;
        Arc::make_mut(&mut self.model.api_keys).remove(&id);
        self.changes.records.push(Record::DeleteApiKey(id));
    }

    /// Adds a pending registration, or replaces the one with the same id.
    pub(super) fn put_pending(&mut self, pending: PendingRegistration) {
        self.model.changed = true;
        Arc::make_mut(&mut self.model.pending).insert(pending.id.clone(), Arc::new(pending));
    }

    /// Takes a pending registration out.
    pub(super) fn remove_pending(&mut self, id: &AuthId) {
        self.model.changed = true;
        Arc::make_mut(&mut self.model.pending).remove(id);
    }

    /// Reserves the names that the configuration uses; nothing of it is stored.
    pub(super) fn reserve_names(&mut self, names: ReservedNames) {
        self.model.reserved = Arc::new(names);
    }

    /// Adds a DNS record.
    pub(super) fn put_dns_record(&mut self, record: DnsRecord) {
        self.model.changed = true;
        Arc::make_mut(&mut self.model.dns_records).insert(record.clone());
        self.changes.records.push(Record::PutDnsRecord(record));
    }

    /// Takes a DNS record out.
    pub(super) fn remove_dns_record(&mut self, record: DnsRecord) {
        self.model.changed = true;
        Arc::make_mut(&mut self.model.dns_records).remove(&record);
        self.changes.records.push(Record::DeleteDnsRecord(record));
    }
}

/// The policy.
impl Tx<'_> {
    /// Adds the newest version of the policy.
    pub(super) fn push_policy(&mut self, version: PolicyText) {
        let version = Arc::new(version);
        self.model.changed = true;
        Arc::make_mut(&mut self.model.policies).push(version.clone());
        self.changes.records.push(Record::PutPolicy(version));
    }

    /// Takes the oldest version of the policy out.
    pub(super) fn remove_oldest_policy(&mut self) {
        let Some(oldest) = self.model.policies.first().map(|oldest| oldest.id) else {
            return;
        };
        self.model.changed = true;
        Arc::make_mut(&mut self.model.policies).remove(0);
        self.changes.records.push(Record::DeletePolicy(oldest));
    }

    /// Lets a compiled policy apply, and gives the one before it.
    pub(super) fn replace_compiled(&mut self, compiled: Compiled) -> Arc<Compiled> {
        self.model.changed = true;
        std::mem::replace(&mut self.model.compiled, Arc::new(compiled))
    }

    /// The nodes that changed since this was last asked.
    pub(super) fn take_touched(&mut self) -> Arc<BTreeSet<NodeId>> {
        std::mem::take(&mut self.model.touched)
    }

    /// Whether what is only in memory is due to be written.
    pub(super) fn is_flush_due(&self) -> bool {
        self.now.mono >= self.model.flush_at
    }
}
