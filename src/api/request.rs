//! Requests of the command line and other API clients.

use serde::{Deserialize, Serialize};

use hearth_core::clock::Timestamp;

/// Creates a user.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CreateUser {
    /// Login name.
    pub name: String,
    /// Display name.
    pub display_name: String,
    /// Email address.
    pub email: String,
    /// URL of the profile picture.
    pub picture_url: String,
}

/// Creates a preauth key.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CreatePreAuthKey {
    /// ID of the owner; empty or `0` for none.
    pub user: NumberText,
    /// Whether the key is reusable.
    pub reusable: bool,
    /// Whether its nodes are ephemeral.
    pub ephemeral: bool,
    /// Expiry.
    pub expiration: Option<Timestamp>,
    /// Tags of its nodes.
    pub acl_tags: Vec<String>,
    /// Whether its nodes are pre-approved where devices need approval (hearth's own). The default is yes:
    /// tools for Headscale, which has no device approval, rely on it.
    pub preauthorized: Option<bool>,
}

/// Selects a preauth key or API key.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NameKey {
    /// ID of the key; empty or `0` for none.
    pub id: NumberText,
    /// Prefix of an API key.
    pub prefix: String,
}

/// Creates an API key.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct CreateApiKey {
    /// Expiry.
    pub expiration: Option<Timestamp>,
    /// Scopes (hearth's own), such as `devices:core:read`; all when empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<String>,
}

/// Sets the key expiry of a node; now when empty.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ExpireNode {
    /// Expiry.
    pub expiry: Option<Timestamp>,
    /// Disables key expiry.
    pub disable_expiry: bool,
}

/// Sets the approved routes of a node, replacing all.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ApproveRoutes {
    /// Prefixes; one exit route (`0.0.0.0/0` or `::/0`) approves both.
    pub routes: Vec<String>,
}

/// Sets the tags of a node, replacing its owner or tags.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct SetTags {
    /// Each `tag:name`.
    pub tags: Vec<String>,
}

/// Moves a node to a user (Headscale up to 0.27).
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct MoveNode {
    /// Name or ID of the user.
    pub user: NumberText,
}

/// Sets the addresses of a node (hearth's own); an empty one is not changed.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct SetAddresses {
    /// IPv4.
    pub ipv4: String,
    /// IPv6.
    pub ipv6: String,
}

/// Adds a WireGuard-only device (hearth's own).
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AddWireGuard {
    /// MagicDNS name, without the base domain.
    pub name: String,
    /// Public key: base64 as in WireGuard, or `nodekey:` text.
    pub key: String,
    /// Endpoints as `address:port`, at least one.
    pub endpoints: Vec<String>,
    /// Name or ID of the owner; empty for the only user, or when there are tags.
    pub user: NumberText,
    /// Tags, instead of an owner.
    pub tags: Vec<String>,
    /// IPv4 address; empty for the next free one.
    pub ipv4: String,
    /// IPv6 address; empty for the next free one.
    pub ipv6: String,
    /// Subnet routes behind it.
    pub routes: Vec<String>,
    /// Whether it is an exit node.
    pub exit_node: bool,
    /// DNS resolvers for nodes that use it as exit node: addresses or `https://` URLs.
    pub exit_dns: Vec<String>,
    /// IPv4 masquerade address: the device sees the viewer under this address; empty for the viewer's own.
    pub masquerade_v4: String,
    /// IPv6 masquerade address.
    pub masquerade_v6: String,
}

/// Sets the role of a user (hearth's own).
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct SetRole {
    /// `owner`, `admin` or `member`.
    pub role: String,
}

/// Sets the key lifetime of a user's nodes, from each login (hearth's own).
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct SetUserExpiry {
    /// A duration such as `90d`, `never`, or `default` for that of the configuration.
    pub expiry: String,
}

/// Approves or rejects a pending registration.
#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DecideLogin {
    /// Login name of the owner, for an approval.
    pub user: String,
    /// ID of the pending registration.
    pub auth_id: String,
}

/// Creates an invitation (hearth's own).
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct CreateInvite {
    /// Name or ID of the owner; empty for the only user.
    pub user: String,
    /// Expiry of the key; after 24 hours by default.
    pub expiration: Option<Timestamp>,
}

/// An integer given as a string or a number, as JSON of protobuf allows.
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

hearth_core::redacted!(DecideLogin);
