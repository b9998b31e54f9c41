//! Atomic replacement and bounded reading of files.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

/// Replaces a file atomically, readable by its owner only; creates its directory if necessary. After a power loss
/// there is the old file or the new one.
///
/// # Errors
/// Those of the system; the old file then remains.
pub fn replace(path: &Path, contents: &[u8]) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let temporary = path.with_extension("new");
    fs::create_dir_all(directory)?;
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)?;
    file.write_all(contents)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    File::open(directory)?.sync_all()
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
