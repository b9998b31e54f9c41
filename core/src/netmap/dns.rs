//! What each node is told about DNS.
//!
//! Most nodes are told the same: the text is made once for each choice of settings and shared.

mod facts;
mod next_dns;

use std::collections::{BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, PoisonError};

use crate::id::{NodeId, Revision};
use crate::netmap::{Tailnet, to_json};
use crate::policy::{self, Compiled, Policy};
use crate::state::dns::{
    DnsRecord, DnsSettings, DnsValue, Nameserver, RECORDS_MAX, Resolution, label_in,
};
use crate::state::model::Node;
use crate::state::snapshot::Snapshot;
use crate::tailcfg::dns::{DnsConfig, ExtraRecord, Resolver};
use facts::{Facts, Named, is_there, named_nodes};
use next_dns::NextDns;

/// Most texts that are kept. Only rules and NextDNS profiles make different ones, so there are few.
const TEXTS_KEPT: usize = 64;

/// What hearth's surroundings say about DNS. Immutable: a change gives a [`Tailnet`] with another one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DnsSources {
    /// The configuration.
    pub settings: Arc<DnsSettings>,
    /// The records of the file that it names.
    pub file_records: Arc<[DnsRecord]>,
    /// The addresses of this machine that are of a tailnet's kind: one of them is that of its node.
    pub tailnet_addresses: Arc<[Ipv4Addr]>,
    /// The address of this machine at home.
    pub home_address: Option<Ipv4Addr>,
}

/// The records that the policy gives (`extraDNSRecords`), at most [`RECORDS_MAX`].
pub fn records_of(policy: Option<&Arc<Policy>>) -> impl Iterator<Item = DnsRecord> {
    let records = policy.map_or(&[][..], |policy| policy.extra_records());
    let read = |record: &policy::ExtraRecord| {
        let record = DnsRecord::parse(&record.name, &record.kind, &record.value).ok();
        record.filter(|record| !matches!(record.value, DnsValue::Alias(_)))
    };
    records.iter().filter_map(read).take(RECORDS_MAX)
}

/// The addresses that a record stands for now, sorted: none when its node is not there.
pub fn addresses_of(record: &DnsRecord, base_domain: &str, snapshot: &Snapshot) -> Vec<IpAddr> {
    match &record.value {
        DnsValue::A(address) => vec![(*address).into()],
        DnsValue::Aaaa(address) => vec![(*address).into()],
        DnsValue::Alias(target) => {
            let label = label_in(target, base_domain);
            let mut nodes = snapshot.nodes().iter();
            let node = nodes.find(|node| is_there(node) && Some(&*node.label) == label);
            node.map_or(Vec::new(), |node| vec![node.ipv4.into(), node.ipv6.into()])
        }
    }
}

/// What a stream was told last about DNS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Told {
    /// 0 before it was told anything.
    generation: u32,
    choice: u64,
}

/// The texts that nodes are told, each made once. Bounded.
#[derive(Debug, Default)]
pub struct DnsTexts(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// Counts the changes of all below, from 1.
    generation: u32,
    dns_version: u32,
    revision: Revision,
    records: Arc<BTreeSet<DnsRecord>>,
    written: Option<Arc<Policy>>,
    nodes: Vec<Named>,
    facts: Facts,
    texts: HashMap<Choice, Arc<str>>,
    /// The policy by which `rules` were found.
    policy: Option<Arc<Compiled>>,
    /// The rule that fits each node, by the revision of the node: to ask the policy is not for nothing.
    /// Bounded by the number of nodes.
    rules: HashMap<NodeId, (Revision, Option<usize>)>,
}

impl DnsTexts {
    /// The `DNSConfig` of `viewer`, as JSON, unless it is what the viewer was `told`.
    pub fn news(
        &self,
        tailnet: &Tailnet,
        snapshot: &Snapshot,
        viewer: &Node,
        told: Told,
    ) -> Option<(Told, Arc<str>)> {
        // A panic while the lock is held cannot leave half an entry; take what there is.
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.learn(tailnet, snapshot);
        let policy = snapshot.compiled();
        let rule = known.rule_for(policy, viewer, snapshot.nodes().len());
        let choice = Choice::of(&known.facts, policy, viewer, rule);
        let mut hasher = DefaultHasher::new();
        choice.hash(&mut hasher);
        let now = Told {
            generation: known.generation,
            choice: hasher.finish(),
        };
        if now == told {
            return None;
        }
        if let Some(text) = known.texts.get(&choice) {
            return Some((now, text.clone()));
        }
        let text: Arc<str> = to_json(&build(&known.facts, &choice)).into();
        if choice.next_dns.device.is_none() {
            if known.texts.len() >= TEXTS_KEPT {
                known.texts.clear();
            }
            known.texts.insert(choice, text.clone());
        }
        Some((now, text))
    }

    /// The `DNSConfig` of `viewer`, as JSON.
    pub fn text(&self, tailnet: &Tailnet, snapshot: &Snapshot, viewer: &Node) -> (Told, Arc<str>) {
        // Nobody was ever told of generation 0.
        let news = self.news(tailnet, snapshot, viewer, Told::default());
        news.unwrap_or_default()
    }
}

impl Known {
    /// Takes over what changed. What is older than what is known already does not count: streams see new
    /// states at slightly different times, and must not undo each other's work.
    fn learn(&mut self, tailnet: &Tailnet, snapshot: &Snapshot) {
        let is_first = self.generation == 0;
        let is_newer =
            snapshot.revision() > self.revision || tailnet.dns_version > self.dns_version;
        let is_older =
            snapshot.revision() < self.revision || tailnet.dns_version < self.dns_version;
        if !is_first && (is_older || !is_newer) {
            return;
        }
        let nodes = named_nodes(tailnet, snapshot);
        let written = snapshot.compiled().policy();
        let is_same_policy = match (written, &self.written) {
            (Some(now), Some(before)) => Arc::ptr_eq(now, before),
            (now, before) => now.is_none() && before.is_none(),
        };
        let is_same = !is_first
            && is_same_policy
            && tailnet.dns_version == self.dns_version
            && Arc::ptr_eq(snapshot.dns_records(), &self.records)
            && nodes == self.nodes;
        self.revision = snapshot.revision();
        if is_same {
            return;
        }
        self.dns_version = tailnet.dns_version;
        self.records = snapshot.dns_records().clone();
        self.written = written.cloned();
        self.nodes.clone_from(&nodes);
        let facts = Facts::of(tailnet, snapshot, nodes);
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
        // Nodes that do not take part come and go without a change of the policy.
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

/// By what the texts of viewers differ: those with equal choices are told the same.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Choice {
    /// The rule that fits, by its place.
    rule: Option<usize>,
    router: Reach,
    next_dns: NextDns,
    /// The nodes with aliases that it does not see.
    hidden: Box<[NodeId]>,
}

/// How a viewer stands to the router.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Reach {
    /// It is the router.
    Itself,
    /// It may ask its resolver.
    Open,
    /// The policy keeps them apart: a resolver there would leave it without any names.
    Closed,
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
            Reach::Itself
        } else if facts.is_in_tailnet && !facts.routers.iter().any(is_peer) {
            Reach::Closed
        } else {
            Reach::Open
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

/// The first rule that fits a node, by its place. The names that nodes have elsewhere in the section are
/// good here too, and so are tags that no policy declares.
fn rule_for(facts: &Facts, policy: &Compiled, viewer: &Node) -> Option<usize> {
    let is_meant = |selector: &str| {
        viewer.is_named(selector, &facts.base_domain)
            || policy.selects(selector, viewer.id) == Some(true)
    };
    let fits = |targets: &[Box<str>]| targets.iter().any(|target| is_meant(target));
    let mut rules = facts.settings.rules.iter();
    rules.position(|rule| fits(&rule.target))
}

fn resolution(settings: &DnsSettings, rule: Option<usize>) -> &Resolution {
    let rule = rule.and_then(|place| settings.rules.get(place));
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
    // The router keeps the resolver that it has: sent to itself, its queries would go round in circles.
    let router: &[Nameserver] = match choice.router {
        Reach::Itself | Reach::Closed => &[],
        Reach::Open => &facts.router,
    };
    if let Some(domain) = settings.lan_domain.as_ref().filter(|_| !router.is_empty()) {
        let resolvers = resolvers(router);
        config.routes.entry(domain.to_string()).or_insert(resolvers);
    }
    let global = match resolution.use_router {
        true if choice.router == Reach::Itself || !router.is_empty() => resolvers(router),
        _ => resolvers(&resolution.nameservers),
    };
    match resolution.override_local_dns {
        true => config.resolvers = global,
        false => config.fallback_resolvers = global,
    }
    let mut seen = BTreeSet::new();
    for (name, address, node) in &facts.records {
        // An address that somebody wrote down counts as such, even where an alias leads to it as well.
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

/// Whether queries for this name reach the client's own resolver by a route, and with it the record.
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
