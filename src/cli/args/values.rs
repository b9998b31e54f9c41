//! Values of arguments.

use crate::api::parse_flag;
use crate::config::moment::{self, End};
use hearth_core::state::scope::Scope;

/// Most entries that the server gives at once.
const AUDIT_MAX: u32 = 1000;

/// When something ends: a duration from now, a date, a time, `now` or `never`.
pub(super) fn end(text: &str) -> Result<End, String> {
    moment::end(text).map_err(|fault| fault.to_string())
}

/// When a new key ends. As in other versions `0` is without expiry.
pub(super) fn key_end(text: &str) -> Result<End, String> {
    match text {
        "0" => Ok(End::Never),
        text => end(text),
    }
}

/// Yes or no, as a word that the API accepts as well.
pub(super) fn flag(text: &str) -> Result<bool, &'static str> {
    parse_flag(text).ok_or("expected true or false")
}

/// The key lifetime of a user: a duration, `never` or `default`.
pub(super) fn key_lifetime(text: &str) -> Result<String, String> {
    let text = text.trim().to_ascii_lowercase();
    if text != "default" {
        moment::lifetime(&text).map_err(|fault| format!("{fault}, nor `default`"))?;
    }
    Ok(text)
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

/// The texts of a list; an empty text stands for an empty list.
pub fn given(list: Vec<String>) -> Vec<String> {
    let texts = list.into_iter().map(|text| text.trim().to_owned());
    texts.filter(|text| !text.is_empty()).collect()
}
