//! `hearth check --data` and `hearth repair`: one plan, which the one shows and the other carries out.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::copies::{self, Copy};
use super::restore::{free_name, set_mode, sync};
use crate::files::{self, Owner};
use crate::net::tls::{CERTIFICATE_FILE, Identity, KEY_FILE};
use crate::store::{self, BACKUPS, FILE_NAME, Report, StoreError, Verdict};
use hearth_core::clock::Timestamp;

/// What repair does about something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Writes a database again from what can be read of it.
    Rewrite {
        /// The file.
        path: PathBuf,
    },
    /// Brings back a copy in place of the database.
    BringBack {
        /// The database.
        path: PathBuf,
        /// The copy.
        copy: PathBuf,
    },
    /// Renames a file that cannot be used.
    MoveAside {
        /// The file.
        path: PathBuf,
    },
    /// Removes what an interrupted write left.
    Remove {
        /// The file.
        path: PathBuf,
    },
    /// Makes a file or directory private.
    Close {
        /// The file or directory.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
}

/// Something that was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What it is.
    pub subject: String,
    /// How it is.
    pub state: State,
    /// More about it.
    pub detail: String,
    /// What repair does.
    pub steps: Vec<Step>,
}

/// How something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// As it should be.
    Sound,
    /// Repair helps.
    Damaged,
    /// Nothing here helps.
    Lost,
}

impl State {
    /// The word for it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Sound => "ok",
            Self::Damaged => "damaged",
            Self::Lost => "lost",
        }
    }
}

/// Where to look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The data directory.
    pub data_dir: PathBuf,
    /// The configured directory of copies.
    pub copies: Option<PathBuf>,
    /// Whether what can be read of a damaged database is preferred to a copy.
    pub salvage: bool,
}

impl Place {
    /// Directories that may have copies, the configured one first.
    fn copy_directories(&self) -> Vec<PathBuf> {
        let own = self.data_dir.join(BACKUPS);
        let configured = self.copies.iter().filter(|path| **path != own);
        configured.cloned().chain([own.clone()]).collect()
    }
}

/// Checks everything in a data directory. Never writes.
///
/// # Errors
/// When hearth runs on it, or it cannot be read at all.
pub fn inspect(place: &Place) -> Result<Vec<Finding>, StoreError> {
    let directory = &place.data_dir;
    fs::read_dir(directory).map_err(|source| StoreError::Open {
        path: directory.clone(),
        source,
    })?;
    let mut copies = Vec::new();
    let mut of_copies = Vec::new();
    for folder in place.copy_directories() {
        for copy in copies::list(&folder).unwrap_or_default() {
            of_copies.push(inspect_copy(&copy, &mut copies));
        }
    }
    let mut findings = vec![inspect_database(place, &copies)?];
    findings.extend(inspect_certificate(directory));
    findings.extend(of_copies);
    findings.extend(leftovers(place));
    findings.extend(open_to_others(directory));
    Ok(findings)
}

/// The worst state of some findings.
pub fn worst(findings: &[Finding]) -> State {
    let states = findings.iter().map(|finding| finding.state);
    states.max().unwrap_or(State::Sound)
}

fn describe(report: &Report) -> String {
    let (records, audit) = (report.records, report.audit_entries);
    let schema = report.schema.map(|schema| format!(", schema {schema}"));
    format!(
        "{records} records, {audit} audit log entries{}",
        schema.unwrap_or_default()
    )
}

fn faults(report: &Report) -> String {
    let lines = report.faults.iter().map(|fault| format!("\n  {fault}"));
    lines.collect()
}

fn inspect_database(place: &Place, sound: &[Copy]) -> Result<Finding, StoreError> {
    let path = place.data_dir.join(FILE_NAME);
    let subject = path.display().to_string();
    let newest = sound.iter().max_by_key(|copy| copy.made);
    let back = newest.map(|copy| Step::BringBack {
        path: path.clone(),
        copy: copy.path.clone(),
    });
    if path.symlink_metadata().is_err() {
        return Ok(match back {
            Some(step) => finding(subject, State::Damaged, "missing".into(), vec![step]),
            None => finding(
                subject,
                State::Lost,
                "missing, and there is no copy of it".into(),
                Vec::new(),
            ),
        });
    }
    let report = store::verify(&path)?;
    let rewrite = || Step::Rewrite { path: path.clone() };
    Ok(match &report.verdict {
        Verdict::Sound { .. } => match store::read_all(&path) {
            Ok(_) => finding(subject, State::Sound, describe(&report), Vec::new()),
            Err(fault) => damaged(subject, fault.to_string(), back),
        },
        Verdict::Newer { found } => {
            let text = format!(
                "written by a newer hearth (schema {found}); install that version, or restore a backup of this one"
            );
            finding(subject, State::Lost, text, Vec::new())
        }
        Verdict::Repairable { .. } => {
            let text = format!("no record is lost{}", faults(&report));
            finding(subject, State::Damaged, text, vec![rewrite()])
        }
        Verdict::Damaged { .. } => {
            let readable = report.schema.is_some() && store::has_identity(&path);
            let step = match back {
                Some(_) if place.salvage && readable => Some(rewrite()),
                Some(back) => Some(back),
                None => readable.then(rewrite),
            };
            let text = format!("{}{}", describe(&report), faults(&report));
            damaged(subject, text, step)
        }
    })
}

fn finding(subject: String, state: State, detail: String, steps: Vec<Step>) -> Finding {
    Finding {
        subject,
        state,
        detail,
        steps,
    }
}

fn damaged(subject: String, detail: String, step: Option<Step>) -> Finding {
    let state = if step.is_some() {
        State::Damaged
    } else {
        State::Lost
    };
    finding(subject, state, detail, step.into_iter().collect())
}

fn inspect_copy(copy: &Copy, sound: &mut Vec<Copy>) -> Finding {
    let subject = copy.path.display().to_string();
    let aside = || {
        vec![Step::MoveAside {
            path: copy.path.clone(),
        }]
    };
    match store::verify(&copy.path) {
        Ok(report) => match &report.verdict {
            Verdict::Sound { .. } => {
                sound.push(copy.clone());
                finding(subject, State::Sound, describe(&report), Vec::new())
            }
            Verdict::Newer { found } => {
                let text = format!("of a newer hearth (schema {found})");
                finding(subject, State::Sound, text, Vec::new())
            }
            Verdict::Repairable { .. } | Verdict::Damaged { .. } => {
                finding(subject, State::Damaged, faults(&report), aside())
            }
        },
        Err(fault) => finding(subject, State::Damaged, fault.to_string(), aside()),
    }
}

fn inspect_certificate(directory: &Path) -> Option<Finding> {
    let (certificate, key) = (directory.join(CERTIFICATE_FILE), directory.join(KEY_FILE));
    let there: Vec<PathBuf> = [&certificate, &key]
        .into_iter()
        .filter(|path| path.symlink_metadata().is_ok())
        .cloned()
        .collect();
    if there.is_empty() {
        return None;
    }
    let subject = certificate.display().to_string();
    Some(match Identity::load(&certificate, &key) {
        Ok(identity) => {
            let text = format!("SHA-256 {}", identity.sha256());
            finding(subject, State::Sound, text, Vec::new())
        }
        Err(fault) => {
            let text = format!(
                "{fault}. hearth makes a new certificate at its next start, and devices get its hash with their next map"
            );
            let steps = there.into_iter().map(|path| Step::MoveAside { path });
            finding(subject, State::Damaged, text, steps.collect())
        }
    })
}

/// What interrupted writes left.
fn leftovers(place: &Place) -> Vec<Finding> {
    let mut paths = Vec::new();
    for folder in place.copy_directories() {
        paths.extend(copies::unfinished(&folder).unwrap_or_default());
    }
    for folder in [place.data_dir.clone(), place.data_dir.join("tls")] {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let unfinished = entries.map(|entry| entry.path());
        paths.extend(unfinished.filter(|path| path.extension().is_some_and(|end| end == "new")));
    }
    let found = paths.into_iter().map(|path| {
        let subject = path.display().to_string();
        let text = "left by an interrupted write".to_owned();
        finding(subject, State::Damaged, text, vec![Step::Remove { path }])
    });
    found.collect()
}

/// What others than the owner may read.
fn open_to_others(directory: &Path) -> Vec<Finding> {
    let private = [
        (directory.to_owned(), 0o700),
        (directory.join(FILE_NAME), 0o600),
        (directory.join(KEY_FILE), 0o600),
    ];
    let mut found = Vec::new();
    for (path, mode) in private {
        let now = path
            .metadata()
            .map(|about| about.permissions().mode() & 0o777);
        if let Ok(now) = now
            && now & !mode & 0o077 != 0
        {
            let text = format!("mode {now:o}: others can read private keys");
            let subject = path.display().to_string();
            found.push(finding(
                subject,
                State::Damaged,
                text,
                vec![Step::Close { path, mode }],
            ));
        }
    }
    found
}

impl Step {
    /// What it does, in words.
    pub fn describe(&self) -> String {
        match self {
            Self::Rewrite { path } => format!(
                "write {} again from what can be read, and keep the damaged file beside it",
                path.display()
            ),
            Self::BringBack { path, copy } => format!(
                "bring back {} as {}; what changed since that copy is lost (`hearth repair --salvage` keeps what can be read of the damaged file instead)",
                copy.display(),
                path.display()
            ),
            Self::MoveAside { path } => format!("rename {}", path.display()),
            Self::Remove { path } => format!("remove {}", path.display()),
            Self::Close { path, mode } => format!("chmod {mode:04o} {}", path.display()),
        }
    }

    /// Does it, and says what became of the original.
    ///
    /// # Errors
    /// When it cannot be done; the original is as it was.
    pub fn carry_out(&self, now: Timestamp) -> Result<String, StepFault> {
        match self {
            Self::Rewrite { path } => replace(path, path, now),
            Self::BringBack { path, copy } => replace(copy, path, now),
            Self::MoveAside { path } => {
                let kept = aside(path, now);
                fs::rename(path, &kept)?;
                Ok(format!("kept as {}", kept.display()))
            }
            Self::Remove { path } => {
                match path.is_dir() {
                    true => fs::remove_dir_all(path)?,
                    false => fs::remove_file(path)?,
                }
                Ok("removed".to_owned())
            }
            Self::Close { path, mode } => {
                set_mode(path, *mode)?;
                Ok("done".to_owned())
            }
        }
    }
}

/// Why a step was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum StepFault {
    /// An error of the system.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A database cannot be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Where a file is kept that is replaced.
fn aside(path: &Path, now: Timestamp) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let directory = path.parent().unwrap_or(Path::new("."));
    free_name(directory, &files::damaged_name(&name, now))
}

/// Writes a database that can be read as another one, whose file is kept.
fn replace(from: &Path, to: &Path, now: Timestamp) -> Result<String, StepFault> {
    let directory = to.parent().unwrap_or(Path::new("."));
    let fresh = free_name(directory, &format!("{FILE_NAME}.repaired"));
    store::rewrite(from, &fresh)?;
    // What can be read must be enough to start with.
    if let Err(fault) = store::read_all(&fresh) {
        let _ = fs::remove_file(&fresh);
        return Err(fault.into());
    }
    let kept = aside(to, now);
    let was_there = to.symlink_metadata().is_ok();
    if was_there {
        // A second name first, so that there is a database at any time.
        let owner = Owner::of(directory)?;
        fs::hard_link(to, &kept).or_else(|_| fs::copy(to, &kept).map(|_| owner.give(&kept)))?;
        set_mode(&kept, 0o600)?;
    }
    fs::rename(&fresh, to)?;
    sync(directory)?;
    Ok(match was_there {
        true => format!("the damaged file is kept as {}", kept.display()),
        false => "done".to_owned(),
    })
}

#[cfg(test)]
mod tests;
