//! Selectors, ports and protocols.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::policy::ast::{Autogroup, Ports, Selector};
use crate::policy::ranges::Ranges;

/// A selector before its name is looked up.
#[derive(Debug, Clone, PartialEq)]
pub enum ParsedSelector {
    /// Complete without the policy.
    Whole(Selector),
    /// A name of `hosts`.
    Host(Box<str>),
    /// A name of `ipsets`.
    IpSet(Box<str>),
}

/// Parses a selector; surrounding white space is ignored.
///
/// # Errors
///
/// Why it is invalid.
pub fn selector(text: &str) -> Result<ParsedSelector, String> {
    let text = text.trim();
    if let Some(net) = prefix(text) {
        return Ok(ParsedSelector::Whole(addresses(net)));
    }
    let whole = if text == "*" {
        Selector::Any
    } else if text.starts_with("group:") {
        Selector::Group(text.into())
    } else if text.starts_with("tag:") {
        Selector::Tag(text.into())
    } else if text.starts_with("autogroup:") {
        Selector::Autogroup(autogroup(text)?)
    } else if text.starts_with("ipset:") {
        return Ok(ParsedSelector::IpSet(text.into()));
    } else if let Some(domain) = text.strip_prefix("user:*@") {
        Selector::Domain(domain.into())
    } else if text.starts_with("svc:") {
        return Err(format!(
            "{text:?}: services are not supported; use a tag or an address"
        ));
    } else if text.contains('@') {
        Selector::User(text.into())
    } else if let Some(range) = range(text) {
        Selector::Addresses([range].into())
    } else if text.is_empty() || text.contains(':') || text.contains('/') {
        return Err(unknown_name(text));
    } else {
        return Ok(ParsedSelector::Host(text.into()));
    };
    Ok(ParsedSelector::Whole(whole))
}

/// The message for a text that should be an address.
pub fn invalid_address(text: &str) -> String {
    format!(
        "{text:?}: invalid address; expected one such as 192.168.1.5, or a prefix such as 192.168.1.0/24"
    )
}

/// The message for a text that is neither an address nor a known name.
pub fn unknown_name(text: &str) -> String {
    let is_like_address = |c: char| c.is_ascii_hexdigit() || "./:-".contains(c);
    if text.starts_with("ipset:") {
        return format!("{text:?}: invalid address; define it in \"ipsets\"");
    }
    if text.is_empty() || text.chars().all(is_like_address) && text.contains(['.', '/', ':']) {
        return invalid_address(text);
    }
    if text.contains([':', '/']) {
        return format!(
            "{text:?}: invalid address; known prefixes are {}",
            PREFIXES.join(" ")
        );
    }
    format!(
        "{text:?}: invalid address; for a user write {:?}, for a group {:?}, for a tag {:?}, or define it in \"hosts\"",
        format!("{text}@"),
        format!("group:{text}"),
        format!("tag:{text}")
    )
}

/// Prefixes of selectors.
const PREFIXES: [&str; 5] = ["autogroup:", "group:", "ipset:", "tag:", "user:"];

/// A valid form of a destination that was written without ports; `None` if it is not that. `is_host` says whether a
/// name is one of `hosts`.
pub fn with_ports(text: &str, is_host: impl FnOnce(&str) -> bool) -> Option<String> {
    let text = text.trim();
    match prefix(text) {
        Some(IpNet::V6(_)) => {
            return Some(match text.split_once('/') {
                Some((address, length)) => format!("[{address}]/{length}:*"),
                None => format!("[{text}]:*"),
            });
        }
        Some(IpNet::V4(_)) => return Some(format!("{text}:*")),
        None => {}
    }
    let rest = PREFIXES.iter().find_map(|known| text.strip_prefix(known));
    let is_without = !text.is_empty() && !rest.unwrap_or(text).contains(':');
    let is_user = || rest.is_none() && !text.contains(['@', '*']) && !is_host(text);
    is_without.then(|| match is_user() {
        true => format!("{text}@:*"),
        false => format!("{text}:*"),
    })
}

fn autogroup(text: &str) -> Result<Autogroup, String> {
    Ok(match text {
        "autogroup:self" => Autogroup::Owned,
        "autogroup:member" | "autogroup:members" => Autogroup::Member,
        "autogroup:tagged" => Autogroup::Tagged,
        "autogroup:internet" => Autogroup::Internet,
        "autogroup:danger-all" => Autogroup::DangerAll,
        "autogroup:nonroot" => Autogroup::Nonroot,
        "autogroup:admin" => Autogroup::Admin,
        "autogroup:owner" => Autogroup::Owner,
        "autogroup:it-admin"
        | "autogroup:network-admin"
        | "autogroup:billing-admin"
        | "autogroup:auditor"
        | "autogroup:shared" => Autogroup::Nobody,
        _ => {
            let known = "self, member, tagged, internet, admin, owner, nonroot, danger-all";
            return Err(format!(
                "invalid autogroup: {text:?}; after \"autogroup:\" write one of {known}"
            ));
        }
    })
}

/// The selector of one prefix.
pub fn addresses(net: IpNet) -> Selector {
    Selector::Addresses([Ranges::from_nets(&[net])].into())
}

/// An address or a prefix; bits after the prefix are ignored.
pub fn prefix(text: &str) -> Option<IpNet> {
    match text.contains('/') {
        true => text.parse::<IpNet>().ok().map(|net| net.trunc()),
        false => text.parse::<IpAddr>().ok().map(IpNet::from),
    }
}

/// `first-last`.
pub fn range(text: &str) -> Option<Ranges> {
    let (first, last) = text.split_once('-')?;
    Ranges::between(first.trim().parse().ok()?, last.trim().parse().ok()?)
}

/// Splits `host:ports` at the last colon; IPv6 addresses may be in brackets.
///
/// # Errors
///
/// What is missing.
pub fn host_and_ports(text: &str) -> Result<(String, &str), String> {
    let Some((host, ports)) = text.rsplit_once(':') else {
        return Err(format!("dst={text:?}: expected host:ports"));
    };
    if host.is_empty() || ports.is_empty() {
        return Err(format!("dst={text:?}: expected host:ports"));
    }
    let Some(inner) = host.strip_prefix('[') else {
        return Ok((host.to_owned(), ports));
    };
    let fault = || format!("dst={text:?}: square brackets are only valid around IPv6 addresses");
    let (address, rest) = inner.split_once(']').ok_or_else(fault)?;
    let is_v6 = address.parse::<std::net::Ipv6Addr>().is_ok();
    match is_v6 && (rest.is_empty() || rest.starts_with('/')) {
        true => Ok((format!("{address}{rest}"), ports)),
        false => Err(fault()),
    }
}

/// `*`, or ports and port ranges separated by commas.
///
/// # Errors
///
/// `port range "…": ` and what is wrong. Texts as in headscale `hscontrol/policy/v2/utils.go`, `parsePortRange`.
pub fn ports(text: &str) -> Result<Vec<Ports>, String> {
    if text == "*" {
        return Ok(vec![Ports::ALL]);
    }
    text.split(',')
        .map(one_range)
        .collect::<Result<_, _>>()
        .map_err(|what| format!("port range {text:?}: {what}"))
}

fn one_range(text: &str) -> Result<Ports, &'static str> {
    let Some((first, last)) = text.split_once('-') else {
        return match port(text)? {
            0 => Err("first port must be >0, or use '*' for wildcard"),
            port => Ok(Ports {
                first: port,
                last: port,
            }),
        };
    };
    if first.is_empty() || last.is_empty() || last.contains('-') {
        return Err("invalid port range format");
    }
    let (first, last) = (port(first)?, port(last)?);
    match first <= last {
        true => Ok(Ports { first, last }),
        false => Err("invalid port range: first port is greater than last port"),
    }
}

fn port(text: &str) -> Result<u16, &'static str> {
    let number: i64 = text.parse().map_err(|_| "invalid first integer")?;
    u16::try_from(number).map_err(|_| "port number out of range")
}

/// Numbers of protocols by name. Source: `Protocol` in headscale `hscontrol/policy/v2/types.go`.
const PROTOCOLS: &[(&str, u8)] = &[
    ("icmp", 1),
    ("igmp", 2),
    ("ipv4", 4),
    ("ip-in-ip", 4),
    ("tcp", 6),
    ("egp", 8),
    ("igp", 9),
    ("udp", 17),
    ("gre", 47),
    ("esp", 50),
    ("ah", 51),
    ("ipv6-icmp", 58),
    ("sctp", 132),
    ("fc", 133),
];

/// TCP, UDP and SCTP: the protocols that have ports.
pub fn has_ports(proto: u8) -> bool {
    matches!(proto, 6 | 17 | 132)
}

/// A protocol by name or number; empty for the default ones.
///
/// # Errors
///
/// Why it is invalid.
pub fn protocol(text: &str) -> Result<Option<u8>, String> {
    let name = text.to_ascii_lowercase();
    if name.is_empty() {
        return Ok(None);
    }
    if let Some((_, number)) = PROTOCOLS.iter().find(|(known, _)| *known == name) {
        return Ok(Some(*number));
    }
    let digits = name.bytes().all(|byte| byte.is_ascii_digit());
    if digits && name.starts_with('0') {
        return Err(format!(
            "leading 0 not permitted in protocol number {text:?}"
        ));
    }
    match name.parse::<u8>() {
        Ok(number) => Ok(Some(number)),
        Err(_) if digits => Err(format!("protocol number {text:?} is not in 1-255")),
        Err(_) => Err(format!(
            "proto name {text:?} not known; use protocol number 0-255 or protocol name (icmp, tcp, udp, etc.)"
        )),
    }
}

/// Checks the name of a tag.
///
/// # Errors
///
/// Texts of `CheckTag` in tailscale `tailcfg/tailcfg.go`.
pub fn tag_name(tag: &str) -> Result<(), &'static str> {
    let name = tag
        .strip_prefix("tag:")
        .ok_or("tags must start with 'tag:'")?;
    if name.is_empty() {
        return Err("tag names must not be empty");
    }
    if !name.starts_with(|c: char| c.is_ascii_alphabetic()) {
        return Err("tag names must start with a letter, after 'tag:'");
    }
    match name
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    {
        true => Ok(()),
        false => Err("tag names can only contain numbers, letters, or dashes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_split_at_the_last_colon() {
        for (text, host, wanted) in [
            ("tag:a:22", "tag:a", "22"),
            ("*:*", "*", "*"),
            ("[::1]:80", "::1", "80"),
            ("[fd00::]/8:80,443", "fd00::/8", "80,443"),
            ("fd00::1:80", "fd00::1", "80"),
        ] {
            assert_eq!(host_and_ports(text), Ok((host.to_owned(), wanted)));
        }
        for text in ["host", ":80", "host:", "[host]:80", "[::1:80", "[::1]x:80"] {
            assert!(host_and_ports(text).is_err(), "{text}");
        }
    }

    #[test]
    fn ports_are_strict() {
        let one = |first, last| Ports { first, last };
        assert_eq!(ports("22,80-443"), Ok(vec![one(22, 22), one(80, 443)]));
        assert_eq!(ports("0-65535"), Ok(vec![Ports::ALL]));
        for (text, what) in [
            ("ssh", "invalid first integer"),
            ("0", "first port must be >0, or use '*' for wildcard"),
            (
                "9-8",
                "invalid port range: first port is greater than last port",
            ),
            ("65536", "port number out of range"),
            ("1-2-3", "invalid port range format"),
            ("22,", "invalid first integer"),
        ] {
            assert_eq!(ports(text), Err(format!("port range {text:?}: {what}")));
        }
    }

    #[test]
    fn protocols_have_names_and_numbers() {
        assert_eq!(protocol(""), Ok(None));
        assert_eq!(protocol("TCP"), Ok(Some(6)));
        assert_eq!(protocol("255"), Ok(Some(255)));
        for text in ["*", "06", "0", "256", "http", "-1"] {
            assert!(protocol(text).is_err(), "{text}");
        }
    }
}
