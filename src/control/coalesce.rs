//! Coalesces snapshots for map streams: a few at once, then at most one per 100 ms.
//!
//! A single change is sent when it happens. A burst of changes (a hundred machines after a power cut) is sent
//! in a few messages. All streams get the same snapshots, so they send the same messages, which are made
//! once.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::shutdown::Shutdown;
use hearth_core::state::snapshot::Snapshot;

/// Interval of snapshots once the burst is used up.
const INTERVAL: Duration = Duration::from_millis(100);

/// Snapshots sent immediately before the interval applies. A joining device makes four or five, and the
/// peers that it dials must know it by then: a handshake from an unknown peer is dropped, and WireGuard
/// retries only after five seconds.
const BURST: u32 = 32;

/// Forwards the newest of `states` at this rate, and again when the data shared by all maps changes, until hearth
/// shuts down or `states` ends. Each stream then waits for one channel only.
pub async fn coalesce_snapshots<T>(
    mut states: watch::Receiver<Arc<Snapshot>>,
    mut shared: watch::Receiver<T>,
    updates: watch::Sender<Arc<Snapshot>>,
    shutdown: Shutdown,
) {
    // Earliest time of the next snapshot at the steady rate, minus the burst.
    let mut paced_to = Instant::now();
    loop {
        tokio::select! {
            biased;
            () = shutdown.wait() => return,
            changed = states.changed() => if changed.is_err() { return },
            changed = shared.changed() => if changed.is_err() { return },
        }
        // Soon after boot that time is before zero, and there is no need to wait.
        if let Some(turn) = paced_to.checked_sub(INTERVAL.saturating_mul(BURST.saturating_sub(1))) {
            tokio::time::sleep_until(turn).await;
        }
        shared.mark_unchanged();
        updates.send_replace(states.borrow_and_update().clone());
        let paced = paced_to.max(Instant::now());
        paced_to = paced.checked_add(INTERVAL).unwrap_or(paced);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hearth_core::state::testing::World;

    #[tokio::test(start_paused = true)]
    async fn a_change_is_forwarded_at_once_and_a_burst_at_the_interval() {
        let mut world = World::new();
        let (publish, states) = watch::channel(Arc::new(world.snapshot()));
        let (sender, mut updates) = watch::channel(Arc::new(world.snapshot()));
        let start = Instant::now();
        let (_shared, unchanged) = watch::channel(());
        let paced = coalesce_snapshots(states, unchanged, sender, Shutdown::new());
        let changes = async {
            let mut moments = Vec::new();
            while moments.len() < BURST as usize + 4 {
                world.wait(Duration::ZERO);
                publish.send_replace(Arc::new(world.snapshot()));
                updates.changed().await.unwrap();
                moments.push(start.elapsed().as_millis());
            }
            moments
        };
        let moments = tokio::select! {
            moments = changes => moments,
            () = paced => panic!("the coalesce_snapshots ended"),
        };
        let (burst, paced) = moments.split_at(BURST as usize - 1);
        assert!(burst.iter().all(|moment| *moment == 0), "{moments:?}");
        let waits = paced.windows(2).map(|pair| pair[1] - pair[0]);
        assert!(
            waits.into_iter().all(|wait| (99..=101).contains(&wait)),
            "{moments:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn shared_data_wakes_streams_too_and_a_shutdown_ends_them() {
        let state = Arc::new(World::new().snapshot());
        let (_publish, states) = watch::channel(state.clone());
        let (share, shared) = watch::channel(0);
        let (sender, mut updates) = watch::channel(state);
        let shutdown = Shutdown::new();
        let paced = coalesce_snapshots(states, shared, sender, shutdown.clone());
        let changes = async {
            share.send_replace(1);
            assert!(updates.changed().await.is_ok());
            shutdown.trigger();
            assert!(updates.changed().await.is_err());
        };
        tokio::join!(paced, changes);
    }
}
