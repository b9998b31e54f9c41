//! Everything in the database, as read when it is opened.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use zeroize::Zeroizing;

use super::entry::Key;
use super::fault::StoreError;
use super::read::{Reader, damaged};
use super::schema::{
    API_KEYS, ATTRIBUTES, COUNTERS, CURSORS, DERP_SECRET, DNS_RECORDS, META, NODES, NOISE_SECRET,
    POLICIES, PREAUTH_KEYS, SHUT_OUT, USERS,
};
use hearth_core::id::{ApiKeyId, MAX_ID, NodeId, PreAuthKeyId, UserId};
use hearth_core::keys::MachineKey;
use hearth_core::state::addr::Cursors;
use hearth_core::state::attributes::Attributes;
use hearth_core::state::dns::DnsRecord;
use hearth_core::state::model::{ApiKey, Counters, Node, PolicyText, PreAuthKey, User};
use hearth_core::state::record::{DecodeError, Stored};

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
#[derive(Clone)]
pub struct ServerSecrets {
    /// Noise static key of the control server.
    pub noise: Zeroizing<[u8; 32]>,
    /// Key of the DERP relay.
    pub derp: Zeroizing<[u8; 32]>,
}

/// What happened to the database when it was opened, beside that it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// It was damaged, but no record was lost.
    Repaired {
        /// What was wrong.
        reason: String,
        /// Where the damaged file is kept.
        kept: PathBuf,
    },
    /// It was damaged or missing, and a backup took its place: what changed since is lost.
    Restored {
        /// What was wrong.
        reason: String,
        /// The backup.
        backup: PathBuf,
        /// Where the damaged file is kept, if there was one.
        kept: Option<PathBuf>,
    },
    /// It has the schema of an earlier version.
    Migrated {
        /// That schema.
        from: u64,
        /// Where the file of that schema is kept.
        kept: PathBuf,
    },
}

impl Notice {
    /// What the status says until the next start; `None` for what is no damage.
    pub fn warning(&self) -> Option<String> {
        match self {
            Self::Repaired { reason, kept } => Some(format!(
                "the database was damaged ({reason}) and was repaired at this start; no record is lost; the damaged file is kept as {}",
                kept.display()
            )),
            Self::Restored {
                reason,
                backup,
                kept,
            } => {
                let kept = kept.as_ref().map(|kept| {
                    let kept = kept.display();
                    format!("; the damaged file is kept as {kept}")
                });
                Some(format!(
                    "the database was damaged or lost ({reason}); the backup {} was restored at this start, and changes made since that backup are lost{}",
                    backup.display(),
                    kept.unwrap_or_default()
                ))
            }
            Self::Migrated { .. } => None,
        }
    }
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
    /// What happened to the database, for the log and the status; `None` is the usual case.
    pub notice: Option<Notice>,
    /// Why the database cannot be written now, as far as that is known without writing; each change tries again.
    pub unwritable: Option<StoreError>,
}

/// A value that cannot be read, by its table and key. A fresh file gets it as it is.
pub(super) type Kept = BTreeMap<(&'static str, Key), Vec<u8>>;

pub(super) fn read_all(reader: &Reader) -> Result<(Loaded, Kept), redb::Error> {
    let secret = |name: &'static str| -> Result<Zeroizing<[u8; 32]>, redb::Error> {
        let value = reader.single(name)?.map(Zeroizing::new);
        let bytes = value.and_then(|bytes| bytes.as_slice().try_into().ok());
        bytes
            .map(Zeroizing::new)
            .ok_or_else(|| redb::Error::Corrupted(format!("the server's key {name:?} is damaged")))
    };
    let secrets = ServerSecrets {
        noise: secret(NOISE_SECRET)?,
        derp: secret(DERP_SECRET)?,
    };
    let mut values = Values {
        reader,
        skipped: Vec::new(),
        kept: Kept::new(),
    };
    let counters: Option<Counters> = values.single(COUNTERS)?;
    let cursors: Option<Cursors> = values.single(CURSORS)?;
    let users = values.of_table::<User>(USERS)?;
    let nodes = values.of_table::<Node>(NODES)?;
    let preauth = values.of_table::<PreAuthKey>(PREAUTH_KEYS)?;
    let api_keys = values.of_table::<ApiKey>(API_KEYS)?;
    let policies = values.of_table(POLICIES)?;
    let shut_out = values.of_table::<MachineKey>(SHUT_OUT)?;
    let dns_records = values.of_table::<DnsRecord>(DNS_RECORDS)?;
    let mut attributes = BTreeMap::new();
    values.each(ATTRIBUTES, &mut |key, value| {
        let Key::Number(number) = key else {
            return Err(DecodeError::Damaged);
        };
        let node = NodeId::new(*number).ok_or(DecodeError::Damaged)?;
        attributes.insert(node, Arc::new(Attributes::decode(value)?));
        Ok(())
    })?;
    let Values { skipped, kept, .. } = values;
    let mut loaded = Loaded {
        secrets,
        counters: counters_from(counters.unwrap_or_default(), reader)?,
        cursors: cursors.unwrap_or_default(),
        shut_out: shut_out.into_iter().map(|machine| *machine).collect(),
        users: users.into_iter().map(|user| (user.id, user)).collect(),
        nodes,
        attributes,
        preauth_keys: preauth.into_iter().map(|key| (key.id, key)).collect(),
        api_keys: api_keys.into_iter().map(|key| (key.id, key)).collect(),
        dns_records: dns_records
            .iter()
            .map(|record| (**record).clone())
            .collect(),
        policies,
        skipped,
        notice: None,
        unwritable: None,
    };
    if !reader.is_sealed() && !reader.has(SHUT_OUT)? {
        adopt(&mut loaded);
    }
    Ok((loaded, kept))
}

/// Counts the machines of nodes without approval as shut out, since a person may have revoked it: until now this was kept
/// with the nodes only, and would have been forgotten with them.
fn adopt(loaded: &mut Loaded) {
    let out = loaded.nodes.iter().filter(|node| !node.authorized);
    let out = out.map(|node| node.machine);
    let out = out.filter(|machine| *machine != MachineKey::ZERO);
    loaded.shut_out.extend(out);
}

/// Takes a value of a table.
type Take<'a> = dyn FnMut(&Key, &[u8]) -> Result<(), DecodeError> + 'a;

struct Values<'a> {
    reader: &'a Reader,
    skipped: Vec<Skipped>,
    kept: Kept,
}

impl Values<'_> {
    /// A single value of the table `meta`, if it is there and can be read.
    fn single<V: Stored>(&mut self, name: &'static str) -> Result<Option<V>, redb::Error> {
        let Some(bytes) = self.reader.single(name)? else {
            return Ok(None);
        };
        let value = V::decode(&bytes);
        if let Err(fault) = value {
            self.skipped.push(Skipped {
                table: META,
                key: name.to_owned(),
                fault,
            });
        }
        Ok(value.ok())
    }

    /// The values of a table, in the order of their keys.
    fn of_table<V: Stored>(&mut self, table: &'static str) -> Result<Vec<Arc<V>>, redb::Error> {
        let mut values = Vec::new();
        self.each(table, &mut |_, value| {
            values.push(Arc::new(V::decode(value)?));
            Ok(())
        })?;
        Ok(values)
    }

    /// Calls `take` with each value of a table. Those that it cannot read are skipped and kept.
    fn each(&mut self, table: &'static str, take: &mut Take<'_>) -> Result<(), redb::Error> {
        let Self {
            reader,
            skipped,
            kept,
        } = self;
        reader.each(table, &mut |key, stored| {
            let Some(value) = reader.value(table, key, stored) else {
                return Err(damaged(table, key));
            };
            if let Err(fault) = take(key, value) {
                skipped.push(Skipped {
                    table,
                    key: key.to_string(),
                    fault,
                });
                kept.insert((table, key.clone()), value.to_vec());
            }
            Ok(())
        })
    }
}

/// The next IDs by what is stored, raised above all IDs in use. A record of them that cannot be read would otherwise have
/// new nodes take the place of old ones.
fn counters_from(stored: Counters, reader: &Reader) -> Result<Counters, redb::Error> {
    let next = |table| -> Result<Option<u64>, redb::Error> {
        let last = reader.last_before(table, u64::MAX)?;
        Ok(last.map(|(last, _)| last.saturating_add(1).min(MAX_ID)))
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
