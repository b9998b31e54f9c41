//! Client reports: health warnings and audit messages of nodes. Informational; the tailnet works without
//! them.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hearth_shares::pool::Sole;
use hearth_shares::{Entry, Lines, Pool};

use hearth_core::clock::{Now, Timestamp};
use hearth_core::id::NodeId;

/// Most health warnings per node.
const PROBLEMS: usize = 16;

/// Longest text of a report, in bytes; longer texts are truncated.
const TEXT_BYTES: usize = 512;

/// Reports of one node that are logged: 16 at once, then one a minute.
const LOGGED: (u32, Duration) = (16, Duration::from_secs(60));

/// Most nodes that have a share of the log of their own; all others have one together.
const SHARES_MAX: usize = 256;

/// Reports of all nodes.
#[derive(Debug)]
pub struct ClientReports {
    health: Mutex<HashMap<NodeId, Problems>>,
    /// Routes that are dropped, by node. A node that had some keeps its entry, so that it is logged once.
    dropped_routes: Mutex<HashMap<NodeId, usize>>,
    audit: Mutex<AuditEntries>,
}

#[derive(Debug)]
struct AuditEntries {
    /// Oldest first.
    entries: VecDeque<(Entry, ClientReport)>,
    shares: Pool<Sole<NodeId>>,
    log: Lines<NodeId>,
}

/// Health warnings of a client, by subsystem.
type Problems = BTreeMap<Box<str>, Box<str>>;

/// Audit entry: an action reported by a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientReport {
    /// When the report arrived.
    pub at: Timestamp,
    /// The node.
    pub node: NodeId,
    /// The action, as the client reports it.
    pub action: Box<str>,
    /// The reason, as the client or its user gave it.
    pub details: Box<str>,
}

impl ClientReports {
    /// No reports; the audit log keeps `audit_entries`.
    pub fn new(audit_entries: usize) -> Self {
        Self {
            health: Mutex::default(),
            dropped_routes: Mutex::default(),
            audit: Mutex::new(AuditEntries {
                entries: VecDeque::new(),
                shares: Pool::new(audit_entries),
                log: Lines::new(LOGGED.0, LOGGED.1, SHARES_MAX),
            }),
        }
    }

    /// Sets the health warning of a subsystem, or clears it when `problem` is empty. Warnings beyond 16 per
    /// node are dropped.
    pub fn set_health(&self, node: NodeId, part: &str, problem: &str) {
        let mut health = lock(&self.health);
        let problems = health.entry(node).or_default();
        let part = cut(part);
        if problem.is_empty() {
            problems.remove(&part);
        } else if problems.len() < PROBLEMS || problems.contains_key(&part) {
            problems.insert(part, cut(problem));
        }
        if problems.is_empty() {
            health.remove(&node);
        }
    }

    /// Health warnings of a node.
    pub fn health(&self, node: NodeId) -> Vec<String> {
        let health = lock(&self.health);
        let problems = health.get(&node).into_iter().flatten();
        problems
            .map(|(part, problem)| format!("{part}: {problem}"))
            .collect()
    }

    /// Sets how many of a node's routes are dropped. Says whether they are the first of this node.
    pub fn set_dropped_routes(&self, node: NodeId, dropped: usize) -> bool {
        let mut known = lock(&self.dropped_routes);
        match known.get_mut(&node) {
            Some(count) => {
                *count = dropped;
                false
            }
            None if dropped == 0 => false,
            None => known.insert(node, dropped).is_none(),
        }
    }

    /// How many of a node's routes are dropped.
    pub fn dropped_routes(&self, node: NodeId) -> usize {
        let known = lock(&self.dropped_routes);
        known.get(&node).copied().unwrap_or_default()
    }

    /// Adds an entry to the audit log. When it is full, the oldest entry of the node with the most is evicted. If the entry
    /// is to be logged, returns it, and the number of entries that were not logged since the last one was.
    pub fn audit(
        &self,
        now: Now,
        node: NodeId,
        action: &str,
        details: &str,
    ) -> Option<(ClientReport, u32)> {
        let report = ClientReport {
            at: now.wall,
            node,
            action: cut(action),
            details: cut(details),
        };
        let mut audit = lock(&self.audit);
        let (entry, surplus) = audit.shares.enter(Sole(node));
        audit.entries.push_back((entry, report.clone()));
        if surplus.is_some() {
            audit.entries.retain(|(entry, _)| Some(*entry) != surplus);
        }
        let left_out = audit.log.take(node, now.mono)?;
        Some((report, left_out))
    }

    /// The audit log, oldest entry first.
    pub fn audit_log(&self) -> Vec<ClientReport> {
        let audit = lock(&self.audit);
        audit
            .entries
            .iter()
            .map(|(_, report)| report.clone())
            .collect()
    }

    /// Drops the health warnings of deleted nodes. Their audit entries stay.
    pub fn retain(&self, exists: impl Fn(NodeId) -> bool) {
        lock(&self.health).retain(|node, _| exists(*node));
        lock(&self.dropped_routes).retain(|node, _| exists(*node));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The text, truncated to the longest allowed.
fn cut(text: &str) -> Box<str> {
    let ends = text
        .char_indices()
        .map(|(at, letter)| at.saturating_add(letter.len_utf8()));
    let end = ends.take_while(|end| *end <= TEXT_BYTES).last();
    text.get(..end.unwrap_or(0)).unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Now = Now {
        wall: Timestamp::from_unix_ms(0),
        mono: Duration::ZERO,
    };

    #[test]
    fn a_health_warning_stays_until_it_is_cleared() {
        let reports = ClientReports::new(2);
        let node = NodeId::FIRST;
        reports.set_health(node, "dns", "no resolver");
        reports.set_health(node, "router", "old");
        reports.set_health(node, "router", "new");
        assert_eq!(reports.health(node), ["dns: no resolver", "router: new"]);
        reports.set_health(node, "dns", "");
        assert_eq!(reports.health(node), ["router: new"]);
        reports.retain(|_| false);
        assert!(reports.health(node).is_empty());
    }

    #[test]
    fn dropped_routes_are_new_once() {
        let reports = ClientReports::new(2);
        let node = NodeId::FIRST;
        assert!(!reports.set_dropped_routes(node, 0));
        assert!(reports.set_dropped_routes(node, 3));
        assert!(!reports.set_dropped_routes(node, 4));
        assert_eq!(reports.dropped_routes(node), 4);
        assert!(!reports.set_dropped_routes(node, 0) && !reports.set_dropped_routes(node, 5));
        reports.retain(|_| false);
        assert_eq!(reports.dropped_routes(node), 0);
    }

    #[test]
    fn reports_of_a_node_are_bounded() {
        let reports = ClientReports::new(2);
        let long = "é".repeat(10_000);
        for part in 0..100 {
            reports.set_health(NodeId::FIRST, &format!("{part}{long}"), &long);
            reports.audit(AT, NodeId::FIRST, &part.to_string(), &long);
        }
        let problems = reports.health(NodeId::FIRST);
        assert_eq!(problems.len(), PROBLEMS);
        assert!(problems.iter().all(|text| text.len() <= 2 * TEXT_BYTES + 2));
        let audit = reports.audit_log();
        let actions: Vec<&str> = audit.iter().map(|entry| &*entry.action).collect();
        assert_eq!(actions, ["98", "99"]);
        assert_eq!(audit[0].details.len(), TEXT_BYTES);
    }

    #[test]
    fn one_node_pushes_out_no_report_of_another() {
        let reports = ClientReports::new(4);
        let other = NodeId::new(2).unwrap();
        reports.audit(AT, other, "kept", "");
        let logged = (0..1000).filter_map(|number: u32| {
            reports.audit(AT, NodeId::FIRST, &number.to_string(), &"x".repeat(100_000))
        });
        let lines: usize = logged.map(|(line, _)| line.details.len()).sum();
        assert_eq!(lines, 16 * TEXT_BYTES);
        let actions: Vec<Box<str>> = reports
            .audit_log()
            .into_iter()
            .map(|entry| entry.action)
            .collect();
        assert_eq!(actions, ["kept", "997", "998", "999"].map(Box::from));
        let (_, left_out) = reports.audit(AT, other, "logged", "").unwrap();
        assert_eq!(left_out, 1000 - 16);
    }
}
