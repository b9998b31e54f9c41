//! Damaged files: flipped bits, pages of zeros, pages of another's content or of an earlier time.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::before::Before;
use super::judge::Subject;
use super::*;
use crate::store::check::{Check, inspect};
use crate::store::folder::Folder;
use crate::store::simulation::{Chance, Disk};
use crate::store::{BACKUPS, Notice, Verdict};

const BACKUP: &str = "backups/hearth-20260301-000000.redb";

/// A disk with a closed database, and what is in it; `early` is the file before the last change.
struct Closed {
    file: Vec<u8>,
    early: Vec<u8>,
    stock: Stock,
    audit: usize,
}

fn closed() -> Closed {
    let world = eventful();
    let disk = Disk::default();
    let (mut store, _) = Store::on(&disk);
    let half = world.events.len() / 2;
    store
        .commit(&world.records, &world.events[..half], &world.model)
        .unwrap();
    let early = disk.content(FILE_NAME).unwrap();
    let mut model = world.model.clone();
    let users = Arc::make_mut(&mut model.users);
    let user = users.values_mut().next().unwrap();
    Arc::make_mut(user).name = "renamed".into();
    let record = Record::PutUser(Arc::clone(user));
    store
        .commit(&[record], &world.events[half..], &model)
        .unwrap();
    let audit = names(&mut store, None, 999).len();
    drop(store);
    Closed {
        file: disk.content(FILE_NAME).unwrap(),
        early,
        stock: stock_of_model(&model),
        audit,
    }
}

/// A machine whose database file is this, with a backup or without.
fn disk_with(file: &[u8], backup: Option<&[u8]>) -> Disk {
    let disk = Disk::default();
    disk.put(FILE_NAME, file.to_vec());
    if let Some(backup) = backup {
        disk.put(BACKUP, backup.to_vec());
    }
    disk
}

/// What became of a damaged file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    /// Damage in a place that nothing uses, or that was repaired without a loss.
    Harmless,
    Repaired,
    Restored,
    Refused,
    /// Another state was served without a word.
    Silent,
    Panicked,
}

fn open(disk: &Disk, closed: &Closed) -> End {
    let opened = catch_unwind(AssertUnwindSafe(|| {
        Store::open_in(Arc::new(disk.clone()), CACHE, Check::Here)
    }));
    let (mut store, loaded) = match opened {
        Err(_) => return End::Panicked,
        Ok(Err(StoreError::Damaged { .. } | StoreError::Newer { .. })) => return End::Refused,
        Ok(Err(fault)) => panic!("{fault}"),
        Ok(Ok(opened)) => opened,
    };
    let is_same = stock_of_loaded(&loaded) == closed.stock;
    let audit = names(&mut store, None, 999).len();
    match loaded.notice {
        Some(Notice::Restored { .. }) => End::Restored,
        Some(Notice::Repaired { .. }) if is_same => End::Repaired,
        None if is_same && audit == closed.audit => End::Harmless,
        _ => End::Silent,
    }
}

/// Kinds of damage to a file, some of each.
fn damages(closed: &Closed, count: usize) -> Vec<(&'static str, Vec<u8>)> {
    let mut chance = Chance::new(7);
    let mut damaged = Vec::new();
    let pages = closed.file.len() / 4096;
    for _ in 0..count {
        let mut file = closed.file.clone();
        let bit = chance.below(file.len() * 8);
        file[bit / 8] ^= 1 << (bit % 8);
        damaged.push(("flipped bit", file));
    }
    for page in 0..pages {
        let range = page * 4096..(page + 1) * 4096;
        let mut file = closed.file.clone();
        file[range.clone()].fill(0);
        damaged.push(("page of zeros", file));
        let mut file = closed.file.clone();
        let other = chance.below(pages) * 4096;
        file.copy_within(other..other + 4096, range.start);
        damaged.push(("page of another's content", file));
        let mut file = closed.file.clone();
        if let Some(early) = closed.early.get(range.clone()) {
            file[range.clone()].copy_from_slice(early);
        }
        damaged.push(("page of an earlier time", file));
        let mut file = closed.file.clone();
        file.truncate(range.start);
        damaged.push(("cut off", file));
    }
    damaged
}

#[test]
fn damage_is_repaired_without_a_loss_or_a_backup_is_restored_or_nothing_is_served() {
    let closed = closed();
    let mut ends = BTreeMap::new();
    for (kind, file) in damages(&closed, 150) {
        if file.is_empty() {
            continue;
        }
        let backup = disk_with(&file, Some(&closed.early));
        let end = open(&backup, &closed);
        assert!(end < End::Refused, "{kind} with a backup: {end:?}");
        if end != End::Harmless {
            // The damaged file is kept, and the next start has nothing to say.
            let names = Folder::list(&backup, "").unwrap();
            let kept = names
                .iter()
                .find(|name| name.contains(".damaged-"))
                .unwrap();
            assert_eq!(backup.content(kept).unwrap(), file);
            let (_, again) = Store::on(&backup);
            assert!(again.notice.is_none(), "{kind}: {:?}", again.notice);
        }
        let alone = open(&disk_with(&file, None), &closed);
        let expected = match end {
            End::Restored => End::Refused,
            other => other,
        };
        assert_eq!(alone, expected, "{kind}");
        *ends.entry((kind, end)).or_insert(0) += 1;
    }
    println!("{ends:#?}");
    assert!(ends.keys().any(|(_, end)| *end == End::Restored));
}

/// Earlier versions served another state silently, or did not start.
#[test]
fn the_same_damage_went_unnoticed_in_earlier_versions() {
    let disk = Disk::default();
    let world = eventful();
    let (mut before, _) = Before::open(&disk).unwrap();
    before.commit(&world.records, &world.model);
    let early = disk.content(FILE_NAME).unwrap();
    before.commit(&Record::whole(&world.model), &world.model);
    drop(before);
    let file = disk.content(FILE_NAME).unwrap();
    let closed = Closed {
        early,
        file,
        stock: Stock::new(),
        audit: 0,
    };
    let stock = Before::open(&disk).unwrap().1.stock;
    let mut bad = 0;
    for (_, file) in damages(&closed, 50) {
        let disk = disk_with(&file, None);
        let opened = catch_unwind(AssertUnwindSafe(|| Before::unchecked(&disk)));
        // A start that fails is no silent one, but there was no way on from it.
        bad += usize::from(!matches!(opened, Ok(Ok(found)) if found == stock));
    }
    assert!(bad > 10, "only {bad}");
}

#[test]
fn damage_to_the_audit_log_costs_its_entries_only() {
    let disk = Disk::default();
    let world = eventful();
    let (mut store, _) = Store::on(&disk);
    store
        .commit(&world.records, &world.events, &world.model)
        .unwrap();
    let entries = names(&mut store, None, 999).len();
    drop(store);
    // As a page that redb takes for its own: another checksum in the value.
    let database = Before::database(&disk).unwrap();
    let transaction = database.begin_write().unwrap();
    let mut table = transaction
        .open_table(schema::by_number(schema::AUDIT))
        .unwrap();
    table.insert(2, b"damaged".as_slice()).unwrap();
    drop(table);
    transaction.commit().unwrap();
    drop(database);
    let (mut store, loaded) = Store::on(&disk);
    assert!(matches!(loaded.notice, Some(Notice::Repaired { .. })));
    let warning = loaded.notice.as_ref().and_then(Notice::warning).unwrap();
    assert!(
        warning.contains("no record is lost") && warning.contains("hearth.redb.damaged-"),
        "{warning}"
    );
    assert_eq!(stock_of_loaded(&loaded), stock_of_model(&world.model));
    assert_eq!(names(&mut store, None, 999).len(), entries - 1);
}

#[test]
fn a_record_that_is_lost_or_comes_back_is_noticed_although_redb_is_satisfied() {
    let world = eventful();
    let value = |disk: &Disk| {
        let (mut store, _) = Store::on(disk);
        let mut value = None;
        let reader = store.reader().unwrap();
        let take = &mut |key: &entry::Key, stored: &[u8]| {
            value = Some((key.clone(), stored.to_vec()));
            Ok(())
        };
        reader.each(schema::USERS, take).unwrap();
        value.unwrap()
    };
    for comes_back in [false, true] {
        let disk = Disk::default();
        let (mut store, _) = Store::on(&disk);
        store.commit(&world.records, &[], &world.model).unwrap();
        drop(store);
        let (entry::Key::Number(number), stored) = value(&disk) else {
            panic!("users have numbers");
        };
        if comes_back {
            let (mut store, _) = Store::on(&disk);
            let user = world.model.users.keys().next().unwrap();
            store
                .commit(&[Record::DeleteUser(*user)], &[], &world.model)
                .unwrap();
        }
        let database = Before::database(&disk).unwrap();
        let transaction = database.begin_write().unwrap();
        let mut table = transaction
            .open_table(schema::by_number(schema::USERS))
            .unwrap();
        match comes_back {
            true => drop(table.insert(number, &*stored).unwrap()),
            false => drop(table.remove(number).unwrap()),
        }
        drop(table);
        transaction.commit().unwrap();
        drop(database);
        let report = inspect(&disk.open(FILE_NAME).unwrap(), &mut |_| {}).unwrap();
        let Verdict::Damaged { reason } = &report.verdict else {
            panic!("{report:?}");
        };
        assert!(
            reason.contains("records are lost or of an earlier time"),
            "{reason}"
        );
        let refused = Store::open_in(Arc::new(disk), CACHE, Check::Here);
        let refused = refused.map(|_| ()).unwrap_err().to_string();
        assert!(
            refused.contains(BACKUPS) && refused.contains(reason),
            "{refused}"
        );
    }
}
