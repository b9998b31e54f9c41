//! DNS of the tailnet: extra records beside the names of the nodes, and the resolvers that nodes use.
//!
//! All values are valid by construction; `netmap::dns` computes the DNS configuration of each node.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use crate::state::name::{LABEL_MAX, is_label, is_number};

/// Maximum number of records of each source: the configuration, the records file, the API.
pub const RECORDS_MAX: usize = 1024;

/// Longest name, in bytes, without the trailing dot (RFC 1035, section 2.3.4).
const NAME_MAX: usize = 253;

/// Addresses at which clients answer DNS queries themselves: as a resolver they would query themselves.
/// Source: `TailscaleServiceIPString` and its IPv6 form in tailscale `net/tsaddr/tsaddr.go`.
const QUAD_100: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 100)),
    IpAddr::V6(Ipv6Addr::new(0xfd7a, 0x115c, 0xa1e0, 0, 0, 0, 0, 0x53)),
];

/// URL of NextDNS; the path is the profile.
/// Source: <https://tailscale.com/docs/integrations/nextdns>.
pub const NEXT_DNS: &str = "https://dns.nextdns.io";

/// A DNS record: a name and its value.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DnsRecord {
    /// Name in lower case, without the trailing dot. A name without dots is below the base domain.
    pub name: Box<str>,
    /// Value of the record.
    pub value: DnsValue,
}

/// The value of a DNS record.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DnsValue {
    /// An IPv4 address.
    A(Ipv4Addr),
    /// An IPv6 address.
    Aaaa(Ipv6Addr),
    /// The addresses of a node, which is named by label or full name.
    Alias(Box<str>),
}

/// Why a DNS record is invalid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRecord {
    /// The name is invalid.
    #[error(
        "invalid record name {0:?}: expected labels of letters, digits, `-` or `_`, separated by dots"
    )]
    Name(Box<str>),
    /// The name is a wildcard, which clients do not support in records.
    #[error(
        "invalid record name {0:?}: wildcards are not supported; to resolve all subdomains of a node, use `wildcard` in the [dns] section"
    )]
    Wildcard(Box<str>),
    /// The type is not supported.
    #[error("invalid record type {0:?}: expected A, AAAA or ALIAS")]
    Type(Box<str>),
    /// The value looks like an IP address, and is not one.
    #[error("invalid IP address {0:?}")]
    Address(Box<str>),
    /// The name looks like an IP address.
    #[error(
        "invalid record name {0:?}: it looks like an IP address; the name comes first, then the value"
    )]
    AddressAsName(Box<str>),
    /// The value does not match the type.
    #[error("invalid {kind} value {value:?}: expected {expected}")]
    Value {
        /// The type.
        kind: &'static str,
        /// The invalid value.
        value: Box<str>,
        /// What the type requires.
        expected: &'static str,
    },
}

impl DnsRecord {
    /// Parses a record. If the type is empty, an address makes an A or AAAA record and a name an alias.
    ///
    /// # Errors
    /// Names the invalid part.
    pub fn parse(name: &str, kind: &str, value: &str) -> Result<Self, InvalidRecord> {
        if name.contains('*') {
            return Err(InvalidRecord::Wildcard(shortened(name)));
        }
        // A label of digits alone is a name below the base domain.
        if name.contains(['.', ':']) && looks_like_address(name) {
            return Err(InvalidRecord::AddressAsName(shortened(name)));
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
            ("" | "ALIAS", Err(_)) if looks_like_address(value) => {
                return Err(InvalidRecord::Address(shortened(value)));
            }
            ("" | "ALIAS", Err(_)) => {
                let target = plain_name(value);
                DnsValue::Alias(target.ok_or_else(|| wrong("ALIAS", "a node name"))?)
            }
            ("ALIAS", Ok(_)) => return Err(wrong("ALIAS", "a node name")),
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

    /// The full name, without the trailing dot.
    pub fn full_name(&self, base_domain: &str) -> String {
        match self.name.contains('.') {
            true => self.name.to_string(),
            false => format!("{}.{base_domain}", self.name),
        }
    }
}

impl DnsRecord {
    /// Whether the record is for the node name `label`, or names the node of that name.
    pub fn uses(&self, label: &str, base_domain: &str) -> bool {
        let is_it = |name: &str| label_in(name, base_domain) == Some(label);
        is_it(&self.name) || matches!(&self.value, DnsValue::Alias(target) if is_it(target))
    }

    /// The labels of nodes for which this holds.
    fn labels<'a>(&'a self, base_domain: &str) -> impl Iterator<Item = &'a str> {
        let target = match &self.value {
            DnsValue::Alias(target) => label_in(target, base_domain),
            DnsValue::A(_) | DnsValue::Aaaa(_) => None,
        };
        label_in(&self.name, base_domain).into_iter().chain(target)
    }
}

/// The labels of nodes that the configuration and its records use: no device gets one of them for its host name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReservedNames {
    /// Base domain of the tailnet.
    pub base_domain: Box<str>,
    /// The labels.
    pub labels: BTreeSet<Box<str>>,
}

impl ReservedNames {
    /// The names in these settings and these records of a file.
    pub fn of(base_domain: &str, settings: &DnsSettings, file_records: &[DnsRecord]) -> Self {
        let records = settings.records.iter().chain(file_records);
        let of_records = records.flat_map(|record| record.labels(base_domain));
        let of_settings = settings.node_names();
        let of_settings = of_settings.filter_map(|(_, name)| label_in(name, base_domain));
        Self {
            base_domain: base_domain.into(),
            labels: of_records.chain(of_settings).map(Into::into).collect(),
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

/// The first 80 characters of a text, for messages.
fn shortened(text: &str) -> Box<str> {
    text.chars().take(80).collect::<String>().into()
}

/// Whether a text looks like an IP address, rightly or not: a prefix or an address with a port, a name whose last label is
/// a number, which no host name may end in (RFC 1123, section 2.1; in hexadecimal as well, URL standard, section 3.5), or
/// four labels of which three are numbers.
fn looks_like_address(text: &str) -> bool {
    let text = text.strip_suffix('.').unwrap_or(text);
    if text.contains(':') {
        return text
            .bytes()
            .all(|byte| byte.is_ascii_hexdigit() || b":./[]%".contains(&byte));
    }
    let host = text.split('/').next().unwrap_or(text);
    let is_hex = |label: &str| {
        let digits = label.strip_prefix("0x").or(label.strip_prefix("0X"));
        digits.is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
    };
    let is_part = |label: &&str| is_number(label) || is_hex(label);
    let parts = host.split('.').filter(is_part).count();
    host.rsplit('.').next().is_some_and(|last| is_part(&last))
        || (parts == 3 && host.split('.').count() == 4)
}

/// The name in lower case without the trailing dot, if it is valid. Service names have underscores.
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

/// A DNS resolver: an address, an address with a port, or a DNS-over-HTTPS URL.
/// Source: `Resolver.Addr` in tailscale `types/dnstype/dnstype.go`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nameserver(Box<str>);

impl Nameserver {
    /// The text that is sent to clients.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is NextDNS, for which each node gets a URL of its own.
    pub fn is_next_dns(&self) -> bool {
        let rest = self.0.strip_prefix(NEXT_DNS);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?']))
    }

    /// The address; `None` for a URL.
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

/// The text is not a resolver.
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
    // Characters that JSON escapes are invalid in URLs anyway, and tailscale-rs does not unescape them.
    let of_url = |byte: u8| byte.is_ascii_graphic() && !b"\"\\<>^`{|}#@".contains(&byte);
    text.len() <= 512
        && host.bytes().next().is_some_and(|byte| byte != b':')
        && host.bytes().all(of_host)
        && rest.bytes().all(of_url)
}

/// The DNS resolver of the router: which one it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Router {
    /// The one on the machine that hearth runs on: at its tailnet address if it is a node, else at its LAN
    /// address.
    #[default]
    ThisMachine,
    /// The one on this node, or on the nodes with this tag.
    Node(NodeName),
    /// This resolver.
    Resolver(Nameserver),
}

/// The label or full name of a node, or a tag, which stands for all nodes that have it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeName(Box<str>);

impl NodeName {
    /// The text, as `Node::is_named` takes it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The label in a node's label or full name; `None` for a name outside the tailnet.
pub fn label_in<'a>(name: &'a str, base_domain: &str) -> Option<&'a str> {
    let label = match name.contains('.') {
        true => name.strip_suffix(base_domain)?.strip_suffix('.')?,
        false => name,
    };
    is_label(label).then_some(label)
}

/// The text is not a node name or tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected a node name, or a tag such as `tag:web`")]
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

/// Resolver settings of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolution {
    /// Resolvers for all names that no other setting covers.
    pub nameservers: Vec<Nameserver>,
    /// Whether the DNS resolver of the router replaces `nameservers` while its address is known.
    pub use_router: bool,
    /// Whether these resolvers replace the ones of the device; otherwise only devices that cannot use both
    /// use them.
    pub override_local_dns: bool,
    /// Whether these resolvers are also used while the device uses an exit node.
    pub use_with_exit_node: bool,
    /// Split DNS: resolvers by domain. With an empty list the client answers from the records alone.
    pub split: BTreeMap<Box<str>, Vec<Nameserver>>,
    /// Search domains, tried after the base domain.
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

/// A DNS rule: other resolver settings for some nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsRule {
    /// Selectors of the policy language; the rule applies to nodes that match any of them.
    pub target: Vec<Box<str>>,
    /// Resolver settings of these nodes.
    pub resolution: Resolution,
}

/// DNS settings, from the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsSettings {
    /// Whether MagicDNS is on: clients resolve the names of the tailnet themselves.
    pub magic_dns: bool,
    /// Resolver settings of nodes to which no rule applies.
    pub usual: Resolution,
    /// Resolver settings of other nodes; the first rule that matches a node applies.
    pub rules: Vec<DnsRule>,
    /// Which DNS resolver is the router's.
    pub router: Router,
    /// Domain of the LAN, which the DNS resolver of the router answers for.
    pub lan_domain: Option<Box<str>>,
    /// Extra records.
    pub records: Vec<DnsRecord>,
    /// File with more extra records.
    pub records_file: Option<PathBuf>,
    /// Nodes that also answer for every subdomain of their name.
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
    /// The names of nodes in settings other than records, each with its key. Targets of rules may be selectors of the
    /// policy as well.
    pub fn node_names(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let router = match &self.router {
            Router::Node(name) => Some(("dns.router", name.as_str())),
            Router::ThisMachine | Router::Resolver(_) => None,
        };
        let wildcard = self
            .wildcard
            .iter()
            .map(|name| ("dns.wildcard", name.as_str()));
        let targets = self.rules.iter().flat_map(|rule| rule.target.iter());
        let targets = targets.map(|target| ("dns.rules", &**target));
        router.into_iter().chain(wildcard).chain(targets)
    }

    /// Whether any setting uses the DNS resolver of the router.
    pub fn needs_router(&self) -> bool {
        let rules = self.rules.iter().map(|rule| &rule.resolution);
        let mut all = rules.chain([&self.usual]);
        self.lan_domain.is_some() || all.any(|resolution| resolution.use_router)
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
    fn the_value_decides_the_type_of_a_record() {
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
    fn invalid_records_are_rejected_with_a_reason() {
        for (name, kind, value, why) in [
            ("a b", "A", "1.2.3.4", "invalid record name"),
            ("", "A", "1.2.3.4", "invalid record name"),
            ("192.168.1.20", "", "printer", "looks like an IP address"),
            ("192.168.1.300", "", "printer", "looks like an IP address"),
            ("fd00::1", "", "printer", "looks like an IP address"),
            ("*.a", "A", "1.2.3.4", "`wildcard`"),
            ("a", "TXT", "text", "invalid record type \"TXT\""),
            ("a", "CNAME", "b", "invalid record type \"CNAME\""),
            (
                "a",
                "A",
                "fd00::1",
                "invalid A value \"fd00::1\": expected an IPv4",
            ),
            ("a", "AAAA", "1.2.3.4", "invalid AAAA value"),
            ("a", "ALIAS", "1.2.3.4", "expected a node name"),
            ("a", "", "not a name", "expected a node name"),
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
            "192.168.1.300",
            "192.168.1.2o",
            "l92.168.1.2",
            "192.168.1.0x2",
            "0xc0a80102",
            "13",
        ] {
            for kind in ["", "ALIAS"] {
                let fault = record("printer", kind, value);
                assert!(fault.contains("invalid IP address"), "{value}: {fault}");
            }
        }
        for name in ["pi4", "4pi", "1.2.x", "nas.t.net", "1.2.3.t.net", "0xpi"] {
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
