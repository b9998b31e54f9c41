//! Selection of the WAN interface and its addresses.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::wan::address::{Addresses, Kind, is_tailnet_interface, kind_of};
use crate::wan::netlink::{Address, DefaultRoute, Table};

/// The WAN interface.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WanInterface {
    /// Its name: the interface of the default route, of the IPv4 one if there are two; empty without one.
    pub interface: String,
    /// WAN addresses of any kind.
    pub addresses: Addresses,
    /// All lasting addresses of the machine.
    pub all: Vec<IpAddr>,
    /// Whether there is a default route.
    pub has_route: bool,
    /// The upstream router.
    pub gateway: Option<IpAddr>,
}

/// Selects the WAN interface and its addresses. `names` are the names of interfaces by number; `wanted` is the
/// configured interface.
///
/// IPv4: the source of the best default route, or the address in the network of its gateway, or the first address
/// of its interface. Of several default routes the first with a public address is preferred, because a VPN may be
/// the best route out but never the way in. IPv6: the same; if the WAN interface has only link-local addresses, as
/// with a delegated prefix, a public address of any other interface.
pub fn select_wan(
    table: &Table,
    names: &BTreeMap<u32, String>,
    wanted: Option<&str>,
) -> WanInterface {
    let name = |interface: u32| names.get(&interface).map_or("", String::as_str);
    let is_meant = |interface: u32| match wanted {
        Some(wanted) => name(interface) == wanted,
        None => !is_tailnet_interface(name(interface)),
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
        // As the kernel does; source: `fib_info_update_nhc_saddr` in Linux `net/ipv4/fib_semantics.c`.
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
                && !is_tailnet_interface(name(address.interface))
        });
        // `wanted` does not apply: such an address is not on the WAN interface.
        let first = has_v6_route.then(|| there.into_iter().next()).flatten();
        first.map(|address| (address.interface, address.ip))
    };
    let v4 = of_family(false).or_else(|| {
        // A configured interface needs no route: another one may be the way out for now.
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
    WanInterface {
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

/// Lower is better; ties are decided by the order of the kernel.
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

    fn texts(wan: &WanInterface) -> Vec<String> {
        wan.addresses.iter().map(|ip| ip.to_string()).collect()
    }

    #[test]
    fn a_router_has_a_public_ipv4_and_ipv6_in_a_delegated_prefix() {
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
        let wan = select_wan(&table, &names(), None);
        assert_eq!(texts(&wan), ["203.0.113.5", "2001:db8:1::1"]);
        assert_eq!((wan.interface.as_str(), wan.has_route), ("wan", true));
        assert_eq!(wan.all.len(), 5);
    }

    #[test]
    fn a_vpn_with_the_default_route_is_not_the_wan() {
        let table = Table {
            addresses: vec![address(VPN, "10.8.0.2"), address(WAN, "203.0.113.5")],
            routes: vec![route(VPN, 0, false), route(WAN, 100, false)],
        };
        assert_eq!(texts(&select_wan(&table, &names(), None)), ["203.0.113.5"]);
        let chosen = select_wan(&table, &names(), Some("wg0"));
        assert_eq!(texts(&chosen), ["10.8.0.2"]);
    }

    #[test]
    fn a_private_wan_address_is_found() {
        let table = Table {
            addresses: vec![address(WAN, "192.168.178.20"), address(LAN, "192.168.1.1")],
            routes: vec![route(WAN, 0, false)],
        };
        let wan = select_wan(&table, &names(), None);
        assert_eq!(texts(&wan), ["192.168.178.20"]);
        assert!(wan.addresses.public().is_empty());
    }

    #[test]
    fn the_source_of_the_route_comes_before_other_addresses() {
        let mut by_route = route(WAN, 0, false);
        by_route.source = "203.0.113.6".parse().ok();
        let mut table = Table {
            addresses: vec![address(WAN, "203.0.113.5"), address(WAN, "203.0.113.6")],
            routes: vec![by_route],
        };
        assert_eq!(texts(&select_wan(&table, &names(), None)), ["203.0.113.6"]);
        // A source that no interface has does not count.
        table.addresses.pop();
        assert_eq!(texts(&select_wan(&table, &names(), None)), ["203.0.113.5"]);
    }

    #[test]
    fn of_two_addresses_the_one_in_the_network_of_the_gateway_counts() {
        let mut by_route = route(WAN, 0, false);
        by_route.gateway = "198.51.100.254".parse().ok();
        let table = Table {
            addresses: vec![address(WAN, "203.0.113.5"), address(WAN, "198.51.100.7")],
            routes: vec![by_route],
        };
        assert_eq!(texts(&select_wan(&table, &names(), None)), ["198.51.100.7"]);
    }

    #[test]
    fn without_a_route_there_is_no_wan() {
        let table = Table {
            addresses: vec![address(LAN, "192.168.1.1"), address(LAN, "2001:db8::1")],
            routes: Vec::new(),
        };
        let wan = select_wan(&table, &names(), None);
        assert!(wan.addresses.is_empty() && !wan.has_route && wan.interface.is_empty());
        assert_eq!(
            texts(&select_wan(&table, &names(), Some("br-lan"))),
            ["192.168.1.1"]
        );
    }

    #[test]
    fn the_tailnet_is_never_the_wan() {
        let table = Table {
            addresses: vec![address(TAIL, "100.64.0.1"), address(TAIL, "2001:db8::1")],
            routes: vec![route(TAIL, 0, false), route(TAIL, 0, true)],
        };
        let wan = select_wan(&table, &names(), None);
        assert!(wan.addresses.is_empty());
    }
}
