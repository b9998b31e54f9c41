//! What is acknowledged and what is refused when writes and syncs fail.

use super::*;
use crate::store::simulation::{Chance, Cut, Disk, Mood, Plan};

/// A tailnet in a store, where every change either happens in both or in neither.
pub(super) struct Tailnet {
    world: World,
    pub(super) store: Store,
    pub(super) disk: Disk,
}

impl Tailnet {
    pub(super) fn new() -> Self {
        let mut world = eventful();
        Arc::make_mut(&mut world.model.settings).max_users = 5000;
        let disk = Disk::default();
        let (mut store, _) = Store::on(&disk);
        store
            .commit(&world.records, &world.events, &world.model)
            .unwrap();
        let mut tailnet = Self { world, store, disk };
        // The file grows with this one, and has room for some more.
        tailnet.user("first").unwrap();
        tailnet
    }

    /// Creates a user.
    pub(super) fn user(&mut self, name: &str) -> Result<(), StoreError> {
        let before = self.world.model.clone();
        self.world.records.clear();
        self.world.events.clear();
        let new = NewUser {
            name: name.into(),
            ..NewUser::default()
        };
        self.world.apply(Command::CreateUser(new)).unwrap();
        let World {
            records,
            events,
            model,
            ..
        } = &self.world;
        let committed = self.store.commit(records, events, model);
        if committed.is_err() {
            self.world.model = before;
        }
        committed
    }

    /// Whether a restart finds what was acknowledged and nothing else.
    pub(super) fn assert_kept(self) {
        drop(self.store);
        let (mut store, loaded) = Store::on(&self.disk);
        assert_eq!(stock_of_loaded(&loaded), stock_of_model(&self.world.model));
        assert!(loaded.notice.is_none(), "{:?}", loaded.notice);
        let users = loaded.users.len();
        let created = names(&mut store, None, 999).into_iter();
        let created =
            created.filter(|(_, name)| loaded.users.values().any(|user| *user.name == **name));
        assert!(created.count() >= users, "the audit log is incomplete");
    }
}

pub(super) const BROKEN: Plan = Plan {
    steps_until_off: None,
    syncs: 1,
    folder_syncs: 0,
    writes_until: None,
    reads_until: None,
    is_full: false,
    no_new_files: false,
    capacity: None,
    drops_pages: false,
};

/// A file whose name could not be synced was opened after a restart and written, and a power cut then brought back the one
/// before it.
#[test]
fn a_name_that_was_not_synced_before_a_restart_costs_no_later_change() {
    // Also if the directory cannot be synced when the file is opened.
    for folder_syncs in [0, 1] {
        let mut tailnet = Tailnet::new();
        tailnet.disk.plan(Plan {
            folder_syncs: 9,
            ..BROKEN
        });
        let doubtful = tailnet.user("doubtful");
        assert!(matches!(doubtful, Err(StoreError::InDoubt(_))));
        let Tailnet { world, store, disk } = tailnet;
        drop(store);
        disk.plan(Plan {
            folder_syncs,
            ..Plan::default()
        });
        let (store, _) = Store::on(&disk);
        disk.plan(Plan::default());
        let mut tailnet = Tailnet { world, store, disk };
        tailnet.user("later").unwrap();
        let mut chance = Chance::new(1);
        let disk = tailnet.disk.durable().after(Cut::AllLost, &mut chance);
        let (_, loaded) = Store::on(&disk);
        assert!(loaded.users.values().any(|user| &*user.name == "later"));
    }
}

#[test]
fn after_a_failed_sync_the_change_goes_into_a_fresh_file() {
    for drops_pages in [false, true] {
        let mut tailnet = Tailnet::new();
        let old = tailnet.disk.content(FILE_NAME).unwrap();
        tailnet.disk.plan(Plan {
            drops_pages,
            ..BROKEN
        });
        tailnet.user("bert").unwrap();
        assert_ne!(tailnet.disk.content(FILE_NAME).unwrap(), old);
        assert_eq!(tailnet.disk.content(crate::store::NEW_NAME), None);
        tailnet.user("carla").unwrap();
        tailnet.assert_kept();
    }
}

#[test]
fn a_change_that_is_refused_because_of_a_failed_sync_never_comes_up() {
    let mut tailnet = Tailnet::new();
    tailnet.disk.plan(Plan {
        no_new_files: true,
        ..BROKEN
    });
    let refused = tailnet.user("bert").unwrap_err();
    assert!(matches!(refused, StoreError::Write(_)), "{refused}");
    // Reading goes on.
    assert!(!tailnet.store.audit(None, 9).unwrap().is_empty());
    let again = tailnet.user("bert").unwrap_err();
    assert!(matches!(again, StoreError::Write(_)), "{again}");
    tailnet.disk.plan(Plan::default());
    tailnet.user("carla").unwrap();
    tailnet.assert_kept();
}

#[test]
fn a_change_that_cannot_be_undone_is_in_doubt_and_the_reply_says_so() {
    let mut tailnet = Tailnet::new();
    tailnet.disk.plan(Plan {
        syncs: 9,
        no_new_files: true,
        ..BROKEN
    });
    let doubtful = tailnet.user("bert").unwrap_err();
    assert!(matches!(doubtful, StoreError::InDoubt(_)), "{doubtful}");
    assert!(doubtful.to_string().contains("may still take effect"));
    // The next one is not in the file.
    let refused = tailnet.user("carla").unwrap_err();
    assert!(matches!(refused, StoreError::Write(_)), "{refused}");
    // A fresh file ends the doubt.
    tailnet.disk.plan(Plan::default());
    tailnet.user("dora").unwrap();
    tailnet.assert_kept();
}

#[test]
fn a_directory_that_cannot_be_synced_leaves_the_change_in_doubt() {
    let mut tailnet = Tailnet::new();
    tailnet.disk.plan(Plan {
        folder_syncs: 1,
        ..BROKEN
    });
    let doubtful = tailnet.user("bert").unwrap_err();
    assert!(matches!(doubtful, StoreError::InDoubt(_)), "{doubtful}");
    assert!(!tailnet.store.audit(None, 9).unwrap().is_empty());
    tailnet.user("carla").unwrap();
    tailnet.assert_kept();
}

#[test]
fn a_full_disk_leaves_the_file_as_it_was_and_is_tried_again() {
    let mut tailnet = Tailnet::new();
    for writes in 0.. {
        tailnet.disk.plan(Plan {
            writes_until: Some(writes),
            is_full: true,
            ..Plan::default()
        });
        let before = tailnet.disk.steps();
        match tailnet.user(&format!("refused{writes}")) {
            // All of it was written.
            Ok(()) => break,
            Err(refused) => assert!(matches!(refused, StoreError::Write(_)), "{refused}"),
        }
        assert!(tailnet.disk.steps() <= before + writes, "no second attempt");
        tailnet.disk.plan(Plan::default());
        tailnet.user(&format!("user{writes}")).unwrap();
        assert!(writes < 20, "more writes than a change has");
    }
    tailnet.disk.plan(Plan::default());
    tailnet.assert_kept();
}

#[test]
fn a_bad_place_on_the_disk_is_left_for_a_fresh_file() {
    let mut tailnet = Tailnet::new();
    tailnet.disk.plan(Plan {
        writes_until: Some(1),
        ..Plan::default()
    });
    // The plan also stops the fresh file.
    assert!(tailnet.user("bert").is_err());
    tailnet.disk.plan(Plan::default());
    tailnet.user("carla").unwrap();
    tailnet.assert_kept();
}

#[test]
fn opening_writes_nothing_and_a_disk_that_takes_nothing_is_served() {
    let tailnet = Tailnet::new();
    let Tailnet { world, store, disk } = tailnet;
    // As after a kill: the database was not closed.
    std::mem::forget(store);
    let steps = disk.steps();
    disk.set(Mood::Fails);
    let (mut store, loaded) = Store::on(&disk);
    assert_eq!(stock_of_loaded(&loaded), stock_of_model(&world.model));
    assert!(loaded.unwritable.is_some());
    assert!(!store.audit(None, 9).unwrap().is_empty());
    let mut tailnet = Tailnet { world, store, disk };
    assert!(tailnet.user("bert").is_err());
    assert_eq!(tailnet.disk.steps(), steps);
    tailnet.disk.set(Mood::Works);
    tailnet.user("carla").unwrap();
    tailnet.assert_kept();
}

#[test]
fn values_that_cannot_be_read_and_the_keys_survive_a_fresh_file() {
    let mut tailnet = Tailnet::new();
    tailnet.store.tamper(|writer| {
        writer.put(schema::NODES, &70.into(), &[9, 1, 2]).unwrap();
        writer.put(schema::POLICIES, &5.into(), &[9, 3]).unwrap();
        writer
            .put("of a later version", &1.into(), b"kept")
            .unwrap();
    });
    let Tailnet { store, disk, .. } = tailnet;
    drop(store);
    let (mut store, before) = Store::on(&disk);
    assert_eq!(before.skipped.len(), 2);
    disk.plan(BROKEN);
    let user = Record::PutUser(Arc::clone(before.users.values().next().unwrap()));
    let mut world = eventful();
    world.model.counters = before.counters;
    store.commit(&[user], &[], &world.model).unwrap();
    drop(store);
    let (mut store, after) = Store::on(&disk);
    assert_eq!(after.skipped, before.skipped);
    assert_eq!(*after.secrets.noise, *before.secrets.noise);
    assert_eq!(*after.secrets.derp, *before.secrets.derp);
    let reader = store.reader().unwrap();
    assert!(reader.has("of a later version").unwrap());
}
