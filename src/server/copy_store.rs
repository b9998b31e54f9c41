//! What automatic copies need of the disk.

use std::path::Path;

use crate::backup::copies::CopyFault;
use crate::files;
use crate::store;
use hearth_core::state::content::{Content, Digest};

/// The content of a copy; `None` when it cannot be read.
pub(super) fn digest(path: &Path) -> Option<Digest> {
    let loaded = store::read_all(path).ok()?;
    let content = Content {
        users: &loaded.users,
        nodes: &loaded.nodes,
        attributes: &loaded.attributes,
        preauth_keys: &loaded.preauth_keys,
        api_keys: &loaded.api_keys,
        dns_records: &loaded.dns_records,
        policies: &loaded.policies,
        shut_out: &loaded.shut_out,
    };
    Some(content.digest())
}

/// Creates the directory of copies in the data directory.
pub(super) fn make_directory(directory: &Path) -> Result<(), CopyFault> {
    files::create_directory(directory).map_err(|source| CopyFault::Directory {
        path: directory.to_owned(),
        source,
    })
}
