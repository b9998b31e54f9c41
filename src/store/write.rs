//! Writing values with their checksums, and the manifest with them.

use redb::{ReadableTable, WriteTransaction};

use super::entry::{self, Entry, Key};
use super::read::Reader;
use super::schema::{MANIFEST, META, SCHEMA, SCHEMA_VERSION, by_number, by_text};
use super::seal::{Manifest, SEAL_BYTES, Seal, sealed};
use hearth_core::state::record::Record;

/// Says what is copied of a value; nothing leaves it out.
pub(super) type Choose<'a> =
    dyn for<'v> FnMut(&Key, Option<&'v [u8]>) -> Result<Option<&'v [u8]>, redb::Error> + 'a;

/// A transaction, and the manifest as it will be after it.
pub(super) struct Writer<'t> {
    transaction: &'t WriteTransaction,
    manifest: Manifest,
}

impl<'t> Writer<'t> {
    pub(super) fn new(transaction: &'t WriteTransaction, manifest: Manifest) -> Self {
        Self {
            transaction,
            manifest,
        }
    }

    /// Writes the manifest, which is then the one of the database.
    pub(super) fn finish(self) -> Result<Manifest, redb::Error> {
        let value = sealed(META, &MANIFEST.into(), &self.manifest.encode());
        let mut meta = self.transaction.open_table(by_text(META))?;
        meta.insert(MANIFEST, &*value)?;
        Ok(self.manifest)
    }

    /// Says which schema a new database has.
    pub(super) fn schema(&mut self) -> Result<(), redb::Error> {
        let mut meta = self.transaction.open_table(by_text(META))?;
        meta.insert(SCHEMA, &SCHEMA_VERSION.to_le_bytes()[..])?;
        Ok(())
    }

    /// Copies a table of another database: of each value what `choose` makes of it, which is nothing where its checksum is
    /// not its own. Gives why the table cannot be read to its end, if so; what was read before is written.
    ///
    /// # Errors
    /// That of `choose`, or of writing.
    pub(super) fn copy(
        &mut self,
        reader: &Reader,
        table: &str,
        choose: &mut Choose<'_>,
    ) -> Result<Option<redb::Error>, redb::Error> {
        let mut refused = None;
        let read = reader.each(table, &mut |key, stored| {
            let written = choose(key, reader.value(table, key, stored))
                .and_then(|value| value.map_or(Ok(()), |value| self.put(table, key, value)));
            written.map_err(|fault| {
                refused = Some(fault);
                redb::Error::PreviousIo
            })
        });
        match refused {
            Some(fault) => Err(fault),
            None => Ok(read.err()),
        }
    }

    pub(super) fn record(&mut self, record: &Record) -> Result<(), redb::Error> {
        let Entry { table, key, value } = entry::of(record);
        match value {
            Some(value) => self.put(table, &key, &value),
            None => self.remove(table, &key).map(|_| ()),
        }
    }

    /// Stores a value with its checksum.
    pub(super) fn put(&mut self, table: &str, key: &Key, value: &[u8]) -> Result<(), redb::Error> {
        let value = sealed(table, key, value);
        let old = match key {
            Key::Number(number) => {
                let mut entries = self.transaction.open_table(by_number(table))?;
                let old = entries.insert(number, &*value)?;
                old.map(|old| Seal::at_end_of(old.value()))
            }
            Key::Text(text) => {
                let mut entries = self.transaction.open_table(by_text(table))?;
                let old = entries.insert(text.as_str(), &*value)?;
                old.map(|old| Seal::at_end_of(old.value()))
            }
        };
        let sum = self.manifest.part(table);
        if let Some(old) = old {
            sum.take(old);
        }
        sum.add(Seal::at_end_of(&value));
        Ok(())
    }

    /// Deletes a value, and gives its length.
    pub(super) fn remove(&mut self, table: &str, key: &Key) -> Result<Option<usize>, redb::Error> {
        let old = match key {
            Key::Number(number) => {
                let mut entries = self.transaction.open_table(by_number(table))?;
                let old = entries.remove(number)?;
                old.map(|old| (Seal::at_end_of(old.value()), old.value().len()))
            }
            Key::Text(text) => {
                let mut entries = self.transaction.open_table(by_text(table))?;
                let old = entries.remove(text.as_str())?;
                old.map(|old| (Seal::at_end_of(old.value()), old.value().len()))
            }
        };
        Ok(old.map(|(seal, length)| {
            self.manifest.part(table).take(seal);
            length.saturating_sub(SEAL_BYTES)
        }))
    }

    /// Deletes the value with the lowest number, and gives the number and the length.
    pub(super) fn remove_first(
        &mut self,
        table: &str,
    ) -> Result<Option<(u64, usize)>, redb::Error> {
        let first = {
            let entries = self.transaction.open_table(by_number(table))?;
            entries.first()?.map(|(number, _)| number.value())
        };
        let Some(number) = first else {
            return Ok(None);
        };
        let length = self.remove(table, &number.into())?;
        Ok(Some((number, length.unwrap_or_default())))
    }
}
