//! Requests to nodes, client reports and SSH checks (hearth's own).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use hearth_core::clock::Timestamp;

/// HTTP request to a node, over its control connection.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AskNode {
    /// HTTP method; empty for `GET`.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// Body.
    pub body: String,
}

/// HTTP response of the node.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeReply {
    /// HTTP status.
    pub status: u16,
    /// Content type of the body.
    pub content_type: String,
    /// Body, if it is text.
    pub body: String,
    /// Body in base64, if it is not text.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub body_base64: String,
}

/// Ping from a node to another, or to this server when there is no target.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PingNode {
    /// An address, or ID or name of a node.
    pub target: String,
    /// Ping types: `disco`, `TSMP`, `ICMP` and `peerapi`; `disco` when empty.
    pub types: Vec<String>,
}

/// Ping results.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PingAnswer {
    /// Each successful ping as the node reports it (`PingResponse` in tailscale `tailcfg/tailcfg.go`).
    pub pings: Vec<Value>,
    /// Seconds until the request of the node reached this server; `null` when another node was the target.
    pub reached_after_seconds: Option<f64>,
}

/// Opens a page in the browser of the node's user.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OpenPage {
    /// URL of the page.
    pub url: String,
}

/// Posture attributes of a node by name, each beginning with `custom:`. In a request, `null` deletes an
/// attribute, and attributes not named are kept.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Attributes {
    /// Strings, integers and booleans by name.
    pub attributes: BTreeMap<String, Value>,
}

/// An SSH connection that needs approval.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SshCheck {
    /// ID: the last part of the URL of its page.
    pub id: String,
    /// `waiting`, `approved` or `rejected`.
    pub state: String,
    /// Name of the source node.
    pub source: String,
    /// Name of the target node.
    pub target: String,
    /// User on the target node.
    pub local_user: String,
    /// Time of the connection.
    pub created_at: Timestamp,
}

/// Response with SSH connections that need approval.
#[derive(Debug, Serialize, Deserialize)]
pub struct SshChecksAnswer {
    /// The connections, oldest first.
    pub checks: Vec<SshCheck>,
}

/// Approves or rejects an SSH connection.
#[derive(Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DecideSshCheck {
    /// ID of the connection.
    pub id: String,
}

hearth_core::redacted!(SshCheck, DecideSshCheck);
