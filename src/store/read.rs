//! Reading a database of any schema that this version knows.

use redb::{
    AccessGuard, Database, ReadOnlyTable, ReadTransaction, ReadableDatabase, ReadableTable,
    TableError, TableHandle,
};

use super::entry::Key;
use super::schema::{MANIFEST, META, SCHEMA, SEALED_SINCE, by_number, by_text};
use super::seal::{Manifest, SEAL_BYTES, opened};

/// Takes a value as it is stored.
pub(super) type Take<'a> = dyn FnMut(&Key, &[u8]) -> Result<(), redb::Error> + 'a;

/// A value as it is stored.
pub(super) type Stored = AccessGuard<'static, &'static [u8]>;

/// A database as of one moment.
pub(super) struct Reader {
    transaction: ReadTransaction,
    /// Its schema; none if it says nothing of it.
    pub(super) schema: Option<u64>,
}

enum Table {
    ByNumber(ReadOnlyTable<u64, &'static [u8]>),
    ByText(ReadOnlyTable<&'static str, &'static [u8]>),
    Missing,
    /// It has keys or values of another type.
    Other,
}

impl Reader {
    pub(super) fn new(database: &Database) -> Result<Self, redb::Error> {
        let transaction = database.begin_read()?;
        let schema = match transaction.open_table(by_text(META)) {
            Ok(meta) => {
                let value = meta.get(SCHEMA)?;
                value.and_then(|bytes| bytes.value().try_into().ok())
            }
            Err(TableError::TableDoesNotExist(_)) => None,
            Err(fault) => return Err(fault.into()),
        };
        Ok(Self {
            transaction,
            schema: schema.map(u64::from_le_bytes),
        })
    }

    /// Whether the values have checksums.
    pub(super) fn is_sealed(&self) -> bool {
        self.schema.is_some_and(|schema| schema >= SEALED_SINCE)
    }

    /// The names of all tables.
    pub(super) fn tables(&self) -> Result<Vec<String>, redb::Error> {
        let tables = self.transaction.list_tables()?;
        Ok(tables.map(|table| table.name().to_owned()).collect())
    }

    /// Bytes of all keys and values that can be read: a database of them is larger.
    pub(super) fn content_bytes(&self) -> u64 {
        let mut bytes = 0_u64;
        for table in self.tables().unwrap_or_default() {
            // What cannot be read is not copied either.
            let _ = self.each(&table, &mut |key, stored| {
                let key = match key {
                    Key::Number(_) => size_of::<u64>(),
                    Key::Text(text) => text.len(),
                };
                bytes = bytes.saturating_add(key.saturating_add(stored.len()) as u64);
                Ok(())
            });
        }
        bytes
    }

    pub(super) fn has(&self, table: &str) -> Result<bool, redb::Error> {
        Ok(!matches!(self.table(table)?, Table::Missing))
    }

    fn table(&self, name: &str) -> Result<Table, redb::Error> {
        match self.transaction.open_table(by_number(name)) {
            Ok(table) => return Ok(Table::ByNumber(table)),
            Err(TableError::TableDoesNotExist(_)) => return Ok(Table::Missing),
            Err(TableError::TableTypeMismatch { .. }) => {}
            Err(fault) => return Err(fault.into()),
        }
        match self.transaction.open_table(by_text(name)) {
            Ok(table) => Ok(Table::ByText(table)),
            Err(TableError::TableTypeMismatch { .. }) => Ok(Table::Other),
            Err(fault) => Err(fault.into()),
        }
    }

    /// Calls `take` with each value of a table as it is stored, in the order of the keys, but not with what is about the
    /// file: its schema and its manifest. A database that is older than the table has none.
    pub(super) fn each(&self, table: &str, take: &mut Take<'_>) -> Result<(), redb::Error> {
        match self.table(table)? {
            Table::ByNumber(entries) => {
                for entry in entries.iter()? {
                    let (key, value) = entry?;
                    take(&Key::Number(key.value()), value.value())?;
                }
            }
            Table::ByText(entries) => {
                for entry in entries.iter()? {
                    let (key, value) = entry?;
                    if table != META || ![SCHEMA, MANIFEST].contains(&key.value()) {
                        take(&Key::Text(key.value().to_owned()), value.value())?;
                    }
                }
            }
            Table::Missing => {}
            Table::Other => {
                let fault = format!("table {table:?} has keys or values of another type");
                return Err(redb::Error::Corrupted(fault));
            }
        }
        Ok(())
    }

    /// The value that is stored so, without its checksum; none if that is not its own.
    pub(super) fn value<'a>(&self, table: &str, key: &Key, stored: &'a [u8]) -> Option<&'a [u8]> {
        match self.is_sealed() {
            true => opened(table, key, stored),
            false => Some(stored),
        }
    }

    /// The length of a value that is stored so.
    pub(super) fn length(&self, stored: &[u8]) -> usize {
        match self.is_sealed() {
            true => stored.len().saturating_sub(SEAL_BYTES),
            false => stored.len(),
        }
    }

    /// A single value of the table `meta`.
    pub(super) fn single(&self, name: &'static str) -> Result<Option<Vec<u8>>, redb::Error> {
        let meta = self.transaction.open_table(by_text(META))?;
        let Some(stored) = meta.get(name)? else {
            return Ok(None);
        };
        match self.value(META, &name.into(), stored.value()) {
            Some(value) => Ok(Some(value.to_vec())),
            None => Err(damaged(META, &name.into())),
        }
    }

    /// The manifest.
    pub(super) fn manifest(&self) -> Result<Manifest, redb::Error> {
        let manifest = self.single(MANIFEST)?;
        let manifest = manifest.and_then(|bytes| Manifest::decode(&bytes));
        manifest.ok_or_else(|| damaged(META, &MANIFEST.into()))
    }

    /// The value with the highest number below `before`, as it is stored.
    pub(super) fn last_before(
        &self,
        table: &str,
        before: u64,
    ) -> Result<Option<(u64, Stored)>, redb::Error> {
        let Table::ByNumber(entries) = self.table(table)? else {
            return Ok(None);
        };
        let last = entries.range(..before)?.next_back().transpose()?;
        Ok(last.map(|(number, value)| (number.value(), value)))
    }
}

/// A value whose checksum is not its own.
pub(super) fn damaged(table: &str, key: &Key) -> redb::Error {
    redb::Error::Corrupted(format!("value {key} of table {table:?} is damaged"))
}
