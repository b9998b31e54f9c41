//! Each peer's JSON, made once per change and shared by everyone who is told of it.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Mutex;

use bytes::Bytes;
use serde_json::value::RawValue;

use crate::id::{NodeId, Revision};
use crate::netmap::delta::Shared;
use crate::netmap::dns::DnsTexts;
use crate::netmap::{Tailnet, owner_number, to_json};
use crate::state::model;
use crate::state::snapshot::Snapshot;
use crate::tailcfg::map::host_prefix;
use crate::tailcfg::node::{self, CapMap, Node, cap};

/// The shared fragments. Bounded by the number of nodes.
#[derive(Debug, Default)]
pub struct Fragments {
    cache: Mutex<HashMap<NodeId, (Revision, u32, Bytes)>>,
    /// Whole messages that several streams send.
    pub(super) shared: Shared,
    /// DNS settings.
    pub(super) dns: DnsTexts,
}

impl Fragments {
    /// The node as its peers see it.
    pub fn peer(&self, tailnet: &Tailnet, node: &model::Node) -> Bytes {
        let revision = node.facets.latest();
        // A panic while the lock is held cannot leave half an entry; take the map as it is.
        let mut cache = self
            .cache
            .lock()
            .unwrap_or_else(|poison| poison.into_inner());
        match cache.get(&node.id) {
            Some((made, relays, bytes)) if *made == revision && *relays == tailnet.derp_version => {
                bytes.clone()
            }
            _ => {
                let bytes = Bytes::from(to_json(&peer_node(tailnet, node)));
                cache.insert(node.id, (revision, tailnet.derp_version, bytes.clone()));
                bytes
            }
        }
    }

    /// Forgets nodes that are gone.
    pub fn prune(&self, snapshot: &Snapshot) {
        let mut cache = self
            .cache
            .lock()
            .unwrap_or_else(|poison| poison.into_inner());
        if cache.len() > snapshot.nodes().len() {
            cache.retain(|id, _| snapshot.node(*id).is_some());
        }
    }
}

/// The node as it sees itself.
pub fn self_node(tailnet: &Tailnet, node: &model::Node) -> String {
    let mut wire = peer_node(tailnet, node);
    wire.machine = Some(node.machine);
    wire.cap_map = self_capabilities();
    to_json(&wire)
}

fn peer_node<'a>(tailnet: &Tailnet, node: &'a model::Node) -> Node<'a> {
    let v4 = host_prefix(IpAddr::V4(node.ipv4));
    let v6 = host_prefix(IpAddr::V6(node.ipv6));
    // A client has a home region only after it has measured, and a peer that dials it before would
    // find no way and try again seconds later. Where there is one region, the answer is known.
    let home_derp = match node.home_derp {
        0 => tailnet.only_region,
        region => region,
    };
    let hostinfo: Option<&RawValue> = serde_json::from_str(&node.hostinfo.shared).ok();
    Node {
        id: node.id.number(),
        stable_id: node.id.to_string(),
        name: format!("{}.", tailnet.name_of(node)),
        user: owner_number(node),
        key: node.key,
        key_expiry: node.expiry,
        machine: None,
        disco_key: node.disco,
        allowed_ips: vec![v4.clone(), v6.clone()],
        addresses: [v4, v6],
        endpoints: &node.endpoints,
        legacy_derp: node::legacy_derp(home_derp),
        home_derp,
        hostinfo,
        created: node.created,
        cap: node.capability,
        tags: node.tags(),
        last_seen: node.presence.last_seen(),
        online: node.presence.is_online(),
        machine_authorized: true,
        cap_map: CapMap::new(),
        expired: node.expired,
    }
}

/// What every node may do. Headscale gives everyone the admin capability too; it only shows the
/// administration link in clients.
fn self_capabilities() -> CapMap {
    CapMap::from([
        (cap::CACHE_NETWORK_MAPS, Vec::new()),
        (
            cap::DEFAULT_AUTO_UPDATE,
            vec![serde_json::Value::Bool(false)],
        ),
        (cap::FILE_SHARING, Vec::new()),
        (cap::IS_ADMIN, Vec::new()),
        (cap::MAGICDNS_AAAA, Vec::new()),
    ])
}
