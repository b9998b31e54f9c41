//! Checks of a policy: its tests, and whether it names only what exists.

use std::cell::OnceCell;

use ipnet::IpNet;

use super::ast::{Policy, Selector, SshTest, Test};
use super::compiled::{Compiled, Entry};
use super::diagnostic::Diagnostic;
use super::parse::selector;
use super::ranges::Ranges;
use super::resolved::ResolvedRule;
use super::resolved_set::{INTERNET, ResolvedSet, addresses, domain_of, subnets, user};
use crate::id::UserId;

/// The official service's message for failed tests; details follow it here.
const FAILED: &str = "test(s) failed";

/// Failed assertions that are reported; more would not help.
const FAULTS_MAX: usize = 100;

impl Compiled {
    /// Whether the policy may be set: it names only groups and domains that exist, and its tests pass.
    ///
    /// # Errors
    ///
    /// Unknown groups and domains, or else the errors of [`Self::run_tests`].
    pub fn check(&self) -> Result<(), Vec<Diagnostic>> {
        let mut faults = Vec::new();
        let users = &self.resolved.users;
        for (at, name) in &self.resolved.policy.foreign_groups {
            if !users.has_group(name) {
                let message = format!("group not found: {name:?}; define it in \"groups\"");
                faults.push(Diagnostic::at(*at, message));
            }
        }
        for (at, domain) in &self.resolved.policy.domains {
            let mut users = users.users().iter();
            if !users.any(|user| domain_of(user) == Some(domain)) {
                faults.push(Diagnostic::at(*at, self.unknown_domain(domain)));
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
    /// First that tests failed, then each failed assertion with its reason.
    pub fn run_tests(&self) -> Result<(), Vec<Diagnostic>> {
        let policy = &self.resolved.policy;
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
            let reaches = self.rule_reaches();
            for test in &policy.tests {
                let diagnostic = |what| Diagnostic::at(test.at, format!("{}: {what}", test.src));
                faults.extend(self.run_test(test, &reaches).into_iter().map(diagnostic));
            }
        }
        for test in &policy.ssh_tests {
            let diagnostic = |what| Diagnostic::at(test.at, format!("{}: {what}", test.src));
            faults.extend(self.run_ssh_test(test).into_iter().map(diagnostic));
        }
        if faults.is_empty() {
            return Ok(());
        }
        let more = faults.len().saturating_sub(FAULTS_MAX);
        faults.truncate(FAULTS_MAX);
        faults.insert(0, Diagnostic::at(policy.tests_at, FAILED));
        if more > 0 {
            let message = format!("and {more} more failed assertions");
            faults.push(Diagnostic::at(policy.tests_at, message));
        }
        Err(faults)
    }

    /// The failed assertions of a test.
    fn run_test(&self, test: &Test, reaches: &[RuleReach]) -> Vec<String> {
        let sources = match self.test_source(&test.src) {
            Ok(sources) => sources,
            Err(what) => return vec![what],
        };
        if test.accept.is_empty() && test.deny.is_empty() {
            return vec!["a test must have at least one of accept and deny".to_owned()];
        }
        let proto = match selector::protocol(&test.proto) {
            Ok(proto @ (None | Some(6 | 17 | 132))) => proto,
            _ => {
                return vec![format!(
                    "invalid proto {:?}: must be tcp, udp or sctp",
                    test.proto
                )];
            }
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
                    reaches.iter().any(|reach| {
                        reach.leads(self, *source, &targets) && allows(reach.rule, proto, port)
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
        let found = self.resolved.policy.selector(src)?;
        let set = ResolvedSet::new(std::slice::from_ref(&found), &self.resolved.users);
        let ranges = self.ranges_of(&set);
        match ranges.is_empty() {
            true => Err(self.nobody(src, &found)),
            false => Ok(ranges.prefixes()),
        }
    }

    fn test_destination(&self, dst: &str) -> Result<(Ranges, u16), String> {
        let (host, ports) = selector::host_and_ports(dst)?;
        let ports = selector::ports(ports)?;
        let [ports] = ports.as_slice() else {
            return Err("a test needs a single port".to_owned());
        };
        if ports.first != ports.last {
            return Err("a test needs a single port".to_owned());
        }
        let found = self.resolved.policy.selector(&host)?;
        if let Selector::Addresses(sets) = &found
            && (host.contains('/') || !sets.iter().all(is_single))
        {
            return Err("a test needs a single host".to_owned());
        }
        let set = ResolvedSet::new(std::slice::from_ref(&found), &self.resolved.users);
        let ranges = self.ranges_of(&set);
        match ranges.is_empty() || set.internet {
            true => Err(self.nobody(&host, &found)),
            false => Ok((ranges, ports.first)),
        }
    }

    /// The current addresses of a set.
    fn ranges_of(&self, set: &ResolvedSet) -> Ranges {
        let mut ranges = set.literal.clone();
        if set.any {
            return Ranges::everything();
        }
        for entry in self.entries.iter().filter(|entry| set.names(&entry.node)) {
            addresses(&entry.node).for_each(|address| ranges.push_address(address));
        }
        if set.internet {
            ranges.push_all(&INTERNET);
        }
        ranges.normalize();
        ranges
    }

    /// The destinations of a rule: with `via` those behind its routers, which devices are not, unless they are such
    /// routers themselves.
    fn destinations_of(&self, rule: &ResolvedRule) -> Ranges {
        if rule.via.is_empty() {
            return self.ranges_of(&rule.destination);
        }
        let mut ranges = rule.destination.literal.clone();
        if rule.destination.internet {
            ranges.push_all(&INTERNET);
        }
        ranges.normalize();
        let mut closed = Ranges::default();
        for entry in self.entries.iter() {
            let own = addresses(&entry.node).filter(|own| !rule.leads_to(&entry.node, *own));
            own.for_each(|own| closed.push_address(own));
        }
        closed.normalize();
        ranges.without(&closed)
    }

    fn rule_reaches(&self) -> Vec<RuleReach<'_>> {
        let rules = self.resolved.rules.iter();
        rules
            .map(|rule| RuleReach {
                rule,
                sources: OnceCell::new(),
                destinations: OnceCell::new(),
            })
            .collect()
    }

    /// The failed assertions of an SSH test.
    fn run_ssh_test(&self, test: &SshTest) -> Vec<String> {
        let found = match self.resolved.policy.selector(&test.src) {
            Ok(found) => found,
            Err(what) => return vec![what],
        };
        let set = ResolvedSet::new(std::slice::from_ref(&found), &self.resolved.users);
        let sources = self.named(&set);
        if sources.is_empty() {
            return vec![self.nobody(&test.src, &found)];
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
                let found = self.resolved.policy.selector(dst);
                faults.push(match found {
                    Ok(found) => self.nobody(dst, &found),
                    Err(what) => format!("dst {dst:?}: {what}"),
                });
            }
            for (users, kind) in [
                (&test.accept, Expectation::Accept),
                (&test.deny, Expectation::Deny),
                (&test.check, Expectation::Check),
            ] {
                for name in users {
                    let holds = |src: &&Entry, to: &&Entry| {
                        let mut rules = self.resolved.ssh.iter().filter(|rule| {
                            let counts = kind != Expectation::Check || rule.check.is_some();
                            counts && self.lets_in(rule, src, to, name)
                        });
                        rules.next().is_some() != (kind == Expectation::Deny)
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
        // The official service does not match nodes by IPv6 address here.
        if dst.parse::<std::net::Ipv6Addr>().is_ok() {
            return Vec::new();
        }
        let Ok(found) = self.resolved.policy.selector(dst) else {
            return Vec::new();
        };
        let set = ResolvedSet::new(&[found], &self.resolved.users);
        match set.owned {
            false => self.named(&set),
            true => {
                let entries = self.entries.iter().map(|entry| &**entry);
                let own = |entry: &&Entry| owner.is_some() && user(&entry.node) == owner;
                entries.filter(own).collect()
            }
        }
    }

    fn named(&self, set: &ResolvedSet) -> Vec<&Entry> {
        let entries = self.entries.iter().map(|entry| &**entry);
        entries.filter(|entry| set.has(&entry.node)).collect()
    }
}

/// The expected result of an SSH test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expectation {
    Accept,
    Deny,
    Check,
}

impl Expectation {
    fn text(self) -> &'static str {
        match self {
            Self::Accept => "ALLOWED, got DENIED",
            Self::Deny => "DENIED, got ALLOWED",
            Self::Check => "ALLOWED after a check, got something else",
        }
    }
}

/// A rule and its addresses, computed when needed.
struct RuleReach<'c> {
    rule: &'c ResolvedRule,
    sources: OnceCell<Ranges>,
    destinations: OnceCell<Ranges>,
}

impl RuleReach<'_> {
    fn leads(&self, compiled: &Compiled, source: IpNet, targets: &Ranges) -> bool {
        let rule = self.rule;
        let sources = self
            .sources
            .get_or_init(|| compiled.source_ranges(rule.source));
        // `*` includes approved subnets.
        let behind = || {
            let sources = compiled.resolved.sources.get(rule.source);
            sources.is_some_and(|sources| sources.set.any && sources.admit_route(source))
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
            .get_or_init(|| compiled.destinations_of(rule));
        (sources.overlaps(source) || behind()) && destinations.meets(targets)
    }
}

/// Whether a rule allows a protocol on a port; without a protocol, any of the default ones.
fn allows(rule: &ResolvedRule, proto: Option<u8>, port: u16) -> bool {
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

/// Whether a set is a single address.
fn is_single(set: &Ranges) -> bool {
    match set.prefixes().as_slice() {
        [net] => net.prefix_len() == net.max_prefix_len(),
        _ => false,
    }
}

/// Checks the destination of an SSH test.
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
