//! What administrators and nodes have to say to each other (hearth's own).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use hearth_core::clock::Timestamp;

/// Asks a node something over its control connection.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AskNode {
    /// Method of HTTP; empty is `GET`.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// Body.
    pub body: String,
}

/// What the node answered.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeReply {
    /// Status of HTTP.
    pub status: u16,
    /// Type of the body.
    pub content_type: String,
    /// The body when it is a text.
    pub body: String,
    /// The body in base64 when it is none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub body_base64: String,
}

/// Has a node ping another, or this server when no target is named.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PingNode {
    /// An address, or a node by id or name.
    pub target: String,
    /// Any of `disco`, `TSMP`, `ICMP` and `peerapi`; none is `disco`.
    pub types: Vec<String>,
}

/// How the pings went.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PingAnswer {
    /// What the node says of each ping that worked (`PingResponse` in tailscale `tailcfg/tailcfg.go`).
    pub pings: Vec<Value>,
    /// Seconds until the node's request arrived at this server; `null` when another node was the target.
    pub reached_after_seconds: Option<f64>,
}

/// Has the node open a page in the browser of its user.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct OpenPage {
    /// Address of the page.
    pub url: String,
}

/// Attributes of a node by name, each `custom:` and more. In a request `null` takes one away, and what is
/// not named stays.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Attributes {
    /// Texts, whole numbers and truth values by name.
    pub attributes: BTreeMap<String, Value>,
}

/// An SSH connection that a person must confirm.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SshCheck {
    /// The last part of the address of its page.
    pub id: String,
    /// `waiting`, `approved` or `rejected`.
    pub state: String,
    /// Name of the node where it comes from.
    pub source: String,
    /// Name of the node that it goes to.
    pub target: String,
    /// The user on that node.
    pub local_user: String,
    /// When it came.
    pub created_at: Timestamp,
}

/// The answer with SSH connections.
#[derive(Debug, Serialize, Deserialize)]
pub struct SshChecksAnswer {
    /// The connections, oldest first.
    pub checks: Vec<SshCheck>,
}

/// Decides about an SSH connection.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct DecideSshCheck {
    /// The connection.
    pub id: String,
}
