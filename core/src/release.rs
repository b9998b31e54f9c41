//! Versions of the official client, such as 1.102.5.

use std::fmt;
use std::str::FromStr;

/// A release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Release {
    major: u16,
    minor: u16,
    patch: u16,
}

/// Invalid release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("invalid version: expected three numbers, such as 1.102.5")]
pub struct InvalidRelease;

impl Release {
    /// The release of a client with this version (`Hostinfo.IPNVersion`), such as `1.102.5-t0123456-g89abcde`;
    /// `None` if the version is not of that form.
    pub fn of_client(version: &str) -> Option<Self> {
        version.split('-').next()?.parse().ok()
    }
}

impl FromStr for Release {
    type Err = InvalidRelease;

    fn from_str(text: &str) -> Result<Self, InvalidRelease> {
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
            _ => Err(InvalidRelease),
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
    fn releases_are_ordered_and_other_texts_are_invalid() {
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
            assert_eq!(release(bad), Err(InvalidRelease), "{bad}");
        }
        assert_eq!(Release::of_client("tailscale-rs"), None);
    }
}
