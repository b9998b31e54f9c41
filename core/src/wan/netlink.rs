//! Addresses and default routes in the messages of rtnetlink.
//!
//! Source of all numbers: Linux `include/uapi/linux/{netlink,rtnetlink,if_addr}.h`. Numbers are in native
//! byte order, attributes are padded to four bytes.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

use std::net::IpAddr;

/// The multicast groups of changes: `RTMGRP_IPV4_IFADDR`, `RTMGRP_IPV4_ROUTE`, `RTMGRP_IPV6_IFADDR` and
/// `RTMGRP_IPV6_ROUTE`.
pub const GROUPS: u32 = 0x10 | 0x40 | 0x100 | 0x400;

/// Most addresses and most routes of one response; a router has some dozens.
pub const MAX_ENTRIES: usize = 512;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;
/// `NLM_F_REQUEST | NLM_F_DUMP`.
const DUMP: u16 = 0x1 | 0x300;
const HEADER: usize = 16;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_FLAGS: u16 = 8;
const IFA_F_TEMPORARY: u32 = 0x01;
const IFA_F_DADFAILED: u32 = 0x08;
const IFA_F_DEPRECATED: u32 = 0x20;
const IFA_F_TENTATIVE: u32 = 0x40;
const SCOPE_GLOBAL: u8 = 0;

const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_PREFSRC: u16 = 7;
const RTA_MULTIPATH: u16 = 9;
const RTA_TABLE: u16 = 15;
const RT_TABLE_MAIN: u32 = 254;
const RTN_UNICAST: u8 = 1;
/// `RTM_F_CLONED`: a route to one host that the kernel cloned.
const CLONED: u32 = 0x200;

/// A request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// All addresses of all interfaces.
    Addresses,
    /// All routes.
    Routes,
}

/// An address of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    /// Interface number.
    pub interface: u32,
    /// The address.
    pub ip: IpAddr,
    /// Prefix length of its network.
    pub prefix: u8,
    /// Whether it is usable and lasting: global scope, no duplicate detected, not temporary (RFC 8981)
    /// and not deprecated.
    pub is_lasting: bool,
}

/// A default route of the main table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DefaultRoute {
    /// Whether it is an IPv6 route.
    pub is_v6: bool,
    /// Interface number.
    pub interface: u32,
    /// Lower is better.
    pub metric: u32,
    /// Preferred source address.
    pub source: Option<IpAddr>,
    /// Gateway.
    pub gateway: Option<IpAddr>,
}

/// The contents of the responses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    /// Addresses, in the order of the kernel.
    pub addresses: Vec<Address>,
    /// Default routes.
    pub routes: Vec<DefaultRoute>,
}

/// Whether a response is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// More datagrams follow.
    More,
    /// Complete.
    Done,
    /// The kernel refused the request.
    Refused,
}

/// The message of a request; the response has the same number.
pub fn request(what: Request, number: u32) -> Vec<u8> {
    let (kind, body) = match what {
        Request::Addresses => (RTM_GETADDR, 8_usize),
        Request::Routes => (RTM_GETROUTE, 12),
    };
    let length = HEADER.saturating_add(body);
    let mut message = Vec::with_capacity(length);
    message.extend(u32::try_from(length).unwrap_or_default().to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(DUMP.to_ne_bytes());
    message.extend(number.to_ne_bytes());
    // The kernel knows the sender; a body of zeros asks for both families.
    message.resize(length, 0);
    message
}

impl Table {
    /// Reads one datagram of the response with this number. Unknown messages are skipped.
    pub fn read(&mut self, mut datagram: &[u8], number: u32) -> Progress {
        while let Some((kind, of, body, rest)) = message(datagram) {
            datagram = rest;
            if of != number {
                continue;
            }
            match kind {
                NLMSG_DONE => return Progress::Done,
                NLMSG_ERROR => return Progress::Refused,
                RTM_NEWADDR if self.addresses.len() < MAX_ENTRIES => {
                    self.addresses.extend(address(body));
                }
                RTM_NEWROUTE if self.routes.len() < MAX_ENTRIES => {
                    self.routes.extend(default_route(body));
                }
                _ => {}
            }
        }
        Progress::More
    }
}

/// Kind, number and body of the first message, and the rest.
fn message(datagram: &[u8]) -> Option<(u16, u32, &[u8], &[u8])> {
    let length = usize::try_from(u32_at(datagram, 0)?).ok()?;
    let kind = u16_at(datagram, 4)?;
    let number = u32_at(datagram, 8)?;
    let body = datagram.get(HEADER..length)?;
    let rest = datagram.get(length.checked_next_multiple_of(4)?..);
    Some((kind, number, body, rest.unwrap_or_default()))
}

/// `struct ifaddrmsg` and its attributes.
fn address(body: &[u8]) -> Option<Address> {
    let (&[family, prefix, flags, scope, ..], rest) = body.split_first_chunk::<8>()?;
    let interface = u32_at(body, 4)?;
    let mut flags = u32::from(flags);
    let (mut ip, mut local) = (None, None);
    for (kind, value) in attributes(rest) {
        match kind {
            IFA_ADDRESS => ip = address_of(family, value),
            // On a point-to-point link IFA_ADDRESS is the other end.
            IFA_LOCAL => local = address_of(family, value),
            IFA_FLAGS => flags = u32_at(value, 0)?,
            _ => {}
        }
    }
    let unwanted = IFA_F_DADFAILED | IFA_F_DEPRECATED | IFA_F_TENTATIVE;
    // In IPv4 the same bit means a secondary address.
    let unwanted = match family {
        AF_INET6 => unwanted | IFA_F_TEMPORARY,
        _ => unwanted,
    };
    Some(Address {
        interface,
        ip: local.or(ip)?,
        prefix,
        is_lasting: scope == SCOPE_GLOBAL && flags & unwanted == 0,
    })
}

/// `struct rtmsg` and its attributes, if it is a default route.
fn default_route(body: &[u8]) -> Option<DefaultRoute> {
    let (&[family, prefix, _, _, table, _, _, kind, ..], rest) = body.split_first_chunk::<12>()?;
    let flags = u32_at(body, 8)?;
    let mut table = u32::from(table);
    let (mut interface, mut metric) = (None, 0);
    let (mut source, mut gateway) = (None, None);
    for (kind, value) in attributes(rest) {
        match kind {
            RTA_OIF => interface = u32_at(value, 0),
            RTA_PRIORITY => metric = u32_at(value, 0)?,
            RTA_GATEWAY => gateway = address_of(family, value),
            RTA_PREFSRC => source = address_of(family, value),
            RTA_TABLE => table = u32_at(value, 0)?,
            // `struct rtnexthop`: the first of several equal next hops.
            RTA_MULTIPATH => interface = interface.or_else(|| u32_at(value, 4)),
            _ => {}
        }
    }
    let is_default = prefix == 0 && kind == RTN_UNICAST && table == RT_TABLE_MAIN;
    (is_default && flags & CLONED == 0).then_some(DefaultRoute {
        is_v6: family == AF_INET6,
        interface: interface?,
        metric,
        source,
        gateway,
    })
}

/// Kinds and values of attributes, up to the first malformed one.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(bytes, 0)?);
        // The two highest bits are flags (`NLA_TYPE_MASK`).
        let kind = u16_at(bytes, 2)? & 0x3fff;
        let value = bytes.get(4..length)?;
        let rest = bytes.get(length.checked_next_multiple_of(4)?..);
        bytes = rest.unwrap_or_default();
        Some((kind, value))
    })
}

fn address_of(family: u8, value: &[u8]) -> Option<IpAddr> {
    match family {
        AF_INET => Some(IpAddr::from(<[u8; 4]>::try_from(value).ok()?)),
        AF_INET6 => Some(IpAddr::from(<[u8; 16]>::try_from(value).ok()?)),
        _ => None,
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..)?.first_chunk::<2>()?;
    Some(u16::from_ne_bytes(*bytes))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..)?.first_chunk::<4>()?;
    Some(u32::from_ne_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(value.len() + 4).unwrap();
        let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
        bytes.extend_from_slice(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn framed(kind: u16, number: u32, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + HEADER).unwrap();
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 2]);
        bytes.extend(number.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend_from_slice(body);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn addr(family: u8, flags: u8, scope: u8, attributes: &[Vec<u8>]) -> Vec<u8> {
        let mut body = vec![family, 24, flags, scope];
        body.extend(7_u32.to_ne_bytes());
        body.extend(attributes.concat());
        framed(RTM_NEWADDR, 1, &body)
    }

    fn route(family: u8, prefix: u8, table: u8, kind: u8, attributes: &[Vec<u8>]) -> Vec<u8> {
        let mut body = vec![family, prefix, 0, 0, table, 0, 0, kind];
        body.extend(0_u32.to_ne_bytes());
        body.extend(attributes.concat());
        framed(RTM_NEWROUTE, 1, &body)
    }

    fn read(messages: &[Vec<u8>]) -> Table {
        let mut table = Table::default();
        table.read(&messages.concat(), 1);
        table
    }

    const GLOBAL: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

    #[test]
    fn the_own_end_of_a_wire_between_two_is_the_address() {
        let peer = attribute(IFA_ADDRESS, &[10, 0, 0, 1]);
        let own = attribute(IFA_LOCAL, &[203, 0, 113, 5]);
        let table = read(&[addr(AF_INET, 0x80, 0, &[peer, own])]);
        let wanted = Address {
            interface: 7,
            ip: "203.0.113.5".parse().unwrap(),
            prefix: 24,
            is_lasting: true,
        };
        assert_eq!(table.addresses, [wanted]);
    }

    #[test]
    fn temporary_tentative_and_old_addresses_do_not_last() {
        let lasting = |flags: u32, scope| {
            let flags = attribute(IFA_FLAGS, &flags.to_ne_bytes());
            let ip = attribute(IFA_ADDRESS, &GLOBAL);
            read(&[addr(AF_INET6, 0, scope, &[ip, flags])]).addresses[0].is_lasting
        };
        assert!(lasting(0, 0) && lasting(0x80 | 0x200, 0));
        for flag in [0x01, 0x08, 0x20, 0x40] {
            assert!(!lasting(flag, 0), "{flag:x}");
        }
        assert!(!lasting(0, 253));
        // A second IPv4 address of a network is as good as the first.
        let second = attribute(IFA_LOCAL, &[203, 0, 113, 6]);
        assert!(read(&[addr(AF_INET, 0x01, 0, &[second])]).addresses[0].is_lasting);
    }

    #[test]
    fn only_ways_to_everywhere_in_the_main_table_count() {
        let oif = attribute(RTA_OIF, &3_u32.to_ne_bytes());
        let metric = attribute(RTA_PRIORITY, &20_u32.to_ne_bytes());
        let source = attribute(RTA_PREFSRC, &[203, 0, 113, 5]);
        let gateway = attribute(RTA_GATEWAY, &[203, 0, 113, 254]);
        let policy = attribute(RTA_TABLE, &52_u32.to_ne_bytes());
        let mut hop = vec![16, 0, 0, 0];
        hop.extend(9_u32.to_ne_bytes());
        let several = attribute(RTA_MULTIPATH, &hop);
        let table = read(&[
            route(AF_INET, 0, 254, 1, &[oif.clone(), metric, source, gateway]),
            route(AF_INET, 24, 254, 1, std::slice::from_ref(&oif)),
            route(AF_INET, 0, 254, 1, &[oif.clone(), policy]),
            route(AF_INET6, 0, 254, 7, std::slice::from_ref(&oif)),
            route(AF_INET6, 0, 254, 1, &[several]),
        ]);
        let [first, second] = table.routes.as_slice() else {
            panic!("{table:?}");
        };
        assert_eq!((first.interface, first.metric, first.is_v6), (3, 20, false));
        assert_eq!(first.source, "203.0.113.5".parse().ok());
        assert_eq!(first.gateway, "203.0.113.254".parse().ok());
        assert_eq!((second.interface, second.is_v6), (9, true));
    }

    #[test]
    fn an_answer_ends_and_answers_to_others_are_passed_over() {
        let mut table = Table::default();
        let own = attribute(IFA_LOCAL, &[203, 0, 113, 5]);
        let of_other = addr(AF_INET, 0, 0, &[own]);
        assert_eq!(table.read(&of_other, 2), Progress::More);
        assert!(table.addresses.is_empty());
        let done = framed(NLMSG_DONE, 2, &[0; 4]);
        assert_eq!(table.read(&done, 2), Progress::Done);
        let refused = framed(NLMSG_ERROR, 2, &[0; 4]);
        assert_eq!(table.read(&refused, 2), Progress::Refused);
    }

    #[test]
    fn the_question_is_as_the_kernel_wants_it() {
        let question = request(Request::Routes, 5);
        assert_eq!(question.len(), 28);
        assert_eq!(u32_at(&question, 0), Some(28));
        assert_eq!(u16_at(&question, 4), Some(RTM_GETROUTE));
        assert_eq!(u16_at(&question, 6), Some(0x301));
        assert_eq!(u32_at(&question, 8), Some(5));
    }

    #[test]
    fn no_answer_is_too_short() {
        let ip = attribute(IFA_ADDRESS, &GLOBAL);
        let whole = addr(AF_INET6, 0, 0, &[ip]);
        for end in 0..whole.len() {
            let mut table = Table::default();
            table.read(&whole[..end], 1);
            assert!(table.addresses.is_empty(), "{end}");
        }
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read_to_its_end(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            let mut table = Table::default();
            table.read(&bytes, 0);
            prop_assert!(table.addresses.len() + table.routes.len() <= bytes.len() / 16);
        }
    }
}
