//! Automatic copies of the database: the last one, and why there is no newer one.

use hearth_core::clock::Timestamp;

/// Status of automatic copies.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CopyStatus {
    /// When the newest copy was made.
    pub last: Option<Timestamp>,
    /// Why the last attempt failed.
    pub fault: Option<String>,
}

impl CopyStatus {
    /// A line for people, if the last attempt failed.
    pub fn warning(&self) -> Option<String> {
        let fault = self.fault.as_ref()?;
        Some(format!("the automatic backup failed: {fault}"))
    }
}
