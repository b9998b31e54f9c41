//! Pieces of text for people.

use hearth_core::clock::Timestamp;

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

/// A text from elsewhere for a terminal: without control characters, `-` when it is empty.
pub fn cell(text: &str) -> String {
    if text.is_empty() {
        return "-".into();
    }
    text.chars()
        .map(|letter| if letter.is_control() { '?' } else { letter })
        .collect()
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
        assert_eq!(cell(""), "-");
    }
}
