//! The `[policy]` section: where the policy is.

use std::path::PathBuf;

use super::file::RawConfig;

/// Where the policy is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PolicySettings {
    /// The file; `None` is the database, where the API and the command line put it.
    pub file: Option<PathBuf>,
}

impl PolicySettings {
    /// Takes the section out of a configuration file.
    pub(super) fn take(raw: &mut RawConfig) -> Self {
        Self {
            file: raw.take("policy.file"),
        }
    }
}
