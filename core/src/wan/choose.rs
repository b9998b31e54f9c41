//! Which of the machine's addresses is the one outside.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::wan::address::{Addresses, Kind, kind_of};
use crate::wan::netlink::{Address, DefaultRoute, Table};

/// Interfaces of the tailnet itself, should a client run here as well.
const TAILNET: &str = "tailscale";

/// What the machine has outside.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outer {
    /// The interface of the default route, that of IPv4 if there are two; empty when there is none.
    pub interface: String,
    /// The addresses, of whatever kind.
    pub addresses: Addresses,
    /// All lasting addresses of the machine.
    pub all: Vec<IpAddr>,
    /// Whether there is a way to everywhere.
    pub has_route: bool,
    /// The router in front.
    pub gateway: Option<IpAddr>,
}

/// Finds the addresses outside. `names` are those of the interfaces by number, and `wanted` is the name of
/// the interface that the owner chose.
///
/// IPv4: the source of the best default route, or the address in the network of the router that it leads to, or
/// the first address of its interface; of several default
/// routes the first with a public address comes before others, since a VPN may be the best way out but never
/// the way in. IPv6: the same, and where the interface outside has only addresses of the wire, as with a
/// prefix that a provider delegates, a public one of any other interface.
pub fn choose(table: &Table, names: &BTreeMap<u32, String>, wanted: Option<&str>) -> Outer {
    let name = |interface: u32| names.get(&interface).map_or("", String::as_str);
    let is_meant = |interface: u32| match wanted {
        Some(wanted) => name(interface) == wanted,
        None => !name(interface).starts_with(TAILNET),
    };
    let lasting: Vec<&Address> = (table.addresses.iter())
        .filter(|address| address.is_lasting)
        .collect();
    let mut routes: Vec<&DefaultRoute> = (table.routes.iter())
        .filter(|route| is_meant(route.interface))
        .collect();
    routes.sort_by_key(|route| route.metric);

    let on = |interface: u32, is_v6: bool| {
        let there = lasting
            .iter()
            .filter(move |address| address.interface == interface && address.ip.is_ipv6() == is_v6);
        there.map(|address| address.ip)
    };
    let of_route = |route: &DefaultRoute| {
        let source = route.source.filter(|source| {
            let mut there = on(route.interface, route.is_v6);
            there.any(|ip| ip == *source)
        });
        // This is how the kernel chooses; source: `fib_info_update_nhc_saddr` in Linux `net/ipv4/fib_semantics.c`.
        let beside = route.gateway.and_then(|gateway| {
            let mut there = lasting.iter().filter(|address| {
                let network = IpNet::new(address.ip, address.prefix);
                address.interface == route.interface
                    && network.is_ok_and(|network| network.contains(&gateway))
            });
            there.next().map(|address| address.ip)
        });
        let best = on(route.interface, route.is_v6).min_by_key(|ip| rank(*ip));
        Some((route.interface, source.or(beside).or(best)?))
    };
    let of_family = |is_v6: bool| {
        let found: Vec<(u32, IpAddr)> = (routes.iter())
            .filter(|route| route.is_v6 == is_v6)
            .filter_map(|route| of_route(route))
            .collect();
        let public = found.iter().find(|(_, ip)| kind_of(*ip) == Kind::Public);
        public.or(found.first()).copied()
    };
    let has_v6_route = routes.iter().any(|route| route.is_v6);
    let delegated = || {
        let there = lasting.iter().filter(|address| {
            address.ip.is_ipv6()
                && kind_of(address.ip) == Kind::Public
                && !name(address.interface).starts_with(TAILNET)
        });
        // The owner's choice is of the interface outside, where such an address is not.
        let first = has_v6_route.then(|| there.into_iter().next()).flatten();
        first.map(|address| (address.interface, address.ip))
    };
    let v4 = of_family(false).or_else(|| {
        // A chosen interface counts without a route too: another one may be the way out for now.
        let of_name = |address: &&&Address| {
            wanted.is_some() && is_meant(address.interface) && address.ip.is_ipv4()
        };
        let there = lasting.iter().find(of_name);
        there.map(|address| (address.interface, address.ip))
    });
    let v6 = of_family(true)
        .filter(|(_, ip)| kind_of(*ip) == Kind::Public)
        .or_else(delegated);
    let route = routes.iter().find(|route| !route.is_v6).or(routes.first());
    let interface = v4.map(|(interface, _)| interface);
    let interface = interface.or(route.map(|route| route.interface));
    Outer {
        interface: interface.map_or("", name).to_owned(),
        addresses: Addresses {
            v4: v4.and_then(|(_, ip)| match ip {
                IpAddr::V4(ip) => Some(ip),
                IpAddr::V6(_) => None,
            }),
            v6: v6.and_then(|(_, ip)| match ip {
                IpAddr::V6(ip) => Some(ip),
                IpAddr::V4(_) => None,
            }),
        },
        all: lasting.iter().map(|address| address.ip).collect(),
        has_route: !routes.is_empty(),
        gateway: (routes.iter())
            .find(|route| !route.is_v6 && Some(route.interface) == interface)
            .and_then(|route| route.gateway),
    }
}

/// Lower is better; the order of the kernel decides between equals.
fn rank(ip: IpAddr) -> u8 {
    match kind_of(ip) {
        Kind::Public => 0,
        Kind::Carrier => 1,
        Kind::Private => 2,
        Kind::Local => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAN: u32 = 2;
    const LAN: u32 = 3;
    const VPN: u32 = 4;
    const TAIL: u32 = 5;

    fn names() -> BTreeMap<u32, String> {
        let names = [
            (WAN, "wan"),
            (LAN, "br-lan"),
            (VPN, "wg0"),
            (TAIL, "tailscale0"),
        ];
        names.map(|(number, name)| (number, name.to_owned())).into()
    }

    fn address(interface: u32, ip: &str) -> Address {
        Address {
            interface,
            ip: ip.parse().unwrap(),
            prefix: 24,
            is_lasting: true,
        }
    }

    fn route(interface: u32, metric: u32, is_v6: bool) -> DefaultRoute {
        DefaultRoute {
            is_v6,
            interface,
            metric,
            source: None,
            gateway: None,
        }
    }

    fn texts(outer: &Outer) -> Vec<String> {
        outer.addresses.iter().map(|ip| ip.to_string()).collect()
    }

    #[test]
    fn a_router_has_its_ipv4_outside_and_its_ipv6_in_a_delegated_prefix() {
        let table = Table {
            addresses: vec![
                address(LAN, "192.168.1.1"),
                address(WAN, "203.0.113.5"),
                Address {
                    is_lasting: false,
                    ..address(LAN, "2001:db8::bad")
                },
                address(LAN, "fd00::1"),
                address(LAN, "2001:db8:1::1"),
                address(TAIL, "100.64.0.1"),
            ],
            routes: vec![route(WAN, 0, false), route(WAN, 512, true)],
        };
        let outer = choose(&table, &names(), None);
        assert_eq!(texts(&outer), ["203.0.113.5", "2001:db8:1::1"]);
        assert_eq!((outer.interface.as_str(), outer.has_route), ("wan", true));
        assert_eq!(outer.all.len(), 5);
    }

    #[test]
    fn a_vpn_that_is_the_way_out_is_not_the_way_in() {
        let table = Table {
            addresses: vec![address(VPN, "10.8.0.2"), address(WAN, "203.0.113.5")],
            routes: vec![route(VPN, 0, false), route(WAN, 100, false)],
        };
        assert_eq!(texts(&choose(&table, &names(), None)), ["203.0.113.5"]);
        let chosen = choose(&table, &names(), Some("wg0"));
        assert_eq!(texts(&chosen), ["10.8.0.2"]);
    }

    #[test]
    fn an_address_behind_nat_is_found_as_what_it_is() {
        let table = Table {
            addresses: vec![address(WAN, "192.168.178.20"), address(LAN, "192.168.1.1")],
            routes: vec![route(WAN, 0, false)],
        };
        let outer = choose(&table, &names(), None);
        assert_eq!(texts(&outer), ["192.168.178.20"]);
        assert!(outer.addresses.public().is_empty());
    }

    #[test]
    fn the_source_of_the_route_comes_before_other_addresses() {
        let mut by_route = route(WAN, 0, false);
        by_route.source = "203.0.113.6".parse().ok();
        let mut table = Table {
            addresses: vec![address(WAN, "203.0.113.5"), address(WAN, "203.0.113.6")],
            routes: vec![by_route],
        };
        assert_eq!(texts(&choose(&table, &names(), None)), ["203.0.113.6"]);
        // A source that is not there any more counts for nothing.
        table.addresses.pop();
        assert_eq!(texts(&choose(&table, &names(), None)), ["203.0.113.5"]);
    }

    #[test]
    fn of_two_addresses_the_one_beside_the_router_counts() {
        let mut by_route = route(WAN, 0, false);
        by_route.gateway = "198.51.100.254".parse().ok();
        let table = Table {
            addresses: vec![address(WAN, "203.0.113.5"), address(WAN, "198.51.100.7")],
            routes: vec![by_route],
        };
        assert_eq!(texts(&choose(&table, &names(), None)), ["198.51.100.7"]);
    }

    #[test]
    fn without_a_route_there_is_nothing_outside() {
        let table = Table {
            addresses: vec![address(LAN, "192.168.1.1"), address(LAN, "2001:db8::1")],
            routes: Vec::new(),
        };
        let outer = choose(&table, &names(), None);
        assert!(outer.addresses.is_empty() && !outer.has_route && outer.interface.is_empty());
        assert_eq!(
            texts(&choose(&table, &names(), Some("br-lan"))),
            ["192.168.1.1"]
        );
    }

    #[test]
    fn the_tailnet_is_never_outside() {
        let table = Table {
            addresses: vec![address(TAIL, "100.64.0.1"), address(TAIL, "2001:db8::1")],
            routes: vec![route(TAIL, 0, false), route(TAIL, 0, true)],
        };
        let outer = choose(&table, &names(), None);
        assert!(outer.addresses.is_empty());
    }
}
