//! Types of settings, and how each is read from a value of the file.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use ipnet::{Ipv4Net, Ipv6Net};

use super::name::DnsName;
use super::raw::{Item, RawTable, RawValue};
use super::url::ServerUrl;
use super::web_url::WebUrl;
use hearth_core::keys::NodeKey;
use hearth_core::release::Release;
use hearth_core::state::dns::{Nameserver, NodeName, Router};
use hearth_core::wan::address::{TAILNET_V4, TAILNET_V6};

/// A type of a setting.
pub trait Setting: Sized {
    /// The expected value, for the message about an invalid one.
    const EXPECTED: &'static str;

    /// Reads a value; `None` if it is invalid.
    fn read(value: &RawValue) -> Option<Self>;

    /// Why a value is invalid, where more can be said than what is expected.
    fn reason(_: &RawValue) -> Option<String> {
        None
    }

    /// The invalid items of a list, which `read` skips.
    fn skipped(_: &RawValue) -> Vec<&Item> {
        Vec::new()
    }
}

/// A setting with a smallest and a largest value.
pub trait Amount: Setting + Copy + PartialOrd {
    /// The value as it is written in the file.
    fn show(self) -> String;
}

/// The smallest and the largest value of a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range<T> {
    /// The smallest allowed value.
    pub least: T,
    /// The largest allowed value.
    pub most: T,
}

macro_rules! from_text {
    ($type:ty, $expected:literal) => {
        impl Setting for $type {
            const EXPECTED: &'static str = $expected;

            fn read(value: &RawValue) -> Option<Self> {
                match value {
                    RawValue::Text(text) => text.parse().ok(),
                    _ => None,
                }
            }
        }
    };
}

from_text!(WebUrl, "a URL such as `https://home.example.org/verify`");
from_text!(AdmitKind, "one of `tailnet`, `url`, `keys` and `open`");
from_text!(DnsName, "a DNS name such as `tail.example.org`");
from_text!(
    Router,
    "the name of a node, a tag such as `tag:router`, or the address of a DNS resolver"
);
from_text!(String, "a string");
from_text!(Ipv4Range, "a prefix inside 100.64.0.0/10");
from_text!(Ipv6Range, "a prefix inside fd7a:115c:a1e0::/48");
from_text!(Release, "a version such as `1.102.5`");
from_text!(Ipv4Addr, "an IPv4 address");
from_text!(Ipv6Addr, "an IPv6 address");
from_text!(
    LogLevel,
    "one of `error`, `warn`, `info`, `debug` and `trace`"
);

impl Setting for PathBuf {
    const EXPECTED: &'static str = "a path";

    fn read(value: &RawValue) -> Option<Self> {
        match value {
            RawValue::Text(text) if !text.is_empty() => Some(text.into()),
            _ => None,
        }
    }
}

impl Setting for ServerUrl {
    const EXPECTED: &'static str = "a URL such as `https://hearth.example.org`";

    fn read(value: &RawValue) -> Option<Self> {
        value.text()?.parse().ok()
    }

    fn reason(value: &RawValue) -> Option<String> {
        let fault = value.text()?.parse::<Self>().err()?;
        Some(fault.to_string())
    }
}

impl Setting for bool {
    const EXPECTED: &'static str = "`true` or `false`";

    fn read(value: &RawValue) -> Option<Self> {
        match value {
            RawValue::Boolean(value) => Some(*value),
            RawValue::Integer(number @ (0 | 1)) => Some(*number == 1),
            RawValue::Text(text) => match text.trim().to_ascii_lowercase().as_str() {
                "true" | "yes" | "on" | "1" => Some(true),
                "false" | "no" | "off" | "0" => Some(false),
                _ => None,
            },
            _ => None,
        }
    }
}

/// A whole number; people write it in quotes as well.
fn whole_number(value: &RawValue) -> Option<i64> {
    match value {
        RawValue::Integer(number) => Some(*number),
        RawValue::Text(text) => text.trim().parse().ok(),
        _ => None,
    }
}

impl Setting for usize {
    const EXPECTED: &'static str = "a whole number";

    fn read(value: &RawValue) -> Option<Self> {
        Self::try_from(whole_number(value)?).ok()
    }
}

impl Amount for usize {
    fn show(self) -> String {
        self.to_string()
    }
}

impl Setting for u16 {
    const EXPECTED: &'static str = "a whole number up to 65535";

    fn read(value: &RawValue) -> Option<Self> {
        Self::try_from(whole_number(value)?).ok()
    }
}

impl Amount for u16 {
    fn show(self) -> String {
        self.to_string()
    }
}

/// A label for people: 1 to 63 characters, no control characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label(pub String);

impl Setting for Label {
    const EXPECTED: &'static str = "a string of 1 to 63 characters";

    fn read(value: &RawValue) -> Option<Self> {
        match value {
            RawValue::Text(text) => {
                let is_short = (1..=63).contains(&text.chars().count());
                let is_valid = is_short && !text.chars().any(char::is_control);
                is_valid.then(|| Self(text.clone()))
            }
            _ => None,
        }
    }
}

/// The address of a listener; `None` is off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListenAddress(pub Option<SocketAddr>);

impl ListenAddress {
    /// All addresses, IPv4 and IPv6.
    pub const fn everywhere(port: u16) -> Self {
        Self(Some(SocketAddr::new(
            IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            port,
        )))
    }

    fn at(address: SocketAddr) -> Result<Self, InvalidListenAddress> {
        Ok(Self(Some(address)))
    }
}

/// Words for a listener that is off.
const OFF: [&str; 5] = ["off", "none", "no", "false", "disabled"];

/// Neither an address with a port nor `off`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected an address such as `[::]:8080` or `192.168.1.1:8080`, or `off`")]
pub struct InvalidListenAddress;

impl FromStr for ListenAddress {
    type Err = InvalidListenAddress;

    /// A port alone, with or without a colon or `*:`, means all addresses.
    fn from_str(text: &str) -> Result<Self, InvalidListenAddress> {
        let text = text.trim().to_ascii_lowercase();
        if OFF.contains(&text.as_str()) {
            return Ok(Self(None));
        }
        let port = text.strip_prefix('*').unwrap_or(&text);
        let port = port.strip_prefix(':').unwrap_or(&text);
        match port.parse() {
            // As everywhere in the file, 0 is no. A port that the system chooses needs an address: `[::]:0`.
            Ok(0) => return Ok(Self(None)),
            Ok(port) => return Ok(Self::everywhere(port)),
            Err(_) => {}
        }
        let address = match text.strip_prefix("localhost:") {
            Some(port) => port.parse().map(|port| (Ipv4Addr::LOCALHOST, port).into()),
            None => return text.parse().map_or(Err(InvalidListenAddress), Self::at),
        };
        address.map_or(Err(InvalidListenAddress), Self::at)
    }
}

impl Setting for ListenAddress {
    const EXPECTED: &'static str = "an address such as `[::]:8080` or `192.168.1.1:8080`, or `off`";

    fn read(value: &RawValue) -> Option<Self> {
        match value {
            RawValue::Text(text) => text.parse().ok(),
            RawValue::Integer(port) => port.to_string().parse().ok(),
            RawValue::Boolean(false) => Some(Self(None)),
            _ => None,
        }
    }
}

/// A prefix that clients do not accept for a tailnet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected a prefix inside 100.64.0.0/10 or fd7a:115c:a1e0::/48")]
pub struct InvalidRange;

/// The IPv4 prefix of the nodes: all or a part of 100.64.0.0/10.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ipv4Range(Ipv4Net);

impl Ipv4Range {
    /// Everything that clients accept.
    pub const ALL: Self = Self(TAILNET_V4);
    /// The smallest prefix; fewer addresses cannot be meant.
    const LONGEST: u8 = 29;

    /// The lowest address.
    pub fn first(self) -> Ipv4Addr {
        self.0.network()
    }

    /// The highest address.
    pub fn last(self) -> Ipv4Addr {
        self.0.broadcast()
    }

    /// The prefix length in bits.
    pub fn bits(self) -> u8 {
        self.0.prefix_len()
    }

    /// Whether the range contains the address.
    pub fn contains(self, address: Ipv4Addr) -> bool {
        self.0.contains(&address)
    }
}

impl fmt::Display for Ipv4Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Ipv4Range {
    type Err = InvalidRange;

    fn from_str(text: &str) -> Result<Self, InvalidRange> {
        let net: Ipv4Net = text.parse().map_err(|_| InvalidRange)?;
        let fits = TAILNET_V4.contains(&net) && net.prefix_len() <= Self::LONGEST;
        fits.then_some(Self(net.trunc())).ok_or(InvalidRange)
    }
}

/// The IPv6 prefix of the nodes: all or a part of fd7a:115c:a1e0::/48.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ipv6Range(Ipv6Net);

impl Ipv6Range {
    /// Everything that clients accept.
    pub const ALL: Self = Self(TAILNET_V6);
    /// The smallest prefix; fewer addresses cannot be meant.
    const LONGEST: u8 = 112;

    /// The lowest address.
    pub fn first(self) -> Ipv6Addr {
        self.0.network()
    }

    /// The highest address.
    pub fn last(self) -> Ipv6Addr {
        self.0.broadcast()
    }

    /// The prefix length in bits.
    pub fn bits(self) -> u8 {
        self.0.prefix_len()
    }

    /// Whether the range contains the address.
    pub fn contains(self, address: Ipv6Addr) -> bool {
        self.0.contains(&address)
    }
}

impl fmt::Display for Ipv6Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Ipv6Range {
    type Err = InvalidRange;

    fn from_str(text: &str) -> Result<Self, InvalidRange> {
        let net: Ipv6Net = text.parse().map_err(|_| InvalidRange)?;
        let fits = TAILNET_V6.contains(&net) && net.prefix_len() <= Self::LONGEST;
        fits.then_some(Self(net.trunc())).ok_or(InvalidRange)
    }
}

/// A list whose items are read from strings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct List<T>(pub Vec<T>);

/// Longest list, in items; nobody writes a longer one by hand.
const MAX_LIST: usize = 4096;

/// The items of a list that `read` understands; `None` where there are others only: most empty lists mean
/// something.
pub(super) fn read_list<T>(
    value: &RawValue,
    read: impl Fn(&RawValue) -> Option<T>,
) -> Option<List<T>> {
    let RawValue::List(items) = value else {
        return None;
    };
    let valid: Vec<T> = items.iter().filter_map(|item| read(&item.value)).collect();
    let is_empty_by_mistake = valid.is_empty() && !items.is_empty();
    (items.len() <= MAX_LIST && !is_empty_by_mistake).then_some(List(valid))
}

/// The items of a list that `read` does not understand.
pub(super) fn skipped_in<T>(value: &RawValue, read: impl Fn(&RawValue) -> Option<T>) -> Vec<&Item> {
    let RawValue::List(items) = value else {
        return Vec::new();
    };
    let invalid = items.iter().filter(|item| read(&item.value).is_none());
    invalid.collect()
}

/// Reads an item from a string.
pub(super) fn from_item<T: FromStr>(item: &RawValue) -> Option<T> {
    item.text()?.parse().ok()
}

macro_rules! list_of {
    ($type:ty, $expected:literal) => {
        impl Setting for List<$type> {
            const EXPECTED: &'static str = $expected;

            fn read(value: &RawValue) -> Option<Self> {
                read_list(value, from_item)
            }

            fn skipped(value: &RawValue) -> Vec<&Item> {
                skipped_in(value, from_item::<$type>)
            }
        }
    };
}

list_of!(
    WebUrl,
    "a list of URLs such as `[\"https://relay.example.org\"]`"
);
list_of!(
    PathBuf,
    "a list of paths such as `[\"/etc/hearth/derp.yaml\"]`"
);
list_of!(
    Nameserver,
    "a list of DNS resolvers, each an address such as `192.168.1.1` or an `https://` URL"
);
list_of!(DnsName, "a list of domains such as `[\"corp.example\"]`");
list_of!(
    NodeName,
    "a list of node names and tags such as `[\"nas\", \"tag:web\"]`"
);
list_of!(String, "a list of strings such as `[\"tag:kids\"]`");
list_of!(IpAddr, "a list of addresses such as `[\"203.0.113.5\"]`");
list_of!(NodeKey, "a list of node keys such as `[\"nodekey:...\"]`");

impl Setting for RawTable {
    const EXPECTED: &'static str = "a table";

    fn read(value: &RawValue) -> Option<Self> {
        match value {
            RawValue::Table(table) => Some(table.clone()),
            _ => None,
        }
    }
}

impl Setting for List<RawTable> {
    const EXPECTED: &'static str = "a list of tables";

    fn read(value: &RawValue) -> Option<Self> {
        read_list(value, RawTable::read)
    }

    fn skipped(value: &RawValue) -> Vec<&Item> {
        skipped_in(value, RawTable::read)
    }
}

/// How the relay admits clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdmitKind {
    /// Nodes of this tailnet.
    Tailnet,
    /// By the answer of another server.
    Url,
    /// By a list of node keys.
    Keys,
    /// Anyone.
    Open,
}

impl FromStr for AdmitKind {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text.trim().to_ascii_lowercase().as_str() {
            "tailnet" => Ok(Self::Tailnet),
            "url" => Ok(Self::Url),
            "keys" => Ok(Self::Keys),
            "open" => Ok(Self::Open),
            _ => Err(()),
        }
    }
}

/// A factor from 0.01 to 100, in thousandths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Score(pub u32);

impl Score {
    /// The factor as a number.
    pub fn factor(self) -> f64 {
        f64::from(self.0) / 1000.0
    }
}

impl Setting for Score {
    const EXPECTED: &'static str = "a factor from 0.01 to 100, such as `0.5`";

    fn read(value: &RawValue) -> Option<Self> {
        let factor = match value {
            RawValue::Fraction(text) => text.parse().ok()?,
            RawValue::Integer(number) => f64::from(i32::try_from(*number).ok()?),
            _ => return None,
        };
        // Out of range, infinite or not a number: the conversion saturates.
        let thousandths = (factor * 1000.0).round() as u32;
        (10..=100_000)
            .contains(&thousandths)
            .then_some(Self(thousandths))
    }
}

/// The log level; each includes those above it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Failures that need attention.
    Error,
    /// Problems that hearth works around.
    Warn,
    /// Changes: of nodes, keys and users, of the policy, of public addresses, and reloads.
    Info,
    /// Details of requests and connections.
    Debug,
    /// Everything, for development.
    Trace,
}

/// An unknown log level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected one of `error`, `warn`, `info`, `debug` and `trace`")]
pub struct InvalidLogLevel;

impl FromStr for LogLevel {
    type Err = InvalidLogLevel;

    fn from_str(text: &str) -> Result<Self, InvalidLogLevel> {
        match text.to_ascii_lowercase().as_str() {
            "error" => Ok(Self::Error),
            "warn" => Ok(Self::Warn),
            "info" => Ok(Self::Info),
            "debug" => Ok(Self::Debug),
            "trace" => Ok(Self::Trace),
            _ => Err(InvalidLogLevel),
        }
    }
}

/// A size in bytes, written as a whole number or with the unit `KiB` or `MiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteCount(pub usize);

impl Setting for ByteCount {
    const EXPECTED: &'static str = "a size such as `65536`, `\"64KiB\"` or `\"4MiB\"`";

    fn read(value: &RawValue) -> Option<Self> {
        let (number, unit) = match value {
            RawValue::Integer(number) => (usize::try_from(*number).ok()?, 1),
            RawValue::Text(text) => {
                let (digits, unit) = split_number(text)?;
                let unit = match unit {
                    "" | "B" => 1,
                    "KiB" => 1 << 10,
                    "MiB" => 1 << 20,
                    _ => return None,
                };
                (digits.parse().ok()?, unit)
            }
            _ => return None,
        };
        number.checked_mul(unit).map(Self)
    }
}

impl Amount for ByteCount {
    fn show(self) -> String {
        match self.0 {
            bytes if bytes >= 1 << 20 && bytes.is_multiple_of(1 << 20) => {
                format!("{}MiB", bytes >> 20)
            }
            bytes if bytes >= 1 << 10 && bytes.is_multiple_of(1 << 10) => {
                format!("{}KiB", bytes >> 10)
            }
            bytes => bytes.to_string(),
        }
    }
}

impl Setting for Duration {
    const EXPECTED: &'static str = "a duration such as `90s`, `30m`, `12h` or `180d`";

    fn read(value: &RawValue) -> Option<Self> {
        match value {
            RawValue::Integer(0) => Some(Self::ZERO),
            RawValue::Text(text) => parse_duration(text),
            _ => None,
        }
    }
}

impl Amount for Duration {
    fn show(self) -> String {
        show_duration(self)
    }
}

/// Words for no end.
const NEVER: [&str; 3] = ["never", "none", "off"];

/// A duration that may be `never`, which is `None`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expiry(pub Option<Duration>);

impl Setting for Expiry {
    const EXPECTED: &'static str = "a duration such as `180d`, or `never`";

    fn read(value: &RawValue) -> Option<Self> {
        match value {
            RawValue::Text(text) if NEVER.contains(&text.trim().to_ascii_lowercase().as_str()) => {
                Some(Self(None))
            }
            value => {
                let duration = Duration::read(value)?;
                Some(Self((!duration.is_zero()).then_some(duration)))
            }
        }
    }
}

/// Parses `90s`, `1h30m`, `180d`, `180 days`: whole numbers with the units ms, s, m, h, d, w and y (365
/// days) or their names, or `0`. Source of the units: `ParseDuration` in prometheus
/// `common/model/time.go`, which Headscale uses for its flags.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let (digits, after) = split_number(rest)?;
        let after = after.trim_start();
        let letters = after
            .find(|letter: char| !letter.is_ascii_alphabetic())
            .unwrap_or(after.len());
        let (unit, next) = after.split_at_checked(letters)?;
        let ms = digits.parse::<u64>().ok()?.checked_mul(unit_ms(unit)?)?;
        total = total.checked_add(Duration::from_millis(ms))?;
        rest = next.trim_start();
    }
    (!text.is_empty()).then_some(total)
}

/// The milliseconds of a unit. `M` may be minutes or months, and a month has no fixed length.
fn unit_ms(unit: &str) -> Option<u64> {
    const SECOND: u64 = 1000;
    const DAY: u64 = 24 * 60 * 60 * SECOND;
    if unit == "M" {
        return None;
    }
    Some(match unit.to_ascii_lowercase().as_str() {
        "ms" => 1,
        "s" | "sec" | "secs" | "second" | "seconds" => SECOND,
        "m" | "min" | "mins" | "minute" | "minutes" => 60 * SECOND,
        "h" | "hour" | "hours" => 60 * 60 * SECOND,
        "d" | "day" | "days" => DAY,
        "w" | "week" | "weeks" => 7 * DAY,
        "y" | "year" | "years" => 365 * DAY,
        _ => return None,
    })
}

/// Formats a duration so that [`parse_duration`] reads it: the largest units first, `0s` for zero.
pub fn show_duration(duration: Duration) -> String {
    let mut ms = duration.as_millis();
    let mut text = String::new();
    for (unit, name) in [
        (24 * 60 * 60 * 1000, "d"),
        (60 * 60 * 1000, "h"),
        (60 * 1000, "m"),
        (1000, "s"),
        (1, "ms"),
    ] {
        let count = ms / unit;
        ms %= unit;
        if count > 0 {
            text.push_str(&format!("{count}{name}"));
        }
    }
    if text.is_empty() { "0s".into() } else { text }
}

/// Splits leading digits from the rest; `None` without digits.
fn split_number(text: &str) -> Option<(&str, &str)> {
    let end = text
        .find(|letter: char| !letter.is_ascii_digit())
        .unwrap_or(text.len());
    (end > 0).then(|| text.split_at_checked(end)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_survive_text() {
        for text in ["90d", "1h30m", "2m", "50s", "250ms", "0s"] {
            assert_eq!(
                parse_duration(text).map(show_duration).as_deref(),
                Some(text)
            );
        }
        for (text, same) in [
            ("1w", "7d"),
            ("180 days", "180d"),
            (" 1 Day 12 hours", "36h"),
            ("30MIN", "30m"),
        ] {
            assert_eq!(parse_duration(text), parse_duration(same), "{text}");
        }
        assert_eq!(parse_duration("0"), Some(Duration::ZERO));
        for text in [
            "",
            "5",
            "h",
            "5 5m",
            "5M",
            "2 months",
            "-5m",
            "1.5h",
            "5x",
            "99999999999999999999y",
        ] {
            assert_eq!(parse_duration(text), None, "{text:?}");
        }
    }

    #[test]
    fn sizes_take_binary_units() {
        let read = |text: &str| ByteCount::read(&RawValue::Text(text.into()));
        assert_eq!(read("64KiB"), Some(ByteCount(65_536)));
        assert_eq!(read("64KiB").map(ByteCount::show).as_deref(), Some("64KiB"));
        assert_eq!(ByteCount(65_535).show(), "65535");
        for text in ["", "KiB", "64KB", "99999999999999999999", "1.5MiB"] {
            assert_eq!(read(text), None, "{text:?}");
        }
    }

    #[test]
    fn listen_addresses_have_short_forms() {
        let everywhere = Ok(ListenAddress::everywhere(8080));
        for text in ["[::]:8080", ":8080", "8080", "*:8080"] {
            assert_eq!(text.parse(), everywhere, "{text}");
        }
        assert_eq!("off".parse(), Ok(ListenAddress(None)));
        assert_eq!(
            "10.0.0.1:80".parse(),
            Ok(ListenAddress("10.0.0.1:80".parse().ok()))
        );
        assert_eq!(
            "localhost:80".parse(),
            Ok(ListenAddress("127.0.0.1:80".parse().ok()))
        );
        for text in [
            "",
            "10.0.0.1",
            "on",
            "localhost",
            "localhost:",
            ":99999",
            "*",
        ] {
            assert_eq!(
                text.parse::<ListenAddress>(),
                Err(InvalidListenAddress),
                "{text:?}"
            );
        }
    }

    #[test]
    fn prefixes_stay_inside_what_clients_accept() {
        let range: Ipv4Range = "100.100.0.7/16".parse().unwrap();
        assert_eq!(range.to_string(), "100.100.0.0/16");
        assert_eq!(range.last(), Ipv4Addr::new(100, 100, 255, 255));
        assert_eq!(Ipv4Range::ALL.to_string(), "100.64.0.0/10");
        assert_eq!(Ipv4Range::ALL.last(), Ipv4Addr::new(100, 127, 255, 255));
        assert_eq!(Ipv6Range::ALL.to_string(), "fd7a:115c:a1e0::/48");
        let range: Ipv6Range = "fd7a:115c:a1e0:ab::/64".parse().unwrap();
        assert!(range.contains(range.last()));
        for text in [
            "10.0.0.0/8",
            "100.64.0.0/9",
            "100.64.0.0/33",
            "100.128.0.0/16",
            "100.64.0.0",
        ] {
            assert_eq!(text.parse::<Ipv4Range>(), Err(InvalidRange), "{text}");
        }
        for text in ["fd00::/48", "fd7a:115c:a1e0::/47", "fd7a:115c:a1e0::/129"] {
            assert_eq!(text.parse::<Ipv6Range>(), Err(InvalidRange), "{text}");
        }
    }
}
