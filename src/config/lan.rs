//! The LAN address of this machine.

use std::net::{IpAddr, Ipv4Addr};

use crate::interfaces::{self, Interfaces};
use hearth_core::wan::address::{Kind, is_cgnat, is_tailnet_interface, kind_of};

/// The LAN bridge on OpenWrt.
const HOME_BRIDGE: &str = "br-lan";

/// Interfaces of containers and virtual machines: private, but unreachable from the LAN.
const VIRTUAL: [&str; 6] = ["docker", "br-", "veth", "virbr", "lxc", "podman"];

/// An IPv4 address of an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalAddress {
    /// Name of the interface.
    pub interface: String,
    /// The address.
    pub address: Ipv4Addr,
}

impl LocalAddress {
    fn is_virtual(&self) -> bool {
        let mut prefixes = VIRTUAL.iter();
        prefixes.any(|prefix| self.interface.starts_with(prefix))
    }
}

/// The IPv4 addresses of this machine.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Network {
    /// All IPv4 addresses.
    pub addresses: Vec<LocalAddress>,
    /// The source address of packets on the default route.
    pub route_source: Option<Ipv4Addr>,
}

impl Network {
    /// Asks the kernel. A failure counts as having no addresses.
    pub fn of_this_machine() -> Self {
        let system = Interfaces::read().unwrap_or_default();
        let addresses = system.table.addresses.iter();
        let addresses = addresses.filter_map(|address| match address.ip {
            IpAddr::V4(ip) => Some(LocalAddress {
                interface: system.name(address.interface).to_owned(),
                address: ip,
            }),
            IpAddr::V6(_) => None,
        });
        Self {
            addresses: addresses.collect(),
            route_source: interfaces::route_sources().v4,
        }
    }

    /// The private address that other machines on the LAN most likely reach: that of `br-lan`, else the
    /// one of the default route, else the first private one of a physical interface; `None` without a
    /// private address.
    pub fn home_address(&self) -> Option<Ipv4Addr> {
        let private = || {
            self.addresses
                .iter()
                .filter(|local| kind_of(local.address.into()) == Kind::Private)
        };
        let bridge = private().find(|local| local.interface == HOME_BRIDGE);
        let route = private().find(|local| Some(local.address) == self.route_source);
        let real = private().find(|local| !local.is_virtual());
        bridge
            .or(route)
            .or(real)
            .or_else(|| private().next())
            .map(|local| local.address)
    }

    /// Like [`home_address`](Self::home_address), for a machine whose address was `current`: that is kept as long as a
    /// physical interface has it, so that a VPN that comes and goes changes nothing.
    pub fn home_address_after(&self, current: Option<Ipv4Addr>) -> Option<Ipv4Addr> {
        let is_bridged = self
            .addresses
            .iter()
            .any(|local| local.interface == HOME_BRIDGE);
        let kept = self.addresses.iter().find(|local| {
            let is_private = kind_of(local.address.into()) == Kind::Private;
            Some(local.address) == current && is_private && !local.is_virtual()
        });
        kept.filter(|_| !is_bridged)
            .map(|local| local.address)
            .or_else(|| self.home_address())
    }

    /// A CGNAT address of this machine, which the ISP assigned; tailnets use the same range.
    pub fn carrier_address(&self) -> Option<&LocalAddress> {
        self.addresses
            .iter()
            .find(|local| is_cgnat(local.address) && !is_tailnet_interface(&local.interface))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(addresses: &[(&str, [u8; 4])], route_source: Option<[u8; 4]>) -> Network {
        Network {
            addresses: addresses
                .iter()
                .map(|(interface, address)| LocalAddress {
                    interface: (*interface).into(),
                    address: (*address).into(),
                })
                .collect(),
            route_source: route_source.map(Ipv4Addr::from),
        }
    }

    const LOOPBACK: (&str, [u8; 4]) = ("lo", [127, 0, 0, 1]);

    #[test]
    fn the_lan_bridge_comes_before_the_default_route() {
        let router = network(
            &[
                LOOPBACK,
                ("wan", [10, 1, 2, 3]),
                ("br-lan", [192, 168, 1, 1]),
            ],
            Some([10, 1, 2, 3]),
        );
        assert_eq!(router.home_address(), Some([192, 168, 1, 1].into()));
    }

    #[test]
    fn the_default_route_comes_before_the_first_interface() {
        let pi = network(
            &[LOOPBACK, ("eth0", [10, 0, 0, 2]), ("wlan0", [10, 0, 1, 2])],
            Some([10, 0, 1, 2]),
        );
        assert_eq!(pi.home_address(), Some([10, 0, 1, 2].into()));
    }

    #[test]
    fn without_a_route_a_physical_interface_comes_before_a_virtual_one() {
        let box_ = network(
            &[
                LOOPBACK,
                ("docker0", [172, 17, 0, 1]),
                ("eth0", [192, 168, 7, 2]),
            ],
            None,
        );
        assert_eq!(box_.home_address(), Some([192, 168, 7, 2].into()));
        let only_virtual = network(&[LOOPBACK, ("docker0", [172, 17, 0, 1])], None);
        assert_eq!(only_virtual.home_address(), Some([172, 17, 0, 1].into()));
    }

    #[test]
    fn an_address_in_use_is_kept_until_it_is_lost_or_the_lan_bridge_comes() {
        let (eth, vpn) = (("eth0", [192, 168, 1, 31]), ("wg0", [10, 9, 0, 2]));
        let docker = ("docker0", [172, 17, 0, 1]);
        let current = Some(Ipv4Addr::from(eth.1));
        let after = |network: Network, current| network.home_address_after(current);
        assert_eq!(after(network(&[LOOPBACK], None), None), None);
        assert_eq!(after(network(&[LOOPBACK, eth], None), None), current);
        assert_eq!(after(network(&[eth, vpn], Some(vpn.1)), current), current);
        assert_eq!(
            after(network(&[vpn], Some(vpn.1)), current),
            Some(vpn.1.into())
        );
        let bridge = ("br-lan", [192, 168, 8, 1]);
        assert_eq!(
            after(network(&[eth, bridge], None), current),
            Some(bridge.1.into())
        );
        // One of a container is replaced as soon as there is a better one.
        assert_eq!(
            after(network(&[docker, eth], None), Some(docker.1.into())),
            current
        );
    }

    #[test]
    fn the_cgnat_address_of_the_isp_is_not_confused_with_the_tailnets() {
        let own = ("tailscale0", [100, 64, 0, 1]);
        assert_eq!(network(&[LOOPBACK, own], None).carrier_address(), None);
        let behind_nat = network(&[LOOPBACK, own, ("wan", [100, 71, 2, 3])], None);
        let found = behind_nat.carrier_address().unwrap();
        assert_eq!(found.interface, "wan");
    }

    #[test]
    fn public_and_tailnet_addresses_are_not_lan_addresses() {
        let vps = network(
            &[
                LOOPBACK,
                ("eth0", [203, 0, 113, 5]),
                ("tailscale0", [100, 64, 0, 1]),
            ],
            Some([203, 0, 113, 5]),
        );
        assert_eq!(vps.home_address(), None);
    }
}
