//! DNS names in settings.

use std::fmt;
use std::str::FromStr;

/// Longest name in bytes, without the trailing dot. Source: RFC 1035 section 2.3.4.
pub const MAX_NAME_BYTES: usize = 253;
/// Longest label in bytes. Source: RFC 1035 section 2.3.4.
pub const MAX_LABEL_BYTES: usize = 63;

/// A DNS name of letters, digits and hyphens: lower case, without the trailing dot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsName(String);

impl DnsName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Why no tailnet can have names here: others answer for them, or nobody may. Sources: RFC 6762 (`local`), RFC
    /// 6761 and its registry of special-use names, and `ts.net`, the domain of the official service.
    pub fn reserved_for(&self) -> Option<&'static str> {
        const RESERVED: [(&str, &str); 6] = [
            (
                "local",
                "names there are for mDNS (Bonjour, Avahi), and many systems ask no DNS server",
            ),
            ("localhost", "names there lead to each machine itself"),
            ("invalid", "names there must not exist"),
            ("onion", "names there are for Tor"),
            (
                "arpa",
                "names there belong to the infrastructure of the internet",
            ),
            ("ts.net", "names there belong to the official service"),
        ];
        let mut reserved = RESERVED.iter();
        let found = reserved.find(|(parent, _)| self.is_within(&Self((*parent).to_owned())));
        found.map(|(_, reason)| *reason)
    }

    /// Whether this is `parent` or a name below it.
    pub fn is_within(&self, parent: &Self) -> bool {
        match self.0.strip_suffix(&parent.0) {
            Some(front) => front.is_empty() || front.ends_with('.'),
            None => false,
        }
    }
}

impl fmt::Display for DnsName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An invalid DNS name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected a DNS name: labels of letters, digits and hyphens, separated by dots")]
pub struct InvalidName;

impl FromStr for DnsName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        let is_valid_label = |label: &str| {
            let hyphens_inside = !label.starts_with('-') && !label.ends_with('-');
            let letters = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
            (1..=MAX_LABEL_BYTES).contains(&label.len())
                && hyphens_inside
                && label.bytes().all(letters)
        };
        let is_valid = name.len() <= MAX_NAME_BYTES && name.split('.').all(is_valid_label);
        is_valid.then_some(Self(name)).ok_or(InvalidName)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_lowered_and_lose_the_last_dot() {
        let name: DnsName = "Tail.Example.ORG.".parse().unwrap();
        assert_eq!(name.as_str(), "tail.example.org");
    }

    #[test]
    fn invalid_names_are_refused() {
        let long = "a".repeat(64);
        for text in ["", ".", "a..b", "-a", "a-", "a_b", "a b", "ä", &long] {
            assert_eq!(text.parse::<DnsName>(), Err(InvalidName), "{text:?}");
        }
    }

    #[test]
    fn only_whole_labels_count_as_within() {
        let name = |text: &str| text.parse::<DnsName>().unwrap();
        assert!(name("a.example.org").is_within(&name("example.org")));
        assert!(name("example.org").is_within(&name("example.org")));
        assert!(!name("anexample.org").is_within(&name("example.org")));
    }
}
