//! Restore: a backup becomes the data directory. Everything is unpacked beside what is there and verified first; what was
//! there is kept.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{
    DirBuilderExt as _, FileTypeExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};

use super::locked::{LockFault, lock};
use super::open::{self, OpenFault, Opened, Secrets};
use super::whole::About;
use crate::files::Owner;
use crate::net::tls::{CERTIFICATE_FILE, Identity, KEY_FILE};
use crate::store::{self, FILE_NAME, SCHEMA_VERSION, Verdict};
use hearth_core::backup::{InvalidName, Manifest, Name, Place, Sink};
use hearth_core::clock::Timestamp;

/// Where a backup is unpacked, in the data directory.
const STAGING: &str = "restore.new";
/// Where the settings of a backup go without a directory for them, in the data directory.
pub const SETTINGS: &str = "restored-settings";
/// Directory of certificates, below the data directory.
const TLS: &str = "tls";
/// What the name of the directory begins with that keeps what was there.
const BEFORE: &str = "before-restore-";
/// Most names that a message lists.
const NAMES_LISTED: usize = 5;

/// Where to restore to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The data directory; it is created.
    pub data_dir: PathBuf,
    /// Directory of the settings; `None` is [`SETTINGS`] in the data directory.
    pub settings_dir: Option<PathBuf>,
    /// Whether the data directory may have something, which is kept.
    pub replace: bool,
}

/// What was restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// What the backup said about itself; `None` for a database alone.
    pub manifest: Option<Manifest>,
    /// Number of nodes.
    pub nodes: usize,
    /// Number of users.
    pub users: usize,
    /// Public Noise key of the server.
    pub noise_key: String,
    /// SHA-256 of the certificate; `None` when there is none in the backup.
    pub certificate: Option<String>,
    /// The settings, as they were written.
    pub settings: Vec<PathBuf>,
    /// Where what was there is kept.
    pub kept: Option<PathBuf>,
    /// What a person should know.
    pub notes: Vec<String>,
}

/// Why nothing was restored. What was there is as it was.
#[derive(Debug, thiserror::Error)]
pub enum RestoreFault {
    /// The backup cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenFault),
    /// hearth runs on the data directory.
    #[error(transparent)]
    Locked(#[from] LockFault),
    /// The data directory is not empty.
    #[error("{} is not empty ({names}); with --force what is there is kept beside and replaced", path.display())]
    NotEmpty {
        /// The data directory.
        path: PathBuf,
        /// Some of what is there.
        names: String,
    },
    /// A file cannot be written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file or directory.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// The backup has no database.
    #[error("the backup contains no database")]
    NoDatabase,
    /// The database in it is damaged.
    #[error("the database in the backup is damaged: {0}; use another backup")]
    Damaged(String),
    /// The database in it is newer than this program.
    #[error(
        "the database in the backup was written by a newer hearth (schema {0}); install that version first"
    )]
    Newer(u64),
    /// The server keys in it cannot be read.
    #[error(
        "the server's private keys in the backup cannot be read ({0}). A server with new keys is another server to all \
         devices: each would have to log in again (`tailscale login --login-server=URL`). Use another backup"
    )]
    KeysLost(String),
    /// The name of the database.
    #[error(transparent)]
    Name(#[from] InvalidName),
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> RestoreFault {
    move |source| RestoreFault::File {
        path: path.to_owned(),
        source,
    }
}

/// Restores a backup.
///
/// # Errors
/// [`RestoreFault`].
pub fn restore(
    file: &Path,
    target: &Target,
    secrets: &mut Secrets<'_>,
    now: Timestamp,
) -> Result<Restored, RestoreFault> {
    let data_dir = &target.data_dir;
    make_directory(data_dir).map_err(at(data_dir))?;
    let _locked = lock(data_dir)?;
    let staging = data_dir.join(STAGING);
    remove_directory(&staging).map_err(at(&staging))?;
    let there = contents(data_dir).map_err(at(data_dir))?;
    if !there.is_empty() && !target.replace {
        let names: Vec<&str> = there.iter().filter_map(|name| name.to_str()).collect();
        let more = if names.len() > NAMES_LISTED {
            ", …"
        } else {
            ""
        };
        let names: Vec<&str> = names.into_iter().take(NAMES_LISTED).collect();
        return Err(RestoreFault::NotEmpty {
            path: data_dir.clone(),
            names: names.join(", ") + more,
        });
    }
    make_directory(&staging).map_err(at(&staging))?;
    let restored = unpack(file, secrets, (data_dir, &staging))
        .and_then(|restored| place(target, &staging, &there, restored, now));
    let _ = remove_directory(&staging);
    restored
}

/// Unpacks and verifies.
fn unpack(
    file: &Path,
    secrets: &mut Secrets<'_>,
    (data_dir, staging): (&Path, &Path),
) -> Result<Restored, RestoreFault> {
    let name = Name::new(Place::Data, FILE_NAME)?;
    let mut sink = Staging {
        directory: staging.to_owned(),
        file: None,
    };
    let opened = open::read(file, &name, secrets, &mut sink)?;
    let database = staging.join(name.to_string());
    if !database.is_file() {
        return Err(RestoreFault::NoDatabase);
    }
    let mut notes = Vec::new();
    let report =
        store::verify(&database).map_err(|fault| RestoreFault::Damaged(fault.to_string()))?;
    match report.verdict {
        Verdict::Sound { .. } => {}
        Verdict::Newer { found } => return Err(RestoreFault::Newer(found)),
        Verdict::Damaged { reason } => return Err(RestoreFault::Damaged(reason)),
        // Written again it would be of this version, and whoever goes back to the one that wrote it could not start.
        Verdict::Repairable { reason } if report.schema != Some(SCHEMA_VERSION) => {
            notes.push(format!(
                "The database in the backup is damaged and of an earlier version; hearth repairs it when it starts, and no record is lost: {reason}."
            ));
        }
        Verdict::Repairable { reason } => {
            store::rewrite(&database, &database)
                .map_err(|fault| RestoreFault::Damaged(fault.to_string()))?;
            notes.push(format!("The database in the backup was damaged and is repaired; no record is lost: {reason}."));
        }
    }
    let loaded =
        store::read_all(&database).map_err(|fault| RestoreFault::KeysLost(fault.to_string()))?;
    let about = About::of(&loaded);
    let identity = staged_identity(staging, &mut notes);
    let is_database = opened == Opened::Database;
    let own = is_database && data_dir.join(TLS).exists();
    if own {
        notes.push("The certificate of this data directory stays.".to_owned());
    } else if identity.is_none() {
        notes.push(
            "There is no certificate in this file. At its start hearth makes a new self-signed one: devices get its hash \
             with their next map; what pinned the old one elsewhere (`derp` maps of other servers) has to be changed."
                .to_owned(),
        );
    }
    if is_database {
        notes.push(
            "This is a copy of the database alone: check the configuration, which is not in it."
                .to_owned(),
        );
    }
    Ok(Restored {
        manifest: match opened {
            Opened::Whole(manifest) => Some(*manifest),
            Opened::Database => None,
        },
        nodes: about.nodes,
        users: about.users,
        noise_key: about.noise_key,
        certificate: identity,
        settings: Vec::new(),
        kept: None,
        notes,
    })
}

/// SHA-256 of the certificate that was unpacked. A damaged one is left out, since hearth makes another.
fn staged_identity(staging: &Path, notes: &mut Vec<String>) -> Option<String> {
    let data = staging.join("data");
    let (certificate, key) = (data.join(CERTIFICATE_FILE), data.join(KEY_FILE));
    if !certificate.exists() && !key.exists() {
        return None;
    }
    match Identity::load(&certificate, &key) {
        Ok(identity) => Some(identity.sha256().to_owned()),
        Err(fault) => {
            notes.push(format!(
                "The certificate in the backup cannot be used: {fault}."
            ));
            let _ = fs::remove_file(certificate);
            let _ = fs::remove_file(key);
            None
        }
    }
}

/// Puts what was verified into its place.
fn place(
    target: &Target,
    staging: &Path,
    there: &[OsString],
    mut restored: Restored,
    now: Timestamp,
) -> Result<Restored, RestoreFault> {
    let data_dir = &target.data_dir;
    let owner = Owner::of(data_dir).map_err(at(data_dir))?;
    let stamp = now.stamp();
    // A copy of the database alone is mostly one of this server: going back a version must not cost the certificate.
    let is_whole = restored.manifest.is_some();
    let there = there.iter().filter(|name| is_whole || *name != TLS);
    let there: Vec<&OsString> = there.collect();
    if !there.is_empty() {
        let kept = free_name(data_dir, &format!("{BEFORE}{stamp}"));
        make_directory(&kept).map_err(at(&kept))?;
        for name in there {
            fs::rename(data_dir.join(name), kept.join(name)).map_err(at(&kept))?;
        }
        sync(&kept).map_err(at(&kept))?;
        owner.give(&kept);
        restored.kept = Some(kept);
    }
    // The database comes last: without it hearth does not start on half of a restored directory.
    let data = staging.join("data");
    let mut names = contents(&data).map_err(at(&data))?;
    names.sort_by_key(|name| name == FILE_NAME);
    for name in names {
        let place = data_dir.join(&name);
        owner.give_all(&data.join(&name));
        fs::rename(data.join(&name), &place).map_err(at(&place))?;
    }
    sync(data_dir).map_err(at(data_dir))?;
    place_settings(target, staging, owner, &stamp, &mut restored)?;
    Ok(restored)
}

fn place_settings(
    target: &Target,
    staging: &Path,
    owner: Owner,
    stamp: &str,
    restored: &mut Restored,
) -> Result<(), RestoreFault> {
    let settings = staging.join("settings");
    let names = match contents(&settings) {
        Ok(names) => names,
        Err(_) => return Ok(()),
    };
    let directory = match &target.settings_dir {
        Some(directory) => directory.clone(),
        None => target.data_dir.join(SETTINGS),
    };
    fs::create_dir_all(&directory).map_err(at(&directory))?;
    for name in names {
        let (from, to) = (settings.join(&name), directory.join(&name));
        let bytes = fs::read(&from).map_err(at(&from))?;
        if fs::read(&to).is_ok_and(|there| there == bytes) {
            restored.settings.push(to);
            continue;
        }
        if to.symlink_metadata().is_ok() {
            let kept = name.to_string_lossy();
            let kept = free_name(&directory, &format!("{kept}.before-{stamp}"));
            fs::rename(&to, &kept).map_err(at(&kept))?;
        }
        // A copy, because the directory may be on another file system.
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o640)
            .open(&to)
            .map_err(at(&to))?;
        file.write_all(&bytes)
            .and_then(|()| file.sync_all())
            .map_err(at(&to))?;
        owner.give_group(&to);
        restored.settings.push(to);
    }
    if target.settings_dir.is_none() {
        owner.give_all(&directory);
    }
    sync(&directory).map_err(at(&directory))
}

/// Writes what is unpacked below a directory of its own.
struct Staging {
    directory: PathBuf,
    file: Option<File>,
}

impl Sink for Staging {
    fn begin(&mut self, name: &Name, _: u64) -> io::Result<()> {
        let path = self.directory.join(name.to_string());
        if let Some(parent) = path.parent() {
            make_directory(parent)?;
        }
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        self.file = Some(file);
        Ok(())
    }

    fn content(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.file {
            Some(file) => file.write_all(bytes),
            None => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    fn end(&mut self) -> io::Result<()> {
        self.file.take().map_or(Ok(()), |file| file.sync_all())
    }
}

fn make_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn remove_directory(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(fault) if fault.kind() != io::ErrorKind::NotFound => Err(fault),
        _ => Ok(()),
    }
}

/// What a directory has that belongs to a server: sockets and what earlier restores kept do not count.
fn contents(directory: &Path) -> io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let is_of_restore = name.to_str().is_some_and(|name| {
            name.starts_with(BEFORE) || name == STAGING || name == "lost+found"
        });
        if !is_of_restore && !entry.file_type()?.is_socket() {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// A name that is not taken.
pub(super) fn free_name(directory: &Path, name: &str) -> PathBuf {
    let numbered = (2_u32..).map(|number| format!("{name}-{number}"));
    let mut names = std::iter::once(name.to_owned()).chain(numbered);
    let is_free = |path: &PathBuf| path.symlink_metadata().is_err();
    let free = names.find_map(|name| Some(directory.join(name)).filter(is_free));
    free.unwrap_or_else(|| directory.join(name))
}

pub(super) fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Sets the mode of a file or directory.
pub(super) fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    fs::set_permissions(path, Permissions::from_mode(mode))
}

#[cfg(test)]
mod tests;
