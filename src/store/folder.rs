//! The directory with the database, as the store sees it: a seam, so that tests can use a disk that fails, hangs, and
//! loses its power.

use std::fmt::Debug;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

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
    /// Free bytes of the file system; `None` if it has no such number.
    fn free(&self) -> io::Result<Option<u64>>;
    fn path(&self, name: &str) -> PathBuf;
}
