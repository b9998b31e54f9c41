//! Automatic copies of the database: their names, and how one is put into a directory and older ones are deleted.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::space::{self, Space};
use crate::files::Owner;
use crate::store::{self, StoreError, Verdict};
use hearth_core::clock::Timestamp;

/// What names begin with.
const LEAD: &str = "hearth-";
/// What names end with.
const END: &str = ".redb";
/// What a name ends with until the copy is verified.
const UNFINISHED: &str = ".new";
const DAY: u128 = 24 * 60 * 60 * 1000;

/// A copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copy {
    /// The file.
    pub path: PathBuf,
    /// When it was made, by its name.
    pub made: Timestamp,
    /// Its size.
    pub bytes: u64,
}

/// Why there is no new copy.
#[derive(Debug, thiserror::Error)]
pub enum CopyFault {
    /// The directory is missing: perhaps its drive is.
    #[error("{}: {source} (is the drive mounted?)", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// The disk is nearly full.
    #[error("{} are free on the file system of {}, too little for a copy of {}", space::show(*.free), path.display(), space::show(*.bytes))]
    Full {
        /// The directory.
        path: PathBuf,
        /// Free bytes.
        free: u64,
        /// Bytes of the copy.
        bytes: u64,
    },
    /// The copy cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The copy.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// The copy cannot be read back.
    #[error("the copy cannot be verified: {0}")]
    Unreadable(#[from] StoreError),
    /// The copy is not what was written.
    #[error("the copy {} is damaged right after it was written: {reason}; is the disk failing?", path.display())]
    Damaged {
        /// The copy.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

/// The name of a copy that is made at this time.
pub fn name(made: Timestamp) -> String {
    format!("{LEAD}{}{END}", made.stamp())
}

/// The time in a name of a copy; `None` when it is another file.
fn time_of(name: &str) -> Option<Timestamp> {
    Timestamp::parse_stamp(name.strip_prefix(LEAD)?.strip_suffix(END)?)
}

/// The copies in a directory, oldest first. Other files do not count.
///
/// # Errors
/// When the directory cannot be read.
pub fn list(directory: &Path) -> io::Result<Vec<Copy>> {
    let mut copies = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let made = entry.file_name().to_str().and_then(time_of);
        let (Some(made), Ok(about)) = (made, entry.metadata()) else {
            continue;
        };
        if about.is_file() {
            copies.push(Copy {
                path: entry.path(),
                made,
                bytes: about.len(),
            });
        }
    }
    copies.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(copies)
}

/// Time between two copies of this size: longer than `every` where a disk should not get so many bytes a day.
pub fn interval(every: Duration, daily_bytes: Option<u64>, bytes: u64) -> Duration {
    let Some(daily) = daily_bytes.filter(|daily| *daily > 0) else {
        return every;
    };
    let ms = u128::from(bytes)
        .saturating_mul(DAY)
        .checked_div(daily.into())
        .unwrap_or_default();
    let worn = Duration::from_millis(u64::try_from(ms).unwrap_or(u64::MAX));
    every.max(worn)
}

/// How long from now until the next copy, after a start: as if hearth had run all the time. A clock that went back makes
/// it due.
pub fn due_in(newest: Option<&Copy>, interval: Duration, now: Timestamp) -> Duration {
    let Some(newest) = newest.filter(|newest| newest.made <= now) else {
        return Duration::ZERO;
    };
    interval.saturating_sub(now.since(newest.made))
}

/// Puts a database file into a directory as the newest copy, verifies it there, and then deletes all but the newest
/// `keep` copies. A failure deletes nothing.
///
/// # Errors
/// [`CopyFault`].
pub fn add(from: &File, directory: &Path, now: Timestamp, keep: usize) -> Result<Copy, CopyFault> {
    let at = |source| CopyFault::Directory {
        path: directory.to_owned(),
        source,
    };
    let older = list(directory).map_err(at)?;
    remove_unfinished(directory);
    let bytes = from.metadata().map_err(at)?.len();
    let space = Space::of(directory).map_err(at)?;
    if !space.fits(bytes) {
        return Err(CopyFault::Full {
            path: directory.to_owned(),
            free: space.free,
            bytes,
        });
    }
    // Also after a clock that was ahead, the newest copy has the last name.
    let after = older
        .last()
        .map(|newest| newest.made.plus(Duration::from_secs(1)));
    let made = after.map_or(now, |after| after.max(now));
    let path = directory.join(name(made));
    let unfinished = directory.join(format!("{}{UNFINISHED}", name(made)));
    let written = write(from, &unfinished).map_err(|source| CopyFault::Write {
        path: path.clone(),
        source,
    });
    let verified = written.and_then(|()| verify(&unfinished));
    let placed = verified.and_then(|()| {
        let renamed = fs::rename(&unfinished, &path);
        let synced = renamed.and_then(|()| File::open(directory)?.sync_all());
        synced.map_err(at)
    });
    if let Err(fault) = placed {
        let _ = fs::remove_file(&unfinished);
        return Err(fault);
    }
    let surplus = older.len().saturating_add(1).saturating_sub(keep.max(1));
    for copy in older.iter().take(surplus) {
        if let Err(fault) = fs::remove_file(&copy.path) {
            tracing::warn!(path = %copy.path.display(), %fault, "cannot delete an old backup");
        }
    }
    Ok(Copy { path, made, bytes })
}

fn write(mut source: &File, to: &Path) -> io::Result<()> {
    let mut target = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(to)?;
    Owner::hand_over(&target, to.parent().unwrap_or(Path::new(".")));
    io::copy(&mut source, &mut target)?;
    target.sync_all()
}

/// Opens a copy and reads all of it.
fn verify(path: &Path) -> Result<(), CopyFault> {
    match store::verify(path)?.verdict {
        Verdict::Sound { .. } => Ok(()),
        Verdict::Repairable { reason } | Verdict::Damaged { reason } => Err(CopyFault::Damaged {
            path: path.to_owned(),
            reason,
        }),
        Verdict::Newer { .. } => Err(CopyFault::Damaged {
            path: path.to_owned(),
            reason: "another schema".to_owned(),
        }),
    }
}

/// Copies that were never finished, because of a power cut.
///
/// # Errors
/// When the directory cannot be read.
pub fn unfinished(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_str().and_then(|name| name.strip_suffix(UNFINISHED));
        if name.and_then(time_of).is_some() {
            found.push(entry.path());
        }
    }
    Ok(found)
}

fn remove_unfinished(directory: &Path) {
    for path in unfinished(directory).unwrap_or_default() {
        let _ = fs::remove_file(path);
    }
}

#[cfg(test)]
mod tests;
