//! What an address is good for.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// At most one address of each family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Addresses {
    /// IPv4.
    pub v4: Option<Ipv4Addr>,
    /// IPv6.
    pub v6: Option<Ipv6Addr>,
}

impl Addresses {
    /// Both, IPv4 first.
    pub fn iter(self) -> impl Iterator<Item = IpAddr> {
        let v4 = self.v4.map(IpAddr::V4);
        v4.into_iter().chain(self.v6.map(IpAddr::V6))
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self == Self::default()
    }

    /// Those of them that anybody can reach.
    pub fn public(self) -> Self {
        Self {
            v4: self.v4.filter(|ip| kind_of((*ip).into()) == Kind::Public),
            v6: self.v6.filter(|ip| kind_of((*ip).into()) == Kind::Public),
        }
    }

    /// These, and those of `other` for families that have none here.
    pub fn or(self, other: Self) -> Self {
        Self {
            v4: self.v4.or(other.v4),
            v6: self.v6.or(other.v6),
        }
    }
}

/// Who can reach an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Everybody, unless a firewall is in the way.
    Public,
    /// Who is in the same home: RFC 1918, or `fc00::/7` (RFC 4193).
    Private,
    /// Nobody outside: the carrier shares one address between several homes. RFC 6598, and
    /// `192.0.0.0/24` for those who have IPv4 inside IPv6 only (RFC 6333, RFC 7335).
    Carrier,
    /// Nobody else, or only who is on the same wire, or a tunnel that is not to be relied on.
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

/// Who can reach this address.
pub fn kind_of(ip: IpAddr) -> Kind {
    match ip {
        IpAddr::V4(ip) => kind_of_v4(ip),
        IpAddr::V6(ip) => kind_of_v6(ip),
    }
}

fn kind_of_v4(ip: Ipv4Addr) -> Kind {
    let [first, second, third, _] = ip.octets();
    let is_carrier = first == 100 && second & 0xc0 == 64 || [first, second, third] == [192, 0, 0];
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
        // RFC 4291 section 2.4: what is given out so far.
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
