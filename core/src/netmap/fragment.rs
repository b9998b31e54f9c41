//! Fragments: peers as JSON, made once per change and shared by all viewers.

use std::borrow::Cow;
use std::net::IpAddr;

use bytes::Bytes;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::netmap::cache::{FragmentStamp, MapCache};
use crate::netmap::context::MapContext;
use crate::netmap::peer_view::PeerView;
use crate::netmap::shared_data::SharedMapData;
use crate::netmap::user_profiles::owner_number;
use crate::state::model::{self, Role, is_exit_route};
use crate::state::snapshot::Snapshot;
use crate::tailcfg::dns::Resolver;
use crate::tailcfg::json;
use crate::tailcfg::map::host_prefix;
use crate::tailcfg::node::{self, CapMap, Node, WireGuard, cap};

/// The fragment of `node` for viewers with this view.
pub(super) fn peer(
    context: &MapContext<'_>,
    cache: &MapCache,
    node: &model::Node,
    view: PeerView,
) -> Bytes {
    let stamp = FragmentStamp {
        revision: node.facets.latest(),
        derp_version: context.shared.derp_version,
        peers_version: context.shared.peers_version,
    };
    cache.fragments.get_or_make(node.id, stamp, view, |view| {
        let mut wire = peer_node(context.shared, node, view);
        wire.cap_map = peer_capabilities(context, node);
        Bytes::from(json::plain(&wire))
    })
}

/// The node as it sees itself.
pub(super) fn self_node(context: &MapContext<'_>, node: &model::Node) -> String {
    let compiled = context.snapshot.compiled();
    let view = PeerView::of_self(compiled, node);
    let mut wire = peer_node(context.shared, node, &view);
    wire.machine = Some(node.machine);
    let attributes = compiled.attributes(node.id);
    wire.cap_map = self_capabilities(context.snapshot, node);
    if context.shared.is_wildcard(node) {
        let none = Cow::Borrowed(&[][..]);
        wire.cap_map.insert(cap::DNS_SUBDOMAIN_RESOLVE, none);
    }
    for (name, values) in attributes.iter() {
        wire.cap_map.insert(name, Cow::Borrowed(values));
    }
    json::plain(&wire)
}

fn peer_node<'a>(shared: &SharedMapData, node: &'a model::Node, view: &PeerView) -> Node<'a> {
    let routes = &view.routes;
    let v4 = Some(IpAddr::V4(node.ipv4)).filter(|_| !view.without_ipv4);
    let own = v4.into_iter().chain([IpAddr::V6(node.ipv6)]);
    let addresses: Vec<String> = own.map(host_prefix).collect();
    let mut allowed_ips = addresses.clone();
    allowed_ips.extend(routes.allowed.iter().map(ToString::to_string));
    // A client reports its home region only after measuring, and a peer that dials before that would fail and
    // retry seconds later. If there is only one region, it is the answer.
    let home_derp = match node.home_derp {
        0 if node.wireguard.is_none() => shared.only_region,
        region => region,
    };
    let hostinfo: Option<&RawValue> = serde_json::from_str(&node.hostinfo.shared).ok();
    Node {
        id: node.id.number(),
        stable_id: node.id.to_string(),
        name: format!("{}.", shared.name_of(node)),
        user: owner_number(node),
        key: node.key,
        // A client that knows the time would take an end that a clock of 1970 made for one that has passed.
        key_expiry: node.ending.known(node.expiry),
        machine: None,
        disco_key: node.disco,
        allowed_ips,
        primary_routes: routes.primary.iter().map(ToString::to_string).collect(),
        addresses,
        endpoints: &node.endpoints,
        legacy_derp: node::legacy_derp(home_derp),
        home_derp,
        hostinfo,
        created: node.created,
        cap: node.capability,
        tags: node.tags(),
        last_seen: node.last_seen(),
        online: node.is_online(),
        machine_authorized: node.authorized,
        cap_map: CapMap::new(),
        expired: node.expired,
        wireguard: node.wireguard.as_deref().map(wireguard),
    }
}

fn wireguard(device: &model::WireGuard) -> WireGuard {
    let resolvers = device.exit_dns.iter().map(|address| Resolver {
        addr: address.to_string(),
        use_with_exit_node: false,
    });
    WireGuard {
        only: true,
        masquerade_v4: device.masquerade_v4,
        masquerade_v6: device.masquerade_v6,
        exit_dns: resolvers.collect(),
    }
}

/// Capabilities of a node, sent to itself. The admin ones only make clients show links.
fn self_capabilities(snapshot: &Snapshot, node: &model::Node) -> CapMap<'static> {
    let none = || Cow::Borrowed(&[][..]);
    let mut map = CapMap::from([
        (cap::CACHE_NETWORK_MAPS, none()),
        (
            cap::DEFAULT_AUTO_UPDATE,
            Cow::Owned(vec![Value::Bool(false)]),
        ),
        (cap::FILE_SHARING, none()),
        (cap::MAGICDNS_AAAA, none()),
        (cap::SSH, none()),
    ]);
    let owner = node.user().and_then(|id| snapshot.users().get(&id));
    match owner.map(|user| user.role) {
        Some(Role::Owner) => {
            map.insert(cap::IS_OWNER, none());
            map.insert(cap::IS_ADMIN, none());
        }
        Some(Role::Admin) => {
            map.insert(cap::IS_ADMIN, none());
        }
        Some(Role::Member) | None => {}
    }
    map
}

/// Capabilities of a peer. Every approved exit node may be suggested.
fn peer_capabilities(context: &MapContext<'_>, node: &model::Node) -> CapMap<'static> {
    let mut map = CapMap::new();
    let none = || Cow::Borrowed(&[][..]);
    if node.served_routes().any(|route| is_exit_route(&route)) {
        map.insert(cap::SUGGEST_EXIT_NODE, none());
    }
    let attributes = context.snapshot.compiled().attributes(node.id);
    if attributes.contains_key(cap::DNS_SUBDOMAIN_RESOLVE) || context.shared.is_wildcard(node) {
        map.insert(cap::DNS_SUBDOMAIN_RESOLVE, none());
    }
    map
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::PLAUSIBLE_FROM;
    use crate::state::testing::World;
    use crate::tailcfg::derpmap::DerpMap;

    #[test]
    fn a_node_without_ipv4_by_policy_is_sent_without_its_ipv4_address() {
        let (mut world, _) = World::with_user();
        let (viewer, peer) = (world.node_number(1), world.node_number(2));
        world.open_stream(viewer);
        world.open_stream(peer);
        let shared = SharedMapData::new("t.net".into(), &DerpMap::default());
        let cache = MapCache::default();
        let sent = |world: &World| {
            let snapshot = world.snapshot();
            let context = MapContext {
                shared: &shared,
                snapshot: &snapshot,
                now: PLAUSIBLE_FROM,
            };
            let node = snapshot.node(peer).unwrap();
            let view = PeerView::of(snapshot.compiled(), viewer, node);
            let bytes = super::peer(&context, &cache, node, view);
            let own = self_node(&context, node);
            [String::from_utf8(bytes.to_vec()).unwrap(), own]
        };
        for (text, has_v4) in [
            ("{}", true),
            (r#"{"disableIPv4": true}"#, false),
            ("{}", true),
        ] {
            world.set_policy(text);
            for sent in sent(&world) {
                assert_eq!(sent.contains("100.64."), has_v4, "{text}: {sent}");
                assert!(sent.contains("fd7a:115c:a1e0:"), "{sent}");
            }
        }
    }
}
