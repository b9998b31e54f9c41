//! Time as a value: [`Timestamp`] and [`Now`].
//!
//! Code takes them as parameters, so that tests choose the time; `system_clock` reads the clocks.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Earliest plausible time (2026-01-01): no correct clock shows a time before this program was written.
///
/// Routers without a real-time clock start in 1970 or at the date of their firmware: nothing expires until the
/// time is plausible.
pub const PLAUSIBLE_FROM: Timestamp = Timestamp(1_767_225_600_000);

/// Times before this one (1980-01-01) were reckoned from a clock that started in 1970.
pub const CLOCKLESS_BEFORE: Timestamp = Timestamp(315_532_800_000);

/// Digits of [`Timestamp::stamp`].
const STAMP_DIGITS: usize = 14;

/// A wall-clock time in milliseconds since 1970 (UTC).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The first time that Go can express, 0001-01-01T00:00:00Z: what its programs send for a time that is not set.
    pub const GO_ZERO: Self = Self(-62_135_596_800_000);

    /// The last time that RFC 3339 can express, 9999-12-31T23:59:59.999Z. No sum is later.
    pub const LAST: Self = Self(253_402_300_799_999);

    /// The time `ms` milliseconds after 1970.
    pub const fn from_unix_ms(ms: i64) -> Self {
        Self(ms)
    }

    /// Milliseconds since 1970.
    pub const fn unix_ms(self) -> i64 {
        self.0
    }

    /// Whole seconds since 1970, rounded down.
    pub const fn unix_seconds(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// This time plus `duration`, at most [`Self::LAST`].
    pub fn plus(self, duration: Duration) -> Self {
        let ms = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        Self(self.0.saturating_add(ms)).min(Self::LAST)
    }

    /// This time moved by so many milliseconds, saturating at the ends.
    pub fn moved(self, ms: i64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// Time elapsed since `earlier`; zero if `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        let ms = self.0.saturating_sub(earlier.0).max(0);
        Duration::from_millis(ms.unsigned_abs())
    }

    /// Whether a clock that shows this time may be right; see [`PLAUSIBLE_FROM`].
    pub fn is_plausible(self) -> bool {
        self >= PLAUSIBLE_FROM
    }

    /// The time as names of files have it, in UTC: `YYYYMMDD-HHMMSS`.
    pub fn stamp(self) -> String {
        // RFC 3339 is `YYYY-MM-DDTHH:MM:SS…`.
        let text = self.to_string();
        let digits = text.chars().filter(char::is_ascii_digit);
        let digits: String = digits.take(STAMP_DIGITS).collect();
        let (day, time) = digits.split_at_checked(8).unwrap_or((&digits, ""));
        format!("{day}-{time}")
    }

    /// Parses what [`Self::stamp`] gives.
    pub fn parse_stamp(text: &str) -> Option<Self> {
        let (day, time) = text.split_once('-')?;
        let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if day.len() != 8 || time.len() != 6 || !is_number(day) || !is_number(time) {
            return None;
        }
        let (year, day) = day.split_at_checked(4)?;
        let (month, day) = day.split_at_checked(2)?;
        let (hour, rest) = time.split_at_checked(2)?;
        let (minute, second) = rest.split_at_checked(2)?;
        Self::parse(&format!("{year}-{month}-{day}T{hour}:{minute}:{second}Z"))
    }

    /// Parses RFC 3339; `None` for invalid text and for years outside 0..=9999.
    pub fn parse(text: &str) -> Option<Self> {
        let parsed = OffsetDateTime::parse(text, &Rfc3339).ok()?;
        let ms = parsed.unix_timestamp_nanos().div_euclid(1_000_000);
        // An offset may lead to another year.
        let time = i64::try_from(ms).ok().map(Self)?;
        Some(time.min(Self::LAST))
    }
}

impl fmt::Display for Timestamp {
    /// RFC 3339 in UTC, the format that Go reads and writes. A time outside of its years is shown as the nearest one inside.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.0.clamp(Self::GO_ZERO.0, Self::LAST.0);
        let nanos = i128::from(shown).saturating_mul(1_000_000);
        let text = OffsetDateTime::from_unix_timestamp_nanos(nanos)
            .ok()
            .and_then(|moment| moment.format(&Rfc3339).ok());
        f.write_str(text.as_deref().unwrap_or("0001-01-01T00:00:00Z"))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("expected an RFC 3339 time"))
    }
}

/// When something ends, as it was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It does not.
    Never,
    /// So long after now; zero is now, for good.
    In(Duration),
    /// At this time.
    At(Timestamp),
}

impl End {
    /// The time, if it is `now`; `None` is never.
    pub fn time(self, now: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Never => None,
            Self::In(life) => Some(now.plus(life)),
            Self::At(time) => Some(time),
        }
    }
}

/// One run of the system, from boot to shutdown: while it lasts, monotonic times can be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Boot {
    /// Tells it from other runs; never zero.
    pub id: u32,
    /// Time from boot to the start of hearth, which is the monotonic zero.
    pub uptime: Duration,
}

impl Default for Boot {
    fn default() -> Self {
        Self {
            id: 1,
            uptime: Duration::ZERO,
        }
    }
}

impl Boot {
    /// What the wall clock showed at boot, as it is set now, in milliseconds since 1970.
    pub fn wall_ms(&self, now: Now) -> i64 {
        let uptime = i64::try_from(self.uptime.as_millis()).unwrap_or(i64::MAX);
        now.offset_ms().saturating_sub(uptime)
    }
}

/// The current time, read once for each decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Wall-clock time; may jump.
    pub wall: Timestamp,
    /// Monotonic time since the program started; never jumps.
    pub mono: Duration,
}

impl Now {
    /// Whether the wall clock is plausible; see [`PLAUSIBLE_FROM`].
    pub fn is_plausible(&self) -> bool {
        self.wall.is_plausible()
    }

    /// Wall-clock time at the monotonic zero, in milliseconds since 1970. Changes when the clock is set.
    pub fn offset_ms(&self) -> i64 {
        let mono = i64::try_from(self.mono.as_millis()).unwrap_or(i64::MAX);
        self.wall.0.saturating_sub(mono)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_survive_text() {
        let time = Timestamp::from_unix_ms(1_767_225_600_123);
        assert_eq!(time.to_string(), "2026-01-01T00:00:00.123Z");
        assert_eq!(Timestamp::parse(&time.to_string()), Some(time));
    }

    #[test]
    fn no_time_is_shown_as_one_of_another_millennium() {
        let century = Duration::from_secs(100 * 365 * 24 * 60 * 60);
        let mut time = PLAUSIBLE_FROM;
        for _ in 0..200 {
            let later = time.plus(century);
            assert!(
                later >= time && later.to_string() >= time.to_string(),
                "{later}"
            );
            time = later;
        }
        assert_eq!(time, Timestamp::LAST);
        assert_eq!(
            time.plus(Duration::MAX).to_string(),
            "9999-12-31T23:59:59.999Z"
        );
        assert_eq!(
            Timestamp::from_unix_ms(i64::MAX).to_string(),
            Timestamp::LAST.to_string()
        );
        assert_eq!(
            Timestamp::from_unix_ms(i64::MIN).to_string(),
            "0001-01-01T00:00:00Z"
        );
        assert_eq!(
            Timestamp::parse("9999-12-31T23:59:59-12:00"),
            Some(Timestamp::LAST)
        );
    }

    #[test]
    fn go_times_are_read() {
        let nanos = Timestamp::parse("2026-01-01T02:00:00.123456789+02:00");
        assert_eq!(nanos, Some(Timestamp::from_unix_ms(1_767_225_600_123)));
        assert!(Timestamp::parse("0001-01-01T00:00:00Z").is_some_and(|t| t.unix_ms() < 0));
        assert_eq!(Timestamp::parse("yesterday"), None);
    }
}
