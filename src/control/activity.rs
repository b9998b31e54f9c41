//! Activity: whether a control connection has requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::sleep;

use crate::net::gate::Ticket;

/// The requests of a control connection. Clones are of the same connection.
#[derive(Debug, Clone, Default)]
pub(super) struct Activity(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    running: AtomicUsize,
    /// Whether a request was begun since this was asked last.
    begun: AtomicBool,
}

/// A request that waits for its response, until dropped.
#[derive(Debug)]
pub(super) struct Running(Activity);

impl Activity {
    /// Begins a request.
    pub(super) fn begin(&self) -> Running {
        self.0.begun.store(true, Ordering::Relaxed);
        self.0.running.fetch_add(1, Ordering::Relaxed);
        Running(self.clone())
    }

    /// Waits until the connection, if it is not proven by then, has had no request for at least `idle`.
    pub(super) async fn ceased(&self, ticket: &Ticket, idle: Duration) {
        loop {
            sleep(idle).await;
            let was_active = self.0.begun.swap(false, Ordering::Relaxed);
            let is_active = self.0.running.load(Ordering::Relaxed) > 0;
            if !was_active && !is_active && !ticket.is_proven() {
                return;
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}
