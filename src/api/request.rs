//! Requests of the command line and other API clients.

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

/// Creates a user.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
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
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct CreatePreAuthKey {
    /// ID of the owner; empty or `0` for none.
    pub user: NumberText,
    /// Whether the key is reusable.
    #[serde(deserialize_with = "flag")]
    pub reusable: bool,
    /// Whether its nodes are ephemeral.
    #[serde(deserialize_with = "flag")]
    pub ephemeral: bool,
    /// Expiry: a time, a date, a duration or `never`.
    pub expiration: Option<String>,
    /// Tags of its nodes.
    pub acl_tags: Vec<String>,
    /// Whether its nodes are pre-approved where devices need approval (hearth's own). The default is yes:
    /// tools for Headscale, which has no device approval, rely on it.
    #[serde(deserialize_with = "some_flag")]
    pub preauthorized: Option<bool>,
}

/// Selects a preauth key or API key.
#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct NameKey {
    /// ID of the key; empty or `0` for none.
    pub id: NumberText,
    /// Prefix of an API key.
    pub prefix: String,
    /// Text of a preauth key, whole or masked (Headscale up to 0.27).
    #[serde(skip_serializing_if = "String::is_empty")]
    pub key: String,
    /// ID of the key's owner, beside its text.
    #[serde(skip_serializing_if = "NumberText::is_empty")]
    pub user: NumberText,
}

/// Creates an API key.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CreateApiKey {
    /// Expiry: a time, a date, a duration or `never`.
    pub expiration: Option<String>,
    /// Scopes (hearth's own), such as `devices:core:read`; all if left out. An empty list is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scopes: Option<Vec<String>>,
}

/// Sets the key expiry of a node; now when empty.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ExpireNode {
    /// Expiry: a time, a date, a duration, `now` or `never`.
    pub expiry: Option<String>,
    /// Disables key expiry.
    #[serde(deserialize_with = "flag")]
    pub disable_expiry: bool,
}

/// Sets the approved routes of a node, replacing all.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ApproveRoutes {
    /// Prefixes; one exit route (`0.0.0.0/0` or `::/0`) approves both.
    pub routes: Vec<String>,
}

/// Sets the tags of a node, replacing its owner or tags.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SetTags {
    /// Each `tag:name`.
    pub tags: Vec<String>,
}

/// Moves a node to a user (Headscale up to 0.27).
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MoveNode {
    /// Name or ID of the user.
    pub user: NumberText,
}

/// Sets the addresses of a node (hearth's own); an empty one is not changed.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SetAddresses {
    /// IPv4.
    pub ipv4: String,
    /// IPv6.
    pub ipv6: String,
}

/// Adds a WireGuard-only device (hearth's own).
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
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
    #[serde(deserialize_with = "flag")]
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
#[serde(default, deny_unknown_fields)]
pub struct SetRole {
    /// `owner`, `admin` or `member`.
    pub role: String,
}

/// Sets the key lifetime of a user's nodes, from each login (hearth's own).
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SetUserExpiry {
    /// A duration such as `90d`, `never`, or `default` for that of the configuration.
    pub expiry: String,
}

/// Approves or rejects a pending registration.
#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct DecideLogin {
    /// Login name or ID of the owner, for an approval.
    pub user: NumberText,
    /// ID of the pending registration.
    pub auth_id: String,
}

/// Approves a pending registration (Headscale up to 0.28).
#[derive(Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RegisterNode {
    /// Login name or ID of the owner.
    pub user: NumberText,
    /// ID of the pending registration.
    pub key: String,
}

/// Confirms a change of all nodes.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Confirm {
    /// Whether to carry it out.
    #[serde(deserialize_with = "flag")]
    pub confirmed: bool,
}

/// Creates an invitation (hearth's own).
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CreateInvite {
    /// Name or ID of the owner; empty for the only user.
    pub user: NumberText,
    /// Expiry of the key: a time, a date, a duration or `never`; after 24 hours by default.
    pub expiration: Option<String>,
}

/// An integer given as a string or a number, as JSON of protobuf allows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct NumberText(pub String);

impl NumberText {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'de> Deserialize<'de> for NumberText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::String(text) => Ok(Self(text)),
            Value::Number(number) if number.is_u64() => Ok(Self(number.to_string())),
            _ => Err(D::Error::custom("expected a text or a whole number")),
        }
    }
}

/// Reads a word as yes or no; `None` for other words. Source: `ParseBool` in Go's `strconv`, with which Headscale's
/// gateway reads queries.
pub fn parse_flag(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

fn flag<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    let flag = match Value::deserialize(deserializer)? {
        Value::Bool(flag) => Some(flag),
        Value::String(text) => parse_flag(&text),
        Value::Number(number) => parse_flag(&number.to_string()),
        _ => None,
    };
    flag.ok_or_else(|| D::Error::custom("expected true or false"))
}

fn some_flag<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<bool>, D::Error> {
    flag(deserializer).map(Some)
}

hearth_core::redacted!(DecideLogin, NameKey, RegisterNode);
