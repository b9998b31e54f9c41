//! Automatic copies of the database: their settings, the last one, and why there is no newer one.

use std::path::PathBuf;
use std::time::Duration;

use hearth_core::clock::Timestamp;
use hearth_core::doctor::backup::is_stuck;

/// Status of automatic copies.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CopyStatus {
    /// Time between two copies; `None` when they are off.
    pub every: Option<Duration>,
    /// The directory of copies.
    pub directory: PathBuf,
    /// Whether the directory is configured; else it is in the data directory.
    pub is_configured: bool,
    /// Whether a program gets each backup.
    pub has_command: bool,
    /// When the newest copy was made.
    pub last: Option<Timestamp>,
    /// Since when a copy of changes is due that is not made.
    pub due_since: Option<Timestamp>,
    /// Why the last attempt failed.
    pub fault: Option<String>,
}

impl CopyStatus {
    /// A line for people, if the last attempt failed or does not end.
    pub fn warning(&self, now: Timestamp) -> Option<String> {
        if let Some(fault) = &self.fault {
            return Some(format!("the automatic backup failed: {fault}"));
        }
        let due = self.due_since.filter(|due| is_stuck(*due, now))?;
        Some(format!(
            "the automatic backup that is due since {due} does not end; see `hearth doctor`"
        ))
    }
}
