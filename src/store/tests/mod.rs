mod before;
mod crash;
mod damage;
mod failures;
mod full;
mod judge;
mod opening;

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::entry;
use super::schema;
use super::write::Writer;
use crate::store::check::Check;
use crate::store::simulation::Disk;
use crate::store::{AuditLimits, FILE_NAME, Loaded, Store, StoreError};
use hearth_core::clock::End;
use hearth_core::id::NodeId;
use hearth_core::keys::MachineKey;
use hearth_core::state::addr::Cursors;
use hearth_core::state::apply::Flush;
use hearth_core::state::command::{Command, NewApiKey, NewUser, NodeUpdate, RegisterReply};
use hearth_core::state::dns::DnsRecord;
use hearth_core::state::event::ActorKind;
use hearth_core::state::model::{ApiKey, Counters, Model, Node, PreAuthKey, User};
use hearth_core::state::record::{DecodeError, Record, Stored};
use hearth_core::state::scope::{Area, Scope, Scopes};
use hearth_core::state::secret::SecretHash;
use hearth_core::state::testing::{World, plain, with_key};

const CACHE: usize = 256 * 1024;

/// A world with records of every kind.
fn eventful() -> World {
    let (mut world, _) = World::with_user();
    let one = world.node_number(1);
    world.node_number(2);
    world.preauth_key("tagged", |key| key.tags = vec!["tag:a".into()]);
    world.join(with_key(3, 3, "tagged"));
    world.open_stream(one);
    let update = NodeUpdate {
        node: Some(one),
        endpoints: Some(Arc::from(["[2001:db8::1]:41641".parse().unwrap()])),
        home_derp: Some(900),
        disco: Some(hearth_core::keys::DiscoKey::from_bytes([5; 32])),
        ..NodeUpdate::default()
    };
    world.apply(Command::UpdateNode(Box::new(update))).unwrap();
    world
        .apply(Command::DeleteNode(NodeId::new(2).unwrap()))
        .unwrap();
    world.apply(Command::RevokeApproval(one)).unwrap();
    let Ok(RegisterReply::NeedsLogin(_)) = world.register(plain(9, 9)) else {
        panic!("let in without being asked for");
    };
    world
        .apply(Command::ExpireNode(
            one,
            End::At(world.now.wall.plus(Duration::from_secs(60))),
        ))
        .unwrap();
    for (name, value) in [
        ("printer", "192.168.1.20"),
        ("git", "host1"),
        ("gone", "::1"),
    ] {
        let record = DnsRecord::parse(name, "", value).unwrap();
        world.apply(Command::AddDnsRecord(record)).unwrap();
    }
    let gone = DnsRecord::parse("gone", "", "::1").unwrap();
    world.apply(Command::DeleteDnsRecord(gone)).unwrap();
    let key = NewApiKey {
        scopes: read_devices(),
        expiry: End::Never,
        prefix: "abcdefghijkl".into(),
        hash: SecretHash::of("secret"),
    };
    world.apply(Command::CreateApiKey(key)).unwrap();
    world.wait(Duration::from_secs(1));
    world.tick(Flush::Now);
    world
}

impl Store {
    /// The database on such a disk, which is new if the disk is.
    pub(crate) fn on(disk: &Disk) -> (Self, Loaded) {
        Self::open_in(Arc::new(disk.clone()), 1 << 18, Check::Here)
            .unwrap_or_else(|fault| panic!("{FILE_NAME} cannot be opened: {fault}"))
    }

    /// The database on such a disk, or why it cannot be opened.
    pub(crate) fn open_on(disk: &Disk) -> Result<(Self, Loaded), StoreError> {
        Self::open_in(Arc::new(disk.clone()), 1 << 18, Check::Here)
    }

    /// The same, for tests of what is above.
    pub(crate) fn failing(_directory: &Path, disk: Disk) -> (Self, Loaded) {
        Self::on(&disk)
    }

    /// Changes what the file has, in a way that it is none the worse for.
    fn tamper(&mut self, change: impl FnOnce(&mut Writer<'_>)) {
        let manifest = self.manifest;
        let folder = Arc::clone(&self.folder);
        let open = self.opened().unwrap();
        open.backing.write_in_place(&*folder, FILE_NAME).unwrap();
        let transaction = open.database.begin_write().unwrap();
        let mut writer = Writer::new(&transaction, manifest);
        change(&mut writer);
        let manifest = writer.finish().unwrap();
        transaction.commit().unwrap();
        self.manifest = manifest;
    }
}

/// A database as versions of the first schema wrote it.
struct Schema1(Vec<(String, entry::Key, Vec<u8>)>);

impl Schema1 {
    fn of(records: &[Record]) -> Self {
        let mut old = Self(Vec::new());
        old.put(schema::META, &schema::SCHEMA.into(), &1_u64.to_le_bytes());
        old.put(schema::META, &schema::NOISE_SECRET.into(), &[1; 32]);
        old.put(schema::META, &schema::DERP_SECRET.into(), &[2; 32]);
        for record in records {
            let entry::Entry { table, key, value } = entry::of(record);
            let is_there =
                |(other, same, _): &(String, entry::Key, Vec<u8>)| *other == table && *same == key;
            old.0.retain(|stored| !is_there(stored));
            if let Some(value) = value {
                old.put(table, &key, &value);
            }
        }
        old
    }

    fn put(&mut self, table: &str, key: &entry::Key, value: &[u8]) {
        self.0.push((table.to_owned(), key.clone(), value.to_vec()));
    }

    fn write(&self, directory: &Path) {
        let database = redb::Database::create(directory.join(FILE_NAME)).unwrap();
        let transaction = database.begin_write().unwrap();
        for (table, key, value) in &self.0 {
            match key {
                entry::Key::Number(number) => {
                    let mut table = transaction.open_table(schema::by_number(table)).unwrap();
                    table.insert(number, &**value).unwrap();
                }
                entry::Key::Text(text) => {
                    let mut table = transaction.open_table(schema::by_text(table)).unwrap();
                    table.insert(text.as_str(), &**value).unwrap();
                }
            }
        }
        transaction.commit().unwrap();
    }
}

/// Everything that a database and a model have in common, as it is stored.
type Stock = std::collections::BTreeMap<(&'static str, entry::Key), Vec<u8>>;

fn stock_of(records: &[Record]) -> Stock {
    let entries = records.iter().map(entry::of);
    entries
        .map(|entry| ((entry.table, entry.key), entry.value.unwrap()))
        .collect()
}

fn stock_of_model(model: &Model) -> Stock {
    stock_of(&Record::whole(model))
}

fn stock_of_loaded(loaded: &Loaded) -> Stock {
    let mut model = Model::new(hearth_core::state::testing::settings(), World::new().now);
    model.counters = loaded.counters;
    model.cursors = Arc::new(loaded.cursors.clone());
    model.shut_out = Arc::new(loaded.shut_out.clone());
    model.users = Arc::new(loaded.users.clone());
    model.nodes = Arc::new(loaded.nodes.clone());
    model.attributes = Arc::new(loaded.attributes.clone());
    model.preauth_keys = Arc::new(loaded.preauth_keys.clone());
    model.api_keys = Arc::new(loaded.api_keys.clone());
    model.dns_records = Arc::new(loaded.dns_records.clone());
    model.policies = Arc::new(loaded.policies.clone());
    stock_of_model(&model)
}

fn read_devices() -> Scopes {
    [Scope::read(Area::DevicesCore)].into_iter().collect()
}

fn stored<V: Stored + std::fmt::Debug>(values: impl Iterator<Item = Arc<V>>) -> Vec<Vec<u8>> {
    values.map(|value| value.encode()).collect()
}

fn image(model: &Model) -> [Vec<Vec<u8>>; 6] {
    [
        stored(model.users.values().cloned()),
        stored(model.nodes.iter().cloned()),
        stored(model.preauth_keys.values().cloned()),
        stored(model.api_keys.values().cloned()),
        stored(model.shut_out.iter().map(|machine| Arc::new(*machine))),
        model.dns_records.iter().map(Stored::encode).collect(),
    ]
}

#[test]
fn what_was_committed_is_there_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let world = eventful();
    let (mut store, before) = Store::open(directory.path(), CACHE).unwrap();
    store.commit(&world.records, &[], &world.model).unwrap();
    drop(store);
    let (_store, loaded) = Store::open(directory.path(), CACHE).unwrap();
    assert_eq!(*before.secrets.noise, *loaded.secrets.noise);
    assert_eq!(*before.secrets.derp, *loaded.secrets.derp);
    assert_eq!(loaded.counters, world.model.counters);
    assert_eq!(loaded.cursors, *world.model.cursors);
    assert!(loaded.skipped.is_empty());
    let scopes: Vec<_> = loaded.api_keys.values().map(|key| key.scopes).collect();
    assert_eq!(scopes, [read_devices()]);
    let image_loaded = [
        stored(loaded.users.into_values()),
        stored(loaded.nodes.into_iter()),
        stored(loaded.preauth_keys.into_values()),
        stored(loaded.api_keys.into_values()),
        stored(loaded.shut_out.into_iter().map(Arc::new)),
        loaded.dns_records.iter().map(Stored::encode).collect(),
    ];
    assert_eq!(image_loaded, image(&world.model));
}

#[test]
fn a_second_server_on_the_same_directory_is_rejected() {
    let directory = tempfile::tempdir().unwrap();
    let _open = Store::open(directory.path(), CACHE).unwrap();
    let second = Store::open(directory.path(), CACHE).map(|_| ());
    assert!(
        matches!(second, Err(StoreError::InUse { .. })),
        "{second:?}"
    );
}

#[test]
fn only_the_owner_may_read_the_secrets() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let _open = Store::open(&data, CACHE).unwrap();
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&data), mode(&data.join(FILE_NAME))), (0o700, 0o600));
}

#[test]
fn an_unreadable_record_is_skipped_and_kept() {
    let directory = tempfile::tempdir().unwrap();
    let world = eventful();
    let (mut store, _) = Store::open(directory.path(), CACHE).unwrap();
    store.commit(&world.records, &[], &world.model).unwrap();
    store.tamper(|writer| {
        writer.put(schema::NODES, &7.into(), &[9, 1, 2]).unwrap();
        writer.put(schema::NODES, &8.into(), &[1, 2]).unwrap();
    });
    drop(store);
    let (_store, loaded) = Store::open(directory.path(), CACHE).unwrap();
    let faults: Vec<_> = loaded.skipped.iter().map(|skipped| skipped.fault).collect();
    let (newer, damaged) = (DecodeError::Newer(9), DecodeError::Damaged);
    assert_eq!(faults, [newer, damaged]);
    let places: Vec<_> = loaded
        .skipped
        .iter()
        .map(|skipped| (skipped.table, &*skipped.key))
        .collect();
    assert_eq!(places, [("nodes", "7"), ("nodes", "8")]);
    // Nobody takes their places.
    assert_eq!(loaded.counters.node.number(), 9);
    assert_eq!(loaded.nodes.len(), world.model.nodes.len());
}

/// Node 1 was overwritten by the next one that joined.
#[test]
fn without_a_readable_record_of_the_next_ids_they_go_on_after_the_highest() {
    for damage in [&[0xff, 0xff][..], &[9, 1, 1, 1, 1], &[], &[1, 1, 1, 1, 1]] {
        let directory = tempfile::tempdir().unwrap();
        let world = eventful();
        let (mut store, _) = Store::open(directory.path(), CACHE).unwrap();
        store.commit(&world.records, &[], &world.model).unwrap();
        store.tamper(|writer| {
            let counters = schema::COUNTERS.into();
            writer.put(schema::META, &counters, damage).unwrap();
        });
        drop(store);
        let (_store, loaded) = Store::open(directory.path(), CACHE).unwrap();
        let next = loaded.counters;
        assert!(loaded.nodes.iter().all(|node| node.id < next.node));
        assert!(loaded.users.keys().all(|id| *id < next.user));
        assert!(loaded.preauth_keys.keys().all(|id| *id < next.preauth_key));
        assert!(loaded.api_keys.keys().all(|id| *id < next.api_key));
        assert_eq!(next.node, world.model.counters.node);
        let is_damaged = damage != [1, 1, 1, 1, 1];
        assert_eq!(loaded.skipped.len(), usize::from(is_damaged), "{damage:?}");
    }
}

/// Earlier versions stored pending registrations.
#[test]
fn stored_registrations_of_an_earlier_version_are_dropped() {
    let directory = tempfile::tempdir().unwrap();
    let world = eventful();
    let mut old = Schema1::of(&world.records);
    old.put(schema::PENDING, &"0123456789abcdef".into(), &[1, 2]);
    old.write(directory.path());
    let (mut store, loaded) = Store::open(directory.path(), CACHE).unwrap();
    assert!(loaded.skipped.is_empty());
    let reader = store.reader().unwrap();
    assert!(!reader.has(schema::PENDING).unwrap());
    assert_eq!(loaded.nodes.len(), world.model.nodes.len());
}

#[test]
fn a_database_that_is_older_than_a_table_gets_it() {
    let directory = tempfile::tempdir().unwrap();
    let mut old = Schema1::of(&[]);
    old.put(
        schema::SHUT_OUT,
        &MachineKey::from_bytes([1; 32]).to_string().as_str().into(),
        &[1],
    );
    old.write(directory.path());
    let (mut store, loaded) = Store::open(directory.path(), CACHE).unwrap();
    assert!(loaded.dns_records.is_empty() && loaded.attributes.is_empty());
    assert!(loaded.policies.is_empty());
    let record = DnsRecord::parse("nas", "", "192.168.1.2").unwrap();
    let model = Model::new(hearth_core::state::testing::settings(), World::new().now);
    store
        .commit(&[Record::PutDnsRecord(record.clone())], &[], &model)
        .unwrap();
    drop(store);
    let (_store, loaded) = Store::open(directory.path(), CACHE).unwrap();
    assert_eq!(loaded.dns_records.into_iter().collect::<Vec<_>>(), [record]);
}

#[test]
fn nodes_without_approval_are_shut_out_once_when_a_database_is_older_than_the_record_of_it() {
    let directory = tempfile::tempdir().unwrap();
    let (mut world, _) = World::with_user();
    world.preauth_key("k", |key| key.reusable = true);
    let revoked = world.join(with_key(1, 1, "k"));
    world.join(with_key(2, 2, "k"));
    world.apply(Command::RevokeApproval(revoked.id)).unwrap();
    let is_old = |record: &Record| !matches!(record, Record::PutShutOut(_));
    world.records.retain(is_old);
    Schema1::of(&world.records).write(directory.path());
    let shut_out = || -> (Store, Vec<MachineKey>) {
        let (store, loaded) = Store::open(directory.path(), CACHE).unwrap();
        (store, loaded.shut_out.into_iter().collect())
    };
    // At once and for good from then on, also without the node.
    let (store, machines) = shut_out();
    assert_eq!(machines, [revoked.machine]);
    drop(store);
    let (mut store, machines) = shut_out();
    assert_eq!(machines, [revoked.machine]);
    let gone = [Record::DeleteNode(revoked.id)];
    store.commit(&gone, &[], &world.model).unwrap();
    drop(store);
    let (mut store, machines) = shut_out();
    assert_eq!(machines, [revoked.machine]);
    // From then on only what is recorded counts.
    let let_in = [
        Record::DeleteShutOut(revoked.machine),
        Record::PutNode(Arc::clone(world.node(revoked.id))),
    ];
    store.commit(&let_in, &[], &world.model).unwrap();
    drop(store);
    assert!(shut_out().1.is_empty());
}

#[test]
fn damaged_bytes_are_an_error_wherever_they_are_cut() {
    let world = eventful();
    let node = world.node(NodeId::FIRST).encode();
    for end in 0..node.len() {
        assert!(Node::decode(&node[..end]).is_err(), "cut at {end}");
    }
    assert_eq!(User::decode(&[]).unwrap_err(), DecodeError::Damaged);
    assert_eq!(Counters::decode(&[2]).unwrap_err(), DecodeError::Newer(2));
    assert!(PreAuthKey::decode(&[1]).is_err() && ApiKey::decode(&[1]).is_err());
    assert!(Cursors::decode(&[1]).is_err() && MachineKey::decode(&[1]).is_err());
}

#[test]
fn decoding_gives_what_was_encoded() {
    let world = eventful();
    let node = world.node(NodeId::FIRST);
    let back = Node::decode(&node.encode()).unwrap();
    assert_eq!(back.encode(), node.encode());
    assert_eq!((back.ipv4, back.ipv6), (node.ipv4, node.ipv6));
    assert_eq!(back.endpoints, node.endpoints);
    assert_ne!(
        (back.ipv4, back.ipv6),
        (Ipv4Addr::UNSPECIFIED, Ipv6Addr::UNSPECIFIED)
    );
    let records = world
        .records
        .iter()
        .filter(|record| matches!(record, Record::PutNode(_)));
    assert!(records.count() >= 3);
}

/// A hundred nodes, one of which gets another name: what that writes.
#[test]
fn a_small_change_is_one_sync_and_some_pages() {
    use crate::store::simulation::Disk;
    let mut world = World::new();
    let settings = Arc::make_mut(&mut world.model.settings);
    (settings.max_preauth_keys, settings.max_nodes) = (200, 200);
    world
        .apply(Command::CreateUser(NewUser {
            name: "anna".into(),
            ..NewUser::default()
        }))
        .unwrap();
    let nodes: Vec<NodeId> = (1..=100).map(|number| world.node_number(number)).collect();
    let disk = Disk::default();
    let (mut store, _) = Store::on(&disk);
    store
        .commit(&world.records, &world.events, &world.model)
        .unwrap();
    let mut figures = Vec::new();
    for number in 0..10 {
        world.records.clear();
        world.events.clear();
        let rename = Command::RenameNode(nodes[number * 7], format!("tv{number}").into());
        world.apply(rename).unwrap();
        let before = (disk.written(), disk.syncs());
        store
            .commit(&world.records, &world.events, &world.model)
            .unwrap();
        figures.push((disk.written() - before.0, disk.syncs() - before.1));
    }
    println!("bytes and syncs of ten small changes: {figures:?}");
    figures.sort_unstable();
    // Some make the file grow, which takes another sync.
    assert_eq!(figures[4].1, 1);
    assert!(figures[4].0 <= 37 << 10, "{figures:?}");
}

fn users_created(count: usize) -> World {
    let mut world = World::new();
    for number in 0..count {
        let new = NewUser {
            name: format!("user{number}").into(),
            ..NewUser::default()
        };
        world.apply(Command::CreateUser(new)).unwrap();
    }
    world
}

fn names(store: &mut Store, before: Option<u64>, max: usize) -> Vec<(u64, String)> {
    let entries = store.audit(before, max).unwrap().into_iter();
    let entries = entries.map(|entry| (entry.number, entry.event.target.name.to_string()));
    entries.collect()
}

#[test]
fn the_audit_log_is_read_in_pages_and_survives_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let (mut store, _) = Store::open(directory.path(), CACHE).unwrap();
    let World {
        records,
        events,
        model,
        ..
    } = users_created(5);
    store.commit(&records, &events[..3], &model).unwrap();
    drop(store);
    let (mut store, _) = Store::open(directory.path(), CACHE).unwrap();
    store.commit(&records, &events[3..], &model).unwrap();
    let newest = names(&mut store, None, 2);
    assert_eq!(newest, [(5, "user4".into()), (4, "user3".into())]);
    let next = names(&mut store, Some(4), 9);
    let numbers: Vec<u64> = next.iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers, [3, 2, 1]);
    assert!(names(&mut store, Some(1), 9).is_empty());
}

#[test]
fn the_oldest_entries_of_the_audit_log_are_deleted_and_numbers_go_on() {
    let directory = tempfile::tempdir().unwrap();
    let (mut store, _) = Store::open(directory.path(), CACHE).unwrap();
    let limits = |entries, bytes| AuditLimits { entries, bytes };
    let numbers = |store: &mut Store| -> Vec<u64> {
        let entries = store.audit(None, usize::MAX).unwrap();
        entries.iter().map(|entry| entry.number).collect()
    };
    let World {
        records,
        events,
        model,
        ..
    } = users_created(9);
    store.limit_audit(limits(3, usize::MAX));
    store.commit(&records, &events[..5], &model).unwrap();
    assert_eq!(numbers(&mut store), [5, 4, 3]);
    // Other bounds hold from the next entry on, after a restart as well.
    drop(store);
    let (mut store, _) = Store::open(directory.path(), CACHE).unwrap();
    let size = events[0].encode().len();
    store.limit_audit(limits(100, 2 * size));
    assert_eq!(numbers(&mut store), [5, 4, 3]);
    store.commit(&records, &events[5..6], &model).unwrap();
    assert_eq!(numbers(&mut store), [6, 5]);
}

#[test]
fn devices_take_at_most_half_of_the_audit_log() {
    let directory = tempfile::tempdir().unwrap();
    let (mut store, _) = Store::open(directory.path(), CACHE).unwrap();
    let limits = |entries, bytes| AuditLimits { entries, bytes };
    store.limit_audit(limits(8, usize::MAX));
    let World {
        records,
        events,
        model,
        ..
    } = users_created(3);
    store.commit(&records, &events, &model).unwrap();
    let mut join = events[0].clone();
    join.actor.kind = ActorKind::Node;
    let flood = vec![join.clone(); 20];
    store.commit(&records, &flood, &model).unwrap();
    let numbers = |store: &mut Store| -> Vec<u64> {
        let entries = names(store, None, 99).into_iter();
        entries.map(|(number, _)| number).collect()
    };
    assert_eq!(numbers(&mut store), [23, 22, 21, 20, 3, 2, 1]);
    // After a restart as well, and in bytes.
    drop(store);
    let (mut store, _) = Store::open(directory.path(), CACHE).unwrap();
    let size = join.encode().len();
    store.limit_audit(limits(99, 6 * size));
    store.commit(&records, &flood[..2], &model).unwrap();
    assert_eq!(numbers(&mut store), [25, 24, 23, 3, 2, 1]);
    // What administrators do may use all of it.
    store.limit_audit(limits(3, usize::MAX));
    store.commit(&records, &events, &model).unwrap();
    assert_eq!(numbers(&mut store), [28, 27, 26]);
    store.commit(&records, &flood[..1], &model).unwrap();
    assert_eq!(numbers(&mut store), [29, 28, 27]);
}

#[test]
fn a_damaged_entry_of_the_audit_log_is_skipped() {
    let directory = tempfile::tempdir().unwrap();
    let (mut store, _) = Store::open(directory.path(), CACHE).unwrap();
    let World {
        records,
        events,
        model,
        ..
    } = users_created(3);
    store.commit(&records, &events, &model).unwrap();
    store.tamper(|writer| writer.put(schema::AUDIT, &2.into(), b"\x01\xff").unwrap());
    let numbers: Vec<u64> = names(&mut store, None, 2).iter().map(|(n, _)| *n).collect();
    assert_eq!(numbers, [3, 1]);
}
