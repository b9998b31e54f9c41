//! Public addresses of the server, as last determined.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

use hearth_core::wan::Report;

/// Timeout of a refresh.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Result of a refresh.
#[derive(Debug, Clone)]
pub struct Refreshed {
    /// Whether the addresses of the WAN interface differ from those of the refresh before.
    pub changed: bool,
    /// The current report.
    pub report: Arc<Report>,
}

/// Public addresses of the server.
#[derive(Debug, Clone)]
pub struct WanStatus {
    report: watch::Receiver<Arc<Report>>,
    refreshes: mpsc::Sender<oneshot::Sender<Refreshed>>,
}

impl WanStatus {
    /// Status that reads `report` and sends refresh requests to `refreshes`.
    pub fn new(
        report: watch::Receiver<Arc<Report>>,
        refreshes: mpsc::Sender<oneshot::Sender<Refreshed>>,
    ) -> Self {
        Self { report, refreshes }
    }

    /// The current report.
    pub fn report(&self) -> Arc<Report> {
        self.report.borrow().clone()
    }

    /// The reports from now on.
    pub fn watch(&self) -> watch::Receiver<Arc<Report>> {
        self.report.clone()
    }

    /// Checks the addresses now. `None` when too many refreshes are queued, or the server stops.
    /// Cancel safe: the refresh is done anyway.
    pub async fn refresh(&self) -> Option<Refreshed> {
        let (asker, answer) = oneshot::channel();
        self.refreshes.try_send(asker).ok()?;
        timeout(TIMEOUT, answer).await.ok()?.ok()
    }
}
