//! The domain: users, nodes, keys, pending logins, and the [`Model`] that holds them all.
//!
//! Must not know: wire formats, the database, the system's clocks.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use crate::clock::{Now, Timestamp};
use crate::id::{ApiKeyId, NodeId, PolicyId, PreAuthKeyId, Revision, UserId};
use crate::keys::{DiscoKey, LockKey, MachineKey, NodeKey};
use crate::policy::{Compiled, Directory};
pub use crate::policy::{Owner, Role};
use crate::state::addr::Prefixes;
use crate::state::attributes::Attributes;
use crate::state::dns::DnsRecord;
use crate::state::secret::SecretHash;

/// A person (or a role of one) that owns nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Number of the user.
    pub id: UserId,
    /// Login name; unique, never empty.
    pub name: Box<str>,
    /// Name to show; may be empty.
    pub display_name: Box<str>,
    /// Mail address; may be empty.
    pub email: Box<str>,
    /// Address of a picture; may be empty.
    pub picture_url: Box<str>,
    /// What it may do.
    pub role: Role,
    /// How long the keys of its nodes live, where that differs from the configuration.
    pub node_expiry: Option<KeyLife>,
    /// When the user was made.
    pub created: Timestamp,
}

/// How long a node key lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyLife {
    /// For ever.
    Unlimited,
    /// So long from each login.
    For(Duration),
}

/// How a node came into the tailnet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RegisteredBy {
    /// With this preauth key (which may be deleted since).
    PreAuthKey(PreAuthKeyId),
    /// Somebody approved it.
    Approval,
    /// An administrator wrote down what it is: a WireGuard-only peer.
    Hand,
}

/// A WireGuard device without a Tailscale client, as an administrator described it. Clients meet it at
/// fixed addresses and without path discovery (`Node.IsWireGuardOnly` in tailscale `tailcfg/tailcfg.go`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WireGuard {
    /// The address that it takes the viewer's IPv4 traffic for, where that is not the viewer's own
    /// (`SelfNodeV4MasqAddrForThisPeer`).
    pub masquerade_v4: Option<Ipv4Addr>,
    /// The same for IPv6.
    pub masquerade_v6: Option<Ipv6Addr>,
    /// Resolvers for those who use it as their exit node: addresses or DoH URLs.
    pub exit_dns: Box<[Box<str>]>,
}

/// What a client says about the machine it runs on, as far as hearth keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Hostinfo {
    /// The whole object as JSON without its volatile part (`NetInfo`); bounded by the request limit.
    pub raw: Box<str>,
    /// The part that other nodes may see, as JSON.
    pub shared: Box<str>,
    /// Host name as the client gave it; any text.
    pub hostname: Box<str>,
    /// Operating system as the client gave it.
    pub os: Box<str>,
    /// Its version as the client gave it.
    pub os_version: Box<str>,
    /// Version of the client as it gave it.
    pub client_version: Box<str>,
    /// Routes that the client offers, sorted; with `0.0.0.0/0` and `::/0` as an exit node.
    pub routable_ips: Box<[IpNet]>,
    /// Tags that the client asks for.
    pub request_tags: Box<[Box<str>]>,
}

/// One map stream of a node; a newer one, which has a higher number, takes the place of an older.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SessionId(pub u64);

/// Whether a node is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// It registered and has not asked for a map yet.
    New,
    /// It was there before hearth restarted and still has time to come back.
    Returning,
    /// It holds this stream.
    Online(SessionId),
    /// Its stream ended; others are told when this moment (monotonic) passes.
    Leaving {
        /// When it counts as offline.
        until: Duration,
        /// When its stream ended.
        since: Timestamp,
    },
    /// It is a WireGuard-only peer, which never says whether it is there.
    Fixed,
    /// It is away.
    Offline {
        /// When it was last there.
        since: Timestamp,
        /// The same on the monotonic clock, or the start of hearth.
        since_mono: Duration,
    },
}

impl Presence {
    /// What other nodes are told.
    pub fn is_online(self) -> bool {
        matches!(
            self,
            Self::Returning | Self::Online(_) | Self::Leaving { .. } | Self::Fixed
        )
    }

    /// Whether other nodes are told of it: not before it has asked for its own map, since until then
    /// nobody could reach it.
    pub fn is_introduced(self) -> bool {
        self != Self::New
    }

    /// When the node was last there; `None` while it is, and before it ever was.
    pub fn last_seen(self) -> Option<Timestamp> {
        match self {
            Self::Offline { since, .. } => Some(since),
            Self::New | Self::Returning | Self::Online(_) | Self::Leaving { .. } | Self::Fixed => {
                None
            }
        }
    }
}

/// When each side of a node last changed: what tells a map stream what to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Facets {
    /// Name, keys, addresses, owner, expiry, host information: the node must be sent whole.
    pub core: Revision,
    /// Endpoints, home region and disco key: a patch does.
    pub endpoints: Revision,
    /// Online and last seen: a patch does.
    pub presence: Revision,
}

impl Facets {
    /// The newest of them.
    pub fn latest(&self) -> Revision {
        self.core.max(self.endpoints).max(self.presence)
    }
}

/// One device of the tailnet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Number of the node; never used again.
    pub id: NodeId,
    /// Key of the client's installation: the node's identity together with its owner.
    pub machine: MachineKey,
    /// WireGuard key; changes at re-authentication.
    pub key: NodeKey,
    /// Key for path discovery; new at each start of the client.
    pub disco: Option<DiscoKey>,
    /// Tailnet Lock key, when the client has one.
    pub lock: Option<LockKey>,
    /// User or tags.
    pub owner: Owner,
    /// DNS label, unique in the tailnet.
    pub label: Box<str>,
    /// Whether somebody chose the label; otherwise it follows the host name.
    pub label_chosen: bool,
    /// What the client says about its machine.
    pub hostinfo: Arc<Hostinfo>,
    /// Address in the IPv4 prefix.
    pub ipv4: Ipv4Addr,
    /// Address in the IPv6 prefix.
    pub ipv6: Ipv6Addr,
    /// When the node joined.
    pub created: Timestamp,
    /// When its key expires; `None` is never.
    pub expiry: Option<Timestamp>,
    /// Whether the expiry has passed (kept by the engine, so that it is announced once).
    pub expired: bool,
    /// Whether an administrator lets it take part; until then it sees nobody and nobody sees it.
    pub authorized: bool,
    /// Set for a device without a Tailscale client.
    pub wireguard: Option<Arc<WireGuard>>,
    /// Routes that it may serve once it offers them, sorted.
    pub approved_routes: Arc<[IpNet]>,
    /// The subnet routes that it is the one to serve now, sorted: see `apply::routes`.
    pub primary_routes: Arc<[IpNet]>,
    /// Whether it lately failed to answer while others could serve its routes.
    pub unhealthy: bool,
    /// Whether it is removed after being away.
    pub ephemeral: bool,
    /// How it came in.
    pub registered_by: RegisteredBy,
    /// Capability version of the client; 0 before its first request said so.
    pub capability: u16,
    /// DERP region at which it can be met; 0 is none.
    pub home_derp: u16,
    /// Addresses at which peers may try it; never written to disk on their own account.
    pub endpoints: Arc<[SocketAddr]>,
    /// Whether endpoints and disco key come from the client itself since hearth started.
    pub live: bool,
    /// Whether it is there.
    pub presence: Presence,
    /// What changed when.
    pub facets: Facets,
    /// Whether something changed that is written with the next flush.
    pub unflushed: bool,
}

impl Node {
    /// The owning user, unless the node is tagged.
    pub fn user(&self) -> Option<UserId> {
        match self.owner {
            Owner::User(id) => Some(id),
            Owner::Tags(_) => None,
        }
    }

    /// The tags, empty for a user's device.
    pub fn tags(&self) -> &[Box<str>] {
        match &self.owner {
            Owner::User(_) => &[],
            Owner::Tags(tags) => tags,
        }
    }

    /// The routes that it offers and that are approved, sorted.
    pub fn served_routes(&self) -> impl Iterator<Item = IpNet> + '_ {
        let approved = |route: &&IpNet| self.approved_routes.binary_search(route).is_ok();
        self.hostinfo.routable_ips.iter().filter(approved).copied()
    }

    /// The routes that it offers in vain, sorted.
    pub fn waiting_routes(&self) -> impl Iterator<Item = IpNet> + '_ {
        let waits = |route: &&IpNet| self.approved_routes.binary_search(route).is_err();
        self.hostinfo.routable_ips.iter().filter(waits).copied()
    }

    /// Whether neither the policy nor the choice between routers can tell the two apart.
    fn is_like_for_policy(&self, other: &Self) -> bool {
        let same_machine =
            Arc::ptr_eq(&self.hostinfo, &other.hostinfo) || self.hostinfo == other.hostinfo;
        let state = |node: &Self| {
            let online = node.presence.is_online();
            (online, node.is_member(), node.expired, node.unhealthy)
        };
        same_machine
            && self.owner == other.owner
            && (self.ipv4, self.ipv6) == (other.ipv4, other.ipv6)
            && self.approved_routes == other.approved_routes
            && self.primary_routes == other.primary_routes
            && state(self) == state(other)
    }

    /// Whether the policy knows it: it takes part, and it was there at least once.
    pub fn is_member(&self) -> bool {
        self.authorized && self.presence.is_introduced()
    }

    /// Whether it sees nobody: its key has ended, or nobody has let it take part yet.
    pub fn is_alone(&self) -> bool {
        self.expired || !self.authorized
    }
}

/// Whether a route leads to everywhere: what an exit node serves.
pub fn is_exit_route(route: &IpNet) -> bool {
    route.prefix_len() == 0
}

/// A key with which machines join without anybody being asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreAuthKey {
    /// Number of the key.
    pub id: PreAuthKeyId,
    /// The public part, by which it is found.
    pub prefix: Box<str>,
    /// What the secret part must hash to.
    pub hash: SecretHash,
    /// Owner of the nodes it lets in (`None` for tagged ones).
    pub user: Option<UserId>,
    /// Tags of the nodes it lets in; empty for a user's.
    pub tags: Arc<[Box<str>]>,
    /// Whether it may be used more than once.
    pub reusable: bool,
    /// Whether its nodes are ephemeral.
    pub ephemeral: bool,
    /// Whether its nodes take part at once where devices need approval.
    pub preauthorized: bool,
    /// Whether it was used.
    pub used: bool,
    /// When it ends; `None` is never.
    pub expiry: Option<Timestamp>,
    /// When it was made.
    pub created: Timestamp,
}

/// A key for the REST interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKey {
    /// Number of the key.
    pub id: ApiKeyId,
    /// The public part, by which it is found.
    pub prefix: Box<str>,
    /// What the secret part must hash to.
    pub hash: SecretHash,
    /// When it ends; `None` is never.
    pub expiry: Option<Timestamp>,
    /// When it was made.
    pub created: Timestamp,
}

/// Longest text of an [`AuthId`], in bytes.
pub const AUTH_ID_MAX: usize = 48;

/// The unguessable name of a pending login: the last part of its URL.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AuthId(Box<str>);

impl AuthId {
    /// The text of the id.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A text that cannot be the id of a login.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a login id has at most 48 letters, digits, `-` and `_`")]
pub struct InvalidAuthId;

impl FromStr for AuthId {
    type Err = InvalidAuthId;

    fn from_str(text: &str) -> Result<Self, InvalidAuthId> {
        let fits = (1..=AUTH_ID_MAX).contains(&text.len());
        let clean = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if fits && text.bytes().all(clean) {
            Ok(Self(text.into()))
        } else {
            Err(InvalidAuthId)
        }
    }
}

impl fmt::Display for AuthId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One version of the policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyText {
    /// Number of the version.
    pub id: PolicyId,
    /// What it says.
    pub source: Arc<str>,
    /// When it was set.
    pub created: Timestamp,
}

/// Where a pending login stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PendingState {
    /// Nobody has decided.
    Waiting,
    /// Somebody said no; kept for a while so that the client is told.
    Rejected,
    /// Somebody said yes and this node came of it; kept for a while for the page.
    Approved(NodeId),
}

/// A machine that asked to join and waits for a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    /// Name of the login.
    pub id: AuthId,
    /// Key of the installation that asked; only it may collect the answer.
    pub machine: MachineKey,
    /// The node key it wants.
    pub key: NodeKey,
    /// Its Tailnet Lock key.
    pub lock: Option<LockKey>,
    /// What it says about its machine.
    pub hostinfo: Arc<Hostinfo>,
    /// Whether it wants to be ephemeral.
    pub ephemeral: bool,
    /// Expiry it asked for.
    pub expiry: Option<Timestamp>,
    /// Capability version of the client.
    pub capability: u16,
    /// When it asked.
    pub created: Timestamp,
    /// Where it stands.
    pub state: PendingState,
}

/// What the configuration says about the tailnet; constant while hearth runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Where addresses come from.
    pub prefixes: Prefixes,
    /// How long a user's node key lives; `None` is for ever.
    pub node_expiry: Option<Duration>,
    /// Whether an administrator has to let each new device take part.
    pub device_approval: bool,
    /// How long an ephemeral node may be away.
    pub ephemeral_timeout: Duration,
    /// How long a node may be without a stream before others hear of it.
    pub offline_grace: Duration,
    /// How long after a restart nobody is announced offline.
    pub restart_grace: Duration,
    /// How often last-seen times and endpoints are written.
    pub flush_interval: Duration,
    /// Most nodes.
    pub max_nodes: usize,
    /// Most users.
    pub max_users: usize,
    /// Most preauth keys.
    pub max_preauth_keys: usize,
    /// Most API keys.
    pub max_api_keys: usize,
    /// Most logins that wait or were lately decided.
    pub max_pending: usize,
    /// How long a login waits for a person.
    pub pending_lifetime: Duration,
}

/// Something that others may have to be told about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// A node is new or changed; its facets say how.
    Node(NodeId),
    /// A node is gone.
    NodeRemoved(NodeId),
    /// A user's names changed.
    User(UserId),
}

/// What a client will not soon say again by itself (its home region, its disco key) is written this
/// much later, together with what others said meanwhile. Losing it in between costs nothing but a
/// moment: a client whose stream broke says it again with the next one.
pub const FLUSH_SOON: Duration = Duration::from_secs(5);

/// How many changes are remembered for streams that lag; one that lags more gets a full map.
pub const CHANGES_KEPT: usize = 512;

/// The numbers that the next new things get.
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

/// Everything that hearth knows. A clone shares all its parts, so it is cheap, and dropping a
/// changed clone undoes the changes.
#[derive(Debug, Clone)]
pub struct Model {
    /// Number of this state.
    pub revision: Revision,
    /// Set while a batch of commands changed something.
    pub changed: bool,
    /// When hearth started.
    pub started: Now,
    /// When what is only in memory is written next (monotonic).
    pub flush_at: Duration,
    /// The configuration's part.
    pub settings: Arc<Settings>,
    /// Numbers for new things.
    pub counters: Counters,
    /// Users by number.
    pub users: Arc<BTreeMap<UserId, Arc<User>>>,
    /// Nodes, sorted by number.
    pub nodes: Arc<Vec<Arc<Node>>>,
    /// Nodes by key.
    pub by_key: Arc<HashMap<NodeKey, NodeId>>,
    /// Attributes of nodes for postures, of those that have any.
    pub attributes: Arc<BTreeMap<NodeId, Arc<Attributes>>>,
    /// Preauth keys by number.
    pub preauth_keys: Arc<BTreeMap<PreAuthKeyId, Arc<PreAuthKey>>>,
    /// API keys by number.
    pub api_keys: Arc<BTreeMap<ApiKeyId, Arc<ApiKey>>>,
    /// DNS records made by the API.
    pub dns_records: Arc<BTreeSet<DnsRecord>>,
    /// Logins that wait or were lately decided.
    pub pending: Arc<BTreeMap<AuthId, Arc<Pending>>>,
    /// The last changes, oldest first.
    pub changes: Arc<VecDeque<(Revision, Change)>>,
    /// All changes after this revision are in `changes`.
    pub changes_from: Revision,
    /// Changes whenever a key loses or gains admission to the relay.
    pub admission: Revision,
    /// The last versions of the policy, oldest first; the last one applies.
    pub policies: Arc<Vec<Arc<PolicyText>>>,
    /// What the policy means for the nodes that take part.
    pub compiled: Arc<Compiled>,
    /// Nodes that changed since the routes and `compiled` were last brought up to date.
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
            users: Arc::default(),
            nodes: Arc::default(),
            by_key: Arc::default(),
            attributes: Arc::default(),
            preauth_keys: Arc::default(),
            api_keys: Arc::default(),
            dns_records: Arc::default(),
            pending: Arc::default(),
            changes: Arc::default(),
            changes_from: Revision::ZERO,
            admission: Revision::ZERO,
            policies: Arc::default(),
            compiled: Arc::new(Compiled::allow_all(&Directory::default())),
            touched: Arc::default(),
        }
    }

    /// The node with this number.
    pub fn node(&self, id: NodeId) -> Option<&Arc<Node>> {
        let place = self.nodes.binary_search_by_key(&id, |node| node.id).ok()?;
        self.nodes.get(place)
    }

    /// The node with this key.
    pub fn node_by_key(&self, key: &NodeKey) -> Option<&Arc<Node>> {
        self.node(*self.by_key.get(key)?)
    }

    /// Adds a node or puts it in the place of the one with its number.
    pub fn put_node(&mut self, node: Node) {
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

    /// Takes a node out, and says whether it was there.
    pub fn take_node(&mut self, id: NodeId) -> bool {
        let Ok(place) = self.nodes.binary_search_by_key(&id, |node| node.id) else {
            return false;
        };
        let node = Arc::make_mut(&mut self.nodes).remove(place);
        Arc::make_mut(&mut self.by_key).remove(&node.key);
        Arc::make_mut(&mut self.touched).insert(id);
        self.admission = self.revision;
        true
    }

    /// Remembers a change for the map streams.
    pub fn note(&mut self, change: Change) {
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
