//! The keys that a text with syntax errors mentions, whether or not a parser understands it.

use super::keys::{self, Name};
use super::near::is_near;

/// A word where keys are written, with what is known of its section.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mention {
    /// The word.
    word: String,
    /// The section or the part of the dotted name before it; empty if there is none.
    parent: String,
    /// Its line, from 1.
    pub(super) line: usize,
    /// Whether it consists of several words, which a symbol too many may have parted.
    pub(super) is_joined: bool,
    /// Whether it stands where a key or section does: first on its line, or before `=` or `:`. On a line that has an
    /// error and neither of these, the others count, too: it is in the syntax of another file, such as `option http off`.
    pub(super) is_key: bool,
}

impl Mention {
    /// The dotted name, as far as it is known.
    pub(super) fn name(&self) -> String {
        match self.parent.as_str() {
            "" => self.word.clone(),
            parent => format!("{parent}.{}", self.word),
        }
    }

    /// Whether this may be `key`. On a line with an error the rest of the word may be missing, and a section's
    /// name stands for all its keys.
    pub(super) fn may_mean(&self, key: &str, is_broken: bool) -> bool {
        // In a text with errors the section is a guess.
        if Name::of(&self.word).may_mean(key) {
            return true;
        }
        let (section, last) = keys::parts(key);
        let word = keys::plain(&self.word);
        let is_part = |whole: &str| whole.starts_with(&word) || whole.ends_with(&word);
        let is_here = self.parent == section;
        let is_long = |whole: &str| word.len() > 2 || is_here && word.len() * 3 >= whole.len();
        let is_cut = |whole: &str| is_long(whole) && is_part(whole);
        let is_section = is_cut(section) || is_near(&word, section);
        let is_last = is_cut(last) && (is_here || !keys::is_generic(last));
        is_broken && (is_section || is_last)
    }
}

/// All words of a text, with what tells whether they are keys.
pub(super) fn mentions(text: &str) -> Vec<Mention> {
    let mut mentions = Vec::new();
    let mut section = String::new();
    for (line, number) in text.lines().zip(1..) {
        let line = line.trim();
        if line.starts_with('#') || line.starts_with("//") {
            continue;
        }
        // A symbol too many may have cut a word in two.
        let head = line.split_once('=').map(|(head, _)| head.trim());
        let others = |head: &&str| head.chars().filter(|c| !is_of_word(*c)).count();
        if let Some(head) = head.filter(|head| (1..=2).contains(&others(head))) {
            mentions.push(Mention {
                word: head.chars().filter(|c| is_of_word(*c)).collect(),
                parent: section.clone(),
                line: number,
                is_joined: true,
                is_key: true,
            });
        }
        let is_foreign = !line.contains(['=', ':']);
        let mut before = String::new();
        let mut rest = line;
        let mut is_first = true;
        while let Some(start) = rest.find(is_of_word) {
            let from = rest.get(start..).unwrap_or_default();
            let end = from.find(|c| !is_of_word(c)).unwrap_or(from.len());
            let (word, after) = from.split_at_checked(end).unwrap_or((from, ""));
            let next = after.trim_start_matches(['"', '\'', ' ', '\t']);
            let is_dotted = after.starts_with('.');
            let is_table = next
                .strip_prefix(':')
                .is_some_and(|value| value.trim_start().starts_with('{'));
            let is_key = next.starts_with('=') || next.starts_with(':') && !next.starts_with("://");
            let is_number = word.bytes().all(|byte| byte.is_ascii_digit());
            if (is_first || is_key || is_foreign) && !is_number {
                let parent = match before.is_empty() {
                    true => section.clone(),
                    false => before.clone(),
                };
                let word = word.to_owned();
                mentions.push(Mention {
                    word,
                    parent,
                    line: number,
                    is_joined: false,
                    is_key: is_first || is_key,
                });
            }
            if is_table || is_first && line.starts_with('[') {
                section = word.to_owned();
            }
            before = if is_dotted {
                word.to_owned()
            } else {
                String::new()
            };
            is_first = false;
            rest = after;
        }
    }
    mentions
}

fn is_of_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '-'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        let all = mentions(text).into_iter();
        all.filter(|found| found.is_key)
            .map(|found| format!("{}:{}.{}", found.line, found.parent, found.word))
            .collect()
    }

    #[test]
    fn keys_are_found_in_both_languages_and_values_are_not() {
        let cut = words("[node]\nap proval = true\n");
        assert_eq!(
            cut,
            ["1:.node", "2:node.approval", "2:node.ap", "2:node.proval"]
        );
        let toml = "# http = 1\nserver_url = \"http://192.168.1.1:8080\"\n[node\napproval tru\nlisten.http = \":80\"\n";
        let found = [
            "2:.server_url",
            "3:.node",
            "4:node.approval",
            "5:node.listenhttp",
            "5:node.listen",
            "5:listen.http",
        ];
        assert_eq!(words(toml), found);
        let json = r#"{"server_url":"https://a.example","listen": {"http": ":80", "https": "off"#;
        let found = [
            "1:.server_url",
            "1:.listen",
            "1:listen.http",
            "1:listen.https",
        ];
        assert_eq!(words(json), found);
    }

    #[test]
    fn a_line_in_the_syntax_of_another_file_mentions_all_its_words() {
        let all = |text: &str| mentions(text).into_iter().map(|found| found.word);
        let found: Vec<_> = all("config node 'node'\n\toption approval '1'\n").collect();
        assert_eq!(found, ["config", "node", "node", "option", "approval"]);
        let mut url = all("server_url = \"https://home.example");
        assert!(!url.any(|word| word == "https"));
    }

    #[test]
    fn on_a_broken_line_half_a_word_is_enough() {
        let mention = |word: &str, parent: &str| Mention {
            word: word.to_owned(),
            parent: parent.to_owned(),
            line: 1,
            is_joined: false,
            is_key: true,
        };
        assert!(mention("appro", "node").may_mean("node.approval", true));
        assert!(mention("polic", "").may_mean("policy.file", true));
        assert!(mention("file", "polcy").may_mean("policy.file", false));
        assert!(!mention("https", "listen").may_mean("listen.http", false));
    }
}
