//! The database: tables of [`Record`]s in one redb file.
//!
//! The only module that names redb. A batch of records is one transaction: after one sync all of it is on disk, or none
//! of it. What the store promises after which failure is in ARCHITECTURE.md; how:
//!
//! - `opening` decides what is opened: the file, a repaired one, a backup, a new one, or nothing.
//! - `check` says whether a file is whole, by redb's checks, `seal`'s checksums and the manifest.
//! - `backing` is the file under redb: in memory until the first change, the header last.
//! - `fresh` writes a whole new file, which replaces one that is not trusted.
//! - `folder` is the directory, a seam for tests, and `directory` a real one; `read`, `write`, `load`, `entry` and `schema` are the contents.

mod audit;
mod backing;
mod check;
mod directory;
mod entry;
mod fault;
mod folder;
mod fresh;
mod load;
mod offline;
mod opening;
mod read;
mod schema;
mod seal;
mod write;

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::Arc;

use redb::{Builder, Database};

use backing::Backing;
use entry::{Entry, Key};
use folder::{DataFile, Folder, Lock};
use fresh::{Fresh, NotPlaced};
use load::Kept;
use read::Reader;
use schema::{AUDIT, DERP_SECRET, META, NOISE_SECRET, OF_MODEL, PENDING};
use seal::Manifest;
use write::Writer;

use hearth_core::state::event::{AuditEntry, Event};
use hearth_core::state::model::Model;
use hearth_core::state::record::Record;

pub use audit::AuditLimits;
pub use check::{Fault, Report, Verdict, answer};
pub use fault::{StoreError, WriteFault};
pub use load::{Loaded, Notice, ServerSecrets, Skipped};
pub use offline::{has_identity, read_all, rewrite, verify};
pub use schema::{POLICIES as POLICIES_NAME, SCHEMA_VERSION};

/// Name of the database file in the data directory.
pub const FILE_NAME: &str = "hearth.redb";
/// Name of a database file that is being written.
const NEW_NAME: &str = "hearth.redb.new";
/// Name of the directory of backups in the data directory.
pub const BACKUPS: &str = "backups";

/// How much more room a disk that was full must have until it is written again, in bytes: more than a small change takes, and
/// more than what the logs of others free and take all the time.
const MORE_ROOM: u64 = 64 << 10;

/// The open database.
pub struct Store {
    folder: Arc<dyn Folder>,
    cache_bytes: usize,
    secrets: ServerSecrets,
    kept: Kept,
    manifest: Manifest,
    audit: audit::Ring,
    /// `None` after a failure: it is opened again when it is needed.
    open: Option<Open>,
    /// The file that is read: [`FILE_NAME`], or a backup that could not take its place yet.
    source: String,
    standing: Standing,
    /// Number of the first entry of the audit log that the last commit wrote.
    last_commit: u64,
    /// Entries of the audit log from this number on are of a commit that was given up.
    carry_before: u64,
    /// Free bytes from which on a disk that was full is written again.
    room: Option<u64>,
    /// Keep other processes out.
    _locks: Locks,
}

struct Open {
    database: Database,
    backing: Backing,
}

struct Locks {
    _folder: Box<dyn Lock>,
    file: Option<Arc<dyn DataFile>>,
}

/// What is known of the file after failures.
#[derive(Default)]
struct Standing {
    /// The header that leads to what was acknowledged, and to nothing else, if the file may have another.
    header: Option<Vec<u8>>,
    /// Whether the file may have another.
    must_undo: bool,
    /// Set if the file is not written any more: a fresh one has to take its place.
    fresh: Option<Replacement>,
}

/// How a fresh file takes the place of another.
#[derive(Default)]
struct Replacement {
    /// The name under which the other one is kept.
    keep: Option<String>,
}

impl Store {
    /// Bounds the audit log from the next entry on.
    pub fn limit_audit(&mut self, limits: AuditLimits) {
        self.audit = std::mem::take(&mut self.audit).with_limits(limits);
    }

    /// Writes a batch, with the audited ones of its events: on success all of it is on disk, else none of it. `model` is the
    /// state with the batch: if the file cannot be written any more, all of it goes into a fresh one.
    ///
    /// # Errors
    /// When the disk is full or broken. The batch then never takes effect, unless the error is [`StoreError::InDoubt`].
    pub fn commit(
        &mut self,
        records: &[Record],
        events: &[Event],
        model: &Model,
    ) -> Result<(), StoreError> {
        let committed = self.try_commit(records, events, model);
        match &committed {
            Ok(()) => self.room = None,
            Err(fault) => self.note_room(fault),
        }
        committed
    }

    /// Whether a disk that was full has more room than then, so that a change may be written. Writes nothing.
    pub fn has_room(&self) -> bool {
        let free = || self.folder.free().ok().flatten();
        self.room
            .is_some_and(|room| free().is_some_and(|free| free >= room))
    }

    /// Remembers how much room a disk has that was full for a write.
    fn note_room(&mut self, fault: &StoreError) {
        let free = self.folder.free().ok().flatten();
        let free = free.filter(|_| fault.is_full());
        self.room = free.map(|free| free.saturating_add(MORE_ROOM));
    }

    fn try_commit(
        &mut self,
        records: &[Record],
        events: &[Event],
        model: &Model,
    ) -> Result<(), StoreError> {
        self.last_commit = self.audit.next();
        let in_place = match self.standing.fresh {
            Some(_) => None,
            None => match self.commit_in_place(records, events) {
                Ok(()) => return Ok(()),
                Err(fault) => Some(fault),
            },
        };
        if let Some(fault) = in_place {
            if self.standing.fresh.is_none() && fault.is_refusal() {
                return Err(fault.into());
            }
            let trusted = self.standing.fresh.is_none();
            tracing::warn!(%fault, trusted, "cannot write to the database file; writing a fresh one");
            return match self.commit_fresh(records, events, model) {
                Ok(()) => Ok(()),
                Err(NotPlaced::Perhaps(fault)) => Err(StoreError::InDoubt(fault)),
                Err(NotPlaced::Certainly(_)) => match self.undo() {
                    Ok(()) => Err(fault.into()),
                    Err(_) => Err(StoreError::InDoubt(fault)),
                },
            };
        }
        match self.commit_fresh(records, events, model) {
            Ok(()) => {
                tracing::info!("wrote a fresh database file");
                Ok(())
            }
            Err(NotPlaced::Perhaps(fault)) => Err(StoreError::InDoubt(fault)),
            Err(NotPlaced::Certainly(fault)) => {
                // Not for this batch, which the old file does not have, but for one that is in doubt.
                let _ = self.undo();
                Err(fault.into())
            }
        }
    }

    /// No longer trusts the file, because the last commit went unanswered and was given up: whatever became of it, the next
    /// commit writes a fresh file, which does not have it.
    pub fn distrust(&mut self) {
        self.carry_before = self.carry_before.min(self.last_commit);
        self.standing.fresh.get_or_insert_default();
    }

    /// The newest entries of the audit log before number `before`, newest first, at most `max`.
    ///
    /// # Errors
    /// When the database cannot be opened or read.
    pub fn audit(
        &mut self,
        before: Option<u64>,
        max: usize,
    ) -> Result<Vec<AuditEntry>, StoreError> {
        let before = before.unwrap_or(u64::MAX).min(self.carried_before());
        let reader = self.opened().and_then(|open| Reader::new(&open.database));
        let entries = reader.and_then(|reader| audit::read(&reader, Some(before), max));
        Ok(entries.map_err(Box::new)?)
    }

    /// Writes all of `model`, with the server's keys and the audit log, to a new database file, which replaces one of this
    /// name: a backup.
    ///
    /// # Errors
    /// When it cannot be written; there is no half file then.
    pub fn copy_to(&mut self, path: &Path, model: &Model) -> Result<(), StoreError> {
        let (folder, name) = offline::split(path)?;
        let temporary = format!("{name}.new");
        let carried = self.reader();
        let least = carried.as_ref().map_or(0, Reader::content_bytes);
        let sizes = (self.cache_bytes, least);
        let fresh = Fresh::write(&folder, &temporary, sizes, &mut |writer| {
            self.fill(writer, model, &BTreeSet::new(), carried.as_ref())
        })?;
        Ok(fresh.place_closed(&folder, (&temporary, &name))?)
    }

    /// The open database, or the file opened again after a failure.
    fn opened(&mut self) -> Result<&Open, redb::Error> {
        let open = match self.open.take() {
            Some(open) => open,
            None => {
                let file = self.folder.open(&self.source)?;
                let backing = Backing::reading(file, self.standing.header.clone())?;
                let database = Builder::new()
                    .set_cache_size(self.cache_bytes)
                    .create_with_backend(backing.clone())?;
                Open { database, backing }
            }
        };
        Ok(self.open.insert(open))
    }

    /// A reader of the database; none if it cannot be read.
    fn reader(&mut self) -> Option<Reader> {
        let reader = self.opened().and_then(|open| Reader::new(&open.database));
        reader
            .inspect_err(|fault| tracing::error!(%fault, "cannot read the database"))
            .ok()
    }

    /// Writes a batch into the file as it is. After an error [`Standing`] says what that means.
    fn commit_in_place(&mut self, records: &[Record], events: &[Event]) -> Result<(), WriteFault> {
        self.opened()?;
        let Some(Open { database, backing }) = self.open.take() else {
            return Err(redb::Error::DatabaseClosed.into());
        };
        if let Err(fault) = backing.write_in_place(&*self.folder, FILE_NAME) {
            match backing.is_as_it_was() {
                true => self.open = Some(Open { database, backing }),
                false => self.give_up(&backing, backing.synced_header()),
            }
            return Err(fault);
        }
        let start = backing.synced_header();
        let mut written = None;
        let committed = self.write_batch(&database, records, events, &mut written);
        let is_on_disk = committed.is_ok() || backing.synced_header() != start;
        match (is_on_disk, written) {
            (true, Some((manifest, ring))) => {
                self.manifest = manifest;
                self.audit = ring.unwrap_or_else(|| std::mem::take(&mut self.audit));
                self.forget_kept(records);
                match &committed {
                    Ok(()) => self.open = Some(Open { database, backing }),
                    // What came after the sync failed.
                    Err(_) => self.give_up(&backing, backing.synced_header()),
                }
                Ok(())
            }
            (_, _) => {
                self.give_up(&backing, start);
                committed
            }
        }
    }

    fn write_batch(
        &self,
        database: &Database,
        records: &[Record],
        events: &[Event],
        written: &mut Option<(Manifest, Option<audit::Ring>)>,
    ) -> Result<(), WriteFault> {
        let transaction = database.begin_write()?;
        let mut writer = Writer::new(&transaction, self.manifest);
        for record in records {
            writer.record(record)?;
        }
        let ring = self.audit.append(&mut writer, events)?;
        *written = Some((writer.finish()?, ring));
        Ok(transaction.commit()?)
    }

    /// Goes on from the file with this header, after a failure.
    fn give_up(&mut self, backing: &Backing, header: Vec<u8>) {
        backing.close_for_good();
        self.standing.must_undo = backing.is_in_flight();
        if !backing.is_as_it_was() {
            self.standing.fresh = Some(Replacement::default());
        }
        self.standing.header = Some(header);
    }

    /// Writes the header back that leads to what was acknowledged, if the file may have another.
    fn undo(&mut self) -> io::Result<()> {
        let Some(header) = self
            .standing
            .header
            .as_ref()
            .filter(|_| self.standing.must_undo)
        else {
            return Ok(());
        };
        let file = self.folder.open_for_writing(FILE_NAME)?;
        file.write_at(0, header)?;
        file.sync()?;
        self.standing.must_undo = false;
        Ok(())
    }

    /// Writes everything into a fresh file, which replaces the old one.
    fn commit_fresh(
        &mut self,
        records: &[Record],
        events: &[Event],
        model: &Model,
    ) -> Result<(), NotPlaced> {
        let touched: BTreeSet<(&'static str, Key)> = records.iter().map(place_of).collect();
        let carried = self.reader();
        let folder = Arc::clone(&self.folder);
        let least = carried.as_ref().map_or(0, Reader::content_bytes);
        let sizes = (self.cache_bytes, least);
        let written = Fresh::write(&*folder, NEW_NAME, sizes, &mut |writer| {
            self.fill(writer, model, &touched, carried.as_ref())?;
            self.audit.append(writer, events).map(|_| ())
        });
        drop(carried);
        self.put_in_place(written.map_err(NotPlaced::Certainly)?)?;
        self.forget_kept(records);
        Ok(())
    }

    /// Goes on with a fresh file, which replaces the old one.
    fn put_in_place(&mut self, fresh: Fresh) -> Result<(), NotPlaced> {
        let keep = self.standing.fresh.as_ref();
        let keep = keep.and_then(|replacement| replacement.keep.clone());
        let folder = Arc::clone(&self.folder);
        let placed = match fresh.place(&*folder, (NEW_NAME, FILE_NAME), keep.as_deref()) {
            Ok(placed) => placed,
            Err(NotPlaced::Certainly(fault)) => return Err(NotPlaced::Certainly(fault)),
            Err(NotPlaced::Perhaps(fault)) => {
                // Whichever file it is after a restart; now it is the new one, and what it has too much is written over.
                self.open = None;
                FILE_NAME.clone_into(&mut self.source);
                self.standing = Standing {
                    fresh: Some(Replacement::default()),
                    ..Standing::default()
                };
                return Err(NotPlaced::Perhaps(fault));
            }
        };
        let Fresh {
            database,
            backing,
            manifest,
        } = placed;
        if let Some(open) = self.open.take() {
            open.backing.close_for_good();
        }
        let counted = Reader::new(&database).and_then(|reader| audit::Ring::count(&reader));
        match counted {
            Ok(ring) => self.audit = std::mem::take(&mut self.audit).recounted(ring),
            Err(fault) => tracing::error!(%fault, "cannot read the fresh database file"),
        }
        self.manifest = manifest;
        self._locks.file = Some(backing.file());
        FILE_NAME.clone_into(&mut self.source);
        self.standing = Standing::default();
        self.carry_before = u64::MAX;
        self.open = Some(Open { database, backing });
        Ok(())
    }

    /// Writes all of a model into a new database, and what the model does not have: the server's keys, values that cannot be
    /// read (unless a record of the batch has `touched` them), the audit log, and tables of a newer hearth.
    fn fill(
        &self,
        writer: &mut Writer<'_>,
        model: &Model,
        touched: &BTreeSet<(&'static str, Key)>,
        carried: Option<&Reader>,
    ) -> Result<(), redb::Error> {
        put_secrets(writer, &self.secrets)?;
        let is_kept =
            |place: &(&'static str, Key)| self.kept.contains_key(place) && !touched.contains(place);
        for record in Record::whole(model) {
            if !is_kept(&place_of(&record)) {
                writer.record(&record)?;
            }
        }
        for (place, value) in self.kept.iter().filter(|(place, _)| is_kept(place)) {
            writer.put(place.0, &place.1, value)?;
        }
        match carried {
            Some(reader) => self.carry(writer, reader),
            None => Ok(()),
        }
    }

    /// Entries of the audit log from this number on are of commits that were refused.
    fn carried_before(&self) -> u64 {
        self.carry_before.min(self.audit.next())
    }

    /// Copies the tables that the model does not have, as far as they can be read.
    fn carry(&self, writer: &mut Writer<'_>, reader: &Reader) -> Result<(), redb::Error> {
        let tables = reader.tables().unwrap_or_else(|fault| {
            tracing::error!(%fault, "the audit log is lost");
            Vec::new()
        });
        let next = Key::Number(self.carried_before());
        let own = |table: &str| OF_MODEL.contains(&table) || table == PENDING;
        for table in tables.iter().filter(|table| !own(table)) {
            // Entries of a batch that was refused are not taken along.
            let unread = writer.copy(reader, table, &mut |key, value| {
                Ok(value.filter(|_| table != AUDIT || *key < next))
            })?;
            if let Some(fault) = unread {
                tracing::error!(table, %fault, "a table that cannot be read is lost in part");
            }
        }
        Ok(())
    }

    /// What a batch has written is no longer kept as it was.
    fn forget_kept(&mut self, records: &[Record]) {
        if !self.kept.is_empty() {
            for record in records {
                self.kept.remove(&place_of(record));
            }
        }
    }
}

impl Drop for Store {
    /// Closes the file so that the next start needs no repair.
    fn drop(&mut self) {
        let Some(Open { database, backing }) = self.open.take() else {
            return;
        };
        if database.close().is_err() && backing.is_in_flight() {
            // The pages that the new header leads to may not be on disk.
            self.standing.header = Some(backing.synced_header());
            self.standing.must_undo = true;
            if let Err(fault) = self.undo() {
                tracing::error!(%fault, "cannot close the database properly");
            }
        }
    }
}

fn put_secrets(writer: &mut Writer<'_>, secrets: &ServerSecrets) -> Result<(), redb::Error> {
    writer.put(META, &NOISE_SECRET.into(), &*secrets.noise)?;
    writer.put(META, &DERP_SECRET.into(), &*secrets.derp)
}

fn place_of(record: &Record) -> (&'static str, Key) {
    let Entry { table, key, .. } = entry::of(record);
    (table, key)
}

#[cfg(test)]
mod simulation;
#[cfg(test)]
pub(crate) use simulation::{CUTS, Chance, Cut, Disk, Mood, Plan};
#[cfg(test)]
mod tests;
