//! Notifications about the control server to the service manager.

use std::sync::Arc;

use crate::control::context::ControlContext;
use crate::service::{SystemdNotifier, Watchdog};
use crate::supervise::Tasks;
use hearth_core::disk::DiskFault;

/// Notifies that the server is ready, and from now on of its status.
pub(super) fn start(notifier: &SystemdNotifier, context: &Arc<ControlContext>, tasks: &Tasks) {
    ready(notifier, context);
    if !notifier.is_there() {
        return;
    }
    tasks.spawn("status", watch_status(notifier.clone(), context.clone()));
    if let Some(watchdog) = Watchdog::of_this_process(notifier) {
        let context = context.clone();
        tasks.spawn("watchdog", async move {
            // Not the database: a restart would not repair it, and the server works read-only without it.
            let works = || async { context.engine.answers().await.is_ok() };
            watchdog.keep(works, context.shutdown.clone()).await;
        });
    }
}

/// Notifies that the server is ready.
pub(super) fn ready(notifier: &SystemdNotifier, context: &ControlContext) {
    notifier.ready(&status(context, context.engine.snapshot().disk_fault()));
}

/// Notifies whenever the database becomes read-only or writable again.
async fn watch_status(notifier: SystemdNotifier, context: Arc<ControlContext>) {
    let mut states = context.engine.watch();
    let mut last = states.borrow().disk_fault().cloned();
    loop {
        tokio::select! {
            biased;
            () = context.shutdown.wait() => return,
            changed = states.changed() => if changed.is_err() { return },
        }
        let fault = states.borrow_and_update().disk_fault().cloned();
        if fault != last {
            notifier.status(&status(&context, fault.as_ref()));
            last = fault;
        }
    }
}

fn status(context: &ControlContext, fault: Option<&Arc<DiskFault>>) -> String {
    let url = &context.server_url;
    match fault {
        None => format!("serving {url}"),
        Some(fault) => format!("serving {url}; the database is read-only: {fault}"),
    }
}
