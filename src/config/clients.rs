//! The `[clients]` section: what clients are told about the server and about themselves.

use std::net::{IpAddr, Ipv4Addr};

use super::derp::DerpSettings;
use super::file::RawConfig;
use super::url::{Host, ServerUrl};
use super::value::List;
use crate::release::Release;

/// Most addresses that clients are told.
const MAX_ADDRESSES: usize = 8;

/// What clients are told.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClientSettings {
    /// Where the server is found when DNS does not help. None leaves clients to DNS.
    pub addresses: Vec<IpAddr>,
    /// The newest client.
    pub latest_version: Option<Release>,
}

impl ClientSettings {
    /// Takes the section out of a configuration file. Unless it says where the server is found, that is
    /// known when the relay's address is, which is this server's too; `home` is the address that clients
    /// at home reach. The address at home alone would not do: those elsewhere would wait for it in vain
    /// before they ask DNS.
    pub(super) fn take(
        raw: &mut RawConfig,
        url: &ServerUrl,
        derp: &DerpSettings,
        home: impl FnOnce() -> Option<Ipv4Addr>,
    ) -> Self {
        let public = [derp.ipv4.map(IpAddr::V4), derp.ipv6.map(IpAddr::V6)];
        let known = || {
            let is_named = matches!(url.host(), Host::Name(_)) && derp.host_name.is_none();
            if !is_named || public == [None, None] {
                return Vec::new();
            }
            let home = home().map(IpAddr::V4);
            let all = home.into_iter().chain(public.into_iter().flatten());
            all.collect()
        };
        let mut addresses: Vec<IpAddr> = raw
            .take("clients.addresses")
            .map_or_else(known, |List(addresses)| addresses);
        addresses.truncate(MAX_ADDRESSES);
        Self {
            addresses,
            latest_version: raw.take("clients.latest_version"),
        }
    }
}
