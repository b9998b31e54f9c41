//! A token bucket: rate limiting with a burst.

use std::sync::Mutex;
use std::time::Duration;

/// A token bucket, shared by reference.
#[derive(Debug)]
pub struct TokenBucket {
    burst: u32,
    interval: Duration,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    tokens: u32,
    /// Monotonic time up to which tokens were added.
    counted_to: Duration,
}

impl TokenBucket {
    /// A full bucket of `burst` tokens, refilled by one each `interval`.
    pub fn new(burst: u32, interval: Duration) -> Self {
        let state = State {
            tokens: burst,
            counted_to: Duration::ZERO,
        };
        Self {
            burst,
            interval,
            state: Mutex::new(state),
        }
    }

    /// Takes a token; false if there is none. `now` is monotonic time.
    pub fn take(&self, now: Duration) -> bool {
        // The two numbers are valid in any combination; a panic elsewhere cannot spoil them.
        let mut state = self
            .state
            .lock()
            .unwrap_or_else(|poison| poison.into_inner());
        while state.tokens < self.burst {
            let next = state.counted_to.saturating_add(self.interval);
            if next > now {
                break;
            }
            state.tokens = state.tokens.saturating_add(1);
            state.counted_to = next;
        }
        if state.tokens == self.burst {
            state.counted_to = now;
        }
        match state.tokens.checked_sub(1) {
            Some(left) => {
                state.tokens = left;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_one_each_interval() {
        let bucket = TokenBucket::new(2, Duration::from_secs(1));
        let at = Duration::from_millis;
        assert!(bucket.take(at(10_000)) && bucket.take(at(10_000)));
        assert!(!bucket.take(at(10_900)));
        assert!(bucket.take(at(11_000)));
        assert!(!bucket.take(at(11_100)));
        assert!(bucket.take(at(12_000)));
        assert!(bucket.take(at(60_000)) && bucket.take(at(60_000)) && !bucket.take(at(60_000)));
    }
}
