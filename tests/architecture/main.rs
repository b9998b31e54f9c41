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

use std::fs;
use std::path::Path;

use sources::sources;

/// The packages of the workspace by the name that paths have, and their sources.
const CRATES: [(&str, &str); 4] = [
    ("hearth", "src"),
    ("hearth_core", "core/src"),
    ("hearth_derp", "derp/src"),
    ("hearth_shares", "shares/src"),
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

#[test]
fn every_file_that_the_map_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("ARCHITECTURE.md")).expect("the map can be read");
    let spans = page.split('`').skip(1).step_by(2);
    let files: Vec<&str> = spans.filter(|span| span.ends_with(".rs")).collect();
    assert!(files.len() > 30, "{files:?}");
    let wrong = files.iter().filter(|file| !root.join(file).is_file());
    report(
        "ARCHITECTURE.md names a file that is not there",
        wrong.map(|file| (*file).to_owned()).collect(),
    );
}

/// The packages beside the program, by the first part of their places.
const LIBRARIES: [&str; 3] = ["core", "derp", "shares"];

/// Fails with all faults, one a line.
fn report(what: &str, wrong: Vec<String>) {
    assert!(wrong.is_empty(), "{what}:\n  {}", wrong.join("\n  "));
}

fn starts_with(path: &[String], prefix: &[&str]) -> bool {
    path.len() >= prefix.len() && path.iter().zip(prefix).all(|(a, b)| a == b)
}
