//! What a map response says beside the map: pings, where the server is found, messages for people.
//!
//! Source: tailscale `tailcfg/tailcfg.go`, the types of the same names.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Serialize;

/// `tailcfg.PingRequest`: the node shall do something and tell a URL how it went.
///
/// The Rust client wants the first three fields in every request.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct PingRequest<'a> {
    /// Where the answer goes; never the same twice.
    #[serde(rename = "URL")]
    pub url: &'a str,
    /// Whether the answer goes through the Noise tunnel.
    #[serde(rename = "URLIsNoise")]
    pub url_is_noise: bool,
    /// Kinds of ping, with commas; empty for a mere HEAD to the URL, `c2n` for a request in `payload`.
    pub types: &'a str,
    /// Whom to ping.
    #[serde(rename = "IP", skip_serializing_if = "Option::is_none")]
    pub ip: Option<IpAddr>,
    /// An HTTP/1.1 request in base64.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub payload: &'a str,
}

/// `tailcfg.ControlDialPlan`: where clients find the server without DNS.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ControlDialPlan {
    /// The addresses, all of which are tried at their time; the first good one wins.
    pub candidates: Vec<ControlIpCandidate>,
}

/// `tailcfg.ControlIPCandidate`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ControlIpCandidate {
    /// The address; the ports are those of the server's URL.
    #[serde(rename = "IP")]
    pub ip: IpAddr,
    /// Seconds from the begin of the whole attempt to this one.
    pub dial_start_delay_sec: f64,
    /// Seconds that this one may take. Zero would be none at all.
    pub dial_timeout_sec: f64,
    /// Higher is better.
    pub priority: i32,
}

/// `tailcfg.ClientVersion`: whether the client is new enough.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ClientVersion<'a> {
    /// The client needs no update.
    #[serde(skip_serializing_if = "is_false")]
    pub running_latest: bool,
    /// The version to get, such as `1.102.5`; empty for a client that has it.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub latest_version: &'a str,
}

fn is_false(flag: &bool) -> bool {
    !flag
}

/// `tailcfg.DisplayMessageSeverity`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Shown at once, by a notification where there are any.
    High,
    /// Shown well visible.
    Medium,
    /// Shown to those who look.
    Low,
}

/// `tailcfg.DisplayMessage`: something that the person at the device should know.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct DisplayMessage {
    /// One line without a period.
    pub title: String,
    /// Sentences.
    pub text: String,
    /// How it is shown.
    pub severity: Severity,
    /// Whether something does not work because of it.
    #[serde(skip_serializing_if = "is_false")]
    pub impacts_connectivity: bool,
}

/// Messages by their id, an ASCII word that stays the same as long as the matter does.
pub type DisplayMessages = BTreeMap<&'static str, DisplayMessage>;
