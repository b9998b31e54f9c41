//! A policy as it was written, checked: every name that it uses is defined, every value is one of its kind.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};
use serde_json::Value;

use crate::policy::diagnostic::Position;
use crate::policy::posture::Condition;
use crate::policy::ranges::Ranges;

/// Names a set of users, nodes or addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selector {
    /// `*`.
    Any,
    /// A login or mail address; always with `@`.
    User(Box<str>),
    /// All users of a domain, `user:*@domain`: this domain.
    Domain(Box<str>),
    /// `group:name`.
    Group(Box<str>),
    /// `tag:name`.
    Tag(Box<str>),
    /// `autogroup:name`.
    Autogroup(Autogroup),
    /// An address, a prefix, a host or an IP set; one entry for each prefix or range that is written.
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

/// The groups that are there without being defined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Autogroup {
    /// Devices of the same user.
    Owned,
    /// Devices of users.
    Member,
    /// Devices with tags.
    Tagged,
    /// All of the internet, by way of exit nodes.
    Internet,
    /// Every address, also those that are not of the tailnet.
    DangerAll,
    /// Users of an SSH server other than root.
    Nonroot,
    /// Devices of those who administer the tailnet.
    Admin,
    /// Devices of the one who set the tailnet up.
    Owner,
    /// A role of the official service that nobody has here.
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

/// What may pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// IP protocol number; without one TCP, UDP, ICMP and ICMPv6 pass.
    pub proto: Option<u8>,
    /// The ports.
    pub ports: Vec<Ports>,
}

/// One way from sources to destinations: a grant, or a part of an acl.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// Where it is written.
    pub at: Position,
    /// As in `acls[2]`.
    pub name: Box<str>,
    /// Who may come.
    pub sources: Vec<Selector>,
    /// Where to.
    pub destinations: Vec<Selector>,
    /// By which protocols and ports.
    pub access: Vec<Access>,
    /// What an application reads at the destination.
    pub app: Arc<BTreeMap<Box<str>, Vec<Value>>>,
    /// Tags of the routers that carry the traffic; empty: any.
    pub via: Vec<Box<str>>,
    /// Postures of which a source must have one; empty: any.
    pub postures: Vec<Box<str>>,
}

/// How often somebody must prove who he is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckPeriod {
    /// With each session.
    Always,
    /// When the last proof is older.
    Every(Duration),
}

impl CheckPeriod {
    /// When a rule names none. Source: `SSHCheckPeriodDefault` in headscale `hscontrol/policy/v2/types.go`.
    pub const DEFAULT: Self = Self::Every(Duration::from_secs(12 * 60 * 60));
    /// The longest. Source: `SSHCheckPeriodMax` there.
    pub const MAX: Duration = Duration::from_secs(7 * 24 * 60 * 60);
}

/// Who may log in where by SSH, and as whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshRule {
    /// Where it is written.
    pub at: Position,
    /// Whether and how often to check; `None` accepts at once.
    pub check: Option<CheckPeriod>,
    /// Who may come.
    pub sources: Vec<Selector>,
    /// Where to.
    pub destinations: Vec<Selector>,
    /// Users of the server.
    pub users: Vec<Box<str>>,
    /// Variables that the client may set, with `*` and `?`.
    pub accept_env: Vec<Box<str>>,
    /// Postures of which a source must have one; empty: any.
    pub postures: Vec<Box<str>>,
}

/// Capabilities and address pools for some nodes.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeAttr {
    /// The nodes.
    pub targets: Vec<Selector>,
    /// Capabilities without values.
    pub attrs: Vec<Box<str>>,
    /// Capabilities with values.
    pub app: BTreeMap<Box<str>, Vec<Value>>,
    /// Where their addresses come from.
    pub pools: Vec<Ipv4Net>,
}

/// A test of acls and grants, as it is written: what is wrong with a test fails that test only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Test {
    /// Where it is written.
    pub at: Position,
    /// A selector.
    pub src: Box<str>,
    /// Name or number of a protocol; may be empty.
    pub proto: Box<str>,
    /// Destinations that must be reached, `host:port`.
    pub accept: Vec<Box<str>>,
    /// Destinations that must not be reached.
    pub deny: Vec<Box<str>>,
}

/// A test of the ssh section, as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshTest {
    /// Where it is written.
    pub at: Position,
    /// A selector.
    pub src: Box<str>,
    /// Selectors.
    pub dst: Vec<Box<str>>,
    /// Users that must get in.
    pub accept: Vec<Box<str>>,
    /// Users that must not get in.
    pub deny: Vec<Box<str>>,
    /// Users that must get in after a check.
    pub check: Vec<Box<str>>,
}

/// A name that clients resolve without asking anyone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtraRecord {
    /// The name.
    pub name: Box<str>,
    /// `A`, `AAAA` or empty for what the value is.
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
    /// Neither acls nor grants are written: everyone reaches everyone.
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
    /// Groups that are used and not defined here: they must come from the identity provider.
    pub(super) foreign_groups: Vec<(Position, Box<str>)>,
    /// Domains whose users are named.
    pub(super) domains: Vec<(Position, Box<str>)>,
    /// Where the tests begin.
    pub(super) tests_at: Position,
}

impl Policy {
    /// Names that clients resolve without asking anyone (`extraDNSRecords`).
    pub fn extra_records(&self) -> &[ExtraRecord] {
        &self.extra_records
    }

    /// The map of relays (`derpMap`), JSON of `tailcfg.DERPMap`; `None` when the policy has none.
    pub fn derp_map_json(&self) -> Option<String> {
        self.derp_map.as_ref().map(Value::to_string)
    }

    /// The same policy with the tests of another one in place of its own.
    pub fn with_tests_of(&self, other: &Self) -> Self {
        Self {
            tests: other.tests.clone(),
            ssh_tests: other.ssh_tests.clone(),
            tests_at: other.tests_at,
            ..self.clone()
        }
    }
}
