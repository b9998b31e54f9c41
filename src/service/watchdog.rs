//! Signs of life, given only while the process really works.

use std::future::Future;
use std::time::Duration;

use super::Manager;
use crate::shutdown::Shutdown;

/// The variables of the watchdog. Source: `sd_watchdog_enabled(3)`.
const TIME_VARIABLE: &str = "WATCHDOG_USEC";
/// See [`TIME_VARIABLE`].
const PROCESS_VARIABLE: &str = "WATCHDOG_PID";

/// Signs of life in the time within which the service manager wants one. One may get lost.
const SIGNS: u32 = 3;

/// A service manager that restarts the process when it hears no sign of life.
#[derive(Debug, Clone)]
pub struct Watchdog {
    manager: Manager,
    within: Duration,
}

impl Watchdog {
    /// The watchdog that the service manager keeps over this process, if it keeps one.
    pub fn of_this_process(manager: &Manager) -> Option<Self> {
        let variable = |name| std::env::var(name).ok();
        let (time, process) = (variable(TIME_VARIABLE), variable(PROCESS_VARIABLE));
        let within = within(time.as_deref(), process.as_deref(), std::process::id())?;
        Some(Self::new(manager.clone(), within))
    }

    /// A watchdog that wants a sign of life within this time.
    pub fn new(manager: Manager, within: Duration) -> Self {
        Self { manager, within }
    }

    /// Gives signs of life until the server stops, each after `works` has said that everything works. An
    /// answer that does not come in time is none.
    ///
    /// Runs on the event loop, which thereby is watched too: while it hangs, nothing is asked.
    pub async fn keep<F>(self, works: impl Fn() -> F, shutdown: Shutdown)
    where
        F: Future<Output = bool>,
    {
        let period = self.within / SIGNS;
        let mut worked = true;
        loop {
            let asked = tokio::time::Instant::now();
            let works = tokio::select! {
                biased;
                () = shutdown.wait() => return,
                answer = tokio::time::timeout(period, works()) => answer.unwrap_or(false),
            };
            if works {
                self.manager.alive();
            } else if worked {
                let within_seconds = self.within.as_secs();
                tracing::error!(
                    within_seconds,
                    "hearth does not answer itself; if that lasts, the service manager restarts it"
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

/// The time within which this process has to give a sign, from the variables. Absent, zero, unreadable or
/// meant for another process is none.
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

    fn signs(socket: &UnixDatagram) -> usize {
        let mut room = [0; 64];
        std::iter::from_fn(|| socket.recv(&mut room).ok()).count()
    }

    #[test]
    fn the_variables_are_read_strictly() {
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
    async fn signs_stop_while_there_is_no_answer_and_come_back_with_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_nonblocking(true).unwrap();
        let manager = Manager::at(path.as_os_str());
        let shutdown = Shutdown::new();
        let state = Cell::new("works");
        let works = || async {
            match state.get() {
                "hangs" => std::future::pending().await,
                state => state == "works",
            }
        };
        let watchdog = Watchdog::new(manager, Duration::from_secs(30));
        let keeping = watchdog.keep(works, shutdown.clone());
        let telling = async {
            let minute = || tokio::time::sleep(Duration::from_millis(60_500));
            minute().await;
            assert_eq!(signs(&socket), 7, "at once, then every ten seconds");
            state.set("hangs");
            minute().await;
            assert_eq!(signs(&socket), 0);
            state.set("says no");
            minute().await;
            assert_eq!(signs(&socket), 0);
            state.set("works");
            minute().await;
            assert_eq!(signs(&socket), 6);
            shutdown.trigger();
        };
        tokio::join!(keeping, telling);
    }
}
