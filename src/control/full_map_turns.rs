//! FullMapTurns: how many full maps are built at the same time, and who is next.
//!
//! Of those that wait, the node that was served longest ago is next: a node that asks over and over, or reads nothing of
//! what it gets, is behind all others. Each node waits at most once, since a newer stream replaces its older one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::supervise::Tasks;
use hearth_core::id::NodeId;

/// Longest turn. A body is not polled while its peer reads nothing, so it cannot end its turn itself. Who reads slowly
/// loses the turn only, and goes on reading.
const LONGEST: Duration = Duration::from_millis(250);

/// Nodes whose last turn is remembered. Those beyond count as never served; they were served before the others.
const REMEMBERED: usize = 256;

/// Turns for building full maps. Clones share them.
#[derive(Debug, Clone)]
pub struct FullMapTurns(Arc<Mutex<Turns>>);

#[derive(Debug)]
struct Turns {
    free: usize,
    /// Number of the last turn, from 1.
    last: u64,
    /// The last turn of each node.
    served: HashMap<NodeId, u64>,
    /// In the order of their arrival.
    waiting: Vec<(NodeId, oneshot::Sender<Turn>)>,
}

impl FullMapTurns {
    /// `most` turns at the same time.
    pub fn new(most: usize) -> Self {
        Self(Arc::new(Mutex::new(Turns {
            free: most,
            last: 0,
            served: HashMap::new(),
            waiting: Vec::new(),
        })))
    }

    /// Waits for the node's turn. It ends when it is dropped, or after a quarter of a second. Cancel safe.
    pub async fn take(&self, node: NodeId, tasks: &Tasks) -> FullMapTurn {
        let (sender, granted) = oneshot::channel();
        self.lock().waiting.push((node, sender));
        self.grant();
        // A turn is always granted in the end; without one the map would only be built earlier.
        let turn = granted.await.ok();
        let (over, dropped) = oneshot::channel();
        tasks.spawn("full map turn", async move {
            let _ = tokio::time::timeout(LONGEST, dropped).await;
            drop(turn);
        });
        FullMapTurn { _over: over }
    }

    /// Gives free turns to those that wait.
    fn grant(&self) {
        loop {
            let mut turns = self.lock();
            let Some(sender) = turns.next() else {
                return;
            };
            drop(turns);
            let turn = Turn {
                turns: Some(self.clone()),
            };
            // One that no longer waits leaves the turn to the next.
            if let Err(turn) = sender.send(turn) {
                turn.give_back();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Turns> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turns {
    /// Takes a turn for the one that was served longest ago, where there is a turn and one that waits.
    fn next(&mut self) -> Option<oneshot::Sender<Turn>> {
        self.waiting.retain(|(_, sender)| !sender.is_closed());
        let free = self.free.checked_sub(1)?;
        let served = |node: &NodeId| self.served.get(node).copied().unwrap_or_default();
        let waiting = self.waiting.iter().enumerate();
        let (place, _) = waiting.min_by_key(|(_, (node, _))| served(node))?;
        let (node, sender) = self.waiting.remove(place);
        self.free = free;
        self.last = self.last.saturating_add(1);
        self.served.insert(node, self.last);
        if self.served.len() > REMEMBERED {
            let oldest = self.served.iter().min_by_key(|(_, last)| **last);
            if let Some(oldest) = oldest.map(|(node, _)| *node) {
                self.served.remove(&oldest);
            }
        }
        Some(sender)
    }
}

/// A turn that was granted; the next one is granted when it is dropped.
#[derive(Debug)]
struct Turn {
    turns: Option<FullMapTurns>,
}

impl Turn {
    /// Gives the turn back without granting it to the next.
    fn give_back(mut self) {
        if let Some(turns) = self.turns.take() {
            let mut turns = turns.lock();
            turns.free = turns.free.saturating_add(1);
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(turns) = self.turns.take() {
            let mut locked = turns.lock();
            locked.free = locked.free.saturating_add(1);
            drop(locked);
            turns.grant();
        }
    }
}

/// The turn of a node.
#[derive(Debug)]
pub struct FullMapTurn {
    _over: oneshot::Sender<()>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::Instant;

    fn node(number: u64) -> NodeId {
        NodeId::new(number).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_that_is_kept_delays_the_others_for_its_longest_time_only() {
        let (turns, tasks) = (FullMapTurns::new(1), Tasks::new());
        let start = Instant::now();
        drop(turns.take(node(1), &tasks).await);
        let _kept = turns.take(node(1), &tasks).await;
        assert!(start.elapsed() < LONGEST);
        let waited = tokio::time::timeout(2 * LONGEST, turns.take(node(2), &tasks));
        assert!(waited.await.is_ok());
        assert!(start.elapsed() >= LONGEST);
    }

    #[tokio::test(start_paused = true)]
    async fn who_was_served_longest_ago_is_next_however_often_others_ask() {
        let (turns, tasks) = (FullMapTurns::new(1), Tasks::new());
        let order = Arc::new(Mutex::new(Vec::new()));
        let held = turns.take(node(1), &tasks).await;
        // Node 1 asks eight more times before node 2 asks once.
        for number in [1, 1, 1, 1, 1, 1, 1, 1, 2] {
            let (turns, order, own) = (turns.clone(), order.clone(), tasks.clone());
            tasks.spawn("client", async move {
                let _turn = turns.take(node(number), &own).await;
                order.lock().unwrap().push(number);
                // It reads nothing.
                tokio::time::sleep(10 * LONGEST).await;
            });
        }
        tokio::task::yield_now().await;
        drop(held);
        tokio::time::sleep(LONGEST / 2).await;
        assert_eq!(*order.lock().unwrap(), [2]);
        tokio::time::sleep(LONGEST * 10).await;
        assert_eq!(order.lock().unwrap().len(), 9);
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_is_not_lost_with_one_that_no_longer_waits() {
        let (turns, tasks) = (FullMapTurns::new(1), Tasks::new());
        let held = turns.take(node(1), &tasks).await;
        for number in 2..20 {
            let gave_up = tokio::time::timeout(Duration::ZERO, turns.take(node(number), &tasks));
            assert!(gave_up.await.is_err());
        }
        drop(held);
        let next = tokio::time::timeout(LONGEST, turns.take(node(1), &tasks));
        assert!(next.await.is_ok());
        assert!(turns.lock().waiting.is_empty());
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let turns = FullMapTurns::new(usize::MAX);
        for number in 1..2 * REMEMBERED {
            let (sender, _granted) = oneshot::channel();
            let mut turns = turns.lock();
            turns.waiting.push((node(number as u64), sender));
            assert!(turns.next().is_some());
        }
        assert_eq!(turns.lock().served.len(), REMEMBERED);
    }
}
