//! What tests of the state and of everything above it have in common.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::{End, Now, PLAUSIBLE_FROM};
use crate::id::{NodeId, UserId};
use crate::keys::{MachineKey, NodeKey};
use crate::state::addr::Prefixes;
use crate::state::apply::{Applied, Flush, apply, recompile, tick};
use crate::state::command::{
    Command, NewPolicy, NewPreAuthKey, NewUser, NodeUpdate, Outcome, PresentedKey, Register,
    RegisterReply, Rejected, RequestedExpiry,
};
use crate::state::event::Event;
use crate::state::model::{Hostinfo, Model, Node, SessionId, Settings};
use crate::state::principal::Principal;
use crate::state::record::Record;
use crate::state::secret::SecretHash;
use crate::state::snapshot::Snapshot;
use crate::state::tx::{Handover, Tx};

/// A tailnet under test: its model, its clock, and all records and events so far.
pub struct World {
    pub model: Model,
    pub now: Now,
    pub records: Vec<Record>,
    pub events: Vec<Event>,
    pub handovers: Vec<Handover>,
    sessions: u64,
}

pub fn settings() -> Settings {
    Settings {
        prefixes: Prefixes::default(),
        prefixes_are_lost: false,
        policy_is_configured: false,
        node_expiry: None,
        device_approval: false,
        ephemeral_timeout: Duration::from_secs(60),
        offline_grace: Duration::from_secs(10),
        restart_grace: Duration::from_secs(90),
        flush_interval: Duration::from_secs(1800),
        max_nodes: 100,
        max_users: 10,
        max_preauth_keys: 10,
        max_api_keys: 10,
        max_pending: 4,
        pending_lifetime: Duration::from_secs(3600),
    }
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

impl World {
    pub fn new() -> Self {
        let now = Now {
            wall: PLAUSIBLE_FROM.plus(Duration::from_secs(1)),
            mono: Duration::ZERO,
        };
        Self {
            model: Model::new(settings(), now),
            now,
            records: Vec::new(),
            events: Vec::new(),
            handovers: Vec::new(),
            sessions: 0,
        }
    }

    /// A world with a user who owns nothing yet.
    pub fn with_user() -> (Self, UserId) {
        let mut world = Self::new();
        let new = NewUser {
            name: "anna".into(),
            ..NewUser::default()
        };
        let Ok(Outcome::User(user)) = world.apply(Command::CreateUser(new)) else {
            panic!("the user was refused");
        };
        (world, user)
    }

    /// Applies a command that somebody at the socket gives.
    pub fn apply(&mut self, command: Command) -> Applied {
        self.apply_as(&Principal::Socket, command)
    }

    pub fn apply_as(&mut self, by: &Principal, command: Command) -> Applied {
        let mut tx = Tx::begin(&mut self.model, self.now);
        let applied = apply(&mut tx, command, by);
        recompile(&mut tx);
        let changes = tx.finish();
        self.records.extend(changes.records);
        self.events.extend(changes.events);
        self.handovers.extend(changes.handovers);
        applied
    }

    /// Lets time pass, then does what is due.
    pub fn wait(&mut self, time: Duration) {
        self.now.mono += time;
        self.now.wall = self.now.wall.plus(time);
        self.tick(Flush::WhenDue);
    }

    pub fn tick(&mut self, how: Flush) {
        let mut tx = Tx::begin(&mut self.model, self.now);
        tick(&mut tx, how);
        let changes = tx.finish();
        self.records.extend(changes.records);
        self.events.extend(changes.events);
        self.handovers.extend(changes.handovers);
    }

    pub fn snapshot(&self) -> Snapshot {
        Snapshot::of(&self.model, None)
    }

    pub fn node(&self, id: NodeId) -> &Arc<Node> {
        self.model.node(id).expect("the node is there")
    }

    /// Makes a preauth key with the secret `name`.
    pub fn preauth_key(&mut self, name: &str, change: impl FnOnce(&mut NewPreAuthKey)) {
        let mut new = NewPreAuthKey {
            user: Some(UserId::FIRST),
            tags: Vec::new(),
            reusable: false,
            ephemeral: false,
            preauthorized: true,
            expiry: End::Never,
            prefix: name.into(),
            hash: SecretHash::of(name),
        };
        change(&mut new);
        self.apply(Command::CreatePreAuthKey(new))
            .expect("the key is granted");
    }

    pub fn register(&mut self, request: Register) -> Result<RegisterReply, Rejected> {
        let command = Command::Register(Box::new(request));
        match self.apply_as(&Principal::Device, command)? {
            Outcome::Registered(registration) => {
                registration.settled(&|id| self.model.node(id).cloned())
            }
            other => panic!("unexpected: {other:?}"),
        }
    }

    /// Registers and expects to join.
    pub fn join(&mut self, request: Register) -> Arc<Node> {
        match self.register(request) {
            Ok(RegisterReply::Welcome(node)) => node,
            other => panic!("did not join: {other:?}"),
        }
    }

    /// A node that joined with a key of its own.
    pub fn node_number(&mut self, number: u8) -> NodeId {
        let name = format!("key{number}");
        self.preauth_key(&name, |_| {});
        self.join(with_key(number, number, &name)).id
    }

    /// Gives a node the name that it has, as an administrator does.
    pub fn confirm_name(&mut self, node: NodeId) {
        let label = self.node(node).label.clone();
        self.apply(Command::RenameNode(node, label))
            .expect("the name is its own");
    }

    /// Sets a policy, which has to be taken.
    pub fn set_policy(&mut self, text: &str) {
        let new = NewPolicy::parse(text, true).expect("a policy");
        self.apply(Command::SetPolicy(Box::new(new)))
            .expect("the policy is taken over");
    }

    pub fn open_stream(&mut self, node: NodeId) -> SessionId {
        self.open_stream_saying(node, NodeUpdate::default())
    }

    pub fn open_stream_saying(&mut self, node: NodeId, says: NodeUpdate) -> SessionId {
        self.sessions += 1;
        let session = SessionId(self.sessions);
        let fallback = Box::new(says);
        self.apply(Command::OpenStream {
            node,
            session,
            fallback,
        })
        .expect("the stream opens");
        session
    }
}

/// A registration of machine `machine` with node key `key` and nothing else.
pub fn plain(machine: u8, key: u8) -> Register {
    let hostinfo = Hostinfo {
        raw: "{}".into(),
        shared: r#"{"OS":"linux"}"#.into(),
        hostname: format!("host{machine}").into(),
        ..Hostinfo::default()
    };
    Register {
        machine: MachineKey::from_bytes([machine; 32]),
        source: [192, 0, 2, machine].into(),
        key: NodeKey::from_bytes([key; 32]),
        lock: None,
        auth_key: None,
        expiry: RequestedExpiry::None,
        followup: None,
        ephemeral: false,
        hostinfo: Arc::new(hostinfo),
        capability: 131,
        fresh_id: format!("login-{machine}-{key}")
            .parse()
            .expect("a valid id"),
    }
}

/// The same with the preauth key whose secret is `name`.
pub fn with_key(machine: u8, key: u8, name: &str) -> Register {
    let shown = PresentedKey::WellFormed {
        prefix: name.into(),
        hash: SecretHash::of(name),
    };
    Register {
        auth_key: Some(shown),
        ..plain(machine, key)
    }
}
