//! Watchdog keepalives, sent only while the process really works.

use std::future::Future;
use std::time::Duration;

use super::SystemdNotifier;
use crate::shutdown::Shutdown;

/// The environment variables of the watchdog. Source: `sd_watchdog_enabled(3)`.
const TIME_VARIABLE: &str = "WATCHDOG_USEC";
/// See [`TIME_VARIABLE`].
const PROCESS_VARIABLE: &str = "WATCHDOG_PID";

/// Keepalives per watchdog timeout, of which some may be lost.
const KEEPALIVES: u32 = 3;

/// The watchdog of the service manager, which restarts a process without keepalives.
#[derive(Debug, Clone)]
pub struct Watchdog {
    notifier: SystemdNotifier,
    within: Duration,
}

impl Watchdog {
    /// The watchdog of this process, if the service manager has one.
    pub fn of_this_process(notifier: &SystemdNotifier) -> Option<Self> {
        let variable = |name| std::env::var(name).ok();
        let (time, process) = (variable(TIME_VARIABLE), variable(PROCESS_VARIABLE));
        let within = within(time.as_deref(), process.as_deref(), std::process::id())?;
        Some(Self::new(notifier.clone(), within))
    }

    /// A watchdog with this timeout.
    pub fn new(notifier: SystemdNotifier, within: Duration) -> Self {
        Self { notifier, within }
    }

    /// Sends keepalives until the server stops, each after `works` has returned true. A late answer counts as
    /// false.
    ///
    /// Runs on the event loop, so that a hanging event loop sends no keepalives either.
    pub async fn keep<F>(self, works: impl Fn() -> F, shutdown: Shutdown)
    where
        F: Future<Output = bool>,
    {
        let period = self.within / KEEPALIVES;
        let mut worked = true;
        loop {
            let asked = tokio::time::Instant::now();
            let works = tokio::select! {
                biased;
                () = shutdown.wait() => return,
                answer = tokio::time::timeout(period, works()) => answer.unwrap_or(false),
            };
            if works {
                self.notifier.alive();
            } else if worked {
                let within_seconds = self.within.as_secs();
                tracing::error!(
                    within_seconds,
                    "health check failed; the service manager restarts hearth if this continues"
                );
            }
            worked = works;
            tokio::select! {
                biased;
                () = shutdown.wait() => return,
                () = tokio::time::sleep_until(asked + period) => {}
            }
        }
    }
}

/// The watchdog timeout from the variables. Missing, zero, invalid or meant for another process is `None`.
fn within(time: Option<&str>, process: Option<&str>, own: u32) -> Option<Duration> {
    let micros: u64 = time?.parse().ok()?;
    let is_ours = process.is_none_or(|id| id.parse() == Ok(own));
    (is_ours && micros > 0).then(|| Duration::from_micros(micros))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::os::unix::net::UnixDatagram;

    fn keepalives(socket: &UnixDatagram) -> usize {
        let mut room = [0; 64];
        std::iter::from_fn(|| socket.recv(&mut room).ok()).count()
    }

    #[test]
    fn the_variables_are_parsed_strictly() {
        let second = Some(Duration::from_secs(1));
        assert_eq!(within(Some("1000000"), None, 7), second);
        assert_eq!(within(Some("1000000"), Some("7"), 7), second);
        assert_eq!(within(Some("1000000"), Some("8"), 7), None);
        assert_eq!(within(Some("1000000"), Some("x"), 7), None);
        assert_eq!(within(Some("0"), None, 7), None);
        assert_eq!(within(Some("-1"), None, 7), None);
        assert_eq!(within(None, None, 7), None);
    }

    #[tokio::test(start_paused = true)]
    async fn keepalives_stop_while_there_is_no_answer_and_resume_with_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_nonblocking(true).unwrap();
        let notifier = SystemdNotifier::at(path.as_os_str());
        let shutdown = Shutdown::new();
        let state = Cell::new("works");
        let works = || async {
            match state.get() {
                "hangs" => std::future::pending().await,
                state => state == "works",
            }
        };
        let watchdog = Watchdog::new(notifier, Duration::from_secs(30));
        let keeping = watchdog.keep(works, shutdown.clone());
        let telling = async {
            let minute = || tokio::time::sleep(Duration::from_millis(60_500));
            minute().await;
            assert_eq!(keepalives(&socket), 7, "at once, then every ten seconds");
            state.set("hangs");
            minute().await;
            assert_eq!(keepalives(&socket), 0);
            state.set("fails");
            minute().await;
            assert_eq!(keepalives(&socket), 0);
            state.set("works");
            minute().await;
            assert_eq!(keepalives(&socket), 6);
            shutdown.trigger();
        };
        tokio::join!(keeping, telling);
    }
}
