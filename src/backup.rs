//! Backups: automatic copies of the database, whole backups in one file, restore, check and repair.
//!
//! `hearth_core::backup` is the format of a whole backup; this room knows files. It must not know the running server:
//! the server makes a copy of the database between two changes and hands its path over.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

pub mod copies;
pub mod inspect;
pub mod locked;
pub mod open;
pub mod restore;
pub mod sheet;
pub mod space;
pub mod whole;

/// Most bytes of a whole backup, compressed: a database of a thousand nodes has less than one MiB.
pub const MOST_BYTES: u64 = 64 << 20;
/// Most bytes of a backup when it is unpacked.
pub const MOST_UNPACKED: u64 = 512 << 20;
