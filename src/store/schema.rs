//! Tables of the database. Released names and key types never change their meaning.
//!
//! A new table needs its definition here, a line in `read_all` and one in `write_one`. Databases of
//! earlier versions do not have it: reading finds no entries, and the first write creates it.

use redb::TableDefinition;

/// Version of the schema that this program writes. A database with a higher one is refused.
pub(super) const SCHEMA_VERSION: u64 = 1;

/// Single values by name.
pub(super) const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
/// In `meta`: the schema version, eight bytes, little-endian.
pub(super) const SCHEMA: &str = "schema";
/// In `meta`: the Noise static key of the control server.
pub(super) const NOISE_SECRET: &str = "noise_secret";
/// In `meta`: the private key of the DERP relay.
pub(super) const DERP_SECRET: &str = "derp_secret";
/// In `meta`: the next ids.
pub(super) const COUNTERS: &str = "counters";
/// In `meta`: the last addresses that were given out.
pub(super) const CURSORS: &str = "addresses";

/// Users by id.
pub(super) const USERS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("users");
/// Nodes by id.
pub(super) const NODES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("nodes");
/// Posture attributes of nodes by the node's id.
pub(super) const ATTRIBUTES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("attributes");
/// Preauth keys by id.
pub(super) const PREAUTH_KEYS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("preauth");
/// API keys by id.
pub(super) const API_KEYS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("api_keys");
/// DNS records by `name type value`.
pub(super) const DNS_RECORDS: TableDefinition<'_, &str, &[u8]> =
    TableDefinition::new("dns_records");
/// Name of `POLICIES`, by which the engine finds the versions that were skipped.
pub const POLICIES_NAME: &str = "policies";
/// Versions of the policy by id.
pub(super) const POLICIES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new(POLICIES_NAME);
/// Entries of the audit log by running number. A database of an earlier hearth may lack it.
pub(super) const AUDIT: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("audit");
/// Machines that are shut out, by the text of their keys. A database without it is from before they were kept.
pub(super) const SHUT_OUT: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("shut_out");
/// Pending registrations of earlier versions: now they are in memory only, and the first write deletes the table.
pub(super) const PENDING: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("pending");
