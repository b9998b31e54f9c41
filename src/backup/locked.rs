//! The lock of a data directory, which a running server holds.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

/// Why a data directory cannot be locked.
#[derive(Debug, thiserror::Error)]
pub enum LockFault {
    /// hearth runs on it.
    #[error("hearth is running on {}; stop it first{}", path.display(), stop_command())]
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

/// The command that stops the service on this machine, as the end of a sentence; empty if it is not known.
fn stop_command() -> &'static str {
    match () {
        _ if Path::new("/etc/init.d/hearth").exists() => ": /etc/init.d/hearth stop",
        _ if Path::new("/run/systemd/system").exists() => ": systemctl stop hearth",
        _ => "",
    }
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

/// Whether a server runs on a data directory. What cannot be locked has none.
pub fn is_running(data_dir: &Path) -> bool {
    let locked = File::open(data_dir).map(|directory| directory.try_lock_shared());
    matches!(locked, Ok(Err(TryLockError::WouldBlock)))
}
