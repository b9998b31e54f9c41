//! Coalesces snapshots for map streams: a few changes at once, then one each tenth of a second.
//!
//! A single change goes out when it happens. A burst of them (a hundred machines after a power cut) goes out
//! as a few messages, and since all streams wait for the same moments, they say the same, and what they say
//! is made once.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::shutdown::Shutdown;
use hearth_core::state::snapshot::Snapshot;

/// In a long run there is one moment each such time.
const PACE: Duration = Duration::from_millis(100);

/// So many moments may follow each other at once before the pace holds. A device that joins makes four or
/// five, and whom it dials at once has to know it by then: a handshake from a stranger is lost, and
/// WireGuard repeats it only after five seconds.
const BURST: u32 = 32;

/// Hands the newest of `states` on at the pace, and once more when what all maps share has changed, until hearth
/// shuts down or nobody makes states any more. So each stream waits for one thing only.
pub async fn coalesce_snapshots<T>(
    mut states: watch::Receiver<Arc<Snapshot>>,
    mut shared: watch::Receiver<T>,
    news: watch::Sender<Arc<Snapshot>>,
    shutdown: Shutdown,
) {
    // When the pace would have all moments so far; it may lie ahead by the burst.
    let mut paced_to = Instant::now();
    loop {
        tokio::select! {
            biased;
            () = shutdown.wait() => return,
            changed = states.changed() => if changed.is_err() { return },
            changed = shared.changed() => if changed.is_err() { return },
        }
        // Right after the machine has started there is no moment so early, and no need to wait.
        if let Some(turn) = paced_to.checked_sub(PACE * (BURST - 1)) {
            tokio::time::sleep_until(turn).await;
        }
        shared.mark_unchanged();
        news.send_replace(states.borrow_and_update().clone());
        paced_to = paced_to.max(Instant::now()) + PACE;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hearth_core::state::testing::World;

    #[tokio::test(start_paused = true)]
    async fn a_change_goes_out_at_once_and_a_burst_at_the_pace() {
        let mut world = World::new();
        let (publish, states) = watch::channel(Arc::new(world.snapshot()));
        let (sender, mut news) = watch::channel(Arc::new(world.snapshot()));
        let start = Instant::now();
        let (_shared, unchanged) = watch::channel(());
        let paced = coalesce_snapshots(states, unchanged, sender, Shutdown::new());
        let changes = async {
            let mut moments = Vec::new();
            while moments.len() < BURST as usize + 4 {
                world.wait(Duration::ZERO);
                publish.send_replace(Arc::new(world.snapshot()));
                news.changed().await.unwrap();
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
    async fn what_all_share_is_news_too_and_a_shutdown_ends_all() {
        let state = Arc::new(World::new().snapshot());
        let (_publish, states) = watch::channel(state.clone());
        let (share, shared) = watch::channel(0);
        let (sender, mut news) = watch::channel(state);
        let shutdown = Shutdown::new();
        let paced = coalesce_snapshots(states, shared, sender, shutdown.clone());
        let changes = async {
            share.send_replace(1);
            assert!(news.changed().await.is_ok());
            shutdown.trigger();
            assert!(news.changed().await.is_err());
        };
        tokio::join!(paced, changes);
    }
}
