//! The wish to stop, and the signals that bring it.
//!
//! Must not know: what has to be stopped.

use std::io;
use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Tells every part of the program that it is to stop. Clones share the wish, which is never taken back.
#[derive(Debug, Clone)]
pub struct Shutdown(Arc<watch::Sender<bool>>);

impl Default for Shutdown {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }
}

impl Shutdown {
    /// Nothing is to stop yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks everything to stop. Asking twice changes nothing.
    pub fn trigger(&self) {
        self.0.send_replace(true);
    }

    /// Whether everything is to stop.
    pub fn requested(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until everything is to stop. Cancel safe.
    pub async fn wait(&self) {
        // The sender lives as long as `self`, so that waiting ends only with the wish.
        let _ = self.0.subscribe().wait_for(|requested| *requested).await;
    }
}

/// What the operator asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM or SIGINT: stop. The second one means at once.
    Stop,
    /// SIGHUP: read the files again.
    Reload,
}

/// The signals of this process.
#[derive(Debug)]
pub struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
}

impl Signals {
    /// Takes the signals over from their default action.
    ///
    /// # Errors
    /// When the system refuses the handlers.
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
    async fn those_who_wait_and_those_who_come_late_are_told() {
        let shutdown = Shutdown::new();
        let waiting = shutdown.clone();
        assert!(!shutdown.requested());
        tokio::join!(waiting.wait(), async { shutdown.trigger() });
        assert!(shutdown.requested());
        shutdown.clone().wait().await;
    }
}
