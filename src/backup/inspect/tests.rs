use std::fs::File;

use super::*;
use crate::net::tls::CertNames;
use crate::store::Store;
use hearth_core::state::command::{Command, NewUser};
use hearth_core::state::testing::World;

const NOW: Timestamp = Timestamp::from_unix_ms(1_795_838_706_000);

fn place() -> (tempfile::TempDir, Place) {
    let directory = tempfile::tempdir().unwrap();
    let place = Place {
        data_dir: directory.path().join("data"),
        copies: None,
        salvage: false,
    };
    drop(Store::open(&place.data_dir, 1 << 20).unwrap());
    Identity::self_signed(&place.data_dir, &CertNames::default(), NOW).unwrap();
    (directory, place)
}

fn add_copy(place: &Place) -> PathBuf {
    let folder = place.data_dir.join(BACKUPS);
    fs::create_dir_all(&folder).unwrap();
    let database = place.data_dir.join(FILE_NAME);
    copies::add(&File::open(&database).unwrap(), &folder, NOW, 7)
        .unwrap()
        .path
}

fn damage(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[16..middle].fill(7);
    fs::write(path, bytes).unwrap();
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap().flatten();
    let names = entries.map(|entry| entry.file_name().to_str().unwrap().to_owned());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

fn repair(place: &Place) {
    for finding in inspect(place).unwrap() {
        for step in &finding.steps {
            step.carry_out(NOW).unwrap();
        }
    }
}

#[test]
fn a_sound_directory_needs_no_step_and_is_not_written() {
    let (_directory, place) = place();
    add_copy(&place);
    let before = names(&place.data_dir);
    let findings = inspect(&place).unwrap();
    assert_eq!(worst(&findings), State::Sound, "{findings:?}");
    assert_eq!(findings.len(), 3, "{findings:?}");
    assert!(findings.iter().all(|finding| finding.steps.is_empty()));
    assert_eq!(names(&place.data_dir), before);
}

#[test]
fn a_damaged_database_is_replaced_by_the_newest_copy_and_kept() {
    let (_directory, place) = place();
    let copy = add_copy(&place);
    let database = place.data_dir.join(FILE_NAME);
    let key = *store::read_all(&database).unwrap().secrets.noise;
    damage(&database);
    let damaged = fs::read(&database).unwrap();
    let findings = inspect(&place).unwrap();
    assert_eq!(worst(&findings), State::Damaged);
    let step = findings[0].steps[0].clone();
    assert_eq!(
        step,
        Step::BringBack {
            path: database.clone(),
            copy
        }
    );
    assert_eq!(fs::read(&database).unwrap(), damaged, "checked only");
    repair(&place);
    assert_eq!(*store::read_all(&database).unwrap().secrets.noise, key);
    let kept = format!("{FILE_NAME}.damaged-{}", NOW.stamp());
    assert_eq!(fs::read(place.data_dir.join(kept)).unwrap(), damaged);
    let findings = inspect(&place).unwrap();
    assert_eq!(worst(&findings), State::Sound, "{findings:?}");
}

#[test]
fn a_missing_database_comes_back_from_a_copy_or_is_lost() {
    let (_directory, place) = place();
    fs::remove_file(place.data_dir.join(FILE_NAME)).unwrap();
    let findings = inspect(&place).unwrap();
    assert_eq!(worst(&findings), State::Lost);
    assert!(findings[0].steps.is_empty());

    let (_directory, place) = self::place();
    add_copy(&place);
    fs::remove_file(place.data_dir.join(FILE_NAME)).unwrap();
    repair(&place);
    assert_eq!(worst(&inspect(&place).unwrap()), State::Sound);
}

#[test]
fn damaged_certificates_and_copies_are_renamed_and_leftovers_removed() {
    let (_directory, place) = place();
    let copy = add_copy(&place);
    damage(&copy);
    fs::write(place.data_dir.join(KEY_FILE), b"no key").unwrap();
    fs::write(place.data_dir.join("tls/cert.new"), b"half").unwrap();
    repair(&place);
    let stamp = NOW.stamp();
    assert_eq!(
        names(&place.data_dir.join("tls")),
        [
            format!("cert.pem.damaged-{stamp}"),
            format!("key.pem.damaged-{stamp}")
        ]
    );
    let name = copy.file_name().unwrap().to_str().unwrap();
    assert_eq!(
        names(&place.data_dir.join(BACKUPS)),
        [format!("{name}.damaged-{stamp}")]
    );
    assert_eq!(worst(&inspect(&place).unwrap()), State::Sound);
}

#[test]
fn what_others_can_read_is_closed() {
    let (_directory, place) = place();
    for (path, mode) in [
        (place.data_dir.clone(), 0o755),
        (place.data_dir.join(KEY_FILE), 0o644),
    ] {
        set_mode(&path, mode).unwrap();
    }
    let findings = inspect(&place).unwrap();
    let open = findings
        .iter()
        .filter(|finding| finding.state == State::Damaged);
    assert_eq!(open.count(), 2);
    repair(&place);
    assert_eq!(worst(&inspect(&place).unwrap()), State::Sound);
}

#[test]
fn a_server_that_runs_is_not_checked() {
    let (_directory, place) = place();
    let _running = Store::open(&place.data_dir, 1 << 20).unwrap();
    assert!(matches!(
        inspect(&place).unwrap_err(),
        StoreError::InUse { .. }
    ));
}

#[test]
fn what_can_be_read_of_a_damaged_database_is_kept_on_wish_and_where_there_is_no_copy() {
    let (_directory, mut place) = place();
    let path = place.data_dir.join(FILE_NAME);
    let mut world = World::new();
    let (mut store, _) = Store::open(&place.data_dir, 1 << 20).unwrap();
    for name in ["lost-for-ever", "still-there", "and-me"] {
        let new = NewUser {
            name: name.into(),
            ..Default::default()
        };
        world.apply(Command::CreateUser(new)).unwrap();
    }
    store.commit(&world.records, &[], &world.model).unwrap();
    drop(store);
    let mut bytes = fs::read(&path).unwrap();
    let name = b"lost-for-ever";
    let places: Vec<usize> = (0..bytes.len() - name.len())
        .filter(|at| bytes[*at..].starts_with(name))
        .collect();
    assert!(!places.is_empty());
    for at in places {
        bytes[at] ^= 1;
    }
    fs::write(&path, &bytes).unwrap();
    place.salvage = true;
    let findings = inspect(&place).unwrap();
    assert_eq!(worst(&findings), State::Damaged, "{findings:?}");
    repair(&place);
    let loaded = store::read_all(&path).unwrap();
    let names: Vec<&str> = loaded.users.values().map(|user| &*user.name).collect();
    assert_eq!(names, ["still-there", "and-me"]);
}

#[test]
fn what_root_repairs_belongs_to_the_owner_of_the_directory() {
    use std::os::unix::fs::MetadataExt as _;
    if !rustix::process::geteuid().is_root() {
        return;
    }
    for has_copy in [false, true] {
        let (_directory, place) = place();
        if has_copy {
            add_copy(&place);
        }
        let database = place.data_dir.join(FILE_NAME);
        std::os::unix::fs::chown(&place.data_dir, Some(12_345), Some(12_346)).unwrap();
        if has_copy {
            damage(&database);
            repair(&place);
        } else {
            let rewrite = Step::Rewrite {
                path: database.clone(),
            };
            rewrite.carry_out(NOW).unwrap();
        }
        let repaired = database.metadata().unwrap();
        let mode = repaired.permissions().mode() & 0o777;
        assert_eq!((repaired.uid(), repaired.gid()), (12_345, 12_346));
        assert_eq!(mode, 0o600);
        // A start by root writes there too: a directory of copies, and a copy.
        files::create_directory(&place.data_dir.join(BACKUPS)).unwrap();
        let copy = add_copy(&place).metadata().unwrap();
        let expected = if has_copy { 0 } else { 12_345 };
        assert_eq!(copy.uid(), expected);
    }
}
