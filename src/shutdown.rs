//! Shutdown request, and the signals of the operator.
//!
//! Must not know what has to be stopped.

use std::io;
use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Shutdown request to every part of the program. Clones share it; it cannot be withdrawn.
#[derive(Debug, Clone)]
pub struct Shutdown(Arc<watch::Sender<bool>>);

impl Default for Shutdown {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }
}

impl Shutdown {
    /// No shutdown requested.
    pub fn new() -> Self {
        Self::default()
    }

    /// Requests shutdown; a second call has no effect.
    pub fn trigger(&self) {
        self.0.send_replace(true);
    }

    /// Whether shutdown was requested.
    pub fn requested(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until shutdown is requested. Cancel safe.
    pub async fn wait(&self) {
        // The sender lives as long as `self`, so the wait ends only with the request.
        let _ = self.0.subscribe().wait_for(|requested| *requested).await;
    }
}

/// Signal of the operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM or SIGINT: stop. The second one stops at once.
    Stop,
    /// SIGHUP: reload.
    Reload,
}

/// Signal handlers of this process.
#[derive(Debug)]
pub struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
}

impl Signals {
    /// Installs the handlers in place of the default actions.
    ///
    /// # Errors
    /// If the system refuses the handlers.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for the next signal. Cancel safe.
    pub async fn next(&mut self) -> Signal {
        tokio::select! {
            biased;
            _ = self.terminate.recv() => Signal::Stop,
            _ = self.interrupt.recv() => Signal::Stop,
            _ = self.hangup.recv() => Signal::Reload,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn early_and_late_waiters_see_the_request() {
        let shutdown = Shutdown::new();
        let waiting = shutdown.clone();
        assert!(!shutdown.requested());
        tokio::join!(waiting.wait(), async { shutdown.trigger() });
        assert!(shutdown.requested());
        shutdown.clone().wait().await;
    }
}
