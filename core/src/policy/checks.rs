//! What a policy says about itself: its tests, and whether it fits the directory.

use std::cell::OnceCell;

use ipnet::IpNet;

use crate::id::UserId;
use crate::policy::ast::{Policy, Selector, SshTest, Test};
use crate::policy::compiled::{Compiled, Entry};
use crate::policy::diagnostic::Diagnostic;
use crate::policy::members::{INTERNET, Members, addresses, domain_of, subnets, user};
use crate::policy::parse::selector;
use crate::policy::program::Rule;
use crate::policy::ranges::Ranges;

/// How the official service refuses a policy whose tests fail; what failed follows it here.
const FAILED: &str = "test(s) failed";

impl Compiled {
    /// Whether the policy may be set: it names only what the directory has, and its tests pass.
    ///
    /// # Errors
    ///
    /// What is unknown, or else what [`Self::run_tests`] says.
    pub fn check(&self) -> Result<(), Vec<Diagnostic>> {
        let mut faults = Vec::new();
        let people = &self.program.people;
        for (at, name) in &self.program.policy.foreign_groups {
            if !people.has_group(name) {
                faults.push(Diagnostic::at(*at, format!("group not found: {name:?}")));
            }
        }
        let localparts = self.program.ssh.iter().flat_map(|rule| {
            let domains = rule.domains.iter();
            domains.map(|domain| (rule.at, domain.clone()))
        });
        let named = self.program.policy.domains.iter().cloned();
        for (at, domain) in localparts.chain(named) {
            let mut users = people.users().iter();
            if !users.any(|user| domain_of(user) == Some(&*domain)) {
                let message = format!(
                    "{domain} is not associated with this Tailnet and cannot be used in user:*@<domain> expressions"
                );
                faults.push(Diagnostic::at(at, message));
            }
        }
        match faults.is_empty() {
            true => self.run_tests(),
            false => Err(faults),
        }
    }

    /// Runs `tests` and `sshTests`.
    ///
    /// # Errors
    ///
    /// First that tests failed, then each assertion that does not hold and why.
    pub fn run_tests(&self) -> Result<(), Vec<Diagnostic>> {
        let policy = &self.program.policy;
        let mut faults = Vec::new();
        for test in &policy.ssh_tests {
            for dst in &test.dst {
                if let Err(what) = ssh_destination(policy, dst) {
                    faults.push(Diagnostic::at(test.at, what));
                }
            }
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        if !policy.tests.is_empty() {
            let ways = self.ways();
            for test in &policy.tests {
                let tell = |what| Diagnostic::at(test.at, format!("{}: {what}", test.src));
                faults.extend(self.run_test(test, &ways).into_iter().map(tell));
            }
        }
        for test in &policy.ssh_tests {
            let tell = |what| Diagnostic::at(test.at, format!("{}: {what}", test.src));
            faults.extend(self.run_ssh_test(test).into_iter().map(tell));
        }
        if faults.is_empty() {
            return Ok(());
        }
        faults.insert(0, Diagnostic::at(policy.tests_at, FAILED));
        Err(faults)
    }

    /// What does not hold of a test.
    fn run_test(&self, test: &Test, ways: &[Way]) -> Vec<String> {
        let sources = match self.test_source(&test.src) {
            Ok(sources) => sources,
            Err(what) => return vec![what],
        };
        if test.accept.is_empty() && test.deny.is_empty() {
            return vec!["a test must have at least one of accept and deny".to_owned()];
        }
        let proto = match selector::protocol(&test.proto) {
            Ok(proto @ (None | Some(6 | 17 | 132))) => proto,
            _ => return vec![format!("proto {:?} is not tcp, udp or sctp", test.proto)],
        };
        let mut faults = Vec::new();
        for (list, wanted) in [(&test.accept, true), (&test.deny, false)] {
            for dst in list {
                let (targets, port) = match self.test_destination(dst) {
                    Ok(found) => found,
                    Err(what) => {
                        faults.push(format!("{dst}: {what}"));
                        continue;
                    }
                };
                let reached = sources.iter().all(|source| {
                    ways.iter().any(|way| {
                        way.leads(self, *source, &targets) && allows(way.rule, proto, port)
                    })
                });
                if reached != wanted {
                    let (wanted, got) = match wanted {
                        true => ("ALLOWED", "DENIED"),
                        false => ("DENIED", "ALLOWED"),
                    };
                    faults.push(format!("-> {dst}: expected {wanted}, got {got}"));
                }
            }
        }
        faults
    }

    fn test_source(&self, src: &str) -> Result<Vec<IpNet>, String> {
        let found = self.program.policy.selector(src)?;
        let members = Members::new(&[found], &self.program.people);
        let ranges = self.ranges_of(&members);
        match ranges.is_empty() {
            true => Err(format!("source {src:?} has no addresses")),
            false => Ok(ranges.prefixes()),
        }
    }

    fn test_destination(&self, dst: &str) -> Result<(Ranges, u16), String> {
        let (host, ports) = selector::host_and_ports(dst)?;
        let ports = selector::ports(ports)?;
        let [ports] = ports.as_slice() else {
            return Err("a test is about one port".to_owned());
        };
        if ports.first != ports.last {
            return Err("a test is about one port".to_owned());
        }
        let found = self.program.policy.selector(&host)?;
        if let Selector::Addresses(sets) = &found
            && (host.contains('/') || !sets.iter().all(is_single))
        {
            return Err("a test is about a single host".to_owned());
        }
        let members = Members::new(&[found], &self.program.people);
        let ranges = self.ranges_of(&members);
        match ranges.is_empty() || members.internet {
            true => Err("no destination has this name".to_owned()),
            false => Ok((ranges, ports.first)),
        }
    }

    /// The addresses that selectors stand for now.
    fn ranges_of(&self, members: &Members) -> Ranges {
        let mut ranges = members.literal.clone();
        if members.any {
            return Ranges::everything();
        }
        for entry in self
            .entries
            .iter()
            .filter(|entry| members.names(&entry.node))
        {
            addresses(&entry.node).for_each(|address| ranges.push_address(address));
        }
        if members.internet {
            ranges.push_all(&INTERNET);
        }
        ranges.normalize();
        ranges
    }

    fn ways(&self) -> Vec<Way<'_>> {
        let rules = self.program.rules.iter();
        rules
            .map(|rule| Way {
                rule,
                sources: OnceCell::new(),
                destinations: OnceCell::new(),
            })
            .collect()
    }

    /// What does not hold of an SSH test.
    fn run_ssh_test(&self, test: &SshTest) -> Vec<String> {
        let sources = match self.program.policy.selector(&test.src) {
            Ok(found) => self.named(&Members::new(&[found], &self.program.people)),
            Err(what) => return vec![what],
        };
        if sources.is_empty() {
            return vec![format!("source {:?} has no nodes", test.src)];
        }
        if test.accept.is_empty() && test.deny.is_empty() && test.check.is_empty() {
            return vec!["a test must have at least one of accept, deny and check".to_owned()];
        }
        let mut owners = sources.iter().map(|entry| user(&entry.node));
        let first = owners.next().flatten();
        let owner = first.filter(|_| owners.all(|owner| owner == first));
        let mut faults = Vec::new();
        if test.dst.is_empty() {
            faults.push("a test must have at least one dst".to_owned());
        }
        for dst in &test.dst {
            let nodes = self.ssh_nodes(dst, owner);
            if nodes.is_empty() {
                faults.push(format!("dst {dst:?} has no nodes"));
            }
            for (users, kind) in [
                (&test.accept, Wanted::Accept),
                (&test.deny, Wanted::Deny),
                (&test.check, Wanted::Check),
            ] {
                for name in users {
                    let holds = |src: &&Entry, to: &&Entry| {
                        let mut rules = self.program.ssh.iter().filter(|rule| {
                            let counts = kind != Wanted::Check || rule.check.is_some();
                            counts && self.lets_in(rule, src, to, name)
                        });
                        rules.next().is_some() != (kind == Wanted::Deny)
                    };
                    let all = nodes
                        .iter()
                        .all(|to| sources.iter().all(|src| holds(src, to)));
                    if !all {
                        faults.push(format!("-> {name:?} at {dst}: expected {}", kind.text()));
                    }
                }
            }
        }
        faults
    }

    fn ssh_nodes(&self, dst: &str, owner: Option<UserId>) -> Vec<&Entry> {
        // The official service finds no node by its IPv6 address here.
        if dst.parse::<std::net::Ipv6Addr>().is_ok() {
            return Vec::new();
        }
        let Ok(found) = self.program.policy.selector(dst) else {
            return Vec::new();
        };
        let members = Members::new(&[found], &self.program.people);
        match members.owned {
            false => self.named(&members),
            true => {
                let entries = self.entries.iter().map(|entry| &**entry);
                let own = |entry: &&Entry| owner.is_some() && user(&entry.node) == owner;
                entries.filter(own).collect()
            }
        }
    }

    fn named(&self, members: &Members) -> Vec<&Entry> {
        let entries = self.entries.iter().map(|entry| &**entry);
        entries.filter(|entry| members.has(&entry.node)).collect()
    }
}

/// What an SSH test wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Accept,
    Deny,
    Check,
}

impl Wanted {
    fn text(self) -> &'static str {
        match self {
            Self::Accept => "ALLOWED, got DENIED",
            Self::Deny => "DENIED, got ALLOWED",
            Self::Check => "ALLOWED after a check, got something else",
        }
    }
}

/// A rule and the addresses that it is about, once they are needed.
struct Way<'c> {
    rule: &'c Rule,
    sources: OnceCell<Ranges>,
    destinations: OnceCell<Ranges>,
}

impl Way<'_> {
    fn leads(&self, compiled: &Compiled, source: IpNet, targets: &Ranges) -> bool {
        let rule = self.rule;
        let sources = self
            .sources
            .get_or_init(|| compiled.source_ranges(rule.source));
        // `*` stands for what is behind approved routers, too.
        let behind = || {
            let sources = compiled.program.sources.get(rule.source);
            sources.is_some_and(|sources| sources.members.any && sources.admit_route(source))
                && compiled
                    .entries
                    .iter()
                    .any(|entry| subnets(&entry.node).any(|route| route.contains(&source)))
        };
        let own = || {
            let from = compiled.entries.iter().find(|entry| {
                entry.admitted.has(rule.source)
                    && addresses(&entry.node).any(|address| source.contains(&address))
            });
            let owner = from.and_then(|entry| user(&entry.node));
            owner.is_some()
                && compiled.entries.iter().any(|entry| {
                    user(&entry.node) == owner
                        && addresses(&entry.node).any(|address| targets.contains(address))
                })
        };
        if rule.destination.owned && own() {
            return true;
        }
        let destinations = self
            .destinations
            .get_or_init(|| compiled.ranges_of(&rule.destination));
        (sources.overlaps(source) || behind()) && destinations.meets(targets)
    }
}

/// Whether a rule lets a protocol pass on a port; without a protocol, whether it lets any of the usual ones.
fn allows(rule: &Rule, proto: Option<u8>, port: u16) -> bool {
    const USUAL: [u8; 4] = [1, 6, 17, 58];
    rule.access.iter().any(|access| {
        let fits = match (access.proto, proto) {
            (None, None) => true,
            (Some(known), None) => USUAL.contains(&known),
            (None, Some(wanted)) => USUAL.contains(&wanted),
            (Some(known), Some(wanted)) => known == wanted,
        };
        fits && access
            .ports
            .iter()
            .any(|ports| ports.first <= port && port <= ports.last)
    })
}

/// Whether a set is one address.
fn is_single(set: &Ranges) -> bool {
    match set.prefixes().as_slice() {
        [net] => net.prefix_len() == net.max_prefix_len(),
        _ => false,
    }
}

/// Whether a text can be the destination of an SSH test.
fn ssh_destination(policy: &Policy, dst: &str) -> Result<(), String> {
    let disallowed = || Err(format!("SSH tests dst contains disallowed element {dst:?}"));
    if dst == "autogroup:internet" {
        return disallowed();
    }
    match policy.selector(dst) {
        Ok(Selector::Addresses(sets)) if !sets.iter().all(is_single) => disallowed(),
        Err(_) if dst.starts_with("tag:") => {
            Err(format!("SSH tests dst contains unknown tag {dst:?}"))
        }
        _ => Ok(()),
    }
}
