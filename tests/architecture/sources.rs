//! The sources as the rules see them: files with the paths, imports, items and texts in them. Comments and code of tests
//! are left out.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::LIBRARIES;

/// One source file and the paths in it.
pub struct Source {
    /// `src/…`, `core/src/…` or `derp/src/…`, for messages.
    pub name: String,
    /// The path below `src` without `.rs`; those of the libraries begin with `core/` and `derp/`.
    pub place: String,
    pub lines: usize,
    pub paths: Vec<Vec<String>>,
    /// What `use` lines bring in: the name, `*` for all, and where it comes from.
    pub imports: Vec<(String, Vec<String>)>,
    /// Names of the items that the file defines.
    pub items: BTreeSet<String>,
    /// Literals of text.
    pub texts: Vec<String>,
}

impl Source {
    /// A file from its text.
    pub fn new(name: String, place: String, text: &str) -> Self {
        let tokens = without_tests(tokens(text));
        Self {
            name,
            place,
            lines: text.lines().count(),
            paths: paths(&tokens),
            imports: imports(&tokens),
            items: items(&tokens),
            texts: texts(&tokens),
        }
    }

    /// The room: the module at the top of its package, `core/…` and `derp/…` in the two libraries.
    pub fn room(&self) -> &str {
        let parts = usize::from(
            self.place.contains('/')
                && LIBRARIES.contains(&self.place.split('/').next().unwrap_or_default()),
        );
        match self.place.match_indices('/').nth(parts) {
            Some((end, _)) => &self.place[..end],
            None => &self.place,
        }
    }

    /// Whether it is a file or below a folder, by its place.
    pub fn is_in(&self, place: &str) -> bool {
        self.place
            .strip_prefix(place)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// The module's path inside its package.
    pub fn path(&self) -> Vec<String> {
        let mut parts: Vec<String> = self.place.split('/').map(str::to_owned).collect();
        if LIBRARIES.contains(&parts[0].as_str()) {
            parts.remove(0);
        }
        if matches!(parts.last().map(String::as_str), Some("mod" | "lib")) {
            parts.pop();
        }
        parts
    }
}

/// All sources below a folder of the repository, without files of tests only.
pub fn sources(folder: &str) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    collect(&root.join(folder), &mut files);
    assert!(!files.is_empty(), "there are no sources in {folder}");
    files
        .into_iter()
        .map(|file| {
            let text = fs::read_to_string(&file).expect("a source file can be read");
            let below = file
                .strip_prefix(root.join(folder))
                .expect("it is below the folder");
            let place = below.with_extension("").display().to_string();
            let prefix = folder.strip_suffix("src").unwrap_or(folder);
            let name = file.strip_prefix(root).unwrap_or(&file);
            Source::new(
                name.display().to_string(),
                format!("{prefix}{place}"),
                &text,
            )
        })
        .collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("the folder can be read") {
        let path = entry.expect("the folder can be read").path();
        let is_test = path.file_stem().is_some_and(|name| {
            ["tests", "testing", "simulation", "simulated"]
                .iter()
                .any(|test| name == *test)
        });
        if is_test {
            continue;
        }
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
}

/// All paths with at least two segments, `use` groups written out.
fn paths(tokens: &[String]) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let starts = is_name(&tokens[at])
            && tokens.get(at + 1).is_some_and(|next| next == "::")
            && !(at >= 2 && tokens[at - 1] == "::" && is_name(&tokens[at - 2]));
        if starts {
            at = tree(tokens, at, &mut Vec::new(), &mut found);
        } else {
            at += 1;
        }
    }
    found.into_iter().map(|(_, path)| path).collect()
}

/// What the `use` lines bring in.
fn imports(tokens: &[String]) -> Vec<(String, Vec<String>)> {
    let mut found = Vec::new();
    for at in (0..tokens.len()).filter(|&at| tokens[at] == "use") {
        let first = tokens.get(at + 1).is_some_and(|token| token == "::");
        tree(
            tokens,
            at + 1 + usize::from(first),
            &mut Vec::new(),
            &mut found,
        );
    }
    found
}

/// Literals of text, without their quotes.
fn texts(tokens: &[String]) -> Vec<String> {
    let texts = tokens.iter().filter_map(|token| token.strip_prefix('"'));
    texts.map(str::to_owned).collect()
}

/// Names of items: what stands after the word for its kind.
fn items(tokens: &[String]) -> BTreeSet<String> {
    const KINDS: [&str; 8] = [
        "struct",
        "enum",
        "trait",
        "fn",
        "const",
        "static",
        "type",
        "macro_rules",
    ];
    let pairs = tokens.windows(3);
    pairs
        .filter(|pair| KINDS.contains(&pair[0].as_str()))
        .map(|pair| if pair[1] == "!" { &pair[2] } else { &pair[1] })
        .cloned()
        .collect()
}

/// Reads one path or tree of paths at a position, and returns where it ends. Each path comes with the name that a
/// `use` line gives it, `*` for all that it has.
fn tree(
    tokens: &[String],
    mut at: usize,
    prefix: &mut Vec<String>,
    found: &mut Vec<(String, Vec<String>)>,
) -> usize {
    let is = |at: usize, wanted: &str| tokens.get(at).is_some_and(|token| token == wanted);
    let depth = prefix.len();
    let mut name = None;
    while at < tokens.len() && is_name(&tokens[at]) {
        prefix.push(tokens[at].clone());
        at += 1;
        if !is(at, "::") {
            break;
        }
        at += 1;
        if is(at, "{") {
            at += 1;
            while at < tokens.len() && tokens[at] != "}" {
                let next = tree(tokens, at, prefix, found);
                at = next.max(at + 1);
            }
            prefix.truncate(depth);
            return at + 1;
        }
        if is(at, "*") {
            name = Some("*".to_owned());
            at += 1;
            break;
        }
    }
    if prefix.len() > depth {
        let mut path = prefix.clone();
        if path.len() > 1 && path.last().is_some_and(|last| last == "self") {
            path.pop();
        }
        if is(at, "as") {
            name = tokens.get(at + 1).cloned();
            at += 2;
        }
        let name = name.or_else(|| path.last().cloned()).unwrap_or_default();
        found.push((name, path));
    }
    prefix.truncate(depth);
    at
}

fn is_name(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphanumeric() || c == '_')
}

/// Drops items with `test` in their `#[cfg(…)]`, up to the end of their block or statement.
fn without_tests(tokens: Vec<String>) -> Vec<String> {
    let mut kept = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let mark: Vec<&str> = match tokens[at].as_str() {
            "#" => tokens[at..]
                .iter()
                .map(String::as_str)
                .take_while(|token| *token != "]")
                .collect(),
            _ => Vec::new(),
        };
        let is_test = mark.starts_with(&["#", "[", "cfg", "("]) && mark.contains(&"test");
        if !is_test || mark.contains(&"not") {
            kept.push(tokens[at].clone());
            at += 1;
            continue;
        }
        at += mark.len() + 1;
        let mut depth = 0usize;
        while at < tokens.len() {
            match tokens[at].as_str() {
                "{" => depth += 1,
                "}" => depth = depth.saturating_sub(1),
                _ => {}
            }
            let ends = depth == 0 && (tokens[at] == "}" || tokens[at] == ";");
            at += 1;
            if ends {
                break;
            }
        }
    }
    kept
}

/// Splits a source into names, `::`, single signs, and literals of text with a quote before them. Comments are left out.
fn tokens(source: &str) -> Vec<String> {
    let text: Vec<char> = source.chars().collect();
    let get = |at: usize| text.get(at).copied().unwrap_or('\0');
    let mut found = Vec::new();
    let mut at = 0;
    while at < text.len() {
        let c = get(at);
        if c == '/' && get(at + 1) == '/' {
            while at < text.len() && get(at) != '\n' {
                at += 1;
            }
        } else if c == '/' && get(at + 1) == '*' {
            let mut depth = 1;
            at += 2;
            while at < text.len() && depth > 0 {
                match (get(at), get(at + 1)) {
                    ('/', '*') => (depth, at) = (depth + 1, at + 2),
                    ('*', '/') => (depth, at) = (depth - 1, at + 2),
                    _ => at += 1,
                }
            }
        } else if c == '"' {
            let begin = at;
            at += 1;
            while at < text.len() && get(at) != '"' {
                at += if get(at) == '\\' { 2 } else { 1 };
            }
            found.push(text[begin..at.min(text.len())].iter().collect());
            at += 1;
        } else if c == '\'' {
            // A character, or else a lifetime, of which only the quote is dropped.
            at += match (get(at + 1), get(at + 2)) {
                ('\\', _) => (2..12)
                    .find(|&n| get(at + n) == '\'' && n > 2)
                    .map_or(1, |n| n + 1),
                (_, '\'') => 3,
                _ => 1,
            };
        } else if c.is_alphanumeric() || c == '_' {
            let begin = at;
            while get(at).is_alphanumeric() || get(at) == '_' {
                at += 1;
            }
            let name: String = text[begin..at].iter().collect();
            let hashes = (0..).take_while(|&n| get(at + n) == '#').count();
            if matches!(name.as_str(), "r" | "br") && get(at + hashes) == '"' {
                at += hashes + 1;
                let closes = |at: usize| get(at) == '"' && (1..=hashes).all(|n| get(at + n) == '#');
                while at < text.len() && !closes(at) {
                    at += 1;
                }
                at += hashes + 1;
            } else {
                found.push(name);
            }
        } else if c == ':' && get(at + 1) == ':' {
            found.push("::".to_owned());
            at += 2;
        } else {
            if !c.is_whitespace() {
                found.push(c.to_string());
            }
            at += 1;
        }
    }
    found
}

#[test]
fn paths_are_found_wherever_they_hide() {
    let source = r##"
        // use redb::Comment;
        use crate::{store, state::{model::Node, command}};
        /* use redb::Block; /* nested */ still */
        fn f<'a>(x: &'a str) -> char { let _ = "use redb::Text \" {"; let _ = r#"redb::Raw " "#; '"' }
        fn g() { std::time::Instant::now(); ::tokio::spawn(async {}); }
        #[cfg(test)]
        mod tests { use redb::InTests; fn h() { { } } }
        fn after() { hyper::body::to_bytes::<u8>(); }
    "##;
    let file = Source::new(String::new(), String::new(), source);
    let found: Vec<String> = file.paths.iter().map(|path| path.join("::")).collect();
    for wanted in [
        "crate::store",
        "crate::state::model::Node",
        "crate::state::command",
        "std::time::Instant::now",
        "tokio::spawn",
        "hyper::body::to_bytes",
    ] {
        assert!(
            found.iter().any(|path| path == wanted),
            "{wanted} not in {found:?}"
        );
    }
    assert!(
        !found.iter().any(|path| path.starts_with("redb")),
        "{found:?}"
    );
}
