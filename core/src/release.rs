//! Versions of the official client, such as 1.102.5.

use std::fmt;
use std::str::FromStr;

/// A released version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Release {
    major: u16,
    minor: u16,
    patch: u16,
}

/// A text that is no version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a version is three numbers, such as 1.102.5")]
pub struct NoRelease;

impl Release {
    /// The release that a client was built from, by what it calls itself (`Hostinfo.IPNVersion`), such as
    /// `1.102.5-t0123456-g89abcde`; `None` when it cannot be told.
    pub fn of_client(version: &str) -> Option<Self> {
        version.split('-').next()?.parse().ok()
    }
}

impl FromStr for Release {
    type Err = NoRelease;

    fn from_str(text: &str) -> Result<Self, NoRelease> {
        let is_plain = |byte: u8| byte.is_ascii_digit() || byte == b'.';
        let mut numbers = text.split('.').map(str::parse);
        match (
            numbers.next(),
            numbers.next(),
            numbers.next(),
            numbers.next(),
        ) {
            (Some(Ok(major)), Some(Ok(minor)), Some(Ok(patch)), None)
                if text.bytes().all(is_plain) =>
            {
                Ok(Self {
                    major,
                    minor,
                    patch,
                })
            }
            _ => Err(NoRelease),
        }
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_have_an_order_and_nothing_else_is_one() {
        let release = |text: &str| text.parse::<Release>();
        assert!(release("1.102.5").ok() > release("1.64.10").ok());
        assert_eq!(Release::of_client("1.102.5-t0-g1"), release("1.102.5").ok());
        assert_eq!(release("1.102.5").unwrap().to_string(), "1.102.5");
        for bad in [
            "",
            "1.2",
            "1.2.3.4",
            "1.2.x",
            "+1.2.3",
            "1.2.99999",
            "v1.2.3",
        ] {
            assert_eq!(release(bad), Err(NoRelease), "{bad}");
        }
        assert_eq!(Release::of_client("tailscale-rs"), None);
    }
}
