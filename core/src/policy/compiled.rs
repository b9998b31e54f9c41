//! Compiled policies: what a policy means for the current nodes.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use ipnet::IpNet;
use serde_json::Value;

use super::ast::Policy;
use super::bitset::BitSet;
use super::change_log::{ChangeLog, Touched};
use super::directory::{Directory, Node, Owner, User};
use super::resolved::{DISABLE_IPV4, ResolvedPolicy};
use super::resolved_set::{ResolvedSet, subnets, user};
use super::source_cache::SourceJsonCache;
use crate::id::{NodeId, UserId};

/// Classes whose packet filter is kept once made.
const SHARED_FILTERS: usize = 16;

/// A policy applied to a directory. Immutable: a changed directory makes a new one, which shares with the old
/// one what did not change.
#[derive(Debug, Clone)]
pub struct Compiled {
    pub(super) resolved: Arc<ResolvedPolicy>,
    /// Sorted by number.
    pub(super) entries: Arc<Vec<Arc<Entry>>>,
    /// For each of the policy's sources, its JSON for the current nodes.
    pub(super) source_json: Arc<Vec<Arc<SourceJsonCache>>>,
    classes: Arc<BTreeMap<Traits, Arc<Class>>>,
    /// Nodes with approved subnets, where a rule names its routers.
    pub(super) routers: Arc<Vec<Arc<Entry>>>,
    pub(super) filters: Arc<[OnceLock<Arc<str>>; SHARED_FILTERS]>,
    change_log: ChangeLog,
}

/// Capabilities and the values of each.
type Capabilities = BTreeMap<Box<str>, Vec<Value>>;

/// A node and its results under the policy.
#[derive(Debug)]
pub struct Entry {
    pub node: Node,
    pub class: Arc<Class>,
    /// Numbers of the sources that include it.
    pub admitted: BitSet,
    /// Its routes, for viewers that may use all of them.
    pub routes: RouteView,
    attributes: Option<Arc<Capabilities>>,
}

/// Nodes that the rules treat alike.
#[derive(Debug)]
pub struct Class {
    pub id: u32,
    /// Number of their view: nodes that see everything share one, whatever else the rules say.
    view: u32,
    pub traits: Traits,
}

/// What decides how a node sees the others.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Traits {
    /// Numbers of the rules that have it as a source, itself or the hosts behind it.
    pub from: BitSet,
    /// Numbers of the rules that have it as a destination.
    pub to: BitSet,
    /// Its user, and the numbers of the `autogroup:self` rules that let it reach the user's other devices.
    pub own: Option<(UserId, BitSet)>,
    /// Whether it gets no IPv4 addresses.
    pub without_ipv4: bool,
    /// Its own subnets that no rule would let it use at another subnet router; it sees them there as one of
    /// several routers of the subnet.
    pub shared: Vec<IpNet>,
}

/// The routes of a peer that a viewer may use.
#[derive(Debug, Clone, PartialEq, Eq, Default, Hash)]
pub struct RouteView {
    /// Routes in `AllowedIPs`, after the addresses; sorted.
    pub allowed: Arc<[IpNet]>,
    /// Routes in `PrimaryRoutes`, sorted; no exit routes.
    pub primary: Arc<[IpNet]>,
}

impl Compiled {
    /// The default without a policy: everyone reaches everyone.
    pub fn allow_all(directory: &Directory) -> Self {
        Self::with_resolved(
            ResolvedPolicy::without_policy(&directory.users),
            &directory.nodes,
        )
    }

    /// Applies a policy. Names that the directory does not have match nothing; see [`Self::check`].
    pub fn compile(policy: &Arc<Policy>, directory: &Directory) -> Self {
        Self::with_resolved(
            ResolvedPolicy::new(policy, &directory.users),
            &directory.nodes,
        )
    }

    fn with_resolved(resolved: ResolvedPolicy, nodes: &[Node]) -> Self {
        let source_json = resolved.sources.iter().map(|_| Arc::default()).collect();
        let empty = Self {
            resolved: Arc::new(resolved),
            entries: Arc::default(),
            source_json: Arc::new(source_json),
            classes: Arc::default(),
            routers: Arc::default(),
            filters: Arc::default(),
            change_log: ChangeLog::default(),
        };
        let mut compiled = empty.with_nodes(nodes, &[]);
        compiled.change_log = ChangeLog::default();
        compiled
    }

    /// The same policy after `changed` nodes were added or changed, and `removed` ones removed.
    pub fn with_nodes(&self, changed: &[Node], removed: &[NodeId]) -> Self {
        let mut next = Self {
            filters: Arc::default(),
            ..self.clone()
        };
        next.forget_unused_classes();
        let mut replaced: Vec<Arc<Entry>> = Vec::new();
        let mut fresh: BTreeMap<NodeId, Arc<Entry>> = BTreeMap::new();
        for node in changed.iter().filter(|node| !removed.contains(&node.id)) {
            fresh.insert(node.id, Arc::new(next.entry(node)));
        }
        let mut entries = Vec::with_capacity(self.entries.len().saturating_add(fresh.len()));
        for old in self.entries.iter() {
            // Nodes before it are new.
            while let Some(first) = fresh
                .first_entry()
                .filter(|first| *first.key() < old.node.id)
            {
                entries.push(first.remove());
            }
            match fresh.remove(&old.node.id) {
                Some(new) => {
                    replaced.push(old.clone());
                    entries.push(new);
                }
                None if removed.contains(&old.node.id) => replaced.push(old.clone()),
                None => entries.push(old.clone()),
            }
        }
        entries.extend(fresh.into_values());
        next.entries = Arc::new(entries);
        let now: Vec<Arc<Entry>> = changed
            .iter()
            .filter_map(|node| next.find(node.id).cloned())
            .collect();
        next.reset_source_json(&replaced, &now);
        let mut touched: Vec<NodeId> = changed.iter().map(|node| node.id).collect();
        touched.extend(removed);
        if self.resolved.has_via {
            touched.extend(next.renew_routers(&replaced, &now));
        }
        next.change_log = self.change_log.after(touched);
        next
    }

    /// The same policy for these users.
    pub fn with_users(&self, users: &[User]) -> Self {
        let resolved = match self.resolved.without_policy {
            true => ResolvedPolicy::without_policy(users),
            false => ResolvedPolicy::new(&self.resolved.policy, users),
        };
        let nodes: Vec<Node> = self
            .entries
            .iter()
            .map(|entry| entry.node.clone())
            .collect();
        Self::with_resolved(resolved, &nodes)
    }

    /// The node as it was compiled; `None` if it is not in the directory.
    pub fn node(&self, id: NodeId) -> Option<&Node> {
        self.find(id).map(|entry| &entry.node)
    }

    /// What may differ from an older version.
    pub fn touched_since(&self, older: &Self) -> Touched {
        match Arc::ptr_eq(&self.resolved, &older.resolved) {
            true => self.change_log.since(&older.change_log),
            false => Touched::Everything,
        }
    }

    fn entry(&mut self, node: &Node) -> Entry {
        let resolved = self.resolved.clone();
        let rule = |number| resolved.rules.get(number);
        let count = resolved.rules.len();
        let admitted = BitSet::of(resolved.sources.len(), |number| {
            let sources = resolved.sources.get(number);
            sources.is_some_and(|sources| sources.admit(node))
        });
        let from = BitSet::of(count, |number| {
            rule(number).is_some_and(|rule| {
                admitted.has(rule.source)
                    || subnets(node).next().is_some() && resolved.is_from(rule, node)
            })
        });
        let to = BitSet::of(count, |number| {
            rule(number).is_some_and(|rule| rule.is_to(node))
        });
        let own = user(node).filter(|_| resolved.has_self).and_then(|user| {
            let rules = BitSet::of(count, |number| {
                rule(number).is_some_and(|rule| rule.destination.owned)
            });
            // A device that is not a source may still be reached by the user's other devices.
            let reaches = BitSet::of(count, |number| {
                rules.has(number) && rule(number).is_some_and(|rule| admitted.has(rule.source))
            });
            (!rules.is_empty()).then_some((user, reaches))
        });
        let attributes = self.attributes_of(node);
        let mut traits = Traits {
            from,
            to,
            own,
            without_ipv4: attributes
                .as_ref()
                .is_some_and(|attributes| attributes.contains_key(DISABLE_IPV4)),
            shared: Vec::new(),
        };
        traits.shared = subnets(node)
            .filter(|route| !self.may_use(&traits, *route))
            .collect();
        let class = self.class(traits);
        let exits = node.routes.iter().filter(|route| route.prefix_len() == 0);
        let mut allowed: Vec<IpNet> = node.primary.iter().chain(exits).copied().collect();
        allowed.sort();
        Entry {
            class,
            admitted,
            routes: RouteView {
                allowed: allowed.into(),
                primary: node.primary.clone(),
            },
            attributes,
            node: node.clone(),
        }
    }

    fn class(&mut self, traits: Traits) -> Arc<Class> {
        if let Some(class) = self.classes.get(&traits) {
            return class.clone();
        }
        let classes = Arc::make_mut(&mut self.classes);
        let used = |id: &u32| classes.values().any(|class| class.id == *id);
        let length = u32::try_from(classes.len()).unwrap_or(u32::MAX);
        // The numbers mostly have no gaps, so the first try succeeds.
        let id = (length..)
            .chain(0..length)
            .find(|id| !used(id))
            .unwrap_or(u32::MAX);
        let sees_all = traits.from.iter().any(|number| {
            let rule = self.resolved.rules.get(number);
            rule.is_some_and(|rule| rule.via.is_empty() && rule.destination.any)
        });
        let view = match sees_all {
            true => u32::from(traits.without_ipv4),
            false => id.saturating_add(2),
        };
        let class = Arc::new(Class {
            id,
            view,
            traits: traits.clone(),
        });
        classes.insert(traits, class.clone());
        class
    }

    /// Drops classes without nodes once there are too many.
    fn forget_unused_classes(&mut self) {
        let bound = self.entries.len().saturating_mul(2).saturating_add(64);
        if self.classes.len() > bound {
            let used = self.entries.iter().map(|entry| {
                let class = entry.class.clone();
                (class.traits.clone(), class)
            });
            self.classes = Arc::new(used.collect());
        }
    }

    /// Discards the JSON of those sources that the changed nodes are or were among.
    fn reset_source_json(&mut self, before: &[Arc<Entry>], now: &[Arc<Entry>]) {
        let routes = |entries: &[Arc<Entry>]| {
            let mut routes: Vec<IpNet> = entries
                .iter()
                .flat_map(|entry| subnets(&entry.node))
                .collect();
            routes.sort();
            routes
        };
        let routes_changed = routes(before) != routes(now);
        let source_json = Arc::make_mut(&mut self.source_json);
        for (number, (text, sources)) in source_json
            .iter_mut()
            .zip(&self.resolved.sources)
            .enumerate()
        {
            let includes = |entry: &Arc<Entry>| entry.admitted.has(number);
            let changed = before.iter().any(includes) || now.iter().any(includes);
            if changed || routes_changed && sources.set.any {
                *text = Arc::default();
            }
        }
    }

    /// Updates the routers after a change, and returns those that may be chosen or dropped because of it.
    fn renew_routers(&mut self, before: &[Arc<Entry>], now: &[Arc<Entry>]) -> Vec<NodeId> {
        let is_router = |entry: &&Arc<Entry>| {
            let rules = &self.resolved.rules;
            !entry.node.routes.is_empty() && rules.iter().any(|rule| rule.goes_via(&entry.node))
        };
        let changed = before.iter().any(|entry| is_router(&entry))
            || now.iter().any(|entry| is_router(&entry));
        if !changed {
            return Vec::new();
        }
        let routers: Vec<_> = self.entries.iter().filter(is_router).cloned().collect();
        let touched = routers.iter().map(|entry| entry.node.id).collect();
        self.routers = Arc::new(routers);
        touched
    }

    pub(super) fn find(&self, id: NodeId) -> Option<&Arc<Entry>> {
        let entries = &self.entries;
        let at = entries
            .binary_search_by_key(&id, |entry| entry.node.id)
            .ok()?;
        entries.get(at)
    }

    /// Whether two nodes are peers, that is, either may reach the other. False for a node and itself, and for
    /// nodes that are not in the directory.
    pub fn are_peers(&self, one: NodeId, other: NodeId) -> bool {
        match (self.find(one), self.find(other)) {
            (Some(one), Some(other)) => one.is_peer(other),
            _ => false,
        }
    }

    /// Number of the node's view: nodes with the same number see all other nodes alike, the same peers with the
    /// same routes. Only comparable within one version.
    pub fn view_class(&self, viewer: NodeId) -> u32 {
        self.find(viewer).map_or(u32::MAX, |entry| entry.class.view)
    }

    /// Whether the IPv4 address of a peer (or of the node itself) is left out for a viewer: either of them has the
    /// capability `disable-ipv4`.
    pub fn without_ipv4(&self, viewer: NodeId, peer: NodeId) -> bool {
        // Called for every pair of nodes; nearly always false.
        self.resolved.has_without_ipv4
            && [viewer, peer].into_iter().any(|id| {
                self.find(id)
                    .is_some_and(|entry| entry.class.traits.without_ipv4)
            })
    }

    /// Node attributes (`nodeAttrs`) of a node: capabilities and their values.
    pub fn attributes(&self, node: NodeId) -> Arc<BTreeMap<Box<str>, Vec<Value>>> {
        let entry = self.find(node);
        let given = entry.and_then(|entry| entry.attributes.clone());
        given.unwrap_or_default()
    }

    fn attributes_of(&self, node: &Node) -> Option<Arc<Capabilities>> {
        let mut all = Capabilities::new();
        for entry in &self.resolved.attributes {
            if entry.targets.has(node) {
                for (name, values) in &entry.values {
                    let known = all.entry(name.clone()).or_default();
                    for value in values {
                        if !known.contains(value) {
                            known.push(value.clone());
                        }
                    }
                }
            }
        }
        // Source: `OneCGNATEnable`, `OneCGNATDisable` in tailscale `tailcfg/nodecap/nodecap.go`.
        if let Some(one) = self.resolved.policy.one_cgnat
            && node.posture.os.eq_ignore_ascii_case("macos")
        {
            all.entry(format!("one-cgnat?v={one}").into()).or_default();
        }
        (!all.is_empty()).then(|| Arc::new(all))
    }

    /// Whether an owner may assign this tag: a user named in `tagOwners`, directly or by a group, an admin, or a
    /// node with a tag that owns it.
    pub fn may_tag(&self, who: &Owner, tag: &str) -> bool {
        self.resolved.may_tag(who, tag)
    }

    /// Whether the policy declares this tag (`tagOwners`), so that rules can name it.
    pub fn declares_tag(&self, tag: &str) -> bool {
        self.resolved.policy.tag_owners.contains_key(tag)
    }

    /// Whether a route that this node advertises is approved automatically (`autoApprovers`).
    pub fn auto_approves(&self, node: &Node, route: &IpNet) -> bool {
        self.resolved.auto_approves(node, route)
    }

    /// IP pool of a node (`nodeAttrs` with `ipPool`): the prefix of its IPv4 address.
    pub fn ip_pool(&self, node: &Node) -> Option<ipnet::Ipv4Net> {
        let mut entries = self.resolved.attributes.iter();
        let entry = entries.find(|entry| !entry.pools.is_empty() && entry.targets.names(node))?;
        entry.pools.first().copied()
    }

    /// Whether a selector (`*`, a user, group, tag, autogroup, address or host) matches a node; `None` if the
    /// selector is invalid.
    pub fn selects(&self, selector: &str, node: NodeId) -> Option<bool> {
        // Tags count even if no policy declares them.
        if selector.starts_with("tag:") {
            let node = self.find(node).map(|entry| &entry.node.owner);
            let has_tag = |owner: &Owner| match owner {
                Owner::Tags(tags) => tags.iter().any(|tag| **tag == *selector),
                Owner::User(_) => false,
            };
            return Some(node.is_some_and(has_tag));
        }
        let selector = self.resolved.policy.selector(selector).ok()?;
        let set = ResolvedSet::new(&[selector], &self.resolved.users);
        Some(self.find(node).is_some_and(|entry| set.has(&entry.node)))
    }

    /// The applied policy; `None` for the default without a policy.
    pub fn policy(&self) -> Option<&Arc<Policy>> {
        (!self.resolved.without_policy).then_some(&self.resolved.policy)
    }
}

impl Entry {
    /// Whether either of two nodes may reach the other.
    pub fn is_peer(&self, other: &Self) -> bool {
        let (one, two) = (&self.class.traits, &other.class.traits);
        self.node.id != other.node.id
            && (one.from.meets(&two.to) || two.from.meets(&one.to) || one.shares_user(two))
    }
}

impl Traits {
    fn shares_user(&self, other: &Self) -> bool {
        match (&self.own, &other.own) {
            (Some((one, rules)), Some((other, others))) => {
                one == other && !(rules.is_empty() && others.is_empty())
            }
            _ => false,
        }
    }
}
