//! JSON of the REST API: written by the server, read by the command line.
//!
//! The format is that of Headscale 0.29 (`hscontrol/api/v1/*.go` in its repository): camelCase,
//! IDs as strings, times in RFC 3339, and fields without a value are present.
//! Paths under `/api/v1/hearth/` are hearth's own.
//! Must not know the state or HTTP.

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
    CheckedPolicy, PolicyAnswer, PolicyVersion, PolicyVersions, RollBackPolicy, SetPolicy,
    WhyAnswer, WhyPair, WhyRule,
};
pub use request::*;
pub use wan::{Counts, Diagnosis, Finding, MappedPort, PortMapping, Wan};

use hearth_derp::Stats;
use serde::{Deserialize, Serialize};

use hearth_core::clock::Timestamp;

/// Login name of the first user, created when one is needed and there is none.
pub const FIRST_USER: &str = "home";

/// Begin of the health warning about a node whose routes are more than the server keeps.
pub const ROUTES_REPORT: &str = "routes: ";
/// Begin of the health warning about a node that offers routes without IP forwarding.
pub const FORWARDING_REPORT: &str = "ip-forwarding: ";

/// Begin of the status warning about users whom the policy names and who do not exist.
pub const MISSING_USERS: &str = "the policy names users that do not exist: ";

/// A user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct User {
    /// ID.
    pub id: String,
    /// Login name.
    pub name: String,
    /// Creation time.
    pub created_at: Timestamp,
    /// Display name.
    pub display_name: String,
    /// Email address.
    pub email: String,
    /// ID at the identity provider; empty.
    pub provider_id: String,
    /// Identity provider; empty.
    pub provider: String,
    /// URL of the profile picture.
    pub profile_pic_url: String,
    /// Role: `owner`, `admin` or `member` (hearth's own).
    #[serde(default)]
    pub role: String,
    /// Key lifetime of its nodes (hearth's own): a duration such as `90d`, `never`, or `default` for that of
    /// the configuration.
    #[serde(default)]
    pub node_expiry: String,
}

/// A preauth key. Its text is complete in the response that creates it, and masked later.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PreAuthKey {
    /// Owner of its nodes; `null` for a tagged key.
    pub user: Option<User>,
    /// ID.
    pub id: String,
    /// Text of the key.
    pub key: String,
    /// Whether the key is reusable.
    pub reusable: bool,
    /// Whether its nodes are ephemeral.
    pub ephemeral: bool,
    /// Whether it was used.
    pub used: bool,
    /// Expiry; `null` never expires.
    pub expiration: Option<Timestamp>,
    /// Creation time.
    pub created_at: Option<Timestamp>,
    /// Tags of its nodes.
    pub acl_tags: Vec<String>,
    /// Whether its nodes are pre-approved where devices need approval (hearth's own).
    #[serde(default)]
    pub preauthorized: bool,
}

/// An API key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ApiKey {
    /// ID.
    pub id: String,
    /// Masked text of the key.
    pub prefix: String,
    /// Scopes (hearth's own); empty for all.
    #[serde(default)]
    pub scopes: Vec<String>,
    /// Expiry; `null` never expires.
    pub expiration: Option<Timestamp>,
    /// Creation time.
    pub created_at: Option<Timestamp>,
    /// Last use; not recorded, to reduce flash wear.
    pub last_seen: Option<Timestamp>,
}

/// A node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Node {
    /// ID.
    pub id: String,
    /// Machine key, as `mkey:` text.
    pub machine_key: String,
    /// Node key, as `nodekey:` text.
    pub node_key: String,
    /// Disco key, as `discokey:` text; all zero while unknown.
    pub disco_key: String,
    /// IPv4 and IPv6 address.
    pub ip_addresses: Vec<String>,
    /// Hostname reported by the client.
    pub name: String,
    /// Owner.
    pub user: Option<User>,
    /// Last time the node was online.
    pub last_seen: Option<Timestamp>,
    /// Key expiry.
    pub expiry: Option<Timestamp>,
    /// The preauth key that it registered with, while that exists.
    pub pre_auth_key: Option<PreAuthKey>,
    /// Registration time.
    pub created_at: Timestamp,
    /// Register method, one of the `REGISTER_METHOD_` constants.
    pub register_method: String,
    /// MagicDNS name, without the base domain.
    pub given_name: String,
    /// Whether the node is online.
    pub online: bool,
    /// Approved routes.
    pub approved_routes: Vec<String>,
    /// Advertised routes.
    pub available_routes: Vec<String>,
    /// Routes in use: approved, and this node is the primary.
    pub subnet_routes: Vec<String>,
    /// Tags.
    pub tags: Vec<String>,
    /// Whether the device is approved (hearth's own, like all that follows).
    #[serde(default)]
    pub authorized: bool,
    /// Whether the node is deleted when it logs out or has been offline for a while.
    #[serde(default)]
    pub ephemeral: bool,
    /// Tags that the client asks for since its last login; only another login can give them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub requested_tags: Vec<String>,
    /// Whether it recently failed a probe while others could serve its routes.
    #[serde(default)]
    pub unhealthy: bool,
    /// WireGuard settings, for a WireGuard-only peer.
    #[serde(default)]
    pub wireguard: Option<WireGuard>,
    /// Health warnings reported by the client.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub health: Vec<String>,
}

/// WireGuard settings of a device without a Tailscale client (hearth's own).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WireGuard {
    /// Endpoints.
    pub endpoints: Vec<String>,
    /// IPv4 masquerade address: the device sees the viewer under this address; `null` for the viewer's own.
    pub masquerade_v4: Option<String>,
    /// IPv6 masquerade address.
    pub masquerade_v6: Option<String>,
    /// DNS resolvers for nodes that use it as exit node.
    pub exit_dns: Vec<String>,
}

/// A pending registration (hearth's own).
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pending {
    /// ID: the last part of its URL.
    pub auth_id: String,
    /// `waiting`, `approved` or `rejected`.
    pub state: String,
    /// Hostname reported by the client.
    pub name: String,
    /// Operating system reported by the client.
    pub os: String,
    /// Machine key, as `mkey:` text.
    pub machine_key: String,
    /// Short form of the machine key, to compare it with the one that the device shows.
    #[serde(default)]
    pub short_key: String,
    /// Node key, as `nodekey:` text.
    pub node_key: String,
    /// Whether the device is ephemeral.
    pub ephemeral: bool,
    /// Requested tags.
    pub request_tags: Vec<String>,
    /// Users for whom it can be approved with these tags: admins, and those whom `tagOwners` of the policy names for each.
    /// Missing without requested tags.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag_approvers: Option<Vec<String>>,
    /// Time of the request.
    pub created_at: Timestamp,
    /// ID of the resulting node.
    pub node_id: Option<String>,
}

/// Relay status. Counters start at zero when hearth starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RelayStatus {
    /// Connected clients.
    pub connections: usize,
    /// Packets received from clients.
    pub packets_received: u64,
    /// Packets sent to clients.
    pub packets_sent: u64,
    /// Bytes of packets sent to clients.
    pub bytes_sent: u64,
    /// Dropped packets.
    pub packets_dropped: u64,
    /// Clients rejected because they are not nodes of this tailnet.
    pub refused: u64,
}

/// Dropped packets by reason and kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RelayDrops {
    /// Reason.
    pub reason: String,
    /// `disco` or `other`.
    pub kind: String,
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

/// STUN counters since hearth started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StunReport {
    /// Responses over IPv4.
    pub answered_ipv4: u64,
    /// Responses over IPv6.
    pub answered_ipv6: u64,
    /// Invalid packets.
    pub ignored: u64,
    /// Rate-limited requests.
    pub limited: u64,
    /// Read and write errors.
    pub errors: u64,
}

/// Path of the [`RelayReport`].
pub const RELAY_PATH: &str = "/api/v1/hearth/relay";

/// Relay and STUN counters since hearth started (hearth's own).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RelayReport {
    /// Whether the relay is enabled; without it all its counters are zero.
    pub is_on: bool,
    /// One field per row of [`hearth_derp::stats::METRICS`] that has a name in JSON.
    #[serde(flatten, with = "relay_stats")]
    pub stats: Stats,
    /// Dropped packets by reason and kind.
    pub drops: Vec<RelayDrops>,
    /// STUN counters.
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

/// Server status (hearth's own).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Version of hearth.
    pub version: String,
    /// `server_url`: the URL that clients connect to.
    pub server_url: String,
    /// Whether all listeners are open; before that the server is not responding.
    pub ready: bool,
    /// Listening address of plain HTTP; `null` is off.
    pub http: Option<String>,
    /// Listening address of HTTPS; `null` is off.
    pub https: Option<String>,
    /// Listening address of STUN; `null` is off.
    pub stun: Option<String>,
    /// The relay; `null` is off.
    pub relay: Option<RelayStatus>,
    /// MagicDNS base domain.
    pub base_domain: String,
    /// The detected board.
    #[serde(default)]
    pub board: BoardStatus,
    /// Uptime in seconds.
    pub uptime_seconds: u64,
    /// Whether the clock is plausible; while it is not, nothing expires.
    pub clock_is_plausible: bool,
    /// Whether the database is writable.
    pub database_is_writable: bool,
    /// Why it is not, and since when; `null` while it is.
    #[serde(default)]
    pub database_fault: Option<DatabaseFault>,
    /// Revision of the published snapshot.
    pub revision: u64,
    /// Number of users.
    pub users: usize,
    /// Number of nodes.
    pub nodes: usize,
    /// Number of online nodes.
    pub online: usize,
    /// Number of expired nodes.
    pub expired: usize,
    /// Number of pending registrations.
    pub pending: usize,
    /// Nodes that await approval, by ID and name.
    #[serde(default)]
    pub unauthorized: Vec<NodeName>,
    /// Nodes with advertised routes that are not approved, by ID and name.
    #[serde(default)]
    pub waiting_routes: Vec<NodeName>,
    /// Number of SSH connections that wait for approval.
    #[serde(default)]
    pub waiting_ssh: usize,
    /// Nodes whose clients ask for tags that only another login can give.
    #[serde(default)]
    pub requested_tags: Vec<NodeName>,
    /// ID of the newest policy version; empty when there is no policy, so everyone can reach
    /// everyone.
    #[serde(default)]
    pub policy_version: String,
    /// Whether no device can reach another because no policy was ever valid.
    #[serde(default)]
    pub policy_is_closed: bool,
    /// When the newest automatic copy of the database was made (RFC 3339); `null` before the first one.
    #[serde(default)]
    pub last_backup: Option<String>,
    /// Warnings about the configuration and the policy.
    pub warnings: Vec<String>,
}

/// The detected board.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BoardStatus {
    /// Display name, or its memory class; `unknown` when nothing is known.
    pub name: String,
    /// Identifier, such as `glinet,gl-mt6000`; empty when it has no board file.
    pub id: String,
    /// How it was detected, in words.
    pub source: String,
    /// Memory class, such as `memory-128`; empty when unknown.
    pub class: String,
    /// Memory budget in bytes of resident memory; `null` when unknown.
    pub memory_budget: Option<u64>,
}

/// ID and name of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeName {
    /// ID.
    pub id: String,
    /// MagicDNS name, without the base domain.
    pub given_name: String,
}

/// An invitation: everything that a new device needs (hearth's own).
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Invite {
    /// Owner of the device.
    pub user: User,
    /// The single-use key.
    pub key: String,
    /// Expiry of the key.
    pub expiration: Option<Timestamp>,
    /// Command to run on the device.
    pub command: String,
    /// URL of the page with instructions; the key is in its fragment, which browsers do not send.
    pub join_url: String,
    /// QR code of that URL, one string per row: `1` is a dark module, `0` a light one. Without the quiet zone.
    /// Empty when the URL is too long for a QR code.
    #[serde(default)]
    pub qr: Vec<String>,
}

/// Response with one user.
#[derive(Debug, Serialize, Deserialize)]
pub struct UserAnswer {
    /// The user.
    pub user: User,
}

/// Response with users.
#[derive(Debug, Serialize, Deserialize)]
pub struct UsersAnswer {
    /// The users.
    pub users: Vec<User>,
}

/// Response with one node.
#[derive(Debug, Serialize, Deserialize)]
pub struct NodeAnswer {
    /// The node.
    pub node: Node,
    /// What a person should know about the change. Not in Headscale.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// Response with nodes.
#[derive(Debug, Serialize, Deserialize)]
pub struct NodesAnswer {
    /// The nodes.
    pub nodes: Vec<Node>,
}

/// Response with changed addresses, one line each.
#[derive(Debug, Serialize, Deserialize)]
pub struct BackfillAnswer {
    /// The lines.
    pub changes: Vec<String>,
}

/// Response with one preauth key.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PreAuthKeyAnswer {
    /// The key.
    pub pre_auth_key: PreAuthKey,
}

/// Response with preauth keys.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PreAuthKeysAnswer {
    /// The keys.
    pub pre_auth_keys: Vec<PreAuthKey>,
}

/// Response with a new API key, the only time its full text is shown.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NewApiKeyAnswer {
    /// Text of the key.
    pub api_key: String,
}

/// Response with API keys.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ApiKeysAnswer {
    /// The keys.
    pub api_keys: Vec<ApiKey>,
}

/// Response with pending registrations.
#[derive(Debug, Serialize, Deserialize)]
pub struct PendingAnswer {
    /// The pending registrations.
    pub pending: Vec<Pending>,
}

/// A DNS record (hearth's own).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DnsRecord {
    /// Full name.
    pub name: String,
    /// Type: `A`, `AAAA` or `ALIAS`.
    pub r#type: String,
    /// Value: an address, or the name of a node.
    pub value: String,
    /// Addresses that it resolves to now.
    pub addresses: Vec<String>,
    /// Source: `configuration`, `policy`, `file` or `api`.
    pub source: String,
}

/// Response with one DNS record.
#[derive(Debug, Serialize, Deserialize)]
pub struct DnsRecordAnswer {
    /// The record.
    pub record: DnsRecord,
}

/// Response with DNS records.
#[derive(Debug, Serialize, Deserialize)]
pub struct DnsRecordsAnswer {
    /// The records.
    pub records: Vec<DnsRecord>,
}

/// Request to add a DNS record. Without a type the value determines it.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CreateDnsRecord {
    /// Name; without a dot it is below the base domain.
    pub name: String,
    /// Type: `A`, `AAAA` or `ALIAS`.
    pub r#type: String,
    /// Value: an address, or the name of a node.
    pub value: String,
}

/// Why the database is read-only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DatabaseFault {
    /// The cause: `full`, `io-error`, `no-response`, `permission`, `read-only` (the file system), or `other`.
    pub cause: String,
    /// The cause as text.
    pub reason: String,
    /// The error of the system; may be empty.
    pub detail: String,
    /// When a write failed first.
    pub since: Timestamp,
    /// What to do.
    pub advice: String,
}

/// Response of the health check.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HealthAnswer {
    /// Whether the database is writable.
    pub database_connectivity: bool,
}

/// Empty response.
#[derive(Debug, Serialize, Deserialize)]
pub struct EmptyAnswer {}

/// Error in the format of gRPC (`google.rpc.Status`), as in Headscale 0.29.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorAnswer {
    /// Error code (`google.rpc.Code`).
    pub code: u32,
    /// Message.
    pub message: String,
    /// Always empty.
    pub details: Vec<()>,
}

hearth_core::redacted!(PreAuthKey, Pending, Invite, NewApiKeyAnswer);
