//! The program of `wan.on_change`, which runs after a change of the public addresses.
//!
//! One at a time: after a change while it runs, it runs once more.

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use tokio::process::Command;
use tokio::sync::watch;

use crate::config::wan::Program;
use crate::shutdown::Shutdown;
use hearth_core::wan::Report;

/// Timeout of the program.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The only environment variable that it inherits.
const PATH: &str = "PATH";

/// Runs the program after each change of the public addresses, until the server stops.
pub(super) async fn keep_running(
    program: Program,
    mut reports: watch::Receiver<Arc<Report>>,
    shutdown: Shutdown,
) {
    let mut last = reports.borrow_and_update().public;
    loop {
        tokio::select! {
            () = shutdown.wait() => return,
            changed = reports.changed() => if changed.is_err() { return },
        }
        let report = reports.borrow_and_update().clone();
        if report.public == last {
            continue;
        }
        last = report.public;
        tokio::select! {
            () = shutdown.wait() => return,
            () = run(&program, &report) => {}
        }
    }
}

async fn run(program: &Program, report: &Report) {
    let path = program.path.display();
    let text = |ip: Option<String>| ip.unwrap_or_default();
    let mut command = Command::new(&program.path);
    command
        .args(&program.arguments)
        .env_clear()
        .envs(std::env::var_os(PATH).map(|value| (PATH, value)))
        .env(
            "HEARTH_WAN_IPV4",
            text(report.public.v4.map(|ip| ip.to_string())),
        )
        .env(
            "HEARTH_WAN_IPV6",
            text(report.public.v6.map(|ip| ip.to_string())),
        )
        .env("HEARTH_WAN_INTERFACE", &report.interface)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(fault) => {
            tracing::warn!(%path, %fault, "cannot start the program of wan.on_change");
            return;
        }
    };
    match tokio::time::timeout(TIMEOUT, child.wait()).await {
        Ok(Ok(status)) if status.success() => {
            tracing::info!(%path, "the program of wan.on_change succeeded");
        }
        Ok(Ok(status)) => tracing::warn!(%path, %status, "the program of wan.on_change failed"),
        Ok(Err(fault)) => {
            tracing::warn!(%path, %fault, "lost track of the program of wan.on_change")
        }
        Err(_) => {
            tracing::warn!(%path, "the program of wan.on_change timed out and was killed");
            // Waiting for it prevents a zombie.
            let _ = child.kill().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::Path;

    use super::*;
    use hearth_core::wan::Addresses;

    #[expect(clippy::disallowed_methods, reason = "nobody misses a file of a test")]
    fn executable(path: &Path, text: &str) {
        std::fs::write(path, text).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[tokio::test]
    async fn the_program_gets_arguments_and_addresses_and_no_shell() {
        let dir = tempfile::tempdir().unwrap();
        let script = dir.path().join("changed");
        let out = dir.path().join("out");
        // Renamed when complete, so that a reader gets all of it.
        let text = "#!/bin/sh\nenv >\"$2.new\"\necho \"$1\" >>\"$2.new\"\nmv \"$2.new\" \"$2\"\n";
        executable(&script, text);
        let program = Program {
            path: script,
            arguments: vec!["a b; $(c)".into(), out.display().to_string()],
        };
        let (reports, watched) = watch::channel(Arc::new(Report::default()));
        let shutdown = Shutdown::new();
        let running = keep_running(program, watched, shutdown.clone());
        let changes = async {
            // The same addresses are not a change.
            reports.send_replace(Arc::new(Report::default()));
            tokio::task::yield_now().await;
            assert!(!out.exists());
            let public = Addresses {
                v4: Some([203, 0, 113, 5].into()),
                v6: None,
            };
            reports.send_replace(Arc::new(Report {
                public,
                interface: "wan".into(),
                ..Report::default()
            }));
            let text = tokio::time::timeout(Duration::from_secs(20), async {
                loop {
                    match std::fs::read_to_string(&out) {
                        Ok(text) => return text,
                        Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
                    }
                }
            });
            let text = text.await.unwrap();
            for line in [
                "HEARTH_WAN_IPV4=203.0.113.5",
                "HEARTH_WAN_IPV6=",
                "a b; $(c)",
            ] {
                assert!(text.lines().any(|found| found == line), "{text}");
            }
            assert!(!text.contains("CARGO"), "{text}");
            shutdown.trigger();
        };
        tokio::join!(running, changes);
    }
}
