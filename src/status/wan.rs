//! Where the addresses outside are known, for those who ask about them.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

use hearth_core::wan::Report;

/// How long a refresh may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a refresh gave.
#[derive(Debug, Clone)]
pub struct Refreshed {
    /// Whether the addresses of the interface outside are others than at the refresh before.
    pub changed: bool,
    /// What is known now.
    pub report: Arc<Report>,
}

/// Where the addresses outside are known.
#[derive(Debug, Clone)]
pub struct WanStatus {
    report: watch::Receiver<Arc<Report>>,
    refreshes: mpsc::Sender<oneshot::Sender<Refreshed>>,
}

impl WanStatus {
    /// Knows what `report` says; a refresh is asked for by `refreshes`.
    pub fn new(
        report: watch::Receiver<Arc<Report>>,
        refreshes: mpsc::Sender<oneshot::Sender<Refreshed>>,
    ) -> Self {
        Self { report, refreshes }
    }

    /// What is known.
    pub fn report(&self) -> Arc<Report> {
        self.report.borrow().clone()
    }

    /// Has the addresses looked at now. `None` when too many wait for that already, or the server stops.
    /// Cancel safe: then the look happens all the same.
    pub async fn refresh(&self) -> Option<Refreshed> {
        let (asker, answer) = oneshot::channel();
        self.refreshes.try_send(asker).ok()?;
        timeout(PATIENCE, answer).await.ok()?.ok()
    }
}
