//! The domain: users, nodes, keys, pending registrations, and the [`Model`] that holds them all.
//!
//! Must not know: wire formats, the database, the system's clocks.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hearth_shares::Source;
use ipnet::IpNet;

use crate::clock::{Boot, Now, Timestamp};
use crate::id::{ApiKeyId, AuthId, NodeId, PolicyId, PreAuthKeyId, Revision, UserId};
use crate::keys::{DiscoKey, LockKey, MachineKey, NodeKey};
use crate::policy::{Compiled, Directory};
pub use crate::policy::{Owner, Role};
use crate::state::addr::{Cursors, Prefixes};
use crate::state::attributes::Attributes;
use crate::state::dns::{DnsRecord, NodeName, ReservedNames, label_in};
use crate::state::ending::Ending;
use crate::state::scope::Scopes;
use crate::state::secret::SecretHash;

/// A user, who owns nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Id of the user; never reused.
    pub id: UserId,
    /// Login name; unique, never empty.
    pub name: Box<str>,
    /// Display name; may be empty.
    pub display_name: Box<str>,
    /// Email address; may be empty.
    pub email: Box<str>,
    /// URL of the profile picture; may be empty.
    pub picture_url: Box<str>,
    /// Role of the user in the tailnet.
    pub role: Role,
    /// Key lifetime of the user's nodes; `None` uses the configured one.
    pub node_expiry: Option<KeyLifetime>,
    /// When the user was created.
    pub created: Timestamp,
}

/// Key lifetime: how long after a login a node key expires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyLifetime {
    /// The key never expires.
    Unlimited,
    /// The key expires this long after each login.
    For(Duration),
}

/// How a node was registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RegisteredBy {
    /// With this preauth key, which may be deleted by now.
    PreAuthKey(PreAuthKeyId),
    /// A user approved the pending registration.
    Approval,
    /// An administrator added it as a WireGuard-only peer.
    Hand,
}

/// A WireGuard-only peer: a device without a Tailscale client, added by an administrator. Clients reach it
/// at fixed endpoints and without path discovery (`Node.IsWireGuardOnly` in tailscale `tailcfg/tailcfg.go`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WireGuard {
    /// IPv4 source address that it expects from its peers, if not their tailnet address
    /// (`SelfNodeV4MasqAddrForThisPeer`).
    pub masquerade_v4: Option<Ipv4Addr>,
    /// IPv6 source address that it expects from its peers (`SelfNodeV6MasqAddrForThisPeer`).
    pub masquerade_v6: Option<Ipv6Addr>,
    /// Resolvers for nodes that use it as their exit node: addresses or DoH URLs.
    pub exit_dns: Box<[Box<str>]>,
}

/// Host information as the client reports it, as far as hearth keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Hostinfo {
    /// The whole object as JSON, without `NetInfo`, which changes often; bounded by the request limit.
    pub raw: Box<str>,
    /// The part that is sent to other nodes, as JSON.
    pub shared: Box<str>,
    /// Hostname; any text.
    pub hostname: Box<str>,
    /// Operating system.
    pub os: Box<str>,
    /// Version of the operating system.
    pub os_version: Box<str>,
    /// Version of the client.
    pub client_version: Box<str>,
    /// Routes that the client advertises, sorted; an exit node advertises `0.0.0.0/0` and `::/0`.
    pub routable_ips: Box<[IpNet]>,
    /// Tags that the client requests; of a node those of its last login, which alone can give them.
    pub request_tags: Box<[Box<str>]>,
}

/// One map stream of a node. A newer stream has a higher number and replaces the older one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SessionId(pub u64);

/// Presence of a node: whether it is online.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// It registered and has not requested a map yet.
    New {
        /// When it registered (monotonic); at the earliest the start of hearth.
        since_mono: Duration,
    },
    /// It was online before hearth restarted and has not reconnected yet; counts as online for a while.
    Returning,
    /// It has this map stream open.
    Online(SessionId),
    /// Its map stream ended; counts as online until the grace period is over.
    Leaving {
        /// When it becomes offline (monotonic).
        until: Duration,
        /// When its map stream ended.
        since: Timestamp,
    },
    /// It is a WireGuard-only peer, which counts as online at all times.
    Fixed,
    /// It is offline.
    Offline {
        /// When it was last online.
        since: Timestamp,
        /// The same on the monotonic clock; at the earliest the start of hearth.
        since_mono: Duration,
    },
}

impl Presence {
    /// Whether other nodes see it as online.
    pub fn is_online(self) -> bool {
        matches!(
            self,
            Self::Returning | Self::Online(_) | Self::Leaving { .. } | Self::Fixed
        )
    }

    /// Whether other nodes see it at all: not before it has requested its own map, since until then no peer
    /// could reach it.
    pub fn is_visible(self) -> bool {
        !matches!(self, Self::New { .. })
    }

    /// When the node was last online; `None` while it is online, and if it never was.
    pub fn last_seen(self) -> Option<Timestamp> {
        match self {
            Self::Offline { since, .. } => Some(since),
            Self::New { .. }
            | Self::Returning
            | Self::Online(_)
            | Self::Leaving { .. }
            | Self::Fixed => None,
        }
    }
}

/// Revisions at which the parts of a node last changed; a map stream compares them to know what to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Facets {
    /// Name, keys, addresses, owner, expiry, host information: sent as a whole node.
    pub core: Revision,
    /// Endpoints, home DERP region and disco key: sent as a patch.
    pub endpoints: Revision,
    /// Online and last seen: sent as a patch.
    pub presence: Revision,
    /// The owner: sent with the whole node, and makes clients show another profile.
    pub owner: Revision,
}

impl Facets {
    /// The newest of these revisions.
    pub fn latest(&self) -> Revision {
        self.core.max(self.endpoints).max(self.presence)
    }
}

/// A node: one device of the tailnet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Id of the node; never reused.
    pub id: NodeId,
    /// Machine key of the client's installation; with the owner it identifies the node.
    pub machine: MachineKey,
    /// Node key (WireGuard public key); changes at re-authentication.
    pub key: NodeKey,
    /// Disco key, for path discovery; new at each start of the client.
    pub disco: Option<DiscoKey>,
    /// Tailnet Lock key, if the client has one.
    pub lock: Option<LockKey>,
    /// Owner: a user or tags.
    pub owner: Owner,
    /// DNS label, unique in the tailnet.
    pub label: Box<str>,
    /// Whether the node was renamed; otherwise the label follows the hostname.
    pub label_chosen: bool,
    /// Host information as the client reports it.
    pub hostinfo: Arc<Hostinfo>,
    /// IPv4 address in the tailnet.
    pub ipv4: Ipv4Addr,
    /// IPv6 address in the tailnet.
    pub ipv6: Ipv6Addr,
    /// When the node was registered.
    pub created: Timestamp,
    /// When the node key expires; `None` is never.
    pub expiry: Option<Timestamp>,
    /// How that came about.
    pub ending: Ending,
    /// Whether the node key has expired; kept here so that the expiry is announced once.
    pub expired: bool,
    /// Whether the device is approved; until then it has no peers.
    pub authorized: bool,
    /// Set for a WireGuard-only peer.
    pub wireguard: Option<Arc<WireGuard>>,
    /// Approved routes, sorted; it serves those that it also advertises.
    pub approved_routes: Arc<[IpNet]>,
    /// Subnet routes for which it is the primary router, sorted; chosen in `apply::routes`.
    pub primary_routes: Arc<[IpNet]>,
    /// Whether it failed to answer a probe while other subnet routers could serve its routes.
    pub unhealthy: bool,
    /// Whether its client said with its latest map request that IP forwarding is off, so that its routes do not work. Not stored.
    pub forwarding_off: bool,
    /// Whether it is deleted after it has been offline for a while.
    pub ephemeral: bool,
    /// How the node was registered.
    pub registered_by: RegisteredBy,
    /// Capability version of the client; 0 before its first request.
    pub capability: u16,
    /// Home DERP region; 0 is none.
    pub home_derp: u16,
    /// Endpoint candidates.
    pub endpoints: Arc<[SocketAddr]>,
    /// Whether the client has reported endpoints and disco key since hearth started.
    pub live: bool,
    /// Tags that its client asks for since its last login; only another login can give them. Not stored.
    pub unmet_tags: Box<[Box<str>]>,
    /// Whether it is online.
    pub presence: Presence,
    /// Revisions of its last changes.
    pub facets: Facets,
    /// Whether the next flush writes it: since it was last written, only what its client repeats by itself has changed.
    pub unflushed: bool,
}

impl Node {
    /// The user that owns the node; `None` for a tagged node.
    pub fn user(&self) -> Option<UserId> {
        match self.owner {
            Owner::User(id) => Some(id),
            Owner::Tags(_) => None,
        }
    }

    /// The tags; empty for a node that a user owns.
    pub fn tags(&self) -> &[Box<str>] {
        match &self.owner {
            Owner::User(_) => &[],
            Owner::Tags(tags) => tags,
        }
    }

    /// Whether `name` is the label or full name of the node, or one of its tags.
    pub fn is_named(&self, name: &str, base_domain: &str) -> bool {
        match name.starts_with("tag:") {
            true => self.tags().iter().any(|tag| **tag == *name),
            false => label_in(name, base_domain) == Some(&*self.label),
        }
    }

    /// Whether the configuration means this node by `name`: one of its tags, its number, or its label or full name if
    /// an administrator chose the label. A label that the device chose itself has no authority.
    pub fn is_meant_by(&self, name: &str, base_domain: &str) -> bool {
        match name.parse::<NodeId>() {
            Ok(id) => id == self.id,
            Err(_) => {
                let is_chosen = self.label_chosen || name.starts_with("tag:");
                is_chosen && self.is_named(name, base_domain)
            }
        }
    }

    /// Whether the configuration means this node by one of these names.
    pub fn is_one_of(&self, names: &[NodeName], base_domain: &str) -> bool {
        let mut names = names.iter();
        names.any(|name| self.is_meant_by(name.as_str(), base_domain))
    }

    /// The advertised routes that are approved, sorted.
    pub fn served_routes(&self) -> impl Iterator<Item = IpNet> + '_ {
        let approved = |route: &&IpNet| self.approved_routes.binary_search(route).is_ok();
        self.hostinfo.routable_ips.iter().filter(approved).copied()
    }

    /// The advertised routes that await approval, sorted.
    pub fn waiting_routes(&self) -> impl Iterator<Item = IpNet> + '_ {
        let waits = |route: &&IpNet| self.approved_routes.binary_search(route).is_err();
        self.hostinfo.routable_ips.iter().filter(waits).copied()
    }

    /// Whether policy and route selection treat the two versions of a node alike.
    fn is_like_for_policy(&self, other: &Self) -> bool {
        let same_machine =
            Arc::ptr_eq(&self.hostinfo, &other.hostinfo) || self.hostinfo == other.hostinfo;
        let state = |node: &Self| {
            let online = node.is_online();
            let works = (node.unhealthy, node.forwarding_off);
            (online, node.is_active(), node.expired, works)
        };
        same_machine
            && self.owner == other.owner
            && (self.ipv4, self.ipv6) == (other.ipv4, other.ipv6)
            && self.approved_routes == other.approved_routes
            && self.primary_routes == other.primary_routes
            && state(self) == state(other)
    }

    /// Whether other nodes see it as online: with an expired key it is offline at once, also while its client is connected.
    pub fn is_online(&self) -> bool {
        self.presence.is_online() && !self.expired
    }

    /// When the node was last online; `None` while it is online, and if it never was.
    pub fn last_seen(&self) -> Option<Timestamp> {
        match self.presence.is_online() && self.expired {
            true => self.expiry,
            false => self.presence.last_seen(),
        }
    }

    /// Tags that its client asks for and that only another login can give.
    pub fn tags_without_login(&self) -> &[Box<str>] {
        match self.unmet_tags.iter().all(|tag| self.tags().contains(tag)) {
            true => &[],
            false => &self.unmet_tags,
        }
    }

    /// Whether the policy applies to it: it is approved and has requested a map at least once.
    pub fn is_active(&self) -> bool {
        self.authorized && self.presence.is_visible()
    }

    /// Whether it has no peers: its key has expired, or the device is not approved.
    pub fn is_isolated(&self) -> bool {
        self.expired || !self.authorized
    }
}

/// Whether this is a default route, which makes a node an exit node.
pub fn is_exit_route(route: &IpNet) -> bool {
    route.prefix_len() == 0
}

/// A preauth key, which registers devices without a login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreAuthKey {
    /// Id of the key.
    pub id: PreAuthKeyId,
    /// Public part of the key, by which it is looked up.
    pub prefix: Box<str>,
    /// Hash of the secret part.
    pub hash: SecretHash,
    /// Owner of the nodes that it registers; `None` for tagged nodes.
    pub user: Option<UserId>,
    /// Tags of the nodes that it registers; empty if a user owns them.
    pub tags: Arc<[Box<str>]>,
    /// Whether it may be used more than once.
    pub reusable: bool,
    /// Whether its nodes are ephemeral.
    pub ephemeral: bool,
    /// Whether its nodes need no device approval.
    pub preauthorized: bool,
    /// Whether it was used.
    pub used: bool,
    /// When the key expires; `None` is never.
    pub expiry: Option<Timestamp>,
    /// How that came about.
    pub ending: Ending,
    /// When the key was created.
    pub created: Timestamp,
}

impl PreAuthKey {
    /// The owner of the nodes that join with it.
    pub fn owner(&self) -> Owner {
        match self.user {
            Some(user) if self.tags.is_empty() => Owner::User(user),
            _ => Owner::Tags(self.tags.clone()),
        }
    }

    /// Whether its time is over.
    pub fn has_ended(&self, now: Now) -> bool {
        self.ending.is_over(self.expiry, now)
    }

    /// Whether a device may join with it now.
    ///
    /// # Errors
    /// [`UnusableKey`].
    pub fn may_join(&self, now: Now) -> Result<(), UnusableKey> {
        if self.has_ended(now) {
            return Err(UnusableKey::Expired);
        }
        match self.used && !self.reusable {
            true => Err(UnusableKey::Used),
            false => Ok(()),
        }
    }
}

/// Why no device may join with a preauth key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnusableKey {
    /// Its time is over.
    Expired,
    /// It was for one device, which has joined.
    Used,
}

impl ApiKey {
    /// Whether its time is over.
    pub fn has_ended(&self, now: Now) -> bool {
        self.ending.is_over(self.expiry, now)
    }
}

/// An API key, for the REST API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKey {
    /// Id of the key.
    pub id: ApiKeyId,
    /// Public part of the key, by which it is looked up.
    pub prefix: Box<str>,
    /// Hash of the secret part.
    pub hash: SecretHash,
    /// Scopes: what the key may do.
    pub scopes: Scopes,
    /// When the key expires; `None` is never.
    pub expiry: Option<Timestamp>,
    /// How that came about.
    pub ending: Ending,
    /// When the key was created.
    pub created: Timestamp,
}

/// One version of the policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyText {
    /// Id of the version.
    pub id: PolicyId,
    /// HuJSON text of the policy.
    pub source: Arc<str>,
    /// When it was set.
    pub created: Timestamp,
}

/// State of a pending registration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PendingState {
    /// It awaits approval.
    Waiting,
    /// It was rejected; kept for a while so that the client learns of it.
    Rejected,
    /// It was approved and became this node; kept for a while for the registration page.
    Approved(NodeId),
}

/// A pending registration: a device that awaits approval by a user. Only in memory: after a restart the client asks again.
/// A machine has at most one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingRegistration {
    /// Id, the last part of the registration URL.
    pub id: AuthId,
    /// Machine key of the device; only this device gets the answer.
    pub machine: MachineKey,
    /// Requested node key.
    pub key: NodeKey,
    /// Tailnet Lock key, if the client has one.
    pub lock: Option<LockKey>,
    /// Host information as the client reports it.
    pub hostinfo: Arc<Hostinfo>,
    /// Whether the client requests an ephemeral node.
    pub ephemeral: bool,
    /// Requested expiry of the node key.
    pub expiry: Option<Timestamp>,
    /// Capability version of the client.
    pub capability: u16,
    /// Where the client is.
    pub source: Source,
    /// When the client requested registration.
    pub created: Timestamp,
    /// The same on the monotonic clock, by which it expires.
    pub asked: Duration,
    /// Whether it was approved or rejected.
    pub state: PendingState,
}

/// Settings of the tailnet, from the configuration; constant while hearth runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Prefixes from which nodes get addresses.
    pub prefixes: Prefixes,
    /// Whether no node gets a new address: the configured prefixes are not known.
    pub prefixes_are_lost: bool,
    /// Whether a policy is configured: nobody reaches anybody as long as none was ever valid. Otherwise everyone
    /// reaches everyone without one.
    pub policy_is_configured: bool,
    /// Key lifetime of nodes that users own; `None` is unlimited.
    pub node_expiry: Option<Duration>,
    /// Whether new devices need approval by an administrator.
    pub device_approval: bool,
    /// How long an ephemeral node may be offline before it is deleted.
    pub ephemeral_timeout: Duration,
    /// How long a node may be without a map stream before it counts as offline.
    pub offline_grace: Duration,
    /// How long after a restart nodes may take to reconnect before they count as offline.
    pub restart_grace: Duration,
    /// How often what devices report is written to disk, if it is as much as one small commit; more waits longer.
    pub flush_interval: Duration,
    /// Maximum number of nodes.
    pub max_nodes: usize,
    /// Maximum number of users.
    pub max_users: usize,
    /// Maximum number of preauth keys.
    pub max_preauth_keys: usize,
    /// Maximum number of API keys.
    pub max_api_keys: usize,
    /// Maximum number of pending registrations, recently decided ones included.
    pub max_pending: usize,
    /// How long a pending registration awaits approval before it expires.
    pub pending_lifetime: Duration,
}

/// A change that may have to be sent to other nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// A node is new or changed; its facets say how.
    Node(NodeId),
    /// A node was deleted.
    NodeRemoved(NodeId),
    /// A user's profile changed.
    User(UserId),
}

/// Maximum number of changes kept for map streams that lag; one that lags further gets a full map.
pub const CHANGES_KEPT: usize = 512;

/// The next id of each kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counters {
    /// Next node.
    pub node: NodeId,
    /// Next user.
    pub user: UserId,
    /// Next preauth key.
    pub preauth_key: PreAuthKeyId,
    /// Next API key.
    pub api_key: ApiKeyId,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            node: NodeId::FIRST,
            user: UserId::FIRST,
            preauth_key: PreAuthKeyId::FIRST,
            api_key: ApiKeyId::FIRST,
        }
    }
}

/// The wall clock as it was when ends were last made to follow it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockSeen {
    /// Wall-clock time at the monotonic zero, in milliseconds.
    pub offset: i64,
    /// Whether it was plausible.
    pub plausible: bool,
    /// When that was (monotonic).
    pub since: Duration,
    /// Whether it has stayed so for long enough to be trusted.
    pub proven: bool,
}

/// The whole state of the tailnet. A clone is cheap because it shares all parts, and dropping a changed
/// clone undoes the changes.
#[derive(Debug, Clone)]
pub struct Model {
    /// Revision of this state.
    pub revision: Revision,
    /// Whether the current batch of commands has changed something.
    pub changed: bool,
    /// When hearth started.
    pub started: Now,
    /// When unflushed nodes are written next (monotonic).
    pub flush_at: Duration,
    /// Settings from the configuration.
    pub settings: Arc<Settings>,
    /// The next id of each kind.
    pub counters: Counters,
    /// The last addresses that were given out.
    pub cursors: Arc<Cursors>,
    /// The run of the system.
    pub boot: Boot,
    /// The clock as it was seen last, to notice when it is set; `None` before the first look.
    pub clock: Option<ClockSeen>,
    /// Machines whose approval a person revoked: no key approves their nodes.
    pub shut_out: Arc<BTreeSet<MachineKey>>,
    /// Users by id.
    pub users: Arc<BTreeMap<UserId, Arc<User>>>,
    /// Nodes, sorted by id.
    pub nodes: Arc<Vec<Arc<Node>>>,
    /// Node ids by node key.
    pub by_key: Arc<HashMap<NodeKey, NodeId>>,
    /// Node ids by machine, sorted, without WireGuard-only peers, which have none. A list because each batch that adds a
    /// node copies it.
    pub by_machine: Arc<Vec<(MachineKey, NodeId)>>,
    /// Posture attributes, of the nodes that have any.
    pub attributes: Arc<BTreeMap<NodeId, Arc<Attributes>>>,
    /// Preauth keys by id.
    pub preauth_keys: Arc<BTreeMap<PreAuthKeyId, Arc<PreAuthKey>>>,
    /// API keys by id.
    pub api_keys: Arc<BTreeMap<ApiKeyId, Arc<ApiKey>>>,
    /// DNS records made by the API.
    pub dns_records: Arc<BTreeSet<DnsRecord>>,
    /// Names that the configuration uses.
    pub reserved: Arc<ReservedNames>,
    /// Pending registrations, recently decided ones included.
    pub pending: Arc<BTreeMap<AuthId, Arc<PendingRegistration>>>,
    /// The last changes, oldest first, at most [`CHANGES_KEPT`].
    pub changes: Arc<VecDeque<(Revision, Change)>>,
    /// Revision after which `changes` is complete.
    pub changes_from: Revision,
    /// Revision at which a key last gained or lost admission to the relay.
    pub admission: Revision,
    /// The versions of the policy that are kept, oldest first; the last one is in force.
    pub policies: Arc<Vec<Arc<PolicyText>>>,
    /// The policy compiled for the active nodes.
    pub compiled: Arc<Compiled>,
    /// Nodes that changed since `compiled` and the primary routes were last recomputed.
    pub touched: Arc<BTreeSet<NodeId>>,
}

impl Model {
    /// An empty tailnet.
    pub fn new(settings: Settings, now: Now) -> Self {
        Self {
            revision: Revision::ZERO,
            changed: false,
            started: now,
            flush_at: now.mono.saturating_add(settings.flush_interval),
            settings: Arc::new(settings),
            counters: Counters::default(),
            cursors: Arc::default(),
            boot: Boot::default(),
            clock: None,
            shut_out: Arc::default(),
            users: Arc::default(),
            nodes: Arc::default(),
            by_key: Arc::default(),
            by_machine: Arc::default(),
            attributes: Arc::default(),
            preauth_keys: Arc::default(),
            api_keys: Arc::default(),
            dns_records: Arc::default(),
            reserved: Arc::default(),
            pending: Arc::default(),
            changes: Arc::default(),
            changes_from: Revision::ZERO,
            admission: Revision::ZERO,
            policies: Arc::default(),
            compiled: Arc::new(Compiled::allow_all(&Directory::default())),
            touched: Arc::default(),
        }
    }

    /// The node with this id.
    pub fn node(&self, id: NodeId) -> Option<&Arc<Node>> {
        let place = self.nodes.binary_search_by_key(&id, |node| node.id).ok()?;
        self.nodes.get(place)
    }

    /// The node with this key.
    pub fn node_by_key(&self, key: &NodeKey) -> Option<&Arc<Node>> {
        self.node(*self.by_key.get(key)?)
    }

    /// The nodes of this machine, by id: one for each owner.
    pub fn nodes_of_machine(&self, machine: &MachineKey) -> impl Iterator<Item = &Arc<Node>> {
        let machine = *machine;
        let first = (self.by_machine).partition_point(|(other, _)| *other < machine);
        let from = self.by_machine.iter().skip(first);
        let ids = from.take_while(move |(other, _)| *other == machine);
        ids.filter_map(|(_, id)| self.node(*id))
    }

    /// Replaces all nodes, which must be sorted by id.
    pub fn set_nodes(&mut self, nodes: Vec<Arc<Node>>) {
        let by_key = nodes.iter().map(|node| (node.key, node.id));
        self.by_key = Arc::new(by_key.collect());
        let clients = nodes.iter().filter(|node| node.wireguard.is_none());
        let mut by_machine: Vec<_> = clients.map(|node| (node.machine, node.id)).collect();
        by_machine.sort_unstable();
        self.by_machine = Arc::new(by_machine);
        self.nodes = Arc::new(nodes);
    }

    /// Adds a node, or replaces the one with the same id. Its machine stays.
    pub(super) fn put_node(&mut self, node: Node) {
        if node.wireguard.is_none() && self.node(node.id).is_none() {
            let entry = (node.machine, node.id);
            if let Err(place) = self.by_machine.binary_search(&entry) {
                Arc::make_mut(&mut self.by_machine).insert(place, entry);
            }
        }
        let old = self.node(node.id);
        let old_key = old.map(|old| old.key);
        let moved = old.is_none_or(|old| !old.is_like_for_policy(&node));
        if old_key != Some(node.key) {
            let by_key = Arc::make_mut(&mut self.by_key);
            if let Some(old_key) = old_key {
                by_key.remove(&old_key);
            }
            by_key.insert(node.key, node.id);
            self.admission = self.revision;
        }
        if moved {
            Arc::make_mut(&mut self.touched).insert(node.id);
        }
        let nodes = Arc::make_mut(&mut self.nodes);
        match nodes.binary_search_by_key(&node.id, |known| known.id) {
            Ok(place) => {
                if let Some(slot) = nodes.get_mut(place) {
                    *slot = Arc::new(node);
                }
            }
            Err(place) => nodes.insert(place, Arc::new(node)),
        }
    }

    /// Removes a node. Returns whether it existed.
    pub(super) fn take_node(&mut self, id: NodeId) -> bool {
        let Ok(place) = self.nodes.binary_search_by_key(&id, |node| node.id) else {
            return false;
        };
        let node = Arc::make_mut(&mut self.nodes).remove(place);
        Arc::make_mut(&mut self.by_key).remove(&node.key);
        if let Ok(place) = self.by_machine.binary_search(&(node.machine, id)) {
            Arc::make_mut(&mut self.by_machine).remove(place);
        }
        Arc::make_mut(&mut self.touched).insert(id);
        self.admission = self.revision;
        true
    }

    /// Records a change for the map streams.
    pub(super) fn note(&mut self, change: Change) {
        self.changed = true;
        let changes = Arc::make_mut(&mut self.changes);
        changes.push_back((self.revision, change));
        while changes.len() > CHANGES_KEPT {
            if let Some((dropped, _)) = changes.pop_front() {
                self.changes_from = dropped;
            }
        }
    }
}
