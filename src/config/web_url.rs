//! URLs of outgoing requests, with a pinned certificate.

use std::fmt;
use std::str::FromStr;

use super::url::{InvalidUrl, ServerUrl};

/// Prefix of the hash of a certificate. Source: `DERPNode.CertName` in tailscale
/// `tailcfg/derpmap.go`.
const PIN: &str = "sha256-raw:";

/// `http(s)://host[:port][/path][?query][#sha256-raw:<hash>]`. The hash is that of the certificate in
/// DER form; a pinned certificate may be self-signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebUrl {
    /// Scheme, host and port.
    pub server: ServerUrl,
    /// Path and query; `/` if the URL has none.
    pub path: String,
    /// SHA-256 of the pinned certificate.
    pub pin: Option<[u8; 32]>,
}

/// Why a URL is invalid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidWebUrl {
    /// Scheme, host or port are wrong.
    #[error(transparent)]
    Server(#[from] InvalidUrl),
    /// The path has invalid characters.
    #[error("the path has characters that are not allowed in a URL")]
    Path,
    /// The part after `#` is not a certificate hash.
    #[error("`#` must be followed by `sha256-raw:` and 64 hex digits")]
    Pin,
}

impl WebUrl {
    /// The same server with another path.
    pub fn with_path(&self, path: &str) -> Self {
        Self {
            path: path.to_owned(),
            ..self.clone()
        }
    }

    /// Whether the URL has no path.
    pub fn has_no_path(&self) -> bool {
        self.path == "/"
    }
}

impl fmt::Display for WebUrl {
    /// Without the hash.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.server, self.path)
    }
}

impl FromStr for WebUrl {
    type Err = InvalidWebUrl;

    fn from_str(text: &str) -> Result<Self, InvalidWebUrl> {
        let (text, pin) = match text.split_once('#') {
            None => (text, None),
            Some((text, pin)) => (text, Some(hash(pin).ok_or(InvalidWebUrl::Pin)?)),
        };
        let after_scheme = text.find("://").map_or(0, |at| at + 3);
        let host_end = text
            .get(after_scheme..)
            .and_then(|rest| rest.find(['/', '?']))
            .map_or(text.len(), |at| at + after_scheme);
        let (server, path) = text.split_at(host_end);
        if !path.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(InvalidWebUrl::Path);
        }
        Ok(Self {
            server: server.parse()?,
            path: match path.starts_with('/') {
                true => path.to_owned(),
                false => format!("/{path}"),
            },
            pin,
        })
    }
}

fn hash(pin: &str) -> Option<[u8; 32]> {
    let digits = pin.strip_prefix(PIN)?.to_ascii_lowercase();
    let bytes = data_encoding::HEXLOWER.decode(digits.as_bytes()).ok()?;
    bytes.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_parsed() {
        let url: WebUrl = "https://Home.example:8443/verify?x=1".parse().unwrap();
        assert_eq!(url.server.as_str(), "https://home.example:8443");
        assert_eq!((url.path.as_str(), url.pin), ("/verify?x=1", None));
        let text = format!("http://[fd00::1]?q#sha256-raw:{}", "aB".repeat(32));
        let url: WebUrl = text.parse().unwrap();
        assert_eq!((url.path.as_str(), url.pin), ("/?q", Some([0xab; 32])));
        assert_eq!(url.to_string(), "http://[fd00::1]/?q");
        assert!("https://a.example".parse::<WebUrl>().unwrap().has_no_path());
    }

    #[test]
    fn invalid_urls_are_refused() {
        for text in [
            "home.example/verify",
            "https://home.example/a b",
            "https://home.example#sha256-raw:ab",
            "https://home.example#top",
            "https://user@home.example/",
        ] {
            assert!(text.parse::<WebUrl>().is_err(), "{text}");
        }
    }
}
