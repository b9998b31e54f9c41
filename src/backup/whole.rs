//! A whole backup: what goes into it, from the running server or from the data directory.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::MOST_BYTES;
use super::locked::{LockFault, lock};
use crate::config::Config;
use crate::files;
use crate::net::tls::{self, Identity};
use crate::store::{self, FILE_NAME, Loaded, StoreError, Verdict};
use hearth_core::backup::{Manifest, Name, Place, Setting, Writer};
use hearth_core::clock::Timestamp;
use hearth_core::keys::{MachineSecret, NodeKey};

/// Directory of certificates and their keys, below the data directory.
const TLS: &str = "tls";
/// Longest file beside the database, in bytes.
const MOST_FILE: usize = 4 << 20;
/// Most files of a kind.
const MOST_FILES: usize = 24;
/// Deepest directory of certificates.
const MOST_DEPTH: usize = 2;

/// Where the files of a backup are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The data directory.
    pub data_dir: PathBuf,
    /// The URL that clients connect to.
    pub server_url: String,
    /// The configuration and the files that it names.
    pub settings: Vec<PathBuf>,
    /// The age recipients of automatic backups.
    pub recipients: Vec<String>,
}

/// What the manifest says about the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct About {
    /// Public Noise key.
    pub noise_key: String,
    /// Public key of the relay.
    pub relay_key: String,
    /// Number of nodes.
    pub nodes: usize,
    /// Number of users.
    pub users: usize,
}

/// Why there is no backup of a data directory.
#[derive(Debug, thiserror::Error)]
pub enum OfflineFault {
    /// A server runs on it, or it cannot be opened.
    #[error(transparent)]
    Locked(#[from] LockFault),
    /// The database cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The database is damaged.
    #[error(
        "the database is damaged: {0}; `hearth check --data` says more, and `hearth repair` repairs it"
    )]
    Damaged(String),
    /// A newer hearth wrote it.
    #[error("the database was written by a newer hearth (schema {0})")]
    Newer(u64),
    /// The backup cannot be made.
    #[error("cannot make the backup: {0}")]
    Io(#[from] io::Error),
}

impl About {
    /// What a database file has.
    pub fn of(loaded: &Loaded) -> Self {
        let public = |secret: &[u8; 32]| MachineSecret::from_bytes(*secret).public();
        let relay = public(&loaded.secrets.derp);
        Self {
            noise_key: public(&loaded.secrets.noise).to_string(),
            relay_key: NodeKey::from_bytes(*relay.as_bytes()).to_string(),
            nodes: loaded.nodes.len(),
            users: loaded.users.len(),
        }
    }
}

impl Source {
    /// What a server with this configuration has.
    pub fn of(config: &Config, server_url: String) -> Self {
        let derp = &config.derp;
        let tls = config
            .tls
            .iter()
            .flat_map(|files| [&files.cert, &files.key]);
        let named = [
            &config.file,
            &config.policy.file,
            &config.dns.records_file.as_deref().map(Path::to_owned),
            &derp.mesh_key_file,
        ];
        let mut settings: Vec<PathBuf> = named.into_iter().flatten().cloned().collect();
        settings.extend(derp.map_files.iter().cloned());
        settings.extend(tls.cloned());
        settings.truncate(MOST_FILES);
        Self {
            data_dir: config.data_dir.clone(),
            server_url,
            settings,
            recipients: config
                .backup
                .recipients
                .iter()
                .map(ToString::to_string)
                .collect(),
        }
    }

    /// Makes a backup with this file as the database: an archive that is not encrypted.
    ///
    /// # Errors
    /// When the database cannot be read, or the backup would be too large.
    pub fn pack(&self, database: &Path, about: &About, now: Timestamp) -> io::Result<Vec<u8>> {
        let mut skipped = Vec::new();
        let mut manifest = Manifest::new(env!("CARGO_PKG_VERSION"), now);
        manifest.server_url.clone_from(&self.server_url);
        manifest.noise_key.clone_from(&about.noise_key);
        manifest.relay_key.clone_from(&about.relay_key);
        manifest.recipients.clone_from(&self.recipients);
        manifest.nodes = about.nodes;
        manifest.users = about.users;
        let (certificate, key) = (
            self.data_dir.join(tls::CERTIFICATE_FILE),
            self.data_dir.join(tls::KEY_FILE),
        );
        if let Ok(identity) = Identity::load(&certificate, &key) {
            identity.sha256().clone_into(&mut manifest.certificate);
        }
        let mut contents = self.certificates(&mut skipped);
        for (name, path, bytes) in self.configuration(&mut skipped) {
            manifest.settings.push(Setting {
                name: name.path().to_owned(),
                path: path.display().to_string(),
            });
            contents.push((name, bytes));
        }
        manifest.missing = skipped;
        let mut archive = Bounded(Vec::new());
        let mut writer = Writer::new(&mut archive, &manifest)?;
        let name = Name::new(Place::Data, FILE_NAME).map_err(io::Error::other)?;
        let mut file = File::open(database)?;
        let size = file.metadata()?.len();
        writer.file(&name, size, &mut file)?;
        for (name, bytes) in contents {
            let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
            writer.file(&name, size, &mut bytes.as_slice())?;
        }
        writer.finish()?;
        Ok(archive.0)
    }

    /// Makes a backup from the data directory, which no server may have open.
    ///
    /// # Errors
    /// [`OfflineFault`], also when the database is damaged.
    pub fn pack_offline(&self, now: Timestamp) -> Result<Vec<u8>, OfflineFault> {
        let _locked = lock(&self.data_dir)?;
        let database = self.data_dir.join(FILE_NAME);
        match store::verify(&database)?.verdict {
            Verdict::Sound { .. } => {}
            Verdict::Repairable { reason } | Verdict::Damaged { reason } => {
                return Err(OfflineFault::Damaged(reason));
            }
            Verdict::Newer { found } => return Err(OfflineFault::Newer(found)),
        }
        let about = About::of(&store::read_all(&database)?);
        Ok(self.pack(&database, &about, now)?)
    }

    fn certificates(&self, skipped: &mut Vec<String>) -> Vec<(Name, Vec<u8>)> {
        let mut paths = Vec::new();
        files_below(&self.data_dir.join(TLS), MOST_DEPTH, &mut paths);
        paths.sort();
        let mut contents = Vec::new();
        for path in paths {
            let relative = path.strip_prefix(&self.data_dir).ok();
            let name = relative.and_then(Path::to_str);
            let name = name.and_then(|name| Name::new(Place::Data, name).ok());
            if let (Some(name), Some(bytes)) = (name, read(&path, skipped)) {
                contents.push((name, bytes));
            }
        }
        contents
    }

    fn configuration(&self, skipped: &mut Vec<String>) -> Vec<(Name, PathBuf, Vec<u8>)> {
        let mut contents: Vec<(Name, PathBuf, Vec<u8>)> = Vec::new();
        for path in &self.settings {
            if contents.iter().any(|(_, other, _)| other == path) {
                continue;
            }
            let Some(bytes) = read(path, skipped) else {
                continue;
            };
            let file_name = path.file_name().and_then(|name| name.to_str());
            let file_name = file_name.unwrap_or("file");
            let numbered = (2..).map(|number: usize| format!("{number}-{file_name}"));
            let mut names = std::iter::once(file_name.to_owned()).chain(numbered.take(MOST_FILES));
            let is_free = |name: &Name| contents.iter().all(|(other, ..)| other != name);
            let name =
                names.find_map(|name| Name::new(Place::Settings, &name).ok().filter(is_free));
            match name {
                Some(name) => contents.push((name, path.clone(), bytes)),
                None => skipped.push(format!("{}: unusual file name", path.display())),
            }
        }
        contents
    }
}

fn read(path: &Path, skipped: &mut Vec<String>) -> Option<Vec<u8>> {
    match files::read(path, MOST_FILE) {
        Ok(bytes) => Some(bytes),
        Err(fault) => {
            skipped.push(format!("{}: {fault}", path.display()));
            None
        }
    }
}

/// The regular files below a directory; those that are being written do not count.
fn files_below(directory: &Path, depth: usize, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(directory) else {
        return;
    };
    for entry in entries.flatten() {
        let path = entry.path();
        let Ok(kind) = entry.file_type() else {
            continue;
        };
        let is_unfinished = path.extension().is_some_and(|end| end == "new");
        if kind.is_file() && !is_unfinished && found.len() < MOST_FILES {
            found.push(path);
        } else if kind.is_dir() && depth > 1 {
            files_below(&path, depth.saturating_sub(1), found);
        }
    }
}

/// Bytes in memory, of which there are not too many.
struct Bounded(Vec<u8>);

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = self.0.len().saturating_add(bytes.len());
        if u64::try_from(length).unwrap_or(u64::MAX) > MOST_BYTES {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
