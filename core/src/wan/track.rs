//! Debouncing of the public addresses.
//!
//! A new address counts at once; soon after another change it must first remain for a while. A lost address
//! remains current for a while: after almost every loss it comes back, or another one comes.

use std::time::Duration;

use crate::wan::address::Addresses;

/// How long a lost address remains current.
pub const HOLD: Duration = Duration::from_secs(120);

/// A change within this time after another one must remain for [`SETTLE`].
pub const RESTLESS: Duration = Duration::from_secs(10);

/// See [`RESTLESS`].
pub const SETTLE: Duration = Duration::from_secs(1);

/// The current public addresses and the candidates to replace them. Times are on the monotonic clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Debounce {
    current: Addresses,
    changed: Option<Duration>,
    seen: Addresses,
    /// Since when `seen` is as it is.
    seen_since: Duration,
    v4_gone: Option<Duration>,
    v6_gone: Option<Duration>,
}

/// The result of an observation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// Whether the current addresses have changed.
    pub is_change: bool,
    /// The next observation is due after this time even without news.
    pub again_in: Option<Duration>,
}

impl Debounce {
    /// The current public addresses.
    pub fn current(&self) -> Addresses {
        self.current
    }

    /// Observes addresses.
    pub fn observe(&mut self, found: Addresses, now: Duration) -> Step {
        if found != self.seen {
            self.seen = found;
            self.seen_since = now;
        }
        let (v4, v4_due) = held(self.current.v4, found.v4, &mut self.v4_gone, now);
        let (v6, v6_due) = held(self.current.v6, found.v6, &mut self.v6_gone, now);
        let next = Addresses { v4, v6 };
        let expiry = v4_due.into_iter().chain(v6_due).min();
        if next == self.current {
            return Step {
                is_change: false,
                again_in: expiry,
            };
        }
        let since_change = self.changed.map(|changed| now.saturating_sub(changed));
        if since_change.is_some_and(|since| since < RESTLESS) {
            let stayed = now.saturating_sub(self.seen_since);
            let left = SETTLE.saturating_sub(stayed);
            if !left.is_zero() {
                return Step {
                    is_change: false,
                    again_in: Some(expiry.map_or(left, |due| due.min(left))),
                };
            }
        }
        // A first address is not a sign of instability.
        if !self.current.is_empty() {
            self.changed = Some(now);
        }
        self.current = next;
        Step {
            is_change: true,
            again_in: expiry,
        }
    }
}

/// The current address of one family, and when to check it again.
fn held<A: Copy>(
    current: Option<A>,
    found: Option<A>,
    gone: &mut Option<Duration>,
    now: Duration,
) -> (Option<A>, Option<Duration>) {
    if found.is_some() || current.is_none() {
        *gone = None;
        return (found, None);
    }
    let since = *gone.get_or_insert(now);
    let left = HOLD.saturating_sub(now.saturating_sub(since));
    match left.is_zero() {
        true => (None, None),
        false => (current, Some(left)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn v4(last: u8) -> Addresses {
        Addresses {
            v4: Some([203, 0, 113, last].into()),
            v6: None,
        }
    }

    const NONE: Addresses = Addresses { v4: None, v6: None };

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_first_and_a_later_change_count_at_once() {
        let mut debounce = Debounce::default();
        assert!(debounce.observe(v4(1), at(0)).is_change);
        assert!(!debounce.observe(v4(1), at(5)).is_change);
        assert!(debounce.observe(v4(2), at(100)).is_change);
        assert_eq!(debounce.current(), v4(2));
    }

    #[test]
    fn a_briefly_lost_address_remains_current() {
        let mut debounce = Debounce::default();
        debounce.observe(v4(1), at(0));
        let step = debounce.observe(NONE, at(100));
        assert_eq!((step.is_change, step.again_in), (false, Some(HOLD)));
        assert!(!debounce.observe(v4(1), at(150)).is_change);
        // The next loss restarts the timer.
        assert!(!debounce.observe(NONE, at(200)).is_change);
        assert!(!debounce.observe(NONE, at(200) + HOLD - at(1)).is_change);
        assert!(debounce.observe(NONE, at(200) + HOLD).is_change);
        assert_eq!(debounce.current(), NONE);
    }

    #[test]
    fn a_new_address_after_a_loss_counts_at_once() {
        let mut debounce = Debounce::default();
        debounce.observe(v4(1), at(0));
        debounce.observe(NONE, at(100));
        let step = debounce.observe(v4(2), at(103));
        assert_eq!((step.is_change, step.again_in), (true, None));
    }

    #[test]
    fn one_family_may_be_lost_while_the_other_stays() {
        let both = Addresses {
            v6: Some("2001:db8::1".parse().unwrap()),
            ..v4(1)
        };
        let mut debounce = Debounce::default();
        debounce.observe(both, at(0));
        debounce.observe(v4(1), at(100));
        assert_eq!(debounce.current(), both);
        assert!(debounce.observe(v4(1), at(100) + HOLD).is_change);
        assert_eq!(debounce.current(), v4(1));
    }

    #[test]
    fn soon_after_a_change_an_address_must_remain() {
        let mut debounce = Debounce::default();
        debounce.observe(v4(9), at(0));
        assert!(debounce.observe(v4(1), at(1)).is_change);
        let step = debounce.observe(v4(2), at(2));
        assert_eq!((step.is_change, step.again_in), (false, Some(SETTLE)));
        // Back again: no change.
        assert_eq!(debounce.observe(v4(1), at(2)).again_in, None);
        debounce.observe(v4(3), at(4));
        assert!(debounce.observe(v4(3), at(5)).is_change);
    }

    proptest! {
        #[test]
        fn flapping_causes_at_most_one_change_per_second(
            looks in proptest::collection::vec((0..400_u64, 0..4_u8), 0..200),
        ) {
            let mut debounce = Debounce::default();
            let mut now = Duration::from_secs(1000);
            let mut last_change = None;
            for (step, which) in looks {
                now += Duration::from_millis(step);
                let found = if which == 0 { NONE } else { v4(which) };
                let is_first = debounce.current().is_empty();
                if debounce.observe(found, now).is_change {
                    if let Some(last) = last_change {
                        prop_assert!(now - last >= SETTLE);
                    }
                    if !is_first {
                        last_change = Some(now);
                    }
                }
            }
        }

        #[test]
        fn what_remains_becomes_current(which in 1..4_u8, before in 0..4_u8) {
            let mut debounce = Debounce::default();
            debounce.observe(if before == 0 { NONE } else { v4(before) }, at(0));
            let mut now = at(1);
            while let Some(wait) = debounce.observe(v4(which), now).again_in {
                now += wait;
            }
            prop_assert_eq!(debounce.current(), v4(which));
        }
    }
}
