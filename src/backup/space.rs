//! File systems: their free space, and which one a directory is on. No backup is worth a full disk, on which hearth could change nothing any more.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::Access;

/// Part of a file system that stays free: one in so many.
const RESERVED_PART: u64 = 20;
/// Most bytes of it.
const RESERVED_MOST: u64 = 64 << 20;

/// Free bytes and size of the file system of a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Bytes that hearth may still use.
    pub free: u64,
    /// All bytes.
    pub total: u64,
}

impl Space {
    /// The space of the file system that holds a directory.
    ///
    /// # Errors
    /// Those of the system.
    pub fn of(directory: &Path) -> io::Result<Self> {
        let found = rustix::fs::statvfs(directory)?;
        Ok(Self {
            free: found.f_bavail.saturating_mul(found.f_frsize),
            total: found.f_blocks.saturating_mul(found.f_frsize),
        })
    }

    /// Whether so many bytes fit and the disk is not nearly full afterwards. File systems that report no size have none
    /// that could be full.
    pub fn fits(self, bytes: u64) -> bool {
        let reserved = (self.total / RESERVED_PART).min(RESERVED_MOST);
        self.total == 0 || self.free >= bytes.saturating_add(reserved)
    }
}

/// Whether a directory is on the file system of another one, for a directory that files can be written to.
///
/// # Errors
/// Those of the system: the directory is missing, none, on a file system that is read-only, or of another user.
pub fn is_on_same(directory: &Path, other: &Path) -> io::Result<bool> {
    let about = fs::metadata(directory)?;
    if !about.is_dir() {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    rustix::fs::access(directory, Access::WRITE_OK | Access::EXEC_OK)?;
    Ok(about.dev() == fs::metadata(other)?.dev())
}

/// `1.5 MiB`, for messages.
pub fn show(bytes: u64) -> String {
    const MIB: u64 = 1 << 20;
    match bytes {
        0..1024 => format!("{bytes} bytes"),
        1024..MIB => format!("{} KiB", bytes.div_ceil(1024)),
        _ => {
            let tenths = bytes.saturating_mul(10) / MIB;
            format!("{}.{} MiB", tenths / 10, tenths % 10)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_the_disk_stays_free() {
        let disk = |free: u64, total: u64| Space {
            free: free << 20,
            total: total << 20,
        };
        assert!(disk(10, 100).fits(5 << 20));
        assert!(!disk(10, 100).fits(6 << 20));
        assert!(disk(70, 1 << 20).fits(6 << 20));
        assert!(!disk(70, 1 << 20).fits(7 << 20));
        assert!(disk(0, 0).fits(1));
        assert!(Space::of(Path::new("/")).unwrap().total > 0);
    }

    #[test]
    fn a_directory_that_cannot_be_used_is_noticed_without_writing() {
        let directory = tempfile::tempdir().unwrap();
        let below = directory.path().join("below");
        fs::create_dir(&below).unwrap();
        assert!(is_on_same(&below, directory.path()).unwrap());
        assert!(!is_on_same(Path::new("/dev/shm"), Path::new("/proc")).unwrap());
        let missing = is_on_same(&directory.path().join("no"), &below).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
        let none = is_on_same(Path::new("/dev/null"), &below).unwrap_err();
        assert_eq!(none.kind(), io::ErrorKind::NotADirectory);
        assert_eq!(fs::read_dir(&below).unwrap().count(), 0);
    }

    #[test]
    fn sizes_are_shown_in_the_unit_that_fits() {
        assert_eq!(show(5), "5 bytes");
        assert_eq!(show(100 << 10), "100 KiB");
        assert_eq!(show(3 << 19), "1.5 MiB");
    }
}
