//! What the service manager hears of the control server.

use std::sync::Arc;

use crate::http::app::App;
use crate::service::{SystemdNotifier, Watchdog};
use crate::supervise::Tasks;

/// Tells that the server is ready, and from now on how it is.
pub(super) fn start(manager: &SystemdNotifier, app: &Arc<App>, tasks: &Tasks) {
    tell_ready(manager, app);
    if !manager.is_there() {
        return;
    }
    tasks.spawn("status", tell_status(manager.clone(), app.clone()));
    if let Some(watchdog) = Watchdog::of_this_process(manager) {
        let app = app.clone();
        tasks.spawn("watchdog", async move {
            // Not the database: a restart would not mend it, and what is known is served without it.
            let works = || async { app.engine.answers().await.is_ok() };
            watchdog.keep(works, app.shutdown.clone()).await;
        });
    }
}

/// Tells that the server does its work.
pub(super) fn tell_ready(manager: &SystemdNotifier, app: &App) {
    manager.ready(&status(app, app.engine.snapshot().is_writable()));
}

/// Tells each time when the database stops taking changes, or takes them again.
async fn tell_status(manager: SystemdNotifier, app: Arc<App>) {
    let mut states = app.engine.watch();
    let mut told = states.borrow().is_writable();
    loop {
        tokio::select! {
            biased;
            () = app.shutdown.wait() => return,
            changed = states.changed() => if changed.is_err() { return },
        }
        let is_writable = states.borrow_and_update().is_writable();
        if is_writable != told {
            told = is_writable;
            manager.status(&status(&app, is_writable));
        }
    }
}

fn status(app: &App, is_writable: bool) -> String {
    let url = &app.addresses.server_url;
    match is_writable {
        true => format!("serving {url}"),
        false => format!("serving {url}, but the database takes no changes: see the log"),
    }
}
