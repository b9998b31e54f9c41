//! How versions before schema 2 wrote: redb on the file itself under its final name, which is opened again after a failure.
//! For comparison: the judge of power cuts must find what was wrong with that.

use std::io;

use redb::{Builder, Database, StorageBackend};

use super::judge::{Opened, Reply, Subject};
use super::*;
use crate::store::folder::{DataFile, Folder};
use crate::store::read::Reader;
use crate::store::simulation::Disk;

/// A file under redb without anything between.
#[derive(Debug)]
struct Plain(Arc<dyn DataFile>);

impl StorageBackend for Plain {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read_at(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_at(offset, data)
    }
}

/// The store of an earlier version.
pub(super) struct Before {
    disk: Disk,
    database: Option<Database>,
}

impl Before {
    pub(super) fn database(disk: &Disk) -> Result<Database, redb::Error> {
        let file = match disk.open(FILE_NAME) {
            Ok(file) => file,
            Err(_) => disk.create(FILE_NAME)?,
        };
        let database = Builder::new()
            .set_cache_size(CACHE)
            .set_check_integrity_on_open(true)
            .create_with_backend(Plain(file))?;
        if Reader::new(&database)?.schema.is_none() {
            Self::write(&database, |put| {
                let identity: [u8; 32] = [disk.steps() as u8; 32];
                put(
                    schema::META,
                    &schema::SCHEMA.into(),
                    Some(&1_u64.to_le_bytes()),
                )?;
                put(schema::META, &schema::NOISE_SECRET.into(), Some(&identity))
            })?;
        }
        Ok(database)
    }

    fn stock(database: &Database) -> Result<Stock, redb::Error> {
        let reader = Reader::new(database)?;
        let mut stock = Stock::new();
        for table in schema::OF_MODEL {
            reader.each(table, &mut |key, value| {
                stock.insert((table, key.clone()), value.to_vec());
                Ok(())
            })?;
        }
        Ok(stock)
    }

    /// What it served of a file that was closed properly: without a check.
    pub(super) fn unchecked(disk: &Disk) -> Result<Stock, redb::Error> {
        let database = Builder::new().create_with_backend(Plain(disk.open(FILE_NAME)?))?;
        let mut stock = Self::stock(&database)?;
        stock.remove(&(schema::META, schema::SCHEMA.into()));
        stock.remove(&(schema::META, schema::NOISE_SECRET.into()));
        Ok(stock)
    }

    fn write(
        database: &Database,
        fill: impl FnOnce(
            &mut dyn FnMut(&str, &entry::Key, Option<&[u8]>) -> Result<(), redb::Error>,
        ) -> Result<(), redb::Error>,
    ) -> Result<(), redb::Error> {
        let transaction = database.begin_write()?;
        fill(&mut |table, key, value| {
            match key {
                entry::Key::Number(number) => {
                    let mut table = transaction.open_table(schema::by_number(table))?;
                    match value {
                        Some(value) => table.insert(number, value)?,
                        None => table.remove(number)?,
                    };
                }
                entry::Key::Text(text) => {
                    let mut table = transaction.open_table(schema::by_text(table))?;
                    match value {
                        Some(value) => table.insert(text.as_str(), value)?,
                        None => table.remove(text.as_str())?,
                    };
                }
            }
            Ok(())
        })?;
        Ok(transaction.commit()?)
    }
}

impl Subject for Before {
    fn open(disk: &Disk) -> Result<(Self, Opened), String> {
        let database = Self::database(disk).map_err(|fault| fault.to_string())?;
        let found = || -> Result<Opened, redb::Error> {
            let mut stock = Self::stock(&database)?;
            stock.remove(&(schema::META, schema::SCHEMA.into()));
            let identity = stock.remove(&(schema::META, schema::NOISE_SECRET.into()));
            let identity = identity.and_then(|bytes| bytes.try_into().ok());
            Ok(Opened {
                stock,
                identity: identity.unwrap_or_default(),
            })
        };
        let found = found().map_err(|fault| fault.to_string())?;
        let before = Self {
            disk: disk.clone(),
            database: Some(database),
        };
        Ok((before, found))
    }

    fn commit(&mut self, records: &[Record], _model: &Model) -> Reply {
        let database = match self.database.take() {
            Some(database) => database,
            None => match Self::database(&self.disk) {
                Ok(database) => database,
                Err(_) => return Reply::Refused,
            },
        };
        let written = Self::write(&database, |put| {
            records
                .iter()
                .map(entry::of)
                .try_for_each(|entry| put(entry.table, &entry.key, entry.value.as_deref()))
        });
        match written {
            Ok(()) => {
                self.database = Some(database);
                Reply::Done
            }
            Err(_) => Reply::Refused,
        }
    }
}
