//! Paths and queries of requests, unescaped (RFC 3986 section 2.1).
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

/// The pairs of a query; `None` when its escapes are not UTF-8.
pub fn pairs(query: &str) -> Option<Vec<(String, String)>> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((unescaped(key, true)?, unescaped(value, true)?))
        })
        .collect()
}

/// The value of a key in a query; empty when it is not there or cannot be read.
pub fn value(query: Option<&str>, key: &str) -> String {
    let pairs = pairs(query.unwrap_or_default()).unwrap_or_default();
    let found = pairs.into_iter().find(|(name, _)| name == key);
    found.map(|(_, value)| value).unwrap_or_default()
}

/// A part of a path or query as it was meant; `None` when its escapes are not UTF-8.
pub fn unescaped(text: &str, plus_is_blank: bool) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                let digits = std::str::from_utf8(&digits).ok()?;
                if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                    return None;
                }
                u8::from_str_radix(digits, 16).ok()?
            }
            b'+' if plus_is_blank => b' ',
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

/// A text as one part of a path or query: all but unreserved characters are escaped (section 2.3).
pub fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(byte.into());
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
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
}
