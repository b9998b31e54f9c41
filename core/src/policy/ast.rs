//! A parsed policy: all names that it uses are defined, all values have the right type.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};
use serde_json::Value;

use super::diagnostic::{Diagnostic, Position};
use super::posture::Condition;
use super::ranges::Ranges;

/// A selector: stands for a set of users, nodes or addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selector {
    /// `*`.
    Any,
    /// A login or email address; always with `@`.
    User(Box<str>),
    /// All users of a domain, `user:*@domain`: this domain.
    Domain(Box<str>),
    /// `group:name`.
    Group(Box<str>),
    /// `tag:name`.
    Tag(Box<str>),
    /// `autogroup:name`.
    Autogroup(Autogroup),
    /// An address, a prefix, a host or an IP set; one entry for each prefix or range as written.
    Addresses(Arc<[Ranges]>),
}

impl Selector {
    /// Whether it stands for users, groups, tags or the autogroups of users.
    pub fn names_people(&self) -> bool {
        use Autogroup::{Admin, Member, Nobody, Owner, Tagged};
        matches!(
            self,
            Self::User(_)
                | Self::Domain(_)
                | Self::Group(_)
                | Self::Tag(_)
                | Self::Autogroup(Member | Tagged | Admin | Owner | Nobody)
        )
    }
}

/// Predefined groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Autogroup {
    /// Devices of the same user.
    Owned,
    /// Devices of users.
    Member,
    /// Devices with tags.
    Tagged,
    /// The whole internet, reached by exit nodes.
    Internet,
    /// Every address, also outside the tailnet.
    DangerAll,
    /// Users of an SSH server other than root.
    Nonroot,
    /// Devices of admins.
    Admin,
    /// Devices of the tailnet's owner.
    Owner,
    /// A role of the official service that no user has here.
    Nobody,
}

/// Ports from first to last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ports {
    /// First port.
    pub first: u16,
    /// Last port.
    pub last: u16,
}

impl Ports {
    /// All ports.
    pub const ALL: Self = Self {
        first: 0,
        last: u16::MAX,
    };
}

/// Protocol and ports that are allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// IP protocol number; `None` allows TCP, UDP, ICMP and ICMPv6.
    pub proto: Option<u8>,
    /// The ports.
    pub ports: Vec<Ports>,
}

/// A rule from sources to destinations: a grant, or a part of an acl.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// Position in the policy.
    pub at: Position,
    /// For example `acls[2]`.
    pub name: Box<str>,
    /// Sources.
    pub sources: Vec<Selector>,
    /// Destinations.
    pub destinations: Vec<Selector>,
    /// Allowed protocols and ports.
    pub access: Vec<Access>,
    /// Application capabilities, read by the destination.
    pub app: Arc<BTreeMap<Box<str>, Vec<Value>>>,
    /// Tags of the subnet routers or exit nodes to use; empty: any.
    pub via: Vec<Box<str>>,
    /// Postures of which a source must have one; empty: any.
    pub postures: Vec<Box<str>>,
}

/// How often the user must authenticate again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckPeriod {
    /// For each session.
    Always,
    /// If the last check is older than this.
    Every(Duration),
}

impl CheckPeriod {
    /// Default period. Source: `SSHCheckPeriodDefault` in headscale `hscontrol/policy/v2/types.go`.
    pub const DEFAULT: Self = Self::Every(Duration::from_secs(12 * 60 * 60));
    /// Longest period. Source: `SSHCheckPeriodMax` there.
    pub const MAX: Duration = Duration::from_secs(7 * 24 * 60 * 60);
}

/// A rule of the `ssh` section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshRule {
    /// Position in the policy.
    pub at: Position,
    /// Check period; `None` accepts without a check.
    pub check: Option<CheckPeriod>,
    /// Sources.
    pub sources: Vec<Selector>,
    /// Destinations.
    pub destinations: Vec<Selector>,
    /// Local users of the destination.
    pub users: Vec<Box<str>>,
    /// Environment variables that the client may set, with `*` and `?` as wildcards.
    pub accept_env: Vec<Box<str>>,
    /// Postures of which a source must have one; empty: any.
    pub postures: Vec<Box<str>>,
}

/// An entry of `nodeAttrs`: capabilities and IP pools of some nodes.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeAttr {
    /// The nodes.
    pub targets: Vec<Selector>,
    /// Capabilities without values.
    pub attrs: Vec<Box<str>>,
    /// Capabilities with values.
    pub app: BTreeMap<Box<str>, Vec<Value>>,
    /// Prefixes of their IPv4 addresses (`ipPool`).
    pub pools: Vec<Ipv4Net>,
}

/// A test of acls and grants, as written: an invalid test fails, but the policy still parses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Test {
    /// Position in the policy.
    pub at: Position,
    /// A selector.
    pub src: Box<str>,
    /// Name or number of a protocol; may be empty.
    pub proto: Box<str>,
    /// Destinations that must be allowed, `host:port`.
    pub accept: Vec<Box<str>>,
    /// Destinations that must be denied.
    pub deny: Vec<Box<str>>,
}

/// A test of the `ssh` section, as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshTest {
    /// Position in the policy.
    pub at: Position,
    /// A selector.
    pub src: Box<str>,
    /// Selectors.
    pub dst: Vec<Box<str>>,
    /// Local users that must be accepted.
    pub accept: Vec<Box<str>>,
    /// Local users that must be denied.
    pub deny: Vec<Box<str>>,
    /// Local users that must be accepted after a check.
    pub check: Vec<Box<str>>,
}

/// A DNS record that clients answer themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtraRecord {
    /// The name.
    pub name: Box<str>,
    /// `A`, `AAAA`, or empty to follow the value.
    pub kind: Box<str>,
    /// The address.
    pub value: Box<str>,
}

/// A policy. Made by [`Policy::parse`].
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Policy {
    pub(super) groups: BTreeMap<Box<str>, Vec<Box<str>>>,
    pub(super) hosts: BTreeMap<Box<str>, IpNet>,
    pub(super) ipsets: BTreeMap<Box<str>, Ranges>,
    pub(super) tag_owners: BTreeMap<Box<str>, Vec<Selector>>,
    pub(super) postures: BTreeMap<Box<str>, Vec<Condition>>,
    pub(super) default_postures: Vec<Box<str>>,
    /// Whether acls and grants are both missing, and not only null: everyone reaches everyone.
    pub(super) open: bool,
    pub(super) rules: Vec<Rule>,
    pub(super) ssh: Vec<SshRule>,
    pub(super) node_attrs: Vec<NodeAttr>,
    pub(super) route_approvers: Vec<(IpNet, Vec<Selector>)>,
    pub(super) exit_approvers: Vec<Selector>,
    pub(super) tests: Vec<Test>,
    pub(super) ssh_tests: Vec<SshTest>,
    pub(super) randomize_client_port: bool,
    pub(super) disable_ipv4: bool,
    /// `OneCGNATRoute` other than the default: whether Macs get one route for all addresses.
    pub(super) one_cgnat: Option<bool>,
    pub(super) derp_map: Option<Value>,
    pub(super) extra_records: Vec<ExtraRecord>,
    /// Groups that are used but not defined: they must come from the identity provider.
    pub(super) foreign_groups: Vec<(Position, Box<str>)>,
    /// Domains in `user:*@domain` and `localpart:*@domain`.
    pub(super) domains: Vec<(Position, Box<str>)>,
    /// Where users are named first, and where groups, tags and hosts are defined.
    pub(super) named_at: BTreeMap<Box<str>, Position>,
    /// What is valid and probably not as it was meant.
    pub(super) notes: Vec<Diagnostic>,
    /// Position of the tests.
    pub(super) tests_at: Position,
}

impl Policy {
    /// DNS records that clients answer themselves (`extraDNSRecords`).
    pub fn extra_records(&self) -> &[ExtraRecord] {
        &self.extra_records
    }

    /// DERP map (`derpMap`), JSON of `tailcfg.DERPMap`; `None` if the policy has none.
    pub fn derp_map_json(&self) -> Option<String> {
        self.derp_map.as_ref().map(Value::to_string)
    }

    /// What is valid and probably not as it was meant, as far as the text alone shows.
    pub fn notes(&self) -> &[Diagnostic] {
        &self.notes
    }

    /// The same policy with the tests of another one instead of its own.
    pub fn with_tests_of(&self, other: &Self) -> Self {
        Self {
            tests: other.tests.clone(),
            ssh_tests: other.ssh_tests.clone(),
            tests_at: other.tests_at,
            ..self.clone()
        }
    }
}
