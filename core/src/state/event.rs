//! Events: who did what to which thing, one for every committed command.
//!
//! An event is a log line and an entry of the audit log. It never holds a secret: of keys it has the public part,
//! of pending registrations the first characters of the id. Source of the shape: `ConfigurationAuditLog` in the
//! API description of tailscale.com (`eventTime`, `actor`, `target`, `action`, `old`, `new`, `actionDetails`).

use std::fmt;

use hearth_shares::Source;

use crate::clock::Timestamp;
use crate::policy::Owner;
use crate::state::dns::DnsRecord;
use crate::state::model::{ApiKey, Model, Node, PendingRegistration, PreAuthKey, User};
use crate::state::principal::Principal;
use crate::state::secret::SecretKind;

/// Longest text of an event, in bytes; longer ones are cut.
pub const TEXT_MAX: usize = 256;

/// Most entries of the audit log that are read at once.
pub const PAGE_MAX: usize = 32;

/// One committed change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// When it happened.
    pub time: Timestamp,
    /// Who made it.
    pub actor: Actor,
    /// What was done.
    pub action: Action,
    /// What it was done to.
    pub target: Target,
    /// Values before and after.
    pub values: Values,
    /// Where the device is, if one that nobody knows caused it: whose share of the log it is taken from. Not stored.
    pub source: Option<Source>,
}

/// An entry of the audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEntry {
    /// Running number; newer entries have higher ones.
    pub number: u64,
    /// What happened.
    pub event: Event,
}

/// Who made a change, as the state knew them at that moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    /// What kind of principal it is.
    pub kind: ActorKind,
    /// Its id; empty where there is only one of the kind.
    pub id: Box<str>,
    /// Its name: the node's label, the user's login name, the public part of the key.
    pub name: Box<str>,
}

/// What was changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// What kind of thing it is.
    pub kind: TargetKind,
    /// Its id; empty where there is only one of the kind.
    pub id: Box<str>,
    /// Its name after the change.
    pub name: Box<str>,
    /// Which property of it changed, where it is not the thing as a whole.
    pub property: Option<Property>,
}

/// Values before and after a change; empty where there are none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Values {
    /// Value before.
    pub old: Box<str>,
    /// Value after.
    pub new: Box<str>,
    /// What else there is to know.
    pub details: Box<str>,
}

/// An enum with a stored number and a name in the API for each variant.
macro_rules! coded {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $code:literal, $text:literal;)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name {
            $($(#[$variant_doc])* $variant = $code,)*
        }

        impl $name {
            /// The number that stands for it in the database. Released numbers never change.
            pub fn code(self) -> u8 {
                self as u8
            }

            /// The one with this number in the database.
            pub fn from_code(code: u8) -> Option<Self> {
                match code {
                    $($code => Some(Self::$variant),)*
                    _ => None,
                }
            }

            /// Its name in the API; those of tailscale.com where it has one.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                }
            }
        }
    };
}

coded! {
    /// Kind of an [`Actor`].
    ActorKind {
        /// Somebody who may open the Unix socket.
        Socket = 1, "SOCKET";
        /// An API key.
        ApiKey = 2, "API_KEY";
        /// An OAuth client.
        OAuthClient = 3, "OAUTH_CLIENT";
        /// A user who is signed in.
        User = 4, "USER";
        /// A node.
        Node = 5, "NODE";
        /// A device that asks to join.
        Device = 6, "DEVICE";
        /// hearth itself.
        System = 7, "AUTOMATED_WORKER";
    }
}

coded! {
    /// What was done.
    Action {
        /// Made.
        Create = 1, "CREATE";
        /// Changed.
        Update = 2, "UPDATE";
        /// Removed.
        Delete = 3, "DELETE";
        /// Approved.
        Approve = 4, "APPROVE";
        /// Had its approval revoked.
        Revoke = 5, "REVOKE";
        /// Rejected.
        Reject = 6, "REJECT";
        /// Expired, or was made to expire at once.
        Expire = 7, "EXPIRED";
        /// Logged in again.
        Login = 8, "LOGIN";
        /// Logged out.
        Logout = 9, "LOGOUT";
        /// Asked for.
        Request = 10, "REQUEST";
    }
}

coded! {
    /// Kind of a [`Target`].
    TargetKind {
        /// The tailnet as a whole.
        Tailnet = 1, "TAILNET";
        /// A user.
        User = 2, "USER";
        /// A node.
        Node = 3, "NODE";
        /// A preauth key.
        PreAuthKey = 4, "PREAUTH_KEY";
        /// An API key.
        ApiKey = 5, "API_KEY";
        /// A pending registration.
        Registration = 6, "REGISTRATION";
        /// A DNS record.
        DnsRecord = 7, "DNS_RECORD";
        /// The policy.
        Policy = 8, "POLICY";
    }
}

coded! {
    /// Property of a [`Target`].
    Property {
        /// Name of a node or user.
        Name = 1, "MACHINE_NAME";
        /// Role of a user.
        Role = 2, "ROLE";
        /// How long the keys of a user's nodes live.
        KeyLifetime = 3, "MAX_KEY_DURATION";
        /// When the key of a node expires.
        KeyExpiry = 4, "KEY_EXPIRY_TIME";
        /// Routes that a node may serve.
        ApprovedRoutes = 5, "ALLOWED_IPS";
        /// Routes that a node advertises.
        AdvertisedRoutes = 6, "ADVERTISED_ROUTES";
        /// Tags of a node.
        Tags = 7, "ACL_TAGS";
        /// User that owns a node.
        Owner = 8, "OWNER";
        /// Addresses of a node.
        Addresses = 9, "ADDRESS";
        /// Attributes of a node.
        Attributes = 10, "ATTRIBUTES";
        /// Tailnet Lock key of a node.
        LockKey = 11, "TAILNET_LOCK_KEY";
    }
}

impl ActorKind {
    /// How the actor reached the server. Source of the names: `origin` of the configuration audit log in Tailscale's
    /// API v2.
    pub fn origin(self) -> &'static str {
        match self {
            Self::Socket | Self::User => "ADMIN_CONSOLE",
            Self::ApiKey | Self::OAuthClient => "CONFIG_API",
            Self::Node | Self::Device => "NODE",
            Self::System => "CONTROL",
        }
    }
}

impl Event {
    /// Whether the audit log keeps it. What strangers can cause is not kept: they could push out the rest.
    pub fn is_audited(&self) -> bool {
        let is_registration = self.target.kind == TargetKind::Registration;
        !(is_registration && matches!(self.action, Action::Request | Action::Expire))
    }

    /// Whether a device can cause it alone, as often as it likes: by joining, leaving, or its key expiring.
    pub fn is_by_device(&self) -> bool {
        match self.actor.kind {
            ActorKind::Node | ActorKind::Device => true,
            ActorKind::System => self.target.kind == TargetKind::Node,
            _ => false,
        }
    }

    /// What happened in plain words: `node approved`.
    pub fn summary(&self) -> String {
        let noun = self.target.kind.noun();
        let is_node = self.target.kind == TargetKind::Node;
        let verb = match self.action {
            Action::Update => match self.target.property {
                Some(Property::Name) => "renamed",
                Some(property) => return format!("{noun} {} changed", property.noun()),
                None => "changed",
            },
            Action::Create if is_node && self.actor.kind == ActorKind::Node => "joined",
            Action::Create => "created",
            Action::Delete => "deleted",
            Action::Approve => "approved",
            Action::Revoke => "approval revoked",
            Action::Reject => "rejected",
            Action::Expire if is_node => "key expired",
            Action::Expire => "expired",
            Action::Login => "logged in",
            Action::Logout => "logged out",
            Action::Request => "requested",
        };
        format!("{noun} {verb}")
    }
}

impl TargetKind {
    fn noun(self) -> &'static str {
        match self {
            Self::Tailnet => "tailnet",
            Self::User => "user",
            Self::Node => "node",
            Self::PreAuthKey => "preauth key",
            Self::ApiKey => "API key",
            Self::Registration => "registration",
            Self::DnsRecord => "DNS record",
            Self::Policy => "policy",
        }
    }
}

impl Property {
    fn noun(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Role => "role",
            Self::KeyLifetime => "key lifetime",
            Self::KeyExpiry => "key expiry",
            Self::ApprovedRoutes => "approved routes",
            Self::AdvertisedRoutes => "advertised routes",
            Self::Tags => "tags",
            Self::Owner => "owner",
            Self::Addresses => "addresses",
            Self::Attributes => "attributes",
            Self::LockKey => "Tailnet Lock key",
        }
    }
}

impl Actor {
    /// A principal, with the name that the model has for it.
    pub(super) fn of(principal: &Principal, model: &Model) -> Self {
        let (kind, id, name) = match principal {
            Principal::Socket => (ActorKind::Socket, String::new(), String::new()),
            Principal::ApiKey { id, prefix, .. } => {
                let text = key_text(SecretKind::Api, prefix);
                (ActorKind::ApiKey, id.to_string(), text)
            }
            Principal::OAuthClient { id, .. } => {
                (ActorKind::OAuthClient, id.to_string(), id.to_string())
            }
            Principal::Session { user, .. } => {
                let name = model.users.get(user).map(|user| user.name.to_string());
                (ActorKind::User, user.to_string(), name.unwrap_or_default())
            }
            Principal::Node { id } => {
                let name = model.node(*id).map(|node| node.label.to_string());
                (ActorKind::Node, id.to_string(), name.unwrap_or_default())
            }
            Principal::Device => (ActorKind::Device, String::new(), String::new()),
            Principal::System => (ActorKind::System, String::new(), String::new()),
        };
        Self {
            kind,
            id: cut(&id),
            name: cut(&name),
        }
    }
}

/// As a log line has it: `socket`, `api key hskey-api-…`, `node phone`.
impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            ActorKind::Socket => "socket",
            ActorKind::ApiKey => "api key ",
            ActorKind::OAuthClient => "oauth client ",
            ActorKind::User => "user ",
            ActorKind::Node => "node ",
            ActorKind::Device => "device",
            ActorKind::System => "system",
        })?;
        f.write_str(match self.name.is_empty() {
            true => &self.id,
            false => &self.name,
        })
    }
}

impl Target {
    fn new(kind: TargetKind, id: &str, name: &str) -> Self {
        Self {
            kind,
            id: cut(id),
            name: cut(name),
            property: None,
        }
    }

    /// The tailnet as a whole.
    pub(super) fn tailnet() -> Self {
        Self::new(TargetKind::Tailnet, "", "")
    }

    /// A user.
    pub(super) fn user(user: &User) -> Self {
        Self::new(TargetKind::User, &user.id.to_string(), &user.name)
    }

    /// A node.
    pub(super) fn node(node: &Node) -> Self {
        Self::new(TargetKind::Node, &node.id.to_string(), &node.label)
    }

    /// A preauth key, by its public part.
    pub(super) fn preauth_key(key: &PreAuthKey) -> Self {
        let text = key_text(SecretKind::PreAuth, &key.prefix);
        Self::new(TargetKind::PreAuthKey, &key.id.to_string(), &text)
    }

    /// An API key, by its public part.
    pub(super) fn api_key(key: &ApiKey) -> Self {
        let text = key_text(SecretKind::Api, &key.prefix);
        Self::new(TargetKind::ApiKey, &key.id.to_string(), &text)
    }

    /// A pending registration, by the beginning of its id: the whole of it is needed to approve it.
    pub(super) fn registration(pending: &PendingRegistration) -> Self {
        let hostname = &pending.hostinfo.hostname;
        Self::new(TargetKind::Registration, &pending.id.short(), hostname)
    }

    /// A DNS record.
    pub(super) fn dns_record(record: &DnsRecord) -> Self {
        Self::new(TargetKind::DnsRecord, "", &record.name)
    }

    /// The policy.
    pub(super) fn policy() -> Self {
        Self::new(TargetKind::Policy, "", "")
    }

    /// A property of the same.
    pub(super) fn property(self, property: Property) -> Self {
        Self {
            property: Some(property),
            ..self
        }
    }
}

impl Values {
    /// Values before and after.
    pub(super) fn change(old: &str, new: &str) -> Self {
        Self {
            old: cut(old),
            new: cut(new),
            details: Box::default(),
        }
    }

    /// A value that is new, and what else there is to know.
    pub(super) fn made(new: &str, details: &str) -> Self {
        Self {
            details: cut(details),
            ..Self::change("", new)
        }
    }
}

/// The public part of a key as people know it.
pub(super) fn key_text(kind: SecretKind, prefix: &str) -> String {
    format!("{}{prefix}", kind.lead())
}

/// An owner in words: the user's name, or the tags.
pub(super) fn owner_text(model: &Model, owner: &Owner) -> String {
    match owner {
        Owner::User(id) => match model.users.get(id) {
            Some(user) => user.name.to_string(),
            None => id.to_string(),
        },
        Owner::Tags(tags) => tags.join(","),
    }
}

/// When a key expires, in words.
pub(super) fn expiry_text(at: Option<Timestamp>) -> String {
    at.map_or_else(|| "never".to_owned(), |at| at.to_string())
}

/// A list, each part as it shows itself. Ends once the text is long enough to be cut.
pub(super) fn list_text<T: fmt::Display>(parts: &[T]) -> String {
    let mut text = String::new();
    for part in parts {
        if !text.is_empty() {
            text.push(',');
        }
        text.push_str(&part.to_string());
        if text.len() > TEXT_MAX {
            break;
        }
    }
    text
}

/// The text, or as much of it as fits into [`TEXT_MAX`].
fn cut(text: &str) -> Box<str> {
    let mut end = text.len().min(TEXT_MAX);
    while !text.is_char_boundary(end) {
        end = end.saturating_sub(1);
    }
    text.get(..end).unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_lead_back_to_what_they_stand_for() {
        for code in 0..=u8::MAX {
            let same = |found: Option<u8>| found.is_none_or(|found| found == code);
            assert!(same(ActorKind::from_code(code).map(ActorKind::code)));
            assert!(same(Action::from_code(code).map(Action::code)));
            assert!(same(TargetKind::from_code(code).map(TargetKind::code)));
            assert!(same(Property::from_code(code).map(Property::code)));
        }
        assert_eq!(Action::from_code(0), None);
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        let text = "ä".repeat(TEXT_MAX);
        assert_eq!(cut(&text).len(), TEXT_MAX);
        assert_eq!(cut(&format!("a{text}")).len(), TEXT_MAX - 1);
        assert_eq!(&*cut("short"), "short");
    }
}
