//! Why the database cannot be written, since when, and what to do about it.

use std::fmt;
use std::io::{Error, ErrorKind};

use crate::clock::Timestamp;

/// `EIO` of Linux, the same on all processors; it has no [`ErrorKind`] of its own.
const EIO: i32 = 5;

/// Why nothing can be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The file system is read-only.
    ReadOnly,
    /// The file system or a quota is full.
    Full,
    /// The directory or the file belongs to another user.
    Denied,
    /// The disk reports an I/O error.
    Failing,
    /// The disk does not respond.
    Silent,
    /// Anything else.
    Other,
}

impl Cause {
    /// The cause of an error of the system.
    pub fn of(fault: &Error) -> Self {
        match fault.kind() {
            ErrorKind::ReadOnlyFilesystem => Self::ReadOnly,
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Self::Full,
            ErrorKind::PermissionDenied => Self::Denied,
            // Of a network file system.
            ErrorKind::TimedOut | ErrorKind::StaleNetworkFileHandle => Self::Failing,
            _ if fault.raw_os_error() == Some(EIO) => Self::Failing,
            _ => Self::Other,
        }
    }

    /// One word for programs.
    pub fn word(self) -> &'static str {
        match self {
            Self::ReadOnly => "read-only",
            Self::Full => "full",
            Self::Denied => "permission",
            Self::Failing => "io-error",
            Self::Silent => "no-response",
            Self::Other => "other",
        }
    }

    /// The cause as a part of a sentence.
    pub fn text(self) -> &'static str {
        match self {
            Self::ReadOnly => "the file system is read-only",
            Self::Full => "no space left on the file system",
            Self::Denied => "permission denied in the data directory",
            Self::Failing => "I/O error of the disk",
            Self::Silent => "the disk does not respond",
            Self::Other => "the database reports an error",
        }
    }

    /// What to do, in sentences.
    pub fn advice(self) -> &'static str {
        match self {
            Self::ReadOnly => {
                "Linux remounts a file system read-only after an error: see `dmesg`. Check it with `fsck`, then `mount -o remount,rw`; replace a worn SD card or flash drive."
            }
            Self::Full => {
                "Free space on the file system of the data directory: see `df -h` and `df -i`."
            }
            Self::Denied => {
                "The data directory and its files must belong to the user that runs hearth."
            }
            Self::Failing => {
                "See `dmesg`. Back up the data directory and replace the disk, SD card or flash drive."
            }
            Self::Silent => {
                "See `dmesg`. The disk, SD card, flash drive or network file system hangs; check or replace it."
            }
            Self::Other => "See the log of hearth.",
        }
    }
}

/// Why the database is read-only, and since when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskFault {
    /// Why.
    pub cause: Cause,
    /// The error of the system or of the database; may be empty.
    pub detail: Box<str>,
    /// When a write failed first.
    pub since: Timestamp,
}

impl fmt::Display for DiskFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (since {})", self.cause.text(), self.since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_linux_have_their_cause() {
        let cases = [
            (30, Cause::ReadOnly),
            (28, Cause::Full),
            (122, Cause::Full),
            (13, Cause::Denied),
            (1, Cause::Denied),
            (5, Cause::Failing),
            (22, Cause::Other),
        ];
        for (number, cause) in cases {
            // The number of EDQUOT differs on MIPS.
            if number != 122 || cfg!(target_arch = "x86_64") {
                assert_eq!(Cause::of(&Error::from_raw_os_error(number)), cause);
            }
        }
    }
}
