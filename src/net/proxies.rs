//! Trusted proxies: reverse proxies whose word about the client of a request or connection counts.
//!
//! What anyone else says in the same headers is ignored.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hearth_core::wan::address::is_near;
use hearth_shares::Lines;
use ipnet::IpNet;
use tokio::time::Instant;

/// The header of most proxies: a list of addresses, to which each proxy adds that of its own client.
const FORWARDED_FOR: &str = "x-forwarded-for";
/// Scheme that the client used.
const FORWARDED_PROTO: &str = "x-forwarded-proto";
/// The standard header. Source: RFC 7239.
const FORWARDED: &str = "forwarded";

/// How long the warning about a proxy that is not trusted outlasts the last header that it sent, and the shortest time
/// between two log entries about one such proxy.
const REMEMBERED: Duration = Duration::from_secs(60 * 60);

/// The lines of a header, joined with commas; empty if there are none.
pub type HeaderLines<'a> = &'a dyn Fn(&str) -> Vec<u8>;

/// Most machines nearby that have a share of the log of their own; all others have one together.
const SHARES_MAX: usize = 32;

/// The trusted proxies, and the last machine nearby that looks like one and is not trusted.
#[derive(Debug)]
pub struct Proxies {
    trusted: Vec<IpNet>,
    began: Instant,
    unnamed: Mutex<Noted>,
}

#[derive(Debug)]
struct Noted {
    newest: Option<Unnamed>,
    log: Lines<IpAddr>,
}

/// A machine nearby that sends headers of a proxy and is not trusted: a proxy, or a device that pretends to be one.
#[derive(Debug, Clone, Copy)]
struct Unnamed {
    address: IpAddr,
    says: &'static str,
    /// When it sent the last header.
    at: Instant,
}

/// Who sent a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Client {
    /// Its address; the port is 0 if unknown.
    pub source: SocketAddr,
    /// Whether it uses TLS, to hearth or to a trusted proxy.
    pub tls: bool,
}

impl Default for Proxies {
    fn default() -> Self {
        Self::new(Vec::new())
    }
}

impl Proxies {
    /// Trusts the proxies with these addresses.
    pub fn new(trusted: Vec<IpNet>) -> Self {
        Self {
            trusted,
            began: Instant::now(),
            unnamed: Mutex::new(Noted {
                newest: None,
                log: Lines::new(1, REMEMBERED, SHARES_MAX),
            }),
        }
    }

    /// Whether this is the address of a trusted proxy.
    pub fn trust(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.trusted.iter().any(|range| range.contains(&address))
    }

    /// Whether a connection from this address may begin with a header of the PROXY protocol: those of trusted proxies,
    /// and those of machines nearby, whose headers cause a warning.
    pub(super) fn may_announce(&self, address: IpAddr) -> bool {
        self.trust(address) || is_near(address)
    }

    /// The client of a request with this header that came from `peer`, with or without TLS.
    pub fn client(&self, peer: SocketAddr, tls: bool, header: HeaderLines<'_>) -> Client {
        let direct = Client { source: peer, tls };
        if !self.trust(peer.ip()) {
            for (name, title) in [(FORWARDED_FOR, "X-Forwarded-For"), (FORWARDED, "Forwarded")] {
                if is_near(peer.ip()) && !header(name).is_empty() {
                    self.note(peer.ip(), title);
                }
            }
            return direct;
        }
        let lines = header(FORWARDED_FOR);
        let lines = String::from_utf8_lossy(&lines);
        // A proxy that sets one of the headers passes the other one of its client on. This is what most set.
        if !lines.trim().is_empty() {
            let proto = header(FORWARDED_PROTO);
            let proto = String::from_utf8_lossy(&proto);
            let hops = lines.rsplit(',').map(|hop| (address(hop), None));
            let last = proto.rsplit(',').next();
            return Client {
                tls: last.and_then(is_https).unwrap_or(tls),
                ..self.follow(direct, hops)
            };
        }
        let lines = header(FORWARDED);
        let lines = String::from_utf8_lossy(&lines);
        self.follow(direct, last_first(&lines, ',').map(element))
    }

    /// Goes from proxy to proxy, the last one first, as long as they are trusted and say who their client is.
    fn follow(
        &self,
        direct: Client,
        hops: impl Iterator<Item = (Option<SocketAddr>, Option<bool>)>,
    ) -> Client {
        let mut client = direct;
        for (source, tls) in hops {
            let Some(source) = source.filter(|_| self.trust(client.source.ip())) else {
                break;
            };
            client.source = source;
            client.tls = tls.unwrap_or(client.tls);
        }
        client
    }

    /// Notes that a machine nearby sends headers of a proxy and is not trusted. The newest one is kept.
    pub(super) fn note(&self, address: IpAddr, says: &'static str) {
        let at = Instant::now();
        let found = Unnamed { address, says, at };
        let mut unnamed = self.lock();
        unnamed.newest = Some(found);
        let elapsed = at.saturating_duration_since(self.began);
        if unnamed.log.take(address, elapsed).is_some() {
            tracing::warn!("{}", found.warning());
        }
    }

    /// The warning about a machine nearby that looks like a proxy and is not trusted, if there was one recently.
    pub fn warning(&self) -> Option<String> {
        let newest = self.lock().newest;
        let lately = newest.filter(|found| found.at.elapsed() < REMEMBERED);
        lately.map(|found| found.warning())
    }

    fn lock(&self) -> MutexGuard<'_, Noted> {
        // What was noted is valid at any moment, so a panic elsewhere cannot spoil it.
        self.unnamed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Unnamed {
    fn warning(&self) -> String {
        let Self { address, says, .. } = self;
        format!(
            "connections from {address} carry {says}, but `listen.trusted_proxies` does not contain {address}: add it \
             only if you run a proxy there (without it all clients of the proxy count as one); any other device must \
             not be in the list"
        )
    }
}

/// An address with or without a port, IPv6 with or without brackets. `None` for anything else, such as `unknown`.
fn address(text: &str) -> Option<SocketAddr> {
    let text = text.trim();
    let bare = text.strip_prefix('[');
    let bare = bare.and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let with_port = || text.parse::<SocketAddr>().ok();
    let without = bare.parse().ok().map(|address| SocketAddr::new(address, 0));
    let found = without.or_else(with_port)?;
    let found = SocketAddr::new(found.ip().to_canonical(), found.port());
    (!found.ip().is_unspecified()).then_some(found)
}

fn is_https(scheme: &str) -> Option<bool> {
    let scheme = scheme.trim();
    let is = |name: &str| scheme.eq_ignore_ascii_case(name);
    (is("https") || is("http") || is("wss") || is("ws")).then(|| is("https") || is("wss"))
}

/// Client and scheme of one element of `Forwarded`. Source: RFC 7239 section 4.
fn element(text: &str) -> (Option<SocketAddr>, Option<bool>) {
    let (mut source, mut tls) = (None, None);
    for pair in last_first(text, ';') {
        let Some((name, value)) = pair.split_once('=') else {
            continue;
        };
        let value = unquoted(value.trim());
        let name = name.trim();
        if name.eq_ignore_ascii_case("for") {
            source = address(&value);
        } else if name.eq_ignore_ascii_case("proto") {
            tls = is_https(&value);
        }
    }
    (source, tls)
}

fn unquoted(text: &str) -> Cow<'_, str> {
    let inner = text
        .strip_prefix('"')
        .and_then(|text| text.strip_suffix('"'));
    match inner {
        Some(inner) if inner.contains('\\') => inner.replace('\\', "").into(),
        Some(inner) => inner.into(),
        None => text.into(),
    }
}

/// The parts of a text between separators outside of quotation marks, the last one first.
///
/// Read from the end, where the nearest proxy writes, so that a quotation mark that its client left open hides nothing.
fn last_first(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let mut is_quoted = false;
        let cut = text.char_indices().rev().find(|(at, letter)| {
            let before = text.get(..*at).unwrap_or_default();
            if *letter == '"' && !before.ends_with('\\') {
                is_quoted = !is_quoted;
            }
            *letter == separator && !is_quoted
        });
        let Some((at, _)) = cut else {
            rest = None;
            return Some(text);
        };
        let (before, part) = text.split_at_checked(at)?;
        rest = Some(before);
        part.strip_prefix(separator)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn proxies() -> Proxies {
        let trusted = ["127.0.0.0/8", "192.168.1.2/32", "2001:db8:ffff::/48"];
        Proxies::new(trusted.map(|range| range.parse().unwrap()).to_vec())
    }

    fn client_of(proxies: &Proxies, peer: &str, headers: &[(&str, &str)]) -> (String, bool) {
        let lines = |name: &str| {
            let values = headers.iter().filter(|(other, _)| *other == name);
            let values: Vec<&str> = values.map(|(_, value)| *value).collect();
            values.join(", ").into_bytes()
        };
        let peer = SocketAddr::new(peer.parse().unwrap(), 9);
        let client = proxies.client(peer, false, &lines);
        (client.source.to_string(), client.tls)
    }

    fn source_of(peer: &str, headers: &[(&str, &str)]) -> String {
        client_of(&proxies(), peer, headers).0
    }

    #[test]
    fn the_last_address_that_is_not_a_trusted_proxy_is_the_client() {
        for (lines, expected) in [
            ("203.0.113.5", "203.0.113.5:0"),
            ("203.0.113.5:4711", "203.0.113.5:4711"),
            ("2001:db8::1", "[2001:db8::1]:0"),
            ("[2001:db8::1]", "[2001:db8::1]:0"),
            ("[2001:db8::1]:80", "[2001:db8::1]:80"),
            ("::ffff:203.0.113.5", "203.0.113.5:0"),
            ("198.51.100.1, 203.0.113.5", "203.0.113.5:0"),
            ("203.0.113.5,192.168.1.2", "203.0.113.5:0"),
            ("203.0.113.5, 2001:db8:ffff::7, 127.0.0.1", "203.0.113.5:0"),
            ("192.168.1.2, 127.0.0.1", "192.168.1.2:0"),
            ("198.51.100.1, unknown", "127.0.0.1:9"),
            ("198.51.100.1, 0.0.0.0", "127.0.0.1:9"),
            ("203.0.113.5, ", "127.0.0.1:9"),
            ("unknown, 192.168.1.2", "192.168.1.2:0"),
            ("fe80::1%eth0", "127.0.0.1:9"),
            ("", "127.0.0.1:9"),
        ] {
            let header = [("x-forwarded-for", lines)];
            assert_eq!(source_of("127.0.0.1", &header), expected, "{lines}");
        }
        let split = [
            ("x-forwarded-for", "198.51.100.1"),
            ("x-forwarded-for", "203.0.113.5"),
        ];
        assert_eq!(source_of("::ffff:127.0.0.1", &split), "203.0.113.5:0");
    }

    #[test]
    fn the_standard_header_is_understood() {
        for (lines, expected) in [
            ("for=203.0.113.5", "203.0.113.5:0"),
            ("For=\"203.0.113.5:80\"", "203.0.113.5:80"),
            (
                "for=\"[2001:db8:cafe::17]:4711\"",
                "[2001:db8:cafe::17]:4711",
            ),
            ("by=10.0.0.1;FOR = 203.0.113.5;host=x", "203.0.113.5:0"),
            ("for=198.51.100.1, for=203.0.113.5", "203.0.113.5:0"),
            ("for=\"a,b\", for=203.0.113.5;host=\"c,d\"", "203.0.113.5:0"),
            ("for=\"203.0.113.5\\\"\"", "127.0.0.1:9"),
            // A client leaves a quotation mark open.
            ("for=\"198.51.100.1, for=203.0.113.5", "203.0.113.5:0"),
            ("for=203.0.113.5, for=192.168.1.2", "203.0.113.5:0"),
            ("for=_hidden, for=192.168.1.2", "192.168.1.2:0"),
            ("for=unknown", "127.0.0.1:9"),
            ("for=_SEVKISEK", "127.0.0.1:9"),
            ("proto=https", "127.0.0.1:9"),
        ] {
            let header = [("forwarded", lines)];
            assert_eq!(source_of("127.0.0.1", &header), expected, "{lines}");
        }
    }

    #[test]
    fn what_a_proxy_passes_on_does_not_hide_what_it_says() {
        let both = [
            ("x-forwarded-for", "203.0.113.5"),
            ("forwarded", "for=198.51.100.1"),
        ];
        assert_eq!(source_of("127.0.0.1", &both), "203.0.113.5:0");
    }

    #[test]
    fn a_trusted_proxy_says_whether_the_client_uses_tls() {
        let proxies = proxies();
        let tls = |peer: &str, header: &[(&str, &str)]| client_of(&proxies, peer, header).1;
        let of = ("x-forwarded-for", "203.0.113.5");
        for (value, expected) in [
            ("https", true),
            ("HTTPS", true),
            ("http", false),
            ("http, https", true),
            ("x", false),
        ] {
            let proto = ("x-forwarded-proto", value);
            assert_eq!(tls("127.0.0.1", &[of, proto]), expected, "{value}");
            assert!(!tls("192.0.2.1", &[of, proto]));
        }
        assert!(tls(
            "127.0.0.1",
            &[("forwarded", "for=203.0.113.5;proto=https")]
        ));
    }

    #[test]
    fn what_others_say_is_ignored_and_a_proxy_nearby_is_named() {
        let proxies = Proxies::new(vec!["192.168.1.2/32".parse().unwrap()]);
        let spoofed = [("x-forwarded-for", "203.0.113.5")];
        for stranger in ["192.0.2.1", "2001:db8::1"] {
            let (source, _) = client_of(&proxies, stranger, &spoofed);
            assert!(source.contains(stranger));
        }
        client_of(&proxies, "127.0.0.1", &[]);
        client_of(&proxies, "192.168.1.2", &spoofed);
        assert_eq!(proxies.warning(), None);
        assert_eq!(client_of(&proxies, "127.0.0.1", &spoofed).0, "127.0.0.1:9");
        let warning = proxies.warning().unwrap();
        assert!(warning.contains("127.0.0.1"), "{warning}");
        assert!(warning.contains("listen.trusted_proxies"), "{warning}");
        assert!(
            warning.contains("only if you run a proxy there"),
            "{warning}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn the_newest_machine_that_looks_like_a_proxy_is_named_for_a_time() {
        let proxies = Proxies::default();
        let spoofed = [("x-forwarded-for", "203.0.113.5")];
        let named = |address: &str| proxies.warning().is_some_and(|all| all.contains(address));
        // A device forges a header before the proxy is there.
        client_of(&proxies, "192.168.1.77", &spoofed);
        assert!(named("192.168.1.77"));
        client_of(&proxies, "127.0.0.1", &spoofed);
        assert!(named("127.0.0.1") && !named("192.168.1.77"));
        for _ in 0..3 {
            tokio::time::advance(REMEMBERED / 2).await;
            client_of(&proxies, "127.0.0.1", &spoofed);
        }
        assert!(named("127.0.0.1"));
        tokio::time::advance(REMEMBERED).await;
        assert_eq!(proxies.warning(), None);
    }

    #[test]
    fn a_device_hides_no_log_entry_about_a_proxy_and_floods_no_log() {
        let proxies = Proxies::default();
        let is_logged = |address: &str| {
            let mut unnamed = proxies.lock();
            let address = address.parse().unwrap();
            unnamed.log.take(address, Duration::ZERO).is_some()
        };
        assert!(is_logged("192.168.1.77") && !is_logged("192.168.1.77"));
        assert!(is_logged("127.0.0.1") && !is_logged("127.0.0.1"));
        let forged = (0..1000).map(|at| format!("fe80::{at:x}"));
        assert!(forged.filter(|address| is_logged(address)).count() < SHARES_MAX);
    }

    #[test]
    fn the_header_of_one_device_does_not_hide_the_proxy_protocol_of_another() {
        let proxies = Proxies::default();
        for device in ["192.168.1.77", "127.0.0.1"] {
            client_of(&proxies, device, &[("x-forwarded-for", "203.0.113.5")]);
            for near in ["192.168.1.77", "192.168.1.2", "127.0.0.1", "fe80::1"] {
                assert!(proxies.may_announce(near.parse().unwrap()), "{near}");
            }
        }
        assert!(!proxies.may_announce("192.0.2.1".parse().unwrap()));
    }

    proptest! {
        /// Whatever a client sends to a proxy, what the proxy adds is what counts.
        #[test]
        fn a_client_cannot_choose_its_address(sent in "[ -~]{0,60}", ours in any::<[u8; 4]>()) {
            let ours = IpAddr::from(ours);
            prop_assume!(!proxies().trust(ours) && !ours.is_unspecified());
            let expected = SocketAddr::new(ours, 0).to_string();
            let added = [("x-forwarded-for", format!("{sent}, {ours}")), ("forwarded", format!("{sent}, for={ours}"))];
            for (name, lines) in added {
                prop_assert_eq!(source_of("127.0.0.1", &[(name, &lines)]), expected.clone());
            }
        }
    }
}
