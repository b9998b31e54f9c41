//! Parts of a map response beside the map: ping requests, the dial plan, client version, display messages.
//!
//! Source: tailscale `tailcfg/tailcfg.go`, the types of the same names.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Serialize;

/// `tailcfg.PingRequest`: asks the node to do something and post the result to a URL.
///
/// The Rust client requires the first three fields.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct PingRequest<'a> {
    /// URL for the result; unique.
    #[serde(rename = "URL")]
    pub url: &'a str,
    /// Whether the result is sent inside Noise.
    #[serde(rename = "URLIsNoise")]
    pub url_is_noise: bool,
    /// Kinds of ping, separated by commas; empty for a HEAD request to the URL, `c2n` for the request in `payload`.
    pub types: &'a str,
    /// Address to ping.
    #[serde(rename = "IP", skip_serializing_if = "Option::is_none")]
    pub ip: Option<IpAddr>,
    /// An HTTP/1.1 request in base64.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub payload: &'a str,
}

/// `tailcfg.ControlDialPlan`: server addresses that clients try without DNS.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ControlDialPlan {
    /// The addresses, each tried after its delay; the best one that works is used.
    pub candidates: Vec<ControlIpCandidate>,
}

/// `tailcfg.ControlIPCandidate`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ControlIpCandidate {
    /// The address; the ports are those of the server's URL.
    #[serde(rename = "IP")]
    pub ip: IpAddr,
    /// Delay before this address is tried, in seconds.
    pub dial_start_delay_sec: f64,
    /// Timeout of this address, in seconds; zero fails at once.
    pub dial_timeout_sec: f64,
    /// Higher is better.
    pub priority: i32,
}

/// `tailcfg.ClientVersion`: whether the client is up to date.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ClientVersion<'a> {
    /// Whether the client is up to date.
    #[serde(skip_serializing_if = "is_false")]
    pub running_latest: bool,
    /// The version to update to, such as `1.102.5`; empty if up to date.
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
    /// Shown at once, as a notification where supported.
    High,
    /// Shown prominently.
    Medium,
    /// Shown on demand.
    Low,
}

/// `tailcfg.DisplayMessage`: a message for the person at the device.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct DisplayMessage {
    /// One line without a period.
    pub title: String,
    /// Sentences.
    pub text: String,
    /// How it is shown.
    pub severity: Severity,
    /// Whether connectivity is affected.
    #[serde(skip_serializing_if = "is_false")]
    pub impacts_connectivity: bool,
}

/// Messages by ID, an ASCII word that stays the same while the condition lasts.
pub type DisplayMessages = BTreeMap<&'static str, DisplayMessage>;
