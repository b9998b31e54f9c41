use super::*;
use crate::store::{FILE_NAME, Store};

fn at(text: &str) -> Timestamp {
    Timestamp::parse(text).unwrap()
}

/// A database file, and a directory for its copies.
fn database() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let (data, copies) = (
        directory.path().join("data"),
        directory.path().join("copies"),
    );
    drop(Store::open(&data, 1 << 20).unwrap());
    fs::create_dir(&copies).unwrap();
    let file = data.join(FILE_NAME);
    (directory, file, copies)
}

fn names(directory: &Path) -> Vec<String> {
    let copies = list(directory).unwrap().into_iter();
    let name = |copy: Copy| copy.path.file_name().unwrap().to_str().unwrap().to_owned();
    copies.map(name).collect()
}

#[test]
fn a_name_is_its_time() {
    let made = at("2026-11-28T04:05:06.789Z");
    assert_eq!(name(made), "hearth-20261128-040506.redb");
    assert_eq!(time_of(&name(made)), Some(at("2026-11-28T04:05:06Z")));
    for other in [
        "hearth-20261128-040506.redb.new",
        "hearth-2026112-0405067.redb",
        "hearth-20261328-040506.redb",
        "hearth-schema1-1795838706.redb",
        "hearth.redb",
        "notes.txt",
    ] {
        assert_eq!(time_of(other), None, "{other}");
    }
}

#[test]
fn the_newest_copies_are_kept_and_other_files_stay() {
    let (_directory, file, copies) = database();
    for other in ["hearth-schema1-17.redb", "mine.redb"] {
        fs::write(copies.join(other), b"x").unwrap();
    }
    for day in 1..=4 {
        let now = at(&format!("2026-11-0{day}T00:00:00Z"));
        let copy = add(&File::open(&file).unwrap(), &copies, now, 2).unwrap();
        assert_eq!(copy.made, now);
    }
    assert_eq!(
        names(&copies),
        ["hearth-20261103-000000.redb", "hearth-20261104-000000.redb"]
    );
    assert!(copies.join("hearth-schema1-17.redb").exists() && copies.join("mine.redb").exists());
    assert_eq!(fs::read_dir(&copies).unwrap().count(), 4);
}

#[test]
fn a_copy_that_is_damaged_removes_no_older_one() {
    let (_directory, file, copies) = database();
    add(
        &File::open(&file).unwrap(),
        &copies,
        at("2026-11-01T00:00:00Z"),
        1,
    )
    .unwrap();
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[..middle].reverse();
    fs::write(&file, bytes).unwrap();
    let fault = add(
        &File::open(&file).unwrap(),
        &copies,
        at("2026-11-02T00:00:00Z"),
        1,
    )
    .unwrap_err();
    assert!(matches!(fault, CopyFault::Damaged { .. }), "{fault}");
    assert_eq!(names(&copies), ["hearth-20261101-000000.redb"]);
    assert_eq!(fs::read_dir(&copies).unwrap().count(), 1);
}

#[test]
fn after_a_clock_that_was_ahead_the_newest_copy_has_the_last_name() {
    let (_directory, file, copies) = database();
    add(
        &File::open(&file).unwrap(),
        &copies,
        at("2030-01-01T00:00:00Z"),
        2,
    )
    .unwrap();
    let copy = add(
        &File::open(&file).unwrap(),
        &copies,
        at("2026-11-01T00:00:00Z"),
        2,
    )
    .unwrap();
    assert_eq!(copy.made, at("2030-01-01T00:00:01Z"));
    assert_eq!(
        names(&copies).last().unwrap(),
        "hearth-20300101-000001.redb"
    );
}

#[test]
fn what_an_interrupted_copy_left_is_removed() {
    let (_directory, file, copies) = database();
    fs::write(copies.join("hearth-20261101-000000.redb.new"), b"half").unwrap();
    assert_eq!(unfinished(&copies).unwrap().len(), 1);
    add(
        &File::open(&file).unwrap(),
        &copies,
        at("2026-11-02T00:00:00Z"),
        7,
    )
    .unwrap();
    assert_eq!(unfinished(&copies).unwrap().len(), 0);
}

#[test]
fn a_missing_directory_is_named_as_a_missing_drive() {
    let (_directory, file, copies) = database();
    let fault = add(
        &File::open(&file).unwrap(),
        &copies.join("usb"),
        at("2026-11-01T00:00:00Z"),
        7,
    )
    .unwrap_err();
    assert!(
        fault.to_string().contains("is the drive mounted?"),
        "{fault}"
    );
}

#[test]
fn copies_wear_out_no_flash() {
    let day = Duration::from_secs(24 * 60 * 60);
    assert_eq!(interval(day, None, 1 << 30), day);
    assert_eq!(interval(day, Some(256 << 10), 100 << 10), day);
    assert_eq!(interval(day, Some(256 << 10), 1 << 20), 4 * day);
}

#[test]
fn a_copy_is_due_as_if_there_was_no_restart() {
    let day = Duration::from_secs(24 * 60 * 60);
    let copy = Copy {
        path: "x".into(),
        made: at("2026-11-01T00:00:00Z"),
        bytes: 1,
    };
    let due = |now: &str| due_in(Some(&copy), day, at(now));
    assert_eq!(
        due("2026-11-01T06:00:00Z"),
        Duration::from_secs(18 * 60 * 60)
    );
    assert_eq!(due("2026-11-03T00:00:00Z"), Duration::ZERO);
    // A clock that went back.
    assert_eq!(due("2026-10-01T00:00:00Z"), Duration::ZERO);
    assert_eq!(
        due_in(None, day, at("2026-11-01T00:00:00Z")),
        Duration::ZERO
    );
}
