//! Query strings and path segments: percent encoding and decoding (RFC 3986 section 2.1).
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// All characters that are escaped: those that are not unreserved (RFC 3986 section 2.3).
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// Names and values of a query; `None` when an escape is invalid or not UTF-8.
pub fn pairs(query: &str) -> Option<Vec<(String, String)>> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((unescaped(key, true)?, unescaped(value, true)?))
        })
        .collect()
}

/// Value of a query parameter; empty when it is missing or invalid.
pub fn value(query: Option<&str>, key: &str) -> String {
    let pairs = pairs(query.unwrap_or_default()).unwrap_or_default();
    let found = pairs.into_iter().find(|(name, _)| name == key);
    found.map(|(_, value)| value).unwrap_or_default()
}

/// Decodes a path segment or a part of a query; `None` when an escape is invalid or not UTF-8.
///
/// `+` is a space in queries only.
pub fn unescaped(text: &str, plus_is_blank: bool) -> Option<String> {
    // The crate leaves invalid escapes as they are.
    let is_escape = |after: &str| {
        let digits = after.as_bytes().get(..2);
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    };
    if !text.split('%').skip(1).all(is_escape) {
        return None;
    }
    let decoded = match plus_is_blank {
        true => percent_decode_str(&text.replace('+', " ")).collect(),
        false => percent_decode_str(text).collect(),
    };
    String::from_utf8(decoded).ok()
}

/// Encodes a text as a path segment or a part of a query.
pub fn escaped(text: &str) -> String {
    utf8_percent_encode(text, RESERVED).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_escaped_is_unescaped_to_itself() {
        for text in ["", "a b", "$LOCAL_USER", "ä/&=+%", "AAE="] {
            assert_eq!(unescaped(&escaped(text), true).as_deref(), Some(text));
            assert_eq!(
                value(Some(&format!("x=1&k={}&k=2", escaped(text))), "k"),
                text
            );
        }
        assert_eq!(value(None, "k"), "");
        assert_eq!(value(Some("k=%zz"), "k"), "");
    }

    #[test]
    fn unreserved_characters_are_not_escaped() {
        assert_eq!(escaped("aZ09-._~ /\u{e4}"), "aZ09-._~%20%2F%C3%A4");
    }

    #[test]
    fn a_plus_is_a_space_in_queries_only() {
        assert_eq!(unescaped("a+b%2B", true).as_deref(), Some("a b+"));
        assert_eq!(unescaped("a+b%2B", false).as_deref(), Some("a+b+"));
    }

    #[test]
    fn invalid_escapes_and_those_that_are_not_utf8_are_refused() {
        for text in ["%", "a%2", "%zz", "%+1", "%ff", "%c3%28", "\u{e4}%\u{e4}"] {
            assert_eq!(unescaped(text, true), None, "{text}");
        }
        assert_eq!(pairs("a=1&b=%ff"), None);
    }
}
