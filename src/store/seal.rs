//! Checksums: each stored value ends with one, and the manifest sums them up, so that a value that is damaged, lost or
//! of an earlier time is noticed, whatever redb says.
//!
//! They tell accidents, not attackers: anyone who can write the file can write the checksums.

use ring::digest::{Context, SHA256};

use super::entry::Key;
use super::schema::AUDIT;

/// Length of a checksum.
pub(super) const SEAL_BYTES: usize = 8;

/// The checksum of a value: the first eight bytes of the SHA-256 of its table, key and bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seal(u64);

impl Seal {
    fn of(table: &str, key: &Key, payload: &[u8]) -> Self {
        let mut context = Context::new(&SHA256);
        let mut part = |bytes: &[u8]| {
            context.update(&(bytes.len() as u64).to_le_bytes());
            context.update(bytes);
        };
        part(table.as_bytes());
        match key {
            Key::Number(number) => part(&number.to_le_bytes()),
            Key::Text(text) => part(text.as_bytes()),
        }
        part(payload);
        let digest = context.finish();
        let first = digest.as_ref().first_chunk().copied();
        Self(u64::from_le_bytes(first.unwrap_or_default()))
    }

    /// The checksum at the end of a stored value.
    pub(super) fn at_end_of(value: &[u8]) -> Self {
        let last = value.last_chunk().copied();
        Self(u64::from_le_bytes(last.unwrap_or_default()))
    }
}

/// A value as it is stored: its bytes and their checksum.
pub(super) fn sealed(table: &str, key: &Key, payload: &[u8]) -> Vec<u8> {
    let Seal(seal) = Seal::of(table, key, payload);
    [payload, &seal.to_le_bytes()].concat()
}

/// The bytes of a stored value, if the checksum is theirs.
pub(super) fn opened<'a>(table: &str, key: &Key, value: &'a [u8]) -> Option<&'a [u8]> {
    let (payload, seal) = value.split_last_chunk()?;
    let right = Seal::of(table, key, payload) == Seal(u64::from_le_bytes(*seal));
    right.then_some(payload)
}

/// Number of values, and the sum of their checksums, in whatever order they were written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sum {
    pub(super) count: u64,
    seals: u64,
}

impl Sum {
    pub(super) fn add(&mut self, Seal(seal): Seal) {
        self.count = self.count.wrapping_add(1);
        self.seals = self.seals.wrapping_add(seal);
    }

    pub(super) fn take(&mut self, Seal(seal): Seal) {
        self.count = self.count.wrapping_sub(1);
        self.seals = self.seals.wrapping_sub(seal);
    }
}

/// What a database holds: the sums of the audit log and of everything else. A damaged entry of the log does not make the
/// rest doubtful.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Manifest {
    pub(super) state: Sum,
    pub(super) audit: Sum,
}

impl Manifest {
    /// The sum to which the values of a table belong.
    pub(super) fn part(&mut self, table: &str) -> &mut Sum {
        match table {
            AUDIT => &mut self.audit,
            _ => &mut self.state,
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let Self { state, audit } = self;
        let numbers = [state.count, state.seals, audit.count, audit.seals];
        numbers.map(u64::to_le_bytes).concat()
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let numbers = bytes
            .as_chunks()
            .0
            .iter()
            .map(|number| u64::from_le_bytes(*number));
        let numbers: Vec<u64> = numbers.collect();
        let [state, state_seals, audit, audit_seals] = *numbers else {
            return None;
        };
        let sum = |count, seals| Sum { count, seals };
        (bytes.len() == 32).then_some(Self {
            state: sum(state, state_seals),
            audit: sum(audit, audit_seals),
        })
    }
}
