//! Pieces of text for people.

use std::fmt::Write as _;

use hearth_core::clock::Timestamp;
use hearth_core::visible::is_visible;

/// Width of the names in a [`card`].
const NAMES: usize = 14;

/// A line for each name with its value.
pub fn card(lines: &[(&str, String)]) -> String {
    let lines = lines.iter();
    let lines: Vec<String> = lines
        .map(|(name, value)| format!("{name:<NAMES$} {value}"))
        .collect();
    lines.join("\n")
}

/// A text from elsewhere for a terminal: with `?` for each character that cannot be seen, `-` when it is empty.
pub fn cell(text: &str) -> String {
    if text.is_empty() {
        return "-".into();
    }
    text.chars()
        .map(|letter| if is_visible(letter) { letter } else { '?' })
        .collect()
}

/// A text from elsewhere of several lines, without what cannot be seen.
pub fn lines(text: &str) -> String {
    let keeps = |letter: &char| is_visible(*letter) || matches!(letter, '\n' | '\t');
    text.chars().filter(keeps).collect()
}

/// JSON in which strings escape what cannot be seen: a terminal shows it as it is, a program reads the same.
pub fn escaped_json(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    for letter in json.chars() {
        if is_visible(letter) || letter == '\n' {
            escaped.push(letter);
            continue;
        }
        for unit in letter.encode_utf16(&mut [0; 2]) {
            // Writing to a String cannot fail.
            let _ = write!(escaped, "\\u{unit:04x}");
        }
    }
    escaped
}

/// A time to the second; `-` when there is none.
pub fn when(time: Option<Timestamp>) -> String {
    let Some(time) = time else { return "-".into() };
    let seconds = Timestamp::from_unix_ms(time.unix_seconds().saturating_mul(1000));
    seconds.to_string().replace('T', " ").replace('Z', " UTC")
}

/// `yes` or `no`.
pub fn yes_no(whether: bool) -> String {
    if whether { "yes" } else { "no" }.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_peers_cannot_steer_the_terminal() {
        assert_eq!(cell("a\u{1b}[31m\nb"), "a?[31m?b");
        assert_eq!(cell("na\u{200b}s\u{202e}\u{9b}x\u{2066}"), "na?s??x?");
        assert_eq!(lines("a\tb\u{9b}\u{202e}\nc"), "a\tb\nc");
        assert_eq!(cell(""), "-");
    }

    #[test]
    fn json_for_a_terminal_is_the_same_json() {
        let name = "a\u{1b}\u{7f}\u{9b}\u{200b}\u{202e}\u{2028}\u{e0041}Ä😀";
        let value = serde_json::json!({ "name": name, "list": [1, "x"] });
        for json in [value.to_string(), format!("{value:#}")] {
            let escaped = escaped_json(&json);
            let seen = |letter: char| is_visible(letter) || letter == '\n';
            assert!(escaped.chars().all(seen), "{escaped:?}");
            assert_eq!(
                serde_json::from_str::<serde_json::Value>(&escaped).unwrap(),
                value
            );
            assert!(escaped.contains("\\u009b\\u200b\\u202e"), "{escaped}");
        }
    }
}
