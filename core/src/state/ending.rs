//! How the ends of keys came about.

use std::time::Duration;

use crate::clock::{Now, Timestamp};

/// How an end came about, which says whether it moves when the clock is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ending {
    /// There is none, or somebody named the date: it stays.
    #[default]
    Date,
    /// It was a span of time from then on.
    Span(Span),
    /// Somebody ended it: for good, whatever the clock shows.
    Hand,
}

/// A span of time, and the clock that made its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// How long it lasts.
    pub life: Duration,
    /// The run of the system in which its end was made ([`crate::clock::Boot::id`]).
    pub boot: u32,
    /// What the clock showed at that boot ([`crate::clock::Boot::wall_ms`]).
    pub boot_ms: i64,
}

impl Span {
    /// When it began, if it ends at `end`.
    pub fn begin(&self, end: Timestamp) -> Timestamp {
        let life = i64::try_from(self.life.as_millis()).unwrap_or(i64::MAX);
        end.moved(life.saturating_neg())
    }
}

impl Ending {
    /// The end at `at`, where it is known: not if it was made by a clock that was not set.
    pub fn known(self, at: Option<Timestamp>) -> Option<Timestamp> {
        at.filter(|at| match self {
            Self::Span(span) => span.begin(*at).is_plausible(),
            Self::Date | Self::Hand => true,
        })
    }

    /// Whether what ends at `at` is over. Only by hand before the clock is plausible.
    pub fn is_over(self, at: Option<Timestamp>, now: Now) -> bool {
        let has_passed = |at| now.is_plausible() && at <= now.wall;
        self == Self::Hand || self.known(at).is_some_and(has_passed)
    }
}
