//! What the service manager hears of the control server.

use std::sync::Arc;

use crate::control::context::ControlContext;
use crate::service::{Manager, Watchdog};
use crate::supervise::Tasks;

/// Tells that the server is ready, and from now on how it is.
pub(super) fn start(manager: &Manager, context: &Arc<ControlContext>, tasks: &Tasks) {
    tell_ready(manager, context);
    if !manager.is_there() {
        return;
    }
    tasks.spawn("status", tell_status(manager.clone(), context.clone()));
    if let Some(watchdog) = Watchdog::of_this_process(manager) {
        let context = context.clone();
        tasks.spawn("watchdog", async move {
            // Not the database: a restart would not mend it, and what is known is served without it.
            let works = || async { context.engine.answers().await.is_ok() };
            watchdog.keep(works, context.shutdown.clone()).await;
        });
    }
}

/// Tells that the server does its work.
pub(super) fn tell_ready(manager: &Manager, context: &ControlContext) {
    manager.ready(&status(context, context.engine.snapshot().is_writable()));
}

/// Tells each time when the database stops taking changes, or takes them again.
async fn tell_status(manager: Manager, context: Arc<ControlContext>) {
    let mut states = context.engine.watch();
    let mut told = states.borrow().is_writable();
    loop {
        tokio::select! {
            biased;
            () = context.shutdown.wait() => return,
            changed = states.changed() => if changed.is_err() { return },
        }
        let is_writable = states.borrow_and_update().is_writable();
        if is_writable != told {
            told = is_writable;
            manager.status(&status(&context, is_writable));
        }
    }
}

fn status(context: &ControlContext, is_writable: bool) -> String {
    let url = &context.server_url;
    match is_writable {
        true => format!("serving {url}"),
        false => format!("serving {url}, but the database takes no changes: see the log"),
    }
}
