//! A policy with its names resolved to users: everything that does not depend on the nodes.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net};
use serde_json::Value;

use super::ast::{Access, CheckPeriod, Policy, Ports, Selector};
use super::diagnostic::Position;
use super::directory::{Node, Owner, Role, User};
use super::posture::Condition;
use super::resolved_set::{
    INTERNET, ResolvedSet, ResolvedSources, UserIndex, addresses, is_exit, subnets,
};

/// Name of the one rule of a policy without acls and grants.
pub const DEFAULT_RULE: &str = "the default";

/// Capability that hides IPv4 addresses.
/// Source: `NodeAttrDisableIPv4` in tailscale `tailcfg/nodecap/nodecap.go`.
pub(super) const DISABLE_IPV4: &str = "disable-ipv4";

/// A policy with its names resolved.
#[derive(Debug)]
pub struct ResolvedPolicy {
    pub policy: Arc<Policy>,
    pub users: UserIndex,
    /// Whether there is no policy: clients get `FilterAllowAll`.
    pub without_policy: bool,
    /// The distinct sources of all rules, by number.
    pub sources: Vec<ResolvedSources>,
    pub rules: Vec<ResolvedRule>,
    /// Whether any rule has `autogroup:self` as a destination.
    pub has_self: bool,
    /// Whether any rule has `via`.
    pub has_via: bool,
    /// Whether any node attribute is `disable-ipv4`.
    pub has_without_ipv4: bool,
    pub ssh: Vec<ResolvedSshRule>,
    pub attributes: Vec<ResolvedNodeAttr>,
    tag_owners: BTreeMap<Box<str>, ResolvedSet>,
    route_approvers: Vec<(IpNet, ResolvedSet)>,
    exit_approvers: ResolvedSet,
}

/// An acl or grant with its names resolved.
#[derive(Debug)]
pub struct ResolvedRule {
    pub at: Position,
    pub name: Box<str>,
    /// Number of its sources.
    pub source: usize,
    pub destination: ResolvedSet,
    pub access: Vec<Access>,
    pub app: Arc<BTreeMap<Box<str>, Vec<Value>>>,
    /// `app` as JSON.
    pub app_json: Box<str>,
    /// Companion capabilities, which destinations get towards sources, and the number of the destinations as
    /// sources.
    pub companions: Option<(Vec<&'static str>, usize)>,
    pub via: Vec<Box<str>>,
}

/// A rule of the `ssh` section with its names resolved.
#[derive(Debug)]
pub struct ResolvedSshRule {
    pub source: usize,
    pub destination: ResolvedSet,
    pub users: Vec<Box<str>>,
    /// Domains of `localpart:*@domain`.
    pub domains: Vec<Box<str>>,
    pub accept_env: Vec<Box<str>>,
    pub check: Option<CheckPeriod>,
}

/// An entry of `nodeAttrs` with its names resolved.
#[derive(Debug)]
pub struct ResolvedNodeAttr {
    pub targets: ResolvedSet,
    pub values: BTreeMap<Box<str>, Vec<Value>>,
    pub pools: Vec<Ipv4Net>,
}

/// Capabilities that imply another one in the opposite direction.
/// Source: `companionCaps` in headscale `hscontrol/policy/v2/filter.go`.
const COMPANIONS: &[(&str, &str)] = &[
    ("tailscale.com/cap/drive", "tailscale.com/cap/drive-sharer"),
    ("tailscale.com/cap/relay", "tailscale.com/cap/relay-target"),
];

/// Capability that `funnel` implies.
/// Source: `CapabilityFunnelPorts` in tailscale `tailcfg/tailcfg.go`.
const FUNNEL_PORTS: &str = "https://tailscale.com/cap/funnel-ports?ports=443,8443,10000";

impl ResolvedPolicy {
    /// The default without a policy.
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

    /// Resolves all names of a policy.
    pub fn new(policy: &Arc<Policy>, users: &[User]) -> Self {
        let users = UserIndex::new(users, policy);
        let mut resolved = Self {
            policy: policy.clone(),
            without_policy: false,
            sources: Vec::new(),
            rules: Vec::new(),
            has_self: false,
            has_via: false,
            has_without_ipv4: false,
            ssh: Vec::new(),
            attributes: attributes(policy, &users),
            tag_owners: BTreeMap::new(),
            route_approvers: Vec::new(),
            exit_approvers: ResolvedSet::new(&policy.exit_approvers, &users),
            users,
        };
        if policy.open {
            resolved.open();
        }
        for rule in &policy.rules {
            resolved.add_rule(rule);
        }
        resolved.add_ssh();
        for (net, approvers) in &policy.route_approvers {
            let approvers = ResolvedSet::new(approvers, &resolved.users);
            resolved.route_approvers.push((*net, approvers));
        }
        for tag in policy.tag_owners.keys() {
            let owners = ResolvedSet::new(&owners(policy, tag), &resolved.users);
            resolved.tag_owners.insert(tag.clone(), owners);
        }
        resolved.has_self = resolved.rules.iter().any(|rule| rule.destination.owned);
        resolved.has_without_ipv4 = resolved
            .attributes
            .iter()
            .any(|entry| entry.values.contains_key(DISABLE_IPV4));
        resolved.has_via = resolved.rules.iter().any(|rule| !rule.via.is_empty());
        resolved
    }

    /// Adds the only rule of a policy without acls and grants.
    fn open(&mut self) {
        self.add_rule(&super::ast::Rule {
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

    fn add_rule(&mut self, rule: &super::ast::Rule) {
        let source = self.source(&rule.sources, &rule.postures);
        let mut destination = ResolvedSet::new(&rule.destinations, &self.users);
        // With `via` the destinations are behind its routers, and a user's own devices are not.
        destination.owned &= rule.via.is_empty();
        let companions: Vec<_> = COMPANIONS
            .iter()
            .filter(|(name, _)| rule.app.contains_key(*name))
            .map(|(_, companion)| *companion)
            .collect();
        let companions = match companions.is_empty() {
            true => None,
            false => {
                let back = ResolvedSources {
                    set: destination.clone(),
                    postures: Vec::new(),
                };
                Some((companions, self.number(back)))
            }
        };
        self.rules.push(ResolvedRule {
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
            self.ssh.push(ResolvedSshRule {
                source,
                destination: ResolvedSet::new(&rule.destinations, &self.users),
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
        let set = ResolvedSet::new(selectors, &self.users);
        self.number(ResolvedSources { set, postures })
    }

    /// The number of these sources; equal ones share it.
    fn number(&mut self, sources: ResolvedSources) -> usize {
        match self.sources.iter().position(|known| *known == sources) {
            Some(number) => number,
            None => {
                self.sources.push(sources);
                self.sources.len().saturating_sub(1)
            }
        }
    }

    /// Whether a node is a source of a rule, itself or the hosts behind it.
    pub fn is_from(&self, rule: &ResolvedRule, node: &Node) -> bool {
        self.sources.get(rule.source).is_some_and(|sources| {
            sources.admit(node) || subnets(node).any(|route| sources.admit_route(route))
        })
    }

    /// Whether an owner may assign a tag.
    pub fn may_tag(&self, who: &Owner, tag: &str) -> bool {
        let Some(owners) = self.tag_owners.get(tag) else {
            return false;
        };
        let administers = |user| {
            let user = self.users.by_id(user);
            user.is_some_and(|user| user.role != Role::Member)
        };
        owners.names_owner(who) || matches!(who, Owner::User(user) if administers(*user))
    }

    /// Whether a route of a node is approved automatically. For exit routes only `exitNode` counts.
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

impl ResolvedRule {
    /// Whether a node is a destination of the rule: itself, the hosts behind it, or as an exit node. With `via`
    /// these are the routers, for the hosts behind them.
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

    /// What the rule lets its sources reach at a node: its addresses, and prefixes behind it or out of it as
    /// written, which may hold more than it routes; `None` for everything. Without what `autogroup:self` names.
    pub fn destinations_at(&self, node: &Node) -> Option<Vec<IpNet>> {
        let named = &self.destination;
        let behind = |net: &IpNet| subnets(node).any(|route| overlap(route, *net));
        let holds = |net: &IpNet| addresses(node).any(|own| net.contains(&own));
        let mut nets: Vec<IpNet> = Vec::new();
        if !self.via.is_empty() {
            if !self.goes_via(node) {
                return Some(nets);
            }
            nets.extend(named.literals.iter().filter(|net| behind(net)));
        } else if named.any {
            return None;
        } else {
            if named.names(node) {
                nets.extend(addresses(node).map(IpNet::from));
            }
            let literals = named.literals.iter();
            nets.extend(literals.filter(|net| holds(net) || behind(net)));
        }
        if named.internet && is_exit(node) {
            nets.extend(INTERNET.prefixes());
        }
        nets.sort_unstable();
        nets.dedup();
        Some(nets)
    }

    /// Whether the rule lets its sources reach an address at a node or by way of it; `autogroup:self` aside.
    pub fn leads_to(&self, node: &Node, address: IpAddr) -> bool {
        let nets = self.destinations_at(node);
        nets.is_none_or(|nets| nets.iter().any(|net| net.contains(&address)))
    }

    /// Whether the rule lets its sources use exit nodes; with `via` only `autogroup:internet` does.
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

    /// Whether a node is one of the routers in `via`.
    pub fn goes_via(&self, node: &Node) -> bool {
        match &node.owner {
            Owner::Tags(tags) => tags.iter().any(|tag| self.via.contains(tag)),
            Owner::User(_) => false,
        }
    }
}

/// Whether two prefixes have addresses in common.
pub fn overlap(one: IpNet, other: IpNet) -> bool {
    one.contains(&other) || other.contains(&one)
}

/// The domain in `localpart:*@domain`.
pub fn localpart_domain(user: &str) -> Option<&str> {
    let domain = user.strip_prefix("localpart:*@")?;
    (!domain.is_empty()).then_some(domain)
}

/// The owners of a tag, including those of the tags that own it. Tags may own each other.
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

fn attributes(policy: &Policy, users: &UserIndex) -> Vec<ResolvedNodeAttr> {
    let mut all = Vec::new();
    for entry in &policy.node_attrs {
        let mut values = entry.app.clone();
        for name in &entry.attrs {
            values.entry(name.clone()).or_default();
            if **name == *"funnel" {
                values.entry(FUNNEL_PORTS.into()).or_default();
            }
        }
        all.push(ResolvedNodeAttr {
            targets: ResolvedSet::new(&entry.targets, users),
            values,
            pools: entry.pools.clone(),
        });
    }
    for (given, name) in [
        (policy.randomize_client_port, "randomize-client-port"),
        (policy.disable_ipv4, DISABLE_IPV4),
    ] {
        if given {
            all.push(ResolvedNodeAttr {
                targets: ResolvedSet::new(&[Selector::Any], users),
                values: BTreeMap::from([(name.into(), Vec::new())]),
                pools: Vec::new(),
            });
        }
    }
    all
}
