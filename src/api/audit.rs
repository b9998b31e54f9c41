//! Audit log: changes with their actors, and client reports.
//!
//! The shape of an entry is that of the configuration audit log of Tailscale's API v2.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use hearth_core::clock::Timestamp;

/// Response with the audit log (hearth's own).
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct AuditAnswer {
    /// Committed changes, oldest first.
    #[serde(default)]
    pub logs: Vec<AuditEntry>,
    /// Client reports, oldest first.
    #[serde(default)]
    pub reports: Vec<AuditReport>,
}

/// One committed change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditEntry {
    /// ID of the entry.
    pub id: String,
    /// Commit time.
    pub event_time: Timestamp,
    /// Origin, such as `CONFIG_API`, `CONTROL` or `NODE`.
    pub origin: String,
    /// The actor.
    pub actor: AuditActor,
    /// Action, such as `CREATE`, `UPDATE` or `DELETE`.
    pub action: String,
    /// The target.
    pub target: AuditTarget,
    /// Old value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old: Option<Value>,
    /// New value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new: Option<Value>,
    /// Details in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<String>,
}

/// Actor of a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditActor {
    /// ID, such as that of an API key or a node; may be empty.
    pub id: String,
    /// Kind of actor, such as `USER`, `NODE` or `API_KEY`.
    pub r#type: String,
    /// Display name.
    pub name: String,
}

/// Target of a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditTarget {
    /// ID.
    pub id: String,
    /// Kind of target, such as `NODE` or `USER`.
    pub r#type: String,
    /// Display name.
    pub name: String,
    /// The property that changed, such as `MACHINE_NAME`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub property: Option<String>,
}

/// An action on a node, as its client reports it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditReport {
    /// When the report arrived.
    pub at: Timestamp,
    /// ID of the node.
    pub node_id: String,
    /// Name of the node; empty when the node is gone.
    pub node: String,
    /// The action.
    pub action: String,
    /// The reason.
    pub details: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_entry_is_written_as_it_is_read() {
        let full = json!({
            "id": "1", "eventTime": "2026-01-01T00:00:00Z", "origin": "CONFIG_API",
            "actor": {"id": "2", "type": "API_KEY", "name": "k"}, "action": "UPDATE",
            "target": {"id": "3", "type": "NODE", "name": "nas", "property": "MACHINE_NAME"},
            "old": "a", "new": "b", "details": "c",
        });
        let entry: AuditEntry = serde_json::from_str(&full.to_string()).unwrap();
        assert_eq!(json!(entry), full);
        let mut short = full;
        for optional in ["old", "new", "details"] {
            short.as_object_mut().unwrap().remove(optional);
        }
        let entry: AuditEntry = serde_json::from_str(&short.to_string()).unwrap();
        assert_eq!(json!(entry), short);
    }
}
