//! When a change of the addresses outside counts.
//!
//! A new address counts at once, unless the last change was a moment ago: then it has to stay. An address that
//! goes away stays good for a while: it comes back, or another one comes, after nearly each loss.

use std::time::Duration;

use crate::wan::address::Addresses;

/// How long an address that is gone is still told.
pub const HOLD: Duration = Duration::from_secs(120);

/// A change within this time after another one has to stay for [`SETTLE`].
pub const RESTLESS: Duration = Duration::from_secs(10);

/// See [`RESTLESS`].
pub const SETTLE: Duration = Duration::from_secs(1);

/// What counts now, and what may come to count. Times are on the monotonic clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Track {
    told: Addresses,
    changed: Option<Duration>,
    seen: Addresses,
    /// Since when `seen` is as it is.
    seen_since: Duration,
    v4_gone: Option<Duration>,
    v6_gone: Option<Duration>,
}

/// What follows from a look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// The addresses are others than before.
    pub is_change: bool,
    /// Without news the next step is due after this time.
    pub again_in: Option<Duration>,
}

impl Track {
    /// The addresses that count.
    pub fn told(&self) -> Addresses {
        self.told
    }

    /// Takes what a look has found.
    pub fn see(&mut self, found: Addresses, now: Duration) -> Step {
        if found != self.seen {
            self.seen = found;
            self.seen_since = now;
        }
        let (v4, v4_due) = held(self.told.v4, found.v4, &mut self.v4_gone, now);
        let (v6, v6_due) = held(self.told.v6, found.v6, &mut self.v6_gone, now);
        let next = Addresses { v4, v6 };
        let expiry = v4_due.into_iter().chain(v6_due).min();
        if next == self.told {
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
        // Getting a first address is no sign of restless times.
        if !self.told.is_empty() {
            self.changed = Some(now);
        }
        self.told = next;
        Step {
            is_change: true,
            again_in: expiry,
        }
    }
}

/// The address of one family that counts, and when that has to be looked at again.
fn held<A: Copy>(
    told: Option<A>,
    found: Option<A>,
    gone: &mut Option<Duration>,
    now: Duration,
) -> (Option<A>, Option<Duration>) {
    if found.is_some() || told.is_none() {
        *gone = None;
        return (found, None);
    }
    let since = *gone.get_or_insert(now);
    let left = HOLD.saturating_sub(now.saturating_sub(since));
    match left.is_zero() {
        true => (None, None),
        false => (told, Some(left)),
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
        let mut track = Track::default();
        assert!(track.see(v4(1), at(0)).is_change);
        assert!(!track.see(v4(1), at(5)).is_change);
        assert!(track.see(v4(2), at(100)).is_change);
        assert_eq!(track.told(), v4(2));
    }

    #[test]
    fn an_address_that_is_gone_for_a_moment_is_still_told() {
        let mut track = Track::default();
        track.see(v4(1), at(0));
        let step = track.see(NONE, at(100));
        assert_eq!((step.is_change, step.again_in), (false, Some(HOLD)));
        assert!(!track.see(v4(1), at(150)).is_change);
        // The time starts anew with the next loss.
        assert!(!track.see(NONE, at(200)).is_change);
        assert!(!track.see(NONE, at(200) + HOLD - at(1)).is_change);
        assert!(track.see(NONE, at(200) + HOLD).is_change);
        assert_eq!(track.told(), NONE);
    }

    #[test]
    fn a_new_address_after_a_loss_counts_at_once() {
        let mut track = Track::default();
        track.see(v4(1), at(0));
        track.see(NONE, at(100));
        let step = track.see(v4(2), at(103));
        assert_eq!((step.is_change, step.again_in), (true, None));
    }

    #[test]
    fn one_family_may_go_while_the_other_stays() {
        let both = Addresses {
            v6: Some("2001:db8::1".parse().unwrap()),
            ..v4(1)
        };
        let mut track = Track::default();
        track.see(both, at(0));
        track.see(v4(1), at(100));
        assert_eq!(track.told(), both);
        assert!(track.see(v4(1), at(100) + HOLD).is_change);
        assert_eq!(track.told(), v4(1));
    }

    #[test]
    fn in_restless_times_an_address_has_to_stay() {
        let mut track = Track::default();
        track.see(v4(9), at(0));
        assert!(track.see(v4(1), at(1)).is_change);
        let step = track.see(v4(2), at(2));
        assert_eq!((step.is_change, step.again_in), (false, Some(SETTLE)));
        // Back again: there was nothing.
        assert_eq!(track.see(v4(1), at(2)).again_in, None);
        track.see(v4(3), at(4));
        assert!(track.see(v4(3), at(5)).is_change);
    }

    proptest! {
        #[test]
        fn however_it_flaps_there_is_one_change_each_second_at_most(
            looks in proptest::collection::vec((0..400_u64, 0..4_u8), 0..200),
        ) {
            let mut track = Track::default();
            let mut now = Duration::from_secs(1000);
            let mut last_change = None;
            for (step, which) in looks {
                now += Duration::from_millis(step);
                let found = if which == 0 { NONE } else { v4(which) };
                let is_first = track.told().is_empty();
                if track.see(found, now).is_change {
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
        fn what_stays_is_told(which in 1..4_u8, before in 0..4_u8) {
            let mut track = Track::default();
            track.see(if before == 0 { NONE } else { v4(before) }, at(0));
            let mut now = at(1);
            while let Some(wait) = track.see(v4(which), now).again_in {
                now += wait;
            }
            prop_assert_eq!(track.told(), v4(which));
        }
    }
}
