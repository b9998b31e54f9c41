//! Suggestions for unknown words.

use strsim::osa_distance;

/// The most similar of `known`, if it is similar enough to suggest.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase().replace('-', "_");
    let allowed = word.chars().count() / 4 + 1;
    known
        .into_iter()
        .map(|candidate| (osa_distance(&word, candidate), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Whether two words differ by a slip.
pub fn is_near(word: &str, other: &str) -> bool {
    osa_distance(word, other) <= (other.len() / 4).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [&str; 4] = ["server_url", "listen.http", "listen.https", "derp.port"];

    #[test]
    fn a_typo_is_recognized() {
        assert_eq!(nearest("sever_url", KNOWN), Some("server_url"));
        assert_eq!(nearest("server-url", KNOWN), Some("server_url"));
        assert_eq!(nearest("listen.htpt", KNOWN), Some("listen.http"));
        assert_eq!(nearest("listen.httpss", KNOWN), Some("listen.https"));
    }

    #[test]
    fn an_unrelated_word_has_no_match() {
        assert_eq!(nearest("colour", KNOWN), None);
        assert_eq!(nearest("x", KNOWN), None);
    }
}
