//! The policy.

use serde::{Deserialize, Serialize};

use super::NumberText;
use hearth_core::clock::Timestamp;

/// Sets or checks a policy.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct SetPolicy {
    /// HuJSON.
    pub policy: String,
}

/// The answer with a version of the policy.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyAnswer {
    /// HuJSON, as it was set.
    pub policy: String,
    /// When it was set.
    pub updated_at: Timestamp,
    /// Number of the version (hearth's own, like all that follows).
    #[serde(default)]
    pub version: String,
    /// The file that it comes from; empty: the database.
    #[serde(default)]
    pub file: String,
    /// What is wrong with the newest text, which then does not apply; empty: nothing.
    #[serde(default)]
    pub trouble: String,
}

/// The answer with the versions that are kept.
#[derive(Debug, Serialize, Deserialize)]
pub struct PolicyVersions {
    /// Oldest first; the last one applies.
    pub versions: Vec<PolicyVersion>,
}

/// One version of the policy.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyVersion {
    /// Its number.
    pub version: String,
    /// When it was set.
    pub updated_at: Timestamp,
    /// Length of its text.
    pub bytes: usize,
}

/// Sets an older version again.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RollBackPolicy {
    /// Number of the version; empty or `0` for the one before the newest.
    pub version: NumberText,
}

/// The answer to whether traffic passes.
#[derive(Debug, Serialize, Deserialize)]
pub struct WhyAnswer {
    /// From each source to each destination.
    pub pairs: Vec<WhyPair>,
    /// How many pairs there are beyond those.
    pub more: usize,
}

/// One source and one destination.
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
    /// Whether it passes.
    pub allowed: bool,
    /// The rules that let it pass.
    pub rules: Vec<WhyRule>,
    /// The same in words, or why it does not pass.
    pub reason: String,
}

/// A rule and its place in the policy.
#[derive(Debug, Serialize, Deserialize)]
pub struct WhyRule {
    /// As in `acls[2]`.
    pub rule: String,
    /// Line in the policy.
    pub line: u32,
}
