//! A policy applied to the users: all that does not depend on the nodes.

use std::collections::BTreeMap;
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net};
use serde_json::Value;

use crate::policy::ast::{Access, CheckPeriod, Policy, Ports, Selector};
use crate::policy::compiled::DISABLE_IPV4;
use crate::policy::diagnostic::Position;
use crate::policy::directory::{Node, Owner, Role, User};
use crate::policy::members::{Members, People, Sources, is_exit, subnets};
use crate::policy::posture::Condition;

/// Name of the one rule of a policy without acls and grants.
pub const DEFAULT_RULE: &str = "the default";

/// A policy whose names are looked up.
#[derive(Debug)]
pub struct Program {
    pub policy: Arc<Policy>,
    pub people: People,
    /// No policy at all: the filter that clients know as "allow all" applies.
    pub without_policy: bool,
    /// The different sources of all rules, by number.
    pub sources: Vec<Sources>,
    pub rules: Vec<Rule>,
    /// Whether any rule is about devices of the same user.
    pub has_self: bool,
    /// Whether any rule names its routers.
    pub has_via: bool,
    /// Whether any node may be without an IPv4 address.
    pub has_without_ipv4: bool,
    pub ssh: Vec<Ssh>,
    pub attributes: Vec<Attributes>,
    tag_owners: BTreeMap<Box<str>, Members>,
    route_approvers: Vec<(IpNet, Members)>,
    exit_approvers: Members,
}

/// A rule whose names are looked up.
#[derive(Debug)]
pub struct Rule {
    pub at: Position,
    pub name: Box<str>,
    /// Number of its sources.
    pub source: usize,
    pub destination: Members,
    pub access: Vec<Access>,
    pub app: Arc<BTreeMap<Box<str>, Vec<Value>>>,
    /// `app` as JSON.
    pub app_json: Box<str>,
    /// The capabilities that its sources get towards its destinations, and the number of the destinations
    /// as sources.
    pub companions: Option<(Vec<&'static str>, usize)>,
    pub via: Vec<Box<str>>,
}

/// A rule of the ssh section.
#[derive(Debug)]
pub struct Ssh {
    pub at: Position,
    pub source: usize,
    pub destination: Members,
    pub users: Vec<Box<str>>,
    /// Domains of `localpart:*@domain`.
    pub domains: Vec<Box<str>>,
    pub accept_env: Vec<Box<str>>,
    pub check: Option<CheckPeriod>,
}

/// An entry of nodeAttrs.
#[derive(Debug)]
pub struct Attributes {
    pub targets: Members,
    pub values: BTreeMap<Box<str>, Vec<Value>>,
    pub pools: Vec<Ipv4Net>,
}

/// Capabilities that bring another one with them, towards the other side.
/// Source: `companionCaps` in headscale `hscontrol/policy/v2/filter.go`.
const COMPANIONS: &[(&str, &str)] = &[
    ("tailscale.com/cap/drive", "tailscale.com/cap/drive-sharer"),
    ("tailscale.com/cap/relay", "tailscale.com/cap/relay-target"),
];

/// What comes with the capability `funnel`.
/// Source: `CapabilityFunnelPorts` in tailscale `tailcfg/tailcfg.go`.
const FUNNEL_PORTS: &str = "https://tailscale.com/cap/funnel-ports?ports=443,8443,10000";

impl Program {
    /// What applies where there is no policy.
    pub fn without_policy(users: &[User]) -> Self {
        let policy = Policy {
            open: true,
            ..Policy::default()
        };
        Self {
            without_policy: true,
            ..Self::new(&Arc::new(policy), users)
        }
    }

    /// Looks up all names of a policy.
    pub fn new(policy: &Arc<Policy>, users: &[User]) -> Self {
        let people = People::new(users, policy);
        let mut program = Self {
            policy: policy.clone(),
            without_policy: false,
            sources: Vec::new(),
            rules: Vec::new(),
            has_self: false,
            has_via: false,
            has_without_ipv4: false,
            ssh: Vec::new(),
            attributes: attributes(policy, &people),
            tag_owners: BTreeMap::new(),
            route_approvers: Vec::new(),
            exit_approvers: Members::new(&policy.exit_approvers, &people),
            people,
        };
        if policy.open {
            program.open();
        }
        for rule in &policy.rules {
            program.add_rule(rule);
        }
        program.add_ssh();
        for (net, approvers) in &policy.route_approvers {
            let approvers = Members::new(approvers, &program.people);
            program.route_approvers.push((*net, approvers));
        }
        for tag in policy.tag_owners.keys() {
            let owners = Members::new(&owners(policy, tag), &program.people);
            program.tag_owners.insert(tag.clone(), owners);
        }
        program.has_self = program.rules.iter().any(|rule| rule.destination.owned);
        program.has_without_ipv4 = program
            .attributes
            .iter()
            .any(|entry| entry.values.contains_key(DISABLE_IPV4));
        program.has_via = program.rules.iter().any(|rule| !rule.via.is_empty());
        program
    }

    /// The one rule of a policy without acls and grants.
    fn open(&mut self) {
        self.add_rule(&crate::policy::ast::Rule {
            at: Position { line: 1, column: 1 },
            name: DEFAULT_RULE.into(),
            sources: vec![Selector::Any],
            destinations: vec![Selector::Any],
            access: vec![Access {
                proto: None,
                ports: vec![Ports::ALL],
            }],
            app: Arc::default(),
            via: Vec::new(),
            postures: Vec::new(),
        });
    }

    fn add_rule(&mut self, rule: &crate::policy::ast::Rule) {
        let source = self.source(&rule.sources, &rule.postures);
        let destination = Members::new(&rule.destinations, &self.people);
        let companions: Vec<_> = COMPANIONS
            .iter()
            .filter(|(name, _)| rule.app.contains_key(*name))
            .map(|(_, companion)| *companion)
            .collect();
        let companions = match companions.is_empty() {
            true => None,
            false => {
                let back = Sources {
                    members: destination.clone(),
                    postures: Vec::new(),
                };
                Some((companions, self.number(back)))
            }
        };
        self.rules.push(Rule {
            at: rule.at,
            name: rule.name.clone(),
            source,
            destination,
            access: rule.access.clone(),
            app: rule.app.clone(),
            app_json: serde_json::to_string(&*rule.app).unwrap_or_default().into(),
            companions,
            via: rule.via.clone(),
        });
    }

    fn add_ssh(&mut self) {
        let policy = self.policy.clone();
        for rule in &policy.ssh {
            let (domains, users) = rule.users.iter().fold(
                (Vec::new(), Vec::new()),
                |(mut domains, mut users), user| {
                    match localpart_domain(user) {
                        Some(domain) => domains.push(domain.into()),
                        None => users.push(user.clone()),
                    }
                    (domains, users)
                },
            );
            let source = self.source(&rule.sources, &rule.postures);
            self.ssh.push(Ssh {
                at: rule.at,
                source,
                destination: Members::new(&rule.destinations, &self.people),
                users,
                domains,
                accept_env: rule.accept_env.clone(),
                check: rule.check,
            });
        }
    }

    fn source(&mut self, selectors: &[Selector], postures: &[Box<str>]) -> usize {
        let conditions = |name| self.policy.postures.get(name).cloned().unwrap_or_default();
        let postures: Vec<Vec<Condition>> = postures.iter().map(conditions).collect();
        let members = Members::new(selectors, &self.people);
        self.number(Sources { members, postures })
    }

    /// The number of some sources; equal ones share theirs.
    fn number(&mut self, sources: Sources) -> usize {
        match self.sources.iter().position(|known| *known == sources) {
            Some(number) => number,
            None => {
                self.sources.push(sources);
                self.sources.len().saturating_sub(1)
            }
        }
    }

    /// Whether a node acts as a source of a rule: itself, or for what is behind it.
    pub fn is_from(&self, rule: &Rule, node: &Node) -> bool {
        self.sources.get(rule.source).is_some_and(|sources| {
            sources.admit(node) || subnets(node).any(|route| sources.admit_route(route))
        })
    }

    /// Whether an owner may give a tag to a node.
    pub fn may_tag(&self, who: &Owner, tag: &str) -> bool {
        let Some(owners) = self.tag_owners.get(tag) else {
            return false;
        };
        let administers = |user| {
            let user = self.people.by_id(user);
            user.is_some_and(|user| user.role != Role::Member)
        };
        owners.names_owner(who) || matches!(who, Owner::User(user) if administers(*user))
    }

    /// Whether a route of a node needs no administrator. `exitNode` alone decides on exit routes.
    pub fn auto_approves(&self, node: &Node, route: &IpNet) -> bool {
        match route.prefix_len() {
            0 => self.exit_approvers.has(node),
            _ => self
                .route_approvers
                .iter()
                .any(|(net, approvers)| net.contains(route) && approvers.has(node)),
        }
    }
}

impl Rule {
    /// Whether a node is a destination of the rule: itself, for what is behind it, or as an exit. With `via`
    /// the routers are, for what is behind them.
    pub fn is_to(&self, node: &Node) -> bool {
        let behind = || {
            subnets(node).any(|route| self.destination.literal.overlaps(route))
                || is_exit(node) && self.reaches_internet()
        };
        match self.via.is_empty() {
            true => self.destination.has(node) || behind(),
            false => self.goes_via(node) && behind(),
        }
    }

    /// Whether the rule lets its sources use exit nodes. With `via` only what is written counts.
    pub fn reaches_internet(&self) -> bool {
        match self.via.is_empty() {
            true => self.destination.holds_internet(),
            false => self.destination.internet,
        }
    }

    /// Whether a route leads to destinations of the rule.
    pub fn covers_route(&self, route: IpNet) -> bool {
        self.via.is_empty() && self.destination.any || self.destination.literal.overlaps(route)
    }

    /// Whether a node is one of the routers that the rule names.
    pub fn goes_via(&self, node: &Node) -> bool {
        match &node.owner {
            Owner::Tags(tags) => tags.iter().any(|tag| self.via.contains(tag)),
            Owner::User(_) => false,
        }
    }
}

/// The domain in `localpart:*@domain`.
pub fn localpart_domain(user: &str) -> Option<&str> {
    let domain = user.strip_prefix("localpart:*@")?;
    (!domain.is_empty()).then_some(domain)
}

/// The owners of a tag, and the owners of the tags that own it. Tags may own each other in a circle.
fn owners(policy: &Policy, tag: &str) -> Vec<Selector> {
    let mut owners: Vec<Selector> = Vec::new();
    let mut open = vec![tag];
    let mut seen = vec![tag];
    while let Some(tag) = open.pop() {
        for owner in policy.tag_owners.get(tag).into_iter().flatten() {
            if let Selector::Tag(tag) = owner
                && !seen.contains(&&**tag)
            {
                seen.push(tag);
                open.push(tag);
            }
            if !owners.contains(owner) {
                owners.push(owner.clone());
            }
        }
    }
    owners
}

fn attributes(policy: &Policy, people: &People) -> Vec<Attributes> {
    let mut all = Vec::new();
    for entry in &policy.node_attrs {
        let mut values = entry.app.clone();
        for name in &entry.attrs {
            values.entry(name.clone()).or_default();
            if **name == *"funnel" {
                values.entry(FUNNEL_PORTS.into()).or_default();
            }
        }
        all.push(Attributes {
            targets: Members::new(&entry.targets, people),
            values,
            pools: entry.pools.clone(),
        });
    }
    for (given, name) in [
        (policy.randomize_client_port, "randomize-client-port"),
        (policy.disable_ipv4, DISABLE_IPV4),
    ] {
        if given {
            all.push(Attributes {
                targets: Members::new(&[Selector::Any], people),
                values: BTreeMap::from([(name.into(), Vec::new())]),
                pools: Vec::new(),
            });
        }
    }
    all
}
