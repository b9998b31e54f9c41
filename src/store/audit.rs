//! The audit log: a ring of events in the database, bounded in entries and bytes.

use redb::{Database, ReadableDatabase, ReadableTable, WriteTransaction};

use super::schema::AUDIT;
use hearth_core::state::event::{AuditEntry, Event};
use hearth_core::state::record::Stored;

/// How much the audit log keeps; the oldest entries are deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuditLimits {
    /// Most entries.
    pub entries: usize,
    /// Most bytes of all entries together, as stored.
    pub bytes: usize,
}

impl Default for AuditLimits {
    fn default() -> Self {
        Self {
            entries: 4096,
            bytes: 1 << 20,
        }
    }
}

/// What is known of the ring without reading it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Ring {
    limits: AuditLimits,
    /// Number of the next entry.
    next: u64,
    entries: usize,
    bytes: usize,
}

impl Ring {
    /// Counts what the database has.
    pub(super) fn count(database: &Database) -> Result<Self, redb::Error> {
        let mut ring = Self {
            next: 1,
            ..Self::default()
        };
        let transaction = database.begin_read()?;
        // A database from before there was an audit log has no table of it.
        let table = match transaction.open_table(AUDIT) {
            Ok(table) => table,
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(ring),
            Err(fault) => return Err(fault.into()),
        };
        for entry in table.iter()? {
            let (number, value) = entry?;
            ring.next = number.value().saturating_add(1);
            ring.entries = ring.entries.saturating_add(1);
            ring.bytes = ring.bytes.saturating_add(value.value().len());
        }
        Ok(ring)
    }

    /// The same ring with other bounds, which hold from the next entry on.
    pub(super) fn with_limits(self, limits: AuditLimits) -> Self {
        Self { limits, ..self }
    }

    /// Adds the audited ones of some events and deletes the oldest entries. The ring that this gives counts once the
    /// transaction is committed.
    pub(super) fn append(
        mut self,
        transaction: &WriteTransaction,
        events: &[Event],
    ) -> Result<Self, redb::Error> {
        let mut audited = events.iter().filter(|event| event.is_audited()).peekable();
        if audited.peek().is_none() {
            return Ok(self);
        }
        let mut table = transaction.open_table(AUDIT)?;
        for event in audited {
            let value = event.encode();
            table.insert(self.next, value.as_slice())?;
            self.next = self.next.saturating_add(1);
            self.entries = self.entries.saturating_add(1);
            self.bytes = self.bytes.saturating_add(value.len());
            while self.entries > self.limits.entries || self.bytes > self.limits.bytes {
                let Some((_, oldest)) = table.pop_first()? else {
                    break;
                };
                self.entries = self.entries.saturating_sub(1);
                self.bytes = self.bytes.saturating_sub(oldest.value().len());
            }
        }
        Ok(self)
    }
}

/// The newest entries before number `before`, newest first; those that cannot be read are skipped.
pub(super) fn read(
    database: &Database,
    before: Option<u64>,
    max: usize,
) -> Result<Vec<AuditEntry>, redb::Error> {
    let transaction = database.begin_read()?;
    let table = match transaction.open_table(AUDIT) {
        Ok(table) => table,
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
        Err(fault) => return Err(fault.into()),
    };
    let mut entries = Vec::new();
    for entry in table.range(..before.unwrap_or(u64::MAX))?.rev() {
        if entries.len() >= max {
            break;
        }
        let (number, value) = entry?;
        if let Ok(event) = Event::decode(value.value()) {
            entries.push(AuditEntry {
                number: number.value(),
                event,
            });
        }
    }
    Ok(entries)
}
