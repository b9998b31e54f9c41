//! Makes backups of the running server, one at a time.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, MutexGuard};

use crate::backup::space;
use crate::backup::whole::{About, Source};
use crate::engine::{Copied, EngineError, Handle};
use crate::status::addresses::CurrentUrl;
use hearth_core::clock::Timestamp;
use hearth_core::doctor::backup::Place;
use hearth_core::state::content::Digest;

/// Name of the copy of the database while it is used.
const SCRATCH: &str = "backup-in-progress.redb";
/// Timeout of a look at the directory of copies, which may be on a network.
const LOOK: Duration = Duration::from_secs(3);

/// Why there is no backup.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The database cannot be copied.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The backup cannot be made.
    #[error("cannot make the backup: {0}")]
    Io(#[from] std::io::Error),
    /// Another backup is being made.
    #[error("another backup is being made; try again in a moment")]
    Busy,
    /// hearth is shutting down.
    #[error("hearth is shutting down")]
    Stopped,
}

/// What backups are made of.
pub struct Backups {
    engine: Handle,
    source: Source,
    /// The URL, which may follow the address of the machine.
    server_url: CurrentUrl,
    noise_key: String,
    relay_key: String,
    scratch: PathBuf,
    /// One at a time: there is one scratch file, and a backup is in memory.
    lock: Mutex<()>,
    /// Held while a thread looks at the directory of copies: no second one waits for a file system that hangs.
    looking: Arc<Mutex<()>>,
}

/// A copy of the database, which is deleted when this is dropped.
pub struct Scratch<'a> {
    path: PathBuf,
    /// What it has.
    pub copied: Copied,
    _lock: MutexGuard<'a, ()>,
}

impl Scratch<'_> {
    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch<'_> {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Backups {
    /// Backups of this server. The database is copied to a file in `scratch_dir` first: best one in memory, such as that of
    /// the admin socket.
    pub fn new(
        engine: Handle,
        source: Source,
        server_url: CurrentUrl,
        (noise_key, relay_key): (String, String),
        scratch_dir: &Path,
    ) -> Self {
        Self {
            engine,
            source,
            server_url,
            noise_key,
            relay_key,
            scratch: scratch_dir.join(SCRATCH),
            lock: Mutex::default(),
            looking: Arc::default(),
        }
    }

    /// What the directory of copies is like. The one in the data directory is created when the first copy is made.
    /// Cancel safe.
    pub async fn place(&self, directory: &Path, is_configured: bool) -> Place {
        let silent = || Place::Unusable("the file system does not respond".to_owned());
        let free = self.looking.clone().lock_owned();
        let Ok(held) = tokio::time::timeout(LOOK, free).await else {
            return silent();
        };
        let data_dir = self.source.data_dir.clone();
        let directory = directory.to_owned();
        let looking = tokio::task::spawn_blocking(move || {
            let _held = held;
            let directory = match is_configured || directory.exists() {
                true => directory,
                false => data_dir.clone(),
            };
            match space::is_on_same(&directory, &data_dir) {
                Ok(true) => Place::SameFileSystem,
                Ok(false) => Place::Elsewhere,
                Err(fault) => Place::Unusable(fault.to_string()),
            }
        });
        match tokio::time::timeout(LOOK, looking).await {
            Ok(Ok(place)) => place,
            Ok(Err(_)) | Err(_) => silent(),
        }
    }

    /// A copy of the database as it is now; `None` if its content is still that of `unless`. Cancel safe.
    ///
    /// # Errors
    /// [`BackupError`].
    pub async fn copy(&self, unless: Option<Digest>) -> Result<Option<Scratch<'_>>, BackupError> {
        let lock = self.lock.lock().await;
        let copied = self.engine.copy(self.scratch.clone(), unless).await?;
        Ok(copied.map(|copied| Scratch {
            path: self.scratch.clone(),
            copied,
            _lock: lock,
        }))
    }

    /// A whole backup of what is in `scratch`. Cancel safe.
    ///
    /// # Errors
    /// [`BackupError`].
    pub async fn pack(
        &self,
        scratch: &Scratch<'_>,
        now: Timestamp,
    ) -> Result<Vec<u8>, BackupError> {
        let mut source = self.source.clone();
        source.server_url = self.server_url.to_string();
        let about = About {
            noise_key: self.noise_key.clone(),
            relay_key: self.relay_key.clone(),
            nodes: scratch.copied.nodes,
            users: scratch.copied.users,
        };
        let path = scratch.path.clone();
        // Compressing takes seconds on a small board.
        let packing = tokio::task::spawn_blocking(move || source.pack(&path, &about, now));
        Ok(packing.await.map_err(|_| BackupError::Stopped)??)
    }

    /// A whole backup as the admin socket serves it. Cancel safe.
    ///
    /// # Errors
    /// [`BackupError`], also when another one is being made.
    pub async fn whole(&self, now: Timestamp) -> Result<Vec<u8>, BackupError> {
        if self.lock.try_lock().is_err() {
            return Err(BackupError::Busy);
        }
        let scratch = self.copy(None).await?.ok_or(BackupError::Stopped)?;
        self.pack(&scratch, now).await
    }
}
