//! A database whose disk fails when a test says so.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redb::backends::InMemoryBackend;
use redb::{Builder, StorageBackend};

use crate::store::{FILE_NAME, Loaded, Store, load, prepare};

#[derive(Debug)]
struct Failing {
    memory: InMemoryBackend,
    fails: Arc<AtomicBool>,
}

impl Failing {
    fn check(&self) -> io::Result<()> {
        match self.fails.load(Ordering::SeqCst) {
            true => Err(io::ErrorKind::StorageFull.into()),
            false => Ok(()),
        }
    }
}

impl StorageBackend for Failing {
    fn len(&self) -> io::Result<u64> {
        self.memory.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.memory.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.check()?;
        self.memory.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.check()?;
        self.memory.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.check()?;
        self.memory.write(offset, data)
    }
}

impl Store {
    /// An empty database in memory that fails while the switch is on. `directory` must not take a
    /// file, so that it cannot be opened anew either.
    pub(crate) fn failing(directory: &Path, fails: Arc<AtomicBool>) -> (Self, Loaded) {
        let backend = Failing {
            memory: InMemoryBackend::new(),
            fails,
        };
        let path = directory.join(FILE_NAME);
        let database = Builder::new()
            .create_with_backend(backend)
            .expect("memory takes all");
        prepare(&database, &path).expect("memory takes all");
        let loaded = load(&database).expect("it was just made");
        (
            Self {
                database: Some(database),
                path,
                cache_bytes: 1 << 18,
            },
            loaded,
        )
    }
}
