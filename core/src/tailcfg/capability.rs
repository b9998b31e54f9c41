//! Capability versions: what a client supports.

use std::fmt;

/// A client's capability version. Source: the list at `CurrentCapabilityVersion` in tailscale
/// `tailcfg/tailcfg.go`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct CapabilityVersion(u16);

impl CapabilityVersion {
    /// Oldest supported client: 1.64 (April 2024).
    pub const OLDEST: Self = Self(90);

    /// The version with this number; invalid numbers count as zero.
    pub fn new(number: i64) -> Self {
        Self(u16::try_from(number).unwrap_or(0))
    }

    /// The number.
    pub fn number(self) -> u16 {
        self.0
    }

    /// Whether the client shows `DisplayMessages`; older ones show `Health`.
    /// Source: the list at `CapabilityVersion` in tailscale `tailcfg/tailcfg.go`.
    pub fn shows_messages(self) -> bool {
        self >= Self(117)
    }

    /// Whether clients of this version are supported.
    pub fn is_served(self) -> bool {
        self >= Self::OLDEST
    }
}

impl fmt::Display for CapabilityVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
