//! Tailnet addresses of nodes: one from each prefix, in sequence, without reserved ranges.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::wan::address::{TAILNET_V4, TAILNET_V6};

/// Address prefixes of the tailnet.
///
/// Both lie within what clients accept as tailnet addresses: `100.64.0.0/10` and
/// `fd7a:115c:a1e0::/48` (`CGNATRange` and `TailscaleULARange` in tailscale `net/tsaddr/tsaddr.go`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefixes {
    v4: Ipv4Addr,
    v4_bits: u8,
    v6: Ipv6Addr,
    v6_bits: u8,
}

/// Prefixes that clients do not accept as tailnet addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPrefix {
    /// The IPv4 prefix is invalid.
    #[error("expected an IPv4 prefix inside 100.64.0.0/10 with at most 30 bits and no host bits")]
    V4,
    /// The IPv6 prefix is invalid.
    #[error(
        "expected an IPv6 prefix inside fd7a:115c:a1e0::/48 with at most 120 bits and no host bits"
    )]
    V6,
}

/// Most prefixes whose last address is remembered: the tailnet's and pools of the policy.
const CURSORS_MAX: usize = 64;

/// The last address that was given out from each prefix. The next one comes after it, so that an address that becomes
/// free is given to nobody else before the rest of its prefix was.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cursors {
    /// First address and bits of an IPv4 prefix, and the last address from it; the prefix used last comes last.
    pub(super) v4: Vec<(Ipv4Addr, u8, Ipv4Addr)>,
    /// The last IPv6 address.
    pub(super) v6: Option<Ipv6Addr>,
}

impl Cursors {
    /// Whether nothing was given out yet.
    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_none()
    }

    /// Notes that a node had these addresses, no matter who chose them: the next ones come after them.
    pub fn pass(&mut self, prefixes: &Prefixes, ipv4: Ipv4Addr, ipv6: Ipv6Addr) {
        let known = self.v4.iter_mut();
        let within = known.filter(|(first, bits, _)| contains_v4((*first, *bits), ipv4));
        match within.max_by_key(|(_, bits, _)| *bits) {
            Some((_, _, last)) => *last = ipv4.max(*last),
            None if prefixes.holds_v4(ipv4) => self.give_v4(prefixes, ipv4),
            None => {}
        }
        if prefixes.holds_v6(ipv6) && self.v6.is_none_or(|last| last < ipv6) {
            self.v6 = Some(ipv6);
        }
    }

    /// Notes that these addresses were given out, the IPv4 address from the prefix of `prefixes`.
    pub fn give(&mut self, prefixes: &Prefixes, ipv4: Ipv4Addr, ipv6: Ipv6Addr) {
        if prefixes.holds_v4(ipv4) {
            self.give_v4(prefixes, ipv4);
        }
        if prefixes.holds_v6(ipv6) {
            self.v6 = Some(ipv6);
        }
    }

    fn give_v4(&mut self, prefixes: &Prefixes, address: Ipv4Addr) {
        let (first, bits) = prefixes.v4();
        self.v4
            .retain(|(known, length, _)| (*known, *length) != (first, bits));
        if self.v4.len() >= CURSORS_MAX {
            self.v4.remove(0);
        }
        self.v4.push((first, bits, address));
    }

    fn last_v4(&self, prefixes: &Prefixes) -> Option<Ipv4Addr> {
        let mut known = self.v4.iter();
        let found = known.find(|(first, bits, _)| (*first, *bits) == prefixes.v4());
        found.map(|(_, _, last)| *last)
    }
}

const CGNAT: Ipv4Addr = TAILNET_V4.addr();
const CGNAT_BITS: u8 = TAILNET_V4.prefix_len();
const ULA: Ipv6Addr = TAILNET_V6.addr();
const ULA_BITS: u8 = TAILNET_V6.prefix_len();

/// IPv4 ranges that are never assigned: the service addresses around 100.100.100.100 and the range
/// that ChromeOS uses for its virtual machines (`ChromeOSVMRange` in tailscale `net/tsaddr/tsaddr.go`).
const RESERVED_V4: [(Ipv4Addr, u8); 2] = [
    (Ipv4Addr::new(100, 100, 100, 0), 24),
    (Ipv4Addr::new(100, 115, 92, 0), 23),
];

/// IPv6 ranges that are never assigned: quad-100's counterpart, 4via6 routes, 4-to-6 addresses and
/// the ephemeral range (`TailscaleServiceIPv6`, `TailscaleViaRange`, `Tailscale4To6Range`,
/// `TailscaleEphemeral6Range` in tailscale `net/tsaddr/tsaddr.go`).
const RESERVED_V6: [(Ipv6Addr, u8); 4] = [
    (Ipv6Addr::new(0xfd7a, 0x115c, 0xa1e0, 0, 0, 0, 0, 0x53), 128),
    (Ipv6Addr::new(0xfd7a, 0x115c, 0xa1e0, 0xb1a, 0, 0, 0, 0), 64),
    (
        Ipv6Addr::new(0xfd7a, 0x115c, 0xa1e0, 0xab12, 0x4843, 0xcd96, 0x6200, 0),
        104,
    ),
    (
        Ipv6Addr::new(0xfd7a, 0x115c, 0xa1e0, 0xefe3, 0, 0, 0, 0),
        64,
    ),
];

impl Default for Prefixes {
    fn default() -> Self {
        Self {
            v4: CGNAT,
            v4_bits: CGNAT_BITS,
            v6: ULA,
            v6_bits: ULA_BITS,
        }
    }
}

impl Prefixes {
    /// The IPv4 prefix: its first address and its length in bits.
    pub fn v4(&self) -> (Ipv4Addr, u8) {
        (self.v4, self.v4_bits)
    }

    /// The IPv6 prefix: its first address and its length in bits.
    pub fn v6(&self) -> (Ipv6Addr, u8) {
        (self.v6, self.v6_bits)
    }

    /// Prefixes for a tailnet, if clients accept both.
    ///
    /// # Errors
    /// Names the invalid prefix.
    pub fn new(v4: (Ipv4Addr, u8), v6: (Ipv6Addr, u8)) -> Result<Self, InvalidPrefix> {
        let v4_fits = (CGNAT_BITS..=30).contains(&v4.1)
            && contains_v4((CGNAT, CGNAT_BITS), v4.0)
            && u32::from(v4.0) & host_mask_v4(v4.1) == 0;
        let v6_fits = (ULA_BITS..=120).contains(&v6.1)
            && contains_v6((ULA, ULA_BITS), v6.0)
            && u128::from(v6.0) & host_mask_v6(v6.1) == 0;
        if !v4_fits {
            return Err(InvalidPrefix::V4);
        }
        if !v6_fits {
            return Err(InvalidPrefix::V6);
        }
        Ok(Self {
            v4: v4.0,
            v4_bits: v4.1,
            v6: v6.0,
            v6_bits: v6.1,
        })
    }

    /// These prefixes with another IPv4 prefix. The caller has checked that it is inside `100.64.0.0/10`.
    pub fn with_v4(self, prefix: ipnet::Ipv4Net) -> Self {
        Self {
            v4: prefix.network(),
            v4_bits: prefix.prefix_len(),
            ..self
        }
    }

    /// Whether the IPv4 prefix contains this address.
    pub fn holds_v4(&self, address: Ipv4Addr) -> bool {
        contains_v4((self.v4, self.v4_bits), address)
    }

    /// Whether the IPv6 prefix contains this address.
    pub fn holds_v6(&self, address: Ipv6Addr) -> bool {
        contains_v6((self.v6, self.v6_bits), address)
    }

    /// Whether a node can be given this address: any that clients accept as a tailnet address, not only
    /// those of the configured prefix.
    pub fn accepts_v4(&self, address: Ipv4Addr) -> bool {
        contains_v4((CGNAT, CGNAT_BITS), address) && reserved_end_v4(address).is_none()
    }

    /// Whether a node can be given this IPv6 address, by the same rule.
    pub fn accepts_v6(&self, address: Ipv6Addr) -> bool {
        contains_v6((ULA, ULA_BITS), address) && reserved_end_v6(address).is_none()
    }

    /// The next free IPv4 address: after the last one that was given out (else the highest in use) or, at the end of the
    /// prefix, the lowest free one; `None` if the prefix is full. Network and broadcast address stay unused.
    pub fn next_v4(
        &self,
        used: impl Iterator<Item = Ipv4Addr>,
        cursors: &Cursors,
    ) -> Option<Ipv4Addr> {
        let after = cursors.last_v4(self).map(|last| u32::from(last).into());
        let first = u32::from(self.v4).saturating_add(1);
        let last = (u32::from(self.v4) | host_mask_v4(self.v4_bits)).saturating_sub(1);
        let used = used
            .map(u32::from)
            .filter(|address| (first..=last).contains(address));
        let reserved = |address: u32| reserved_end_v4(address.into());
        let range = (first.into(), last.into());
        next(range, after, used.map(u128::from), |address| {
            reserved(u32::try_from(address).unwrap_or(u32::MAX)).map(u128::from)
        })
        .and_then(|address| u32::try_from(address).ok())
        .map(Ipv4Addr::from)
    }

    /// The next free IPv6 address, by the same rule.
    pub fn next_v6(
        &self,
        used: impl Iterator<Item = Ipv6Addr>,
        cursors: &Cursors,
    ) -> Option<Ipv6Addr> {
        let after = cursors.v6.map(u128::from);
        let first = u128::from(self.v6).saturating_add(1);
        let last = (u128::from(self.v6) | host_mask_v6(self.v6_bits)).saturating_sub(1);
        let used = used
            .map(u128::from)
            .filter(|address| (first..=last).contains(address));
        let reserved = |address: u128| reserved_end_v6(address.into());
        next((first, last), after, used, reserved).map(Ipv6Addr::from)
    }
}

/// The next free address of a range. `reserved` returns the end of the reserved range that contains an address, if there
/// is one.
fn next(
    (first, last): (u128, u128),
    after: Option<u128>,
    used: impl Iterator<Item = u128>,
    reserved: impl Fn(u128) -> Option<u128>,
) -> Option<u128> {
    let mut used: Vec<u128> = used.collect();
    used.sort_unstable();
    let after = after.filter(|after| (first..=last).contains(after));
    let after = after.or(used.last().copied());
    let begin = after.map_or(first, |after| after.saturating_add(1));
    let search = |mut candidate: u128| {
        while candidate <= last {
            if let Some(end) = reserved(candidate) {
                candidate = end.saturating_add(1);
            } else if used.binary_search(&candidate).is_ok() {
                candidate = candidate.saturating_add(1);
            } else {
                return Some(candidate);
            }
        }
        None
    };
    search(begin).or_else(|| search(first))
}

fn host_mask_v4(bits: u8) -> u32 {
    u32::MAX.checked_shr(bits.into()).unwrap_or(0)
}

fn host_mask_v6(bits: u8) -> u128 {
    u128::MAX.checked_shr(bits.into()).unwrap_or(0)
}

fn contains_v4((base, bits): (Ipv4Addr, u8), address: Ipv4Addr) -> bool {
    (u32::from(base) ^ u32::from(address)) & !host_mask_v4(bits) == 0
}

fn contains_v6((base, bits): (Ipv6Addr, u8), address: Ipv6Addr) -> bool {
    (u128::from(base) ^ u128::from(address)) & !host_mask_v6(bits) == 0
}

fn reserved_end_v4(address: Ipv4Addr) -> Option<u32> {
    let range = RESERVED_V4
        .into_iter()
        .find(|range| contains_v4(*range, address))?;
    Some(u32::from(range.0) | host_mask_v4(range.1))
}

fn reserved_end_v6(address: Ipv6Addr) -> Option<u128> {
    let range = RESERVED_V6
        .into_iter()
        .find(|range| contains_v6(*range, address))?;
    Some(u128::from(range.0) | host_mask_v6(range.1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_come_in_sequence() {
        let prefixes = Prefixes::default();
        assert_eq!(
            prefixes.next_v4([].into_iter(), &Cursors::default()),
            Some(Ipv4Addr::new(100, 64, 0, 1))
        );
        let used = [Ipv4Addr::new(100, 64, 0, 1), Ipv4Addr::new(100, 64, 0, 9)];
        assert_eq!(
            prefixes.next_v4(used.into_iter(), &Cursors::default()),
            Some(Ipv4Addr::new(100, 64, 0, 10))
        );
        assert_eq!(
            prefixes.next_v6([].into_iter(), &Cursors::default()),
            "fd7a:115c:a1e0::1".parse().ok()
        );
    }

    #[test]
    fn reserved_ranges_are_left_out() {
        let prefixes = Prefixes::default();
        let before = |text: &str| text.parse::<Ipv4Addr>().into_iter();
        assert_eq!(
            prefixes.next_v4(before("100.100.99.255"), &Cursors::default()),
            "100.100.101.0".parse().ok()
        );
        assert_eq!(
            prefixes.next_v4(before("100.115.91.255"), &Cursors::default()),
            "100.115.94.0".parse().ok()
        );
        let before = |text: &str| text.parse::<Ipv6Addr>().into_iter();
        assert_eq!(
            prefixes.next_v6(before("fd7a:115c:a1e0::52"), &Cursors::default()),
            "fd7a:115c:a1e0::54".parse().ok()
        );
        let via = before("fd7a:115c:a1e0:b19:ffff:ffff:ffff:ffff");
        assert_eq!(
            prefixes.next_v6(via, &Cursors::default()),
            "fd7a:115c:a1e0:b1b::".parse().ok()
        );
    }

    #[test]
    fn a_full_prefix_gives_gaps_and_then_nothing() {
        let prefixes = Prefixes::new((Ipv4Addr::new(100, 64, 7, 0), 30), (ULA, ULA_BITS)).unwrap();
        let one = Ipv4Addr::new(100, 64, 7, 1);
        let two = Ipv4Addr::new(100, 64, 7, 2);
        assert_eq!(
            prefixes.next_v4([two].into_iter(), &Cursors::default()),
            Some(one)
        );
        assert_eq!(
            prefixes.next_v4([one, two].into_iter(), &Cursors::default()),
            None
        );
    }

    #[test]
    fn foreign_prefixes_are_refused() {
        let v6 = (ULA, ULA_BITS);
        let outside = (Ipv4Addr::new(10, 0, 0, 0), 8);
        assert_eq!(Prefixes::new(outside, v6), Err(InvalidPrefix::V4));
        let host_bits = (Ipv4Addr::new(100, 64, 0, 1), 24);
        assert_eq!(Prefixes::new(host_bits, v6), Err(InvalidPrefix::V4));
        let wide = (Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0), 8);
        assert_eq!(Prefixes::new((CGNAT, 10), wide), Err(InvalidPrefix::V6));
    }
}
