//! Findings about automatic backups.

use std::time::Duration;

use super::{Facts, Finding, Level};
use crate::clock::Timestamp;

/// How long after it was due a missing copy is a problem: a drive may be away for a night.
const LATE: Duration = Duration::from_secs(2 * 24 * 60 * 60);

/// How long a copy may take. One of a thousand devices takes seconds.
const SLOW: Duration = Duration::from_secs(30 * 60);

/// The directory of copies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// On the file system of the database.
    SameFileSystem,
    /// On another one.
    Elsewhere,
    /// Copies cannot be written to it, and why.
    Unusable(String),
}

/// Automatic backups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backups {
    /// Time between two copies; `None` when they are off.
    pub every: Option<Duration>,
    /// The directory of copies.
    pub directory: String,
    /// Whether it is configured; else it is in the data directory.
    pub is_configured: bool,
    /// What it is like.
    pub place: Place,
    /// Whether a program gets each backup for another machine.
    pub has_command: bool,
    /// When the newest copy was made.
    pub last: Option<Timestamp>,
    /// Since when a copy of changes is due that is not made; `None` if there is none.
    pub due_since: Option<Timestamp>,
    /// Why the last attempt failed; `None` if it did not.
    pub fault: Option<String>,
}

pub(super) fn findings(facts: &Facts) -> Vec<Finding> {
    let backups = &facts.backups;
    let Some(every) = backups.every else {
        let finding = Finding::new("backup.off", Level::Note, "Automatic backups are off");
        let advice = "Set backup.every, or run `hearth backup` regularly and keep its file on another machine.";
        return vec![finding.advice(advice)];
    };
    let trouble = [directory(facts), failed(facts, every)];
    let trouble: Option<Finding> = trouble.into_iter().flatten().next();
    let works = || {
        let detail = match backups.last {
            Some(last) => format!("The newest copy is of {last}."),
            None => "No copy was due yet.".to_owned(),
        };
        Finding::new("backup", Level::Ok, "Automatic backups work").detail(detail)
    };
    let mut findings = vec![trouble.unwrap_or_else(works)];
    findings.extend(same_disk(backups));
    findings
}

/// The directory cannot be used.
fn directory(facts: &Facts) -> Option<Finding> {
    let backups = &facts.backups;
    let Place::Unusable(reason) = &backups.place else {
        return None;
    };
    // There is a finding about the database, which is in the same place.
    if !backups.is_configured && facts.database_fault.is_some() {
        return None;
    }
    let title = "The backup directory cannot be used";
    let detail = format!("{}: {reason}. {}", backups.directory, newest(backups));
    let advice = match backups.is_configured {
        true => {
            "Mount its drive, or create the directory for the user that runs hearth. With systemd, allow it with ReadWritePaths= (`systemctl edit hearth`). On OpenWrt, restart hearth once the drive is mounted. Or change backup.directory."
        }
        false => "The data directory and its files must belong to the user that runs hearth.",
    };
    let finding = Finding::new("backup.directory", Level::Problem, title);
    Some(finding.detail(detail).advice(advice))
}

/// The last attempt failed, or does not end.
fn failed(facts: &Facts, every: Duration) -> Option<Finding> {
    let backups = &facts.backups;
    let due = backups.due_since;
    let is_late = match backups.last.or(due) {
        Some(since) => facts.now.since(since) > every.saturating_add(LATE),
        None => false,
    };
    let level = match is_late {
        true => Level::Problem,
        false => Level::Warning,
    };
    let (title, reason) = match &backups.fault {
        Some(fault) => ("The last automatic backup failed", format!("{fault}. ")),
        None if is_stuck(due?, facts.now) => (
            "An automatic backup does not end",
            format!("{} may not respond. ", backups.directory),
        ),
        None => return None,
    };
    let since = match due {
        Some(due) => format!("Changes wait for a copy since {due}. "),
        None => String::new(),
    };
    let detail = format!("{reason}{since}{}", newest(backups));
    let advice = "hearth tries again every hour. See its log; until then, run `hearth backup` and keep the file on another machine.";
    let finding = Finding::new("backup.failed", level, title);
    Some(finding.detail(detail).advice(advice))
}

fn newest(backups: &Backups) -> String {
    match backups.last {
        Some(last) => format!("The newest copy is of {last}."),
        None => "There is no copy.".to_owned(),
    }
}

/// All copies are lost with the disk of the database.
fn same_disk(backups: &Backups) -> Option<Finding> {
    if backups.place != Place::SameFileSystem || backups.has_command {
        return None;
    }
    let id = "backup.same-disk";
    let detail = format!(
        "{}. If that disk fails or is lost, so are the copies.",
        backups.directory
    );
    let other = "Set backup.directory to a USB drive or network share, or backup.command; or keep a file of `hearth backup` on another machine.";
    let (level, title, advice) = match backups.is_configured {
        true => (
            Level::Warning,
            "The backup directory is on the file system of the database",
            format!("If it should be on another drive, check that the drive is mounted. {other}"),
        ),
        false => (
            Level::Note,
            "Automatic backups are on the same disk as the database",
            other.to_owned(),
        ),
    };
    Some(Finding::new(id, level, title).detail(detail).advice(advice))
}

impl Default for Backups {
    /// Off.
    fn default() -> Self {
        Self {
            every: None,
            directory: String::new(),
            is_configured: false,
            place: Place::Elsewhere,
            has_command: false,
            last: None,
            due_since: None,
            fault: None,
        }
    }
}

/// Whether a copy that is due since then takes too long.
pub fn is_stuck(due_since: Timestamp, now: Timestamp) -> bool {
    now.since(due_since) > SLOW
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::diagnose;
    use crate::doctor::tests::{backups, healthy, level};

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    fn with(change: impl FnOnce(&mut Backups)) -> Facts {
        let mut facts = healthy();
        change(&mut facts.backups);
        facts
    }

    /// The time so long before that of the facts.
    fn ago(duration: Duration) -> Timestamp {
        let begin = Timestamp::parse("2026-01-01T00:00:00Z").unwrap();
        begin.plus(healthy().now.since(begin) - duration)
    }

    fn found(facts: &Facts, id: &str) -> Finding {
        let findings = diagnose(facts);
        findings.into_iter().find(|one| one.id == id).unwrap()
    }

    #[test]
    fn backups_that_are_off_or_work_are_no_warning() {
        let off = with(|backups| backups.every = None);
        assert_eq!(level(&off, "backup.off"), Some(Level::Note));
        let works = found(&healthy(), "backup");
        assert!(works.detail.contains("2026-11-22T12:00:00Z"), "{works:?}");
        let new = found(&with(|backups| backups.last = None), "backup");
        assert_eq!(
            (new.level, &*new.detail),
            (Level::Ok, "No copy was due yet.")
        );
    }

    #[test]
    fn a_directory_that_cannot_be_used_is_a_problem_of_its_own() {
        let reason = "No such file or directory (os error 2)";
        let mut facts = with(|backups| {
            backups.place = Place::Unusable(reason.into());
            backups.fault = Some(reason.into());
        });
        let finding = found(&facts, "backup.directory");
        assert_eq!(finding.level, Level::Problem);
        assert!(
            finding.detail.contains("/mnt/usb/hearth: No such"),
            "{finding:?}"
        );
        assert!(finding.advice.contains("backup.directory"), "{finding:?}");
        assert_eq!(level(&facts, "backup.failed"), None);
        // Of a disk that fails, the finding about the database says enough.
        facts.backups.is_configured = false;
        facts.backups.fault = None;
        assert_eq!(level(&facts, "backup.directory"), Some(Level::Problem));
        facts.database_fault = Some(crate::disk::DiskFault {
            cause: crate::disk::Cause::ReadOnly,
            detail: "".into(),
            since: facts.now,
        });
        assert_eq!(level(&facts, "backup.directory"), None);
    }

    #[test]
    fn a_failure_becomes_a_problem_when_the_newest_copy_is_old() {
        let failing = |days: u32| {
            let facts = with(|backups| {
                backups.fault = Some("/bin/x failed: exit status: 3".into());
                backups.due_since = Some(healthy().now);
                backups.last = Some(ago(DAY * days));
            });
            found(&facts, "backup.failed")
        };
        assert_eq!(failing(1).level, Level::Warning);
        assert!(failing(1).detail.contains("exit status: 3"));
        assert_eq!(failing(4).level, Level::Problem);
        let never = with(|backups| {
            backups.fault = Some("x".into());
            backups.due_since = Some(ago(DAY * 4));
            backups.last = None;
        });
        let never = found(&never, "backup.failed");
        assert_eq!(never.level, Level::Problem);
        assert!(never.detail.contains("There is no copy."), "{never:?}");
    }

    #[test]
    fn a_copy_that_does_not_end_is_noticed_without_an_error() {
        let since = |minutes: u32| {
            with(|backups| backups.due_since = Some(ago(Duration::from_secs(60) * minutes)))
        };
        assert_eq!(level(&since(5), "backup.failed"), None);
        let stuck = found(&since(45), "backup.failed");
        assert_eq!(stuck.level, Level::Warning);
        assert!(
            stuck.detail.contains("/mnt/usb/hearth may not respond"),
            "{stuck:?}"
        );
    }

    #[test]
    fn copies_on_the_disk_of_the_database_are_named_unless_a_program_gets_them() {
        let mut facts = with(|backups| backups.place = Place::SameFileSystem);
        // The drive of a directory that was chosen may be missing.
        let finding = found(&facts, "backup.same-disk");
        assert_eq!(finding.level, Level::Warning);
        assert!(finding.advice.contains("is mounted"), "{finding:?}");
        facts.backups.is_configured = false;
        assert_eq!(level(&facts, "backup.same-disk"), Some(Level::Note));
        facts.backups.has_command = true;
        assert_eq!(level(&facts, "backup.same-disk"), None);
        assert_eq!(backups().place, Place::Elsewhere);
    }
}
