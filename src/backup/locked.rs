//! The lock of a data directory, which a running server holds.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

/// Why a data directory cannot be locked.
#[derive(Debug, thiserror::Error)]
pub enum LockFault {
    /// hearth runs on it.
    #[error("hearth is running on {}; stop it first", path.display())]
    Running {
        /// The data directory.
        path: PathBuf,
    },
    /// It cannot be opened.
    #[error("{}: {source}", path.display())]
    Directory {
        /// The data directory.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
}

/// Keeps servers away from a data directory until it is dropped.
#[derive(Debug)]
pub struct Locked {
    _directory: File,
}

/// Locks a data directory, as a server does.
///
/// # Errors
/// [`LockFault`].
pub fn lock(data_dir: &Path) -> Result<Locked, LockFault> {
    let at = |source| LockFault::Directory {
        path: data_dir.to_owned(),
        source,
    };
    let directory = File::open(data_dir).map_err(at)?;
    match directory.try_lock() {
        Ok(()) => Ok(Locked {
            _directory: directory,
        }),
        Err(TryLockError::WouldBlock) => Err(LockFault::Running {
            path: data_dir.to_owned(),
        }),
        Err(TryLockError::Error(source)) => Err(at(source)),
    }
}
