//! The directory with the database, as the store sees it: a seam, so that tests can use a disk that fails, hangs, and
//! loses its power.

use std::fmt::Debug;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::Arc;

use rustix::fs::{Advice, fadvise};

use crate::files::{self, Owner};

/// An open file of the directory.
pub(super) trait DataFile: Debug + Send + Sync {
    fn len(&self) -> io::Result<u64>;
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()>;
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()>;
    fn set_len(&self, len: u64) -> io::Result<()>;
    fn sync(&self) -> io::Result<()>;
    /// Locks it for this process until it is closed; false if another process has it locked.
    fn lock(&self) -> io::Result<bool>;
    /// Which file this is, whatever its name is now.
    fn identity(&self) -> io::Result<(u64, u64)>;
}

/// Keeps other processes out until it is dropped.
pub(super) trait Lock: Debug + Send {}

/// The directory. Names are relative to it.
pub(super) trait Folder: Debug + Send + Sync {
    /// Opens a file for reading.
    fn open(&self, name: &str) -> io::Result<Arc<dyn DataFile>>;
    /// Has the next reader of a file see what the disk has, not what an earlier process wrote and could not sync: syncs
    /// it, and drops its pages from the cache.
    fn settle(&self, name: &str) -> io::Result<()>;
    fn open_for_writing(&self, name: &str) -> io::Result<Arc<dyn DataFile>>;
    /// Creates a file that only its owner may read. It must not exist.
    fn create(&self, name: &str) -> io::Result<Arc<dyn DataFile>>;
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Gives a file a second name, or a copy where the file system has no such names.
    fn keep(&self, name: &str, also: &str) -> io::Result<()>;
    /// Creates a directory, if it is missing.
    fn create_folder(&self, name: &str) -> io::Result<()>;
    /// Syncs the names in a directory; `""` is this one.
    fn sync(&self, folder: &str) -> io::Result<()>;
    /// The names in a directory; none if it is missing.
    fn list(&self, folder: &str) -> io::Result<Vec<String>>;
    /// Locks the directory for this process; `None` if another process has it locked.
    fn lock(&self) -> io::Result<Option<Box<dyn Lock>>>;
    fn path(&self, name: &str) -> PathBuf;
}

/// A directory of the system.
#[derive(Debug)]
pub(super) struct Directory(pub(super) PathBuf);

impl Folder for Directory {
    fn open(&self, name: &str) -> io::Result<Arc<dyn DataFile>> {
        Ok(Arc::new(File::open(self.path(name))?))
    }

    fn settle(&self, name: &str) -> io::Result<()> {
        let file = File::open(self.path(name))?;
        let synced = file.sync_all();
        let _ = fadvise(&file, 0, None, Advice::DontNeed);
        synced
    }

    fn open_for_writing(&self, name: &str) -> io::Result<Arc<dyn DataFile>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(self.path(name))?;
        Ok(Arc::new(file))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DataFile>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(0o600);
        let path = self.path(name);
        let file = options.open(&path)?;
        Owner::hand_over(&file, path.parent().unwrap_or(&self.0));
        Ok(Arc::new(file))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path(from), self.path(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path(name))
    }

    fn keep(&self, name: &str, also: &str) -> io::Result<()> {
        let (from, to) = (self.path(name), self.path(also));
        match fs::hard_link(&from, &to) {
            Ok(()) => Ok(()),
            Err(fault) if fault.kind() == io::ErrorKind::AlreadyExists => Err(fault),
            Err(_) => {
                fs::copy(&from, &to)?;
                let copy = File::open(&to)?;
                Owner::hand_over(&copy, to.parent().unwrap_or(&self.0));
                copy.sync_all()
            }
        }
    }

    fn create_folder(&self, name: &str) -> io::Result<()> {
        files::create_directory(&self.path(name))
    }

    fn sync(&self, folder: &str) -> io::Result<()> {
        File::open(self.path(folder))?.sync_all()
    }

    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        let entries = match fs::read_dir(self.path(folder)) {
            Ok(entries) => entries,
            Err(fault) if fault.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(fault) => return Err(fault),
        };
        let names = entries.map(|entry| Ok(entry?.file_name().into_string().ok()));
        let names: io::Result<Vec<Option<String>>> = names.collect();
        Ok(names?.into_iter().flatten().collect())
    }

    fn lock(&self) -> io::Result<Option<Box<dyn Lock>>> {
        let folder = File::open(&self.0)?;
        Ok(DataFile::lock(&folder)?.then(|| Box::new(folder) as Box<dyn Lock>))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Lock for File {}

impl DataFile for File {
    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.read_exact_at(out, offset)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.write_all_at(data, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        Self::set_len(self, len)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }

    /// Also excludes a hearth whose redb locks the file itself. Where the file system has no locks there is none, as with redb.
    fn lock(&self) -> io::Result<bool> {
        match self.try_lock() {
            Err(TryLockError::WouldBlock) => Ok(false),
            Ok(()) | Err(TryLockError::Error(_)) => Ok(true),
        }
    }

    fn identity(&self) -> io::Result<(u64, u64)> {
        let file = self.metadata()?;
        Ok((file.dev(), file.ino()))
    }
}
