//! Which address of this machine the clients at home can reach.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use ipnet::Ipv4Net;

/// The bridge of the home network on OpenWrt.
const HOME_BRIDGE: &str = "br-lan";

/// Interfaces of containers and virtual machines: private, but nobody at home can reach them.
const VIRTUAL: [&str; 6] = ["docker", "br-", "veth", "virbr", "lxc", "podman"];

/// Interfaces of the tailnet itself, should a client run here as well.
const TAILNET: &str = "tailscale";

/// What carriers give to customers behind their NAT (RFC 6598), and tailnets to their nodes.
const CARRIER: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(100, 64, 0, 0), 10);

/// A documentation address (RFC 5737) that stands for "the internet": nothing is sent to it.
const FAR_AWAY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 9);

/// An IPv4 address of an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalAddress {
    /// Name of the interface.
    pub interface: String,
    /// The address.
    pub address: Ipv4Addr,
}

/// What this machine says about its addresses.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Network {
    /// All IPv4 addresses of the interfaces that are up.
    pub addresses: Vec<LocalAddress>,
    /// The address from which packets leave by the default route.
    pub route_source: Option<Ipv4Addr>,
}

impl Network {
    /// Asks the system. Failure counts as having no address.
    pub fn of_this_machine() -> Self {
        let addresses = if_addrs::get_if_addrs()
            .unwrap_or_default()
            .into_iter()
            .filter_map(|interface| match interface.ip() {
                IpAddr::V4(address) => Some(LocalAddress {
                    interface: interface.name,
                    address,
                }),
                IpAddr::V6(_) => None,
            })
            .collect();
        Self {
            addresses,
            route_source: route_source(),
        }
    }

    /// The private address that other machines at home most likely reach: that of `br-lan`, else the
    /// one of the default route, else the first private one of a real interface; `None` when there
    /// is no private address.
    pub fn home_address(&self) -> Option<Ipv4Addr> {
        let private = || {
            self.addresses
                .iter()
                .filter(|local| local.address.is_private())
        };
        let bridge = private().find(|local| local.interface == HOME_BRIDGE);
        let route = private().find(|local| Some(local.address) == self.route_source);
        let real = private().find(|local| {
            !VIRTUAL
                .iter()
                .any(|prefix| local.interface.starts_with(prefix))
        });
        bridge
            .or(route)
            .or(real)
            .or_else(|| private().next())
            .map(|local| local.address)
    }

    /// An address that a carrier gave to this machine from the range in which tailnets have theirs.
    pub fn carrier_address(&self) -> Option<&LocalAddress> {
        self.addresses
            .iter()
            .find(|local| CARRIER.contains(&local.address) && !local.interface.starts_with(TAILNET))
    }
}

/// Connecting a UDP socket sends nothing, but makes the system choose a route.
fn route_source() -> Option<Ipv4Addr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect(FAR_AWAY).ok()?;
    match socket.local_addr().ok()?.ip() {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
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
    fn the_home_bridge_comes_before_the_default_route() {
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
    fn without_a_route_a_real_interface_comes_before_a_virtual_one() {
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
    fn a_carriers_address_is_told_from_the_tailnets_own() {
        let own = ("tailscale0", [100, 64, 0, 1]);
        assert_eq!(network(&[LOOPBACK, own], None).carrier_address(), None);
        let behind_nat = network(&[LOOPBACK, own, ("wan", [100, 71, 2, 3])], None);
        let found = behind_nat.carrier_address().unwrap();
        assert_eq!(found.interface, "wan");
    }

    #[test]
    fn public_and_tailnet_addresses_are_not_home() {
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
