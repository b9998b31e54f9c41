//! Lines of a log that others cause: said a few times, then counted.

use std::time::Duration;

use crate::bucket::Buckets;

/// Decides which lines are written. Each source has a burst, then one line in each interval.
#[derive(Debug)]
pub struct Lines<K> {
    sources: Buckets<K>,
    left_out: u32,
}

impl<K: Ord> Lines<K> {
    /// `burst` lines at once and one in each `interval`, for each of at most `most` sources; all others share one bucket.
    pub fn new(burst: u32, interval: Duration, most: usize) -> Self {
        Self {
            sources: Buckets::new(burst, interval, most),
            left_out: 0,
        }
    }

    /// Whether a line that `source` causes is written. If so, the number of lines, of any source, that were left out since
    /// the last one was.
    pub fn take(&mut self, source: K, now: Duration) -> Option<u32> {
        if self.sources.take(source, now) {
            return Some(std::mem::take(&mut self.left_out));
        }
        self.left_out = self.left_out.saturating_add(1);
        None
    }

    /// The number of lines that were left out since the last one was written.
    pub fn left_out(&self) -> u32 {
        self.left_out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_beyond_the_burst_are_counted_and_said_with_the_next() {
        let mut lines = Lines::new(2, Duration::from_secs(60), 8);
        let at = Duration::from_secs;
        assert_eq!(lines.take('a', at(0)), Some(0));
        assert_eq!(lines.take('a', at(0)), Some(0));
        for _ in 0..5 {
            assert_eq!(lines.take('a', at(1)), None);
        }
        // Another source is not held back by the first.
        assert_eq!(lines.take('b', at(1)), Some(5));
        assert_eq!(lines.take('a', at(61)), Some(0));
    }
}
