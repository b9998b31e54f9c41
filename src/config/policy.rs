//! The `[policy]` section: the source of the policy.

use std::path::PathBuf;

use super::file::RawConfig;

/// The source of the policy.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PolicySettings {
    /// The policy file; `None` is the database, which the API and the command line write.
    pub file: Option<PathBuf>,
}

impl PolicySettings {
    /// Takes the section from a configuration file.
    pub(super) fn take(raw: &mut RawConfig) -> Self {
        Self {
            file: raw.take("policy.file"),
        }
    }
}
