//! The `[policy]` section: the source of the policy.

use std::path::PathBuf;

use super::file::RawConfig;

/// The source of the policy.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PolicySettings {
    /// The policy file; `None` is the database, which the API and the command line write.
    pub file: Option<PathBuf>,
    /// Whether a policy file may be configured that is not known, since the configuration cannot be read.
    pub is_lost: bool,
}

impl PolicySettings {
    /// Takes the section from a configuration file.
    pub(super) fn take(raw: &mut RawConfig) -> Self {
        let file = raw.take("policy.file");
        Self {
            is_lost: file.is_none() && raw.is_damaged("policy.file"),
            file,
        }
    }

    /// Whether no device may reach another as long as no policy was ever valid: one is configured.
    pub fn is_configured(&self) -> bool {
        self.file.is_some() || self.is_lost
    }
}
