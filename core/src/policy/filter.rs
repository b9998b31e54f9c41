//! Packet filters: `tailcfg.FilterRule` as JSON, reduced to the destinations of the node that gets them.
//!
//! Source: headscale `hscontrol/policy/v2/filter.go` and `hscontrol/policy/policyutil/reduce.go`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use ipnet::IpNet;

use super::ast::Ports;
use super::compiled::{Compiled, Entry};
use super::ranges::Ranges;
use super::resolved::{ResolvedRule, overlap};
use super::resolved_set::{ResolvedSet, addresses, subnets, user};
use super::source_json::{NOBODY, ranges_text};
use crate::id::{NodeId, UserId};
use crate::tailcfg::filter::allow_all;

/// The sources of a filter rule. Rules with the same sources and protocol are merged.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum RuleSource {
    /// These sources.
    All(usize),
    /// Of these sources, the devices of the node's user.
    Own(usize),
}

/// Destinations and their ports, by source and protocol.
type PortRules = BTreeMap<(RuleSource, Option<u8>), Vec<(String, Ports)>>;

/// A filter while it is made.
struct Filter<'c> {
    compiled: &'c Compiled,
    entry: &'c Entry,
    ports: PortRules,
    /// Rules with capabilities, as JSON.
    grants: String,
}

impl Compiled {
    /// Packet filter of a node as a JSON list of `tailcfg.FilterRule`; nodes with the same filter share it. An
    /// empty list blocks everything.
    pub fn filter(&self, node: NodeId) -> Arc<str> {
        let Some(entry) = self.find(node) else {
            return NOBODY.into();
        };
        let slot = usize::try_from(entry.class.id).unwrap_or(usize::MAX);
        match self.filters.get(slot) {
            Some(slot) if self.is_alike_in_class(entry) => {
                let text = slot.get_or_init(|| self.write_filter(entry).into());
                text.clone()
            }
            _ => self.write_filter(entry).into(),
        }
    }

    /// Whether the filter is the same for the whole class: it names neither an address of the node itself nor what
    /// it routes. Rules with `via` do, for `*` too.
    fn is_alike_in_class(&self, entry: &Entry) -> bool {
        let rules = &self.resolved.rules;
        let names_no_node = |number| {
            rules.get(number).is_some_and(|rule: &ResolvedRule| {
                rule.destination.any && rule.app.is_empty() && rule.via.is_empty()
            })
        };
        let has_companions = rules.iter().any(|rule| rule.companions.is_some());
        entry.class.traits.own.is_none()
            && !has_companions
            && entry.class.traits.to.iter().all(names_no_node)
    }

    fn write_filter(&self, entry: &Entry) -> String {
        if self.resolved.without_policy {
            return serde_json::to_string(&[allow_all()]).unwrap_or_default();
        }
        let mut filter = Filter {
            compiled: self,
            entry,
            ports: BTreeMap::new(),
            grants: String::new(),
        };
        let own = entry.class.traits.own.as_ref().map(|(user, _)| *user);
        for (number, rule) in self.resolved.rules.iter().enumerate() {
            if entry.class.traits.to.has(number) {
                filter.add(rule);
            }
            if let Some(user) = own.filter(|_| rule.destination.owned) {
                filter.add_own(rule, user);
            }
            if rule.companions.is_some() && rule.via.is_empty() {
                filter.add_companions(rule, entry.admitted.has(rule.source));
            }
        }
        filter.end()
    }
}

impl Filter<'_> {
    fn add(&mut self, rule: &ResolvedRule) {
        let destinations = self.destinations(rule);
        self.add_ports(RuleSource::All(rule.source), rule, &destinations);
        // The official service grants no capability for destinations behind `via` routers.
        if !rule.app.is_empty() && rule.via.is_empty() {
            let sources = self.compiled.source_text(rule.source);
            let prefixes = self.prefixes(&rule.destination, true);
            self.add_grant(&sources, &prefixes, &rule.app_json);
        }
    }

    fn add_own(&mut self, rule: &ResolvedRule, owner: UserId) {
        let own: Vec<String> = addresses(&self.entry.node)
            .map(|own| own.to_string())
            .collect();
        self.add_ports(RuleSource::Own(rule.source), rule, &own);
        if !rule.app.is_empty() {
            let sources = self.own_text(owner, Some(rule.source));
            let prefixes: Vec<IpNet> = addresses(&self.entry.node).map(IpNet::from).collect();
            self.add_grant(&sources, &prefixes, &rule.app_json);
            if let Some((companions, _)) = &rule.companions
                && self.entry.admitted.has(rule.source)
            {
                let everyone = self.own_text(owner, None);
                for companion in companions {
                    self.add_grant(&everyone, &prefixes, &null_map(companion));
                }
            }
        }
    }

    /// Adds the companion capabilities of a rule, towards its sources.
    fn add_companions(&mut self, rule: &ResolvedRule, admitted: bool) {
        let Some((companions, back)) = &rule.companions else {
            return;
        };
        let Some(sources) = self.compiled.resolved.sources.get(rule.source) else {
            return;
        };
        let behind = sources.postures.is_empty();
        let prefixes = match admitted || behind {
            true => self.prefixes_of(&sources.set, admitted, behind),
            false => Vec::new(),
        };
        let from = self.compiled.source_text(*back);
        for companion in companions {
            self.add_grant(&from, &prefixes, &null_map(companion));
        }
    }

    fn add_ports(&mut self, from: RuleSource, rule: &ResolvedRule, destinations: &[String]) {
        if destinations.is_empty() {
            return;
        }
        for access in &rule.access {
            let entries = self.ports.entry((from, access.proto)).or_default();
            for destination in destinations {
                for ports in &access.ports {
                    entries.push((destination.clone(), *ports));
                }
            }
        }
    }

    fn add_grant(&mut self, sources: &str, destinations: &[IpNet], map: &str) {
        if sources == NOBODY || destinations.is_empty() {
            return;
        }
        let comma = if self.grants.is_empty() { "" } else { "," };
        let list: Vec<String> = destinations
            .iter()
            .map(|net| format!("\"{net}\""))
            .collect();
        // Writing to a String cannot fail.
        let _ = write!(
            self.grants,
            "{comma}{{\"SrcIPs\":{sources},\"CapGrant\":[{{\"Dsts\":[{}],\"CapMap\":{map}}}]}}",
            list.join(",")
        );
    }

    /// The addresses of the user's devices that some sources include, or of all.
    fn own_text(&self, owner: UserId, number: Option<usize>) -> String {
        let mut ranges = Ranges::default();
        let mut add = |entry: &Entry| {
            for address in addresses(&entry.node) {
                ranges.push_address(address);
            }
        };
        match number {
            Some(number) => self.compiled.own_sources(owner, number).for_each(&mut add),
            None => {
                let entries = self.compiled.entries.iter();
                entries
                    .filter(|entry| user(&entry.node) == Some(owner))
                    .for_each(|entry| add(entry));
            }
        }
        ranges.normalize();
        ranges_text(&ranges)
    }

    /// The destinations of a rule at this node.
    fn destinations(&self, rule: &ResolvedRule) -> Vec<String> {
        match rule.destinations_at(&self.entry.node) {
            None => vec!["*".to_owned()],
            Some(nets) => nets.iter().map(text).collect(),
        }
    }

    fn prefixes(&self, named: &ResolvedSet, behind: bool) -> Vec<IpNet> {
        self.prefixes_of(named, named.names(&self.entry.node), behind)
    }

    /// The node's addresses (all, or those named as addresses) and the named prefixes behind it.
    fn prefixes_of(&self, set: &ResolvedSet, named: bool, behind: bool) -> Vec<IpNet> {
        let node = &self.entry.node;
        let all = named && set.names(node);
        let own = addresses(node).filter(|own| all || set.literal.contains(*own));
        let mut nets: Vec<IpNet> = own.map(IpNet::from).collect();
        if behind {
            let literals = set.literals.iter().copied();
            nets.extend(literals.filter(|net| subnets(node).any(|route| overlap(route, *net))));
        }
        nets.sort_unstable();
        nets.dedup();
        nets
    }

    fn end(mut self) -> String {
        let mut text = "[".to_owned();
        let owner = user(&self.entry.node);
        for ((from, proto), mut entries) in std::mem::take(&mut self.ports) {
            let sources = match (from, owner) {
                (RuleSource::All(number), _) => self.compiled.source_text(number),
                (RuleSource::Own(number), Some(owner)) => self.own_text(owner, Some(number)).into(),
                (RuleSource::Own(_), None) => NOBODY.into(),
            };
            if *sources == *NOBODY {
                continue;
            }
            entries.sort_unstable();
            entries.dedup();
            let comma = if text.len() > 1 { "," } else { "" };
            // Writing to a String cannot fail.
            let _ = write!(text, "{comma}{{\"SrcIPs\":{sources},\"DstPorts\":[");
            for (number, (destination, ports)) in entries.iter().enumerate() {
                let comma = if number > 0 { "," } else { "" };
                let Ports { first, last } = ports;
                let _ = write!(
                    text,
                    "{comma}{{\"IP\":\"{destination}\",\"Ports\":{{\"First\":{first},\"Last\":{last}}}}}"
                );
            }
            text.push(']');
            if let Some(proto) = proto {
                let _ = write!(text, ",\"IPProto\":[{proto}]");
            }
            text.push('}');
        }
        if !self.grants.is_empty() {
            if text.len() > 1 {
                text.push(',');
            }
            text.push_str(&self.grants);
        }
        text.push(']');
        text
    }
}

/// A prefix as a destination: a single address has no length.
fn text(net: &IpNet) -> String {
    match net.prefix_len() == net.max_prefix_len() {
        true => net.addr().to_string(),
        false => net.to_string(),
    }
}

fn null_map(capability: &str) -> String {
    format!("{{\"{capability}\":null}}")
}
