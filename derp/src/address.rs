//! Grouping of client addresses for limits. Does no I/O.

use std::net::IpAddr;

/// The key under which a limit counts a source: its IPv4 address, or its IPv6 /64, which one site
/// usually has to itself. IPv4-mapped addresses count as IPv4; `::1` counts alone.
pub fn source_prefix(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V6(address) if !address.is_loopback() => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::from([a, b, c, d, 0, 0, 0, 0])
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ipv6_is_grouped_by_64_bits_and_ipv4_is_not_grouped() {
        for (source, prefix) in [
            ("192.0.2.1", "192.0.2.1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
            ("::1", "::1"),
        ] {
            let (source, prefix): (IpAddr, IpAddr) =
                (source.parse().unwrap(), prefix.parse().unwrap());
            assert_eq!(source_prefix(source), prefix);
        }
    }
}
