//! The inputs of DNS settings from outside the state.

use std::net::Ipv4Addr;
use std::sync::Arc;

use crate::state::dns::{DnsRecord, DnsSettings};

/// DNS inputs from the configuration and this machine. Immutable: a change makes a new one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DnsSources {
    /// The `[dns]` section of the configuration.
    pub settings: Arc<DnsSettings>,
    /// The records of the file that the configuration names.
    pub file_records: Arc<[DnsRecord]>,
    /// This machine's addresses in the tailnet's ranges: one of them is the address of its own node.
    pub tailnet_addresses: Arc<[Ipv4Addr]>,
    /// This machine's LAN address.
    pub home_address: Option<Ipv4Addr>,
}
