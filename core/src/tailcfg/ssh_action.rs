//! `tailcfg.SSHAction`: what becomes of an SSH connection.
//!
//! Source: tailscale `tailcfg/tailcfg.go`.

use serde::Serialize;

/// What becomes of an SSH connection.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SshAction {
    /// Shown to whoever connects, before anything else.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// The connection ends.
    #[serde(skip_serializing_if = "is_false")]
    pub reject: bool,
    /// The connection is let in.
    #[serde(skip_serializing_if = "is_false")]
    pub accept: bool,
    /// The connection waits for what this URL answers, inside the Noise tunnel.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub hold_and_delegate: String,
    /// The agent may be forwarded.
    #[serde(skip_serializing_if = "is_false")]
    pub allow_agent_forwarding: bool,
    /// Ports of the target may be reached from the source.
    #[serde(skip_serializing_if = "is_false")]
    pub allow_local_port_forwarding: bool,
    /// Ports of the source may be reached from the target.
    #[serde(skip_serializing_if = "is_false")]
    pub allow_remote_port_forwarding: bool,
}

impl SshAction {
    /// Lets the connection in. The rights do not come from the rule that asked for the check and have to
    /// be said here; all of them are given, as without a check.
    pub fn accepted() -> Self {
        Self {
            accept: true,
            allow_agent_forwarding: true,
            allow_local_port_forwarding: true,
            allow_remote_port_forwarding: true,
            ..Self::default()
        }
    }

    /// Ends the connection.
    pub fn rejected(message: &str) -> Self {
        Self {
            message: message.to_owned(),
            reject: true,
            ..Self::default()
        }
    }
}

fn is_false(flag: &bool) -> bool {
    !flag
}
