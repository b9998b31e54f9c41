//! Values of arguments.

use std::time::Duration;

use crate::config::value::parse_duration;
use crate::system_clock;
use hearth_core::clock::Timestamp;
use hearth_core::state::scope::Scope;

/// Most entries that the server gives at once.
const AUDIT_MAX: u32 = 1000;

/// A duration such as `24h`.
pub(super) fn duration(text: &str) -> Result<Duration, &'static str> {
    parse_duration(text).ok_or("expected a duration such as 90m, 24h or 180d")
}

/// The key lifetime of a user: a duration, `never` or `default`.
pub(super) fn key_lifetime(text: &str) -> Result<String, &'static str> {
    let known = text == "default" || text == "never";
    if known || parse_duration(text).is_some_and(|lifetime| !lifetime.is_zero()) {
        return Ok(text.into());
    }
    Err("expected a duration such as 90d, `never` or `default`")
}

/// A time: absolute, or as a duration from now.
pub(super) fn moment(text: &str) -> Result<Timestamp, &'static str> {
    let from_now = || Some(system_clock::now().wall.plus(parse_duration(text)?));
    Timestamp::parse(text)
        .or_else(from_now)
        .ok_or("expected a time such as 2027-01-31T12:00:00Z, or a duration from now such as 30d")
}

/// A scope, in its usual spelling.
pub(super) fn scope(text: &str) -> Result<String, String> {
    let scope = text.parse::<Scope>();
    scope
        .map(|scope| scope.to_string())
        .map_err(|error| error.to_string())
}

/// A number of entries of the audit log.
pub(super) fn entries(text: &str) -> Result<u32, &'static str> {
    let count = text.parse().ok();
    count
        .filter(|count| (1..=AUDIT_MAX).contains(count))
        .ok_or("expected a number from 1 to 1000")
}

/// When something expires that is valid for so long from now; `None` is never.
pub fn end_of(lifetime: Duration) -> Option<Timestamp> {
    (!lifetime.is_zero()).then(|| system_clock::now().wall.plus(lifetime))
}

/// The texts of a list; an empty text stands for an empty list.
pub fn given(list: Vec<String>) -> Vec<String> {
    let texts = list.into_iter().map(|text| text.trim().to_owned());
    texts.filter(|text| !text.is_empty()).collect()
}
