//! FullMapSlots: limits how many full maps are built at the same time; a slow reader cannot hold a slot.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, oneshot};

use crate::supervise::Tasks;

/// Longest use of a slot. A body is not polled while its peer reads nothing, so it cannot release the slot itself.
const LONGEST: Duration = Duration::from_secs(2);

/// Slots for building full maps.
#[derive(Debug)]
pub struct FullMapSlots(Arc<Semaphore>);

impl FullMapSlots {
    /// `most` slots.
    pub fn new(most: usize) -> Self {
        Self(Arc::new(Semaphore::new(most)))
    }

    /// Waits for a slot, first come, first served. It is released when dropped, or after two seconds. Cancel safe.
    pub async fn take(&self, tasks: &Tasks) -> FullMapSlot {
        let (over, dropped) = oneshot::channel();
        // The semaphore is never closed; a slot without a permit would do no harm either.
        let permit = self.0.clone().acquire_owned().await;
        tasks.spawn("full map slot", async move {
            let _ = tokio::time::timeout(LONGEST, dropped).await;
            drop(permit);
        });
        FullMapSlot { _over: over }
    }
}

/// One slot.
#[derive(Debug)]
pub struct FullMapSlot {
    _over: oneshot::Sender<()>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::Instant;

    #[tokio::test(start_paused = true)]
    async fn a_held_slot_delays_the_others_for_two_seconds_only() {
        let (turns, tasks) = (FullMapSlots::new(1), Tasks::new());
        let start = Instant::now();
        drop(turns.take(&tasks).await);
        let _kept = turns.take(&tasks).await;
        assert!(start.elapsed() < LONGEST);
        let waited = tokio::time::timeout(2 * LONGEST, turns.take(&tasks));
        assert!(waited.await.is_ok());
        assert!(start.elapsed() >= LONGEST);
    }
}
