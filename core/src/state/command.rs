//! What can be asked of the state, what it answers, and why it refuses.
//!
//! Everything random (ids of logins, secrets) is made by the caller and comes in with the command,
//! so that applying a command is deterministic.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;

use crate::clock::Timestamp;
use crate::id::{ApiKeyId, AuthId, NodeId, PreAuthKeyId, UserId};
use crate::keys::{DiscoKey, LockKey, MachineKey, NodeKey};
use crate::policy::{Diagnostic, Policy};
use crate::state::attributes::AttributeValue;
use crate::state::dns::DnsRecord;
use crate::state::model::{
    ApiKey, Hostinfo, KeyLifetime, Node, Owner, PendingRegistration, PolicyText, PreAuthKey, Role,
    SessionId, User, WireGuard,
};
use crate::state::scope::Scopes;
use crate::state::secret::SecretHash;

/// One wish to change the state.
#[derive(Debug)]
pub enum Command {
    /// A client registers, asks whether it is still welcome, or logs out.
    Register(Box<Register>),
    /// A client tells news of itself.
    UpdateNode(Box<NodeUpdate>),
    /// A client opened a map stream, which replaces an older one of the same node.
    OpenStream {
        /// The node.
        node: NodeId,
        /// The new stream.
        session: SessionId,
        /// What the stream's request said of the node, used only where nothing newer is known.
        fallback: Box<NodeUpdate>,
    },
    /// A map stream ended.
    CloseStream {
        /// The node.
        node: NodeId,
        /// The stream that ended.
        session: SessionId,
    },
    /// Makes a user.
    CreateUser(NewUser),
    /// Gives a user another login name.
    RenameUser(UserId, Box<str>),
    /// Removes a user that owns nothing.
    DeleteUser(UserId),
    /// Sets what a user may do.
    SetRole(UserId, Role),
    /// Sets how long the keys of a user's nodes live; `None` is as the configuration says.
    SetUserExpiry(UserId, Option<KeyLifetime>),
    /// Gives a node a name that stays.
    RenameNode(NodeId, Box<str>),
    /// Sets when a node's key expires; `None` is never.
    ExpireNode(NodeId, Option<Timestamp>),
    /// Removes a node.
    DeleteNode(NodeId),
    /// Sets which routes a node may serve: the full list. An exit route stands for both.
    ApproveRoutes(NodeId, Vec<IpNet>),
    /// Gives a node these tags in the place of its user or of other tags.
    SetTags(NodeId, Vec<Box<str>>),
    /// Gives a node to a user, tagged or not.
    MoveNode(NodeId, UserId),
    /// Gives a node other addresses; `None` leaves one as it is.
    SetAddresses(NodeId, Option<Ipv4Addr>, Option<Ipv6Addr>),
    /// Gives every node whose address lies outside the configured prefixes a new one.
    BackfillAddresses,
    /// Lets a node take part, or no longer.
    Authorize(NodeId, bool),
    /// Tells whether a node answers when it is asked for a sign of life.
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
    /// Sets the policy.
    SetPolicy(Box<NewPolicy>),
    /// Makes a preauth key.
    CreatePreAuthKey(NewPreAuthKey),
    /// Ends a preauth key now.
    ExpirePreAuthKey(PreAuthKeyId),
    /// Removes a preauth key.
    DeletePreAuthKey(PreAuthKeyId),
    /// Makes an API key.
    CreateApiKey(NewApiKey),
    /// Ends an API key now.
    ExpireApiKey(ApiKeyId),
    /// Removes an API key.
    DeleteApiKey(ApiKeyId),
    /// Makes a DNS record.
    AddDnsRecord(DnsRecord),
    /// Removes a DNS record.
    DeleteDnsRecord(DnsRecord),
    /// Lets a waiting machine in as this user's.
    Approve(AuthId, UserId),
    /// Turns a waiting machine away.
    Reject(AuthId),
}

/// What a client sent to `/machine/register`, checked and turned into domain values.
#[derive(Debug, Clone)]
pub struct Register {
    /// Key of the Noise session: who really asks.
    pub machine: MachineKey,
    /// The node key it has or wants.
    pub key: NodeKey,
    /// Its Tailnet Lock key.
    pub lock: Option<LockKey>,
    /// The preauth key it shows, whole.
    pub auth_key: Option<PresentedKey>,
    /// What it wants of its expiry.
    pub expiry: RequestedExpiry,
    /// The login whose outcome it waits for.
    pub followup: Option<AuthId>,
    /// Whether it wants to be ephemeral.
    pub ephemeral: bool,
    /// What it says about its machine.
    pub hostinfo: Arc<Hostinfo>,
    /// Capability version of the client.
    pub capability: u16,
    /// Id for a login, should one be needed.
    pub fresh_id: AuthId,
}

/// A preauth key as a client shows it: found by prefix, proven by hash.
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

/// What a client wants of its expiry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestedExpiry {
    /// Nothing: the server decides.
    None,
    /// To be logged out.
    Logout,
    /// To expire at this moment.
    At(Timestamp),
}

/// News of a node; `None` means "as before".
#[derive(Debug, Clone, Default)]
pub struct NodeUpdate {
    /// The node.
    pub node: Option<NodeId>,
    /// Addresses at which peers may try it: the full list.
    pub endpoints: Option<Arc<[SocketAddr]>>,
    /// Key for path discovery.
    pub disco: Option<DiscoKey>,
    /// What it says about its machine.
    pub hostinfo: Option<Arc<Hostinfo>>,
    /// DERP region at which it can be met.
    pub home_derp: Option<u16>,
    /// Capability version of the client.
    pub capability: Option<u16>,
}

/// A user to be made.
#[derive(Debug, Clone, Default)]
pub struct NewUser {
    /// Login name.
    pub name: Box<str>,
    /// Name to show.
    pub display_name: Box<str>,
    /// Mail address.
    pub email: Box<str>,
    /// Address of a picture.
    pub picture_url: Box<str>,
}

/// A device without a Tailscale client, to be added.
#[derive(Debug, Clone)]
pub struct NewWireGuard {
    /// DNS label.
    pub label: Box<str>,
    /// Its WireGuard public key.
    pub key: NodeKey,
    /// Whom it belongs to.
    pub owner: Owner,
    /// Where it is reached: at least one.
    pub endpoints: Vec<SocketAddr>,
    /// Its IPv4 address in the tailnet; `None` takes the next free one.
    pub ipv4: Option<Ipv4Addr>,
    /// Its IPv6 address in the tailnet; `None` takes the next free one.
    pub ipv6: Option<Ipv6Addr>,
    /// What lies behind it; an exit route makes it an exit node.
    pub routes: Vec<IpNet>,
    /// The rest.
    pub details: WireGuard,
}

/// A policy to be set.
#[derive(Debug, Clone)]
pub struct NewPolicy {
    /// Its text.
    pub source: Arc<str>,
    /// The same, parsed.
    pub policy: Arc<Policy>,
    /// Whether it is refused when its tests fail. Not so at the start of the server, where the alternative
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

/// A preauth key to be made.
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
    /// Whether its nodes take part at once where devices need approval.
    pub preauthorized: bool,
    /// When it ends; `None` is never.
    pub expiry: Option<Timestamp>,
    /// The public part.
    pub prefix: Box<str>,
    /// Hash of the secret part.
    pub hash: SecretHash,
}

/// An API key to be made.
#[derive(Debug, Clone)]
pub struct NewApiKey {
    /// What it may do.
    pub scopes: Scopes,
    /// When it ends; `None` is never.
    pub expiry: Option<Timestamp>,
    /// The public part.
    pub prefix: Box<str>,
    /// Hash of the secret part.
    pub hash: SecretHash,
}

/// What a granted command gives.
#[derive(Debug, Clone)]
pub enum Reply {
    /// It is done.
    Done,
    /// The answer to a registration.
    Registered(RegisterReply),
    /// The user made or changed.
    User(Arc<User>),
    /// The node made or changed.
    Node(Arc<Node>),
    /// The nodes that changed.
    Nodes(Vec<Arc<Node>>),
    /// The preauth key made or changed.
    PreAuthKey(Arc<PreAuthKey>),
    /// The API key made or changed.
    ApiKey(Arc<ApiKey>),
    /// The DNS record made or removed.
    DnsRecord(DnsRecord),
    /// The login decided.
    Pending(Arc<PendingRegistration>),
    /// The policy that applies.
    Policy(Arc<PolicyText>),
}

/// How a registration stands.
#[derive(Debug, Clone)]
pub enum RegisterReply {
    /// The node is in.
    Welcome(Arc<Node>),
    /// A person must let it in.
    NeedsLogin(AuthId),
    /// Its key has expired or was logged out: it must come with a new one.
    KeyExpired(Option<Arc<Node>>),
}

/// Why a command was refused. The texts of the first group reach the user of the client, and are
/// those of Headscale (`hscontrol/auth.go`, `hscontrol/types/preauth_key.go`), where people look them up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// The shown key is none of ours.
    #[error("invalid pre auth key")]
    UnknownPreAuthKey,
    /// The shown key has ended.
    #[error("authkey expired")]
    PreAuthKeyExpired,
    /// The shown key was for one use.
    #[error("authkey already used")]
    PreAuthKeyUsed,
    /// A person said no.
    #[error("registration rejected by the administrator")]
    LoginRejected,
    /// The node key belongs to another machine.
    #[error("node exists with a different machine key")]
    MachineMismatch,
    /// The limit of nodes is reached.
    #[error("the tailnet is full: {limit} nodes (limits.nodes)")]
    TooManyNodes {
        /// Most nodes.
        limit: usize,
    },
    /// A prefix has no free address.
    #[error("no free address is left in the tailnet's prefixes")]
    NoAddress,
    /// The client asks for tags that nobody gave it.
    #[error("requested tags {0} are invalid or not permitted")]
    TagsNotPermitted(String),
    /// The client wants to live longer than it may.
    #[error("extending key is not allowed")]
    ExpiryExtended,

    /// There is no such user.
    #[error("user not found")]
    NoSuchUser,
    /// There is no such node.
    #[error("node not found")]
    NoSuchNode,
    /// There is no such key.
    #[error("key not found")]
    NoSuchKey,
    /// There is no such login.
    #[error("no login waits under this id: it may have ended; run `tailscale up` again")]
    NoSuchLogin,
    /// The login was decided before.
    #[error("this login was decided already")]
    LoginDecided,
    /// The name belongs to another user.
    #[error("a user named {0:?} exists already")]
    UserNameTaken(Box<str>),
    /// The name cannot be a user's.
    #[error(
        "{0:?} cannot be a user's name: 1 to 63 letters, digits, `.`, `-`, `_` or `@`, the first one a letter or digit"
    )]
    BadUserName(Box<str>),
    /// The user owns nodes.
    #[error("user not empty: {nodes} node(s) found; delete or move them first")]
    UserHasNodes {
        /// How many.
        nodes: usize,
    },
    /// The name belongs to another node.
    #[error("a node named {0:?} exists already")]
    NodeNameTaken(Box<str>),
    /// The name cannot be a node's.
    #[error("{0:?} cannot be a node's name: 1 to 63 of a-z, 0-9 and `-`, no `-` at either end")]
    BadNodeName(Box<str>),
    /// The text cannot be a tag.
    #[error(
        "{0:?} is no tag: `tag:` and a name that begins with a letter, then letters, digits, `-`"
    )]
    BadTag(Box<str>),
    /// A tagged node keeps at least one tag.
    #[error("a node needs at least one tag or a user: `hearth nodes move` gives it to a user")]
    NoTags,
    /// The machine has a node of that user, or a tagged one, already.
    #[error("node {0} is this machine's node of that owner already; delete one of the two first")]
    MachineHasNode(NodeId),
    /// The address cannot be a node's.
    #[error("{0} cannot be a node's address: it must lie in {1} and outside its reserved ranges")]
    BadAddress(IpAddr, Box<str>),
    /// The address belongs to another node.
    #[error("node {1} has the address {0} already")]
    AddressTaken(IpAddr, NodeId),
    /// A WireGuard-only peer is what its administrator wrote down.
    #[error("this needs a Tailscale client, and the node is a WireGuard-only peer")]
    WireGuardOnly,
    /// A peer without path discovery must have an address.
    #[error("a WireGuard-only peer needs at least one endpoint (address:port)")]
    NoEndpoint,
    /// The text cannot be a resolver.
    #[error("{0:?} is no resolver: expected an address or an https:// URL")]
    BadResolver(Box<str>),
    /// The key belongs to another node.
    #[error("node {0} has this key already")]
    KeyTaken(NodeId),
    /// The text cannot be the name of an attribute.
    #[error(
        "{0:?} cannot be an attribute: `custom:` and letters, digits or `_`, at most 64 bytes in all"
    )]
    BadAttribute(Box<str>),
    /// A key needs an owner for its nodes.
    #[error("a preauth key needs a user or tags")]
    KeyWithoutOwner,
    /// There is no such record.
    #[error("there is no such DNS record among those made by the API")]
    NoSuchDnsRecord,
    /// The very record is there.
    #[error("{0:?} has this record already")]
    DnsRecordExists(Box<str>),
    /// The policy names what there is not, or its tests fail.
    #[error("the policy was not taken over: {}", list(.0))]
    Policy(Vec<Diagnostic>),
    /// A text is longer than what is kept.
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
    #[error("no ids are left")]
    NoIds,
}

fn list(faults: &[Diagnostic]) -> String {
    let texts: Vec<String> = faults.iter().map(ToString::to_string).collect();
    texts.join("; ")
}
