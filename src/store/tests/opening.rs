//! What is opened: first starts, lost files, other schemas.

use std::fs;

use super::*;
use crate::store::check::Check;
use crate::store::directory::Directory;
use crate::store::opening::forget_oldest_damaged;
use crate::store::simulation::{Disk, Plan};
use crate::store::{BACKUPS, NEW_NAME, Notice, Verdict, rewrite, verify};

/// A data directory with a tailnet.
fn directory() -> (tempfile::TempDir, World) {
    let directory = tempfile::tempdir().unwrap();
    let world = eventful();
    let (mut store, _) = Store::open(directory.path(), CACHE).unwrap();
    store
        .commit(&world.records, &world.events, &world.model)
        .unwrap();
    (directory, world)
}

fn refusal(directory: &Path) -> StoreError {
    Store::open(directory, CACHE).map(|_| ()).unwrap_err()
}

#[test]
fn a_file_that_is_not_a_database_is_refused_and_kept() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(FILE_NAME);
    fs::write(&path, "my shopping list").unwrap();
    let fault = refusal(directory.path()).to_string();
    for part in ["hearth.redb", "hearth repair", "hearth restore", "magic"] {
        assert!(fault.contains(part), "{part}: {fault}");
    }
    assert_eq!(fs::read_to_string(&path).unwrap(), "my shopping list");
}

#[test]
fn a_first_start_leaves_one_file_and_a_leftover_of_another_is_removed() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join(NEW_NAME), "half").unwrap();
    let (store, _) = Store::open(directory.path(), CACHE).unwrap();
    drop(store);
    let names: Vec<_> = fs::read_dir(directory.path()).unwrap().collect();
    assert_eq!(names.len(), 1, "{names:?}");
}

#[test]
fn a_first_start_on_a_full_disk_leaves_nothing_in_the_way_of_the_next_one() {
    let open = |disk: &Disk| Store::open_in(Arc::new(disk.clone()), CACHE, Check::Here);
    for writes in 0.. {
        let disk = Disk::default();
        disk.plan(Plan {
            writes_until: Some(writes),
            is_full: true,
            ..Plan::default()
        });
        let Err(fault) = open(&disk) else {
            assert!(writes > 1, "it takes several writes");
            break;
        };
        assert!(matches!(fault, StoreError::Create { .. }), "{fault}");
        assert_eq!(disk.content(FILE_NAME), None, "after {writes} writes");
        // Room was made.
        disk.plan(Plan::default());
        let (_, loaded) = open(&disk).unwrap_or_else(|fault| panic!("{writes}: {fault}"));
        assert_eq!(loaded.notice, None);
        assert!(loaded.unwritable.is_none());
        assert_eq!(disk.content(NEW_NAME), None);
    }
}

/// It was taken for a first start: new keys, an empty tailnet.
#[test]
fn a_lost_or_empty_database_beside_traces_of_hearth_is_no_first_start() {
    for trace in [
        "tls",
        "wan.json",
        BACKUPS,
        "hearth.redb.damaged-1",
        FILE_NAME,
    ] {
        let directory = tempfile::tempdir().unwrap();
        match trace {
            "tls" | BACKUPS => fs::create_dir(directory.path().join(trace)).unwrap(),
            file => fs::write(directory.path().join(file), "").unwrap(),
        }
        let fault = refusal(directory.path());
        assert!(matches!(fault, StoreError::Lost { .. }), "{trace}: {fault}");
        let text = fault.to_string();
        assert!(
            text.contains("hearth restore") && text.contains(trace),
            "{text}"
        );
    }
    // The standalone relay has a certificate, too.
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("tls")).unwrap();
    fs::write(directory.path().join("relay.key"), [1; 32]).unwrap();
    Store::open(directory.path(), CACHE).unwrap();
}

#[test]
fn a_lost_database_is_restored_from_the_newest_good_backup() {
    for lost in ["missing", "empty"] {
        let (directory, mut world) = directory();
        let backups = directory.path().join(BACKUPS);
        fs::create_dir(&backups).unwrap();
        let (mut store, before) = Store::open(directory.path(), CACHE).unwrap();
        let newest = backups.join("hearth-20260301-000000.redb");
        store.copy_to(&newest, &world.model).unwrap();
        fs::write(backups.join("hearth-20260401-000000.redb"), "damaged").unwrap();
        let expected = stock_of_model(&world.model);
        world
            .apply(Command::CreateUser(NewUser {
                name: "later".into(),
                ..NewUser::default()
            }))
            .unwrap();
        store
            .copy_to(&backups.join("hearth-20260201-000000.redb"), &world.model)
            .unwrap();
        drop(store);
        let path = directory.path().join(FILE_NAME);
        match lost {
            "empty" => fs::write(&path, "").unwrap(),
            _ => fs::remove_file(&path).unwrap(),
        }
        let (_store, loaded) = Store::open(directory.path(), CACHE).unwrap();
        assert_eq!(stock_of_loaded(&loaded), expected);
        assert_eq!(*loaded.secrets.noise, *before.secrets.noise);
        let Some(Notice::Restored { backup, reason, .. }) = loaded.notice else {
            panic!("{:?}", loaded.notice);
        };
        assert_eq!(backup, newest);
        assert!(reason.contains(lost), "{reason}");
        assert!(path.metadata().unwrap().len() > 0);
    }
}

/// Made by hearth as it was before schema 2.
const SCHEMA_1: &[u8] = include_bytes!("../fixtures/schema-1.redb");

#[test]
fn a_database_of_schema_1_is_migrated_and_kept() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(FILE_NAME);
    fs::write(&path, SCHEMA_1).unwrap();
    let (mut store, loaded) = Store::open(directory.path(), CACHE).unwrap();
    let Some(Notice::Migrated { from: 1, kept }) = &loaded.notice else {
        panic!("{:?}", loaded.notice);
    };
    assert_eq!(fs::read(kept).unwrap(), SCHEMA_1);
    let notice = loaded.notice.as_ref();
    assert_eq!(notice.and_then(Notice::warning), None, "it is no damage");
    let check = |store: &mut Store, loaded: &Loaded| {
        assert_eq!(loaded.secrets.noise[..3], [148, 184, 250]);
        assert_eq!(loaded.secrets.derp[..3], [120, 131, 247]);
        assert_eq!((loaded.users.len(), loaded.nodes.len()), (1, 2));
        assert_eq!((loaded.preauth_keys.len(), loaded.api_keys.len()), (3, 1));
        assert_eq!((loaded.attributes.len(), loaded.dns_records.len()), (1, 2));
        assert_eq!((loaded.policies.len(), loaded.shut_out.len()), (2, 1));
        assert_eq!(loaded.counters.node.number(), 8);
        assert_eq!(loaded.skipped.len(), 1);
        assert_eq!(names(store, None, 99).len(), 17);
    };
    check(&mut store, &loaded);
    drop(store);
    let report = verify(&path).unwrap();
    assert_eq!(report.verdict, Verdict::Sound { schema: 2 });
    let (mut store, loaded) = Store::open(directory.path(), CACHE).unwrap();
    assert!(loaded.notice.is_none());
    check(&mut store, &loaded);
    // The kept file can be opened again.
    drop(store);
    let backups = fs::read_dir(directory.path().join(BACKUPS)).unwrap();
    let kept = backups.map(|entry| entry.unwrap().path()).next().unwrap();
    assert_eq!(verify(&kept).unwrap().verdict, Verdict::Sound { schema: 1 });
    let other = tempfile::tempdir().unwrap();
    rewrite(&kept, &other.path().join(FILE_NAME)).unwrap();
    let (mut store, loaded) = Store::open(other.path(), CACHE).unwrap();
    check(&mut store, &loaded);
}

#[test]
fn a_database_of_a_newer_hearth_is_refused_untouched() {
    let (directory, _) = directory();
    let path = directory.path().join(FILE_NAME);
    let database = redb::Database::open(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    let newer = 3_u64.to_le_bytes();
    transaction
        .open_table(schema::by_text(schema::META))
        .unwrap()
        .insert(schema::SCHEMA, newer.as_slice())
        .unwrap();
    transaction.commit().unwrap();
    drop(database);
    let before = fs::read(&path).unwrap();
    let refused = refusal(directory.path());
    assert!(
        matches!(refused, StoreError::Newer { found: 3, .. }),
        "{refused:?}"
    );
    assert!(refused.to_string().contains("hearth restore"));
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[test]
fn a_read_only_file_is_served_and_changes_are_refused() {
    use std::os::unix::fs::PermissionsExt;
    let (directory, world) = directory();
    let path = directory.path().join(FILE_NAME);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
    let before = fs::read(&path).unwrap();
    let (store, loaded) = Store::open(directory.path(), CACHE).unwrap();
    assert_eq!(stock_of_loaded(&loaded), stock_of_model(&world.model));
    drop(store);
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[test]
fn a_backup_has_everything_and_is_whole_under_its_name() {
    let (directory, world) = directory();
    let (mut store, loaded) = Store::open(directory.path(), CACHE).unwrap();
    let backup = directory.path().join("copy").join("hearth.redb");
    fs::create_dir(backup.parent().unwrap()).unwrap();
    store.copy_to(&backup, &world.model).unwrap();
    let audit = names(&mut store, None, 99);
    assert!(!audit.is_empty());
    let (mut copy, copied) = Store::open(backup.parent().unwrap(), CACHE).unwrap();
    assert_eq!(stock_of_loaded(&copied), stock_of_loaded(&loaded));
    assert_eq!(*copied.secrets.noise, *loaded.secrets.noise);
    assert_eq!(names(&mut copy, None, 99), audit);
}

#[test]
fn a_database_in_use_is_neither_checked_nor_replaced() {
    let (directory, _) = directory();
    let path = directory.path().join(FILE_NAME);
    let _store = Store::open(directory.path(), CACHE).unwrap();
    let refused = verify(&path).map(|_| ()).unwrap_err();
    assert!(matches!(refused, StoreError::InUse { .. }), "{refused}");
    // An earlier hearth locks it in redb's way.
    drop(_store);
    let earlier = redb::Database::open(&path).unwrap();
    let refused = refusal(directory.path());
    assert!(matches!(refused, StoreError::InUse { .. }), "{refused}");
    drop(earlier);
    let _store = Store::open(directory.path(), CACHE).unwrap();
    assert!(matches!(
        redb::Database::open(&path),
        Err(redb::DatabaseError::DatabaseAlreadyOpen)
    ));
}

#[test]
fn the_newest_damaged_files_are_kept_whatever_their_names() {
    let directory = tempfile::tempdir().unwrap();
    let names = [
        // 2023, 2027 and 2026, as earlier versions named them.
        "hearth.redb.damaged-1700000000",
        "hearth.redb.damaged-1800000000",
        "hearth.redb.damaged-1780000000",
        "hearth.redb.damaged-20250101-000000",
        "hearth.redb.damaged-20261128-040506-2",
        "hearth.redb.damaged-mine",
    ];
    for name in names {
        fs::write(directory.path().join(name), name).unwrap();
    }
    forget_oldest_damaged(&Directory(directory.path().to_owned()));
    let is_there = names.map(|name| directory.path().join(name).exists());
    assert_eq!(is_there, [false, true, true, false, true, true]);
}
