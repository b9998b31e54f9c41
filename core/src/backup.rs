//! Backup files: a tar archive compressed with zstd, optionally encrypted with age. A person can open one with
//! `age -d FILE | tar --zstd -x`.
//!
//! In the archive, below `hearth-backup/`: `manifest.json`, then the files of the data directory in `data/` and those of the
//! configuration in `settings/`, then `SHA256SUMS` with the checksum of each of them, as `sha256sum -c` reads it. The
//! order is part of the format: a reader knows what it reads before it reads it, and what was read is complete when the
//! checksums agree. docs/backup.md describes the same to people.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

mod archive;
mod manifest;
mod name;
mod tar;
mod zstd;

pub use archive::{Fault, Sink, Writer, read};
pub use manifest::{Manifest, Setting};
pub use name::{InvalidName, Name, Place};

use crate::age;

/// What a file is, by its first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A backup.
    Archive,
    /// A backup that is encrypted.
    Encrypted,
    /// The database alone.
    Database,
    /// Encrypted, and in ASCII armor.
    Armored,
    /// Something else.
    Unknown,
}

/// How many of the first bytes [`Kind::of`] needs.
pub const KIND_BYTES: usize = 64;

impl Kind {
    /// The kind of a file that begins like this.
    ///
    /// Sources: RFC 8878, section 3.1.1 (zstd); redb `docs/design.md` (magic number).
    pub fn of(begin: &[u8]) -> Self {
        const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
        const REDB: &[u8] = b"redb\x1a\x0a\xa9\x0d\x0a";
        [
            (ZSTD, Self::Archive),
            (age::FIRST_LINE, Self::Encrypted),
            (REDB, Self::Database),
            (age::ARMOR, Self::Armored),
        ]
        .into_iter()
        .find(|(magic, _)| begin.starts_with(magic))
        .map_or(Self::Unknown, |(_, kind)| kind)
    }
}

#[cfg(test)]
mod tests;
