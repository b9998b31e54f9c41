//! A token bucket for bytes, which tells how long to wait instead of refusing. Does no I/O.

use std::time::Duration;

/// So many bytes at once, so many a second after that.
///
/// Bytes are charged after they were read, so the bucket can be in debt; whoever made the debt
/// waits until it is paid. Those who wait go on in the order in which they were charged.
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    bytes_per_second: u32,
    burst: Duration,
    /// When the bucket is full again.
    full_at: Duration,
}

impl Bucket {
    /// A full bucket; none if the rate is zero, which means no limit. Both are in bytes.
    pub fn new(bytes_per_second: u32, burst: u32) -> Option<Self> {
        (bytes_per_second > 0).then(|| Bucket {
            bytes_per_second,
            burst: time_for(u64::from(burst), bytes_per_second),
            full_at: Duration::ZERO,
        })
    }

    /// Takes `bytes` out, and gives the moment from which on more may be taken; it is not later
    /// than `now` if the bucket is not empty.
    pub fn charge(&mut self, bytes: usize, now: Duration) -> Duration {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let cost = time_for(bytes, self.bytes_per_second);
        self.full_at = self.full_at.max(now).saturating_add(cost);
        self.full_at.saturating_sub(self.burst)
    }
}

/// How long `bytes` take at this rate.
fn time_for(bytes: u64, bytes_per_second: u32) -> Duration {
    let nanoseconds = bytes
        .saturating_mul(1_000_000_000)
        .checked_div(u64::from(bytes_per_second));
    Duration::from_nanos(nanoseconds.unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(100);

    #[test]
    fn a_burst_passes_and_then_the_rate_holds() {
        let mut bucket = Bucket::new(1000, 500).unwrap();
        assert!(bucket.charge(500, NOW) <= NOW);
        assert_eq!(bucket.charge(100, NOW), NOW + Duration::from_millis(100));
        assert_eq!(bucket.charge(100, NOW), NOW + Duration::from_millis(200));
        let later = NOW + Duration::from_secs(10);
        assert!(bucket.charge(500, later) <= later);
        assert!(bucket.charge(1, later) > later);
    }

    #[test]
    fn no_rate_is_no_limit() {
        assert!(Bucket::new(0, 500).is_none());
    }

    #[test]
    fn the_rate_is_kept_over_a_long_time() {
        let mut bucket = Bucket::new(70_000, 65_600).unwrap();
        let (mut now, mut taken) = (NOW, 0_u64);
        while now < NOW + Duration::from_secs(60) {
            now = now.max(bucket.charge(1400, now));
            taken += 1400;
        }
        assert!((4_200_000..=4_270_000).contains(&taken), "{taken}");
    }
}
