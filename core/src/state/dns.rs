//! DNS of the tailnet: records beside the nodes' own names, and which resolvers nodes use.
//!
//! Values that cannot be wrong; what they mean for one node is worked out in `netmap::dns`.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use crate::state::model::Node;
use crate::state::name::{LABEL_MAX, is_label};

/// Most records of each source: the configuration, the file, the API.
pub const RECORDS_MAX: usize = 1024;

/// Longest name, in bytes, without the dot at the end (RFC 1035, section 2.3.4).
const NAME_MAX: usize = 253;

/// Where clients answer DNS queries themselves: a resolver there would ask itself.
/// Source: `TailscaleServiceIPString` and its IPv6 form in tailscale `net/tsaddr/tsaddr.go`.
const QUAD_100: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 100)),
    IpAddr::V6(Ipv6Addr::new(0xfd7a, 0x115c, 0xa1e0, 0, 0, 0, 0, 0x53)),
];

/// Where NextDNS is asked; its profile is the path.
/// Source: <https://tailscale.com/docs/integrations/nextdns>.
pub const NEXT_DNS: &str = "https://dns.nextdns.io";

/// A name with what it stands for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DnsRecord {
    /// The name in lower case, without the dot at the end. Without any dot it is below the base domain.
    pub name: Box<str>,
    /// What it stands for.
    pub value: DnsValue,
}

/// What a name stands for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DnsValue {
    /// An IPv4 address.
    A(Ipv4Addr),
    /// An IPv6 address.
    Aaaa(Ipv6Addr),
    /// The addresses that the node with this name has at the time, by label or full name.
    Alias(Box<str>),
}

/// Why something is no record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRecord {
    /// The name is none.
    #[error(
        "{0:?} cannot be the name of a record: labels of letters, digits, `-` and `_` with dots between them"
    )]
    Name(Box<str>),
    /// Clients know no names with a star.
    #[error(
        "{0:?} is a wildcard, which clients take below whole nodes only: see `wildcard` in the [dns] section"
    )]
    Wildcard(Box<str>),
    /// The type is none of ours.
    #[error("{0:?} is no type of a record: A, AAAA and ALIAS are")]
    Type(Box<str>),
    /// The value is not an address, but was meant to be one.
    #[error("{0:?} is not a valid IP address")]
    Address(Box<str>),
    /// The value does not fit the type.
    #[error("{value:?} is no value for {kind}: expected {expected}")]
    Value {
        /// The type.
        kind: &'static str,
        /// The value as given.
        value: Box<str>,
        /// What it should be.
        expected: &'static str,
    },
}

impl DnsRecord {
    /// Reads a record. Without a type an address is an A or AAAA record and a name is an alias.
    ///
    /// # Errors
    /// Names what is wrong.
    pub fn parse(name: &str, kind: &str, value: &str) -> Result<Self, InvalidRecord> {
        if name.contains('*') {
            return Err(InvalidRecord::Wildcard(shortened(name)));
        }
        let name = plain_name(name).ok_or_else(|| InvalidRecord::Name(shortened(name)))?;
        let wrong = |kind, expected| InvalidRecord::Value {
            kind,
            value: shortened(value),
            expected,
        };
        let value = match (kind.to_ascii_uppercase().as_str(), value.parse()) {
            ("" | "A", Ok(IpAddr::V4(address))) => DnsValue::A(address),
            ("" | "AAAA", Ok(IpAddr::V6(address))) => DnsValue::Aaaa(address),
            ("A", _) => return Err(wrong("A", "an IPv4 address")),
            ("AAAA", _) => return Err(wrong("AAAA", "an IPv6 address")),
            ("" | "ALIAS", Err(_)) if is_mistyped_address(value) => {
                return Err(InvalidRecord::Address(shortened(value)));
            }
            ("" | "ALIAS", Err(_)) => {
                let target = plain_name(value);
                DnsValue::Alias(target.ok_or_else(|| wrong("ALIAS", "the name of a node"))?)
            }
            ("ALIAS", Ok(_)) => return Err(wrong("ALIAS", "the name of a node")),
            _ => return Err(InvalidRecord::Type(shortened(kind))),
        };
        Ok(Self { name, value })
    }

    /// The type: `A`, `AAAA` or `ALIAS`.
    pub fn kind(&self) -> &'static str {
        match self.value {
            DnsValue::A(_) => "A",
            DnsValue::Aaaa(_) => "AAAA",
            DnsValue::Alias(_) => "ALIAS",
        }
    }

    /// The full name, without the dot at the end.
    pub fn full_name(&self, base_domain: &str) -> String {
        match self.name.contains('.') {
            true => self.name.to_string(),
            false => format!("{}.{base_domain}", self.name),
        }
    }
}

impl fmt::Display for DnsValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::A(address) => address.fmt(f),
            Self::Aaaa(address) => address.fmt(f),
            Self::Alias(target) => f.write_str(target),
        }
    }
}

/// So much of a text that somebody recognises it, for messages.
fn shortened(text: &str) -> Box<str> {
    text.chars().take(80).collect::<String>().into()
}

/// Whether a text that is no IP address looks like one: a prefix or an address with a port, or a name whose
/// last label is a number, which no host name may end in (RFC 1123, section 2.1).
fn is_mistyped_address(text: &str) -> bool {
    let text = text.strip_suffix('.').unwrap_or(text);
    if text.contains(':') {
        return text
            .bytes()
            .all(|byte| byte.is_ascii_hexdigit() || b":./[]%".contains(&byte));
    }
    let host = text.split('/').next().unwrap_or(text);
    let last = host.rsplit('.').next().unwrap_or(host);
    !last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit())
}

/// The name in lower case without the dot at the end; underscores are names of services.
fn plain_name(text: &str) -> Option<Box<str>> {
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    let is_good = |label: &str| {
        let clean = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        (1..=LABEL_MAX).contains(&label.len())
            && label.bytes().all(clean)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let good = name.len() <= NAME_MAX && name.split('.').all(is_good);
    good.then(|| name.into())
}

/// A resolver: an address, an address with a port, or the URL of DNS over HTTPS.
/// Source: `Resolver.Addr` in tailscale `types/dnstype/dnstype.go`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nameserver(Box<str>);

impl Nameserver {
    /// The text that clients are given.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is NextDNS, whose URL depends on the node.
    pub fn is_next_dns(&self) -> bool {
        let rest = self.0.strip_prefix(NEXT_DNS);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?']))
    }

    /// The address, unless it is a URL.
    pub fn address(&self) -> Option<IpAddr> {
        let with_port = || Some(self.0.parse::<SocketAddr>().ok()?.ip());
        self.0.parse().ok().or_else(with_port)
    }
}

impl From<IpAddr> for Nameserver {
    fn from(address: IpAddr) -> Self {
        Self(address.to_string().into())
    }
}

/// A text that is no resolver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected an address such as `192.168.1.1` or `[fd00::1]:5353`, or an `https://` URL")]
pub struct InvalidNameserver;

impl FromStr for Nameserver {
    type Err = InvalidNameserver;

    fn from_str(text: &str) -> Result<Self, InvalidNameserver> {
        let address = |address: IpAddr| !address.is_unspecified() && !QUAD_100.contains(&address);
        let is_good = match (text.parse::<IpAddr>(), text.parse::<SocketAddr>()) {
            (Ok(alone), _) => address(alone),
            (_, Ok(with_port)) => address(with_port.ip()) && with_port.port() != 0,
            _ => is_doh(text),
        };
        is_good.then(|| Self(text.into())).ok_or(InvalidNameserver)
    }
}

fn is_doh(text: &str) -> bool {
    let Some(rest) = text.strip_prefix("https://") else {
        return false;
    };
    let host = rest.split(['/', '?']).next().unwrap_or_default();
    let of_host = |byte: u8| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte);
    // What would have to be escaped in JSON has no place in a URL either; tailscale-rs reads no escapes.
    let of_url = |byte: u8| byte.is_ascii_graphic() && !b"\"\\<>^`{|}#@".contains(&byte);
    text.len() <= 512
        && host.bytes().next().is_some_and(|byte| byte != b':')
        && host.bytes().all(of_host)
        && rest.bytes().all(of_url)
}

/// Whose resolver is "the router's".
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Router {
    /// The machine that hearth runs on: at its address in the tailnet when it is a node, else at its
    /// address at home.
    #[default]
    ThisMachine,
    /// A node, or all nodes with a tag.
    Node(NodeName),
    /// This one.
    Resolver(Nameserver),
}

/// Names nodes: a label or full name, or a tag.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeName(Box<str>);

impl NodeName {
    /// Whether this is the node, or one of them.
    pub fn is(&self, node: &Node, base_domain: &str) -> bool {
        is_named(&self.0, node, base_domain)
    }
}

/// Whether a text names the node: its label or full name, or one of its tags.
pub fn is_named(text: &str, node: &Node, base_domain: &str) -> bool {
    match text.starts_with("tag:") {
        true => node.tags().iter().any(|tag| **tag == *text),
        false => label_in(text, base_domain) == Some(&*node.label),
    }
}

/// The label in a node's label or full name; `None` for a name that is no node's.
pub fn label_in<'a>(name: &'a str, base_domain: &str) -> Option<&'a str> {
    let label = match name.contains('.') {
        true => name.strip_suffix(base_domain)?.strip_suffix('.')?,
        false => name,
    };
    is_label(label).then_some(label)
}

/// A text that names no node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected the name of a node, or a tag such as `tag:web`")]
pub struct InvalidNodeName;

impl FromStr for NodeName {
    type Err = InvalidNodeName;

    fn from_str(text: &str) -> Result<Self, InvalidNodeName> {
        let name = match text.strip_prefix("tag:") {
            Some(tag) if is_label(&tag.to_ascii_lowercase()) => Some(text.into()),
            Some(_) => None,
            None => plain_name(text),
        };
        name.map(Self).ok_or(InvalidNodeName)
    }
}

impl FromStr for Router {
    type Err = InvalidNodeName;

    fn from_str(text: &str) -> Result<Self, InvalidNodeName> {
        match text.parse::<Nameserver>() {
            Ok(resolver) => Ok(Self::Resolver(resolver)),
            Err(_) => text.parse().map(Self::Node),
        }
    }
}

/// Which resolvers a node uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolution {
    /// Resolvers for everything that nobody else answers.
    pub nameservers: Vec<Nameserver>,
    /// Whether the router's resolver is used in place of `nameservers`, as long as it is known.
    pub use_router: bool,
    /// Whether these resolvers replace those that the device has; otherwise they serve devices that
    /// cannot have both.
    pub override_local_dns: bool,
    /// Whether these resolvers stay in use while the device uses an exit node.
    pub use_with_exit_node: bool,
    /// Resolvers for names below a domain; without any, the client answers by the records alone.
    pub split: BTreeMap<Box<str>, Vec<Nameserver>>,
    /// Domains that are tried for names without a dot, after the base domain.
    pub search_domains: Vec<Box<str>>,
}

impl Default for Resolution {
    fn default() -> Self {
        Self {
            nameservers: Vec::new(),
            use_router: false,
            override_local_dns: true,
            use_with_exit_node: false,
            split: BTreeMap::new(),
            search_domains: Vec::new(),
        }
    }
}

impl Resolution {
    /// Whether NextDNS is among the resolvers.
    pub fn has_next_dns(&self) -> bool {
        let split = self.split.values().flatten();
        let mut all = self.nameservers.iter().chain(split);
        all.any(Nameserver::is_next_dns)
    }
}

/// Other resolvers for some nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsRule {
    /// Selectors of the policy language, any of which may fit.
    pub target: Vec<Box<str>>,
    /// What these nodes use.
    pub resolution: Resolution,
}

/// What the configuration says about DNS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsSettings {
    /// Whether clients answer for the names of the tailnet themselves.
    pub magic_dns: bool,
    /// What nodes use for which no rule is made.
    pub usual: Resolution,
    /// What others use; the first rule that fits a node counts.
    pub rules: Vec<DnsRule>,
    /// Whose resolver is the router's.
    pub router: Router,
    /// The domain of the names at home, which the router's resolver knows.
    pub lan_domain: Option<Box<str>>,
    /// Records.
    pub records: Vec<DnsRecord>,
    /// File with more records.
    pub records_file: Option<PathBuf>,
    /// Nodes to whom all names below their own lead.
    pub wildcard: Vec<NodeName>,
}

impl Default for DnsSettings {
    fn default() -> Self {
        Self {
            magic_dns: true,
            usual: Resolution::default(),
            rules: Vec::new(),
            router: Router::default(),
            lan_domain: None,
            records: Vec::new(),
            records_file: None,
            wildcard: Vec::new(),
        }
    }
}

impl DnsSettings {
    /// Whether anything depends on where the router's resolver is.
    pub fn needs_router(&self) -> bool {
        let rules = self.rules.iter().map(|rule| &rule.resolution);
        let mut all = rules.chain([&self.usual]);
        self.lan_domain.is_some() || all.any(|resolution| resolution.use_router)
    }

    /// Whether all names below a node's own lead to it.
    pub fn is_wildcard(&self, node: &Node, base_domain: &str) -> bool {
        self.wildcard.iter().any(|name| name.is(node, base_domain))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(name: &str, kind: &str, value: &str) -> String {
        match DnsRecord::parse(name, kind, value) {
            Ok(record) => format!("{} {} {}", record.name, record.kind(), record.value),
            Err(fault) => fault.to_string(),
        }
    }

    #[test]
    fn a_record_tells_its_type_by_its_value() {
        assert_eq!(
            record("NAS.Example.org.", "", "192.168.1.10"),
            "nas.example.org A 192.168.1.10"
        );
        assert_eq!(
            record("_svc.a.b", "aaaa", "fd00::1"),
            "_svc.a.b AAAA fd00::1"
        );
        assert_eq!(record("git", "", "Pi"), "git ALIAS pi");
        assert_eq!(record("git", "ALIAS", "pi.x.net"), "git ALIAS pi.x.net");
    }

    #[test]
    fn what_is_no_record_is_refused_with_the_reason() {
        for (name, kind, value, why) in [
            ("a b", "A", "1.2.3.4", "cannot be the name"),
            ("", "A", "1.2.3.4", "cannot be the name"),
            ("*.a", "A", "1.2.3.4", "`wildcard`"),
            ("a", "TXT", "text", "\"TXT\" is no type"),
            ("a", "CNAME", "b", "\"CNAME\" is no type"),
            ("a", "A", "fd00::1", "no value for A: expected an IPv4"),
            ("a", "AAAA", "1.2.3.4", "no value for AAAA"),
            ("a", "ALIAS", "1.2.3.4", "expected the name of a node"),
            ("a", "", "not a name", "expected the name of a node"),
        ] {
            let fault = record(name, kind, value);
            assert!(fault.contains(why), "{name} {kind} {value}: {fault}");
        }
    }

    #[test]
    fn a_mistyped_address_is_not_taken_for_the_name_of_a_node() {
        for value in [
            "1.2.3",
            "1.2.3.4.5",
            "300.1.1.1",
            "1.2.3.4/24",
            "1.2.3.",
            "1.2.3.4:80",
            "192.168.1",
            "nas.7",
            "fd7a::1::2",
            "fd7a::1/64",
            "[fd7a::1]",
        ] {
            for kind in ["", "ALIAS"] {
                let fault = record("printer", kind, value);
                assert!(fault.contains("not a valid IP address"), "{value}: {fault}");
            }
        }
        for name in ["pi4", "4pi", "1.2.x", "nas.t.net"] {
            assert_eq!(record("a", "", name), format!("a ALIAS {name}"));
        }
    }

    #[test]
    fn names_without_a_dot_are_below_the_base_domain() {
        let full = |name| {
            let record = DnsRecord::parse(name, "A", "1.2.3.4").unwrap();
            record.full_name("t.net")
        };
        assert_eq!((full("a"), full("a.b")), ("a.t.net".into(), "a.b".into()));
        assert_eq!(label_in("pi.t.net", "t.net"), Some("pi"));
        assert_eq!(label_in("pi", "t.net"), Some("pi"));
        for other in ["pi.xt.net", "a.pi.t.net", "t.net", "pi.example.org"] {
            assert_eq!(label_in(other, "t.net"), None, "{other}");
        }
    }

    #[test]
    fn resolvers_are_addresses_and_https_urls() {
        for good in [
            "1.1.1.1",
            "2606:4700:4700::1111",
            "10.0.0.1:5353",
            "[fd00::1]:53",
            "https://dns.example.org/dns-query?x=1",
        ] {
            assert!(good.parse::<Nameserver>().is_ok(), "{good}");
        }
        for bad in [
            "",
            "dns.example.org",
            "0.0.0.0",
            "100.100.100.100",
            "[fd7a:115c:a1e0::53]:53",
            "1.1.1.1:0",
            "http://dns.example.org",
            "https://",
            "https://:443/",
            "https://a b/",
            "https://a/\"",
            "https://user@a/",
            "tls://1.1.1.1",
        ] {
            assert_eq!(bad.parse::<Nameserver>(), Err(InvalidNameserver), "{bad}");
        }
        let is_next_dns = |text: &str| text.parse::<Nameserver>().unwrap().is_next_dns();
        assert!(is_next_dns("https://dns.nextdns.io/abc"));
        assert!(!is_next_dns("https://dns.nextdns.io.example.org/abc"));
    }

    #[test]
    fn a_router_is_a_node_a_tag_or_a_resolver() {
        let router = |text: &str| text.parse::<Router>();
        assert!(matches!(router("192.168.1.1"), Ok(Router::Resolver(_))));
        assert!(matches!(router("Gateway"), Ok(Router::Node(_))));
        assert!(matches!(router("tag:router"), Ok(Router::Node(_))));
        assert_eq!(router("tag:"), Err(InvalidNodeName));
        assert_eq!(router("a b"), Err(InvalidNodeName));
    }
}
