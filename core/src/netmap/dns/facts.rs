//! What the settings mean for the current nodes: where the router is, and what records resolve to.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use super::records::{has_name, records_of};
use crate::id::NodeId;
use crate::netmap::reverse::{zones_v4, zones_v6};
use crate::netmap::shared_data::SharedMapData;
use crate::state::dns::{DnsRecord, DnsSettings, DnsValue, Nameserver, Router, label_in};
use crate::state::model::Node;
use crate::state::snapshot::Snapshot;

/// A node that the settings or records name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NamedNode {
    id: NodeId,
    label: Box<str>,
    ipv4: Ipv4Addr,
    ipv6: Ipv6Addr,
    is_router: bool,
    /// Whether aliases may name it: an administrator chose its label.
    has_aliases: bool,
}

/// The nodes that aliases or the router setting name, in order of ID. Without either, no node is looked at.
pub(super) fn named_nodes(shared: &SharedMapData, snapshot: &Snapshot) -> Vec<NamedNode> {
    let sources = &shared.dns;
    let settings = &sources.settings;
    let base = shared.base_domain.as_str();
    // Records of the policy are never aliases.
    let records = (settings.records.iter())
        .chain(&*sources.file_records)
        .chain(&**snapshot.dns_records());
    let targets = records.filter_map(|record| match &record.value {
        DnsValue::Alias(target) => label_in(target, base),
        DnsValue::A(_) | DnsValue::Aaaa(_) => None,
    });
    let labels: BTreeSet<&str> = targets.collect();
    let needs_router = settings.needs_router();
    if labels.is_empty() && !needs_router {
        return Vec::new();
    }
    // An address of this machine means this machine.
    let is_this_machine = match &settings.router {
        Router::ThisMachine => true,
        Router::Node(_) => false,
        Router::Resolver(resolver) => resolver.address().is_some_and(|address| match address {
            IpAddr::V4(v4) => {
                sources.home_address == Some(v4) || sources.tailnet_addresses.contains(&v4)
            }
            IpAddr::V6(_) => false,
        }),
    };
    let is_router = |node: &Node| match &settings.router {
        _ if !needs_router => false,
        Router::Node(name) => node.is_meant_by(name.as_str(), base),
        Router::Resolver(resolver) if !is_this_machine => {
            let address = resolver.address();
            address == Some(node.ipv4.into()) || address == Some(node.ipv6.into())
        }
        _ => sources.tailnet_addresses.contains(&node.ipv4),
    };
    let nodes = snapshot.nodes().iter().filter(|node| has_name(node));
    let named = nodes.filter_map(|node| {
        let is_router = is_router(node);
        let has_aliases = node.label_chosen && labels.contains(&*node.label);
        (is_router || has_aliases).then(|| NamedNode {
            id: node.id,
            label: node.label.clone(),
            ipv4: node.ipv4,
            ipv6: node.ipv6,
            is_router,
            has_aliases,
        })
    });
    named.collect()
}

/// The settings as they apply to the current nodes, the same for every viewer.
#[derive(Debug, Default)]
pub(super) struct Facts {
    pub(super) settings: Arc<DnsSettings>,
    pub(super) base_domain: String,
    /// Reverse zones of the tailnet's addresses.
    pub(super) zones: Vec<String>,
    /// DNS resolver of the router; empty while unknown.
    pub(super) router: Vec<Nameserver>,
    /// The nodes that are the router: they must not get themselves as a resolver.
    pub(super) routers: Vec<NodeId>,
    /// Whether the resolver is reached at the tailnet addresses of these nodes.
    pub(super) is_in_tailnet: bool,
    /// All records, each once, as name, address and, for an alias, its node: only peers of the node get it.
    pub(super) records: Vec<(String, IpAddr, Option<NodeId>)>,
    /// The nodes of the aliases, each once.
    pub(super) aliased: Vec<NodeId>,
}

impl Facts {
    pub(super) fn of(shared: &SharedMapData, snapshot: &Snapshot, nodes: Vec<NamedNode>) -> Self {
        let sources = &shared.dns;
        let settings = &sources.settings;
        let routers = || nodes.iter().filter(|node| node.is_router);
        let of_nodes = || {
            let addresses = routers().flat_map(|node| [IpAddr::from(node.ipv4), node.ipv6.into()]);
            addresses.map(Nameserver::from).collect::<Vec<_>>()
        };
        let router = match &settings.router {
            _ if !settings.needs_router() => Vec::new(),
            Router::Resolver(resolver) => vec![resolver.clone()],
            Router::Node(_) => of_nodes(),
            Router::ThisMachine => match of_nodes() {
                none if none.is_empty() => {
                    let home = sources.home_address.map(IpAddr::from);
                    home.map(Nameserver::from).into_iter().collect()
                }
                found => found,
            },
        };
        let base = shared.base_domain.as_str();
        let of_policy: Vec<DnsRecord> = records_of(snapshot.compiled().policy()).collect();
        let all = (settings.records.iter())
            .chain(&of_policy)
            .chain(&*sources.file_records)
            .chain(&**snapshot.dns_records());
        let mut seen = BTreeSet::new();
        let mut aliased = BTreeSet::new();
        let mut records = Vec::new();
        for record in all {
            let (addresses, of): (Vec<IpAddr>, _) = match &record.value {
                DnsValue::A(address) => (vec![(*address).into()], None),
                DnsValue::Aaaa(address) => (vec![(*address).into()], None),
                DnsValue::Alias(target) => {
                    let label = label_in(target, base);
                    let is_target =
                        |node: &&NamedNode| node.has_aliases && Some(&*node.label) == label;
                    let Some(node) = nodes.iter().find(is_target) else {
                        continue;
                    };
                    aliased.insert(node.id);
                    (vec![node.ipv4.into(), node.ipv6.into()], Some(node.id))
                }
            };
            let name = record.full_name(base);
            for address in addresses {
                let entry = (name.clone(), address, of);
                if seen.insert(entry.clone()) {
                    records.push(entry);
                }
            }
        }
        let prefixes = &snapshot.settings().prefixes;
        let ((v4, v4_bits), (v6, v6_bits)) = (prefixes.v4(), prefixes.v6());
        Self {
            settings: settings.clone(),
            base_domain: shared.base_domain.clone(),
            zones: zones_v4(v4, v4_bits).chain(zones_v6(v6, v6_bits)).collect(),
            is_in_tailnet: match &settings.router {
                Router::Resolver(_) => false,
                Router::Node(_) | Router::ThisMachine => routers().next().is_some(),
            },
            router,
            routers: routers().map(|node| node.id).collect(),
            records,
            aliased: aliased.into_iter().collect(),
        }
    }
}
