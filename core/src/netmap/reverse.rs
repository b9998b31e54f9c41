//! Reverse DNS zones of address prefixes.

use std::net::{Ipv4Addr, Ipv6Addr};

/// The zones of `in-addr.arpa` (RFC 1035, section 3.5) that make up this prefix, at most 128. `bits` is at least
/// 1, and no bit after the prefix is set.
pub fn zones_v4(first: Ipv4Addr, bits: u8) -> impl Iterator<Item = String> {
    let labels = first.octets().map(u32::from);
    zones(labels, bits, 8, |label| label.to_string()).map(|zone| zone + "in-addr.arpa")
}

/// The same in `ip6.arpa` (RFC 3596, section 2.5): at most 8.
pub fn zones_v6(first: Ipv6Addr, bits: u8) -> impl Iterator<Item = String> {
    let nibbles = |byte: u8| [u32::from(byte >> 4), u32::from(byte & 0xf)];
    let mut labels = [0; 32];
    let all = first.octets().into_iter().flat_map(nibbles);
    labels.iter_mut().zip(all).for_each(|(to, from)| *to = from);
    zones(labels, bits, 4, |label| format!("{label:x}")).map(|zone| zone + "ip6.arpa")
}

/// Zones of a prefix of `bits` bits, with labels of `label_bits` bits; each ends in a dot.
fn zones<const N: usize>(
    labels: [u32; N],
    bits: u8,
    label_bits: u8,
    show: impl Fn(u32) -> String,
) -> impl Iterator<Item = String> {
    let whole = usize::from(bits.saturating_sub(1) / label_bits);
    let in_last = bits.saturating_sub(1) % label_bits;
    let count = 1_u32 << label_bits.saturating_sub(in_last).saturating_sub(1);
    let first = labels.get(whole).copied().unwrap_or_default();
    let parents = labels.into_iter().take(whole).rev();
    let parents: String = parents.map(|label| show(label) + ".").collect();
    let last = first.saturating_add(count);
    (first..last).map(move |label| format!("{}.{parents}", show(label)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(first: [u8; 4], bits: u8) -> Vec<String> {
        zones_v4(first.into(), bits).collect()
    }

    #[test]
    fn a_prefix_is_as_many_zones_as_its_last_label_has_values() {
        let all = v4([100, 64, 0, 0], 10);
        assert_eq!(all.len(), 64);
        assert_eq!(all.first().unwrap(), "64.100.in-addr.arpa");
        assert_eq!(all.last().unwrap(), "127.100.in-addr.arpa");
        assert_eq!(v4([100, 70, 0, 0], 16), ["70.100.in-addr.arpa"]);
        assert_eq!(v4([100, 70, 3, 0], 24), ["3.70.100.in-addr.arpa"]);
        let part = v4([100, 70, 3, 8], 30);
        assert_eq!(part.len(), 4);
        assert_eq!(part.last().unwrap(), "11.3.70.100.in-addr.arpa");
    }

    #[test]
    fn addresses_of_version_6_have_a_label_for_each_four_bits() {
        let zones = |bits| -> Vec<String> {
            let first = "fd7a:115c:a1e0::".parse().unwrap();
            zones_v6(first, bits).collect()
        };
        assert_eq!(zones(48), ["0.e.1.a.c.5.1.1.a.7.d.f.ip6.arpa"]);
        assert_eq!(
            zones(51),
            [
                "0.0.e.1.a.c.5.1.1.a.7.d.f.ip6.arpa",
                "1.0.e.1.a.c.5.1.1.a.7.d.f.ip6.arpa"
            ]
        );
    }
}
