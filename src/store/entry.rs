//! Where a record is stored: its table, its key and its bytes.

use std::fmt;

use super::schema::{
    API_KEYS, ATTRIBUTES, COUNTERS, CURSORS, DNS_RECORDS, META, NODES, POLICIES, PREAUTH_KEYS,
    SHUT_OUT, USERS,
};
use hearth_core::state::dns::DnsRecord;
use hearth_core::state::record::{Record, Stored};

/// Key of a stored value.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    Number(u64),
    Text(String),
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Text(text) => text.fmt(f),
        }
    }
}

impl From<u64> for Key {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

impl From<&str> for Key {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

/// A value to store, or `None` to delete it.
pub(super) struct Entry {
    pub(super) table: &'static str,
    pub(super) key: Key,
    pub(super) value: Option<Vec<u8>>,
}

/// Where a record is stored.
pub(super) fn of(record: &Record) -> Entry {
    let (table, key, value) = match record {
        Record::Counters(counters) => (META, COUNTERS.into(), Some(counters.encode())),
        Record::Cursors(cursors) => (META, CURSORS.into(), Some(cursors.encode())),
        Record::PutUser(user) => (USERS, user.id.number().into(), Some(user.encode())),
        Record::DeleteUser(id) => (USERS, id.number().into(), None),
        Record::PutNode(node) => (NODES, node.id.number().into(), Some(node.encode())),
        Record::DeleteNode(id) => (NODES, id.number().into(), None),
        Record::PutAttributes(id, attributes) => {
            (ATTRIBUTES, id.number().into(), Some(attributes.encode()))
        }
        Record::DeleteAttributes(id) => (ATTRIBUTES, id.number().into(), None),
        Record::PutPreAuthKey(key) => (PREAUTH_KEYS, key.id.number().into(), Some(key.encode())),
        Record::DeletePreAuthKey(id) => (PREAUTH_KEYS, id.number().into(), None),
        Record::PutApiKey(key) => (API_KEYS, key.id.number().into(), Some(key.encode())),
        Record::DeleteApiKey(id) => (API_KEYS, id.number().into(), None),
        Record::PutDnsRecord(record) => (DNS_RECORDS, dns_key(record), Some(record.encode())),
        Record::DeleteDnsRecord(record) => (DNS_RECORDS, dns_key(record), None),
        Record::PutPolicy(version) => {
            (POLICIES, version.id.number().into(), Some(version.encode()))
        }
        Record::DeletePolicy(id) => (POLICIES, id.number().into(), None),
        Record::PutShutOut(machine) => (
            SHUT_OUT,
            Key::Text(machine.to_string()),
            Some(machine.encode()),
        ),
        Record::DeleteShutOut(machine) => (SHUT_OUT, Key::Text(machine.to_string()), None),
    };
    Entry { table, key, value }
}

fn dns_key(record: &DnsRecord) -> Key {
    Key::Text(format!(
        "{} {} {}",
        record.name,
        record.kind(),
        record.value
    ))
}
