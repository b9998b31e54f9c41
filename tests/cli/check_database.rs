//! The check of a database in a process of its own, which redb may end on damaged pages.

#![allow(
    clippy::disallowed_methods,
    reason = "nobody misses a file of a test, which reads the clock itself"
)]

use super::*;

const FIXTURE: &[u8] = include_bytes!("../../src/store/fixtures/schema-1.redb");
/// redb's page size.
const PAGE: usize = 4096;

/// What the program says of a database file.
fn report(file: &[u8]) -> Output {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("hearth.redb");
    std::fs::write(&path, file).unwrap();
    let output = Command::new(PROGRAM)
        .arg("__check-database")
        .arg(&path)
        .output()
        .unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), file, "it was written to");
    output
}

#[test]
fn the_check_of_a_database_answers_or_ends_and_writes_nothing() {
    let sound = words(&report(FIXTURE).stdout);
    assert!(
        sound.contains(r#""verdict":{"Sound":{"schema":1}}"#),
        "{sound}"
    );
    let other = words(&report(b"my shopping list").stdout);
    assert!(other.contains(r#""verdict":{"Damaged""#), "{other}");
    let mut damaged = 0;
    for page in 1..FIXTURE.len() / PAGE {
        let mut file = FIXTURE.to_vec();
        file[page * PAGE..(page + 1) * PAGE].fill(0xff);
        let output = report(&file);
        let said = words(&output.stdout);
        let ended = output.status.signal() == Some(SIGABRT);
        assert!(ended || said.contains("verdict"), "page {page}: {said}");
        damaged += usize::from(ended || said.contains("Damaged"));
    }
    assert!(damaged > 3, "only {damaged}");
}

/// The server asks such a process before it opens its database.
#[test]
fn a_damaged_database_stops_the_start_with_its_name_and_the_way_out() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("hearth.redb");
    for page in 1..FIXTURE.len() / PAGE {
        let mut file = FIXTURE.to_vec();
        file[page * PAGE..].fill(0);
        std::fs::write(&path, &file).unwrap();
        let output = Command::new(PROGRAM)
            .args(["serve", "--http", "127.0.0.1:0", "--https", "off"])
            .args(["--stun", "off", "--data-dir"])
            .arg(directory.path())
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1), "page {page}");
        let said = words(&output.stderr);
        assert!(
            said.contains("hearth.redb") && said.contains("hearth restore"),
            "{said}"
        );
        assert!(!said.contains("panicked"), "{said}");
        assert_eq!(std::fs::read(&path).unwrap(), file);
    }
}
