//! The DNS settings of each node (`DNSConfig`).
//!
//! Most nodes get the same: the JSON is made once for each choice of settings and shared.

mod facts;
mod next_dns;
mod records;

use std::collections::{BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use crate::id::{NodeId, Revision};
use crate::netmap::shared_data::SharedMapData;
use crate::policy::{Compiled, Policy};
use crate::state::dns::{DnsRecord, DnsSettings, Nameserver, Resolution};
use crate::state::model::Node;
use crate::state::snapshot::Snapshot;
use crate::tailcfg::dns::{DnsConfig, ExtraRecord, Resolver};
use crate::tailcfg::json;
use facts::{Facts, NamedNode, named_nodes};
use next_dns::NextDns;

pub use records::{addresses_of, records_of, taken_names};

/// Texts that are kept. Only rules, hidden aliases and NextDNS profiles make different ones, so there are few.
const TEXTS_KEPT: usize = 64;

/// The DNS settings that a stream sent last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SentDns {
    /// 0 before the first.
    generation: u32,
    /// Hash of the [`Choice`].
    choice: u64,
}

/// DNS settings as JSON, each made once. Bounded by `TEXTS_KEPT` and the number of nodes.
#[derive(Debug, Default)]
pub struct DnsTexts(Mutex<DnsCache>);

#[derive(Debug, Default)]
struct DnsCache {
    /// Counts the changes of the inputs below, from 1.
    generation: u32,
    dns_version: u32,
    revision: Revision,
    records: Arc<BTreeSet<DnsRecord>>,
    written_policy: Option<Arc<Policy>>,
    nodes: Vec<NamedNode>,
    facts: Facts,
    texts: HashMap<Choice, Arc<str>>,
    /// The policy that `rules` were found with.
    policy: Option<Arc<Compiled>>,
    /// The rule that matches each node, with the revision of the node: matching is not free. Bounded by the number
    /// of nodes.
    rules: HashMap<NodeId, (Revision, Option<usize>)>,
}

impl DnsTexts {
    /// The `DNSConfig` of `viewer` as JSON, unless it is what was `sent`.
    pub fn changed(
        &self,
        shared: &SharedMapData,
        snapshot: &Snapshot,
        viewer: &Node,
        sent: SentDns,
    ) -> Option<(SentDns, Arc<str>)> {
        // A panic while the lock is held cannot leave half an entry: a poisoned lock is used as it is.
        let mut cache = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        cache.update(shared, snapshot);
        let policy = snapshot.compiled();
        let rule = cache.rule_for(policy, viewer, snapshot.nodes().len());
        let choice = Choice::of(&cache.facts, policy, viewer, rule);
        let mut hasher = DefaultHasher::new();
        choice.hash(&mut hasher);
        let now = SentDns {
            generation: cache.generation,
            choice: hasher.finish(),
        };
        if now == sent {
            return None;
        }
        if let Some(text) = cache.texts.get(&choice) {
            return Some((now, text.clone()));
        }
        let text: Arc<str> = json::plain(&build(&cache.facts, &choice)).into();
        if choice.next_dns.device.is_none() {
            if cache.texts.len() >= TEXTS_KEPT {
                cache.texts.clear();
            }
            cache.texts.insert(choice, text.clone());
        }
        Some((now, text))
    }

    /// The `DNSConfig` of `viewer` as JSON.
    pub fn text(
        &self,
        shared: &SharedMapData,
        snapshot: &Snapshot,
        viewer: &Node,
    ) -> (SentDns, Arc<str>) {
        // Generation 0 was never sent.
        let changed = self.changed(shared, snapshot, viewer, SentDns::default());
        changed.unwrap_or_default()
    }
}

impl DnsCache {
    /// Takes over changed inputs. Older ones than those in the cache are ignored: streams see new states at
    /// slightly different times, and must not undo each other's work.
    fn update(&mut self, shared: &SharedMapData, snapshot: &Snapshot) {
        let is_first = self.generation == 0;
        let is_newer = snapshot.revision() > self.revision || shared.dns_version > self.dns_version;
        let is_older = snapshot.revision() < self.revision || shared.dns_version < self.dns_version;
        if !is_first && (is_older || !is_newer) {
            return;
        }
        let nodes = named_nodes(shared, snapshot);
        let written_policy = snapshot.compiled().policy();
        let is_same_policy = match (written_policy, &self.written_policy) {
            (Some(now), Some(before)) => Arc::ptr_eq(now, before),
            (now, before) => now.is_none() && before.is_none(),
        };
        let is_same = !is_first
            && is_same_policy
            && shared.dns_version == self.dns_version
            && Arc::ptr_eq(snapshot.dns_records(), &self.records)
            && nodes == self.nodes;
        self.revision = snapshot.revision();
        if is_same {
            return;
        }
        self.dns_version = shared.dns_version;
        self.records = snapshot.dns_records().clone();
        self.written_policy = written_policy.cloned();
        self.nodes.clone_from(&nodes);
        let facts = Facts::of(shared, snapshot, nodes);
        self.generation = self.generation.wrapping_add(1).max(1);
        self.facts = facts;
        self.texts.clear();
        self.rules.clear();
    }

    fn rule_for(&mut self, policy: &Arc<Compiled>, viewer: &Node, nodes: usize) -> Option<usize> {
        if self.facts.settings.rules.is_empty() {
            return None;
        }
        let is_same = |known| Arc::ptr_eq(known, policy);
        // Nodes that await approval come and go without a change of the compiled policy.
        if !self.policy.as_ref().is_some_and(is_same) || self.rules.len() > nodes {
            self.policy = Some(policy.clone());
            self.rules.clear();
        }
        let core = viewer.facets.core;
        match self.rules.get(&viewer.id) {
            Some((revision, rule)) if *revision == core => *rule,
            _ => {
                let rule = rule_for(&self.facts, policy, viewer);
                self.rules.insert(viewer.id, (core, rule));
                rule
            }
        }
    }
}

/// What the settings of viewers differ in: viewers with equal choices get the same.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Choice {
    /// Index of the matching rule.
    rule: Option<usize>,
    router: RouterAccess,
    next_dns: NextDns,
    /// Nodes with aliases that are not its peers.
    hidden: Box<[NodeId]>,
}

/// Whether a viewer can use the router's DNS resolver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum RouterAccess {
    /// The viewer is the router.
    Itself,
    /// The viewer can reach the resolver.
    Open,
    /// The policy denies it: with the resolver as its only one, no name would resolve.
    Denied,
}

impl Choice {
    fn of(facts: &Facts, policy: &Compiled, viewer: &Node, rule: Option<usize>) -> Self {
        let settings = &facts.settings;
        let next_dns = match resolution(settings, rule).has_next_dns() {
            true => NextDns::of(policy, viewer),
            false => NextDns::default(),
        };
        let is_peer = |router: &NodeId| policy.are_peers(viewer.id, *router);
        let router = if facts.routers.contains(&viewer.id) {
            RouterAccess::Itself
        } else if facts.is_in_tailnet && !facts.routers.iter().any(is_peer) {
            RouterAccess::Denied
        } else {
            RouterAccess::Open
        };
        let is_hidden = |node: &&NodeId| {
            **node != viewer.id && (viewer.is_isolated() || !policy.are_peers(viewer.id, **node))
        };
        Self {
            rule,
            router,
            next_dns,
            hidden: facts.aliased.iter().filter(is_hidden).copied().collect(),
        }
    }
}

/// Index of the first rule that matches a node. Targets are names that nodes have elsewhere in the section, and
/// selectors of the policy, also tags that it does not declare.
fn rule_for(facts: &Facts, policy: &Compiled, viewer: &Node) -> Option<usize> {
    let matches_node = |selector: &str| {
        viewer.is_meant_by(selector, &facts.base_domain)
            || policy.selects(selector, viewer.id) == Some(true)
    };
    let matches = |targets: &[Box<str>]| targets.iter().any(|target| matches_node(target));
    let mut rules = facts.settings.rules.iter();
    rules.position(|rule| matches(&rule.target))
}

fn resolution(settings: &DnsSettings, rule: Option<usize>) -> &Resolution {
    let rule = rule.and_then(|index| settings.rules.get(index));
    rule.map_or(&settings.usual, |rule| &rule.resolution)
}

fn build(facts: &Facts, choice: &Choice) -> DnsConfig {
    let settings = &facts.settings;
    let resolution = resolution(settings, choice.rule);
    let resolvers = |nameservers: &[Nameserver]| -> Vec<Resolver> {
        let resolver = |nameserver: &Nameserver| Resolver {
            addr: match nameserver.is_next_dns() {
                true => choice.next_dns.url(nameserver.as_str()),
                false => nameserver.as_str().to_owned(),
            },
            use_with_exit_node: resolution.use_with_exit_node,
        };
        nameservers.iter().map(resolver).collect()
    };
    let mut config = DnsConfig {
        proxied: settings.magic_dns,
        ..DnsConfig::default()
    };
    if settings.magic_dns {
        config.domains.push(facts.base_domain.clone());
        let zones = facts.zones.iter();
        config.routes = zones.map(|zone| (zone.clone(), Vec::new())).collect();
    }
    for domain in &resolution.search_domains {
        if config.domains.iter().all(|known| **known != **domain) {
            config.domains.push(domain.to_string());
        }
    }
    for (domain, nameservers) in &resolution.split {
        let resolvers = resolvers(nameservers);
        config.routes.insert(domain.to_string(), resolvers);
    }
    // The router keeps its own resolver: pointed at itself, its queries would loop.
    let router: &[Nameserver] = match choice.router {
        RouterAccess::Itself | RouterAccess::Denied => &[],
        RouterAccess::Open => &facts.router,
    };
    if let Some(domain) = settings.lan_domain.as_ref().filter(|_| !router.is_empty()) {
        let resolvers = resolvers(router);
        config.routes.entry(domain.to_string()).or_insert(resolvers);
    }
    let global = match resolution.use_router {
        true if choice.router == RouterAccess::Itself || !router.is_empty() => resolvers(router),
        _ => resolvers(&resolution.nameservers),
    };
    match resolution.override_local_dns {
        true => config.resolvers = global,
        false => config.fallback_resolvers = global,
    }
    let mut seen = BTreeSet::new();
    for (name, address, node) in &facts.records {
        // A record with an address is visible to all, even if a hidden alias has the same address.
        let is_hidden = node.is_some_and(|node| choice.hidden.binary_search(&node).is_ok());
        if is_hidden || !seen.insert((name, address)) {
            continue;
        }
        if !is_covered(&config, &facts.base_domain, name) {
            config.routes.insert(name.clone(), Vec::new());
        }
        config.extra_records.push(ExtraRecord {
            name: name.clone(),
            r#type: match address {
                IpAddr::V4(_) => "A",
                IpAddr::V6(_) => "AAAA",
            },
            value: address.to_string(),
        });
    }
    config
}

/// Whether a route sends queries for this name to the client's own resolver, which has the record.
fn is_covered(config: &DnsConfig, base_domain: &str, name: &str) -> bool {
    let mut rest = Some(name);
    while let Some(domain) = rest {
        let is_magic = config.proxied && domain == base_domain;
        if is_magic || config.routes.contains_key(domain) {
            return true;
        }
        rest = domain.split_once('.').map(|(_, parent)| parent);
    }
    false
}

#[cfg(test)]
mod tests;
