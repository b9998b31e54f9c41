//! Suggestions for unknown words.

use strsim::osa_distance;

/// The most similar of `known`, if it is similar enough to suggest.
///
/// A dotted name is compared as a whole and by its last part, so that a key in the wrong section is
/// found as well.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase().replace('-', "_");
    let allowed = word.chars().count() / 4 + 1;
    known
        .into_iter()
        .map(|candidate| (score(&word, candidate), candidate))
        .filter(|(score, _)| *score <= allowed)
        .min()
        .map(|(_, candidate)| candidate)
}

/// The edit distance of whole names or of their last parts; lower is more similar.
fn score(word: &str, candidate: &str) -> usize {
    let (word_last, candidate_last) = (last_part(word), last_part(candidate));
    // A short last part is similar to everything, so it must match closely.
    let moved = match osa_distance(word_last, candidate_last) {
        0 => 1,
        changes if word_last.len() > 4 * changes => changes + 1,
        _ => usize::MAX,
    };
    osa_distance(word, candidate).min(moved)
}

fn last_part(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or_default()
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
    fn a_key_in_the_wrong_section_is_found() {
        assert_eq!(nearest("https", KNOWN), Some("listen.https"));
        assert_eq!(nearest("tls.port", KNOWN), Some("derp.port"));
    }

    #[test]
    fn an_unrelated_word_has_no_match() {
        assert_eq!(nearest("colour", KNOWN), None);
        assert_eq!(nearest("x", KNOWN), None);
    }
}
