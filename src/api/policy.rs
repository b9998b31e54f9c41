//! Policy.

use serde::{Deserialize, Serialize};

use super::NumberText;
use hearth_core::clock::Timestamp;

/// Sets or checks a policy.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SetPolicy {
    /// HuJSON.
    pub policy: String,
}

/// Response with a policy version.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyAnswer {
    /// HuJSON, as it was set.
    pub policy: String,
    /// When it was set.
    pub updated_at: Timestamp,
    /// ID of the version (hearth's own, like all that follows).
    #[serde(default)]
    pub version: String,
    /// Path of the policy file; empty when the policy is in the database.
    #[serde(default)]
    pub file: String,
    /// Errors in the newest policy, which was therefore not applied; empty when there are none.
    #[serde(default)]
    pub trouble: String,
    /// Where a policy that was set is probably not as it was meant, such as names that match nobody; each begins with
    /// `line N, column N: `. Only in the response to setting it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// Response to a check of a policy that is valid.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct CheckedPolicy {
    /// Where it is probably not as it was meant, as in [`PolicyAnswer`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// Response with the kept policy versions.
#[derive(Debug, Serialize, Deserialize)]
pub struct PolicyVersions {
    /// Oldest first; the last one is in effect.
    pub versions: Vec<PolicyVersion>,
}

/// A policy version.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyVersion {
    /// ID.
    pub version: String,
    /// When it was set.
    pub updated_at: Timestamp,
    /// Length in bytes.
    pub bytes: usize,
}

/// Rolls back to a policy version.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RollBackPolicy {
    /// ID of the version; empty or `0` for the one before the newest.
    pub version: NumberText,
}

/// Explanation of a connection.
#[derive(Debug, Serialize, Deserialize)]
pub struct WhyAnswer {
    /// Each pair of source and destination.
    pub pairs: Vec<WhyPair>,
    /// Number of further pairs, which are not listed.
    pub more: usize,
}

/// A source and a destination.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WhyPair {
    /// Name of the source; its address when it has none.
    pub source: String,
    /// Address of the source.
    pub source_address: String,
    /// Name of the destination; its address when it has none.
    pub destination: String,
    /// Address of the destination.
    pub destination_address: String,
    /// Whether the connection is allowed.
    pub allowed: bool,
    /// Rules that allow it.
    pub rules: Vec<WhyRule>,
    /// The same in words, or why the connection is denied.
    pub reason: String,
}

/// A rule and its position in the policy.
#[derive(Debug, Serialize, Deserialize)]
pub struct WhyRule {
    /// Name, such as `acls[2]`.
    pub rule: String,
    /// Line number.
    pub line: u32,
}
