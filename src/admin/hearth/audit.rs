//! The audit log: who changed what, and what clients reported.

use serde_json::Value;

use super::c2n::label_of;
use crate::admin::problem::ApiError;
use crate::admin::{ApiCall, ApiResult, json};
use crate::api::{AuditActor, AuditAnswer, AuditEntry, AuditReport, AuditTarget};
use hearth_core::state::event;

/// Entries that are given without `?limit=`.
const DEFAULT_LIMIT: usize = 100;
/// Most entries of one answer.
const MAX_LIMIT: usize = 1000;

impl ApiCall<'_> {
    /// `GET /api/v1/hearth/audit?limit=&before=`: the newest entries before a number, oldest first, and the
    /// reports of clients.
    pub(crate) async fn audit(&self) -> ApiResult {
        let limit = number(self.query("limit"), "limit")?.unwrap_or(DEFAULT_LIMIT);
        let limit = limit.min(MAX_LIMIT);
        let mut before: Option<u64> = number(self.query("before"), "before")?;
        let mut logs = Vec::new();
        while logs.len() < limit {
            let most = limit.saturating_sub(logs.len());
            let page = self.admin.engine.audit(before, most).await?;
            let Some(oldest) = page.last() else {
                break;
            };
            before = Some(oldest.number);
            logs.extend(page.iter().map(shown));
        }
        logs.reverse();
        json(&AuditAnswer {
            logs,
            reports: self.reports(),
        })
    }

    fn reports(&self) -> Vec<AuditReport> {
        let snapshot = self.admin.engine.snapshot();
        let reports = self.admin.reports.audit_log().into_iter();
        let reports = reports.map(|report| AuditReport {
            at: report.at,
            node_id: report.node.to_string(),
            node: label_of(&snapshot, report.node),
            action: report.action.into(),
            details: report.details.into(),
        });
        reports.collect()
    }
}

/// A number of the query; nothing when it is not there.
fn number<T: std::str::FromStr>(text: &str, key: &str) -> Result<Option<T>, ApiError> {
    if text.is_empty() {
        return Ok(None);
    }
    let parsed = text.parse().map(Some);
    parsed.map_err(|_| ApiError::invalid(&format!("invalid {key} {text:?}: expected a number")))
}

fn shown(entry: &event::AuditEntry) -> AuditEntry {
    let event = &entry.event;
    let value = |text: &str| (!text.is_empty()).then(|| Value::from(text));
    let details = &event.values.details;
    AuditEntry {
        id: entry.number.to_string(),
        event_time: event.time,
        origin: event.actor.kind.origin().to_owned(),
        actor: AuditActor {
            id: event.actor.id.to_string(),
            r#type: event.actor.kind.as_str().to_owned(),
            name: event.actor.name.to_string(),
        },
        action: event.action.as_str().to_owned(),
        target: AuditTarget {
            id: event.target.id.to_string(),
            r#type: event.target.kind.as_str().to_owned(),
            name: event.target.name.to_string(),
            property: event
                .target
                .property
                .map(|property| property.as_str().to_owned()),
        },
        old: value(&event.values.old),
        new: value(&event.values.new),
        details: (!details.is_empty()).then(|| details.to_string()),
    }
}
