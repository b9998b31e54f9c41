//! The judge of power cuts around the store of the first version: `tests/crash --reproduce` puts this file, the judge
//! (`src/store/tests/judge.rs`) and the simulated disk into the sources of commit 83ddcc7. Each test holds that store to
//! what it should have done, and fails where it did not.

mod judge;

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};

use redb::{DatabaseError, StorageBackend};

use super::folder::{DataFile, Folder};
use super::simulation::{Chance, Disk};
use super::*;
use crate::state::model::Model;
use crate::state::testing::{World, settings};
use judge::{Course, Opened, Reply, Subject, cuts, history};

const CACHE: usize = 256 * 1024;

type Stock = BTreeMap<(&'static str, String), Vec<u8>>;

thread_local! {
    /// The disk under a store that is opened now.
    static DISK: RefCell<Option<Disk>> = const { RefCell::new(None) };
    /// Whether the file system keeps names by itself, as one with a journal mostly does.
    static KEEPS_NAMES: Cell<bool> = const { Cell::new(true) };
}

#[derive(Debug)]
struct Plain(Arc<dyn DataFile>);

impl StorageBackend for Plain {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read_at(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_at(offset, data)
    }
}

/// What `open_file` calls in place of redb on a file.
pub(super) fn create(file: File, cache_bytes: usize) -> Result<Database, DatabaseError> {
    let mut builder = Builder::new();
    builder.set_cache_size(cache_bytes);
    let Some(disk) = DISK.with_borrow(Clone::clone) else {
        return builder.create_with_backend(FileBackend::new(file)?);
    };
    let found = match Folder::open(&disk, FILE_NAME) {
        Ok(found) => found,
        Err(_) => Folder::create(&disk, FILE_NAME)?,
    };
    if KEEPS_NAMES.get() {
        let _ = Folder::sync(&disk, "");
    }
    builder.create_with_backend(Plain(found))
}

impl Subject for Store {
    fn open(disk: &Disk) -> Result<(Self, Opened), String> {
        DISK.set(Some(disk.clone()));
        let place = std::env::temp_dir().join(format!("hearth-judged-{}", std::process::id()));
        let (store, loaded) = Store::open(&place, CACHE).map_err(|fault| fault.to_string())?;
        let found = Opened {
            stock: stock_of_loaded(&loaded),
            identity: *loaded.secrets.noise,
        };
        Ok((store, found))
    }

    fn commit(&mut self, records: &[Record], _model: &Model) -> Reply {
        match Store::commit(self, records) {
            Ok(()) => Reply::Done,
            Err(_) => Reply::Refused,
        }
    }
}

/// A tailnet with some of everything.
fn eventful() -> World {
    let (mut world, _) = World::with_user();
    world.node_number(1);
    world.node_number(2);
    world.preauth_key("tagged", |key| key.tags = vec!["tag:a".into()]);
    world
}

impl Record {
    /// The records that store a whole model.
    fn whole(model: &Model) -> Vec<Self> {
        let users = model.users.values().cloned().map(Self::PutUser);
        let nodes = model.nodes.iter().cloned().map(Self::PutNode);
        let keys = model.preauth_keys.values().cloned();
        let policies = model.policies.iter().cloned().map(Self::PutPolicy);
        let all = std::iter::once(Self::Counters(model.counters)).chain(users);
        let all = all.chain(nodes).chain(keys.map(Self::PutPreAuthKey));
        all.chain(policies).collect()
    }
}

fn stock_of_model(model: &Model) -> Stock {
    let entry = |record: Record| match record {
        Record::Counters(counters) => (("counters", String::new()), counters.encode()),
        Record::PutUser(user) => (("users", user.id.to_string()), user.encode()),
        Record::PutNode(node) => (("nodes", node.id.to_string()), node.encode()),
        Record::PutPreAuthKey(key) => (("preauth", key.id.to_string()), key.encode()),
        Record::PutPolicy(text) => (("policies", text.id.to_string()), text.encode()),
        other => unreachable!("{other:?} is not in a whole model"),
    };
    Record::whole(model).into_iter().map(entry).collect()
}

fn stock_of_loaded(loaded: &Loaded) -> Stock {
    let mut model = Model::new(settings(), World::new().now);
    model.counters = loaded.counters;
    model.users = Arc::new(loaded.users.clone());
    model.nodes = Arc::new(loaded.nodes.clone());
    model.preauth_keys = Arc::new(loaded.preauth_keys.clone());
    model.policies = Arc::new(loaded.policies.clone());
    stock_of_model(&model)
}

/// Fails with what is wrong and has one of these words, in the first of some histories that has it.
fn judge(keeps_names: bool, failures: usize, words: &[&str]) {
    KEEPS_NAMES.set(keeps_names);
    let (mut images, mut wrong) = (0, Vec::new());
    for seed in 1..9 {
        let course = Course {
            turns: 14,
            failures,
        };
        let history = history::<Store>(seed, course);
        let (faults, looked) = cuts::<Store>(&history, seed, 31);
        images += looked;
        let is_meant = |fault: &String| words.iter().any(|word| fault.contains(word));
        wrong.extend(faults.into_iter().filter(is_meant));
        if !wrong.is_empty() {
            break;
        }
    }
    let first = wrong.first().cloned().unwrap_or_default();
    assert!(
        wrong.is_empty(),
        "{} of {images} disks are wrong: {first}",
        wrong.len()
    );
}

/// One change in so many meets a failing disk: none.
const NEVER: usize = 1 << 40;

#[test]
fn d1_after_a_failed_sync_and_a_power_cut_the_database_opens() {
    judge(true, 3, &["corrupted", "panics at the start"]);
}

#[test]
fn d2_what_was_refused_never_comes_up() {
    judge(true, 3, &["another state"]);
}

#[test]
fn d3_after_a_power_cut_during_the_first_start_the_database_opens() {
    judge(true, NEVER, &["does not start: "]);
}

#[test]
fn d9_the_name_of_the_database_is_on_the_disk() {
    judge(false, NEVER, &["another identity"]);
}

#[test]
fn d5_damage_to_a_closed_database_is_noticed() {
    let disk = Disk::default();
    let model = eventful().model;
    let (mut store, _) = <Store as Subject>::open(&disk).expect("a new disk");
    store
        .commit(&Record::whole(&model))
        .expect("a disk that works");
    drop(store);
    let (file, stock) = (disk.content(FILE_NAME).expect("it"), stock_of_model(&model));
    let mut chance = Chance::new(7);
    let (mut silent, mut panics, mut refused) = (0, 0, 0);
    for _ in 0..800 {
        let mut file = file.clone();
        let bit = chance.below(file.len() * 8);
        file[bit / 8] ^= 1 << (bit % 8);
        let disk = Disk::default();
        disk.put(FILE_NAME, file);
        match catch_unwind(AssertUnwindSafe(|| <Store as Subject>::open(&disk))) {
            Ok(Ok((_, found))) => silent += usize::from(found.stock != stock),
            Ok(Err(_)) => refused += 1,
            Err(_) => panics += 1,
        }
    }
    assert!(
        silent + panics == 0,
        "of 800 flipped bits {silent} serve another state, {panics} panic, {refused} are refused"
    );
}
