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
    },
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
