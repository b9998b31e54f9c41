//! Why the database cannot be opened, read or written.

use std::io;
use std::path::PathBuf;

/// Why the database cannot be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The directory or file cannot be created or opened.
    #[error("cannot open {}: {source}", path.display())]
    Open {
        /// The directory or file.
        path: PathBuf,
        /// The system error.
        source: io::Error,
    },
    /// The database of a first start cannot be made.
    #[error("cannot create {}: {fault}", path.display())]
    Create {
        /// The file.
        path: PathBuf,
        /// Why.
        fault: WriteFault,
    },
    /// Another process has the file open.
    #[error("{} is in use; is another hearth running with this data directory?", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The file is damaged or not a database, and there is no good backup beside it.
    #[error("{} is not a readable database ({reason}), and there is no good backup in {}; `hearth repair` brings back what can still be read, `hearth restore FILE` restores a backup", path.display(), backups.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The directory of the automatic backups.
        backups: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The database is gone, although hearth ran with this data directory before.
    #[error("{} is {what}, but {} shows that hearth has run here before; `hearth restore FILE` restores a backup; to start with an empty tailnet and new keys, which every device has to join again, move {} away", path.display(), trace.display(), directory.display())]
    Lost {
        /// The file.
        path: PathBuf,
        /// `missing` or `empty`.
        what: &'static str,
        /// What else is there.
        trace: PathBuf,
        /// The data directory.
        directory: PathBuf,
    },
    /// A newer hearth wrote it.
    #[error("{} was written by a newer hearth (schema {found}, this version supports {known}); install that version, or go back with `hearth restore` and a backup that this version wrote (a newer hearth leaves one in backups/)", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its schema.
        found: u64,
        /// The newest schema that this version supports.
        known: u64,
    },
    /// Reading failed.
    #[error("cannot read the database: {0}")]
    Read(#[from] Box<redb::Error>),
    /// The change was not written, and will not come up later.
    #[error("cannot write the database: {0}")]
    Write(#[from] WriteFault),
    /// The change can neither be written nor undone: it may take effect at the next start.
    #[error(
        "cannot write the database, nor undo the change: {0}; it may still take effect after a restart"
    )]
    InDoubt(WriteFault),
    /// The system has no random bytes for the server keys.
    #[error(transparent)]
    NoRandomness(#[from] hearth_core::state::secret::NoRandomness),
}

/// Why something could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteFault {
    /// The system refused it.
    #[error("{step}: {source}")]
    System {
        /// What hearth was doing.
        step: &'static str,
        /// The system error.
        source: io::Error,
    },
    /// redb refused it.
    #[error(transparent)]
    Database(Box<redb::Error>),
}

impl StoreError {
    /// The error of the system behind it, if there is one.
    pub fn system_error(&self) -> Option<&io::Error> {
        match self {
            Self::Open { source, .. } => Some(source),
            Self::Create { fault, .. } | Self::Write(fault) | Self::InDoubt(fault) => {
                fault.system_error()
            }
            Self::Read(fault) => system_error(fault),
            Self::InUse { .. }
            | Self::Damaged { .. }
            | Self::Lost { .. }
            | Self::Newer { .. }
            | Self::NoRandomness(_) => None,
        }
    }

    /// Whether the disk is full, or a quota is reached.
    pub(super) fn is_full(&self) -> bool {
        let kind = self.system_error().map(io::Error::kind);
        matches!(
            kind,
            Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
        )
    }

    /// A disk that was full has no more room than then.
    pub fn still_full() -> Self {
        Self::Write(WriteFault::at("looking at the free space")(
            io::ErrorKind::StorageFull.into(),
        ))
    }
}

fn system_error(fault: &redb::Error) -> Option<&io::Error> {
    match fault {
        redb::Error::Io(source) => Some(source),
        _ => None,
    }
}

impl WriteFault {
    pub(super) fn at(step: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { step, source }
    }

    /// The error of the system behind it, if there is one.
    fn system_error(&self) -> Option<&io::Error> {
        match self {
            Self::System { source, .. } => Some(source),
            Self::Database(fault) => system_error(fault),
        }
    }

    /// Whether the disk takes nothing at all now, so that another way to write would fail as well.
    pub(super) fn is_refusal(&self) -> bool {
        use io::ErrorKind::{PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
        let Some(kind) = self.system_error().map(io::Error::kind) else {
            return false;
        };
        matches!(
            kind,
            PermissionDenied | QuotaExceeded | ReadOnlyFilesystem | StorageFull
        )
    }
}

impl<E: Into<redb::Error>> From<E> for WriteFault {
    fn from(fault: E) -> Self {
        Self::Database(Box::new(fault.into()))
    }
}
