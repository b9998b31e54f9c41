//! Automatic backups: a copy of the database when something changed, and a whole backup for `backup.command`.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, ChildStderr, Command};
use tokio::sync::{Mutex, watch};

use super::copy_store;
use crate::admin::backups::{BackupError, Backups, Scratch};
use crate::backup::copies::{self, Copy, CopyFault};
use crate::config::BackupSettings;
use crate::config::wan::Program;
use crate::engine::Handle;
use crate::shutdown::Shutdown;
use crate::status::copies::CopyStatus;
use crate::store::BACKUPS;
use crate::system_clock;
use hearth_core::age::{Encryptor, Fault as AgeFault, Lock, Recipient};
use hearth_core::clock::Timestamp;
use hearth_core::id::Revision;
use hearth_core::state::content::Digest;

/// Time between two checks whether a copy is due and something changed, at most.
const CHECK: Duration = Duration::from_secs(10 * 60);
/// How long after a failure the next attempt is made, at least.
const RETRY: Duration = Duration::from_secs(60 * 60);
/// Timeout of the program, and of a copy into the directory.
const TIMEOUT: Duration = Duration::from_secs(10 * 60);
/// Bytes of what the program wrote last to its standard error that are kept.
const SAID: usize = 512;
/// The only environment variable that the program inherits.
const PATH: &str = "PATH";

/// Why there is no automatic backup.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error(transparent)]
    Backup(#[from] BackupError),
    #[error(transparent)]
    Copy(#[from] CopyFault),
    #[error("cannot encrypt: {0}")]
    Age(#[from] AgeFault),
    #[error("{}: {source}", path.display())]
    Program {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{} failed: {status}{said}", path.display())]
    Failed {
        path: PathBuf,
        status: std::process::ExitStatus,
        said: String,
    },
    #[error("{} did not end within {} s and was killed{said}", path.display(), within.as_secs())]
    Timeout {
        path: PathBuf,
        within: Duration,
        said: String,
    },
    #[error("{} does not respond", .0.display())]
    Silent(PathBuf),
}

/// Makes automatic backups.
pub(super) struct Copies {
    settings: BackupSettings,
    directory: PathBuf,
    backups: Arc<Backups>,
    engine: Handle,
    status: watch::Sender<CopyStatus>,
    /// Content of the newest copy, as far as it is known.
    copied: Option<Digest>,
    /// Content of what the program got last.
    sent: Option<Digest>,
    /// The state that was compared last.
    seen: Option<Revision>,
    newest: Option<Copy>,
    /// Held by the thread that writes to the directory, which may hang there.
    storing: Arc<Mutex<()>>,
}

impl Copies {
    /// Backups with these settings, and their status.
    pub(super) fn new(
        settings: BackupSettings,
        data_dir: &Path,
        backups: Arc<Backups>,
        engine: Handle,
    ) -> (Self, watch::Receiver<CopyStatus>) {
        let directory = settings.directory.clone();
        let directory = directory.unwrap_or_else(|| data_dir.join(BACKUPS));
        let (status, reader) = watch::channel(CopyStatus {
            every: settings.every,
            directory: directory.clone(),
            is_configured: settings.directory.is_some(),
            has_command: settings.command.is_some(),
            ..CopyStatus::default()
        });
        let copies = Self {
            directory,
            settings,
            backups,
            engine,
            status,
            copied: None,
            sent: None,
            seen: None,
            newest: None,
            storing: Arc::default(),
        };
        (copies, reader)
    }

    /// Makes them until the server stops.
    pub(super) async fn keep(mut self, shutdown: Shutdown) {
        let Some(every) = self.settings.every else {
            return;
        };
        if self.settings.command.is_some() && self.settings.recipients.is_empty() {
            tracing::warn!(
                "backup.command gets backups that are not encrypted, with all private keys; set backup.recipients"
            );
        }
        tokio::select! {
            () = shutdown.wait() => return,
            () = self.look_at_newest() => {}
        }
        let now = system_clock::now();
        let interval = self.interval(every);
        let wait = copies::due_in(self.newest.as_ref(), interval, now.wall);
        let mut due = now.mono.saturating_add(wait);
        loop {
            tokio::select! {
                () = shutdown.wait() => return,
                () = tokio::time::sleep(CHECK.min(every)) => {}
            }
            let now = system_clock::now();
            // A name with a wrong time would be in a wrong place among the others.
            if now.mono < due || !now.is_plausible() {
                continue;
            }
            let revision = self.engine.snapshot().revision();
            if self.seen == Some(revision) {
                continue;
            }
            self.status.send_modify(|status| {
                status.due_since.get_or_insert(now.wall);
            });
            let made = tokio::select! {
                () = shutdown.wait() => return,
                made = self.make(now.wall) => made,
            };
            match made {
                Ok(is_new) => {
                    self.seen = Some(revision);
                    if is_new {
                        due = now.mono.saturating_add(self.interval(every));
                    }
                    self.status.send_modify(|status| {
                        status.due_since = None;
                        status.fault = None;
                    });
                }
                Err(fault) => {
                    tracing::error!(%fault, "the automatic backup failed");
                    self.status
                        .send_modify(|status| status.fault = Some(fault.to_string()));
                    due = now.mono.saturating_add(RETRY.min(every));
                }
            }
        }
    }

    fn interval(&self, every: Duration) -> Duration {
        let bytes = self.newest.as_ref().map_or(0, |newest| newest.bytes);
        copies::interval(every, self.settings.daily_bytes, bytes)
    }

    /// Finds the newest copy and its content, so that a restart makes no copy of what is unchanged.
    async fn look_at_newest(&mut self) {
        let directory = self.directory.clone();
        let looking = tokio::task::spawn_blocking(move || {
            let newest = copies::list(&directory).unwrap_or_default().pop();
            let digest = newest
                .as_ref()
                .and_then(|copy| copy_store::digest(&copy.path));
            (newest, digest)
        });
        let Ok(Ok((newest, digest))) = tokio::time::timeout(TIMEOUT, looking).await else {
            return;
        };
        let last = newest.as_ref().map(|newest| newest.made);
        self.status.send_modify(|status| status.last = last);
        (self.newest, self.copied) = (newest, digest);
    }

    /// Whether something changed and all that is due was made.
    async fn make(&mut self, now: Timestamp) -> Result<bool, Fault> {
        let has_all = |digest| {
            self.copied == Some(digest)
                && (self.settings.command.is_none() || self.sent == Some(digest))
        };
        let unless = self.copied.filter(|digest| has_all(*digest));
        let backups = self.backups.clone();
        let Some(scratch) = backups.copy(unless).await? else {
            return Ok(false);
        };
        let digest = scratch.copied.digest;
        if self.copied != Some(digest) {
            let copy = self.store(&scratch, now).await?;
            tracing::info!(path = %copy.path.display(), bytes = copy.bytes, "automatic backup made");
            self.status
                .send_modify(|status| status.last = Some(copy.made));
            (self.newest, self.copied) = (Some(copy), Some(digest));
        }
        if let Some(program) = self
            .settings
            .command
            .clone()
            .filter(|_| self.sent != Some(digest))
        {
            self.send(&program, &scratch, now).await?;
            self.sent = Some(digest);
        }
        Ok(true)
    }

    /// Puts a copy into the directory. That may be on a network and hang: a thread waits for it, one at most, and others
    /// no longer than [`TIMEOUT`].
    async fn store(&self, scratch: &Scratch<'_>, now: Timestamp) -> Result<Copy, Fault> {
        let (from, directory) = (scratch.path().to_owned(), self.directory.clone());
        let (keep, is_own) = (self.settings.keep, self.settings.directory.is_none());
        let silent = || Fault::Silent(self.directory.clone());
        let held = self
            .storing
            .clone()
            .try_lock_owned()
            .map_err(|_| silent())?;
        // The scratch file may be replaced while the thread hangs.
        let source = File::open(&from).map_err(BackupError::Io)?;
        let storing = tokio::task::spawn_blocking(move || {
            let _held = held;
            if is_own {
                copy_store::make_directory(&directory)?;
            }
            copies::add(&source, &directory, now, keep)
        });
        let stored = tokio::time::timeout(TIMEOUT, storing).await;
        let stored = stored.map_err(|_| silent())?;
        Ok(stored.map_err(|_| BackupError::Stopped)??)
    }

    async fn send(
        &self,
        program: &Program,
        scratch: &Scratch<'_>,
        now: Timestamp,
    ) -> Result<(), Fault> {
        let archive = self.backups.pack(scratch, now).await?;
        let (bytes, end) = match self.settings.recipients.as_slice() {
            [] => (archive, ".tar.zst"),
            recipients => (encrypted(&archive, recipients)?, ".tar.zst.age"),
        };
        let name = format!("hearth-backup-{}{end}", now.stamp());
        run(program, &name, &bytes, TIMEOUT).await?;
        let path = program.path.display();
        tracing::info!(%path, name, bytes = bytes.len(), "backup.command succeeded");
        Ok(())
    }
}

fn encrypted(plain: &[u8], recipients: &[Recipient]) -> Result<Vec<u8>, AgeFault> {
    use std::io::Write as _;
    let mut out = Vec::with_capacity(plain.len());
    let mut encryptor = Encryptor::new(&mut out, &Lock::Recipients(recipients))?;
    encryptor.write_all(plain)?;
    encryptor.finish()?;
    Ok(out)
}

/// Runs the program with a backup on its standard input. Its standard output goes nowhere; the end of its standard error is in the
/// fault. When it takes too long, it is killed with what it has started.
async fn run(program: &Program, name: &str, backup: &[u8], within: Duration) -> Result<(), Fault> {
    let path = &program.path;
    let at = |source| Fault::Program {
        path: path.clone(),
        source,
    };
    let mut command = Command::new(path);
    command
        .args(&program.arguments)
        .env_clear()
        .envs(std::env::var_os(PATH).map(|value| (PATH, value)))
        .env("HEARTH_BACKUP_NAME", name)
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    let mut child = command.spawn().map_err(at)?;
    let mut group = Group::of(&child);
    let (input, mut errors) = (child.stdin.take(), child.stderr.take());
    let feeding = async {
        if let Some(mut input) = input {
            input.write_all(backup).await?;
            input.shutdown().await?;
        }
        Ok(())
    };
    let mut said = Vec::new();
    let worked = {
        let work = async { tokio::join!(feeding, child.wait()) };
        let work = tokio::time::timeout(within, work);
        tokio::pin!(work);
        loop {
            tokio::select! {
                biased;
                read = last_words(&mut errors, &mut said) => if !read {
                    errors = None;
                },
                worked = &mut work => break worked,
            }
        }
    };
    // It does not end with the program if that left another one behind.
    let left = last_words(&mut errors, &mut said);
    let _ = tokio::time::timeout(Duration::ZERO, left).await;
    let said = shown(&said);
    let Ok((fed, status)) = worked else {
        drop(group);
        // Waiting for it prevents a zombie.
        let _ = child.kill().await;
        return Err(Fault::Timeout {
            path: path.clone(),
            within,
            said,
        });
    };
    group.ended();
    let status = status.map_err(at)?;
    if !status.success() {
        return Err(Fault::Failed {
            path: path.clone(),
            status,
            said,
        });
    }
    // A program that ends well has read all of it.
    fed.map_err(at)
}

/// Reads more of what a program writes, of which the end is kept; false when it will write no more.
async fn last_words(errors: &mut Option<ChildStderr>, said: &mut Vec<u8>) -> bool {
    let Some(errors) = errors else {
        return std::future::pending().await;
    };
    let mut bytes = [0; SAID];
    match errors.read(&mut bytes).await {
        Ok(read) if read > 0 => {
            said.extend_from_slice(bytes.get(..read).unwrap_or_default());
            let surplus = said.len().saturating_sub(SAID);
            said.drain(..surplus);
            true
        }
        Ok(_) | Err(_) => false,
    }
}

/// What a program wrote last, as the end of a message.
fn shown(said: &[u8]) -> String {
    let text = String::from_utf8_lossy(said);
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let lines: Vec<&str> = lines.into_iter().filter(|line| !line.is_empty()).collect();
    match lines.is_empty() {
        true => String::new(),
        false => format!(": {}", lines.join("; ")),
    }
}

/// A program and what it starts: killed together, unless the program has ended by itself.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Self {
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        Self(id.and_then(Pid::from_raw))
    }

    fn ended(&mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(id) = self.0 {
            let _ = kill_process_group(id, Signal::KILL);
        }
    }
}

#[cfg(test)]
mod tests;
