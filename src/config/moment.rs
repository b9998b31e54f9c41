//! When something ends: one grammar for the command line and the API.

use std::time::Duration;

use super::value::{parse_duration, show_duration};
pub use hearth_core::clock::End;
use hearth_core::clock::Timestamp;

/// Longest lifetime: a thousand years of 365 days. A longer one is a mistake, or means `never`.
pub const LONGEST: Duration = Duration::from_secs(1000 * 365 * 24 * 60 * 60);

/// Times from here on mean `never`: the last day of RFC 3339, which clients send for it.
const FOREVER: Timestamp = Timestamp::from_unix_ms(253_402_214_400_000);

/// An end as [`end`] reads it. A duration stays one, so that the server makes the time of it, by its own clock.
pub fn text(end: End) -> String {
    match end {
        End::Never => "never".into(),
        End::In(Duration::ZERO) => "now".into(),
        End::In(life) => show_duration(life),
        End::At(time) => time.to_string(),
    }
}

/// Why a text is no end or no lifetime.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidEnd {
    /// It is none of the forms.
    #[error(
        "{0:?} is neither a duration such as `90d`, a date such as `2027-01-31` (until the end of that day in UTC), a time \
         such as `2027-01-31T12:00:00Z`, `now` nor `never`"
    )]
    Form(String),
    /// It is not a lifetime.
    #[error("{0:?} is neither a duration such as `90d` nor `never`")]
    Lifetime(String),
    /// The duration is longer than [`LONGEST`].
    #[error("{0:?} is longer than 1000 years; to set no end, use `never`")]
    TooLong(String),
    /// The duration is zero.
    #[error("`0` is ambiguous: use `now` or `never`")]
    Zero,
}

/// Parses an end: `never`, `now`, a duration from now, a date, which lasts until its end in UTC, or a time. A time without
/// an offset is in UTC, and Go's zero time is never.
///
/// # Errors
/// Why it is none of these.
pub fn end(text: &str) -> Result<End, InvalidEnd> {
    let text = text.trim();
    if text.eq_ignore_ascii_case("never") {
        return Ok(End::Never);
    }
    if text.eq_ignore_ascii_case("now") {
        return Ok(End::In(Duration::ZERO));
    }
    match time(text) {
        Some(time) if time <= Timestamp::GO_ZERO || time >= FOREVER => return Ok(End::Never),
        Some(time) => return Ok(End::At(time)),
        None => {}
    }
    match duration(text) {
        Ok(lifetime) if lifetime.is_zero() => Err(InvalidEnd::Zero),
        Ok(lifetime) => Ok(End::In(lifetime)),
        Err(InvalidEnd::Lifetime(text)) => Err(InvalidEnd::Form(text)),
        Err(fault) => Err(fault),
    }
}

/// Parses a lifetime: a duration, or `never`, which is `None`.
///
/// # Errors
/// Why it is neither.
pub fn lifetime(text: &str) -> Result<Option<Duration>, InvalidEnd> {
    let text = text.trim();
    if text.eq_ignore_ascii_case("never") {
        return Ok(None);
    }
    match duration(text)? {
        lifetime if lifetime.is_zero() => Err(InvalidEnd::Lifetime(shortened(text))),
        lifetime => Ok(Some(lifetime)),
    }
}

fn duration(text: &str) -> Result<Duration, InvalidEnd> {
    match parse_duration(text) {
        Some(lifetime) if lifetime <= LONGEST => Ok(lifetime),
        Some(_) => Err(InvalidEnd::TooLong(shortened(text))),
        // The same with small numbers.
        None if parse_duration(&with_ones(text)).is_some() => {
            Err(InvalidEnd::TooLong(shortened(text)))
        }
        None => Err(InvalidEnd::Lifetime(shortened(text))),
    }
}

/// The text with `1` for each number.
fn with_ones(text: &str) -> String {
    let mut shape = String::new();
    for letter in text.chars() {
        match letter.is_ascii_digit() {
            true if shape.ends_with('1') => {}
            true => shape.push('1'),
            false => shape.push(letter),
        }
    }
    shape
}

/// A date, or a time as people and programs write it.
fn time(text: &str) -> Option<Timestamp> {
    let date = text.get(..10)?;
    let Some(rest) = text.get(10..).filter(|rest| !rest.is_empty()) else {
        return Timestamp::parse(&format!("{date}T23:59:59Z"));
    };
    let clock = rest.strip_prefix(['T', 't', ' '])?;
    let (clock, offset) = match clock.find(['Z', 'z', '+', '-']) {
        Some(at) => clock.split_at_checked(at)?,
        None => (clock.trim_end_matches(" UTC"), "Z"),
    };
    let seconds = if clock.len() == 5 { ":00" } else { "" };
    Timestamp::parse(&format!("{date}T{clock}{seconds}{offset}"))
}

/// The first characters of a text, for messages.
fn shortened(text: &str) -> String {
    text.chars().take(40).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(given: &str) -> String {
        match end(given) {
            Ok(end) => text(end),
            Err(fault) => fault.to_string(),
        }
    }

    #[test]
    fn an_end_is_a_word_a_duration_a_date_or_a_time() {
        for (text, time) in [
            ("never", "never"),
            ("Never", "never"),
            ("now", "now"),
            ("90m", "1h30m"),
            (" 2d ", "2d"),
            ("2027-01-31", "2027-01-31T23:59:59Z"),
            ("2027-01-31T12:00:00Z", "2027-01-31T12:00:00Z"),
            ("2027-01-31T12:00:00+02:00", "2027-01-31T10:00:00Z"),
            ("2027-01-31T12:00:00", "2027-01-31T12:00:00Z"),
            ("2027-01-31 12:00", "2027-01-31T12:00:00Z"),
            ("2027-01-31 12:00:00 UTC", "2027-01-31T12:00:00Z"),
            ("0001-01-01T00:00:00Z", "never"),
            ("9999-12-31", "never"),
            ("9999-12-31T23:59:59.999Z", "never"),
        ] {
            assert_eq!(read(text), time, "{text}");
            assert_eq!(read(&read(text)), time, "{text}");
        }
    }

    #[test]
    fn what_is_too_long_is_refused_and_names_never() {
        for text in [
            "1001y",
            "9999y",
            "99999y",
            "99999999999999999999y",
            "8000000h1m",
        ] {
            let refused = "is longer than 1000 years; to set no end, use `never`";
            if text != "8000000h1m" {
                assert!(read(text).ends_with(refused), "{text}: {}", read(text));
                assert!(lifetime(text).is_err(), "{text}");
            } else {
                assert_eq!(read(text), "333333d8h1m");
            }
        }
        assert_eq!(read("1000y"), "365000d");
        assert_eq!(read("0"), InvalidEnd::Zero.to_string());
        for text in [
            "",
            "soon",
            "5",
            "5x",
            "-1d",
            "2027-02-30",
            "2027-1-3",
            "12:00",
            "1.5h",
        ] {
            assert!(read(text).contains("`never`"), "{text}: {}", read(text));
        }
    }

    #[test]
    fn a_lifetime_is_a_duration_or_never() {
        assert_eq!(lifetime("NEVER"), Ok(None));
        assert_eq!(lifetime("1h"), Ok(Some(Duration::from_secs(3600))));
        for text in ["", "0", "0s", "soon", "2027-01-31", "now"] {
            assert!(lifetime(text).is_err(), "{text}");
        }
    }
}
