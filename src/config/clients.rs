//! The `[clients]` section: what is advertised to clients.

use std::net::IpAddr;

use super::file::RawConfig;
use super::value::List;
use hearth_core::release::Release;

/// Most configured addresses of the server.
const MAX_ADDRESSES: usize = 8;

/// What is advertised to clients.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClientSettings {
    /// Addresses of the server in addition to those that hearth finds; clients try them before DNS. An
    /// empty list advertises none at all; `None` adds none.
    pub addresses: Option<Vec<IpAddr>>,
    /// The newest client version; older clients show an update.
    pub latest_version: Option<Release>,
}

impl ClientSettings {
    /// Takes the section from a configuration file.
    pub(super) fn take(raw: &mut RawConfig) -> Self {
        let addresses = raw.take("clients.addresses");
        let addresses = addresses.map(|List(mut addresses): List<IpAddr>| {
            addresses.truncate(MAX_ADDRESSES);
            addresses
        });
        let is_damaged = raw.is_damaged("clients.addresses");
        Self {
            addresses: addresses.or_else(|| is_damaged.then(Vec::new)),
            latest_version: raw.take("clients.latest_version"),
        }
    }
}
