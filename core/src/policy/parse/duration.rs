//! Durations as Go writes them: `12h`, `1h30m`.

use std::time::Duration;

const SECOND: u128 = 1_000_000_000;

/// Nanoseconds of each unit. Source: `ParseDuration` of Go's package `time`.
const UNITS: &[(&str, u128)] = &[
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("ms", 1_000_000),
    ("s", SECOND),
    ("m", 60 * SECOND),
    ("h", 3600 * SECOND),
];

/// A duration and whether it is below zero.
///
/// # Errors
///
/// Texts of Go's `ParseDuration`.
pub fn parse(text: &str) -> Result<(Duration, bool), String> {
    let invalid = || format!("time: invalid duration {text:?}");
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok((Duration::ZERO, false));
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut nanos = 0u128;
    while !rest.is_empty() {
        let digits = |text: &str| {
            text.find(|c: char| !c.is_ascii_digit())
                .unwrap_or(text.len())
        };
        let (whole, after) = rest.split_at(digits(rest));
        let (fraction, after) = match after.strip_prefix('.') {
            Some(after) => after.split_at(digits(after)),
            None => ("", after),
        };
        if whole.is_empty() && fraction.is_empty() || whole.len() > 18 || fraction.len() > 18 {
            return Err(invalid());
        }
        let end = after
            .find(|c: char| c == '.' || c.is_ascii_digit())
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        if unit.is_empty() {
            return Err(format!("time: missing unit in duration {text:?}"));
        }
        let Some((_, size)) = UNITS.iter().find(|(known, _)| *known == unit) else {
            return Err(format!("time: unknown unit {unit:?} in duration {text:?}"));
        };
        let number = |digits: &str| digits.parse::<u128>().unwrap_or(0);
        let places = u32::try_from(fraction.len()).unwrap_or(0);
        let part = number(fraction)
            .checked_mul(*size)
            .and_then(|part| part.checked_div(10u128.checked_pow(places)?));
        let sum = number(whole)
            .checked_mul(*size)
            .zip(part)
            .and_then(|(whole, part)| whole.checked_add(part)?.checked_add(nanos));
        nanos = sum.ok_or_else(invalid)?;
        rest = after;
    }
    match u64::try_from(nanos) {
        Ok(nanos) if i64::try_from(nanos).is_ok() => {
            Ok((Duration::from_nanos(nanos), negative && nanos > 0))
        }
        _ => Err(invalid()),
    }
}

/// As Go prints it: `200h0m0s`. Parts of seconds are left out.
pub fn text(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, _) => format!("{minutes}m{seconds}s"),
        _ => format!("{hours}h{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_in_go() {
        for (input, seconds, negative) in [
            ("12h", 43_200, false),
            ("168h0m1s", 604_801, false),
            ("1.5h", 5_400, false),
            ("-1m", 60, true),
            ("0", 0, false),
            ("0s", 0, false),
            ("1000ms", 1, false),
        ] {
            assert_eq!(
                parse(input),
                Ok((Duration::from_secs(seconds), negative)),
                "{input}"
            );
        }
        for (input, wanted) in [
            ("abc", "time: invalid duration \"abc\""),
            ("", "time: invalid duration \"\""),
            ("12", "time: missing unit in duration \"12\""),
            ("12d", "time: unknown unit \"d\" in duration \"12d\""),
            (
                "9999999999999h",
                "time: invalid duration \"9999999999999h\"",
            ),
        ] {
            assert_eq!(parse(input), Err(wanted.to_owned()));
        }
        assert_eq!(text(Duration::from_secs(604_801)), "168h0m1s");
    }
}
