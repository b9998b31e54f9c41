//! Tables of the database. Released names and key types never change their meaning.
//!
//! A new table needs its name here, and a line in `load::read_all` and one in `entry::of`. Databases of earlier versions do
//! not have it: reading finds no entries, and the first write creates it. What an earlier hearth does not know it keeps.
//!
//! Schema 1 had the values as they are. Since schema 2 each value ends with its checksum (`seal`), and [`MANIFEST`] says
//! how many there are.

use redb::TableDefinition;

/// Version of the schema that this program writes. A database with a higher one is refused.
pub const SCHEMA_VERSION: u64 = 2;
/// The first version whose values have checksums.
pub(super) const SEALED_SINCE: u64 = 2;

/// Single values by name.
pub(super) const META: &str = "meta";
/// In `meta`: the schema version, eight bytes, little-endian, without a checksum in every version, so that every version
/// can read it.
pub(super) const SCHEMA: &str = "schema";
/// In `meta`: the number of values and the sum of their checksums. With the audit log it would cost no page of its own in a
/// change (33 instead of 37 KB), but a damaged page of the log, the largest table, would cost the proof that the rest is whole.
pub(super) const MANIFEST: &str = "manifest";
/// In `meta`: the Noise static key of the control server.
pub(super) const NOISE_SECRET: &str = "noise_secret";
/// In `meta`: the private key of the DERP relay.
pub(super) const DERP_SECRET: &str = "derp_secret";
/// In `meta`: the next ids.
pub(super) const COUNTERS: &str = "counters";
/// In `meta`: the last addresses that were given out.
pub(super) const CURSORS: &str = "addresses";

/// Users by id.
pub(super) const USERS: &str = "users";
/// Nodes by id.
pub(super) const NODES: &str = "nodes";
/// Posture attributes of nodes by the node's id.
pub(super) const ATTRIBUTES: &str = "attributes";
/// Preauth keys by id.
pub(super) const PREAUTH_KEYS: &str = "preauth";
/// API keys by id.
pub(super) const API_KEYS: &str = "api_keys";
/// DNS records by `name type value`.
pub(super) const DNS_RECORDS: &str = "dns_records";
/// Versions of the policy by id.
pub const POLICIES: &str = "policies";
/// Entries of the audit log by running number. A database of an earlier hearth may lack it.
pub(super) const AUDIT: &str = "audit";
/// Machines that are shut out, by the text of their keys. A database without it is from before they were kept.
pub(super) const SHUT_OUT: &str = "shut_out";
/// Pending registrations of earlier versions, which are in memory only now. Schema 2 does not have it.
pub(super) const PENDING: &str = "pending";

/// The tables whose values the model has.
pub(super) const OF_MODEL: [&str; 9] = [
    META,
    USERS,
    NODES,
    ATTRIBUTES,
    PREAUTH_KEYS,
    API_KEYS,
    DNS_RECORDS,
    POLICIES,
    SHUT_OUT,
];

/// A table with numbers as keys.
pub(super) fn by_number(name: &str) -> TableDefinition<'_, u64, &'static [u8]> {
    TableDefinition::new(name)
}

/// A table with texts as keys.
pub(super) fn by_text(name: &str) -> TableDefinition<'_, &'static str, &'static [u8]> {
    TableDefinition::new(name)
}
