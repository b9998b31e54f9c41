//! The directory with the database on a file system.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::Arc;

use rustix::fs::{Advice, fadvise, statvfs};

use super::folder::{DataFile, Folder, Lock};
use crate::files::{self, Owner};

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

    fn free(&self) -> io::Result<Option<u64>> {
        let found = statvfs(&self.0)?;
        let free = found.f_bavail.saturating_mul(found.f_frsize);
        Ok((found.f_blocks > 0).then_some(free))
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
