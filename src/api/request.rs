//! What the command line and other programs ask for.

use serde::{Deserialize, Serialize};

use hearth_core::clock::Timestamp;

/// Makes a user.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CreateUser {
    /// Login name.
    pub name: String,
    /// Name to show.
    pub display_name: String,
    /// Mail address.
    pub email: String,
    /// Address of a picture.
    pub picture_url: String,
}

/// Makes a preauth key.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CreatePreAuthKey {
    /// Number of the owner; empty or `0` for none.
    pub user: NumberText,
    /// Whether it may be used more than once.
    pub reusable: bool,
    /// Whether its nodes are ephemeral.
    pub ephemeral: bool,
    /// When it ends.
    pub expiration: Option<Timestamp>,
    /// Tags of its nodes.
    pub acl_tags: Vec<String>,
    /// Whether its nodes take part at once where devices need approval (hearth's own). They do when
    /// nothing is said: tools made for Headscale, which knows no approval, rely on it.
    pub preauthorized: Option<bool>,
}

/// Names a preauth or API key.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NameKey {
    /// Number of the key; empty or `0` for none.
    pub id: NumberText,
    /// Prefix of an API key.
    pub prefix: String,
}

/// Makes an API key.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct CreateApiKey {
    /// When it ends.
    pub expiration: Option<Timestamp>,
    /// What it may do (hearth's own), such as `devices:core:read`; none is everything.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<String>,
}

/// Sets when a node expires: now, when nothing is said.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ExpireNode {
    /// At this time.
    pub expiry: Option<Timestamp>,
    /// Never.
    pub disable_expiry: bool,
}

/// Sets the routes that a node may serve: the full list.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ApproveRoutes {
    /// Prefixes; one exit route stands for both.
    pub routes: Vec<String>,
}

/// Gives a node tags in the place of its user or of other tags.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct SetTags {
    /// Each `tag:name`.
    pub tags: Vec<String>,
}

/// Gives a node to a user (Headscale up to 0.27).
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct MoveNode {
    /// Name or number of the user.
    pub user: NumberText,
}

/// Gives a node other addresses (hearth's own); an empty one stays as it is.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct SetAddresses {
    /// IPv4.
    pub ipv4: String,
    /// IPv6.
    pub ipv6: String,
}

/// Adds a device without a Tailscale client (hearth's own).
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AddWireGuard {
    /// DNS label.
    pub name: String,
    /// Its public key: base64 as WireGuard shows it, or `nodekey:` text.
    pub key: String,
    /// Where it is reached, `address:port`: at least one.
    pub endpoints: Vec<String>,
    /// Name or number of the owner; empty for the only user there is, unless there are tags.
    pub user: NumberText,
    /// Tags; then there is no owner.
    pub tags: Vec<String>,
    /// Its IPv4 address; empty takes the next free one.
    pub ipv4: String,
    /// Its IPv6 address; empty takes the next free one.
    pub ipv6: String,
    /// What lies behind it.
    pub routes: Vec<String>,
    /// Whether it is an exit node.
    pub exit_node: bool,
    /// Resolvers for those who use it as their exit node: addresses or `https://` URLs.
    pub exit_dns: Vec<String>,
    /// The IPv4 address that it takes viewers' traffic for, when that is not their own; may be empty.
    pub masquerade_v4: String,
    /// The same for IPv6.
    pub masquerade_v6: String,
}

/// Sets what a user may do (hearth's own).
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct SetRole {
    /// `owner`, `admin` or `member`.
    pub role: String,
}

/// Sets how long the keys of a user's nodes live, from each login on (hearth's own).
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct SetUserExpiry {
    /// A time such as `90d`, `never`, or `default` for what the configuration says.
    pub expiry: String,
}

/// Decides about a pending login.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DecideLogin {
    /// Login name of the owner, when the login is approved.
    pub user: String,
    /// Name of the login.
    pub auth_id: String,
}

/// Asks for an invitation (hearth's own).
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct CreateInvite {
    /// Name or number of the owner; empty for the only user there is.
    pub user: String,
    /// When the key ends; after a day when nothing is said.
    pub expiration: Option<Timestamp>,
}

/// A whole number that may come as text or as number, as protobuf's JSON allows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct NumberText(pub String);

impl<'de> Deserialize<'de> for NumberText {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            Text(String),
            Number(u64),
        }
        Ok(Self(match Either::deserialize(deserializer)? {
            Either::Text(text) => text,
            Either::Number(number) => number.to_string(),
        }))
    }
}
