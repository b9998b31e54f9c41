//! Why the policy allows or denies traffic.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use super::ast::Ports;
use super::compiled::{Compiled, Entry};
use super::resolved::{DEFAULT_RULE, ResolvedRule};
use super::resolved_set::{INTERNET, addresses, subnets, user};
use crate::id::NodeId;

/// The answer to [`Compiled::why`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Why {
    /// Rules that allow it.
    pub allowed_by: Vec<Cause>,
    /// Rules with this source and destination but other protocols or ports.
    pub other_ports: Vec<Cause>,
    /// Number of rules with this source but other destinations.
    pub other_destinations: usize,
    /// The subnet router, if the destination is not a node.
    pub router: Option<NodeId>,
    /// What prevents it although a rule allows it.
    pub but: Option<&'static str>,
    /// Whether there is a policy.
    pub has_policy: bool,
}

/// A rule and its position in the policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// For example `acls[2]`; `the default` without acls and grants.
    pub rule: Box<str>,
    /// Line in the policy; 0 for the default, which is in none.
    pub line: u32,
}

impl Cause {
    pub(super) fn of(rule: &ResolvedRule) -> Self {
        Self {
            rule: rule.name.clone(),
            line: match &*rule.name == DEFAULT_RULE {
                true => 0,
                false => rule.at.line,
            },
        }
    }
}

impl Why {
    /// Whether it is allowed.
    pub fn allowed(&self) -> bool {
        !self.allowed_by.is_empty() && self.but.is_none()
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => f.write_str(&self.rule),
            line => write!(f, "{} (line {line})", self.rule),
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |causes: &[Cause]| {
            let texts: Vec<String> = causes.iter().map(Cause::to_string).collect();
            texts.join(", ")
        };
        match self.but {
            Some(but) => write!(f, "denied: {but}"),
            None if !self.allowed_by.is_empty() => {
                match self.allowed_by.as_slice() {
                    [only] if &*only.rule == DEFAULT_RULE => f.write_str(match self.has_policy {
                        true => "allowed: the policy has no acls or grants: everyone may reach everyone",
                        false => "allowed: no policy: everyone may reach everyone",
                    })?,
                    causes => write!(f, "allowed by {}", list(causes))?,
                }
                match self.router {
                    Some(router) => write!(f, ", routed by node {router}"),
                    None => Ok(()),
                }
            }
            None if !self.other_ports.is_empty() => write!(
                f,
                "denied: {} allow this source and destination, but not this protocol and port",
                list(&self.other_ports)
            ),
            None if self.other_destinations > 0 => write!(
                f,
                "denied: no rule allows this destination for this source ({} rules allow others)",
                self.other_destinations
            ),
            None => write!(f, "denied: no rule has this source"),
        }
    }
}

impl Compiled {
    /// Whether traffic from one address to another is allowed, and why. The addresses may be of nodes, of hosts in
    /// approved subnets, or on the internet.
    pub fn why(&self, src: IpAddr, dst: IpAddr, port: u16, proto: u8) -> Why {
        let (from, to) = (self.at(src), self.at(dst));
        let mut why = Why {
            allowed_by: Vec::new(),
            other_ports: Vec::new(),
            other_destinations: 0,
            router: None,
            but: None,
            has_policy: !self.resolved.without_policy,
        };
        for rule in &self.resolved.rules {
            if !self.comes_from(rule, src, from) {
                continue;
            }
            let cause = Cause::of(rule);
            if !self.goes_to(rule, from, dst, to) {
                why.other_destinations = why.other_destinations.saturating_add(1);
            } else if rule.access.iter().any(|access| {
                let usual = || matches!(proto, 1 | 6 | 17 | 58);
                let fits = access.proto.map_or_else(usual, |known| known == proto);
                let holds = |ports: &Ports| ports.first <= port && port <= ports.last;
                fits && (!matches!(proto, 6 | 17 | 132) || access.ports.iter().any(holds))
            }) {
                why.allowed_by.push(cause);
            } else {
                why.other_ports.push(cause);
            }
        }
        if to.is_none() && !why.allowed_by.is_empty() {
            let routers = || {
                self.entries.iter().filter(|router| {
                    let mut routes = router.node.primary.iter().chain(&*router.node.routes);
                    routes.any(|route| route.contains(&dst))
                })
            };
            let carries = |router: &&Arc<Entry>| match from {
                None => true,
                Some(from) => {
                    let view = self.routes(from.node.id, router.node.id);
                    view.allowed.iter().any(|route| route.contains(&dst))
                }
            };
            why.router = routers().find(carries).map(|router| router.node.id);
            if why.router.is_none() {
                why.but = Some("no approved route to the destination");
            }
        }
        why
    }

    /// The node with an address.
    fn at(&self, address: IpAddr) -> Option<&Entry> {
        let has_address = |entry: &&Arc<Entry>| addresses(&entry.node).any(|own| own == address);
        self.entries.iter().find(has_address).map(|entry| &**entry)
    }

    fn comes_from(&self, rule: &ResolvedRule, src: IpAddr, from: Option<&Entry>) -> bool {
        let Some(sources) = self.resolved.sources.get(rule.source) else {
            return false;
        };
        let literal = sources.set.literal.contains(src);
        match from {
            Some(entry) => {
                entry.admitted.has(rule.source) && (literal || sources.set.names(&entry.node))
            }
            None => {
                let approved = || {
                    let mut entries = self.entries.iter();
                    entries.any(|entry| subnets(&entry.node).any(|route| route.contains(&src)))
                };
                sources.postures.is_empty() && (literal || sources.set.any && approved())
            }
        }
    }

    /// Whether a rule leads to an address, for any source.
    pub(super) fn holds_destination(&self, rule: &ResolvedRule, dst: IpAddr) -> bool {
        self.goes_to(rule, None, dst, self.at(dst))
    }

    fn goes_to(
        &self,
        rule: &ResolvedRule,
        from: Option<&Entry>,
        dst: IpAddr,
        to: Option<&Entry>,
    ) -> bool {
        let named = &rule.destination;
        if !rule.via.is_empty() {
            let out = named.internet && to.is_none();
            return to.is_none() && named.literal.contains(dst) || out && is_internet(dst);
        }
        let own = || {
            let owner = from.and_then(|from| user(&from.node));
            owner.is_some() && owner == to.and_then(|to| user(&to.node))
        };
        named.any
            || named.literal.contains(dst)
            || to.is_some_and(|to| named.names(&to.node))
            || named.owned && own()
            || named.internet && to.is_none() && is_internet(dst)
    }
}

fn is_internet(address: IpAddr) -> bool {
    INTERNET.contains(address)
}
