//! Commands, their outcomes, and why they are rejected.
//!
//! Everything random (ids of pending registrations, secrets) is made by the caller and comes in with the command,
//! so that applying a command is deterministic.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;

use crate::clock::{End, Timestamp};
use crate::id::{ApiKeyId, AuthId, NodeId, PolicyId, PreAuthKeyId, UserId};
use crate::keys::{DiscoKey, LockKey, MachineKey, NodeKey};
use crate::policy::{Diagnostic, Policy};
use crate::state::attributes::AttributeValue;
use crate::state::dns::{DnsRecord, ReservedNames};
use crate::state::model::{
    Hostinfo, KeyLifetime, Node, Owner, PreAuthKey, Role, SessionId, UnusableKey, WireGuard,
};
use crate::state::scope::Scopes;
use crate::state::secret;
use crate::state::secret::{SecretHash, SecretKind};

/// One requested change of the state.
#[derive(Debug, Clone)]
pub enum Command {
    /// A client registers, asks whether its key is still valid, or logs out.
    Register(Box<Register>),
    /// A client reports changes of itself.
    UpdateNode(Box<NodeUpdate>),
    /// A client opened a map stream, which replaces an older one of the same node.
    OpenStream {
        /// The node.
        node: NodeId,
        /// The new stream.
        session: SessionId,
        /// What the stream's request reported of the node, used only where nothing newer is known.
        fallback: Box<NodeUpdate>,
    },
    /// A map stream ended.
    CloseStream {
        /// The node.
        node: NodeId,
        /// The stream that ended.
        session: SessionId,
    },
    /// Creates a user.
    CreateUser(NewUser),
    /// Gives a user another login name.
    RenameUser(UserId, Box<str>),
    /// Deletes a user that owns no nodes, and its preauth keys.
    DeleteUser(UserId),
    /// Sets the role of a user.
    SetRole(UserId, Role),
    /// Sets the lifetime of the keys of a user's nodes; `None` is that of the configuration.
    SetUserExpiry(UserId, Option<KeyLifetime>),
    /// Renames a node, which no longer follows its hostname.
    RenameNode(NodeId, Box<str>),
    /// Sets when a node's key expires.
    ExpireNode(NodeId, End),
    /// Deletes a node.
    DeleteNode(NodeId),
    /// Sets which routes a node may serve: the full list. An exit route stands for both.
    ApproveRoutes(NodeId, Vec<IpNet>),
    /// Replaces a node's owner or tags with these tags.
    SetTags(NodeId, Vec<Box<str>>),
    /// Gives a node to a user, tagged or not.
    MoveNode(NodeId, UserId),
    /// Gives a node other addresses; `None` leaves one as it is.
    SetAddresses(NodeId, Option<Ipv4Addr>, Option<Ipv6Addr>),
    /// Gives every node whose address is outside the configured prefixes a new one.
    BackfillAddresses,
    /// Approves a node that awaits approval.
    ApproveNode(NodeId),
    /// Revokes a node's approval; it is cut off from all peers.
    RevokeApproval(NodeId),
    /// Sets whether a node answers health probes.
    SetHealth(NodeId, bool),
    /// Adds a device without a Tailscale client.
    AddWireGuard(Box<NewWireGuard>),
    /// Sets attributes of a node that policies ask for; what is not named stays.
    SetAttributes {
        /// The node.
        node: NodeId,
        /// The attributes by name; `None` takes one away.
        updates: Vec<(Box<str>, Option<AttributeValue>)>,
    },
    /// Sets which names the configuration uses: no device gets one of them for its host name.
    ReserveNames(Box<ReservedNames>),
    /// Sets the policy.
    SetPolicy(Box<NewPolicy>),
    /// Creates a preauth key.
    CreatePreAuthKey(NewPreAuthKey),
    /// Expires a preauth key now.
    ExpirePreAuthKey(PreAuthKeyId),
    /// Deletes a preauth key.
    DeletePreAuthKey(PreAuthKeyId),
    /// Creates an API key.
    CreateApiKey(NewApiKey),
    /// Expires an API key now.
    ExpireApiKey(ApiKeyId),
    /// Deletes an API key.
    DeleteApiKey(ApiKeyId),
    /// Adds a DNS record.
    AddDnsRecord(DnsRecord),
    /// Removes a DNS record.
    DeleteDnsRecord(DnsRecord),
    /// Approves a pending registration: the device becomes this user's node.
    ApproveRegistration(AuthId, UserId),
    /// Admits a pending registration with a preauth key that a person entered for the device.
    RedeemPreAuthKey(AuthId, PresentedKey),
    /// Rejects a pending registration.
    RejectRegistration(AuthId),
}

/// What a client sent to `/machine/register`, checked and turned into domain values.
#[derive(Debug, Clone)]
pub struct Register {
    /// Key of the Noise session: who really asks.
    pub machine: MachineKey,
    /// Address of the client.
    pub source: IpAddr,
    /// The node key it has or requests.
    pub key: NodeKey,
    /// Its Tailnet Lock key.
    pub lock: Option<LockKey>,
    /// The preauth key it presents.
    pub auth_key: Option<PresentedKey>,
    /// The expiry it requests.
    pub expiry: RequestedExpiry,
    /// The pending registration whose decision it waits for.
    pub followup: Option<AuthId>,
    /// Whether it requests to be ephemeral.
    pub ephemeral: bool,
    /// Host information as the client reports it.
    pub hostinfo: Arc<Hostinfo>,
    /// Capability version of the client.
    pub capability: u16,
    /// Id for a pending registration, should one be needed.
    pub fresh_id: AuthId,
}

/// A preauth key as a client presents it: found by prefix, proven by hash.
#[derive(Debug, Clone)]
pub enum PresentedKey {
    /// It has the form of a key.
    WellFormed {
        /// The public part.
        prefix: Box<str>,
        /// Hash of the secret part.
        hash: SecretHash,
    },
    /// It has not.
    Malformed,
}

impl PresentedKey {
    /// The key in a text as people are shown it.
    pub fn read(text: &str) -> Self {
        match secret::split(SecretKind::PreAuth, text) {
            Some((prefix, secret)) => Self::WellFormed {
                prefix: prefix.into(),
                hash: SecretHash::of(secret),
            },
            None => Self::Malformed,
        }
    }

    /// The key among `keys` that it proves, whether or not that may still be used.
    pub fn find<'a>(
        &self,
        mut keys: impl Iterator<Item = &'a Arc<PreAuthKey>>,
    ) -> Option<&'a Arc<PreAuthKey>> {
        let Self::WellFormed { prefix, hash } = self else {
            return None;
        };
        keys.find(|key| key.prefix == *prefix && key.hash == *hash)
    }
}

/// Expiry that a client requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestedExpiry {
    /// None: the server decides.
    None,
    /// Log out.
    Logout,
    /// Expire at this moment.
    At(Timestamp),
}

impl RequestedExpiry {
    /// The moment, where one is requested.
    pub(super) fn time(self) -> Option<Timestamp> {
        match self {
            Self::At(at) => Some(at),
            Self::None | Self::Logout => None,
        }
    }
}

/// What a client reports of its node; `None` means "as before".
#[derive(Debug, Clone, Default)]
pub struct NodeUpdate {
    /// The node.
    pub node: Option<NodeId>,
    /// Endpoint candidates of the node: the full list.
    pub endpoints: Option<Arc<[SocketAddr]>>,
    /// Key for path discovery.
    pub disco: Option<DiscoKey>,
    /// Tailnet Lock key.
    pub lock: Option<LockKey>,
    /// Host information.
    pub hostinfo: Option<Arc<Hostinfo>>,
    /// Home DERP region.
    pub home_derp: Option<u16>,
    /// Capability version of the client.
    pub capability: Option<u16>,
    /// Whether IP forwarding is off on a node that offers routes.
    pub forwarding_off: Option<bool>,
}

/// A user to create.
#[derive(Debug, Clone, Default)]
pub struct NewUser {
    /// Login name.
    pub name: Box<str>,
    /// Display name.
    pub display_name: Box<str>,
    /// Email address.
    pub email: Box<str>,
    /// URL of a picture.
    pub picture_url: Box<str>,
}

/// A device without a Tailscale client, to add.
#[derive(Debug, Clone)]
pub struct NewWireGuard {
    /// DNS label.
    pub label: Box<str>,
    /// Its WireGuard public key.
    pub key: NodeKey,
    /// Its owner.
    pub owner: Owner,
    /// Its endpoints: at least one.
    pub endpoints: Vec<SocketAddr>,
    /// Its IPv4 address in the tailnet; `None` takes the next free one.
    pub ipv4: Option<Ipv4Addr>,
    /// Its IPv6 address in the tailnet; `None` takes the next free one.
    pub ipv6: Option<Ipv6Addr>,
    /// Routes that it serves; an exit route makes it an exit node.
    pub routes: Vec<IpNet>,
    /// What clients need to know to use it.
    pub details: WireGuard,
}

/// A policy to set.
#[derive(Debug, Clone)]
pub struct NewPolicy {
    /// Its text.
    pub source: Arc<str>,
    /// The same, parsed.
    pub policy: Arc<Policy>,
    /// Whether it is rejected when its tests fail. Not at the start of the server, where the alternative
    /// would be another policy than the file's.
    pub must_hold: bool,
}

impl NewPolicy {
    /// Reads a text.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn parse(source: &str, must_hold: bool) -> Result<Self, Vec<Diagnostic>> {
        Ok(Self {
            policy: Arc::new(Policy::parse(source)?),
            source: source.into(),
            must_hold,
        })
    }
}

/// A preauth key to create.
#[derive(Debug, Clone)]
pub struct NewPreAuthKey {
    /// Owner of the nodes; needed unless there are tags.
    pub user: Option<UserId>,
    /// Tags of the nodes; then there is no owner.
    pub tags: Vec<Box<str>>,
    /// Whether it may be used more than once.
    pub reusable: bool,
    /// Whether its nodes are ephemeral.
    pub ephemeral: bool,
    /// Whether its nodes are approved at once where devices need approval.
    pub preauthorized: bool,
    /// When it expires.
    pub expiry: End,
    /// The public part.
    pub prefix: Box<str>,
    /// Hash of the secret part.
    pub hash: SecretHash,
}

/// An API key to create.
#[derive(Debug, Clone)]
pub struct NewApiKey {
    /// What it may do.
    pub scopes: Scopes,
    /// When it expires.
    pub expiry: End,
    /// The public part.
    pub prefix: Box<str>,
    /// Hash of the secret part.
    pub hash: SecretHash,
}

/// What an applied command made or changed, by number: what it is now is read from the state after the batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is done.
    Done,
    /// How a registration stands.
    Registered(Registration),
    /// The user created or changed.
    User(UserId),
    /// The node created or changed.
    Node(NodeId),
    /// The nodes changed.
    Nodes(Vec<NodeId>),
    /// The preauth key created or changed.
    PreAuthKey(PreAuthKeyId),
    /// The API key created or changed.
    ApiKey(ApiKeyId),
    /// The version of the policy that applies.
    Policy(PolicyId),
}

/// How a registration stands, by number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Registration {
    /// The node has joined, or is still welcome.
    Welcome(NodeId),
    /// A person must approve it.
    NeedsLogin(AuthId),
    /// Its key has expired or was logged out: it must come with a new one. There is no node after the logout of an
    /// ephemeral one.
    KeyExpired(Option<NodeId>),
}

/// How a registration stands, with the node as it is after the batch.
#[derive(Debug, Clone)]
pub enum RegisterReply {
    /// The node has joined, or is still welcome.
    Welcome(Arc<Node>),
    /// A person must approve it.
    NeedsLogin(AuthId),
    /// Its key has expired or was logged out: it must come with a new one.
    KeyExpired(Option<Arc<Node>>),
}

impl Registration {
    /// The same with the nodes of the state after the batch.
    ///
    /// # Errors
    /// When the node was deleted in the same batch.
    pub fn settled(
        self,
        node: &dyn Fn(NodeId) -> Option<Arc<Node>>,
    ) -> Result<RegisterReply, Rejected> {
        Ok(match self {
            Self::Welcome(id) => RegisterReply::Welcome(node(id).ok_or(Rejected::NoSuchNode)?),
            Self::NeedsLogin(id) => RegisterReply::NeedsLogin(id),
            Self::KeyExpired(id) => RegisterReply::KeyExpired(id.and_then(node)),
        })
    }
}

/// Why a command was rejected. The texts of the first group reach the user of the client, and are
/// those of Headscale (`hscontrol/auth.go`, `hscontrol/types/preauth_key.go`), where people look them up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// There is no such preauth key.
    #[error("invalid pre auth key")]
    UnknownPreAuthKey,
    /// The preauth key has expired.
    #[error("authkey expired")]
    PreAuthKeyExpired,
    /// The preauth key was for one use.
    #[error("authkey already used")]
    PreAuthKeyUsed,
    /// A person rejected it.
    #[error("registration rejected by the administrator")]
    LoginRejected,
    /// The node key belongs to another machine.
    #[error("node exists with a different machine key")]
    MachineMismatch,
    /// The tailnet has as many nodes as it may have.
    #[error("the tailnet is full: {limit} nodes (limits.nodes)")]
    TooManyNodes {
        /// Most nodes.
        limit: usize,
    },
    /// A prefix has no free address.
    #[error("no free addresses left in the tailnet's prefixes")]
    NoAddress,
    /// The prefixes are not known.
    #[error(
        "no device can get an address: `prefixes` in the configuration cannot be read (see `hearth check`)"
    )]
    PrefixesLost,
    /// The client requests tags that it may not have.
    #[error("requested tags {0} are invalid or not permitted")]
    TagsNotPermitted(String),
    /// The client requests a later expiry than it has.
    #[error("extending key is not allowed")]
    ExpiryExtended,
    /// Its machine, or those with its preauth key, changed too much recently.
    #[error("too many changes by this device; try again later")]
    TooOften,

    /// There is no such user.
    #[error("user not found")]
    NoSuchUser,
    /// There is no such node.
    #[error("node not found")]
    NoSuchNode,
    /// There is no such key.
    #[error("key not found")]
    NoSuchKey,
    /// There is no such version of the policy.
    #[error("policy version not found")]
    NoSuchPolicy,
    /// There is no such pending registration.
    #[error("no pending registration with this ID (expired?); log in again on the device")]
    NoSuchLogin,
    /// The registration was decided before.
    #[error("this registration was already approved or rejected")]
    LoginDecided,
    /// The name belongs to another user, in this or another spelling that a policy can use.
    #[error("a user named {0:?} already exists (`anna` and `anna@` are the same in a policy)")]
    UserNameTaken(Box<str>),
    /// The name cannot be a user's.
    #[error(
        "invalid user name {0:?}: use letters, digits, `.`, `-`, `_`, `+` and at most one `@`, starting with a letter or digit, not digits only, at most 254 bytes"
    )]
    BadUserName(Box<str>),
    /// The user owns nodes.
    #[error("user not empty: {nodes} node(s) found; delete or move them first")]
    UserHasNodes {
        /// How many.
        nodes: usize,
    },
    /// The name belongs to another node.
    #[error("a node named {0:?} already exists")]
    NodeNameTaken(Box<str>),
    /// The name cannot be a node's.
    #[error(
        "invalid node name {0:?}: use 1 to 63 of a-z, 0-9 and `-`, no `-` at either end, not digits only"
    )]
    BadNodeName(Box<str>),
    /// The text cannot be a tag.
    #[error(
        "invalid tag {0:?}: use `tag:` and a name of letters, digits and `-` that starts with a letter"
    )]
    BadTag(Box<str>),
    /// A tagged node keeps at least one tag.
    #[error("a node needs at least one tag or a user; to give it to a user: `hearth nodes move`")]
    NoTags,
    /// The machine has a node of that user, or a tagged one, already.
    #[error(
        "this machine is already registered to that owner as node {0}; delete one of them first"
    )]
    MachineHasNode(NodeId),
    /// The address cannot be a node's.
    #[error("invalid address {0}: it must be in {1} and outside its reserved ranges")]
    BadAddress(IpAddr, Box<str>),
    /// The address belongs to another node.
    #[error("address {0} is already used by node {1}")]
    AddressTaken(IpAddr, NodeId),
    /// The node is a WireGuard-only peer.
    #[error("not possible for a WireGuard-only peer: it has no Tailscale client")]
    WireGuardOnly,
    /// A peer without path discovery must have an address.
    #[error("a WireGuard-only peer needs at least one endpoint (address:port)")]
    NoEndpoint,
    /// No other device can send to the endpoint.
    #[error(
        "invalid endpoint {0}: use a public or LAN address that other devices can reach, and a port"
    )]
    BadEndpoint(SocketAddr),
    /// The text cannot be a resolver.
    #[error("invalid resolver {0:?}: use an IP address or an https:// URL")]
    BadResolver(Box<str>),
    /// The key belongs to another node.
    #[error("this key is already used by node {0}")]
    KeyTaken(NodeId),
    /// The text cannot be the name of an attribute.
    #[error(
        "invalid attribute {0:?}: use `custom:` and letters, digits or `_`, at most 64 bytes in all"
    )]
    BadAttribute(Box<str>),
    /// A key needs an owner for its nodes.
    #[error("a preauth key needs a user or tags")]
    KeyWithoutOwner,
    /// There is no such record.
    #[error(
        "no such DNS record; records of the configuration, the policy or a file cannot be removed here"
    )]
    NoSuchDnsRecord,
    /// The same record exists.
    #[error("{0:?} already has this record")]
    DnsRecordExists(Box<str>),
    /// The policy names what does not exist, or its tests fail.
    #[error("policy rejected: {}", list(.0))]
    Policy(Vec<Diagnostic>),
    /// A text is too long.
    #[error("{field} is too long: at most {limit} bytes")]
    TooLong {
        /// What is too long.
        field: &'static str,
        /// Most bytes.
        limit: usize,
    },
    /// A table is full.
    #[error("too many {what}: at most {limit}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// Most of them.
        limit: usize,
    },
    /// All ids of a kind are used up.
    #[error("no IDs left")]
    NoIds,
}

impl From<UnusableKey> for Rejected {
    fn from(fault: UnusableKey) -> Self {
        match fault {
            UnusableKey::Expired => Self::PreAuthKeyExpired,
            UnusableKey::Used => Self::PreAuthKeyUsed,
        }
    }
}

fn list(faults: &[Diagnostic]) -> String {
    let texts: Vec<String> = faults.iter().map(ToString::to_string).collect();
    texts.join("; ")
}
