//! The system's clocks. The only module that reads them.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hearth_core::clock::{Boot, Now, Timestamp};
use nix::time::{ClockId, clock_gettime};

/// Reads the wall clock, and the monotonic clock that goes on while the machine sleeps (`CLOCK_BOOTTIME`): with the one that
/// stands still, a machine that wakes up would look like one whose clock was set.
#[expect(
    clippy::disallowed_methods,
    reason = "this module is the one place that reads clocks"
)]
pub fn now() -> Now {
    #[cfg(test)]
    if let Some(now) = simulated::now() {
        return now;
    }
    let boot = read(ClockId::CLOCK_BOOTTIME);
    let mono = boot.saturating_sub(started(boot));
    let ms = match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
        Err(_) => 0,
    };
    Now {
        wall: Timestamp::from_unix_ms(ms),
        mono,
    }
}

/// Time from boot to the first look at the clock, which is now unless there was one.
fn started(now: Duration) -> Duration {
    static START: OnceLock<Duration> = OnceLock::new();
    *START.get_or_init(|| now)
}

/// The run of the system. Where the kernel does not name it, no other start of hearth is in the same.
pub fn boot() -> Boot {
    #[cfg(test)]
    if let Some(boot) = simulated::boot() {
        return boot;
    }
    let named = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok();
    let first = named.as_deref().and_then(|id| id.get(..8));
    let id = first.and_then(|digits| u32::from_str_radix(digits, 16).ok());
    let random = || RandomState::new().build_hasher().finish() % u64::from(u32::MAX);
    let id = id.or_else(|| u32::try_from(random()).ok());
    Boot {
        id: id.unwrap_or_default().max(1),
        uptime: started(read(ClockId::CLOCK_BOOTTIME)),
    }
}

/// Monotonic time of the system (`CLOCK_MONOTONIC`, also the clock of service managers). Unlike
/// [`Now::mono`] it is comparable between processes of this machine.
pub fn monotonic() -> Duration {
    read(ClockId::CLOCK_MONOTONIC)
}

/// A clock that counts from boot: every Linux has it, and it is never negative.
fn read(clock: ClockId) -> Duration {
    clock_gettime(clock).map(Duration::from).unwrap_or_default()
}

/// The clocks of a simulated machine, for all code of the current thread.
#[cfg(test)]
pub(crate) mod simulated {
    use std::cell::Cell;
    use std::time::Duration;

    use tokio::time::Instant;

    use super::{Boot, Now, Timestamp};

    /// What the clocks show.
    #[derive(Debug, Clone, Copy)]
    pub(crate) struct Clocks {
        /// When the machine was switched on, on the clock of the runtime.
        pub(crate) booted: Instant,
        /// When hearth was started.
        pub(crate) started: Instant,
        /// Tells this run of the machine from others.
        pub(crate) boot: u32,
        /// What the wall clock showed when the machine was switched on, as it is set now.
        pub(crate) wall_at_boot: Timestamp,
    }

    thread_local! {
        static CLOCKS: Cell<Option<Clocks>> = const { Cell::new(None) };
    }

    /// Sets them; without clocks those of the system apply.
    pub(crate) fn set(clocks: Option<Clocks>) {
        CLOCKS.set(clocks);
    }

    /// What [`set`] set.
    pub(crate) fn get() -> Option<Clocks> {
        CLOCKS.get()
    }

    pub(super) fn now() -> Option<Now> {
        let clocks = CLOCKS.get()?;
        let now = Instant::now();
        Some(Now {
            wall: clocks.wall_at_boot.plus(now - clocks.booted),
            mono: now - clocks.started,
        })
    }

    pub(super) fn boot() -> Option<Boot> {
        let clocks = CLOCKS.get()?;
        let uptime: Duration = clocks.started - clocks.booted;
        Some(Boot {
            id: clocks.boot,
            uptime,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A library that reads 64-bit times where the system has 32 bits would return years or nothing here.
    #[test]
    fn the_monotonic_clock_is_that_of_the_system() {
        let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
        let seconds: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
        // The clock of /proc/uptime goes on while the machine sleeps, this one does not.
        assert!(monotonic() > Duration::ZERO);
        assert!(monotonic() < Duration::from_secs_f64(seconds + 60.0));
        let (first, second) = (monotonic(), monotonic());
        assert!(first <= second && second - first < Duration::from_secs(60));
    }

    #[test]
    fn the_time_since_the_start_goes_on_while_the_machine_sleeps() {
        let before = now().mono;
        let begun = read(ClockId::CLOCK_BOOTTIME);
        let start = begun.saturating_sub(before);
        let later = now().mono;
        // Since the same moment, by the clock of /proc/uptime.
        assert!(
            before <= later
                && later <= read(ClockId::CLOCK_BOOTTIME) - start + Duration::from_secs(1)
        );
        let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
        let seconds: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
        assert!(begun.as_secs_f64() < seconds + 1.0 && begun.as_secs_f64() > seconds - 60.0);
    }
}
