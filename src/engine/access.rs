//! Access: whether changes can be written, why not, and when that is tried again.

use std::sync::Arc;
use std::time::Duration;

use hearth_core::clock::Now;
use hearth_core::disk::{Cause, DiskFault};

/// Whether changes can be written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum Access {
    /// They can.
    #[default]
    Writable,
    /// They are refused until it is tried again, on the monotonic clock.
    Refused {
        /// Why.
        fault: Arc<DiskFault>,
        /// When the next try begins.
        again: Duration,
    },
    /// They are refused until the disk thread has tried.
    Trying {
        /// Why.
        fault: Arc<DiskFault>,
        /// When the try began, on the monotonic clock.
        since: Duration,
        /// Whether it writes in any case; else only to a disk that has more room than when it was full.
        is_forced: bool,
    },
}

/// When a disk that was full is written although it has no more room than then: a quota may have been raised, or the free space
/// not be known. Each such try may fill the disk up again, so that they become rare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FullDisk {
    /// Time between the last try and the next.
    wait: Duration,
    /// When the next try is, on the monotonic clock.
    next: Duration,
}

impl FullDisk {
    /// Most time between two tries.
    const MOST: Duration = Duration::from_secs(5 * 60);

    /// After a first write found the disk full.
    pub(super) fn new(wait: Duration, now: Duration) -> Self {
        Self {
            wait,
            next: now.saturating_add(wait),
        }
    }

    /// After another one did.
    pub(super) fn again(self, now: Duration) -> Self {
        Self::new(self.wait.saturating_mul(2).min(Self::MOST), now)
    }

    /// Whether it is written now.
    pub(super) fn is_due(self, now: Duration) -> bool {
        self.next <= now
    }
}

impl Access {
    /// Why changes are refused, if they are.
    pub(super) fn fault(&self) -> Option<&Arc<DiskFault>> {
        match self {
            Self::Writable => None,
            Self::Refused { fault, .. } | Self::Trying { fault, .. } => Some(fault),
        }
    }

    /// The fault to publish for what went wrong now: one that lasts keeps its beginning.
    pub(super) fn fault_now(&self, cause: Cause, detail: &str, now: Now) -> Arc<DiskFault> {
        match self.fault() {
            Some(fault) if fault.cause == cause => fault.clone(),
            before => Arc::new(DiskFault {
                cause,
                detail: detail.into(),
                since: before.map_or(now.wall, |before| before.since),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_to_write_to_a_full_disk_become_rare() {
        let at = Duration::from_secs;
        let mut full = FullDisk::new(at(10), at(100));
        assert!(!full.is_due(at(109)) && full.is_due(at(110)));
        let mut now = at(110);
        let mut waits = Vec::new();
        for _ in 0..7 {
            full = full.again(now);
            waits.push(full.wait.as_secs());
            now = full.next;
            assert!(full.is_due(now));
        }
        assert_eq!(waits, [20, 40, 80, 160, 300, 300, 300]);
    }
}
