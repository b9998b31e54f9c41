//! Each peer's JSON, made once per change and shared by everyone who is told of it.

use std::borrow::Cow;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::id::{NodeId, Revision};
use crate::netmap::chunk::Chunks;
use crate::netmap::delta::Shared;
use crate::netmap::dns::DnsTexts;
use crate::netmap::{Source, Tailnet, owner_number, to_json};
use crate::policy::{Compiled, RouteView};
use crate::state::model::{self, Role, is_exit_route};
use crate::state::snapshot::Snapshot;
use crate::tailcfg::dns::Resolver;
use crate::tailcfg::map::host_prefix;
use crate::tailcfg::node::{self, CapMap, Node, WireGuard, cap};

/// Most forms of one node that are kept: viewers differ in what they are told.
const FORMS_MAX: usize = 4;

/// The shared fragments. Bounded by the number of nodes and of their forms.
#[derive(Debug, Default)]
pub struct Fragments {
    cache: Mutex<HashMap<NodeId, Entry>>,
    /// Stretches of whole lists of peers.
    pub(super) chunks: Chunks,
    /// Whole messages that several streams send.
    pub(super) shared: Shared,
    /// DNS settings.
    pub(super) dns: DnsTexts,
}

#[derive(Debug)]
struct Entry {
    made: Revision,
    /// Versions of the relays and of the settings that show in peers.
    versions: (u32, u32),
    forms: Vec<(Form, Bytes)>,
}

/// In what viewers of the same node differ.
#[derive(Debug, Clone, PartialEq, Eq, Default, Hash)]
pub struct Form {
    /// The routes of the node that the viewer may use.
    routes: RouteView,
    /// The viewer is not told the node's IPv4 address.
    without_ipv4: bool,
}

impl Form {
    /// How `viewer` sees `node`. Most nodes serve no routes, and nobody is asked about those.
    pub(super) fn of(compiled: &Compiled, viewer: NodeId, node: &model::Node) -> Self {
        Self {
            routes: match node.approved_routes.is_empty() {
                true => RouteView::default(),
                false => compiled.routes(viewer, node.id),
            },
            without_ipv4: compiled.without_ipv4(viewer, node.id),
        }
    }
}

impl Fragments {
    /// The node as those of its peers see it who are told this form of it.
    pub fn peer(&self, source: &Source<'_>, node: &model::Node, form: Form) -> Bytes {
        let made = node.facets.latest();
        let versions = (source.tailnet.derp_version, source.tailnet.peers_version);
        let mut cache = self.lock();
        let entry = cache.entry(node.id).or_insert_with(|| Entry {
            made,
            versions,
            forms: Vec::new(),
        });
        if (entry.made, entry.versions) != (made, versions) {
            *entry = Entry {
                made,
                versions,
                forms: Vec::new(),
            };
        }
        if let Some((_, bytes)) = entry.forms.iter().find(|(known, _)| *known == form) {
            return bytes.clone();
        }
        let mut wire = peer_node(source.tailnet, node, &form);
        wire.cap_map = peer_capabilities(source, node);
        let bytes = Bytes::from(to_json(&wire));
        if entry.forms.len() >= FORMS_MAX {
            entry.forms.remove(0);
        }
        entry.forms.push((form, bytes.clone()));
        bytes
    }

    /// Forgets nodes that are gone.
    pub fn prune(&self, snapshot: &Snapshot) {
        let mut cache = self.lock();
        if cache.len() > snapshot.nodes().len() {
            cache.retain(|id, _| snapshot.node(*id).is_some());
        }
    }

    /// A panic while the lock is held cannot leave half an entry: the map is taken as it is.
    fn lock(&self) -> MutexGuard<'_, HashMap<NodeId, Entry>> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The node as it sees itself.
pub(super) fn self_node(source: &Source<'_>, node: &model::Node) -> String {
    let compiled = source.snapshot.compiled();
    let form = Form {
        routes: RouteView {
            allowed: node.served_routes().collect(),
            primary: node.primary_routes.clone(),
        },
        without_ipv4: compiled.without_ipv4(node.id, node.id),
    };
    let mut wire = peer_node(source.tailnet, node, &form);
    wire.machine = Some(node.machine);
    let attributes = compiled.attributes(node.id);
    wire.cap_map = self_capabilities(source.snapshot, node);
    if source.tailnet.is_wildcard(node) {
        let none = Cow::Borrowed(&[][..]);
        wire.cap_map.insert(cap::DNS_SUBDOMAIN_RESOLVE, none);
    }
    for (name, values) in attributes.iter() {
        wire.cap_map.insert(name, Cow::Borrowed(values));
    }
    to_json(&wire)
}

fn peer_node<'a>(tailnet: &Tailnet, node: &'a model::Node, form: &Form) -> Node<'a> {
    let routes = &form.routes;
    let v4 = Some(IpAddr::V4(node.ipv4)).filter(|_| !form.without_ipv4);
    let own = v4.into_iter().chain([IpAddr::V6(node.ipv6)]);
    let addresses: Vec<String> = own.map(host_prefix).collect();
    let mut allowed_ips = addresses.clone();
    allowed_ips.extend(routes.allowed.iter().map(ToString::to_string));
    // A client has a home region only after it has measured, and a peer that dials it before would
    // find no way and try again seconds later. Where there is one region, the answer is known.
    let home_derp = match node.home_derp {
        0 if node.wireguard.is_none() => tailnet.only_region,
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
        last_seen: node.presence.last_seen(),
        online: node.presence.is_online(),
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

/// What a node may do. The rights of an administrator only show links in clients.
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

/// What clients want to know of a peer. Every exit node may be suggested: who does not want that has no
/// reason to approve it.
fn peer_capabilities(source: &Source<'_>, node: &model::Node) -> CapMap<'static> {
    let mut map = CapMap::new();
    let none = || Cow::Borrowed(&[][..]);
    if node.served_routes().any(|route| is_exit_route(&route)) {
        map.insert(cap::SUGGEST_EXIT_NODE, none());
    }
    let attributes = source.snapshot.compiled().attributes(node.id);
    if attributes.contains_key(cap::DNS_SUBDOMAIN_RESOLVE) || source.tailnet.is_wildcard(node) {
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
    fn where_the_policy_takes_ipv4_away_nobody_is_told_such_an_address() {
        let (mut world, _) = World::with_user();
        let (viewer, peer) = (world.node_number(1), world.node_number(2));
        world.open_stream(viewer);
        world.open_stream(peer);
        let tailnet = Tailnet::new("t.net".into(), &DerpMap::default());
        let fragments = Fragments::default();
        let told = |world: &World| {
            let snapshot = world.snapshot();
            let source = Source {
                tailnet: &tailnet,
                fragments: &fragments,
                snapshot: &snapshot,
                now: PLAUSIBLE_FROM,
            };
            let node = snapshot.node(peer).unwrap();
            let form = Form::of(snapshot.compiled(), viewer, node);
            let bytes = fragments.peer(&source, node, form);
            let own = self_node(&source, node);
            [String::from_utf8(bytes.to_vec()).unwrap(), own]
        };
        for (text, has_v4) in [
            ("{}", true),
            (r#"{"disableIPv4": true}"#, false),
            ("{}", true),
        ] {
            world.set_policy(text);
            for told in told(&world) {
                assert_eq!(told.contains("100.64."), has_v4, "{text}: {told}");
                assert!(told.contains("fd7a:115c:a1e0:"), "{told}");
            }
        }
    }
}
