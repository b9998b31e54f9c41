//! The audit log: a ring of events in the database, bounded in entries and bytes. What devices cause takes at most half
//! of it, so that no device can push out what administrators did.

use std::collections::VecDeque;

use super::entry::Key;
use super::read::Reader;
use super::schema::AUDIT;
use super::write::Writer;
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
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Ring {
    limits: AuditLimits,
    /// Number of the next entry.
    next: u64,
    entries: usize,
    bytes: usize,
    /// Number and length of the entries that devices caused, oldest first.
    by_devices: VecDeque<(u64, usize)>,
    device_bytes: usize,
}

impl Ring {
    /// The ring of a database without entries.
    pub(super) fn empty() -> Self {
        Self {
            next: 1,
            ..Self::default()
        }
    }

    /// Counts what the database has.
    pub(super) fn count(reader: &Reader) -> Result<Self, redb::Error> {
        let mut ring = Self::empty();
        reader.each(AUDIT, &mut |key, stored| {
            let Key::Number(number) = *key else {
                return Ok(());
            };
            // A damaged entry has its place as well.
            let value = reader.value(AUDIT, key, stored).unwrap_or_default();
            ring.next = number.saturating_add(1);
            ring.entries = ring.entries.saturating_add(1);
            ring.bytes = ring.bytes.saturating_add(reader.length(stored));
            if Event::decode(value).is_ok_and(|event| event.is_by_device()) {
                ring.note_device(number, reader.length(stored));
            }
            Ok(())
        })?;
        Ok(ring)
    }

    /// The same ring with other bounds, which hold from the next entry on.
    pub(super) fn with_limits(self, limits: AuditLimits) -> Self {
        Self { limits, ..self }
    }

    /// The number of the next entry.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// What a fresh file has, with the bounds of before. No number is used twice.
    pub(super) fn recounted(self, ring: Self) -> Self {
        Self {
            limits: self.limits,
            next: self.next.max(ring.next),
            ..ring
        }
    }

    /// Adds the audited ones of some events and deletes the oldest entries. The ring that this gives counts once the
    /// transaction is committed; none when there is nothing to add.
    pub(super) fn append(
        &self,
        writer: &mut Writer<'_>,
        events: &[Event],
    ) -> Result<Option<Self>, redb::Error> {
        let mut audited = events.iter().filter(|event| event.is_audited()).peekable();
        if audited.peek().is_none() {
            return Ok(None);
        }
        let mut ring = self.clone();
        for event in audited {
            let value = event.encode();
            writer.put(AUDIT, &ring.next.into(), &value)?;
            ring.entries = ring.entries.saturating_add(1);
            ring.bytes = ring.bytes.saturating_add(value.len());
            if event.is_by_device() {
                ring.note_device(ring.next, value.len());
            }
            ring.next = ring.next.saturating_add(1);
            while let Some(number) = ring.surplus_of_devices() {
                let removed = writer.remove(AUDIT, &number.into())?;
                ring.forget(removed.unwrap_or_default());
            }
            while ring.entries > ring.limits.entries || ring.bytes > ring.limits.bytes {
                let Some((number, length)) = writer.remove_first(AUDIT)? else {
                    break;
                };
                if ring.by_devices.front().map(|(first, _)| *first) == Some(number) {
                    ring.forget_device();
                }
                ring.forget(length);
            }
        }
        Ok(Some(ring))
    }

    fn note_device(&mut self, number: u64, length: usize) {
        self.by_devices.push_back((number, length));
        self.device_bytes = self.device_bytes.saturating_add(length);
    }

    /// The oldest entry that a device caused, if those are more than half of the ring. It is no longer counted.
    fn surplus_of_devices(&mut self) -> Option<u64> {
        let is_over = self.by_devices.len() > self.limits.entries.div_ceil(2)
            || self.device_bytes > self.limits.bytes / 2;
        // The newest entry stays in any case.
        if !is_over || self.by_devices.len() < 2 {
            return None;
        }
        self.forget_device()
    }

    fn forget_device(&mut self) -> Option<u64> {
        let (number, length) = self.by_devices.pop_front()?;
        self.device_bytes = self.device_bytes.saturating_sub(length);
        Some(number)
    }

    fn forget(&mut self, length: usize) {
        self.entries = self.entries.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(length);
    }
}

/// The newest entries before number `before`, newest first; those that cannot be read are skipped.
pub(super) fn read(
    reader: &Reader,
    before: Option<u64>,
    max: usize,
) -> Result<Vec<AuditEntry>, redb::Error> {
    let mut entries = Vec::new();
    let mut before = before.unwrap_or(u64::MAX);
    while entries.len() < max {
        let Some((number, stored)) = reader.last_before(AUDIT, before)? else {
            break;
        };
        before = number;
        let value = reader.value(AUDIT, &number.into(), stored.value());
        if let Some(Ok(event)) = value.map(Event::decode) {
            entries.push(AuditEntry { number, event });
        }
    }
    Ok(entries)
}
