//! Texts that people read contain no phrase of a list of unclear ones.
//!
//! Read are the documentation, the example configuration, the packages' texts and the LuCI pages as a
//! whole, and of the sources the string literals and doc comments outside of tests. A phrase is found in
//! any case, as whole words, and across line breaks.

use std::fs;
use std::path::{Path, PathBuf};

/// Phrases that are wrong in every context, and what to write instead.
const BANNED: &[(&str, &str)] = &[
    // Network.
    ("address outside", "public address"),
    ("addresses outside", "public addresses"),
    ("interface outside", "WAN interface"),
    ("router in front", "upstream router"),
    ("routers in front", "upstream routers"),
    ("way to the internet", "uplink, default route"),
    ("way to the outside", "connectivity"),
    ("provider shares", "the ISP uses carrier-grade NAT"),
    ("shares its addresses", "carrier-grade NAT"),
    ("hard networks", "networks without direct connections"),
    ("whose resolver", "DNS resolver of ..."),
    // Approval and keys.
    ("take part", "be approved, join"),
    ("takes part", "is approved, joins"),
    ("took part", "was approved, joined"),
    ("taking part", "being approved, joining"),
    ("let in", "admit, approve"),
    ("lets in", "admits, approves"),
    ("let it in", "admit it, approve it"),
    ("let them in", "admit them, approve them"),
    ("turn away", "reject"),
    ("turns away", "rejects"),
    ("turned away", "rejected"),
    ("says no", "refuses the request"),
    ("said no", "refused, rejected"),
    ("login that waits", "pending registration"),
    ("logins that wait", "pending registrations"),
    ("login waits", "pending registration"),
    ("when the login ends", "when the key expires"),
    ("is good until", "is valid until"),
    ("is good for", "is valid for"),
    ("are good for", "are valid for"),
    ("good for one", "valid for one"),
    // Sending.
    ("is told", "receives, is sent"),
    ("are told", "receive, are sent"),
    ("was told", "received, was sent"),
    ("were told", "received, were sent"),
    ("be told", "receive, be sent"),
    ("being told", "receiving"),
    ("hear of", "be notified of"),
    ("hears of", "is notified of"),
    ("heard of", "was notified of"),
    ("the wish", "the request"),
    ("a wish", "a request"),
    ("wishes", "requests"),
    ("wished", "requested"),
    ("takes no bytes", "write timed out"),
    ("takes no notices", "peer too slow"),
    ("takes no changes", "is read-only"),
    ("takes changes", "is writable"),
    // Bounds.
    ("gives way", "is evicted, is dropped"),
    ("give way", "be evicted, be dropped"),
    ("makes room", "is evicted"),
    ("passed over", "skipped"),
    ("for want of", "because there is no"),
    ("what fits the board", "memory budget"),
    // Change.
    ("are others now", "changed"),
    ("is another now", "changed"),
    ("are others than", "differ from"),
    ("is another than", "differs from"),
    ("anew", "again, from scratch"),
    ("now and then", "periodically, every N s"),
    ("looks now", "checks"),
    ("went unnoticed", "could not be recorded"),
    ("mend", "fix"),
    ("mended", "fixed"),
    ("mends", "fixes"),
    ("poked", "triggered"),
    ("pokes", "triggers"),
    ("steps in for", "takes over from"),
    ("in the place of", "instead of, replaces"),
    ("a name that stays", "a fixed name"),
    ("an address that stays", "a fixed address"),
    // Grammar.
    ("shall", "should, must, will"),
    ("whoever", "anyone who, the client that"),
    ("whomever", "anyone whom"),
    ("about whom", "name the subject"),
    ("as whom", "the user that"),
    ("lately", "recently"),
    ("for ever", "never expires, without limit"),
    ("in vain", "without success"),
    ("to be had", "available"),
    ("can be had", "is available"),
    ("of no use", "unusable"),
    ("nobody answers", "not responding"),
    ("cannot be right", "is invalid"),
    ("all that there are", "all"),
    ("those that there are", "those that exist"),
    ("nodes that there are", "existing nodes"),
    ("such there are", "if any"),
    ("right and wrong with", "diagnose"),
    ("how the server is", "server status"),
    ("server is well", "server health"),
    ("this is taken for", "detected"),
    ("numbers for prometheus", "Prometheus metrics"),
    ("page with numbers", "metrics page"),
    // `"x" is no tag`: the value comes before.
    ("\" is no", "invalid ... \"x\""),
    ("} is no", "invalid ... {x}"),
    ("` is no", "invalid `x`"),
    ("' is no", "invalid ... 'x'"),
];

/// How commands are named that [`Text::refused_commands`] finds.
const COMMAND: &str = "tailscale up, tailscale login";

/// Phrases that are fine although they begin like one of the list.
const FINE: &[&str] = &[
    "no longer",
    "no more than",
    "is told apart",
    "are told apart",
];

/// Where `tailscale up` is named without being advised.
const NAMED: &[&str] = &[
    "tailscale up` \"requires mentioning all non-default flags\"",
    "tailscale up` on a device that already has settings",
];

/// Texts that are read as a whole: files, and folders with all that is in them.
const WHOLE: &[&str] = &[
    "README.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "clippy.toml",
    "deny.toml",
    "hearth.example.toml",
    "benches/control/README.md",
    "benches/derp/README.md",
    "benches/policy/README.md",
    "benches/soak/README.md",
    "board-configs",
    "docs",
    "openwrt/README.md",
    "openwrt/hearth",
    "openwrt/luci-app-hearth/Makefile",
    "openwrt/luci-app-hearth/README.md",
    "openwrt/luci-app-hearth/htdocs",
    "openwrt/luci-app-hearth/po/templates",
    "openwrt/luci-app-hearth/root",
    "openwrt/package",
    "packaging/container",
    "packaging/deb",
    "packaging/debian/lintian-overrides",
    "packaging/debian/postinst",
    "packaging/debian/postrm",
    "packaging/debian/prerm",
    "packaging/programs.sh",
    "packaging/systemd",
    "tests/README.md",
];

/// Rust sources, of which string literals and doc comments are read.
const SOURCES: &[&str] = &["src", "derp/src", "packaging/manual/src"];

/// Rust sources that may be missing.
const OPTIONAL_SOURCES: &[&str] = &["core/src"];

/// Text in lower case with single spaces, which remembers its lines.
#[derive(Default)]
struct Text {
    text: String,
    /// Where a line begins: offset in `text`, line in the file.
    lines: Vec<(usize, usize)>,
}

impl Text {
    fn push(&mut self, line: usize, words: &str) {
        self.lines.push((self.text.len(), line));
        for word in words.split_whitespace() {
            self.text.push_str(&word.to_lowercase());
            self.text.push(' ');
        }
    }

    /// No phrase continues beyond here.
    fn end(&mut self) {
        self.text.push_str("\n ");
    }

    /// The banned phrases in it, as `file:line: ...`.
    fn findings(&self, file: &str) -> Vec<String> {
        let mut text = self.text.clone();
        for fine in FINE {
            text = text.replace(fine, &"_".repeat(fine.len()));
        }
        let found = BANNED.iter().flat_map(|(phrase, instead)| {
            let places = text.match_indices(phrase);
            places
                .filter(|(at, _)| is_whole(&text, *at, phrase))
                .map(|(at, _)| (self.line(at), *phrase, *instead))
                .collect::<Vec<_>>()
        });
        let mut found: Vec<_> = found.collect();
        found.extend(
            self.refused_commands()
                .map(|(at, why)| (self.line(at), COMMAND, why)),
        );
        found.sort_unstable();
        let said = |(line, phrase, instead)| format!("{file}:{line}: \"{phrase}\": {instead}");
        found.into_iter().map(said).collect()
    }

    /// Commands that the client of a device with a control server of its own refuses, or which lead to another
    /// control server (`checkForAccidentalSettingReverts` in `cmd/tailscale/cli/up.go`), and why.
    fn refused_commands(&self) -> impl Iterator<Item = (usize, &'static str)> {
        let is_end = |c: char| matches!(c, '`' | '\n' | ')' | '|' | ';');
        let up = self.text.match_indices("tailscale up");
        let login = self.text.match_indices("tailscale login --");
        up.chain(login).filter_map(move |(at, begin)| {
            let rest = &self.text[at..];
            let is_word = is_whole(&self.text, at, begin.trim_end_matches(" --"));
            let is_named = NAMED.iter().any(|named| rest.starts_with(named));
            let command = rest.split(is_end).next().unwrap_or(rest);
            let is_refused = is_word && !is_named && !command.contains(" --login-server=");
            is_refused.then_some((at, "without --login-server=URL"))
        })
    }

    fn line(&self, at: usize) -> usize {
        let after = self.lines.partition_point(|(begin, _)| *begin <= at);
        after.checked_sub(1).map_or(0, |index| self.lines[index].1)
    }
}

/// Whether the phrase at `at` is not part of longer words.
fn is_whole(text: &str, at: usize, phrase: &str) -> bool {
    let is_word = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
    let (before, after) = (&text[..at], &text[at + phrase.len()..]);
    let begins = !(is_word(phrase.chars().next()) && is_word(before.chars().next_back()));
    begins && !is_word(after.chars().next())
}

/// A file that is read as a whole. Signs of comments at the beginning of lines are left out, so that
/// phrases are found across lines.
fn whole(content: &str) -> Text {
    let mut text = Text::default();
    for (number, line) in content.lines().enumerate() {
        let words = line.trim_start();
        let words = words.trim_start_matches(['#', '/', '*', '>']);
        if words.trim().is_empty() {
            text.end();
        }
        text.push(number + 1, words);
    }
    text
}

/// String literals and doc comments of a Rust file, up to its test module.
fn of_source(content: &str) -> Text {
    let end = content.find("#[cfg(test)]\nmod tests");
    let content = &content[..end.unwrap_or(content.len())];
    let mut text = Text::default();
    let mut rest = content;
    let mut line = 1;
    while let Some(first) = rest.chars().next() {
        let (length, kind) = token(rest, first);
        let (token, after) = rest.split_at(length);
        match kind {
            Kind::Doc => text.push(line, &token[3..]),
            Kind::Literal => {
                text.end();
                for (number, part) in token.split('\n').enumerate() {
                    text.push(line + number, &part.replace("\\n", " ").replace('\\', ""));
                }
                text.end();
            }
            Kind::Space => {}
            Kind::Other => text.end(),
        }
        line += token.matches('\n').count();
        rest = after;
    }
    text
}

#[derive(Debug, PartialEq, Eq)]
enum Kind {
    Doc,
    Literal,
    Space,
    Other,
}

/// Length and kind of the token at the beginning of `rest`.
fn token(rest: &str, first: char) -> (usize, Kind) {
    if rest.starts_with("///") || rest.starts_with("//!") {
        return (rest.find('\n').unwrap_or(rest.len()), Kind::Doc);
    }
    if rest.starts_with("//") {
        return (rest.find('\n').unwrap_or(rest.len()), Kind::Other);
    }
    if first.is_whitespace() {
        let is_end = |c: char| !c.is_whitespace();
        return (rest.find(is_end).unwrap_or(rest.len()), Kind::Space);
    }
    if first == '"' {
        return (literal(rest), Kind::Literal);
    }
    if let Some(hashes) = raw_hashes(rest) {
        let begin = hashes + 2;
        let close = format!("\"{}", "#".repeat(hashes));
        let length = rest[begin..]
            .find(&close)
            .map(|at| begin + at + close.len());
        return (length.unwrap_or(rest.len()), Kind::Literal);
    }
    if first == '\'' {
        return (character(rest), Kind::Other);
    }
    if first.is_alphanumeric() || first == '_' {
        let is_end = |c: char| !c.is_alphanumeric() && c != '_';
        return (rest.find(is_end).unwrap_or(rest.len()), Kind::Other);
    }
    (first.len_utf8(), Kind::Other)
}

/// Length of a string literal with its quotes.
fn literal(rest: &str) -> usize {
    let mut is_escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// Number of `#` of a raw string literal; `None` for anything else.
fn raw_hashes(rest: &str) -> Option<usize> {
    let after = rest.strip_prefix('r')?;
    let hashes = after.len() - after.trim_start_matches('#').len();
    after[hashes..].starts_with('"').then_some(hashes)
}

/// Length of a character literal, or of the `'` of a lifetime.
fn character(rest: &str) -> usize {
    let mut chars = rest.char_indices().skip(1);
    match (chars.next(), chars.next()) {
        (Some((_, '\\')), _) => rest[3..].find('\'').map_or(1, |at| at + 4),
        (Some(_), Some((at, '\''))) => at + 1,
        _ => 1,
    }
}

/// The files below a path, or the file itself.
fn files(path: &Path, found: &mut Vec<PathBuf>) {
    if path.is_file() {
        return found.push(path.to_owned());
    }
    let entries = fs::read_dir(path).unwrap_or_else(|fault| panic!("{}: {fault}", path.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for path in paths {
        files(&path, found);
    }
}

fn below(root: &Path, path: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    files(&root.join(path), &mut found);
    assert!(!found.is_empty(), "no file in {path}");
    found
}

fn is_test(path: &Path) -> bool {
    path.iter()
        .any(|part| part == "tests" || part == "tests.rs")
}

fn findings() -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut all = Vec::new();
    let mut read = |path: &Path, text: fn(&str) -> Text| {
        let name = path.strip_prefix(root).unwrap().display().to_string();
        // What is not UTF-8 is no text.
        if let Ok(content) = fs::read_to_string(path) {
            all.extend(text(&content).findings(&name));
        }
    };
    for path in WHOLE.iter().flat_map(|path| below(root, path)) {
        read(&path, whole);
    }
    let optional = OPTIONAL_SOURCES
        .iter()
        .filter(|path| root.join(path).is_dir());
    for path in SOURCES
        .iter()
        .chain(optional)
        .flat_map(|path| below(root, path))
    {
        let within = path.strip_prefix(root).unwrap();
        if path.extension().is_some_and(|ending| ending == "rs") && !is_test(within) {
            read(&path, of_source);
        }
    }
    all
}

#[test]
fn texts_are_written_in_plain_english() {
    let findings = findings();
    assert!(
        findings.is_empty(),
        "{} phrases to replace:\n{}",
        findings.len(),
        findings.join("\n")
    );
}

#[test]
fn phrases_are_found_as_whole_words_in_any_case_and_across_lines() {
    let text =
        "# The Router\n# in front says it.\n\nMarshall recommends\nthat a key is no longer used.";
    assert_eq!(
        whole(text).findings("a.md"),
        ["a.md:1: \"router in front\": upstream router"]
    );
}

#[test]
fn commands_name_the_server() {
    let fine = "`tailscale up --force-reauth --login-server=URL`; `tailscale login --login-server=URL\n--auth-key=A`, \
                `tailscale set --ssh`. `tailscale login` hangs; a tailscale update";
    assert!(whole(fine).findings("a.md").is_empty());
    for refused in [
        "`tailscale up --force-reauth`, not `--login-server=URL`",
        "run `tailscale up` again",
        "to apply: tailscale up",
        "(tailscale login --auth-key=A) --login-server=URL",
    ] {
        let found = whole(refused).findings("a.md");
        assert_eq!(
            found,
            ["a.md:1: \"tailscale up, tailscale login\": without --login-server=URL"],
            "{refused}"
        );
    }
}

#[test]
fn literals_and_doc_comments_of_sources_are_read_and_nothing_else() {
    let source = "/// Shall\n// shall\nfn shall<'a>(c: char) -> &'a str {\n    match c {\n        '\"' => \"it \\\n            \
                  \\\"shall\\\"\",\n        '\\'' => r#\"an \"anew\" \"#,\n        _ => \"\",\n    }\n}\n\
                  #[cfg(test)]\nmod tests { const A: &str = \"shall\"; }\n";
    let found = of_source(source).findings("a.rs");
    let places: Vec<&str> = found
        .iter()
        .map(|found| found.split('"').next().unwrap())
        .collect();
    assert_eq!(places, ["a.rs:1: ", "a.rs:6: ", "a.rs:7: "], "{found:?}");
}

#[test]
fn the_list_is_in_lower_case_and_names_no_phrase_twice() {
    for (at, (phrase, _)) in BANNED.iter().enumerate() {
        assert_eq!(*phrase, phrase.to_lowercase());
        assert!(
            BANNED[..at].iter().all(|(other, _)| other != phrase),
            "{phrase}"
        );
    }
}
