//! A database on a disk that fails or hangs when a test says so.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use redb::backends::InMemoryBackend;
use redb::{Builder, StorageBackend};

use crate::store::audit::Ring;
use crate::store::schema::AUDIT;
use crate::store::{FILE_NAME, Loaded, Store, load, prepare};

/// How a disk handles writes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Mood {
    /// They succeed.
    #[default]
    Works,
    /// They fail: the disk is full.
    Fails,
    /// They block until the mood changes.
    Hangs,
}

/// A disk. Clones are the same disk.
#[derive(Debug, Clone, Default)]
pub(crate) struct Disk(Arc<(Mutex<Mood>, Condvar)>, Arc<AtomicUsize>);

impl Disk {
    /// Sets how writes are handled from now on.
    pub(crate) fn set(&self, mood: Mood) {
        *self.mood() = mood;
        self.0.1.notify_all();
    }

    /// How often it has synced.
    pub(crate) fn syncs(&self) -> usize {
        self.1.load(Ordering::Relaxed)
    }

    fn mood(&self) -> MutexGuard<'_, Mood> {
        self.0.0.lock().expect("no panic while locked")
    }

    fn check(&self) -> io::Result<()> {
        let hangs = |mood: &mut Mood| *mood == Mood::Hangs;
        let mood = self.0.1.wait_while(self.mood(), hangs);
        match *mood.expect("no panic while locked") {
            Mood::Fails => Err(io::ErrorKind::StorageFull.into()),
            Mood::Works | Mood::Hangs => Ok(()),
        }
    }
}

#[derive(Debug)]
struct Failing {
    memory: InMemoryBackend,
    disk: Disk,
}

impl StorageBackend for Failing {
    fn len(&self) -> io::Result<u64> {
        self.memory.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.memory.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.disk.check()?;
        self.memory.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.check()?;
        self.disk.1.fetch_add(1, Ordering::Relaxed);
        self.memory.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.disk.check()?;
        self.memory.write(offset, data)
    }
}

impl Store {
    /// An empty database in memory, on such a disk. No file can be created in `directory`, so reopening
    /// the database fails too.
    pub(crate) fn failing(directory: &Path, disk: Disk) -> (Self, Loaded) {
        let backend = Failing {
            memory: InMemoryBackend::new(),
            disk,
        };
        let path = directory.join(FILE_NAME);
        let database = Builder::new()
            .create_with_backend(backend)
            .expect("memory is writable");
        prepare(&database, &path).expect("memory is writable");
        let loaded = load(&database).expect("it was just made");
        let audit = Ring::count(&database).expect("it was just made");
        (
            Self {
                database: Some(database),
                path,
                cache_bytes: 1 << 18,
                adopted: None,
                audit,
            },
            loaded,
        )
    }

    /// Makes an entry of the audit log unreadable.
    pub(crate) fn damage_audit_entry(&self, number: u64) {
        let database = self.database.as_ref().expect("it is open");
        let transaction = database.begin_write().expect("memory and disk take all");
        {
            let mut table = transaction.open_table(AUDIT).expect("it is there");
            table
                .insert(number, b"\x01\xff".as_slice())
                .expect("it fits");
        }
        transaction.commit().expect("memory and disk take all");
    }
}
