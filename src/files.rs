//! Atomic replacement and bounded reading of files.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, fchown, lchown};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hearth_core::clock::Timestamp;

/// What stands between the name of a damaged file that is kept and the time.
const DAMAGED: &str = ".damaged-";
/// Characters of a time in a name: `YYYYMMDD-HHMMSS`.
const STAMP: usize = 15;
/// Stack of the thread that saves files, in bytes.
const STACK_BYTES: usize = 64 * 1024;

/// The user and group that own a directory.
///
/// What root writes into a data directory belongs to its owner: a command of root must not leave files that the service's user
/// cannot read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    uid: u32,
    gid: u32,
}

impl Owner {
    /// The owner of a directory.
    ///
    /// # Errors
    /// Those of the system.
    pub fn of(directory: &Path) -> io::Result<Self> {
        let about = directory.metadata()?;
        Ok(Self {
            uid: about.uid(),
            gid: about.gid(),
        })
    }

    /// Gives a new file to the owner of the directory that it is in.
    ///
    /// The system refuses it to others than root, who own what they make anyway, and on file systems without owners.
    pub fn hand_over(file: &File, directory: &Path) {
        if let Ok(owner) = Self::of(directory) {
            let _ = fchown(file, Some(owner.uid), Some(owner.gid));
        }
    }

    /// Gives a file or directory to this owner, and what is in it; a link itself, not what it leads to.
    pub fn give_all(self, path: &Path) {
        self.give(path);
        let is_directory = path.symlink_metadata().is_ok_and(|about| about.is_dir());
        let entries = is_directory
            .then(|| fs::read_dir(path))
            .and_then(Result::ok);
        for entry in entries.into_iter().flatten().flatten() {
            self.give_all(&entry.path());
        }
    }

    /// Gives a file or directory to this owner.
    pub fn give(self, path: &Path) {
        let _ = lchown(path, Some(self.uid), Some(self.gid));
    }

    /// Lets the group of this owner read a file that root keeps.
    pub fn give_group(self, path: &Path) {
        let _ = lchown(path, None, Some(self.gid));
    }
}

/// Replaces a file in a data directory atomically, readable by its owner only, who is that of its directory ([`Owner`]);
/// creates its directory if necessary. After a power loss there is the old file or the new one.
///
/// # Errors
/// Those of the system; the old file then remains.
pub fn replace(path: &Path, contents: &[u8]) -> io::Result<()> {
    write_new(path, contents, &Owner::hand_over)
}

/// As [`replace`], but outside of a data directory: the file belongs to the user of this process, not to the owner of the directory.
///
/// # Errors
/// Those of the system; the old file then remains.
pub fn export(path: &Path, contents: &[u8]) -> io::Result<()> {
    write_new(path, contents, &|_, _| ())
}

fn write_new(path: &Path, contents: &[u8], own: &dyn Fn(&File, &Path)) -> io::Result<()> {
    let directory = path.parent();
    let directory = directory.filter(|directory| !directory.as_os_str().is_empty());
    let directory = directory.unwrap_or(Path::new("."));
    let temporary = path.with_extension("new");
    create_directory(directory)?;
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)?;
    own(&file, directory);
    file.write_all(contents)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    File::open(directory)?.sync_all()
}

/// The name under which a damaged file is kept: `NAME.damaged-YYYYMMDD-HHMMSS`, in UTC.
pub fn damaged_name(name: &str, now: Timestamp) -> String {
    format!("{name}{DAMAGED}{}", now.stamp())
}

/// When a damaged file was kept, by its name; `None` if it is none of the file `name`. Earlier versions wrote seconds since 1970; of
/// several in one second the later ones have a number at the end.
pub fn damaged_at(name: &str, kept: &str) -> Option<Timestamp> {
    let time = kept.strip_prefix(name)?.strip_prefix(DAMAGED)?;
    if let Ok(seconds) = time.parse::<u32>() {
        return Some(Timestamp::from_unix_ms(
            i64::from(seconds).saturating_mul(1000),
        ));
    }
    let (time, number) = time.split_at_checked(STAMP)?;
    let is_number = |text: &str| text.parse::<u32>().is_ok();
    (number.is_empty() || number.strip_prefix('-').is_some_and(is_number))
        .then(|| Timestamp::parse_stamp(time))?
}

/// Creates a directory and those above it, as far as they are missing, readable by the owner only, who is that of the
/// directory above them ([`Owner`]). After a power loss they are still there.
///
/// # Errors
/// Those of the system.
pub fn create_directory(path: &Path) -> io::Result<()> {
    let missing = path.ancestors().take_while(|path| !path.exists());
    let missing: Vec<&Path> = missing
        .filter(|path| !path.as_os_str().is_empty())
        .collect();
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    for made in missing.into_iter().rev() {
        let parent = made.parent();
        let parent = parent.filter(|parent| !parent.as_os_str().is_empty());
        let parent = parent.unwrap_or(Path::new("."));
        Owner::hand_over(&File::open(made)?, parent);
        File::open(parent)?.sync_all()?;
    }
    Ok(())
}

/// Reads a file of at most `most` bytes.
///
/// # Errors
/// Those of the system, and `InvalidData` if the file is longer.
pub fn read(path: &Path, most: usize) -> io::Result<Vec<u8>> {
    let limit = u64::try_from(most).unwrap_or(u64::MAX);
    let mut contents = Vec::new();
    File::open(path)?
        .take(limit.saturating_add(1))
        .read_to_end(&mut contents)?;
    if contents.len() > most {
        let fault = format!("longer than {most} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidData, fault));
    }
    Ok(contents)
}

/// Replaces files in a thread of its own, so that nobody waits for the disk. Clones share it.
///
/// For what is only kept for the next start: the caller does not learn whether it worked, the log does.
#[derive(Debug, Clone, Default)]
pub struct Saver(Arc<(Mutex<Unsaved>, Condvar)>);

#[derive(Debug, Default)]
struct Unsaved {
    /// The newest contents of each file.
    files: BTreeMap<PathBuf, Vec<u8>>,
    /// Whether the thread runs; it ends when there is nothing left.
    is_running: bool,
}

impl Saver {
    /// Replaces a file soon, by [`replace`]. Contents of the same file that still wait are dropped.
    pub fn save(&self, path: PathBuf, contents: Vec<u8>) {
        let mut unsaved = self.lock();
        unsaved.files.insert(path, contents);
        if unsaved.is_running {
            return;
        }
        let saver = self.clone();
        let started = std::thread::Builder::new()
            .name("files".into())
            .stack_size(STACK_BYTES)
            .spawn(move || while saver.save_next() {});
        match started {
            Ok(_) => unsaved.is_running = true,
            // It is tried again with the next file.
            Err(fault) => tracing::warn!(%fault, "cannot save a file for the next start"),
        }
    }

    /// Waits until all is saved, no longer than `patience`.
    pub fn finish(&self, patience: Duration) {
        let waits = |unsaved: &mut Unsaved| unsaved.is_running;
        let waited = self.0.1.wait_timeout_while(self.lock(), patience, waits);
        if waited.is_ok_and(|(_, timeout)| timeout.timed_out()) {
            tracing::warn!(
                "the disk does not respond; some files for the next start are not saved"
            );
        }
    }

    /// Saves one file. Returns false when there is none.
    fn save_next(&self) -> bool {
        let mut unsaved = self.lock();
        let Some((path, contents)) = unsaved.files.pop_first() else {
            unsaved.is_running = false;
            self.0.1.notify_all();
            return false;
        };
        drop(unsaved);
        if let Err(fault) = replace(&path, &contents) {
            let file = path.display();
            tracing::warn!(%file, %fault, "cannot save a file for the next start");
        }
        true
    }

    fn lock(&self) -> MutexGuard<'_, Unsaved> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The stamp of a file, which differs after a change or replacement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

impl Stamp {
    /// The stamp now; `None` if the file does not exist.
    pub fn of(path: &Path) -> Option<Self> {
        let file = path.metadata().ok()?;
        Some(Self {
            inode: file.ino(),
            size: file.size(),
            changed: (file.mtime(), file.mtime_nsec()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damaged_files_are_named_by_their_time_and_older_names_are_understood() {
        let now = Timestamp::parse("2026-11-28T04:05:06.789Z").unwrap();
        let name = damaged_name("hearth.redb", now);
        assert_eq!(name, "hearth.redb.damaged-20261128-040506");
        let second = Timestamp::parse("2026-11-28T04:05:06Z");
        for kept in [
            name.clone(),
            format!("{name}-2"),
            "hearth.redb.damaged-1795838706".to_owned(),
        ] {
            assert_eq!(damaged_at("hearth.redb", &kept), second, "{kept}");
        }
        for other in [
            "hearth.redb",
            "hearth.redb.damaged-",
            "hearth.redb.damaged-20261128",
            "hearth.redb.damaged-20261128-0405",
            "hearth.redb.damaged-20261128-040506x",
            "hearth.redb.damaged-mine",
            "cert.pem.damaged-20261128-040506",
        ] {
            let found = damaged_at("hearth.redb", other);
            assert!(
                found.is_none_or(|found| found < now.moved(-1_000_000)),
                "{other}"
            );
        }
    }

    #[test]
    fn files_are_saved_by_another_thread_and_the_newest_contents_win() {
        let dir = tempfile::tempdir().unwrap();
        let saver = Saver::default();
        for number in 0..50_u8 {
            saver.save(dir.path().join("a"), vec![number]);
            saver.save(dir.path().join("below/b"), vec![number, number]);
        }
        saver.finish(Duration::from_secs(30));
        assert_eq!(read(&dir.path().join("a"), 9).unwrap(), [49]);
        assert_eq!(read(&dir.path().join("below/b"), 9).unwrap(), [49, 49]);
        // What cannot be saved is left out.
        saver.save(dir.path().join("a/c"), Vec::new());
        saver.save(dir.path().join("d"), vec![1]);
        saver.finish(Duration::from_secs(30));
        assert_eq!(read(&dir.path().join("d"), 9).unwrap(), [1]);
    }

    #[test]
    fn what_root_writes_belongs_to_the_owner_of_the_directory() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let owner = Owner {
            uid: 12_345,
            gid: 12_346,
        };
        owner.give(dir.path());
        let below = dir.path().join("one/two");
        replace(&below.join("file"), b"contents").unwrap();
        for path in ["one", "one/two", "one/two/file"] {
            let path = dir.path().join(path);
            assert_eq!(Owner::of(&path).unwrap(), owner, "{}", path.display());
        }
        export(&below.join("exported"), b"contents").unwrap();
        let exported = below.join("exported").metadata().unwrap();
        assert_eq!(exported.uid(), 0);
    }

    #[test]
    fn files_are_replaced_atomically_and_read_within_bounds() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("below/file");
        for contents in [&b"first"[..], b"second"] {
            replace(&path, contents).unwrap();
            assert_eq!(read(&path, 6).unwrap(), contents);
        }
        assert_eq!(
            read(&path, 5).unwrap_err().kind(),
            io::ErrorKind::InvalidData
        );
        assert_eq!(fs::read_dir(dir.path().join("below")).unwrap().count(), 1);
    }
}
