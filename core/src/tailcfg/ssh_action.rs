//! `tailcfg.SSHAction`: the decision about an SSH connection.
//!
//! Source: tailscale `tailcfg/tailcfg.go`.

use serde::Serialize;

/// The decision about an SSH connection.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SshAction {
    /// Message shown to the SSH client first.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Rejects the connection.
    #[serde(skip_serializing_if = "is_false")]
    pub reject: bool,
    /// Accepts the connection.
    #[serde(skip_serializing_if = "is_false")]
    pub accept: bool,
    /// URL to ask inside Noise; the connection waits for the answer.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub hold_and_delegate: String,
    /// Allows agent forwarding.
    #[serde(skip_serializing_if = "is_false")]
    pub allow_agent_forwarding: bool,
    /// Allows local port forwarding.
    #[serde(skip_serializing_if = "is_false")]
    pub allow_local_port_forwarding: bool,
    /// Allows remote port forwarding.
    #[serde(skip_serializing_if = "is_false")]
    pub allow_remote_port_forwarding: bool,
}

impl SshAction {
    /// Accepts the connection. Forwarding rights are not taken from the rule that required the check; all are
    /// granted here, as without a check.
    pub fn accepted() -> Self {
        Self {
            accept: true,
            allow_agent_forwarding: true,
            allow_local_port_forwarding: true,
            allow_remote_port_forwarding: true,
            ..Self::default()
        }
    }

    /// Rejects the connection.
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
