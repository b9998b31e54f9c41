//! The JSON of the REST interface: what the server writes and the command line reads.
//!
//! The shapes are those of Headscale 0.29 (`hscontrol/api/v1/*.go` in its repository): camelCase,
//! ids as texts, times in RFC 3339, and fields without a value present all the same.
//! What stands under `/api/v1/hearth/` is hearth's own.
//! Must not know: the state, HTTP.

mod audit;
mod contact;
mod policy;
mod request;
mod wan;

pub use audit::{AuditActor, AuditAnswer, AuditEntry, AuditReport, AuditTarget};
pub use contact::{
    AskNode, Attributes, DecideSshCheck, NodeReply, OpenPage, PingAnswer, PingNode, SshCheck,
    SshChecksAnswer,
};
pub use policy::{
    PolicyAnswer, PolicyVersion, PolicyVersions, RollBackPolicy, SetPolicy, WhyAnswer, WhyPair,
    WhyRule,
};
pub use request::*;
pub use wan::{Counts, Diagnosis, Finding, MappedPort, PortMapping, Wan};

use hearth_derp::Stats;
use serde::{Deserialize, Serialize};

use hearth_core::clock::Timestamp;

/// Login name of the user that is made when one is needed and there is none.
pub const FIRST_USER: &str = "home";

/// A user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct User {
    /// Number.
    pub id: String,
    /// Login name.
    pub name: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// Name to show.
    pub display_name: String,
    /// Mail address.
    pub email: String,
    /// Id at the provider of logins; empty.
    pub provider_id: String,
    /// Provider of logins; empty.
    pub provider: String,
    /// Address of a picture.
    pub profile_pic_url: String,
    /// What it may do: `owner`, `admin` or `member` (hearth's own).
    #[serde(default)]
    pub role: String,
    /// How long the keys of its nodes live (hearth's own): a time such as `90d`, `never`, or `default`
    /// for what the configuration says.
    #[serde(default)]
    pub node_expiry: String,
}

/// A preauth key. Its text is whole in the answer that makes it, later masked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PreAuthKey {
    /// Owner of its nodes; `null` for a tagged key.
    pub user: Option<User>,
    /// Number.
    pub id: String,
    /// Text of the key.
    pub key: String,
    /// Whether it may be used more than once.
    pub reusable: bool,
    /// Whether its nodes are ephemeral.
    pub ephemeral: bool,
    /// Whether it was used.
    pub used: bool,
    /// When it ends; `null` is never.
    pub expiration: Option<Timestamp>,
    /// When it was made.
    pub created_at: Option<Timestamp>,
    /// Tags of its nodes.
    pub acl_tags: Vec<String>,
    /// Whether its nodes take part at once where devices need approval (hearth's own).
    #[serde(default)]
    pub preauthorized: bool,
}

/// An API key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ApiKey {
    /// Number.
    pub id: String,
    /// Masked text of the key.
    pub prefix: String,
    /// What it may do (hearth's own); empty is everything.
    #[serde(default)]
    pub scopes: Vec<String>,
    /// When it ends; `null` is never.
    pub expiration: Option<Timestamp>,
    /// When it was made.
    pub created_at: Option<Timestamp>,
    /// When it was last used; hearth does not keep that, for the sake of the flash.
    pub last_seen: Option<Timestamp>,
}

/// A node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Node {
    /// Number.
    pub id: String,
    /// `mkey:` text.
    pub machine_key: String,
    /// `nodekey:` text.
    pub node_key: String,
    /// `discokey:` text; all zero while unknown.
    pub disco_key: String,
    /// IPv4 and IPv6 address.
    pub ip_addresses: Vec<String>,
    /// Host name as the client gave it.
    pub name: String,
    /// Owner.
    pub user: Option<User>,
    /// When it was last there.
    pub last_seen: Option<Timestamp>,
    /// When its key ends.
    pub expiry: Option<Timestamp>,
    /// The key it came in with, while that exists.
    pub pre_auth_key: Option<PreAuthKey>,
    /// When it joined.
    pub created_at: Timestamp,
    /// One of the `REGISTER_METHOD_` words.
    pub register_method: String,
    /// DNS label.
    pub given_name: String,
    /// Whether it is there.
    pub online: bool,
    /// Routes that may be used.
    pub approved_routes: Vec<String>,
    /// Routes that it offers.
    pub available_routes: Vec<String>,
    /// Routes that are in use.
    pub subnet_routes: Vec<String>,
    /// Tags.
    pub tags: Vec<String>,
    /// Whether an administrator lets it take part (hearth's own, like all that follows).
    #[serde(default)]
    pub authorized: bool,
    /// Whether it lately failed to answer while others could serve its routes.
    #[serde(default)]
    pub unhealthy: bool,
    /// What it is made of, when it is a WireGuard-only peer.
    #[serde(default)]
    pub wireguard: Option<WireGuard>,
    /// What its client says is wrong with it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub health: Vec<String>,
}

/// A device without a Tailscale client (hearth's own).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WireGuard {
    /// Where it is reached.
    pub endpoints: Vec<String>,
    /// The IPv4 address that it takes viewers' traffic for; `null` is each viewer's own.
    pub masquerade_v4: Option<String>,
    /// The same for IPv6.
    pub masquerade_v6: Option<String>,
    /// Resolvers for those who use it as their exit node.
    pub exit_dns: Vec<String>,
}

/// A machine that asked to join (hearth's own).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pending {
    /// Name of the login: the last part of its URL.
    pub auth_id: String,
    /// `waiting`, `approved` or `rejected`.
    pub state: String,
    /// Host name as the client gave it.
    pub name: String,
    /// Operating system as the client gave it.
    pub os: String,
    /// `mkey:` text.
    pub machine_key: String,
    /// `nodekey:` text.
    pub node_key: String,
    /// Whether it wants to be ephemeral.
    pub ephemeral: bool,
    /// Tags it asks for.
    pub request_tags: Vec<String>,
    /// When it asked.
    pub created_at: Timestamp,
    /// The node that came of it.
    pub node_id: Option<String>,
}

/// How the relay is. Counters run from the start of hearth.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RelayStatus {
    /// Clients that are connected.
    pub connections: usize,
    /// Packets taken from clients.
    pub packets_received: u64,
    /// Packets given to clients.
    pub packets_sent: u64,
    /// Bytes of the packets given to clients.
    pub bytes_sent: u64,
    /// Packets dropped for any reason.
    pub packets_dropped: u64,
    /// Clients turned away because they are no nodes of this tailnet.
    pub refused: u64,
}

/// Dropped packets of one reason and kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RelayDrops {
    /// Why.
    pub reason: String,
    /// `disco` or `other`.
    pub kind: String,
    /// Packets.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Counters of the STUN responder since its start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StunReport {
    /// Responses over IPv4.
    pub answered_ipv4: u64,
    /// Responses over IPv6.
    pub answered_ipv6: u64,
    /// Packets that were not a valid request.
    pub ignored: u64,
    /// Rate-limited requests.
    pub limited: u64,
    /// Packets that could not be received or sent.
    pub errors: u64,
}

/// Path of the [`RelayReport`].
pub const RELAY_PATH: &str = "/api/v1/hearth/relay";

/// Statistics of the relay (hearth's own).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RelayReport {
    /// Whether the relay is on; if not, all its numbers are zero.
    pub is_on: bool,
    /// One member for each row of [`hearth_derp::stats::METRICS`] that has a name in JSON.
    #[serde(flatten, with = "relay_stats")]
    pub stats: Stats,
    /// Dropped packets by reason and kind.
    pub drops: Vec<RelayDrops>,
    /// The STUN responder.
    pub stun: StunReport,
}

mod relay_stats {
    use hearth_derp::Stats;
    use hearth_derp::stats::METRICS;
    use serde::{Deserialize, Deserializer, Serializer};
    use serde_json::{Map, Value};

    pub fn serialize<S: Serializer>(stats: &Stats, to: S) -> Result<S::Ok, S::Error> {
        let rows = METRICS.iter();
        to.collect_map(rows.filter_map(|row| Some((row.json?, (row.get)(stats)))))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Stats, D::Error> {
        let members = Map::deserialize(from)?;
        let mut stats = Stats::default();
        for row in METRICS {
            let value = row.json.and_then(|name| members.get(name));
            if let Some(value) = value.and_then(Value::as_u64) {
                (row.set)(&mut stats, value);
            }
        }
        Ok(stats)
    }
}

/// How the server is (hearth's own).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Version of hearth.
    pub version: String,
    /// What clients are told to connect to.
    pub server_url: String,
    /// Whether all listeners are open. Before that nobody answers.
    pub ready: bool,
    /// Address of the listener for plain HTTP; `null` is off.
    pub http: Option<String>,
    /// Address of the listener for HTTPS; `null` is off.
    pub https: Option<String>,
    /// Address of the listener for STUN; `null` is off.
    pub stun: Option<String>,
    /// The relay; `null` is off.
    pub relay: Option<RelayStatus>,
    /// Domain of the nodes' names.
    pub base_domain: String,
    /// The board that hearth runs on.
    #[serde(default)]
    pub board: BoardStatus,
    /// Seconds since the start.
    pub uptime_seconds: u64,
    /// Whether the clock can be believed; while it cannot, nothing expires.
    pub clock_is_plausible: bool,
    /// Whether the database takes changes.
    pub database_is_writable: bool,
    /// Number of the published state.
    pub revision: u64,
    /// How many users there are.
    pub users: usize,
    /// How many nodes there are.
    pub nodes: usize,
    /// How many of them are online.
    pub online: usize,
    /// How many of them have expired.
    pub expired: usize,
    /// How many machines wait for approval.
    pub pending: usize,
    /// Nodes that joined and wait until they may take part, by number and name.
    #[serde(default)]
    pub unauthorized: Vec<NodeName>,
    /// Nodes that offer routes in vain, by number and name.
    #[serde(default)]
    pub waiting_routes: Vec<NodeName>,
    /// Number of the version of the policy that was set last; empty: there is none, and everyone may reach
    /// everyone.
    #[serde(default)]
    pub policy_version: String,
    /// What is wrong with the configuration or the policy.
    pub warnings: Vec<String>,
}

/// The board that hearth runs on.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BoardStatus {
    /// Its name for people, or its class of memory; `unknown` when nothing is known.
    pub name: String,
    /// Its name for programs, such as `glinet,gl-mt6000`; empty when it has no file.
    pub id: String,
    /// How it was found, in words.
    pub source: String,
    /// The class of its memory, such as `memory-128`; empty when that is not known.
    pub class: String,
    /// What hearth may take, in bytes of resident memory; `null` when that is not known.
    pub memory_budget: Option<u64>,
}

/// Which node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeName {
    /// Number.
    pub id: String,
    /// DNS label.
    pub given_name: String,
}

/// All that a new device needs (hearth's own).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Invite {
    /// Owner of the device.
    pub user: User,
    /// The single-use key.
    pub key: String,
    /// When the key ends.
    pub expiration: Option<Timestamp>,
    /// What to type on the device.
    pub command: String,
    /// The page that says what to do; the key is in its fragment, which browsers do not send.
    pub join_url: String,
    /// The QR code of that page's address, a text for each row: `1` is a dark module, `0` a light one. The
    /// quiet zone around it is not in it. Empty when the address is too long for a code.
    #[serde(default)]
    pub qr: Vec<String>,
}

/// The answer with one user.
#[derive(Debug, Serialize, Deserialize)]
pub struct UserAnswer {
    /// The user.
    pub user: User,
}

/// The answer with users.
#[derive(Debug, Serialize, Deserialize)]
pub struct UsersAnswer {
    /// The users.
    pub users: Vec<User>,
}

/// The answer with one node.
#[derive(Debug, Serialize, Deserialize)]
pub struct NodeAnswer {
    /// The node.
    pub node: Node,
}

/// The answer with nodes.
#[derive(Debug, Serialize, Deserialize)]
pub struct NodesAnswer {
    /// The nodes.
    pub nodes: Vec<Node>,
}

/// The answer with what was done to addresses, a line for each.
#[derive(Debug, Serialize, Deserialize)]
pub struct BackfillAnswer {
    /// The lines.
    pub changes: Vec<String>,
}

/// The answer with one preauth key.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PreAuthKeyAnswer {
    /// The key.
    pub pre_auth_key: PreAuthKey,
}

/// The answer with preauth keys.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PreAuthKeysAnswer {
    /// The keys.
    pub pre_auth_keys: Vec<PreAuthKey>,
}

/// The answer with a new API key: its only appearance.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NewApiKeyAnswer {
    /// Text of the key.
    pub api_key: String,
}

/// The answer with API keys.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ApiKeysAnswer {
    /// The keys.
    pub api_keys: Vec<ApiKey>,
}

/// The answer with pending logins.
#[derive(Debug, Serialize, Deserialize)]
pub struct PendingAnswer {
    /// The logins.
    pub pending: Vec<Pending>,
}

/// A DNS record (hearth's own).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DnsRecord {
    /// Full name.
    pub name: String,
    /// `A`, `AAAA` or `ALIAS`.
    pub r#type: String,
    /// An address, or the name of a node.
    pub value: String,
    /// The addresses that it stands for now.
    pub addresses: Vec<String>,
    /// Where it was made: `configuration`, `policy`, `file` or `api`.
    pub source: String,
}

/// The answer with one DNS record.
#[derive(Debug, Serialize, Deserialize)]
pub struct DnsRecordAnswer {
    /// The record.
    pub record: DnsRecord,
}

/// The answer with DNS records.
#[derive(Debug, Serialize, Deserialize)]
pub struct DnsRecordsAnswer {
    /// The records.
    pub records: Vec<DnsRecord>,
}

/// The wish for a DNS record. Without a type the value tells it.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CreateDnsRecord {
    /// Name; without a dot it is below the base domain.
    pub name: String,
    /// `A`, `AAAA` or `ALIAS`.
    pub r#type: String,
    /// An address, or the name of a node.
    pub value: String,
}

/// The answer about the health of the server.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HealthAnswer {
    /// Whether the database takes changes.
    pub database_connectivity: bool,
}

/// The answer without content.
#[derive(Debug, Serialize, Deserialize)]
pub struct EmptyAnswer {}

/// Why a request failed, in the form of gRPC (`google.rpc.Status`), which Headscale 0.29 gives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorAnswer {
    /// Number of the kind of failure (`google.rpc.Code`).
    pub code: u32,
    /// What happened.
    pub message: String,
    /// Always empty.
    pub details: Vec<()>,
}
