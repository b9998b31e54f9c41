//! Finds what somebody meant by a word that does not exist.

/// The one of `known` that is nearest to `word`, when one is near enough to offer.
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

fn score(word: &str, candidate: &str) -> usize {
    let last = |name: &str| name.rsplit('.').next().unwrap_or_default().to_owned();
    let (word_last, candidate_last) = (last(word), last(candidate));
    // A short last part alone is near to everything: it has to match well on its own.
    let moved = match distance(&word_last, &candidate_last) {
        0 => 1,
        changes if word_last.len() > 4 * changes => changes + 1,
        _ => usize::MAX,
    };
    distance(word, candidate).min(moved)
}

/// How many letters to insert, delete, replace or swap with the next one to get from `a` to `b`.
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().collect();
    let b: Vec<char> = b.chars().collect();
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    for (j, cell) in rows[0].iter_mut().enumerate() {
        *cell = j;
    }
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let replace = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replace.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [&str; 4] = ["server_url", "listen.http", "listen.https", "derp.port"];

    #[test]
    fn a_slip_of_the_finger_is_understood() {
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
