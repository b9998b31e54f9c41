//! The JSON of a rule's sources, made once for each version of the nodes.

use std::sync::{Arc, OnceLock};

/// JSON of some sources, made when it is first asked for.
#[derive(Debug, Default)]
pub struct SourceJsonCache {
    /// `SrcIPs` of packet filters.
    pub(super) addresses: OnceLock<Arc<str>>,
    /// SSH principals.
    pub(super) principals: OnceLock<Arc<str>>,
}
