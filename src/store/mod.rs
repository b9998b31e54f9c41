//! The database: tables of [`Record`]s in one redb file.
//!
//! The only module that names redb. A batch of records is one transaction: all of it is on disk, with
//! one fsync, or none of it. Source of the guarantees: redb `docs/design.md` (1PC+C).

mod schema;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{DirBuilder, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::backends::FileBackend;
use redb::{Builder, Database, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use zeroize::Zeroizing;

use hearth_core::id::{ApiKeyId, NodeId, PreAuthKeyId, UserId};
use hearth_core::state::attributes::Attributes;
use hearth_core::state::dns::DnsRecord;
use hearth_core::state::model::{ApiKey, Counters, Node, Pending, PolicyText, PreAuthKey, User};
use hearth_core::state::record::{DecodeError, Record, Stored};
use schema::{
    API_KEYS, ATTRIBUTES, COUNTERS, DERP_SECRET, DNS_RECORDS, META, NODES, NOISE_SECRET, PENDING,
    POLICIES, PREAUTH_KEYS, SCHEMA, SCHEMA_VERSION, USERS,
};

/// Name of the database file in the data directory.
pub const FILE_NAME: &str = "hearth.redb";

/// Why the database cannot be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The directory or file cannot be made or opened.
    #[error("cannot open {}: {source}", path.display())]
    Open {
        /// The directory or file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Another process has it open.
    #[error("{} is in use: is another hearth running with this data directory?", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The file is not a database that redb can read.
    #[error("{} cannot be read as a database ({source}); restore it from a backup or move it away", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What redb says.
        source: Box<redb::Error>,
    },
    /// A newer hearth wrote it.
    #[error("{} was written by a newer hearth (schema {found}, this one knows up to {known}); install that version or restore a backup", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its schema.
        found: u64,
        /// The newest schema known.
        known: u64,
    },
    /// Reading or writing failed.
    #[error("the database failed: {0}")]
    Failed(#[from] Box<redb::Error>),
    /// The system gave no random bytes for the server's keys.
    #[error(transparent)]
    NoRandomness(#[from] hearth_core::state::secret::NoRandomness),
}

/// A stored value that was passed over because it cannot be read. It stays in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// The table.
    pub table: &'static str,
    /// Its key in the table.
    pub key: String,
    /// What is wrong with it.
    pub fault: DecodeError,
}

/// The server's own keys.
pub struct ServerSecrets {
    /// Noise static key.
    pub noise: Zeroizing<[u8; 32]>,
    /// Key of the relay.
    pub derp: Zeroizing<[u8; 32]>,
}

/// All that the database holds.
pub struct Loaded {
    /// The server's own keys.
    pub secrets: ServerSecrets,
    /// The next numbers.
    pub counters: Counters,
    /// Users by number.
    pub users: BTreeMap<UserId, Arc<User>>,
    /// Nodes, sorted by number.
    pub nodes: Vec<Arc<Node>>,
    /// Attributes by node.
    pub attributes: BTreeMap<NodeId, Arc<Attributes>>,
    /// Preauth keys by number.
    pub preauth_keys: BTreeMap<PreAuthKeyId, Arc<PreAuthKey>>,
    /// API keys by number.
    pub api_keys: BTreeMap<ApiKeyId, Arc<ApiKey>>,
    /// DNS records.
    pub dns_records: BTreeSet<DnsRecord>,
    /// The last versions of the policy, oldest first.
    pub policies: Vec<Arc<PolicyText>>,
    /// Pending logins.
    pub pending: Vec<Arc<Pending>>,
    /// What could not be read.
    pub skipped: Vec<Skipped>,
}

/// What [`Skipped::table`] is for versions of the policy.
pub const POLICIES_NAME: &str = "policies";

/// The open database.
pub struct Store {
    database: Option<Database>,
    path: PathBuf,
    cache_bytes: usize,
}

impl Store {
    /// Opens the database in `data_dir`, making both when they are not there, and reads all of it.
    ///
    /// `cache_bytes` bounds the memory that redb keeps for pages.
    ///
    /// # Errors
    /// When the file cannot be opened, belongs to another process, or was written by a newer hearth.
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
        let loaded = load(&database)?;
        Ok((
            Self {
                database: Some(database),
                path,
                cache_bytes,
            },
            loaded,
        ))
    }

    /// Writes a batch: on success all of it is on disk, else none of it.
    ///
    /// After a failure the next call opens the file anew first, since redb refuses further writes
    /// once one failed.
    ///
    /// # Errors
    /// When the disk is full or broken.
    pub fn commit(&mut self, records: &[Record]) -> Result<(), StoreError> {
        let database = match self.database.take() {
            Some(database) => database,
            None => open_file(&self.path, self.cache_bytes)?,
        };
        write(&database, records).map_err(Box::new)?;
        self.database = Some(database);
        Ok(())
    }
}

fn open_file(path: &Path, cache_bytes: usize) -> Result<Database, StoreError> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(|source| StoreError::Open {
            path: path.to_owned(),
            source,
        })?;
    let opened = FileBackend::new(file).and_then(|backend| {
        Builder::new()
            .set_cache_size(cache_bytes)
            .create_with_backend(backend)
    });
    opened.map_err(|fault| match fault {
        redb::DatabaseError::DatabaseAlreadyOpen => StoreError::InUse {
            path: path.to_owned(),
        },
        other => StoreError::Unreadable {
            path: path.to_owned(),
            source: Box::new(other.into()),
        },
    })
}

/// Makes the tables and the server's keys on first use, and checks the schema.
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
        transaction.open_table(PENDING)?;
        transaction.open_table(POLICIES)?;
        transaction.open_table(DNS_RECORDS)?;
    }
    transaction.commit()?;
    Ok(())
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
    let counters = meta
        .get(COUNTERS)?
        .map(|bytes| Counters::decode(bytes.value()));
    let mut skipped = Vec::new();
    let users = read_table::<User>(&transaction, USERS, "users", &mut skipped)?;
    let nodes = read_table::<Node>(&transaction, NODES, "nodes", &mut skipped)?;
    let preauth = read_table::<PreAuthKey>(&transaction, PREAUTH_KEYS, "preauth", &mut skipped)?;
    let api_keys = read_table::<ApiKey>(&transaction, API_KEYS, "api_keys", &mut skipped)?;
    let dns_records = read_dns_records(&transaction, &mut skipped)?;
    let policies = read_table::<PolicyText>(&transaction, POLICIES, POLICIES_NAME, &mut skipped)?;
    let attributes = read_attributes(&transaction, &mut skipped)?;
    let mut pending = Vec::new();
    for entry in transaction.open_table(PENDING)?.iter()? {
        let (key, value) = entry?;
        match Pending::decode(value.value()) {
            Ok(login) => pending.push(Arc::new(login)),
            Err(fault) => {
                let key = key.value().to_owned();
                skipped.push(Skipped {
                    table: "pending",
                    key,
                    fault,
                });
            }
        }
    }
    Ok(Loaded {
        secrets,
        counters: counters.and_then(Result::ok).unwrap_or_default(),
        users: users.into_iter().map(|user| (user.id, user)).collect(),
        nodes,
        attributes,
        preauth_keys: preauth.into_iter().map(|key| (key.id, key)).collect(),
        api_keys: api_keys.into_iter().map(|key| (key.id, key)).collect(),
        dns_records,
        policies,
        pending,
        skipped,
    })
}

fn read_dns_records(
    transaction: &redb::ReadTransaction,
    skipped: &mut Vec<Skipped>,
) -> Result<BTreeSet<DnsRecord>, redb::Error> {
    let table = match transaction.open_table(DNS_RECORDS) {
        Ok(table) => table,
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(BTreeSet::new()),
        Err(fault) => return Err(fault.into()),
    };
    let mut records = BTreeSet::new();
    for entry in table.iter()? {
        let (key, value) = entry?;
        match DnsRecord::decode(value.value()) {
            Ok(record) => {
                records.insert(record);
            }
            Err(fault) => {
                let key = key.value().to_owned();
                skipped.push(Skipped {
                    table: "dns_records",
                    key,
                    fault,
                });
            }
        }
    }
    Ok(records)
}

/// The key of a record in its table.
fn dns_key(record: &DnsRecord) -> String {
    format!("{} {} {}", record.name, record.kind(), record.value)
}

fn read_table<V: Stored>(
    transaction: &redb::ReadTransaction,
    table: TableDefinition<'_, u64, &[u8]>,
    name: &'static str,
    skipped: &mut Vec<Skipped>,
) -> Result<Vec<Arc<V>>, redb::Error> {
    // A database from before there was this table has none.
    let table = match transaction.open_table(table) {
        Ok(table) => table,
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
        Err(fault) => return Err(fault.into()),
    };
    let mut values = Vec::new();
    for entry in table.iter()? {
        let (key, value) = entry?;
        match V::decode(value.value()) {
            Ok(value) => values.push(Arc::new(value)),
            Err(fault) => {
                skipped.push(Skipped {
                    table: name,
                    key: key.value().to_string(),
                    fault,
                });
            }
        }
    }
    Ok(values)
}

/// The attributes by node. A database from before there were any has no table of them.
fn read_attributes(
    transaction: &redb::ReadTransaction,
    skipped: &mut Vec<Skipped>,
) -> Result<BTreeMap<NodeId, Arc<Attributes>>, redb::Error> {
    let table = match transaction.open_table(ATTRIBUTES) {
        Ok(table) => table,
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(BTreeMap::new()),
        Err(fault) => return Err(fault.into()),
    };
    let mut all = BTreeMap::new();
    for entry in table.iter()? {
        let (key, value) = entry?;
        let id = NodeId::new(key.value()).ok_or(DecodeError::Damaged);
        match id.and_then(|id| Ok((id, Attributes::decode(value.value())?))) {
            Ok((id, attributes)) => {
                all.insert(id, Arc::new(attributes));
            }
            Err(fault) => skipped.push(Skipped {
                table: "attributes",
                key: key.value().to_string(),
                fault,
            }),
        }
    }
    Ok(all)
}

fn write(database: &Database, records: &[Record]) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    for record in records {
        write_one(&transaction, record)?;
    }
    transaction.commit()?;
    Ok(())
}

fn write_one(transaction: &WriteTransaction, record: &Record) -> Result<(), redb::Error> {
    let put = |table: TableDefinition<'_, u64, &[u8]>, id: u64, bytes: Vec<u8>| {
        transaction
            .open_table(table)?
            .insert(id, bytes.as_slice())?;
        Ok(())
    };
    let delete = |table: TableDefinition<'_, u64, &[u8]>, id: u64| {
        transaction.open_table(table)?.remove(id)?;
        Ok(())
    };
    match record {
        Record::Counters(counters) => {
            transaction
                .open_table(META)?
                .insert(COUNTERS, counters.encode().as_slice())?;
            Ok(())
        }
        Record::PutUser(user) => put(USERS, user.id.number(), user.encode()),
        Record::DeleteUser(id) => delete(USERS, id.number()),
        Record::PutNode(node) => put(NODES, node.id.number(), node.encode()),
        Record::DeleteNode(id) => delete(NODES, id.number()),
        Record::PutAttributes(id, attributes) => put(ATTRIBUTES, id.number(), attributes.encode()),
        Record::DeleteAttributes(id) => delete(ATTRIBUTES, id.number()),
        Record::PutPreAuthKey(key) => put(PREAUTH_KEYS, key.id.number(), key.encode()),
        Record::DeletePreAuthKey(id) => delete(PREAUTH_KEYS, id.number()),
        Record::PutApiKey(key) => put(API_KEYS, key.id.number(), key.encode()),
        Record::DeleteApiKey(id) => delete(API_KEYS, id.number()),
        Record::PutDnsRecord(record) => {
            let mut table = transaction.open_table(DNS_RECORDS)?;
            table.insert(dns_key(record).as_str(), record.encode().as_slice())?;
            Ok(())
        }
        Record::DeleteDnsRecord(record) => {
            let mut table = transaction.open_table(DNS_RECORDS)?;
            table.remove(dns_key(record).as_str())?;
            Ok(())
        }
        Record::PutPolicy(version) => put(POLICIES, version.id.number(), version.encode()),
        Record::DeletePolicy(id) => delete(POLICIES, id.number()),
        Record::PutPending(login) => {
            let mut table = transaction.open_table(PENDING)?;
            table.insert(login.id.as_str(), login.encode().as_slice())?;
            Ok(())
        }
        Record::DeletePending(id) => {
            transaction.open_table(PENDING)?.remove(id.as_str())?;
            Ok(())
        }
    }
}

#[cfg(test)]
mod failing;
#[cfg(test)]
pub(crate) use failing::{Disk, Mood};
#[cfg(test)]
mod tests;
