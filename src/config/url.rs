//! The URL of the server.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use super::name::DnsName;
use hearth_core::wan::{Kind, kind_of};

/// The host of a URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// A DNS name.
    Name(DnsName),
    /// An IP address.
    Address(IpAddr),
}

impl fmt::Display for Host {
    /// As in a URL: an IPv6 address is in brackets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => name.fmt(f),
            Self::Address(IpAddr::V4(address)) => address.fmt(f),
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
        }
    }
}

/// The scheme of a URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// Plain HTTP: clients accept it for private addresses only.
    Http,
    /// HTTP over TLS.
    Https,
}

impl Scheme {
    /// The port of a URL without one.
    pub fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }

    /// The scheme as in a URL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// `http://host[:port]` or `https://host[:port]`: the value of the client's `--login-server`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerUrl {
    scheme: Scheme,
    host: Host,
    port: Option<u16>,
    text: String,
}

impl ServerUrl {
    /// The URL of these parts. A port that is the default of the scheme is kept: with an explicit
    /// port clients of an `https` URL do not try plain HTTP first
    /// (tailscale `control/ts2021/client.go`, `NewClient`).
    pub fn new(scheme: Scheme, host: Host, port: Option<u16>) -> Self {
        let text = match port {
            Some(port) => format!("{}://{host}:{port}", scheme.as_str()),
            None => format!("{}://{host}", scheme.as_str()),
        };
        Self {
            scheme,
            host,
            port,
            text,
        }
    }

    /// The URL of a listener at this address.
    pub fn at(scheme: Scheme, address: SocketAddr) -> Self {
        Self::new(scheme, Host::Address(address.ip()), Some(address.port()))
    }

    /// The same at another host.
    pub fn with_host(&self, host: Host) -> Self {
        Self::new(self.scheme, host, self.port)
    }

    /// The scheme.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The host.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The port, or the default of the scheme.
    pub fn port(&self) -> u16 {
        self.port.unwrap_or(self.scheme.default_port())
    }

    /// Whether it is plain HTTP and its host is not in a private network: anyone on the way could give clients another
    /// server key, so that these use HTTPS instead (`NewClient` in tailscale `control/ts2021/client.go`).
    pub fn is_plain_and_public(&self) -> bool {
        let is_private = match &self.host {
            Host::Address(address) => matches!(kind_of(*address), Kind::Private | Kind::Local),
            Host::Name(name) => name.as_str() == "localhost",
        };
        self.scheme == Scheme::Http && !is_private
    }

    /// The URL, without a trailing slash.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Why a URL is invalid as `server_url`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidUrl {
    /// Neither `http://` nor `https://` at its start.
    #[error("a URL must start with `http://` or `https://`")]
    Scheme,
    /// The host is neither a name nor an address.
    #[error("the host is neither a DNS name nor an IP address (IPv6 in brackets)")]
    Host,
    /// The port is not a number from 1 to 65535.
    #[error("the port is not a number from 1 to 65535")]
    Port,
    /// Something follows the host and port.
    #[error("the URL must consist of scheme, host and port only, without query or user name")]
    Rest,
    /// A path follows the host and port: clients ask for fixed paths at the root of the host.
    #[error(
        "the URL has a path, and clients cannot use one: they request /key, /ts2021 and /derp at the root of the host; give hearth a host name or port of its own, such as https://hearth.example.org, and forward all paths of it"
    )]
    Path,
}

impl FromStr for ServerUrl {
    type Err = InvalidUrl;

    fn from_str(text: &str) -> Result<Self, InvalidUrl> {
        let lower = text.to_ascii_lowercase();
        let (scheme, rest) = if let Some(rest) = lower.strip_prefix("http://") {
            (Scheme::Http, rest)
        } else if let Some(rest) = lower.strip_prefix("https://") {
            (Scheme::Https, rest)
        } else {
            return Err(InvalidUrl::Scheme);
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains(['?', '#', '@']) {
            return Err(InvalidUrl::Rest);
        }
        if rest.trim_end_matches('/').contains('/') || rest.ends_with('/') {
            return Err(InvalidUrl::Path);
        }
        let (host, port) = if let Some(inner) = rest.strip_prefix('[') {
            let (address, port) = inner.split_once(']').ok_or(InvalidUrl::Host)?;
            let address: Ipv6Addr = address.parse().map_err(|_| InvalidUrl::Host)?;
            (Host::Address(address.into()), port)
        } else {
            let (host, port) = match rest.find(':') {
                Some(colon) => rest.split_at(colon),
                None => (rest, ""),
            };
            (name_or_v4(host)?, port)
        };
        let port = match port.strip_prefix(':') {
            None if port.is_empty() => None,
            Some(digits) => Some(port_number(digits).ok_or(InvalidUrl::Port)?),
            None => return Err(InvalidUrl::Host),
        };
        Ok(Self::new(scheme, host, port))
    }
}

fn name_or_v4(host: &str) -> Result<Host, InvalidUrl> {
    if let Ok(address) = host.parse() {
        return Ok(Host::Address(IpAddr::V4(address)));
    }
    // `10.0.0.300` is a mistyped address, not a name.
    if host
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b'.')
    {
        return Err(InvalidUrl::Host);
    }
    host.parse().map(Host::Name).map_err(|_| InvalidUrl::Host)
}

fn port_number(digits: &str) -> Option<u16> {
    let all_digits = digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|port| all_digits && *port != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_parsed() {
        let url: ServerUrl = "HTTPS://Hearth.Example.org/".parse().unwrap();
        assert_eq!(url.as_str(), "https://hearth.example.org");
        assert_eq!(
            (url.scheme(), url.port(), url.host().to_string()),
            (Scheme::Https, 443, "hearth.example.org".into())
        );
        let url: ServerUrl = "http://[fd00::1]:8080".parse().unwrap();
        assert_eq!(
            url,
            ServerUrl::at(Scheme::Http, "[fd00::1]:8080".parse().unwrap())
        );
    }

    #[test]
    fn plain_urls_are_for_private_networks() {
        for (text, is_bad) in [
            ("http://203.0.113.5:8080", true),
            ("http://hearth.example.org", true),
            ("http://[2001:4860::1]", true),
            ("https://203.0.113.5:8443", false),
            ("http://192.168.1.1:8080", false),
            ("http://[fd00::1]:8080", false),
            ("http://localhost:8080", false),
            ("http://127.0.0.1", false),
        ] {
            let url: ServerUrl = text.parse().unwrap();
            assert_eq!(url.is_plain_and_public(), is_bad, "{text}");
        }
    }

    #[test]
    fn invalid_urls_are_refused_with_the_wrong_part() {
        for (text, fault) in [
            ("hearth.example.org", InvalidUrl::Scheme),
            ("ftp://hearth", InvalidUrl::Scheme),
            ("http://", InvalidUrl::Host),
            ("http://a b", InvalidUrl::Host),
            ("http://10.0.0.300", InvalidUrl::Host),
            ("http://fd00::1", InvalidUrl::Host),
            ("http://[fd00::1", InvalidUrl::Host),
            ("http://[fd00::1]8080", InvalidUrl::Host),
            ("http://host:0", InvalidUrl::Port),
            ("http://host:", InvalidUrl::Port),
            ("http://host:+80", InvalidUrl::Port),
            ("http://host:65536", InvalidUrl::Port),
            ("http://host/path", InvalidUrl::Path),
            ("https://host/path/", InvalidUrl::Path),
            ("https://host//", InvalidUrl::Path),
            ("http://user@host", InvalidUrl::Rest),
            ("http://host?x", InvalidUrl::Rest),
        ] {
            let parsed = text.parse::<ServerUrl>();
            if text == "http://fd00::1" {
                assert!(parsed.is_err(), "{text}");
            } else {
                assert_eq!(parsed, Err(fault), "{text}");
            }
        }
    }
}
