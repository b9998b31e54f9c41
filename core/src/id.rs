//! Typed ids. Each kind of id is a type of its own, so that none can be mistaken for another.
//!
//! Must not know: anything else of this crate.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Largest id, 2^53 - 1: JavaScript clients read numbers as doubles.
/// Source: `tailcfg.ID` in tailscale `tailcfg/tailcfg.go`.
pub const MAX_ID: u64 = (1 << 53) - 1;

/// User id under which tagged nodes appear, in network maps and in lists.
/// Source: `TaggedDevices` in headscale `hscontrol/types/users.go`.
pub const TAGGED_DEVICES: u64 = 2_147_455_555;

/// Login name of [`TAGGED_DEVICES`].
pub const TAGGED_DEVICES_NAME: &str = "tagged-devices";

macro_rules! id_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(u64);

        impl $name {
            /// The id with this number, or `None` outside `1..=MAX_ID`.
            pub fn new(number: u64) -> Option<Self> {
                (1..=MAX_ID).contains(&number).then_some(Self(number))
            }

            /// The first id of its kind.
            pub const FIRST: Self = Self(1);

            /// The id after this one, or `None` if all ids are used.
            pub fn next(self) -> Option<Self> {
                Self::new(self.0.saturating_add(1))
            }

            /// The number itself.
            pub fn number(self) -> u64 {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            /// Digits only: without the sign that Rust's numbers may have.
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                let digits = Some(text).filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
                let number = digits.and_then(|digits| digits.parse().ok());
                number.and_then(Self::new).ok_or(InvalidId)
            }
        }
    };
}

id_type!(
    /// Id of a node. Never reused after the node is deleted.
    NodeId
);
id_type!(
    /// Id of a user.
    UserId
);
id_type!(
    /// Id of a preauth key.
    PreAuthKeyId
);
id_type!(
    /// Id of an API key.
    ApiKeyId
);
id_type!(
    /// Id of a version of the policy.
    PolicyId
);

/// The text is not an id: ids are whole numbers from 1 to [`MAX_ID`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("invalid ID: expected a whole number from 1 to 9007199254740991")]
pub struct InvalidId;

/// Longest [`AuthId`], in bytes.
pub const AUTH_ID_MAX: usize = 48;

/// Characters of an [`AuthId`] that logs show.
const AUTH_ID_SHOWN: usize = 8;

/// Id of a pending registration or SSH check: the unguessable last part of its URL. At most [`AUTH_ID_MAX`]
/// letters, digits, `-` and `_`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AuthId(Box<str>);

impl AuthId {
    /// The text of the id.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first characters of the id, for logs: enough to recognize it, too little to use it.
    pub fn short(&self) -> String {
        let start: String = self.0.chars().take(AUTH_ID_SHOWN).collect();
        start + "…"
    }
}

/// The short form: the whole id is a secret.
impl fmt::Debug for AuthId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.short())
    }
}

impl FromStr for AuthId {
    type Err = InvalidAuthId;

    fn from_str(text: &str) -> Result<Self, InvalidAuthId> {
        let fits = (1..=AUTH_ID_MAX).contains(&text.len());
        let clean = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if fits && text.bytes().all(clean) {
            Ok(Self(text.into()))
        } else {
            Err(InvalidAuthId)
        }
    }
}

impl fmt::Display for AuthId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The text is not an [`AuthId`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("invalid ID: expected 1 to 48 letters, digits, `-` or `_`")]
pub struct InvalidAuthId;

/// Revision of the state: each published change has the next number.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Revision(u64);

impl Revision {
    /// The revision before the first change.
    pub const ZERO: Self = Self(0);

    /// The revision with this number.
    pub fn new(number: u64) -> Self {
        Self(number)
    }

    /// The revision after this one.
    pub fn next(self) -> Self {
        Self(self.0.wrapping_add(1))
    }

    /// The number itself.
    pub fn number(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_show_the_start_of_an_auth_id_only() {
        let id: AuthId = "0123456789abcdef".parse().unwrap();
        assert_eq!(
            (id.short(), format!("{id:?}")),
            ("01234567…".into(), "01234567…".into())
        );
        assert_eq!(id.to_string(), "0123456789abcdef");
    }

    #[test]
    fn ids_stay_within_what_javascript_can_hold() {
        assert_eq!(NodeId::new(0), None);
        assert_eq!(NodeId::new(MAX_ID + 1), None);
        assert_eq!(NodeId::new(MAX_ID).and_then(NodeId::next), None);
        assert_eq!("7".parse::<UserId>().map(UserId::number), Ok(7));
        assert_eq!("-7".parse::<UserId>(), Err(InvalidId));
    }
}
