//! Kinds of addresses: public, private, CGNAT, local; and the prefixes of tailnets.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::{Ipv4Net, Ipv6Net};

/// IPv4 addresses of tailnets, which ISPs also use for CGNAT (RFC 6598).
/// Source: `CGNATRange` in tailscale `net/tsaddr/tsaddr.go`.
pub const TAILNET_V4: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(100, 64, 0, 0), 10);

/// IPv6 addresses of tailnets. Source: `TailscaleULARange` in tailscale `net/tsaddr/tsaddr.go`.
pub const TAILNET_V6: Ipv6Net =
    Ipv6Net::new_assert(Ipv6Addr::new(0xfd7a, 0x115c, 0xa1e0, 0, 0, 0, 0, 0), 48);

/// Prefix of the names of interfaces of a Tailscale client.
const TAILNET_INTERFACE: &str = "tailscale";

/// At most one address of each family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Addresses {
    /// IPv4.
    pub v4: Option<Ipv4Addr>,
    /// IPv6.
    pub v6: Option<Ipv6Addr>,
}

impl Addresses {
    /// All addresses, IPv4 first.
    pub fn iter(self) -> impl Iterator<Item = IpAddr> {
        let v4 = self.v4.map(IpAddr::V4);
        v4.into_iter().chain(self.v6.map(IpAddr::V6))
    }

    /// Whether there are no addresses.
    pub fn is_empty(self) -> bool {
        self == Self::default()
    }

    /// The public ones.
    pub fn public(self) -> Self {
        Self {
            v4: self.v4.filter(|ip| kind_of((*ip).into()) == Kind::Public),
            v6: self.v6.filter(|ip| kind_of((*ip).into()) == Kind::Public),
        }
    }

    /// These addresses, and those of `other` for families without one.
    pub fn or(self, other: Self) -> Self {
        Self {
            v4: self.v4.or(other.v4),
            v6: self.v6.or(other.v6),
        }
    }
}

/// The kind of an address: who can reach it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Anyone, unless a firewall blocks it.
    Public,
    /// Machines on the same LAN: RFC 1918, or `fc00::/7` (RFC 4193).
    Private,
    /// Nobody from the internet: carrier-grade NAT (RFC 6598), or `192.0.0.0/24` on connections with
    /// IPv4 inside IPv6 (RFC 6333, RFC 7335).
    Carrier,
    /// This machine only, the same link only, or an unreliable tunnel.
    Local,
}

impl Kind {
    /// The word for programs.
    pub fn word(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Private => "private",
            Self::Carrier => "carrier",
            Self::Local => "local",
        }
    }
}

/// The kind of this address.
pub fn kind_of(ip: IpAddr) -> Kind {
    match ip {
        IpAddr::V4(ip) => kind_of_v4(ip),
        IpAddr::V6(ip) => kind_of_v6(ip),
    }
}

/// Whether this is an address for carrier-grade NAT (RFC 6598).
pub fn is_cgnat(ip: Ipv4Addr) -> bool {
    TAILNET_V4.contains(&ip)
}

/// Whether this is an address of this machine or of a machine on its LAN, such as a reverse proxy: nobody can send from
/// it over the internet, so what comes from it is no stranger's. Loopback, private (RFC 1918, RFC 4193) and link-local
/// addresses are; IPv4-mapped ones count as IPv4.
///
/// - CGNAT addresses (RFC 6598) are not: behind such a NAT they belong to other customers of the ISP. On a machine with a
///   Tailscale client they belong to devices that may be anywhere, and so do the IPv6 addresses of tailnets.
/// - Neither are addresses that come from no machine (multicast, unspecified, unassigned) or through a tunnel (6to4,
///   Teredo), which lead anywhere.
pub fn is_near(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_private() || ip.is_link_local(),
        IpAddr::V6(ip) => {
            let is_private = ip.is_unique_local() && !TAILNET_V6.contains(&ip);
            ip.is_loopback() || is_private || ip.is_unicast_link_local()
        }
    }
}

/// IPv4 addresses inside of [`TAILNET_V4`] that no tailnet uses: ChromeOS gives them to virtual machines, whose clients
/// report them. Source: `ChromeOSVMRange` in tailscale `net/tsaddr/tsaddr.go`.
const CHROME_OS: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(100, 115, 92, 0), 23);

/// Whether another machine can send to this endpoint of a node: the one rule for what nodes report and for what peers are
/// sent. Not one without an address or a port, of the own machine, of many machines, of the same link by IPv6 (which
/// needs a zone), and not one inside a tailnet, which would lead through the very tunnel that it is for. Clients report
/// none of these. Source: `LocalAddresses` in tailscale `net/netmon/state.go`.
pub fn is_endpoint(endpoint: SocketAddr) -> bool {
    let has_zone = match endpoint {
        SocketAddr::V4(_) => false,
        SocketAddr::V6(endpoint) => endpoint.scope_id() != 0,
    };
    let is_address = match endpoint.ip().to_canonical() {
        IpAddr::V4(ip) => {
            let is_nowhere = ip.octets().first() == Some(&0) || ip.is_broadcast();
            let is_tailnet = is_cgnat(ip) && !CHROME_OS.contains(&ip);
            !is_nowhere && !ip.is_loopback() && !ip.is_multicast() && !is_tailnet
        }
        IpAddr::V6(ip) => {
            let is_nowhere = ip.is_unspecified() || ip.is_unicast_link_local();
            !is_nowhere && !ip.is_loopback() && !ip.is_multicast() && !TAILNET_V6.contains(&ip)
        }
    };
    is_address && !has_zone && endpoint.port() != 0
}

/// Whether this is an interface of a Tailscale client on this machine.
pub fn is_tailnet_interface(name: &str) -> bool {
    name.starts_with(TAILNET_INTERFACE)
}

/// A prefix for nodes that does not contain this CGNAT address: far from the network of the ISP, whatever its
/// size, and from the ranges that are never assigned.
pub fn prefix_without(address: Ipv4Addr) -> &'static str {
    match address.octets() {
        [_, second, ..] if second < 96 => "100.112.0.0/16",
        _ => "100.80.0.0/16",
    }
}

fn kind_of_v4(ip: Ipv4Addr) -> Kind {
    let [first, second, third, _] = ip.octets();
    let is_carrier = is_cgnat(ip) || [first, second, third] == [192, 0, 0];
    let is_odd = ip.is_loopback() || ip.is_link_local() || first == 0 || first >= 224;
    match ip {
        _ if is_carrier => Kind::Carrier,
        _ if is_odd => Kind::Local,
        ip if ip.is_private() => Kind::Private,
        _ => Kind::Public,
    }
}

fn kind_of_v6(ip: Ipv6Addr) -> Kind {
    let [first, second, ..] = ip.segments();
    // 6to4 (RFC 7526 retired it) and Teredo (RFC 4380).
    let is_tunnel = first == 0x2002 || (first, second) == (0x2001, 0);
    match first {
        _ if is_tunnel => Kind::Local,
        // RFC 4291 section 2.4: the range that is assigned so far.
        first if first & 0xe000 == 0x2000 => Kind::Public,
        first if first & 0xfe00 == 0xfc00 => Kind::Private,
        _ => Kind::Local,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_range_has_its_kind() {
        for (text, kind) in [
            ("203.0.113.5", Kind::Public),
            ("100.63.255.255", Kind::Public),
            ("100.64.0.1", Kind::Carrier),
            ("100.127.255.255", Kind::Carrier),
            ("100.128.0.1", Kind::Public),
            ("192.0.0.2", Kind::Carrier),
            ("192.168.1.1", Kind::Private),
            ("172.16.0.1", Kind::Private),
            ("172.32.0.1", Kind::Public),
            ("10.9.8.7", Kind::Private),
            ("169.254.1.1", Kind::Local),
            ("127.0.0.1", Kind::Local),
            ("0.0.0.0", Kind::Local),
            ("224.0.0.1", Kind::Local),
            ("255.255.255.255", Kind::Local),
            ("2001:db8::1", Kind::Public),
            ("2001:0:1::1", Kind::Local),
            ("2002:cb00:7105::1", Kind::Local),
            ("2a01::1", Kind::Public),
            ("fd7a:115c:a1e0::1", Kind::Private),
            ("fe80::1", Kind::Local),
            ("::1", Kind::Local),
            ("::ffff:203.0.113.5", Kind::Local),
        ] {
            assert_eq!(kind_of(text.parse().unwrap()), kind, "{text}");
        }
    }

    #[test]
    fn addresses_that_strangers_can_have_are_not_near() {
        for text in [
            "127.0.0.1",
            "127.0.0.7",
            "10.9.8.7",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.1.1",
            "::1",
            "fd00::1",
            "fc00::1",
            "fe80::1",
            "::ffff:192.168.1.1",
        ] {
            assert!(is_near(text.parse().unwrap()), "{text}");
        }
        for text in [
            "203.0.113.5",
            "100.64.0.1",
            "100.127.255.255",
            "192.0.0.2",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "172.32.0.1",
            "2001:db8::1",
            "fd7a:115c:a1e0::1",
            "2002:c0a8:101::1",
            "2001:0:1::1",
            "4000::1",
            "ff02::1",
            "::",
            "::ffff:203.0.113.5",
            "::ffff:100.64.0.1",
        ] {
            assert!(!is_near(text.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn endpoints_that_no_other_machine_can_send_to_are_not_endpoints() {
        for text in [
            "0.0.0.0:1",
            "0.1.2.3:1",
            "127.0.0.1:1",
            "127.255.255.254:1",
            "255.255.255.255:1",
            "224.0.0.1:1",
            "239.255.255.255:1",
            "100.64.0.1:1",
            "100.100.100.100:1",
            "100.127.255.255:1",
            "192.168.1.1:0",
            "[::]:1",
            "[::1]:1",
            "[ff02::1]:1",
            "[fe80::1]:1",
            "[fe80::1%2]:1",
            "[2001:db8::1%2]:1",
            "[fd7a:115c:a1e0::1]:1",
            "[fd7a:115c:a1e0:ab12:4843:cd96:6258:b240]:1",
            "[::ffff:127.0.0.1]:1",
            "[::ffff:100.64.0.1]:1",
            "[::ffff:0.0.0.0]:1",
            "[2001:db8::1]:0",
        ] {
            assert!(!is_endpoint(text.parse().unwrap()), "{text}");
        }
        for text in [
            "192.168.1.1:41641",
            "10.0.0.1:1",
            "172.17.0.1:65535",
            "169.254.7.8:1",
            "203.0.113.5:1",
            "100.63.255.255:1",
            "100.128.0.1:1",
            "100.115.92.3:1",
            "240.0.0.1:1",
            "[2001:db8::1]:1",
            "[fd00::1]:1",
            "[fd7a:115c:a1e1::1]:1",
            "[::ffff:203.0.113.5]:1",
        ] {
            assert!(is_endpoint(text.parse().unwrap()), "{text}");
        }
    }

    proptest::proptest! {
        /// Whatever the address: an endpoint is never in a tailnet, on this machine, or nowhere.
        #[test]
        fn no_endpoint_is_in_a_tailnet_or_on_this_machine(bits: u128, v4: u32, port: u16) {
            for ip in [IpAddr::from(Ipv6Addr::from(bits)), IpAddr::from(Ipv4Addr::from(v4))] {
                if is_endpoint(SocketAddr::new(ip, port)) {
                    let ip = ip.to_canonical();
                    proptest::prop_assert!(port != 0 && !ip.is_loopback() && !ip.is_unspecified());
                    proptest::prop_assert!(!ip.is_multicast());
                    let tailnet = match ip {
                        IpAddr::V4(ip) => TAILNET_V4.contains(&ip) && !CHROME_OS.contains(&ip),
                        IpAddr::V6(ip) => TAILNET_V6.contains(&ip),
                    };
                    proptest::prop_assert!(!tailnet);
                }
            }
            // Within the ranges, which random addresses seldom hit.
            let host = Ipv4Addr::from(u32::from(Ipv4Addr::new(100, 64, 0, 0)) | v4 >> 10);
            let is_chrome_os = CHROME_OS.contains(&host);
            proptest::prop_assert!(is_chrome_os || !is_endpoint((host, port).into()));
            let host = Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 0, 0, 0)) | v4 >> 8);
            proptest::prop_assert!(!is_endpoint((host, port).into()));
            let host = Ipv6Addr::from(u128::from(TAILNET_V6.addr()) | bits >> 48);
            proptest::prop_assert!(!is_endpoint((host, port).into()));
        }
    }

    #[test]
    fn the_suggested_prefix_does_not_contain_the_address() {
        for second in 64..128 {
            let address = Ipv4Addr::new(100, second, 1, 2);
            let prefix: Ipv4Net = prefix_without(address).parse().unwrap();
            assert!(!prefix.contains(&address) && TAILNET_V4.contains(&prefix));
        }
    }

    #[test]
    fn one_family_is_filled_from_elsewhere_without_touching_the_other() {
        let own = Addresses {
            v4: "10.0.0.2".parse().ok(),
            v6: "2001:db8::1".parse().ok(),
        };
        let seen = Addresses {
            v4: "203.0.113.5".parse().ok(),
            v6: "2001:db8::2".parse().ok(),
        };
        let joined = own.public().or(seen);
        let texts: Vec<String> = joined.iter().map(|ip| ip.to_string()).collect();
        assert_eq!(texts, ["203.0.113.5", "2001:db8::1"]);
    }
}
