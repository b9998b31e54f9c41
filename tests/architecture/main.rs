//! The import rules of the design, as a test.
//!
//! Every path in the sources (`use` lines and paths in expressions alike) is
//! compared with three tables: which module may use which other module, which
//! package belongs to which module, and what a module without I/O must not name.
//! Comments, text literals, test modules and `tests.rs` files do not count.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// What each module of the server may use of the others. `server` is the place
/// where everything meets, `http` and `cli` are the shells; they have no row.
const MAY_USE: &[(&str, &[&str])] = &[
    ("id", &[]),
    ("keys", &[]),
    ("clock", &[]),
    ("bucket", &[]),
    ("logging", &["config"]),
    ("tailcfg", &["keys", "clock"]),
    ("noise", &["keys"]),
    ("policy", &["tailcfg", "id", "keys"]),
    ("state", &["policy", "id", "keys", "clock"]),
    (
        "netmap",
        &[
            "tailcfg", "policy", "state", "id", "keys", "clock", "release",
        ],
    ),
    ("store", &["state", "id", "keys", "clock"]),
    ("engine", &["state", "store", "id", "keys", "clock"]),
    (
        "config",
        &["id", "keys", "policy", "state", "release", "files"],
    ),
    ("tls", &["config", "clock", "files"]),
    ("files", &[]),
    ("derp_map", &["tailcfg"]),
    ("wan", &["clock"]),
    ("doctor", &["wan", "clock"]),
    ("api", &["id", "keys", "clock"]),
    ("qr", &[]),
    ("release", &[]),
    ("service", &["clock", "config", "shutdown"]),
    ("shutdown", &[]),
    ("panics", &[]),
    ("supervise", &["shutdown"]),
];

/// Packages that belong to some modules only. A folder or file of a module can be
/// named too. What is not listed here may be used anywhere.
const BELONGS_TO: &[(&str, &[&str])] = &[
    ("redb", &["store"]),
    ("hyper", &["http", "cli"]),
    ("hyper_util", &["http", "cli"]),
    ("http_body_util", &["http", "cli"]),
    ("httparse", &["http", "cli/client", "derp"]),
    ("rustls", &["tls"]),
    ("tokio_rustls", &["http/connection", "tls"]),
    ("rcgen", &["tls"]),
    ("snow", &["noise/handshake"]),
    ("socket2", &["http/listener", "cli/client"]),
    ("x25519_dalek", &["keys", "noise/handshake", "derp"]),
    ("crypto_box", &["derp"]),
    ("ruzstd", &["netmap"]),
    ("postcard", &["state/record", "store"]),
    ("toml", &["config"]),
    ("clap", &["cli", "main"]),
    ("qrcodegen", &["qr"]),
    ("if_addrs", &["config", "main", "http", "server/wan"]),
    ("dlmalloc", &["main"]),
    ("sd_listen_fds", &["service/sockets"]),
    ("nix", &["clock"]),
    ("rustix", &["server/wan"]),
];

/// Modules that take bytes, values and `now`, and do no I/O of any kind.
const WITHOUT_IO: &[&str] = &[
    "id",
    "keys",
    "tailcfg",
    "derp_map",
    "wan",
    "doctor",
    "noise/mod",
    "noise/handshake",
    "noise/record",
    "policy",
    "state",
    "netmap",
];

/// The files of the relay that may use the tokio runtime; the rest of that
/// package does no I/O.
const RELAY_SHELL: &[&str] = &["relay", "udp"];

/// What a module without I/O must not name.
const IO: &[&[&str]] = &[
    &["tokio"],
    &["hyper"],
    &["redb"],
    &["std", "fs"],
    &["std", "io", "stdin"],
    &["std", "net", "TcpStream"],
    &["std", "net", "TcpListener"],
    &["std", "net", "UdpSocket"],
    &["std", "os"],
    &["std", "env"],
    &["std", "process"],
    &["std", "thread"],
    &["std", "time", "Instant"],
    &["std", "time", "SystemTime"],
];

#[test]
fn modules_use_only_what_the_design_lets_them() {
    let may_use: BTreeMap<&str, &[&str]> = MAY_USE.iter().copied().collect();
    let mut wrong = Vec::new();
    for file in sources("src") {
        let Some(allowed) = may_use.get(file.module()) else {
            continue;
        };
        for path in &file.paths {
            if let [first, module, ..] = path.as_slice()
                && first == "crate"
                && module != file.module()
                && module.starts_with(|c: char| c.is_ascii_lowercase())
                && !allowed.contains(&module.as_str())
            {
                wrong.push(format!("{}: {}", file.name, path.join("::")));
            }
        }
    }
    report("a module uses another that it must not know", wrong);
}

#[test]
fn every_module_has_a_place_in_the_design() {
    let top = ["main", "lib", "server", "http", "cli"];
    let mut wrong = Vec::new();
    for file in sources("src") {
        let module = file.module();
        if !top.contains(&module) && !MAY_USE.iter().any(|(known, _)| *known == module) {
            wrong.push(format!(
                "{}: give module `{module}` a row in MAY_USE",
                file.name
            ));
        }
    }
    report("a module has no import rule", wrong);
}

#[test]
fn packages_stay_where_they_belong() {
    let mut wrong = Vec::new();
    for file in sources("src").into_iter().chain(sources("derp/src")) {
        for path in &file.paths {
            let Some((package, places)) = path
                .first()
                .and_then(|first| BELONGS_TO.iter().find(|(package, _)| package == first))
            else {
                continue;
            };
            if !places.iter().any(|place| file.is_in(place)) {
                wrong.push(format!("{}: {package} belongs to {places:?}", file.name));
            }
        }
    }
    report("a package is used outside its place", wrong);
}

#[test]
fn modules_without_io_name_none() {
    let mut wrong = Vec::new();
    let control = sources("src")
        .into_iter()
        .filter(|file| WITHOUT_IO.iter().any(|place| file.is_in(place)));
    let relay = sources("derp/src").into_iter().filter(|file| {
        !RELAY_SHELL
            .iter()
            .any(|place| file.is_in(&format!("derp/{place}")))
    });
    for file in control.chain(relay) {
        for path in &file.paths {
            if IO.iter().any(|forbidden| starts_with(path, forbidden)) {
                wrong.push(format!("{}: {}", file.name, path.join("::")));
            }
        }
    }
    report("a module without I/O names some", wrong);
}

#[test]
fn http_sees_commands_and_snapshots_only() {
    let mut wrong = Vec::new();
    for file in sources("src")
        .into_iter()
        .filter(|file| file.module() == "http")
    {
        for path in &file.paths {
            let forbidden: [&[&str]; 3] = [
                &["crate", "state", "model", "Model"],
                &["crate", "state", "apply"],
                &["crate", "store"],
            ];
            if forbidden
                .iter()
                .any(|forbidden| starts_with(path, forbidden))
            {
                wrong.push(format!("{}: {}", file.name, path.join("::")));
            }
        }
    }
    report("the HTTP shell reaches past commands and snapshots", wrong);
}

#[test]
fn the_relay_does_not_know_the_control_plane() {
    let wrong = sources("derp/src")
        .iter()
        .flat_map(|file| file.paths.iter().map(move |path| (file, path)))
        .filter(|(_, path)| path.first().is_some_and(|first| first == "hearth"))
        .map(|(file, path)| format!("{}: {}", file.name, path.join("::")))
        .collect();
    report("the relay names the server", wrong);
}

#[test]
fn files_stay_readable() {
    let wrong = sources("src")
        .iter()
        .chain(&sources("derp/src"))
        .filter(|file| file.lines > 800)
        .map(|file| format!("{}: {} lines", file.name, file.lines))
        .collect();
    report("a file is longer than 800 lines", wrong);
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
    let found: Vec<String> = paths(source).iter().map(|path| path.join("::")).collect();
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

fn report(what: &str, wrong: Vec<String>) {
    assert!(wrong.is_empty(), "{what}:\n  {}", wrong.join("\n  "));
}

fn starts_with(path: &[String], prefix: &[&str]) -> bool {
    path.len() >= prefix.len() && path.iter().zip(prefix).all(|(a, b)| a == b)
}

/// One source file and the paths in it.
struct Source {
    /// `src/…` or `derp/src/…`, for messages.
    name: String,
    /// The path below `src` without `.rs`; that of the relay begins with `derp`.
    place: String,
    lines: usize,
    paths: Vec<Vec<String>>,
}

impl Source {
    /// The first part of the place: the module at the top of the package.
    fn module(&self) -> &str {
        self.place.split('/').next().unwrap_or_default()
    }

    fn is_in(&self, place: &str) -> bool {
        self.place
            .strip_prefix(place)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

/// All sources below a folder of the repository, without files of tests only.
fn sources(folder: &str) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    collect(&root.join(folder), &mut files);
    assert!(!files.is_empty(), "there are no sources in {folder}");
    files
        .into_iter()
        .filter(|file| file.file_name().is_some_and(|name| name != "tests.rs"))
        .map(|file| {
            let text = fs::read_to_string(&file).expect("a source file can be read");
            let below = file
                .strip_prefix(root.join(folder))
                .expect("it is below the folder");
            let place = below.with_extension("").display().to_string();
            Source {
                name: file
                    .strip_prefix(root)
                    .unwrap_or(&file)
                    .display()
                    .to_string(),
                place: match folder {
                    "src" => place,
                    _ => format!("derp/{place}"),
                },
                lines: text.lines().count(),
                paths: paths(&text),
            }
        })
        .collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("the folder can be read") {
        let path = entry.expect("the folder can be read").path();
        if path.is_dir() && path.file_name().is_some_and(|name| name != "tests") {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
}

/// All paths with at least two segments, `use` groups written out.
fn paths(source: &str) -> Vec<Vec<String>> {
    let tokens = without_tests(tokens(source));
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let starts = is_name(&tokens[at])
            && tokens.get(at + 1).is_some_and(|next| next == "::")
            && !(at >= 2 && tokens[at - 1] == "::" && is_name(&tokens[at - 2]));
        if starts {
            at = tree(&tokens, at, &mut Vec::new(), &mut found);
        } else {
            at += 1;
        }
    }
    found
}

/// Reads one path or tree of paths at a position, and returns where it ends.
fn tree(
    tokens: &[String],
    mut at: usize,
    prefix: &mut Vec<String>,
    found: &mut Vec<Vec<String>>,
) -> usize {
    let depth = prefix.len();
    while at < tokens.len() && is_name(&tokens[at]) {
        prefix.push(tokens[at].clone());
        at += 1;
        if tokens.get(at).is_none_or(|token| token != "::") {
            break;
        }
        at += 1;
        if tokens.get(at).is_some_and(|token| token == "{") {
            at += 1;
            while at < tokens.len() && tokens[at] != "}" {
                let next = tree(tokens, at, prefix, found);
                at = next.max(at + 1);
            }
            prefix.truncate(depth);
            return at + 1;
        }
    }
    if prefix.len() > depth {
        found.push(prefix.clone());
    }
    prefix.truncate(depth);
    at
}

fn is_name(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphanumeric() || c == '_')
}

/// Drops items marked `#[cfg(test)]`, up to the end of their block or statement.
fn without_tests(tokens: Vec<String>) -> Vec<String> {
    const MARK: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];
    let mut kept = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        if !tokens[at..].iter().take(MARK.len()).eq(MARK.iter()) {
            kept.push(tokens[at].clone());
            at += 1;
            continue;
        }
        at += MARK.len();
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

/// Splits a source into names, `::` and single signs, leaving out comments and
/// literals of text.
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
            at += 1;
            while at < text.len() && get(at) != '"' {
                at += if get(at) == '\\' { 2 } else { 1 };
            }
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
