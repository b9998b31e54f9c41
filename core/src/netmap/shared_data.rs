//! The part of a network map that is the same for every node.

use std::sync::Arc;

use crate::netmap::dial_plan::DialPlan;
use crate::netmap::dns_sources::DnsSources;
use crate::release::Release;
use crate::state::model::Node;
use crate::tailcfg::derpmap::DerpMap;
use crate::tailcfg::json;

/// The data that all maps share, with a version for each part that streams resend when it changes.
///
/// Versions count from 0 at the start of the server.
#[derive(Debug, Clone)]
pub struct SharedMapData {
    /// Base domain of the node names, without a trailing dot.
    pub base_domain: String,
    /// The URL that clients connect to, for advice; empty if it is unknown.
    pub server_url: String,
    /// The DERP map as JSON.
    pub derp_map: String,
    /// Version of `derp_map`.
    pub derp_version: u32,
    /// Number of DERP regions.
    pub region_count: usize,
    /// The only region with a relay, assumed as the home of nodes that have not reported theirs; 0 if there is not
    /// exactly one.
    pub only_region: u16,
    /// DNS inputs; `dns::DnsTexts` makes each node's settings of them.
    pub dns: Arc<DnsSources>,
    /// Version of `dns`.
    pub dns_version: u32,
    /// Version of the DNS settings that show in peers.
    pub peers_version: u32,
    /// Server addresses that clients try without DNS.
    pub dial_plan: DialPlan,
    /// Version of `dial_plan`.
    pub dial_plan_version: u32,
    /// The newest client release, if known.
    pub latest_client: Option<Release>,
    /// Whether the server has no internet uplink.
    pub home_is_offline: bool,
}

impl SharedMapData {
    /// The shared data for this base domain and DERP map, with default DNS settings and no dial plan.
    pub fn new(base_domain: String, derp_map: &DerpMap) -> Self {
        let with_relay = derp_map.regions.iter().filter(|(_, region)| {
            let mut nodes = region.nodes.iter();
            nodes.any(|node| !node.stun_only)
        });
        let mut regions = with_relay.map(|(number, _)| number);
        let only_region = match (regions.next(), regions.next()) {
            (Some(region), None) => *region,
            _ => 0,
        };
        Self {
            base_domain,
            server_url: String::new(),
            region_count: derp_map.regions.len(),
            derp_map: json::plain(derp_map),
            derp_version: 0,
            only_region,
            dns: Arc::default(),
            dns_version: 0,
            peers_version: 0,
            dial_plan: DialPlan::default(),
            dial_plan_version: 0,
            latest_client: None,
            home_is_offline: false,
        }
    }

    /// The same with this dial plan.
    pub fn with_dial_plan(self, dial_plan: DialPlan) -> Self {
        let is_other = dial_plan != self.dial_plan;
        Self {
            dial_plan_version: self.dial_plan_version.wrapping_add(u32::from(is_other)),
            dial_plan,
            ..self
        }
    }

    /// The same with this URL of the server.
    pub fn with_server_url(self, server_url: String) -> Self {
        Self { server_url, ..self }
    }

    /// The same with this newest client release.
    pub fn with_latest_client(self, latest_client: Option<Release>) -> Self {
        Self {
            latest_client,
            ..self
        }
    }

    /// The same after the internet uplink was lost or restored.
    pub fn with_home_offline(self, home_is_offline: bool) -> Self {
        Self {
            home_is_offline,
            ..self
        }
    }

    /// The same with another DERP map.
    pub fn with_derp_map(&self, derp_map: &DerpMap) -> Self {
        let new = Self::new(self.base_domain.clone(), derp_map);
        Self {
            derp_map: new.derp_map,
            derp_version: self.derp_version.wrapping_add(1),
            region_count: new.region_count,
            only_region: new.only_region,
            ..self.clone()
        }
    }

    /// The same with other DNS inputs.
    pub fn with_dns(&self, dns: DnsSources) -> Self {
        let is_same = dns.settings.wildcard == self.dns.settings.wildcard;
        Self {
            peers_version: self.peers_version.wrapping_add(u32::from(!is_same)),
            dns: Arc::new(dns),
            dns_version: self.dns_version.wrapping_add(1),
            ..self.clone()
        }
    }

    /// Whether the node also answers for every subdomain of its name.
    pub fn is_wildcard(&self, node: &Node) -> bool {
        node.is_one_of(&self.dns.settings.wildcard, &self.base_domain)
    }

    /// The full name of a node, without a trailing dot.
    pub fn name_of(&self, node: &Node) -> String {
        format!("{}.{}", node.label, self.base_domain)
    }
}
