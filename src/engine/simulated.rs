//! The writer of a simulation: a task of the runtime whose clock the simulation has, in place of two threads.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::Duration;

use super::disk_thread::DiskThread;
use super::{Handle, Message, Patience, RETRY_AFTER, Writer};
use crate::store::{Loaded, Store};
use hearth_core::state::model::Settings;

/// How long a commit takes. What arrives meanwhile shares the next one.
const COMMIT: Duration = Duration::from_millis(3);

/// The parts of a simulated engine.
pub(crate) struct Simulated {
    /// Does its work until it is stopped. Dropped before, it ends like a process that was killed.
    pub(crate) writer: std::pin::Pin<Box<dyn Future<Output = ()> + Send>>,
    pub(crate) handle: Handle,
    pub(crate) stop: Stop,
}

/// Ends the writer as [`super::Engine::stop`] does, but does not wait.
pub(crate) struct Stop(Handle);

impl Stop {
    pub(crate) fn stop(&self) {
        let _ = self.0.send(Message::Stop);
    }
}

impl Simulated {
    /// An engine with what the database holds. The disk does not respond while `hangs` is set.
    pub(crate) fn start(
        store: Store,
        loaded: Loaded,
        settings: Settings,
        bounds: (usize, usize),
        hangs: Arc<AtomicBool>,
    ) -> Self {
        // What is not answered at once is not answered in time.
        let patience = Patience {
            commit: Duration::ZERO,
            close: Duration::ZERO,
            retry: RETRY_AFTER,
        };
        let disk = DiskThread::inline(store, hangs);
        let (writer, inbox, handle) = Writer::new(disk, loaded, settings, bounds, patience);
        Self {
            writer: Box::pin(writer.drive(inbox, handle.clone())),
            stop: Stop(handle.clone()),
            handle,
        }
    }
}

impl Writer {
    async fn drive(mut self, inbox: Receiver<Message>, handle: Handle) {
        let mut stopping = false;
        while !stopping {
            let (due, wait) = self.wait();
            let mut first = inbox.try_recv();
            if first.is_err() {
                let _ = tokio::time::timeout(wait, handle.wake.notified()).await;
                tokio::time::sleep(COMMIT).await;
                first = inbox.try_recv();
            }
            let first = first.map_err(|fault| match fault {
                TryRecvError::Empty => RecvTimeoutError::Timeout,
                TryRecvError::Disconnected => RecvTimeoutError::Disconnected,
            });
            stopping = self.turn(due, first, &inbox);
        }
        self.disk.close(self.patience.close);
    }
}
