//! What a policy means for the nodes that there are.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use ipnet::IpNet;
use serde_json::Value;

use crate::id::{NodeId, UserId};
use crate::policy::ast::Policy;
use crate::policy::bits::Bits;
use crate::policy::history::History;
use crate::policy::members::{Members, is_exit, subnets, user};
use crate::policy::program::Program;
use crate::policy::texts::Texts;
use crate::policy::{Directory, Node, Owner, User};

/// Classes whose filter is kept once it was asked for.
const SHARED_FILTERS: usize = 16;

/// Source: `NodeAttrDisableIPv4` in tailscale `tailcfg/nodecap/nodecap.go`.
pub(super) const DISABLE_IPV4: &str = "disable-ipv4";

/// A policy applied to a directory. Immutable; a changed directory gives a new one, which shares with the old
/// one what did not change.
#[derive(Debug, Clone)]
pub struct Compiled {
    pub(super) program: Arc<Program>,
    /// Sorted by number.
    pub(super) entries: Arc<Vec<Arc<Entry>>>,
    /// For each of the program's sources, who that is now.
    pub(super) texts: Arc<Vec<Arc<Texts>>>,
    classes: Arc<BTreeMap<Traits, Arc<Class>>>,
    /// Nodes with approved subnets, where a rule names its routers.
    pub(super) routers: Arc<Vec<Arc<Entry>>>,
    pub(super) filters: Arc<[OnceLock<Arc<str>>; SHARED_FILTERS]>,
    history: History,
}

/// Capabilities and the values of each.
type Capabilities = BTreeMap<Box<str>, Vec<Value>>;

/// A node and what the policy makes of it.
#[derive(Debug)]
pub struct Entry {
    pub node: Node,
    pub class: Arc<Class>,
    /// The numbers of the sources that it is among.
    pub admitted: Bits,
    /// Its routes, for those who may use all of them.
    pub routes: RouteView,
    attributes: Option<Arc<Capabilities>>,
}

/// Nodes of which the rules say the same.
#[derive(Debug)]
pub struct Class {
    pub id: u32,
    /// Number of what they see: those that see everything share theirs, whatever else the rules say.
    view: u32,
    pub traits: Traits,
}

/// What makes nodes see others alike.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Traits {
    /// Numbers of the rules of which it is a source, itself or for what is behind it.
    pub from: Bits,
    /// Numbers of the rules of which it is a destination.
    pub to: Bits,
    /// The user and the numbers of the rules that let it reach the user's other devices.
    pub own: Option<(UserId, Bits)>,
    /// It is told no IPv4 addresses.
    pub without_ipv4: bool,
    /// Its own subnets that it would not see at another router by any rule, but does as one of two routers of
    /// the same subnet.
    pub shared: Vec<IpNet>,
}

/// The routes of a peer that a viewer may use.
#[derive(Debug, Clone, PartialEq, Eq, Default, Hash)]
pub struct RouteView {
    /// What goes into `AllowedIPs` after the addresses, sorted.
    pub allowed: Arc<[IpNet]>,
    /// What goes into `PrimaryRoutes`, sorted; no exit routes.
    pub primary: Arc<[IpNet]>,
}

/// Between which nodes something may have changed from one [`Compiled`] to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Touched {
    /// Only what these nodes see, and how others see these: everything else is as before. (Filters and SSH
    /// policies hold the addresses of sources, so those of other nodes may differ all the same.)
    Nodes(Vec<NodeId>),
    /// Nothing is known to be as before.
    Everything,
}

impl Compiled {
    /// What applies where there is no policy: everyone reaches everyone.
    pub fn allow_all(directory: &Directory) -> Self {
        Self::with_program(Program::without_policy(&directory.users), &directory.nodes)
    }

    /// Applies a policy. What it names and the directory does not have matches nothing; see [`Self::check`].
    pub fn compile(policy: &Arc<Policy>, directory: &Directory) -> Self {
        Self::with_program(Program::new(policy, &directory.users), &directory.nodes)
    }

    fn with_program(program: Program, nodes: &[Node]) -> Self {
        let texts = program.sources.iter().map(|_| Arc::default()).collect();
        let empty = Self {
            program: Arc::new(program),
            entries: Arc::default(),
            texts: Arc::new(texts),
            classes: Arc::default(),
            routers: Arc::default(),
            filters: Arc::default(),
            history: History::default(),
        };
        let mut compiled = empty.with_nodes(nodes, &[]);
        compiled.history = History::default();
        compiled
    }

    /// The same policy for a directory in which these nodes are new or changed, and those gone.
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
            // Those before it are new.
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
        next.renew_texts(&replaced, &now);
        let mut touched: Vec<NodeId> = changed.iter().map(|node| node.id).collect();
        touched.extend(removed);
        if self.program.has_via {
            touched.extend(next.renew_routers(&replaced, &now));
        }
        next.history = self.history.after(touched);
        next
    }

    /// The same policy when the users are these.
    pub fn with_users(&self, users: &[User]) -> Self {
        let program = match self.program.without_policy {
            true => Program::without_policy(users),
            false => Program::new(&self.program.policy, users),
        };
        let nodes: Vec<Node> = self
            .entries
            .iter()
            .map(|entry| entry.node.clone())
            .collect();
        Self::with_program(program, &nodes)
    }

    /// The node as it was compiled; `None` when it is not in the directory.
    pub fn node(&self, id: NodeId) -> Option<&Node> {
        self.find(id).map(|entry| &entry.node)
    }

    /// What may differ from an older one of the same tailnet.
    pub fn touched_since(&self, older: &Self) -> Touched {
        match Arc::ptr_eq(&self.program, &older.program) {
            true => self.history.since(&older.history),
            false => Touched::Everything,
        }
    }

    fn entry(&mut self, node: &Node) -> Entry {
        let program = self.program.clone();
        let rule = |number| program.rules.get(number);
        let count = program.rules.len();
        let admitted = Bits::of(program.sources.len(), |number| {
            let sources = program.sources.get(number);
            sources.is_some_and(|sources| sources.admit(node))
        });
        let from = Bits::of(count, |number| {
            rule(number).is_some_and(|rule| {
                admitted.has(rule.source)
                    || subnets(node).next().is_some() && program.is_from(rule, node)
            })
        });
        let to = Bits::of(count, |number| {
            rule(number).is_some_and(|rule| rule.is_to(node))
        });
        let own = user(node).filter(|_| program.has_self).and_then(|user| {
            let rules = Bits::of(count, |number| {
                rule(number).is_some_and(|rule| rule.destination.owned)
            });
            // A device that is no source may still be reached by the user's others.
            let reaches = Bits::of(count, |number| {
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
        // The numbers are mostly without gaps, so the first try is the right one.
        let id = (length..)
            .chain(0..length)
            .find(|id| !used(id))
            .unwrap_or(u32::MAX);
        let sees_all = traits.from.iter().any(|number| {
            let rule = self.program.rules.get(number);
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

    /// Nodes come and go: what they leave behind is kept up to a bound.
    fn forget_unused_classes(&mut self) {
        let bound = self.entries.len().saturating_mul(2).saturating_add(64);
        if self.classes.len() > bound {
            // Used is what others hold too.
            let used = self.entries.iter().map(|entry| {
                let class = entry.class.clone();
                (class.traits.clone(), class)
            });
            self.classes = Arc::new(used.collect());
        }
    }

    /// Forgets the texts of those sources that the changed nodes are or were among.
    fn renew_texts(&mut self, before: &[Arc<Entry>], now: &[Arc<Entry>]) {
        let routes = |entries: &[Arc<Entry>]| {
            let mut routes: Vec<IpNet> = entries
                .iter()
                .flat_map(|entry| subnets(&entry.node))
                .collect();
            routes.sort();
            routes
        };
        let routes_changed = routes(before) != routes(now);
        let texts = Arc::make_mut(&mut self.texts);
        for (number, (text, sources)) in texts.iter_mut().zip(&self.program.sources).enumerate() {
            let among = |entry: &Arc<Entry>| entry.admitted.has(number);
            let changed = before.iter().any(among) || now.iter().any(among);
            if changed || routes_changed && sources.members.any {
                *text = Arc::default();
            }
        }
    }

    /// Finds the routers anew, and says for which the choice among them may have changed.
    fn renew_routers(&mut self, before: &[Arc<Entry>], now: &[Arc<Entry>]) -> Vec<NodeId> {
        let is_router = |entry: &&Arc<Entry>| {
            let rules = &self.program.rules;
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

    /// Whether two nodes are peers: either may reach the other. Symmetric; false for a node and itself, and
    /// for nodes that are not in the directory.
    pub fn are_peers(&self, one: NodeId, other: NodeId) -> bool {
        match (self.find(one), self.find(other)) {
            (Some(one), Some(other)) => one.is_peer(other),
            _ => false,
        }
    }

    /// A number that two nodes share only when they see every third node alike: the same peers, with the
    /// same routes. It means nothing in another version.
    pub fn view_class(&self, viewer: NodeId) -> u32 {
        self.find(viewer).map_or(u32::MAX, |entry| entry.class.view)
    }

    /// Whether a viewer is told no IPv4 address of a peer (nor a node its own): either of them has the
    /// capability `disable-ipv4`.
    pub fn without_ipv4(&self, viewer: NodeId, peer: NodeId) -> bool {
        // Asked for every pair of nodes, and nearly always for nothing.
        self.program.has_without_ipv4
            && [viewer, peer].into_iter().any(|id| {
                self.find(id)
                    .is_some_and(|entry| entry.class.traits.without_ipv4)
            })
    }

    /// The capabilities that the policy gives to a node itself (`nodeAttrs`), with the values of each.
    pub fn attributes(&self, node: NodeId) -> Arc<BTreeMap<Box<str>, Vec<Value>>> {
        let entry = self.find(node);
        let given = entry.and_then(|entry| entry.attributes.clone());
        given.unwrap_or_default()
    }

    fn attributes_of(&self, node: &Node) -> Option<Arc<Capabilities>> {
        let mut all = Capabilities::new();
        for entry in &self.program.attributes {
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
        if let Some(one) = self.program.policy.one_cgnat
            && node.posture.os.eq_ignore_ascii_case("macos")
        {
            all.entry(format!("one-cgnat?v={one}").into()).or_default();
        }
        (!all.is_empty()).then(|| Arc::new(all))
    }

    /// Whether an owner may give this tag to a node: a user that is named in `tagOwners` itself or by a group,
    /// an administrator, or a node with a tag that owns it.
    pub fn may_tag(&self, who: &Owner, tag: &str) -> bool {
        self.program.may_tag(who, tag)
    }

    /// Whether a route that this node offers needs no administrator.
    pub fn auto_approves(&self, node: &Node, route: &IpNet) -> bool {
        self.program.auto_approves(node, route)
    }

    /// The IPv4 prefix from which a node gets its address (`nodeAttrs` with `ipPool`), if there is one.
    pub fn ip_pool(&self, node: &Node) -> Option<ipnet::Ipv4Net> {
        let mut entries = self.program.attributes.iter();
        let entry = entries.find(|entry| !entry.pools.is_empty() && entry.targets.names(node))?;
        entry.pools.first().copied()
    }

    /// Whether a node is among those that a selector names (`*`, a user, group, tag, autogroup, address
    /// or host); `None` when the selector is none.
    pub fn selects(&self, selector: &str, node: NodeId) -> Option<bool> {
        // Tags are known by being worn, too: outside of a policy nobody declares them.
        if selector.starts_with("tag:") {
            let node = self.find(node).map(|entry| &entry.node.owner);
            let worn = |owner: &Owner| match owner {
                Owner::Tags(tags) => tags.iter().any(|tag| **tag == *selector),
                Owner::User(_) => false,
            };
            return Some(node.is_some_and(worn));
        }
        let selector = self.program.policy.selector(selector).ok()?;
        let members = Members::new(&[selector], &self.program.people);
        Some(
            self.find(node)
                .is_some_and(|entry| members.has(&entry.node)),
        )
    }

    /// The policy that is applied; `None` where there is none.
    pub fn policy(&self) -> Option<&Arc<Policy>> {
        (!self.program.without_policy).then_some(&self.program.policy)
    }
}

impl Entry {
    /// Whether either of two nodes may reach the other.
    pub fn is_peer(&self, other: &Self) -> bool {
        let (one, two) = (&self.class.traits, &other.class.traits);
        self.node.id != other.node.id
            && (one.from.meets(&two.to) || two.from.meets(&one.to) || one.shares_user(two))
    }

    /// Whether the node is an approved exit node.
    pub fn is_exit(&self) -> bool {
        is_exit(&self.node)
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
