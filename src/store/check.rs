//! Whether a database is whole: redb's check of every page, the checksum of every value, and the manifest.
//!
//! redb may panic on damaged pages, and a panic ends the program. So hearth checks in a process of its own before it
//! opens a database ([`answer`]).

use std::fmt;
use std::io::{self, Write as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redb::{Builder, Database, DatabaseError};
use serde::{Deserialize, Serialize};

use super::backing::Backing;
use super::folder::{DataFile, Folder};
use super::read::Reader;
use super::schema::{AUDIT, MANIFEST, META, SCHEMA, SCHEMA_VERSION, SEALED_SINCE};
use super::seal::{Manifest, Seal};

/// Cache of a check, in bytes: each page is read a few times, one after the other.
const CACHE_BYTES: usize = 1 << 20;
/// Most faults that are named.
const FAULTS_NAMED: usize = 100;
/// The hidden command by which hearth checks a database in a process of its own.
const COMMAND: &str = "__check-database";
/// What that process says before its verdict.
const LEAD: &str = "hearth-check: ";

/// Set once this process is known to be one that answers.
static ANSWERS: AtomicBool = AtomicBool::new(false);

/// Where a database is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Check {
    /// In this process. A panic of redb on damaged pages is then one of this process.
    Here,
    /// In a process of its own, if there can be one.
    Apart,
}

impl Check {
    /// Apart in a program whose `main` calls [`answer`].
    pub(super) fn usual() -> Self {
        match ANSWERS.load(Ordering::Relaxed) {
            true => Self::Apart,
            false => Self::Here,
        }
    }
}

/// What to think of a database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// Everything is there.
    Sound {
        /// Its schema.
        schema: u64,
    },
    /// It is damaged, but all records are there. Entries of the audit log may be missing.
    Repairable {
        /// What is wrong.
        reason: String,
    },
    /// It is damaged: records may be missing, or be of an earlier time.
    Damaged {
        /// What is wrong.
        reason: String,
    },
    /// A newer hearth wrote it.
    Newer {
        /// Its schema.
        found: u64,
    },
}

/// Something that is wrong with a database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// The table; `None` if it is about all of the file.
    pub table: Option<String>,
    /// The key; `None` if it is about all of the table.
    pub key: Option<String>,
    /// What is wrong.
    pub what: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.table, &self.key) {
            (Some(table), Some(key)) => write!(f, "table {table:?}, key {key:?}: {}", self.what),
            (Some(table), None) => write!(f, "table {table:?}: {}", self.what),
            (None, _) => f.write_str(&self.what),
        }
    }
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// What to think of it.
    pub verdict: Verdict,
    /// Its schema, if that can be read.
    pub schema: Option<u64>,
    /// Number of values that can be read, the audit log aside.
    pub records: u64,
    /// Number of entries of the audit log that can be read.
    pub audit_entries: u64,
    /// What is wrong, at most 100 faults.
    pub faults: Vec<Fault>,
}

/// Checks a database, in this process. Never writes. `first` gets the report as it is before what may panic.
///
/// # Errors
/// If the file cannot be opened. What cannot be read is a fault in the report.
pub(super) fn inspect(
    file: &Arc<dyn DataFile>,
    first: &mut dyn FnMut(&Report),
) -> io::Result<Report> {
    // Where panics do not abort the program, one of redb's is a fault like others.
    let inspected = catch_unwind(AssertUnwindSafe(|| inspect_file(file, first)));
    inspected.unwrap_or_else(|_| Ok(Report::unreadable("a page does not make sense".to_owned())))
}

fn inspect_file(file: &Arc<dyn DataFile>, first: &mut dyn FnMut(&Report)) -> io::Result<Report> {
    if file.len()? == 0 {
        return Ok(Report::unreadable("it is empty".to_owned()));
    }
    match open_to_read(file, true) {
        Ok(database) => Ok(Report::of(&database, None)),
        Err(fault) => {
            let fault = fault.to_string();
            let unreadable = Report::unreadable(fault.clone());
            first(&unreadable);
            // What can be read without the check may still be complete.
            Ok(match open_to_read(file, false) {
                Ok(database) => Report::of(&database, Some(fault)),
                Err(_) => unreadable,
            })
        }
    }
}

fn open_to_read(file: &Arc<dyn DataFile>, check: bool) -> Result<Database, DatabaseError> {
    let backing = Backing::reading(Arc::clone(file), None).map_err(redb::StorageError::from)?;
    Builder::new()
        .set_cache_size(CACHE_BYTES)
        .set_check_integrity_on_open(check)
        .create_with_backend(backing)
}

impl Report {
    fn unreadable(reason: String) -> Self {
        let fault = Fault {
            table: None,
            key: None,
            what: reason.clone(),
        };
        Self {
            verdict: Verdict::Damaged { reason },
            schema: None,
            records: 0,
            audit_entries: 0,
            faults: vec![fault],
        }
    }

    fn of(database: &Database, structure: Option<String>) -> Self {
        let reader = match Reader::new(database) {
            Ok(reader) => reader,
            Err(fault) => return Self::unreadable(structure.unwrap_or_else(|| fault.to_string())),
        };
        let mut survey = Survey::default();
        if let Some(fault) = &structure {
            survey.fault(None, None, fault.clone());
        }
        survey.values(&reader);
        let Some(schema) = reader.schema else {
            return Self::unreadable(structure.unwrap_or_else(|| "it is not hearth's".to_owned()));
        };
        let (is_whole, state_is_whole) = match schema < SEALED_SINCE {
            // There is only redb's check.
            true => (survey.faults.is_empty(), false),
            false => survey.compare(&reader),
        };
        let reason = survey.faults.first().map(ToString::to_string);
        let reason = reason.unwrap_or_default();
        let verdict = if schema > SCHEMA_VERSION {
            Verdict::Newer { found: schema }
        } else if is_whole {
            Verdict::Sound { schema }
        } else if state_is_whole {
            Verdict::Repairable { reason }
        } else {
            Verdict::Damaged { reason }
        };
        Self {
            verdict,
            schema: Some(schema),
            records: survey.found.state.count,
            audit_entries: survey.found.audit.count,
            faults: survey.faults,
        }
    }
}

/// What is found in a database.
#[derive(Default)]
struct Survey {
    /// The values whose checksums are right.
    found: Manifest,
    faults: Vec<Fault>,
}

impl Survey {
    fn fault(&mut self, table: Option<&str>, key: Option<String>, what: String) {
        if self.faults.len() < FAULTS_NAMED {
            self.faults.push(Fault {
                table: table.map(str::to_owned),
                key,
                what,
            });
        }
    }

    fn values(&mut self, reader: &Reader) {
        let tables = reader.tables().unwrap_or_else(|fault| {
            self.fault(None, None, fault.to_string());
            Vec::new()
        });
        for table in tables {
            let read = reader.each(&table, &mut |key, stored| {
                if table == META && [SCHEMA, MANIFEST].contains(&&*key.to_string()) {
                    return Ok(());
                }
                match reader.value(&table, key, stored) {
                    Some(_) => self.found.part(&table).add(Seal::at_end_of(stored)),
                    None => self.fault(
                        Some(&table),
                        Some(key.to_string()),
                        "damaged: the checksum is another".to_owned(),
                    ),
                }
                Ok(())
            });
            if let Err(fault) = read {
                self.fault(Some(&table), None, fault.to_string());
            }
        }
    }

    /// Whether everything is there, and whether everything but the audit log is.
    fn compare(&mut self, reader: &Reader) -> (bool, bool) {
        let manifest = reader.single(MANIFEST).ok().flatten();
        let manifest = manifest.and_then(|bytes| Manifest::decode(&bytes));
        let Some(manifest) = manifest else {
            self.fault(
                Some(META),
                None,
                "the manifest is missing or damaged".to_owned(),
            );
            return (false, false);
        };
        let (state, audit) = (
            self.found.state == manifest.state,
            self.found.audit == manifest.audit,
        );
        if !state {
            let (found, right) = (self.found.state.count, manifest.state.count);
            let what =
                format!("records are lost or of an earlier time ({found} of {right} are there)");
            self.fault(None, None, what);
        }
        if !audit {
            let (found, right) = (self.found.audit.count, manifest.audit.count);
            let what = format!("entries are lost ({found} of {right} are there)");
            self.fault(Some(AUDIT), None, what);
        }
        (state && audit && self.faults.is_empty(), state)
    }
}

/// Checks a file of the directory, which nobody may write meanwhile.
pub(super) fn report(folder: &dyn Folder, name: &str, how: Check) -> io::Result<Report> {
    if how == Check::Apart {
        match ask(&folder.path(name)) {
            Ok(report) => return Ok(report),
            Err(fault) => {
                tracing::warn!(%fault, "cannot check the database in a process of its own; checking it in this one");
            }
        }
    }
    inspect(&folder.open(name)?, &mut |_| {})
}

/// Asks a process of its own. An error says that there is none.
fn ask(path: &Path) -> io::Result<Report> {
    use std::os::unix::process::ExitStatusExt;
    let output = Command::new("/proc/self/exe")
        .arg(COMMAND)
        .arg(path)
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    let reports = said.lines().filter_map(|line| line.strip_prefix(LEAD));
    let last = reports.filter_map(|report| serde_json::from_str(report).ok());
    if let Some(report) = last.last() {
        return Ok(report);
    }
    match output.status.signal() {
        Some(signal) => {
            let error = String::from_utf8_lossy(&output.stderr);
            let last = error.lines().rfind(|line| !line.trim().is_empty());
            let last = last.unwrap_or_default();
            let reason = format!("reading it ended by signal {signal}: {last}");
            Ok(Report::unreadable(reason))
        }
        None => Err(io::Error::other(format!("it ended with {}", output.status))),
    }
}

/// Checks a database and prints the report, if this process was started for that; then the program has to exit so. A `main`
/// that calls this first has its databases checked in processes of their own.
pub fn answer() -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_none_or(|argument| argument != COMMAND) {
        ANSWERS.store(true, Ordering::Relaxed);
        return None;
    }
    let path = arguments.next()?;
    let file = std::fs::File::open(&path).map(|file| Arc::new(file) as Arc<dyn DataFile>);
    let mut say = |report: &Report| {
        if let Ok(report) = serde_json::to_string(report) {
            let _ = writeln!(io::stdout(), "{LEAD}{report}");
        }
    };
    match file.and_then(|file| inspect(&file, &mut say)) {
        Ok(report) => {
            say(&report);
            Some(ExitCode::SUCCESS)
        }
        Err(_) => Some(ExitCode::FAILURE),
    }
}
