//! FullMapSlots at making first maps: few at a time, and nobody holds one up by reading slowly.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, oneshot};

use crate::supervise::Tasks;

/// Longest turn. A body is not polled while its peer reads nothing, so that it cannot end its turn itself.
const LONGEST: Duration = Duration::from_secs(2);

/// The turns that there are.
#[derive(Debug)]
pub struct FullMapSlots(Arc<Semaphore>);

impl FullMapSlots {
    /// So many at the same time.
    pub fn new(most: usize) -> Self {
        Self(Arc::new(Semaphore::new(most)))
    }

    /// Waits for a turn, first come, first served. It ends when it is dropped, or after two seconds. Cancel safe.
    pub async fn take(&self, tasks: &Tasks) -> FullMapSlot {
        let (over, dropped) = oneshot::channel();
        // Nobody closes the semaphore; a turn without a permit would do no harm either.
        let permit = self.0.clone().acquire_owned().await;
        tasks.spawn("turn of a first map", async move {
            let _ = tokio::time::timeout(LONGEST, dropped).await;
            drop(permit);
        });
        FullMapSlot { _over: over }
    }
}

/// One turn.
#[derive(Debug)]
pub struct FullMapSlot {
    _over: oneshot::Sender<()>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::Instant;

    #[tokio::test(start_paused = true)]
    async fn who_keeps_a_turn_holds_the_others_up_for_two_seconds_only() {
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
