//! The database: tables of [`Record`]s in one redb file.
//!
//! The only module that names redb. A batch of records is one transaction: after one fsync all of it is on
//! disk, or none of it. Source of the guarantees: redb `docs/design.md` (1PC+C).

mod audit;
mod schema;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{DirBuilder, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::backends::FileBackend;
use redb::{
    Builder, Database, DatabaseError, Key, ReadTransaction, ReadableDatabase, ReadableTable,
    StorageError, TableDefinition, TableHandle, WriteTransaction,
};
use zeroize::Zeroizing;

use hearth_core::id::{ApiKeyId, MAX_ID, NodeId, PreAuthKeyId, UserId};
use hearth_core::keys::MachineKey;
use hearth_core::state::addr::Cursors;
use hearth_core::state::attributes::Attributes;
use hearth_core::state::dns::DnsRecord;
use hearth_core::state::event::{AuditEntry, Event};
use hearth_core::state::model::{ApiKey, Counters, Model, Node, PolicyText, PreAuthKey, User};
use hearth_core::state::record::{DecodeError, Record, Stored};
pub use schema::POLICIES_NAME;
use schema::{
    API_KEYS, ATTRIBUTES, COUNTERS, CURSORS, DERP_SECRET, DNS_RECORDS, META, NODES, NOISE_SECRET,
    PENDING, POLICIES, PREAUTH_KEYS, SCHEMA, SCHEMA_VERSION, SHUT_OUT, USERS,
};

pub use audit::AuditLimits;

/// Name of the database file in the data directory.
pub const FILE_NAME: &str = "hearth.redb";

/// Why the database cannot be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The directory or file cannot be created or opened.
    #[error("cannot open {}: {source}", path.display())]
    Open {
        /// The directory or file.
        path: PathBuf,
        /// The system error.
        source: io::Error,
    },
    /// Another process has the file open.
    #[error("{} is in use; is another hearth running with this data directory?", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The file is not a database that redb can read.
    #[error("{} is not a readable database ({source}); restore it from a backup or move it away", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// redb's error.
        source: Box<redb::Error>,
    },
    /// A newer hearth wrote it.
    #[error("{} was written by a newer hearth (schema {found}, this version supports {known}); install that version or restore a backup", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its schema.
        found: u64,
        /// The newest schema that this version supports.
        known: u64,
    },
    /// Reading or writing failed.
    #[error("database error: {0}")]
    Failed(#[from] Box<redb::Error>),
    /// Writing failed, and the change may still take effect after a restart.
    #[error("database error: {0}; the change may take effect after a restart")]
    InDoubt(Box<redb::Error>),
    /// The system has no random bytes for the server keys.
    #[error(transparent)]
    NoRandomness(#[from] hearth_core::state::secret::NoRandomness),
}

impl StoreError {
    /// The error of the system behind it, if there is one.
    pub fn system_error(&self) -> Option<&io::Error> {
        match self {
            Self::Open { source, .. } => Some(source),
            Self::Unreadable { source, .. } | Self::Failed(source) | Self::InDoubt(source) => {
                match &**source {
                    redb::Error::Io(source) => Some(source),
                    _ => None,
                }
            }
            Self::InUse { .. } | Self::Newer { .. } | Self::NoRandomness(_) => None,
        }
    }
}

/// A stored value that cannot be read. It is left in the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// Name of the table.
    pub table: &'static str,
    /// Key in the table.
    pub key: String,
    /// Why it cannot be read.
    pub fault: DecodeError,
}

/// The server's private keys.
pub struct ServerSecrets {
    /// Noise static key of the control server.
    pub noise: Zeroizing<[u8; 32]>,
    /// Key of the DERP relay.
    pub derp: Zeroizing<[u8; 32]>,
}

/// Everything in the database, as read when it is opened.
pub struct Loaded {
    /// The server's private keys.
    pub secrets: ServerSecrets,
    /// The next IDs: greater than those of all records, also of those that cannot be read.
    pub counters: Counters,
    /// The last addresses that were given out.
    pub cursors: Cursors,
    /// Machines that are shut out.
    pub shut_out: BTreeSet<MachineKey>,
    /// Users by id.
    pub users: BTreeMap<UserId, Arc<User>>,
    /// Nodes, sorted by id.
    pub nodes: Vec<Arc<Node>>,
    /// Posture attributes by node.
    pub attributes: BTreeMap<NodeId, Arc<Attributes>>,
    /// Preauth keys by id.
    pub preauth_keys: BTreeMap<PreAuthKeyId, Arc<PreAuthKey>>,
    /// API keys by id.
    pub api_keys: BTreeMap<ApiKeyId, Arc<ApiKey>>,
    /// DNS records made by the API.
    pub dns_records: BTreeSet<DnsRecord>,
    /// Kept versions of the policy, oldest first.
    pub policies: Vec<Arc<PolicyText>>,
    /// Values that cannot be read.
    pub skipped: Vec<Skipped>,
}

/// The open database.
pub struct Store {
    database: Option<Database>,
    path: PathBuf,
    cache_bytes: usize,
    audit: audit::Ring,
    /// What the first write adds to a database from before there was a table of the machines that are shut out.
    adopted: Option<Vec<Record>>,
}

impl Store {
    /// Opens the database in `data_dir` and reads all of it. Creates both if they are missing.
    ///
    /// `cache_bytes` bounds redb's page cache.
    ///
    /// # Errors
    /// When the file cannot be opened, is in use, or was written by a newer hearth.
    pub fn open(data_dir: &Path, cache_bytes: usize) -> Result<(Self, Loaded), StoreError> {
        let made = DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(data_dir);
        made.map_err(|source| StoreError::Open {
            path: data_dir.to_owned(),
            source,
        })?;
        let path = data_dir.join(FILE_NAME);
        let database = open_file(&path, cache_bytes)?;
        prepare(&database, &path)?;
        let mut loaded = load(&database)?;
        let adopted = match has_shut_out(&database).map_err(Box::new)? {
            true => None,
            false => Some(adopt(&mut loaded)),
        };
        let audit = audit::Ring::count(&database).map_err(Box::new)?;
        Ok((
            Self {
                database: Some(database),
                path,
                cache_bytes,
                audit,
                adopted,
            },
            loaded,
        ))
    }

    /// Bounds the audit log from the next entry on.
    pub fn limit_audit(&mut self, limits: AuditLimits) {
        self.audit = std::mem::take(&mut self.audit).with_limits(limits);
    }

    /// Writes a batch, with the audited ones of its events: on success all of it is on disk, else none of it.
    ///
    /// After a failure the next call reopens the file first, since redb refuses further writes
    /// once one failed.
    ///
    /// # Errors
    /// When the disk is full or broken.
    pub fn commit(
        &mut self,
        records: &[Record],
        events: &[Event],
        _model: &Model,
    ) -> Result<(), StoreError> {
        let database = self.take_database()?;
        let adopted = self.adopted.as_deref();
        let ring = write(&database, adopted, records, events, &self.audit).map_err(Box::new)?;
        self.adopted = None;
        if let Some(ring) = ring {
            self.audit = ring;
        }
        self.database = Some(database);
        Ok(())
    }

    /// No longer trusts the file, because a commit went unanswered that was given up: the next commit writes a new one.
    pub fn distrust(&mut self) {
        self.database = None;
    }

    /// The newest entries of the audit log before number `before`, newest first, at most `max`.
    ///
    /// # Errors
    /// When the database cannot be opened or read.
    pub fn audit(
        &mut self,
        before: Option<u64>,
        max: usize,
    ) -> Result<Vec<AuditEntry>, StoreError> {
        let database = self.take_database()?;
        let entries = audit::read(&database, before, max);
        self.database = Some(database);
        Ok(entries.map_err(Box::new)?)
    }

    /// The open database, or the reopened file after a failed write.
    fn take_database(&mut self) -> Result<Database, StoreError> {
        match self.database.take() {
            Some(database) => Ok(database),
            None => open_file(&self.path, self.cache_bytes),
        }
    }
}

/// Opens the file with a check of every page. A damaged file is opened without the check, so that one flipped bit
/// stops nobody; the warning comes first, because redb may panic on damaged pages.
fn open_file(path: &Path, cache_bytes: usize) -> Result<Database, StoreError> {
    let opened = match open_checked(path, cache_bytes, true) {
        Err(OpenError::Database(DatabaseError::Storage(StorageError::Corrupted(fault)))) => {
            tracing::error!(
                path = %path.display(),
                %fault,
                "the database is damaged; restore it from a backup, or move it away if hearth does not start"
            );
            open_checked(path, cache_bytes, false)
        }
        opened => opened,
    };
    opened.map_err(|fault| match fault {
        OpenError::File(source) => StoreError::Open {
            path: path.to_owned(),
            source,
        },
        OpenError::Database(DatabaseError::DatabaseAlreadyOpen) => StoreError::InUse {
            path: path.to_owned(),
        },
        OpenError::Database(other) => StoreError::Unreadable {
            path: path.to_owned(),
            source: Box::new(other.into()),
        },
    })
}

enum OpenError {
    File(io::Error),
    Database(DatabaseError),
}

fn open_checked(path: &Path, cache_bytes: usize, check: bool) -> Result<Database, OpenError> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(OpenError::File)?;
    let opened = FileBackend::new(file).and_then(|backend| {
        Builder::new()
            .set_cache_size(cache_bytes)
            .set_check_integrity_on_open(check)
            .create_with_backend(backend)
    });
    opened.map_err(OpenError::Database)
}

/// Checks the schema. In a new database, creates the tables and the server's keys.
fn prepare(database: &Database, path: &Path) -> Result<(), StoreError> {
    let found = read_schema(database).map_err(Box::new)?;
    match found {
        Some(found) if found > SCHEMA_VERSION => Err(StoreError::Newer {
            path: path.to_owned(),
            found,
            known: SCHEMA_VERSION,
        }),
        Some(_) => Ok(()),
        None => {
            let noise = Zeroizing::new(hearth_core::state::secret::random::<32>()?);
            let derp = Zeroizing::new(hearth_core::state::secret::random::<32>()?);
            create(database, &noise, &derp).map_err(Box::new)?;
            Ok(())
        }
    }
}

fn read_schema(database: &Database) -> Result<Option<u64>, redb::Error> {
    let transaction = database.begin_read()?;
    let table = match transaction.open_table(META) {
        Ok(table) => table,
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
        Err(fault) => return Err(fault.into()),
    };
    let value = table.get(SCHEMA)?;
    Ok(value.and_then(|bytes| bytes.value().try_into().ok().map(u64::from_le_bytes)))
}

fn create(database: &Database, noise: &[u8; 32], derp: &[u8; 32]) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut meta = transaction.open_table(META)?;
        meta.insert(SCHEMA, SCHEMA_VERSION.to_le_bytes().as_slice())?;
        meta.insert(NOISE_SECRET, noise.as_slice())?;
        meta.insert(DERP_SECRET, derp.as_slice())?;
        transaction.open_table(USERS)?;
        transaction.open_table(NODES)?;
        transaction.open_table(ATTRIBUTES)?;
        transaction.open_table(PREAUTH_KEYS)?;
        transaction.open_table(API_KEYS)?;
        transaction.open_table(POLICIES)?;
        transaction.open_table(DNS_RECORDS)?;
        transaction.open_table(SHUT_OUT)?;
    }
    transaction.commit()?;
    Ok(())
}

/// Whether there is a table of the machines that are shut out.
fn has_shut_out(database: &Database) -> Result<bool, redb::Error> {
    match database.begin_read()?.open_table(SHUT_OUT) {
        Ok(_) => Ok(true),
        Err(redb::TableError::TableDoesNotExist(_)) => Ok(false),
        Err(fault) => Err(fault.into()),
    }
}

/// Counts the machines of nodes without approval as shut out, since a person may have revoked it: until now this was kept
/// with the nodes only, and would have been forgotten with them.
fn adopt(loaded: &mut Loaded) -> Vec<Record> {
    let out = loaded.nodes.iter().filter(|node| !node.authorized);
    let out = out.map(|node| node.machine);
    let out = out.filter(|machine| *machine != MachineKey::ZERO);
    loaded.shut_out.extend(out);
    let machines = loaded.shut_out.iter().copied();
    machines.map(Record::PutShutOut).collect()
}

fn load(database: &Database) -> Result<Loaded, StoreError> {
    read_all(database).map_err(|fault| StoreError::Failed(Box::new(fault)))
}

fn read_all(database: &Database) -> Result<Loaded, redb::Error> {
    let transaction = database.begin_read()?;
    let meta = transaction.open_table(META)?;
    let secret = |name: &str| -> Result<Zeroizing<[u8; 32]>, redb::Error> {
        let value = meta.get(name)?;
        let bytes = value.and_then(|bytes| bytes.value().try_into().ok());
        bytes
            .map(Zeroizing::new)
            .ok_or_else(|| redb::Error::Corrupted(format!("the server's key {name:?} is damaged")))
    };
    let secrets = ServerSecrets {
        noise: secret(NOISE_SECRET)?,
        derp: secret(DERP_SECRET)?,
    };
    let mut skipped = Vec::new();
    let counters: Option<Counters> = read_single(&meta, COUNTERS, &mut skipped)?;
    let cursors: Option<Cursors> = read_single(&meta, CURSORS, &mut skipped)?;
    let users = read_values::<_, User>(&transaction, &USERS, &mut skipped)?;
    let nodes = read_values(&transaction, &NODES, &mut skipped)?;
    let preauth = read_values::<_, PreAuthKey>(&transaction, &PREAUTH_KEYS, &mut skipped)?;
    let api_keys = read_values::<_, ApiKey>(&transaction, &API_KEYS, &mut skipped)?;
    let policies = read_values(&transaction, &POLICIES, &mut skipped)?;
    let shut_out = read_values::<_, MachineKey>(&transaction, &SHUT_OUT, &mut skipped)?;
    let mut dns_records = BTreeSet::new();
    read_table(&transaction, &DNS_RECORDS, &mut skipped, &mut |_, value| {
        dns_records.insert(DnsRecord::decode(value)?);
        Ok(())
    })?;
    let mut attributes = BTreeMap::new();
    read_table(
        &transaction,
        &ATTRIBUTES,
        &mut skipped,
        &mut |key, value| {
            let node = NodeId::new(key).ok_or(DecodeError::Damaged)?;
            attributes.insert(node, Arc::new(Attributes::decode(value)?));
            Ok(())
        },
    )?;
    Ok(Loaded {
        secrets,
        counters: counters_from(counters.unwrap_or_default(), &transaction)?,
        cursors: cursors.unwrap_or_default(),
        shut_out: shut_out.into_iter().map(|machine| *machine).collect(),
        users: users.into_iter().map(|user| (user.id, user)).collect(),
        nodes,
        attributes,
        preauth_keys: preauth.into_iter().map(|key| (key.id, key)).collect(),
        api_keys: api_keys.into_iter().map(|key| (key.id, key)).collect(),
        dns_records,
        policies,
        skipped,
    })
}

/// A single value of the table `meta`, if it is there and can be read.
fn read_single<V: Stored>(
    meta: &impl ReadableTable<&'static str, &'static [u8]>,
    name: &'static str,
    skipped: &mut Vec<Skipped>,
) -> Result<Option<V>, redb::Error> {
    let Some(bytes) = meta.get(name)? else {
        return Ok(None);
    };
    let value = V::decode(bytes.value());
    if let Err(fault) = value {
        skipped.push(Skipped {
            table: "meta",
            key: name.to_owned(),
            fault,
        });
    }
    Ok(value.ok())
}

/// The next IDs by what is stored, raised above all IDs in use. A record of them that cannot be read would otherwise have
/// new nodes take the place of old ones.
fn counters_from(stored: Counters, transaction: &ReadTransaction) -> Result<Counters, redb::Error> {
    let next = |table| -> Result<Option<u64>, redb::Error> {
        Ok(last_key(transaction, table)?.map(|last| last.saturating_add(1).min(MAX_ID)))
    };
    let (node, user) = (next(NODES)?, next(USERS)?);
    let (preauth_key, api_key) = (next(PREAUTH_KEYS)?, next(API_KEYS)?);
    let preauth_key = preauth_key.and_then(PreAuthKeyId::new);
    Ok(Counters {
        node: stored
            .node
            .max(node.and_then(NodeId::new).unwrap_or(NodeId::FIRST)),
        user: stored
            .user
            .max(user.and_then(UserId::new).unwrap_or(UserId::FIRST)),
        preauth_key: stored
            .preauth_key
            .max(preauth_key.unwrap_or(PreAuthKeyId::FIRST)),
        api_key: stored
            .api_key
            .max(api_key.and_then(ApiKeyId::new).unwrap_or(ApiKeyId::FIRST)),
    })
}

fn last_key(
    transaction: &ReadTransaction,
    table: TableDefinition<'static, u64, &'static [u8]>,
) -> Result<Option<u64>, redb::Error> {
    let entries = match transaction.open_table(table) {
        Ok(entries) => entries,
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
        Err(fault) => return Err(fault.into()),
    };
    Ok(entries.last()?.map(|(key, _)| key.value()))
}

/// The values of a table, in the order of their keys.
fn read_values<K, V>(
    transaction: &ReadTransaction,
    table: &'static TableDefinition<'static, K, &'static [u8]>,
    skipped: &mut Vec<Skipped>,
) -> Result<Vec<Arc<V>>, redb::Error>
where
    K: Key + 'static,
    for<'a> K::SelfType<'a>: ToString,
    V: Stored,
{
    let mut values = Vec::new();
    read_table(transaction, table, skipped, &mut |_, value| {
        values.push(Arc::new(V::decode(value)?));
        Ok(())
    })?;
    Ok(values)
}

/// Takes one entry of a table.
type Take<'a, K> =
    dyn FnMut(<K as redb::Value>::SelfType<'_>, &[u8]) -> Result<(), DecodeError> + 'a;

/// Calls `take` with each entry of a table, in key order. Entries that it cannot read are added to
/// `skipped`. A database that is older than the table has no entries.
fn read_table<K>(
    transaction: &ReadTransaction,
    table: &'static TableDefinition<'static, K, &'static [u8]>,
    skipped: &mut Vec<Skipped>,
    take: &mut Take<'_, K>,
) -> Result<(), redb::Error>
where
    K: Key + 'static,
    for<'a> K::SelfType<'a>: ToString,
{
    let entries = match transaction.open_table(*table) {
        Ok(entries) => entries,
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(()),
        Err(fault) => return Err(fault.into()),
    };
    for entry in entries.iter()? {
        let (key, value) = entry?;
        if let Err(fault) = take(key.value(), value.value()) {
            skipped.push(Skipped {
                table: table.name(),
                key: key.value().to_string(),
                fault,
            });
        }
    }
    Ok(())
}

fn write(
    database: &Database,
    adopted: Option<&[Record]>,
    records: &[Record],
    events: &[Event],
    audit: &audit::Ring,
) -> Result<Option<audit::Ring>, redb::Error> {
    let transaction = database.begin_write()?;
    if adopted.is_some() {
        transaction.open_table(SHUT_OUT)?;
    }
    for record in adopted.into_iter().flatten().chain(records) {
        write_one(&transaction, record)?;
    }
    transaction.delete_table(PENDING)?;
    let audit = audit.append(&transaction, events)?;
    transaction.commit()?;
    Ok(audit)
}

fn write_one(transaction: &WriteTransaction, record: &Record) -> Result<(), redb::Error> {
    match record {
        Record::Counters(counters) => put(transaction, META, COUNTERS, &counters.encode()),
        Record::PutUser(user) => put(transaction, USERS, user.id.number(), &user.encode()),
        Record::DeleteUser(id) => delete(transaction, USERS, id.number()),
        Record::PutNode(node) => put(transaction, NODES, node.id.number(), &node.encode()),
        Record::DeleteNode(id) => delete(transaction, NODES, id.number()),
        Record::PutAttributes(id, attributes) => {
            put(transaction, ATTRIBUTES, id.number(), &attributes.encode())
        }
        Record::DeleteAttributes(id) => delete(transaction, ATTRIBUTES, id.number()),
        Record::PutPreAuthKey(key) => {
            put(transaction, PREAUTH_KEYS, key.id.number(), &key.encode())
        }
        Record::DeletePreAuthKey(id) => delete(transaction, PREAUTH_KEYS, id.number()),
        Record::PutApiKey(key) => put(transaction, API_KEYS, key.id.number(), &key.encode()),
        Record::DeleteApiKey(id) => delete(transaction, API_KEYS, id.number()),
        Record::PutDnsRecord(record) => put(
            transaction,
            DNS_RECORDS,
            &*dns_key(record),
            &record.encode(),
        ),
        Record::DeleteDnsRecord(record) => delete(transaction, DNS_RECORDS, &*dns_key(record)),
        Record::PutPolicy(version) => put(
            transaction,
            POLICIES,
            version.id.number(),
            &version.encode(),
        ),
        Record::DeletePolicy(id) => delete(transaction, POLICIES, id.number()),
        Record::Cursors(cursors) => put(transaction, META, CURSORS, &cursors.encode()),
        Record::PutShutOut(machine) => put(
            transaction,
            SHUT_OUT,
            &*machine.to_string(),
            &machine.encode(),
        ),
        Record::DeleteShutOut(machine) => delete(transaction, SHUT_OUT, &*machine.to_string()),
    }
}

fn put<'k, K: Key + 'static>(
    transaction: &WriteTransaction,
    table: TableDefinition<'static, K, &'static [u8]>,
    key: K::SelfType<'k>,
    value: &[u8],
) -> Result<(), redb::Error> {
    transaction.open_table(table)?.insert(key, value)?;
    Ok(())
}

fn delete<'k, K: Key + 'static>(
    transaction: &WriteTransaction,
    table: TableDefinition<'static, K, &'static [u8]>,
    key: K::SelfType<'k>,
) -> Result<(), redb::Error> {
    transaction.open_table(table)?.remove(key)?;
    Ok(())
}

/// The key of a record in [`DNS_RECORDS`].
fn dns_key(record: &DnsRecord) -> String {
    format!("{} {} {}", record.name, record.kind(), record.value)
}

#[cfg(test)]
mod failing;
#[cfg(test)]
pub(crate) use failing::{Disk, Mood};
#[cfg(test)]
mod tests;
