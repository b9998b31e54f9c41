//! Tables of the database. Released names and key types never change their meaning.

use redb::TableDefinition;

/// Version of the tables that this program writes.
pub(super) const SCHEMA_VERSION: u64 = 1;

/// Single values by name.
pub(super) const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
/// In `meta`: the schema version, eight bytes, little-endian.
pub(super) const SCHEMA: &str = "schema";
/// In `meta`: the Noise static key.
pub(super) const NOISE_SECRET: &str = "noise_secret";
/// In `meta`: the relay's key.
pub(super) const DERP_SECRET: &str = "derp_secret";
/// In `meta`: the next numbers.
pub(super) const COUNTERS: &str = "counters";

/// Users by number.
pub(super) const USERS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("users");
/// Nodes by number.
pub(super) const NODES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("nodes");
/// Attributes of nodes by the node's number.
pub(super) const ATTRIBUTES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("attributes");
/// Preauth keys by number.
pub(super) const PREAUTH_KEYS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("preauth");
/// API keys by number.
pub(super) const API_KEYS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("api_keys");
/// DNS records by `name type value`. A database of an earlier hearth may lack it.
pub(super) const DNS_RECORDS: TableDefinition<'_, &str, &[u8]> =
    TableDefinition::new("dns_records");
/// Versions of the policy by number.
pub(super) const POLICIES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("policies");
/// Pending logins by id.
pub(super) const PENDING: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("pending");
