//! Sources of connections: addresses in two groups.

use std::net::{IpAddr, Ipv6Addr};

/// The source of a connection.
///
/// IPv4: the address is both groups. IPv6: the narrow group is the /64, which one network usually has to itself; the wide
/// group is the /48, which is the most that providers assign to one site. Source: RFC 6177 section 2. IPv4-mapped
/// addresses count as IPv4; `::1` counts alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Source {
    wide: IpAddr,
    narrow: IpAddr,
}

impl Source {
    /// The source of connections from `address`.
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V6(address) if !address.is_loopback() => {
                let [a, b, c, d, ..] = address.segments();
                Self {
                    wide: Ipv6Addr::from([a, b, c, 0, 0, 0, 0, 0]).into(),
                    narrow: Ipv6Addr::from([a, b, c, d, 0, 0, 0, 0]).into(),
                }
            }
            other => Self {
                wide: other,
                narrow: other,
            },
        }
    }

    /// The wide group: the IPv4 address, or the first address of the IPv6 /48.
    pub fn wide(self) -> IpAddr {
        self.wide
    }

    /// The narrow group: the IPv4 address, or the first address of the IPv6 /64.
    pub fn narrow(self) -> IpAddr {
        self.narrow
    }

    /// Whether this is the machine itself: a local proxy, which carries many clients.
    pub fn is_loopback(self) -> bool {
        self.narrow.is_loopback()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ipv6_is_grouped_by_48_and_64_bits_and_ipv4_is_not_grouped() {
        for (address, wide, narrow) in [
            ("192.0.2.1", "192.0.2.1", "192.0.2.1"),
            ("::ffff:192.0.2.1", "192.0.2.1", "192.0.2.1"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1::", "2001:db8:1:2::"),
            ("::1", "::1", "::1"),
        ] {
            let source = Source::of(address.parse().unwrap());
            assert_eq!(source.wide(), wide.parse::<IpAddr>().unwrap());
            assert_eq!(source.narrow(), narrow.parse::<IpAddr>().unwrap());
        }
        assert!(Source::of("::ffff:127.0.0.1".parse().unwrap()).is_loopback());
    }
}
