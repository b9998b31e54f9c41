//! Properties that hold for all policies, tailnets and changes.

use std::collections::BTreeSet;
use std::net::IpAddr;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::*;
use crate::policy::ast::{Autogroup, Rule, Selector};
use crate::policy::ranges::Ranges;
use crate::policy::resolved_set::{INTERNET, addresses};

const SOURCES: &[&str] = &[
    "*",
    "anna@",
    "group:pair",
    "tag:server",
    "tag:router",
    "autogroup:member",
    "autogroup:tagged",
    "autogroup:admin",
    "100.64.0.3",
    "100.64.0.4/30",
    "10.1.0.0/16",
    "fd7a:115c:a1e0::2",
    "autogroup:danger-all",
];
const DESTINATIONS: &[&str] = &[
    "*",
    "ben@",
    "group:pair",
    "tag:server",
    "tag:router",
    "autogroup:member",
    "autogroup:tagged",
    "100.64.0.2",
    "100.64.0.0/29",
    "10.1.0.0/16",
    "10.1.4.0/24",
    "8.8.8.0/24",
    "autogroup:internet",
    "100.64.0.0/10",
    "fd7a:115c:a1e0::/48",
    "fd7a:115c:a1e0:b1a:0:7::/96",
];
const ACCESS: &[&str] = &[
    "*",
    "22",
    "80-90,443",
    "tcp:22",
    "udp:*",
    "icmp:*",
    "6:1-100",
];
const ROUTES: &[&str] = &[
    "10.1.0.0/16",
    "10.1.4.0/24",
    "10.2.0.0/16",
    "100.100.0.0/24",
    "fd7a:115c:a1e0:b1a::/64",
    "0.0.0.0/0",
    "::/0",
];
const OWNERS: &[&str] = &[
    "1",
    "2",
    "3",
    "tag:server",
    "tag:router",
    "tag:exit,tag:server",
];

fn grants() -> impl Strategy<Value = Vec<String>> {
    let some = |from: &'static [&'static str]| subsequence(from, 1..=3);
    let open = (
        some(SOURCES),
        some(DESTINATIONS),
        some(ACCESS),
        subsequence(&["tag:router", "tag:exit"][..], 0..=2),
    );
    let open = open.prop_map(|(src, dst, ip, via)| {
        json!({"src": src, "dst": dst, "ip": ip, "via": via}).to_string()
    });
    let own = (
        select(&["anna@", "autogroup:member", "group:pair"][..]),
        prop_oneof![3 => Just(vec![]), 1 => Just(vec!["tag:router"])],
    );
    let own = own.prop_map(|(src, via)| {
        json!({"src": [src], "dst": ["autogroup:self"], "ip": ["22"], "via": via}).to_string()
    });
    let app = (some(SOURCES), some(&DESTINATIONS[..8]));
    let app = app.prop_map(|(src, dst)| {
        json!({"src": src, "dst": dst, "app": {"tailscale.com/cap/drive": [1], "example.com/x": []}}).to_string()
    });
    vec(prop_oneof![4 => open, 1 => own, 1 => app], 0..6)
}

fn text(grants: &[String]) -> String {
    let ssh = r#"{"action": "accept", "src": ["autogroup:member"], "dst": ["autogroup:self", "tag:server"], "users": ["root", "localpart:*@example.com"]}"#;
    let attrs = r#"{"target": ["tag:server", "100.64.0.2"], "attr": ["x"]}"#;
    format!(
        r#""grants": [{}], "ssh": [{ssh}], "nodeAttrs": [{attrs}]"#,
        grants.join(",")
    )
}

fn node_of(number: u64) -> impl Strategy<Value = Node> {
    let routes = prop_oneof![2 => Just(vec![]), 1 => subsequence(ROUTES, 0..=3)];
    (select(OWNERS), routes, 0..3u8, 0..8u8).prop_map(move |(owner, routes, served, families)| {
        let mut node = node(number, owner, &routes);
        // Some have addresses of one family only.
        match families {
            0 => node.ipv4 = None,
            1 => node.ipv6 = None,
            _ => {}
        }
        // Some routers stand by.
        if served == 0 {
            node.primary = Arc::default();
        }
        node
    })
}

fn nodes() -> impl Strategy<Value = Vec<Node>> {
    (1..8u64).map(node_of).collect::<Vec<_>>()
}

fn build(grants: &[String], nodes: &[Node]) -> Compiled {
    Compiled::compile(&policy(&text(grants)), &directory(nodes.to_vec()))
}

/// All that is said of one node to another, and to itself.
fn view(compiled: &Compiled, viewer: u64, peer: u64) -> (bool, RouteView) {
    (
        compiled.are_peers(id(viewer), id(peer)),
        compiled.routes(id(viewer), id(peer)),
    )
}

fn told(compiled: &Compiled, of: u64) -> impl PartialEq + std::fmt::Debug + use<> {
    (
        compiled.filter(id(of)),
        compiled.ssh(id(of)),
        compiled.attributes(id(of)),
    )
}

const ALL: std::ops::Range<u64> = 1..9;

/// Whether a selector names an address: by the letter, one at a time.
fn names(selector: &Selector, address: IpAddr, nodes: &[Node], is_source: bool) -> bool {
    let node = nodes.iter().find(|node| {
        node.ipv4.map(IpAddr::V4) == Some(address) || node.ipv6.map(IpAddr::V6) == Some(address)
    });
    let user = node.and_then(|node| match node.owner {
        Owner::User(user) => Some(user.number()),
        Owner::Tags(_) => None,
    });
    let behind = || {
        nodes
            .iter()
            .flat_map(|node| node.routes.iter())
            .any(|route| route.prefix_len() > 0 && route.contains(&address))
    };
    match selector {
        Selector::Any => !is_source || node.is_some() || behind(),
        Selector::User(name) => user == Some(if &**name == "anna@" { 1 } else { 2 }),
        Selector::Group(_) => matches!(user, Some(1 | 3)),
        Selector::Tag(tag) => {
            node.is_some_and(|node| matches!(&node.owner, Owner::Tags(tags) if tags.contains(tag)))
        }
        Selector::Addresses(sets) => sets.iter().any(|set| set.contains(address)),
        Selector::Autogroup(Autogroup::Member) => user.is_some(),
        Selector::Autogroup(Autogroup::Tagged) => node.is_some() && user.is_none(),
        Selector::Autogroup(Autogroup::Admin) => matches!(user, Some(1 | 2)),
        Selector::Autogroup(Autogroup::DangerAll) => true,
        Selector::Autogroup(Autogroup::Internet) => node.is_none() && INTERNET.contains(address),
        Selector::Autogroup(_) | Selector::Domain(_) => false,
    }
}

/// Whether a rule lets a packet in at a node, by the letter.
fn lets_in(rule: &Rule, at: &Node, packet: Packet, nodes: &[Node]) -> bool {
    let owner = |address: IpAddr| {
        nodes.iter().find(|node| {
            [node.ipv4.map(IpAddr::V4), node.ipv6.map(IpAddr::V6)].contains(&Some(address))
        })
    };
    let own = rule
        .destinations
        .contains(&Selector::Autogroup(Autogroup::Owned))
        && rule.via.is_empty()
        && matches!(at.owner, Owner::User(_))
        && owner(packet.src).is_some_and(|node| node.owner == at.owner)
        && owner(packet.dst).is_some_and(|node| node.owner == at.owner);
    let routed = || {
        rule.via
            .iter()
            .any(|tag| matches!(&at.owner, Owner::Tags(tags) if tags.contains(tag)))
    };
    let is_own = owner(packet.dst).is_some();
    let behind = at
        .routes
        .iter()
        .any(|route| route.prefix_len() > 0 && route.contains(&packet.dst));
    let routes_part_of = |sets: &[Ranges]| {
        let nets = sets.iter().flat_map(Ranges::prefixes);
        let mut nets = nets.filter(|net| net.contains(&packet.dst));
        nets.any(|net| {
            let mut subnets = at.routes.iter().filter(|route| route.prefix_len() > 0);
            subnets.any(|route| net.contains(route) || route.contains(&net))
        })
    };
    let reached = rule.destinations.iter().any(|selector| {
        names(selector, packet.dst, nodes, false)
            && match selector {
                // What is out in the internet is not named by its addresses. A prefix is sent whole to the routers
                // of any part of it.
                Selector::Addresses(sets) if !rule.via.is_empty() => {
                    routed() && routes_part_of(sets)
                }
                Selector::Addresses(_) => is_own || behind,
                Selector::Autogroup(Autogroup::Internet) => rule.via.is_empty() || routed(),
                _ => rule.via.is_empty(),
            }
    });
    rule.sources
        .iter()
        .any(|source| names(source, packet.src, nodes, true))
        && (reached || own)
        && rule.access.iter().any(|access| {
            access
                .proto
                .map_or([1, 6, 17, 58].contains(&packet.proto), |proto| {
                    proto == packet.proto
                })
                && access
                    .ports
                    .iter()
                    .any(|ports| ports.first <= packet.port && packet.port <= ports.last)
        })
}

#[derive(Debug, Clone, Copy)]
struct Packet {
    src: IpAddr,
    dst: IpAddr,
    port: u16,
    proto: u8,
}

/// Whether a filter, as the wire has it, lets a packet in.
fn filter_admits(filter: &Value, packet: Packet) -> bool {
    let holds = |text: &str, address: IpAddr| match text.split_once('-') {
        _ if text == "*" => true,
        Some((first, last)) => {
            let (first, last): (IpAddr, IpAddr) = (first.parse().unwrap(), last.parse().unwrap());
            first.is_ipv4() == address.is_ipv4() && first <= address && address <= last
        }
        None => text
            .parse::<IpNet>()
            .unwrap_or_else(|_| text.parse::<IpAddr>().unwrap().into())
            .contains(&address),
    };
    filter.as_array().unwrap().iter().any(|rule| {
        let sources = rule["SrcIPs"].as_array().unwrap();
        let proto = rule["IPProto"]
            .as_array()
            .map_or([1, 6, 17, 58].contains(&packet.proto), |list| {
                list.contains(&json!(packet.proto))
            });
        proto
            && sources
                .iter()
                .any(|text| holds(text.as_str().unwrap(), packet.src))
            && rule["DstPorts"].as_array().into_iter().flatten().any(|to| {
                let ports = &to["Ports"];
                let port = u64::from(packet.port);
                holds(to["IP"].as_str().unwrap(), packet.dst)
                    && ports["First"].as_u64().unwrap() <= port
                    && port <= ports["Last"].as_u64().unwrap()
            })
    })
}

/// Where a packet can come in at a node: its addresses, and what it carries for others.
fn targets(at: &Node) -> Vec<IpAddr> {
    let mut targets: Vec<IpAddr> = addresses(at).collect();
    for route in at.routes.iter() {
        let inside = match route.to_string().as_str() {
            "10.1.0.0/16" => "10.1.9.9",
            "10.1.4.0/24" => "10.1.4.4",
            "10.2.0.0/16" => "10.2.2.2",
            "100.100.0.0/24" => "100.100.0.9",
            "fd7a:115c:a1e0:b1a::/64" => "fd7a:115c:a1e0:b1a:0:7:a01:203",
            "0.0.0.0/0" => "8.8.8.8",
            _ => "2606:4700::1",
        };
        targets.push(inside.parse().unwrap());
    }
    targets
}

/// Addresses of two nodes of the same family, if they have any.
fn addresses_of_both(one: &Node, other: &Node) -> Option<(IpAddr, IpAddr)> {
    addresses(one).find_map(|src| {
        let mut same = addresses(other).filter(|dst| dst.is_ipv4() == src.is_ipv4());
        Some((src, same.next()?))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn peers_are_peers_both_ways(grants in grants(), nodes in nodes()) {
        let compiled = build(&grants, &nodes);
        for (one, other) in ALL.flat_map(|one| ALL.map(move |other| (one, other))) {
            prop_assert_eq!(compiled.are_peers(id(one), id(other)), compiled.are_peers(id(other), id(one)));
        }
    }

    #[test]
    fn a_further_node_changes_no_view_of_others(grants in grants(), nodes in nodes(), owner in select(OWNERS)) {
        let before = build(&grants, &nodes);
        let after = before.with_nodes(&[node(8, owner, &[])], &[]);
        for (one, other) in (1..8).flat_map(|one| (1..8).map(move |other| (one, other))) {
            prop_assert_eq!(view(&before, one, other), view(&after, one, other));
        }
    }

    #[test]
    fn the_order_of_rules_does_not_matter(grants in grants(), nodes in nodes()) {
        let mut turned = grants.clone();
        turned.reverse();
        let (one, other) = (build(&grants, &nodes), build(&turned, &nodes));
        let rules = |compiled: &Compiled, of| -> BTreeSet<String> {
            filter(compiled, of).as_array().unwrap().iter().map(Value::to_string).collect()
        };
        for of in 1..8 {
            prop_assert_eq!(rules(&one, of), rules(&other, of));
            for peer in 1..8 {
                prop_assert_eq!(view(&one, of, peer), view(&other, of, peer));
            }
        }
    }

    #[test]
    fn a_filter_admits_what_the_policy_says(
        grants in grants(),
        nodes in nodes(),
        ports in vec((select(&[22u16, 80, 88, 443, 1000][..]), select(&[1u8, 6, 17, 58, 132][..])), 4),
    ) {
        let compiled = build(&grants, &nodes);
        let rules = &compiled.policy().unwrap().rules;
        let strangers = ["10.1.4.1", "10.7.0.1", "1.1.1.1"];
        let mut sources: Vec<IpAddr> = strangers.iter().map(|text| text.parse().unwrap()).collect();
        sources.extend(nodes.iter().flat_map(|node| [node.ipv4.map(IpAddr::V4), node.ipv6.map(IpAddr::V6)]).flatten());
        for at in &nodes {
            let text = filter(&compiled, at.id.number());
            for (dst, src) in targets(at).into_iter().flat_map(|dst| sources.iter().map(move |src| (dst, *src))) {
                for (port, proto) in &ports {
                    let packet = Packet { src, dst, port: *port, proto: *proto };
                    let wanted = rules.iter().any(|rule| lets_in(rule, at, packet, &nodes));
                    prop_assert_eq!(filter_admits(&text, packet), wanted, "{:?} at {}: {}", packet, at.id, text);
                }
            }
        }
    }

    #[test]
    fn whoever_a_filter_lets_in_is_a_peer(grants in grants(), nodes in nodes()) {
        let compiled = build(&grants, &nodes);
        for at in &nodes {
            let text = filter(&compiled, at.id.number());
            for from in nodes.iter().filter(|from| from.id != at.id) {
                let Some((src, dst)) = addresses_of_both(from, at) else {
                    continue;
                };
                let admitted = [6, 17, 1].iter().flat_map(|proto| [22, 80, 443].map(|port| Packet { src, dst, port, proto: *proto }))
                    .any(|packet| filter_admits(&text, packet));
                prop_assert!(!admitted || compiled.are_peers(from.id, at.id));
            }
        }
    }

    #[test]
    fn following_changes_gives_what_compiling_anew_gives(
        grants in grants(),
        first in nodes(),
        changes in vec((1..9u64, prop::option::weighted(0.7, node_of(1))), 1..6),
    ) {
        let start = build(&grants, &first);
        let mut now = start.clone();
        let mut nodes = first;
        for (number, change) in changes {
            let before = now.clone();
            nodes.retain(|node| node.id != id(number));
            now = match change {
                None => now.with_nodes(&[], &[id(number)]),
                Some(change) => {
                    let model = node(number, "1", &[]);
                    let changed = Node { id: model.id, ipv4: model.ipv4, ipv6: model.ipv6, ..change };
                    nodes.push(changed.clone());
                    nodes.sort_by_key(|node| node.id);
                    now.with_nodes(&[changed], &[])
                }
            };
            let anew = build(&grants, &nodes);
            for of in ALL {
                prop_assert_eq!(told(&now, of), told(&anew, of));
                for peer in ALL {
                    prop_assert_eq!(view(&now, of, peer), view(&anew, of, peer));
                    prop_assert_eq!(now.without_ipv4(id(of), id(peer)), anew.without_ipv4(id(of), id(peer)));
                }
            }
            for older in [&before, &start] {
                let Touched::Nodes(touched) = now.touched_since(older) else {
                    panic!("a few changes are remembered");
                };
                for (one, other) in ALL.flat_map(|one| ALL.map(move |other| (one, other))) {
                    if !touched.contains(&id(one)) && !touched.contains(&id(other)) {
                        prop_assert_eq!(view(older, one, other), view(&now, one, other));
                    }
                }
            }
        }
    }

    #[test]
    fn a_class_sees_all_others_alike(grants in grants(), nodes in nodes()) {
        let compiled = build(&grants, &nodes);
        for (one, other) in (1..8).flat_map(|one| (1..8).map(move |other| (one, other))) {
            if compiled.view_class(id(one)) == compiled.view_class(id(other)) {
                for third in (1..8).filter(|third| ![one, other].contains(third)) {
                    prop_assert_eq!(view(&compiled, one, third), view(&compiled, other, third));
                }
            }
        }
    }

    #[test]
    fn a_reason_agrees_with_the_filter(grants in grants(), nodes in nodes(), port in select(&[22u16, 80, 443][..])) {
        let compiled = build(&grants, &nodes);
        for (from, at) in nodes.iter().flat_map(|from| nodes.iter().map(move |at| (from, at))).filter(|(from, at)| from.id != at.id) {
            let Some((src, dst)) = addresses_of_both(from, at) else {
                continue;
            };
            let packet = Packet { src, dst, port, proto: 6 };
            let admitted = filter_admits(&filter(&compiled, at.id.number()), packet);
            prop_assert_eq!(compiled.why(src, dst, port, 6).allowed(), admitted);
        }
    }

    #[test]
    fn a_reason_names_the_router_that_lets_a_packet_through(grants in grants(), nodes in nodes(), port in select(&[22u16, 80, 443][..])) {
        let compiled = build(&grants, &nodes);
        let outside = ["10.1.4.4", "10.1.9.9", "10.2.2.2", "100.100.0.9", "fd7a:115c:a1e0:b1a:0:7:a01:203", "8.8.8.8", "2606:4700::1"];
        for (from, dst) in nodes.iter().flat_map(|from| outside.map(|dst| (from, dst.parse::<IpAddr>().unwrap()))) {
            let Some(src) = addresses(from).find(|src| src.is_ipv4() == dst.is_ipv4()) else {
                continue;
            };
            let packet = Packet { src, dst, port, proto: 6 };
            let longest = |at: &Node| {
                let view = compiled.routes(from.id, at.id);
                view.allowed.iter().filter(|route| route.contains(&dst)).map(IpNet::prefix_len).max()
            };
            let best = nodes.iter().filter_map(longest).max();
            let routers: Vec<NodeId> = nodes.iter().filter(|at| best.is_some() && longest(at) == best)
                .filter(|at| filter_admits(&filter(&compiled, at.id.number()), packet))
                .map(|at| at.id)
                .collect();
            let why = compiled.why(src, dst, port, 6);
            prop_assert_eq!(why.allowed(), !routers.is_empty(), "{:?}: {:?}, through {:?}", packet, why, routers);
            prop_assert!(!why.allowed() || why.router.is_some_and(|router| routers.contains(&router)));
        }
    }

    #[test]
    fn any_text_is_read_or_refused(text in "[\\[\\]{}\",:/* a-z0-9\\n\\\\]{0,200}") {
        if let Err(faults) = Policy::parse(&text) {
            prop_assert!(!faults.is_empty());
        }
    }
}
