//! The rules of ARCHITECTURE.md, as tests.
//!
//! Every path in the sources (`use` lines and paths in expressions alike) is compared with tables: which room may use
//! which other room (`rooms`), which package belongs where (`packages`), what code without I/O must not name (`io`).
//! `circles` refuses sibling modules that import each other.

mod circles;
mod io;
mod packages;
mod rooms;
mod sources;

use sources::sources;

/// The packages of the workspace by the name that paths have, and their sources.
const CRATES: [(&str, &str); 3] = [
    ("hearth", "src"),
    ("hearth_core", "core/src"),
    ("hearth_derp", "derp/src"),
];

#[test]
fn files_stay_readable() {
    let files = CRATES.iter().flat_map(|(_, folder)| sources(folder));
    let wrong = files
        .filter(|file| file.lines > 800)
        .map(|file| format!("{}: {} lines", file.name, file.lines))
        .collect();
    report("a file is longer than 800 lines", wrong);
}

/// Fails with all faults, one a line.
fn report(what: &str, wrong: Vec<String>) {
    assert!(wrong.is_empty(), "{what}:\n  {}", wrong.join("\n  "));
}

fn starts_with(path: &[String], prefix: &[&str]) -> bool {
    path.len() >= prefix.len() && path.iter().zip(prefix).all(|(a, b)| a == b)
}
