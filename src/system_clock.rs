//! The system's clocks. The only module that reads them.

use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hearth_core::clock::{Now, Timestamp};

/// Reads the wall clock and the monotonic clock.
#[expect(
    clippy::disallowed_methods,
    reason = "this module is the one place that reads clocks"
)]
pub fn now() -> Now {
    static START: OnceLock<Instant> = OnceLock::new();
    let mono = START.get_or_init(Instant::now).elapsed();
    let ms = match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
        Err(_) => 0,
    };
    Now {
        wall: Timestamp::from_unix_ms(ms),
        mono,
    }
}

/// Monotonic time of the system (`CLOCK_MONOTONIC`, also the clock of service managers). Unlike
/// [`Now::mono`] it is comparable between processes of this machine.
pub fn monotonic() -> Duration {
    let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC);
    // Every Linux has this clock; it counts from boot and is never negative.
    time.map(Duration::from).unwrap_or_default()
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
}
