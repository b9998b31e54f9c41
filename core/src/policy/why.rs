//! Why traffic passes, or why it does not.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use crate::id::NodeId;
use crate::policy::ast::Ports;
use crate::policy::compiled::{Compiled, Entry};
use crate::policy::members::{INTERNET, addresses, subnets, user};
use crate::policy::program::{DEFAULT_RULE, Rule};

/// The answer to [`Compiled::why`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Why {
    /// The rules that allow it; empty: nothing does.
    pub allowed_by: Vec<Cause>,
    /// Rules that know source and destination, but let other protocols or ports pass.
    pub other_ports: Vec<Cause>,
    /// Rules that know the source only.
    pub other_destinations: usize,
    /// The router that carries it, when the destination is no node.
    pub router: Option<NodeId>,
    /// What stands in the way although a rule allows it.
    pub but: Option<&'static str>,
}

/// A rule and its place in the policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// As in `acls[2]`; `the default` where there are neither acls nor grants.
    pub rule: Box<str>,
    /// Line in the policy.
    pub line: u32,
}

impl Cause {
    pub(super) fn of(rule: &Rule) -> Self {
        Self {
            rule: rule.name.clone(),
            line: rule.at.line,
        }
    }
}

impl Why {
    /// Whether it passes.
    pub fn allowed(&self) -> bool {
        !self.allowed_by.is_empty() && self.but.is_none()
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (line {})", self.rule, self.line)
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
                    [only] if &*only.rule == DEFAULT_RULE => {
                        f.write_str("allowed: there are no acls or grants, so everything is")?;
                    }
                    causes => write!(f, "allowed by {}", list(causes))?,
                }
                match self.router {
                    Some(router) => write!(f, ", by way of node {router}"),
                    None => Ok(()),
                }
            }
            None if !self.other_ports.is_empty() => write!(
                f,
                "denied: {} would let the source reach the destination, but not by this protocol and port",
                list(&self.other_ports)
            ),
            None if self.other_destinations > 0 => write!(
                f,
                "denied: no rule leads from this source to this destination; {} lead to others",
                self.other_destinations
            ),
            None => write!(f, "denied: this source is named in no rule"),
        }
    }
}

impl Compiled {
    /// Whether traffic passes from one address to another, and why. The addresses may be those of nodes, of
    /// hosts behind approved routers, or of the internet.
    pub fn why(&self, src: IpAddr, dst: IpAddr, port: u16, proto: u8) -> Why {
        let (from, to) = (self.at(src), self.at(dst));
        let mut why = Why {
            allowed_by: Vec::new(),
            other_ports: Vec::new(),
            other_destinations: 0,
            router: None,
            but: None,
        };
        for rule in &self.program.rules {
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
                why.but = Some("no approved route leads to the destination");
            }
        }
        why
    }

    /// The node with an address.
    fn at(&self, address: IpAddr) -> Option<&Entry> {
        let is_there = |entry: &&Arc<Entry>| addresses(&entry.node).any(|own| own == address);
        self.entries.iter().find(is_there).map(|entry| &**entry)
    }

    fn comes_from(&self, rule: &Rule, src: IpAddr, from: Option<&Entry>) -> bool {
        let Some(sources) = self.program.sources.get(rule.source) else {
            return false;
        };
        let literal = sources.members.literal.contains(src);
        match from {
            Some(entry) => {
                entry.admitted.has(rule.source) && (literal || sources.members.names(&entry.node))
            }
            None => {
                let approved = || {
                    let mut entries = self.entries.iter();
                    entries.any(|entry| subnets(&entry.node).any(|route| route.contains(&src)))
                };
                sources.postures.is_empty() && (literal || sources.members.any && approved())
            }
        }
    }

    /// Whether a rule leads to an address, for whomever.
    pub(super) fn holds_destination(&self, rule: &Rule, dst: IpAddr) -> bool {
        self.goes_to(rule, None, dst, self.at(dst))
    }

    fn goes_to(&self, rule: &Rule, from: Option<&Entry>, dst: IpAddr, to: Option<&Entry>) -> bool {
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
