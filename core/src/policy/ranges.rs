//! Address sets as sorted ranges.

use std::fmt::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// A range of addresses of one family, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Span {
    first: u128,
    last: u128,
}

/// A set of addresses. Ranges neither touch nor overlap.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ranges {
    v4: Vec<Span>,
    v6: Vec<Span>,
}

impl Ranges {
    /// All addresses.
    pub fn everything() -> Self {
        Self::from_nets(&[any_v4(), any_v6()])
    }

    /// The addresses in these prefixes.
    pub fn from_nets(nets: &[IpNet]) -> Self {
        let mut set = Self::default();
        for net in nets {
            set.push(*net);
        }
        set.normalize();
        set
    }

    /// The addresses from first to last; `None` if they are of two families or in the wrong order.
    pub fn between(first: IpAddr, last: IpAddr) -> Option<Self> {
        let mut set = Self::default();
        let spans = match (first, last) {
            (IpAddr::V4(_), IpAddr::V4(_)) => &mut set.v4,
            (IpAddr::V6(_), IpAddr::V6(_)) => &mut set.v6,
            _ => return None,
        };
        let (first, last) = (number(first), number(last));
        spans.push(Span { first, last });
        (first <= last).then_some(set)
    }

    /// Adds a prefix; call [`Self::normalize`] before any query.
    pub fn push(&mut self, net: IpNet) {
        let span = Span {
            first: number(net.network()),
            last: number(net.broadcast()),
        };
        match net {
            IpNet::V4(_) => self.v4.push(span),
            IpNet::V6(_) => self.v6.push(span),
        }
    }

    /// Adds an address; call [`Self::normalize`] before any query.
    pub fn push_address(&mut self, address: IpAddr) {
        self.push(IpNet::from(address));
    }

    /// Adds all of another set; call [`Self::normalize`] before any query.
    pub fn push_all(&mut self, other: &Self) {
        self.v4.extend(&other.v4);
        self.v6.extend(&other.v6);
    }

    /// Sorts the ranges and joins adjacent ones.
    pub fn normalize(&mut self) {
        join(&mut self.v4);
        join(&mut self.v6);
    }

    /// The set without the addresses of another.
    pub fn without(&self, other: &Self) -> Self {
        Self {
            v4: subtract(&self.v4, &other.v4),
            v6: subtract(&self.v6, &other.v6),
        }
    }

    /// Whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }

    /// Whether an address is in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        let number = number(address);
        let spans = match address {
            IpAddr::V4(_) => &self.v4,
            IpAddr::V6(_) => &self.v6,
        };
        find(spans, number).is_some_and(|span| span.first <= number)
    }

    /// Whether any address of a prefix is in it.
    pub fn overlaps(&self, net: IpNet) -> bool {
        let spans = match net {
            IpNet::V4(_) => &self.v4,
            IpNet::V6(_) => &self.v6,
        };
        let last = number(net.broadcast());
        find(spans, number(net.network())).is_some_and(|span| span.first <= last)
    }

    /// Whether any address of another set is in it.
    pub fn meets(&self, other: &Self) -> bool {
        let meets = |mine: &[Span], theirs: &[Span]| {
            theirs
                .iter()
                .any(|span| find(mine, span.first).is_some_and(|found| found.first <= span.last))
        };
        meets(&self.v4, &other.v4) || meets(&self.v6, &other.v6)
    }

    /// Whether another set is a subset.
    pub fn covers(&self, other: &Self) -> bool {
        let covers = |mine: &[Span], theirs: &[Span]| {
            theirs.iter().all(|span| {
                find(mine, span.first)
                    .is_some_and(|found| found.first <= span.first && span.last <= found.last)
            })
        };
        covers(&self.v4, &other.v4) && covers(&self.v6, &other.v6)
    }

    /// Calls a function with each range as the protocol writes it: an address, a prefix or `first-last`.
    pub fn each_text(&self, mut call: impl FnMut(&str)) {
        let mut text = String::new();
        for (spans, v4) in [(&self.v4, true), (&self.v6, false)] {
            for span in spans {
                text.clear();
                // Writing to a String cannot fail.
                let _ = write!(text, "{}", SpanText(*span, v4));
                call(&text);
            }
        }
    }

    /// The fewest prefixes that make up the set.
    pub fn prefixes(&self) -> Vec<IpNet> {
        let mut nets = Vec::new();
        for span in &self.v4 {
            split(*span, 32, |first, bits| {
                nets.extend(Ipv4Net::new(v4(first), bits).map(IpNet::V4));
            });
        }
        for span in &self.v6 {
            split(*span, 128, |first, bits| {
                nets.extend(Ipv6Net::new(Ipv6Addr::from(first), bits).map(IpNet::V6));
            });
        }
        nets
    }
}

struct SpanText(Span, bool);

impl fmt::Display for SpanText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(span, is_v4) = *self;
        let address = |number| match is_v4 {
            true => IpAddr::V4(v4(number)),
            false => IpAddr::V6(Ipv6Addr::from(number)),
        };
        if span.first == span.last {
            return write!(f, "{}", address(span.first));
        }
        let width = if is_v4 { 32 } else { 128 };
        let (mut whole, mut is_first) = (None, true);
        split(span, width, |_, bits| {
            whole = is_first.then_some(bits);
            is_first = false;
        });
        match whole {
            Some(bits) => write!(f, "{}/{bits}", address(span.first)),
            None => write!(f, "{}-{}", address(span.first), address(span.last)),
        }
    }
}

/// `0.0.0.0/0`.
pub fn any_v4() -> IpNet {
    IpNet::V4(Ipv4Net::default())
}

/// `::/0`.
pub fn any_v6() -> IpNet {
    IpNet::V6(Ipv6Net::default())
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u32::from(address).into(),
        IpAddr::V6(address) => address.into(),
    }
}

fn v4(number: u128) -> Ipv4Addr {
    // Only called with numbers of IPv4 addresses.
    Ipv4Addr::from(u32::try_from(number).unwrap_or(u32::MAX))
}

/// The first range that does not end before a number.
fn find(spans: &[Span], number: u128) -> Option<&Span> {
    spans.get(spans.partition_point(|span| span.last < number))
}

fn join(spans: &mut Vec<Span>) {
    spans.sort_unstable();
    spans.dedup_by(|next, kept| {
        let joins = next.first <= kept.last.saturating_add(1);
        if joins {
            kept.last = kept.last.max(next.last);
        }
        joins
    });
}

fn subtract(from: &[Span], what: &[Span]) -> Vec<Span> {
    let mut left = Vec::new();
    for span in from {
        let mut first = Some(span.first);
        for hole in what {
            let Some(begin) = first.filter(|begin| *begin <= span.last) else {
                break;
            };
            if hole.last < begin || hole.first > span.last {
                continue;
            }
            if let Some(last) = hole.first.checked_sub(1).filter(|last| *last >= begin) {
                left.push(Span { first: begin, last });
            }
            first = hole.last.checked_add(1);
        }
        if let Some(first) = first.filter(|first| *first <= span.last) {
            left.push(Span {
                first,
                last: span.last,
            });
        }
    }
    left
}

/// Splits a range into the fewest prefixes; `width` is the number of bits of an address.
fn split(span: Span, width: u8, mut call: impl FnMut(u128, u8)) {
    let mut first = span.first;
    loop {
        let room = span.last.saturating_sub(first);
        // The largest block that begins here and does not pass the end.
        let mut free = 0u8;
        while free < width {
            let size = u128::MAX
                .checked_shr(127u32.saturating_sub(u32::from(free)))
                .unwrap_or(u128::MAX);
            if first & size != 0 || size > room {
                break;
            }
            free = free.saturating_add(1);
        }
        call(first, width.saturating_sub(free));
        let size = match free {
            0 => 0,
            _ => u128::MAX >> 128u32.saturating_sub(u32::from(free)).min(127),
        };
        match first.checked_add(size).and_then(|last| last.checked_add(1)) {
            Some(next) if next <= span.last => first = next,
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(nets: &[&str]) -> Ranges {
        let nets: Vec<IpNet> = nets.iter().map(|net| net.parse().unwrap()).collect();
        Ranges::from_nets(&nets)
    }

    fn texts(set: &Ranges) -> Vec<String> {
        let mut texts = Vec::new();
        set.each_text(|text| texts.push(text.to_owned()));
        texts
    }

    #[test]
    fn ranges_are_joined_and_written_as_short_as_can_be() {
        let all = set(&[
            "100.64.0.2/32",
            "100.64.0.1/32",
            "10.0.0.0/9",
            "10.128.0.0/9",
            "fd00::1/128",
        ]);
        assert_eq!(
            texts(&all),
            ["10.0.0.0/8", "100.64.0.1-100.64.0.2", "fd00::1"]
        );
        assert_eq!(texts(&Ranges::everything()), ["0.0.0.0/0", "::/0"]);
    }

    #[test]
    fn the_tailnet_is_cut_around_a_hole() {
        let tailnet = set(&["100.64.0.0/10"]).without(&set(&["100.115.92.0/23"]));
        assert_eq!(
            texts(&tailnet),
            ["100.64.0.0-100.115.91.255", "100.115.94.0-100.127.255.255"]
        );
        assert!(!tailnet.contains("100.115.93.1".parse().unwrap()));
        assert!(tailnet.contains("100.115.94.0".parse().unwrap()));
        let back: Ranges = Ranges::from_nets(&tailnet.prefixes());
        assert_eq!(back, tailnet);
    }

    #[test]
    fn queries_keep_the_address_families_apart() {
        let some = set(&["10.0.0.0/8", "fd00::/8"]);
        assert!(some.overlaps("10.33.0.0/16".parse().unwrap()));
        assert!(some.overlaps("0.0.0.0/0".parse().unwrap()));
        assert!(!some.overlaps("11.0.0.0/8".parse().unwrap()));
        assert!(!some.contains("::a00:1".parse().unwrap()));
        assert!(some.covers(&set(&["10.1.0.0/16"])) && !some.covers(&set(&["0.0.0.0/4"])));
        assert!(some.meets(&set(&["fd00::/64"])) && !some.meets(&set(&["fe80::/10"])));
        assert!(
            Ranges::everything()
                .without(&some)
                .covers(&set(&["11.0.0.0/8"]))
        );
    }

    #[test]
    fn splitting_gives_whole_prefixes() {
        let one =
            Ranges::between("10.0.0.1".parse().unwrap(), "10.0.0.6".parse().unwrap()).unwrap();
        let nets: Vec<String> = one.prefixes().iter().map(ToString::to_string).collect();
        assert_eq!(
            nets,
            ["10.0.0.1/32", "10.0.0.2/31", "10.0.0.4/31", "10.0.0.6/32"]
        );
        assert_eq!(Ranges::everything().prefixes(), [any_v4(), any_v6()]);
    }
}
