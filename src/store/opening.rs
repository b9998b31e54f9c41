//! What is opened: the file, a new one at the first start, a repaired one, a backup, or nothing.
//!
//! Opening a sound file of this schema writes nothing. Whatever else is opened becomes the file by a fresh one in its place;
//! if that cannot be written now, the next change tries again.

use std::io;
use std::path::Path;
use std::sync::Arc;

use redb::Builder;
use zeroize::Zeroizing;

use super::backing::Backing;
use super::check::{Check, Verdict, report};
use super::directory::Directory;
use super::fault::{StoreError, WriteFault};
use super::folder::{DataFile, Folder};
use super::fresh::{Fresh, NotPlaced};
use super::load::{self, Kept, Loaded, Notice, ServerSecrets};
use super::read::{Reader, damaged};
use super::schema::{AUDIT, PENDING, SCHEMA_VERSION};
use super::seal::Manifest;
use super::write::Writer;
use super::{
    BACKUPS, FILE_NAME, Locks, NEW_NAME, Open, Replacement, Standing, Store, audit, put_secrets,
};
use crate::{files, system_clock};
use hearth_core::state::record::Record;

/// What shows that hearth has run in a directory before, beside its database.
const TRACES: [&str; 3] = ["tls", "wan.json", BACKUPS];
/// What the standalone relay has in its data directory: its certificate then shows no server.
const RELAY_KEY: &str = "relay.key";
/// Most damaged files that are kept.
const DAMAGED_KEPT: usize = 3;

/// A database that was opened and read.
struct Chosen {
    /// Its file.
    source: String,
    /// Whether a fresh file replaces it, under the name [`FILE_NAME`], and why.
    replaces: Option<Why>,
    open: Open,
    reader: Reader,
    loaded: Loaded,
    kept: Kept,
    manifest: Manifest,
    audit: audit::Ring,
}

enum Why {
    Schema(u64),
    Repaired(String),
    Restored(String),
}

impl Store {
    /// Opens the database in `data_dir` and reads all of it, after a check ([`answer`](super::answer)). Creates both at the
    /// first start.
    ///
    /// `cache_bytes` bounds redb's page cache. Writes nothing, unless there is a reason beside that: a first start, an
    /// earlier schema, damage.
    ///
    /// # Errors
    /// When the file cannot be opened, is in use, was written by a newer hearth, or is damaged or lost and there is no good
    /// backup.
    pub fn open(data_dir: &Path, cache_bytes: usize) -> Result<(Self, Loaded), StoreError> {
        files::create_directory(data_dir).map_err(|source| StoreError::Open {
            path: data_dir.to_owned(),
            source,
        })?;
        let folder = Arc::new(Directory(data_dir.to_owned()));
        Self::open_in(folder, cache_bytes, Check::usual())
    }

    pub(super) fn open_in(
        folder: Arc<dyn Folder>,
        cache_bytes: usize,
        check: Check,
    ) -> Result<(Self, Loaded), StoreError> {
        let at = |name: &'static str| {
            let path = folder.path(name);
            move |source| StoreError::Open { path, source }
        };
        let in_use = || StoreError::InUse {
            path: folder.path(FILE_NAME),
        };
        let lock = folder.lock().map_err(at(""))?.ok_or_else(in_use)?;
        if let Err(fault) = folder.remove(NEW_NAME)
            && fault.kind() != io::ErrorKind::NotFound
        {
            tracing::debug!(%fault, "cannot remove {NEW_NAME}");
        }
        let file = match folder.open(FILE_NAME) {
            Ok(file) => Some(file),
            Err(fault) if fault.kind() == io::ErrorKind::NotFound => None,
            Err(fault) => return Err(at(FILE_NAME)(fault)),
        };
        if let Some(file) = &file
            && !file.lock().map_err(at(FILE_NAME))?
        {
            return Err(in_use());
        }
        let locks = Locks {
            _folder: lock,
            file: file.clone(),
        };
        if file.is_none() && trace(&*folder).map_err(at(""))?.is_none() {
            return Self::create(folder, cache_bytes, locks);
        }
        let chosen = choose(&*folder, cache_bytes, file.as_deref(), check)?;
        Ok(Self::on_chosen(folder, cache_bytes, locks, chosen))
    }

    /// The first start: a database with new keys.
    fn create(
        folder: Arc<dyn Folder>,
        cache_bytes: usize,
        locks: Locks,
    ) -> Result<(Self, Loaded), StoreError> {
        let secrets = ServerSecrets {
            noise: Zeroizing::new(hearth_core::state::secret::random::<32>()?),
            derp: Zeroizing::new(hearth_core::state::secret::random::<32>()?),
        };
        let fault = |fault| StoreError::Create {
            path: folder.path(FILE_NAME),
            fault,
        };
        let fresh = Fresh::write(&*folder, NEW_NAME, (cache_bytes, 0), &mut |writer| {
            put_secrets(writer, &secrets)
        });
        let fresh = fresh.map_err(fault)?;
        let placed = fresh.place(&*folder, (NEW_NAME, FILE_NAME), None);
        let Fresh {
            database, backing, ..
        } = placed.map_err(|(NotPlaced::Certainly(why) | NotPlaced::Perhaps(why))| fault(why))?;
        let reader = Reader::new(&database).map_err(Box::new)?;
        let (loaded, kept) = load::read_all(&reader).map_err(Box::new)?;
        let manifest = reader.manifest().map_err(Box::new)?;
        let audit = audit::Ring::count(&reader).map_err(Box::new)?;
        let locks = Locks {
            file: Some(backing.file()),
            ..locks
        };
        let store = Self {
            folder,
            cache_bytes,
            secrets,
            kept,
            manifest,
            audit,
            open: Some(Open { database, backing }),
            source: FILE_NAME.to_owned(),
            standing: Standing::default(),
            last_commit: u64::MAX,
            carry_before: u64::MAX,
            room: None,
            _locks: locks,
        };
        Ok((store, loaded))
    }

    /// The store of a database that was read.
    fn on_chosen(
        folder: Arc<dyn Folder>,
        cache_bytes: usize,
        locks: Locks,
        chosen: Chosen,
    ) -> (Self, Loaded) {
        let Chosen {
            source,
            replaces,
            open,
            reader,
            mut loaded,
            kept,
            manifest,
            audit,
        } = chosen;
        let mut store = Self {
            folder,
            cache_bytes,
            secrets: loaded.secrets.clone(),
            kept,
            manifest,
            audit,
            open: Some(open),
            source,
            standing: Standing::default(),
            last_commit: u64::MAX,
            carry_before: u64::MAX,
            room: None,
            _locks: locks,
        };
        match replaces {
            None => {
                let writable = store.folder.open_for_writing(FILE_NAME);
                loaded.unwritable = writable
                    .err()
                    .map(|source| WriteFault::at("opening it for writing")(source).into());
            }
            Some(why) => {
                let (notice, keep) = store.notice(why);
                loaded.notice = Some(notice);
                store.standing.fresh = Some(Replacement { keep });
                if let Err(fault) = store.replace(&reader, &loaded) {
                    let fault = fault.into();
                    store.note_room(&fault);
                    loaded.unwritable = Some(fault);
                }
            }
        }
        (store, loaded)
    }

    /// What to say of a database that a fresh file replaces, and the name under which the old file is kept.
    fn notice(&self, why: Why) -> (Notice, Option<String>) {
        let now = system_clock::now().wall;
        let damaged = files::damaged_name(FILE_NAME, now);
        match why {
            Why::Schema(from) => {
                let keep = format!("{BACKUPS}/hearth-schema{from}-{}.redb", now.stamp());
                let kept = self.folder.path(&keep);
                (Notice::Migrated { from, kept }, Some(keep))
            }
            Why::Repaired(reason) => {
                let kept = self.folder.path(&damaged);
                (Notice::Repaired { reason, kept }, Some(damaged))
            }
            Why::Restored(reason) => {
                let backup = self.folder.path(&self.source);
                let keep = self.folder.open(FILE_NAME).is_ok().then_some(damaged);
                let kept = keep.as_ref().map(|keep| self.folder.path(keep));
                let notice = Notice::Restored {
                    reason,
                    backup,
                    kept,
                };
                (notice, keep)
            }
        }
    }

    /// Writes what was read into a fresh file.
    fn replace(&mut self, reader: &Reader, loaded: &Loaded) -> Result<(), WriteFault> {
        let folder = Arc::clone(&self.folder);
        let sizes = (self.cache_bytes, reader.content_bytes());
        let fresh = Fresh::write(&*folder, NEW_NAME, sizes, &mut |writer| {
            copy(reader, writer)?;
            // What an earlier schema did not have.
            for machine in &loaded.shut_out {
                writer.record(&Record::PutShutOut(*machine))?;
            }
            Ok(())
        })?;
        let placed = self.put_in_place(fresh);
        forget_oldest_damaged(&*folder);
        placed.map_err(|(NotPlaced::Certainly(fault) | NotPlaced::Perhaps(fault))| fault)
    }
}

/// Copies all values but those of the audit log that cannot be read.
fn copy(reader: &Reader, writer: &mut Writer<'_>) -> Result<(), redb::Error> {
    for table in reader.tables()?.iter().filter(|table| *table != PENDING) {
        let unread = writer.copy(reader, table, &mut |key, value| match value {
            None if table != AUDIT => Err(damaged(table, key)),
            value => Ok(value),
        })?;
        match unread {
            Some(fault) if table == AUDIT => {
                tracing::error!(%fault, "entries of the audit log are lost");
            }
            unread => unread.map_or(Ok(()), Err)?,
        }
    }
    Ok(())
}

/// Reads a database that was checked.
fn read(
    folder: &dyn Folder,
    cache_bytes: usize,
    source: &str,
    replaces: Option<Why>,
) -> Result<Chosen, redb::Error> {
    let backing = Backing::reading(folder.open(source)?, None)?;
    let database = Builder::new()
        .set_cache_size(cache_bytes)
        .create_with_backend(backing.clone())?;
    let reader = Reader::new(&database)?;
    let (loaded, kept) = load::read_all(&reader)?;
    let audit = match (audit::Ring::count(&reader), &replaces) {
        (Err(fault), Some(Why::Repaired(_))) => {
            tracing::error!(%fault, "the audit log is lost");
            audit::Ring::empty()
        }
        (counted, _) => counted?,
    };
    let manifest = match reader.is_sealed() {
        true => reader.manifest()?,
        false => Manifest::default(),
    };
    Ok(Chosen {
        source: source.to_owned(),
        replaces,
        open: Open { database, backing },
        reader,
        loaded,
        kept,
        manifest,
        audit,
    })
}

/// What is there beside a database, if hearth has run here before.
fn trace(folder: &dyn Folder) -> io::Result<Option<String>> {
    let names = folder.list("")?;
    let is_relays = names.iter().any(|name| name == RELAY_KEY);
    let is_trace = |name: &&String| {
        let is_known = TRACES.contains(&name.as_str()) && !(is_relays && *name == "tls");
        is_known || (name.starts_with("hearth.redb.") && *name != NEW_NAME)
    };
    Ok(names.iter().find(is_trace).cloned())
}

/// The database to open.
fn choose(
    folder: &dyn Folder,
    cache_bytes: usize,
    file: Option<&dyn DataFile>,
    check: Check,
) -> Result<Chosen, StoreError> {
    let at = |source| StoreError::Open {
        path: folder.path(FILE_NAME),
        source,
    };
    let len = file.map_or(Ok(0), DataFile::len).map_err(at)?;
    let reason = if len > 0 {
        let settled = folder.settle(FILE_NAME).and_then(|()| folder.sync(""));
        if let Err(fault) = settled {
            // A read-only file system has nothing to sync, and says so.
            tracing::debug!(%fault, "cannot sync the database before reading it");
        }
        let replaces = match report(folder, FILE_NAME, check).map_err(at)?.verdict {
            Verdict::Sound {
                schema: SCHEMA_VERSION,
            } => Ok(None),
            Verdict::Sound { schema } => Ok(Some(Why::Schema(schema))),
            Verdict::Repairable { reason } => Ok(Some(Why::Repaired(reason))),
            Verdict::Newer { found } => {
                return Err(StoreError::Newer {
                    path: folder.path(FILE_NAME),
                    found,
                    known: SCHEMA_VERSION,
                });
            }
            Verdict::Damaged { reason } => Err(reason),
        };
        let read = replaces.and_then(|replaces| {
            let read = read(folder, cache_bytes, FILE_NAME, replaces);
            read.map_err(|fault| fault.to_string())
        });
        match read {
            Ok(chosen) => return Ok(chosen),
            Err(reason) => reason,
        }
    } else if file.is_some() {
        "it is empty".to_owned()
    } else {
        "it is missing".to_owned()
    };
    for backup in backups(folder).map_err(at)? {
        let fault = match report(folder, &backup, check).map(|report| report.verdict) {
            Ok(Verdict::Sound { .. }) => {
                let why = Some(Why::Restored(reason.clone()));
                match read(folder, cache_bytes, &backup, why) {
                    Ok(chosen) => return Ok(chosen),
                    Err(fault) => fault.to_string(),
                }
            }
            Ok(verdict) => format!("{verdict:?}"),
            Err(fault) => fault.to_string(),
        };
        tracing::error!(backup, fault, "a backup cannot be used");
    }
    let path = folder.path(FILE_NAME);
    if len > 0 {
        return Err(StoreError::Damaged {
            path,
            backups: folder.path(BACKUPS),
            reason,
        });
    }
    let trace = trace(folder).map_err(at)?;
    Err(StoreError::Lost {
        what: if file.is_some() { "empty" } else { "missing" },
        trace: trace.map_or_else(|| path.clone(), |trace| folder.path(&trace)),
        path,
        directory: folder.path(""),
    })
}

/// The backups in the data directory, newest first; those of an earlier schema last.
fn backups(folder: &dyn Folder) -> io::Result<Vec<String>> {
    let mut names = folder.list(BACKUPS)?;
    names.retain(|name| name.starts_with("hearth-") && name.ends_with(".redb"));
    names.sort_by_key(|name| {
        (
            name.starts_with("hearth-schema"),
            std::cmp::Reverse(name.clone()),
        )
    });
    Ok(names
        .into_iter()
        .map(|name| format!("{BACKUPS}/{name}"))
        .collect())
}

/// Removes the oldest damaged files, so that they do not fill the disk.
pub(super) fn forget_oldest_damaged(folder: &dyn Folder) {
    let Ok(names) = folder.list("") else {
        return;
    };
    let time = |name: String| Some((files::damaged_at(FILE_NAME, &name)?, name));
    let mut kept: Vec<_> = names.into_iter().filter_map(time).collect();
    kept.sort();
    let surplus = kept.len().saturating_sub(DAMAGED_KEPT);
    for (_, name) in kept.iter().take(surplus) {
        if let Err(fault) = folder.remove(name) {
            tracing::warn!(name, %fault, "cannot remove an old damaged database");
        }
    }
}
