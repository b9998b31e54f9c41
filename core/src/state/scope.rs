//! Scopes: what an API key, an OAuth client or a session may do.
//!
//! Source of the names: the `securitySchemes` of Tailscale's OpenAPI document (API v2).

use std::fmt;
use std::str::FromStr;

macro_rules! areas {
    ($($(#[$doc:meta])* $variant:ident = $name:literal;)*) => {
        /// One part of the API that a scope opens.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Area {
            $($(#[$doc])* $variant,)*
        }

        impl Area {
            /// All areas, in the order of their bits.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The name of the scope that opens this area for reading and writing.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

// The order is stored in the database: add new areas at the end.
areas! {
    /// Settings of the account.
    AccountSettings = "account_settings";
    /// API keys.
    ApiAccessTokens = "api_access_tokens";
    /// Preauth keys.
    AuthKeys = "auth_keys";
    /// Invitations to devices.
    DeviceInvites = "device_invites";
    /// Devices, pending registrations, SSH approvals, requests to a device.
    DevicesCore = "devices:core";
    /// Posture attributes of devices.
    DevicesPostureAttributes = "devices:posture_attributes";
    /// Subnet routes and exit nodes.
    DevicesRoutes = "devices:routes";
    /// DNS settings and records.
    Dns = "dns";
    /// Features that can be switched on and off.
    FeatureSettings = "feature_settings";
    /// Federated identities.
    FederatedKeys = "federated_keys";
    /// Streaming of logs to other services.
    LogStreaming = "log_streaming";
    /// The audit log.
    LogsConfiguration = "logs:configuration";
    /// Network flow logs.
    LogsNetwork = "logs:network";
    /// Settings of the tailnet's network: public addresses, relays.
    NetworkingSettings = "networking_settings";
    /// OAuth applications.
    OauthApps = "oauth_apps";
    /// OAuth clients.
    OauthKeys = "oauth_keys";
    /// The policy file.
    PolicyFile = "policy_file";
    /// Tailscale Services.
    Services = "services";
    /// Users.
    Users = "users";
    /// Webhooks.
    Webhooks = "webhooks";
}

/// The right to read or to change one area, or all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scope {
    /// The area; `None` is all of them.
    area: Option<Area>,
    /// Whether it covers changes, too. The right to change an area includes reading it.
    write: bool,
}

impl Scope {
    /// Reading this area.
    pub const fn read(area: Area) -> Self {
        Self {
            area: Some(area),
            write: false,
        }
    }

    /// Reading and changing this area.
    pub const fn write(area: Area) -> Self {
        Self {
            area: Some(area),
            write: true,
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.area.map_or("all", Area::name))?;
        if self.write {
            return Ok(());
        }
        f.write_str(":read")
    }
}

/// The text names no scope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown scope {0:?}: expected `all`, `devices:core`, `policy_file:read`, …")]
pub struct UnknownScope(pub Box<str>);

impl FromStr for Scope {
    type Err = UnknownScope;

    fn from_str(text: &str) -> Result<Self, UnknownScope> {
        let (name, write) = match text.strip_suffix(":read") {
            Some(name) => (name, false),
            None => (text, true),
        };
        let area = match name {
            "all" => None,
            _ => {
                let found = Area::ALL.iter().find(|area| area.name() == name);
                Some(*found.ok_or_else(|| UnknownScope(text.into()))?)
            }
        };
        Ok(Self { area, write })
    }
}

/// A set of scopes.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Scopes(u64);

impl Scopes {
    /// No scope at all.
    pub const NONE: Self = Self(0);
    /// Every scope, those of later versions included.
    pub const ALL: Self = Self(u64::MAX);

    /// The set with these bits, as the database has it. Unknown bits do no harm.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The bits, for the database.
    pub const fn to_bits(self) -> u64 {
        self.0
    }

    /// This set and one scope more.
    #[must_use]
    pub fn with(self, scope: Scope) -> Self {
        Self(self.0 | bits(scope))
    }

    /// Whether everything that `scope` opens is in this set.
    pub fn allow(self, scope: Scope) -> bool {
        let wanted = bits(scope);
        self.0 & wanted == wanted
    }

    /// Whether every scope of `other` is in this set.
    pub const fn include(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether the set is empty.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The scopes that make up this set, the widest ones only.
    pub fn to_vec(self) -> Vec<Scope> {
        let everything = |write| Scope { area: None, write };
        if self.allow(everything(true)) {
            return vec![everything(true)];
        }
        let mut scopes = Vec::new();
        let reads_all = self.allow(everything(false));
        if reads_all {
            scopes.push(everything(false));
        }
        for &area in Area::ALL {
            if self.allow(Scope::write(area)) {
                scopes.push(Scope::write(area));
            } else if !reads_all && self.allow(Scope::read(area)) {
                scopes.push(Scope::read(area));
            }
        }
        scopes
    }
}

/// Two bits for each area: reading, then changing. "All" has the unused ones as well, so that it covers
/// areas of later versions.
fn bits(scope: Scope) -> u64 {
    const READS: u64 = 0x5555_5555_5555_5555;
    match (scope.area, scope.write) {
        (None, true) => u64::MAX,
        (None, false) => READS,
        (Some(area), write) => {
            let both = if write { 0b11 } else { 0b01 };
            both << (2 * area as u32)
        }
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        scopes.into_iter().fold(Self::NONE, Self::with)
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, scope) in self.to_vec().iter().enumerate() {
            let space = if index == 0 { "" } else { " " };
            write!(f, "{space}{scope}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Scopes({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scopes(names: &[&str]) -> Scopes {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    #[test]
    fn writing_includes_reading_and_not_the_other_way_round() {
        let write = scopes(&["devices:core"]);
        assert!(write.allow(Scope::read(Area::DevicesCore)));
        assert!(write.allow(Scope::write(Area::DevicesCore)));
        assert!(!write.allow(Scope::read(Area::DevicesRoutes)));
        let read = scopes(&["devices:core:read"]);
        assert!(read.allow(Scope::read(Area::DevicesCore)));
        assert!(!read.allow(Scope::write(Area::DevicesCore)));
    }

    #[test]
    fn all_covers_every_area_and_all_read_changes_none() {
        for &area in Area::ALL {
            assert!(Scopes::ALL.allow(Scope::write(area)));
            assert!(!Scopes::NONE.allow(Scope::read(area)));
            let read = scopes(&["all:read"]);
            assert!(read.allow(Scope::read(area)) && !read.allow(Scope::write(area)));
        }
        assert_eq!(scopes(&["all"]), Scopes::ALL);
    }

    #[test]
    fn names_are_read_back_and_unknown_ones_are_refused() {
        let names = ["auth_keys", "devices:core:read", "policy_file"];
        assert_eq!(scopes(&names).to_string(), names.join(" "));
        assert_eq!(scopes(&["all:read", "users"]).to_string(), "all:read users");
        for bad in ["", "devices", "devices:core:write", ":read", "All"] {
            assert!(bad.parse::<Scope>().is_err(), "{bad:?}");
        }
    }
}
