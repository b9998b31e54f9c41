//! `hearth audit`.

use serde_json::Value;

use crate::api::{AuditAnswer, AuditEntry, AuditReport};
use crate::cli::client::{CliError, read};
use crate::cli::context::Ctx;
use crate::cli::output::{Output, cell, when};

/// Shows the newest entries of the audit log, and of what clients reported; the newest last.
pub fn run(ctx: &Ctx, limit: u32) -> Result<Output, CliError> {
    let path = format!("/api/v1/hearth/audit?limit={limit}");
    let answer = ctx.client.get(&path)?;
    let audit: AuditAnswer = read(&answer)?;
    let most = usize::try_from(limit).unwrap_or(usize::MAX);
    let logs = newest(&audit.logs, most);
    let reports = newest(&audit.reports, most);
    Ok(ctx.output(&answer, || {
        let mut text = log_table(ctx, logs);
        if !reports.is_empty() {
            text.push_str("\n\nReported by clients:\n");
            text.push_str(&report_table(ctx, reports));
        }
        text
    }))
}

fn newest<T>(list: &[T], most: usize) -> &[T] {
    let skipped = list.len().saturating_sub(most);
    list.get(skipped..).unwrap_or_default()
}

fn log_table(ctx: &Ctx, logs: &[AuditEntry]) -> String {
    if logs.is_empty() {
        return "the audit log is empty".into();
    }
    let rows = logs.iter().map(|entry| {
        [
            when(Some(entry.event_time)),
            cell(actor(entry)),
            cell(&entry.origin),
            cell(&entry.action),
            cell(&target(entry)),
            cell(&change(entry)),
        ]
    });
    let rows: Vec<[String; 6]> = rows.collect();
    ctx.table(
        ["Time", "Actor", "Via", "Action", "Target", "Change"],
        &rows,
    )
}

fn actor(entry: &AuditEntry) -> &str {
    match entry.actor.name.as_str() {
        "" => &entry.actor.r#type,
        name => name,
    }
}

/// What was acted on: its type, its name or ID, and the property that changed.
fn target(entry: &AuditEntry) -> String {
    let target = &entry.target;
    let name = if target.name.is_empty() {
        &target.id
    } else {
        &target.name
    };
    let parts = [
        target.r#type.as_str(),
        name,
        target.property.as_deref().unwrap_or_default(),
    ];
    let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    parts.join(" ")
}

/// The values before and after, and details.
fn change(entry: &AuditEntry) -> String {
    let value = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let change = match (&entry.old, &entry.new) {
        (None, None) => String::new(),
        (None, Some(new)) => value(new),
        (Some(old), None) => format!("was {}", value(old)),
        (Some(old), Some(new)) => format!("{} -> {}", value(old), value(new)),
    };
    match (
        change.as_str(),
        entry.details.as_deref().unwrap_or_default(),
    ) {
        (_, "") => change,
        ("", details) => details.to_owned(),
        (change, details) => format!("{change} ({details})"),
    }
}

fn report_table(ctx: &Ctx, reports: &[AuditReport]) -> String {
    let rows = reports.iter().map(|report| {
        [
            when(Some(report.at)),
            cell(&report.node),
            cell(&report.action),
            cell(&report.details),
        ]
    });
    let rows: Vec<[String; 4]> = rows.collect();
    ctx.table(["Time", "Node", "Action", "Details"], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn entry(more: Value) -> AuditEntry {
        let mut entry = json!({
            "id": "7", "eventTime": "2026-01-01T00:00:00Z", "origin": "CONFIG_API",
            "actor": {"id": "3", "type": "API_KEY", "name": "api key hskey-api-abc"},
            "action": "UPDATE",
            "target": {"id": "5", "type": "NODE", "name": "nas", "property": "MACHINE_NAME"},
        });
        let fields = entry.as_object_mut().unwrap();
        fields.extend(more.as_object().unwrap().clone());
        read(&entry).unwrap()
    }

    #[test]
    fn an_entry_says_what_changed_on_what() {
        let renamed = entry(json!({"old": "nas", "new": "store"}));
        assert_eq!(target(&renamed), "NODE nas MACHINE_NAME");
        assert_eq!(change(&renamed), "nas -> store");
        assert_eq!(actor(&renamed), "api key hskey-api-abc");
        assert_eq!(change(&entry(json!({"old": ["a"]}))), "was [\"a\"]");
        assert_eq!(
            change(&entry(json!({"new": 3, "details": "why"}))),
            "3 (why)"
        );
        assert_eq!(change(&entry(json!({"details": "why"}))), "why");
    }

    #[test]
    fn the_newest_are_shown() {
        assert_eq!(newest(&[1, 2, 3], 2), [2, 3]);
        assert_eq!(newest(&[1], 2), [1]);
    }
}
