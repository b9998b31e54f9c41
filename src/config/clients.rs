//! The `[clients]` section: what clients are told about the server and about themselves.

use std::net::IpAddr;

use super::file::RawConfig;
use super::value::List;
use hearth_core::release::Release;

/// Most addresses that clients are told.
const MAX_ADDRESSES: usize = 8;

/// What clients are told.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClientSettings {
    /// Where the server is found when DNS does not help, beside what hearth finds out itself. An empty
    /// list leaves clients to DNS altogether; `None` is what hearth finds out alone.
    pub addresses: Option<Vec<IpAddr>>,
    /// The newest client.
    pub latest_version: Option<Release>,
}

impl ClientSettings {
    /// Takes the section out of a configuration file.
    pub(super) fn take(raw: &mut RawConfig) -> Self {
        let addresses = raw.take("clients.addresses");
        Self {
            addresses: addresses.map(|List(mut addresses): List<IpAddr>| {
                addresses.truncate(MAX_ADDRESSES);
                addresses
            }),
            latest_version: raw.take("clients.latest_version"),
        }
    }
}
