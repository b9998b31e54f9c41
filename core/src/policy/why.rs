//! Why the policy allows or denies traffic.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

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
        let routers = match to {
            Some(_) => Vec::new(),
            None => self.routers_to(from, dst),
        };
        // Rules that would allow it by way of other nodes.
        let mut elsewhere = Vec::new();
        for rule in &self.resolved.rules {
            if !self.comes_from(rule, src, from) {
                continue;
            }
            let cause = Cause::of(rule);
            let by = routers.iter().find(|by| rule.leads_to(&by.node, dst));
            if !self.goes_to(rule, from, dst, to) {
                why.other_destinations = why.other_destinations.saturating_add(1);
            } else if rule.access.iter().any(|access| {
                let usual = || matches!(proto, 1 | 6 | 17 | 58);
                let fits = access.proto.map_or_else(usual, |known| known == proto);
                let holds = |ports: &Ports| ports.first <= port && port <= ports.last;
                fits && (!matches!(proto, 6 | 17 | 132) || access.ports.iter().any(holds))
            }) {
                match by.is_some() || routers.is_empty() {
                    true => why.allowed_by.push(cause),
                    false => elsewhere.push(cause),
                }
                why.router = why.router.or(by.map(|by| by.node.id));
            } else {
                why.other_ports.push(cause);
            }
        }
        if why.allowed_by.is_empty() && !elsewhere.is_empty() {
            why.allowed_by = elsewhere;
            let behind = |by: &&Entry| subnets(&by.node).any(|route| route.contains(&dst));
            why.but = Some(match routers.iter().any(behind) {
                true => {
                    "the rule does not reach the subnet router of the destination; compare its via with the tags of the router"
                }
                false => {
                    "the rule reaches no exit node that the device may use; add autogroup:internet to its dst, or compare its via with their tags"
                }
            });
        } else if to.is_none() && routers.is_empty() && !why.allowed_by.is_empty() {
            why.but = Some("no approved route to the destination");
        }
        why
    }

    /// The nodes by which a node, or any, may send packets to an address that is no node's: those with the longest
    /// prefix that holds it. Of several exit nodes the device's owner chooses one.
    fn routers_to(&self, from: Option<&Entry>, dst: IpAddr) -> Vec<&Entry> {
        let length = |router: &Entry| {
            let longest = |routes: &[IpNet]| {
                let holding = routes.iter().filter(|route| route.contains(&dst));
                holding.map(IpNet::prefix_len).max()
            };
            match from {
                Some(from) => longest(&self.routes(from.node.id, router.node.id).allowed),
                None => longest(&router.node.routes),
            }
        };
        let routers = self.entries.iter().map(|router| &**router);
        let routers: Vec<(u8, &Entry)> = routers
            .filter_map(|router| Some((length(router)?, router)))
            .collect();
        let longest = routers.iter().map(|(length, _)| *length).max();
        let best = routers
            .iter()
            .filter(|(length, _)| Some(*length) == longest);
        best.map(|(_, router)| *router).collect()
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
        let Some(to) = to else {
            let out = named.internet && INTERNET.contains(dst);
            let any = named.any && rule.via.is_empty();
            return any || out || named.literal.contains(dst);
        };
        let own = || {
            let owner = from.and_then(|from| user(&from.node));
            owner.is_some() && owner == user(&to.node)
        };
        rule.leads_to(&to.node, dst) || named.owned && own()
    }
}
