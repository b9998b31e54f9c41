//! Owner of every task: tasks are spawned here with a name, awaited at the end, and aborted at a deadline.
//!
//! Must not know what the tasks do.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::{Id, JoinError, JoinSet};

/// A set of running tasks. Clones share the set.
///
/// The set itself is unbounded: code that spawns for a peer must hold one of the peer's permits.
#[derive(Debug, Clone, Default)]
pub struct Tasks(Arc<Mutex<Running>>);

#[derive(Debug, Default)]
struct Running {
    set: JoinSet<()>,
    names: HashMap<Id, &'static str>,
    closed: bool,
}

impl Tasks {
    /// An empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Spawns a task. After [`Tasks::finish`] has given up waiting, it is dropped instead.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn spawn(&self, name: &'static str, future: impl Future<Output = ()> + Send + 'static) {
        let mut running = self.lock();
        if running.closed {
            return;
        }
        // Boxed, so that the runtime's part of a task is compiled once and not for each kind of task.
        let future: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(future);
        let handle = running.set.spawn(future);
        running.names.insert(handle.id(), name);
        while let Some(ended) = running.set.try_join_next_with_id() {
            running.note(ended);
        }
    }

    /// Number of tasks in the set. Ended ones are removed at the next spawn.
    pub fn count(&self) -> usize {
        self.lock().set.len()
    }

    /// Waits for all tasks, also those spawned meanwhile, and aborts the ones still running after `grace`.
    ///
    /// Returns the names of the aborted tasks.
    pub async fn finish(&self, grace: Duration) -> Vec<&'static str> {
        let _ = tokio::time::timeout(grace, self.drain()).await;
        let (mut set, names) = {
            let mut running = self.lock();
            running.closed = true;
            (
                std::mem::take(&mut running.set),
                std::mem::take(&mut running.names),
            )
        };
        set.abort_all();
        let mut aborted = Vec::new();
        while let Some(ended) = set.join_next_with_id().await {
            if let Err(error) = ended
                && error.is_cancelled()
            {
                aborted.extend(names.get(&error.id()));
            }
        }
        aborted
    }

    /// Cancel safe: a task leaves the set only when it has ended.
    async fn drain(&self) {
        loop {
            let ended =
                std::future::poll_fn(|context| self.lock().set.poll_join_next_with_id(context));
            match ended.await {
                Some(ended) => self.lock().note(ended),
                None => return,
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Running> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Running {
    fn note(&mut self, ended: Result<(Id, ()), JoinError>) {
        let (id, error) = match ended {
            Ok((id, ())) => (id, None),
            Err(error) => (error.id(), Some(error)),
        };
        let name = self.names.remove(&id).unwrap_or("unnamed");
        if let Some(error) = error {
            tracing::error!(task = name, %error, "task failed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn tasks_may_spawn_tasks_and_all_are_awaited() {
        let tasks = Tasks::new();
        let inner = tasks.clone();
        let (done, is_done) = tokio::sync::oneshot::channel();
        tasks.spawn("outer", async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            inner.spawn("inner", async move {
                tokio::time::sleep(Duration::from_secs(1)).await;
                let _ = done.send(());
            });
        });
        assert!(tasks.finish(Duration::from_secs(4)).await.is_empty());
        assert_eq!(is_done.await, Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_does_not_end_is_aborted_and_named() {
        let tasks = Tasks::new();
        tasks.spawn("stubborn", std::future::pending());
        assert_eq!(tasks.finish(Duration::from_secs(4)).await, ["stubborn"]);
        tasks.spawn("late", std::future::pending());
        assert_eq!(tasks.count(), 0);
    }

    #[tokio::test]
    async fn ended_tasks_use_no_memory() {
        let tasks = Tasks::new();
        for _ in 0..100 {
            tasks.spawn("short", std::future::ready(()));
            tokio::task::yield_now().await;
        }
        assert!(tasks.count() <= 2);
    }
}
