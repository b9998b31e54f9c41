//! Lists of selectors with their names resolved to users, matched against one node at a time.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::LazyLock;

use ipnet::IpNet;

use super::ast::{Autogroup, Policy, Selector};
use super::directory::{Node, Owner, Role, User};
use super::posture::Condition;
use super::ranges::{Ranges, any_v4, any_v6};
use crate::id::UserId;
use crate::wan::address::{TAILNET_V4, TAILNET_V6};

/// All addresses of the tailnet, without the range of the ChromeOS virtual machines.
/// Source: `CGNATRange`, `ChromeOSVMRange` and `TailscaleULARange` in tailscale `net/tsaddr/tsaddr.go`.
pub static TAILNET: LazyLock<Ranges> = LazyLock::new(|| {
    let all = Ranges::from_nets(&[TAILNET_V4.into(), TAILNET_V6.into()]);
    all.without(&nets(&["100.115.92.0/23"]))
});

/// The addresses of `autogroup:internet`.
/// Source: `TheInternet` in headscale `hscontrol/util/net.go`.
pub static INTERNET: LazyLock<Ranges> = LazyLock::new(|| {
    nets(&["0.0.0.0/0", "2000::/3"]).without(&nets(&[
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "169.254.0.0/16",
        "100.64.0.0/10",
    ]))
});

fn nets(texts: &[&str]) -> Ranges {
    let nets: Vec<IpNet> = texts.iter().filter_map(|text| text.parse().ok()).collect();
    Ranges::from_nets(&nets)
}

/// Users by name and by group.
#[derive(Debug, Clone, Default)]
pub struct UserIndex {
    users: Vec<User>,
    groups: BTreeMap<Box<str>, Vec<UserId>>,
}

impl UserIndex {
    /// The users of a directory, with the groups of the policy and of the identity provider.
    pub fn new(users: &[User], policy: &Policy) -> Self {
        let mut index = Self {
            users: users.to_vec(),
            groups: BTreeMap::new(),
        };
        for (name, members) in &policy.groups {
            let ids = members
                .iter()
                .filter_map(|member| index.user(member))
                .collect();
            index.groups.insert(name.clone(), ids);
        }
        for user in users {
            for group in user.groups.iter() {
                index.groups.entry(group.clone()).or_default().push(user.id);
            }
        }
        index
    }

    /// The user with this login or email address; `login@` is a login without a domain. `None` if two have it: a
    /// rule must not grant more than its author meant.
    pub fn user(&self, name: &str) -> Option<UserId> {
        let mut found = self.named(name);
        let first = found.next()?;
        found.next().is_none().then_some(first.id)
    }

    /// All users with this login or email address.
    pub fn named(&self, name: &str) -> impl Iterator<Item = &User> {
        let login = name.strip_suffix('@').unwrap_or(name);
        self.users.iter().filter(move |user| {
            user.login.eq_ignore_ascii_case(login)
                || user.login.eq_ignore_ascii_case(name)
                || !user.email.is_empty() && user.email.eq_ignore_ascii_case(name)
        })
    }

    /// Whether a group exists.
    pub fn has_group(&self, name: &str) -> bool {
        self.groups.contains_key(name)
    }

    /// All users.
    pub fn users(&self) -> &[User] {
        &self.users
    }

    /// A user by number.
    pub fn by_id(&self, id: UserId) -> Option<&User> {
        self.users.iter().find(|user| user.id == id)
    }

    fn with_role(&self, is: impl Fn(Role) -> bool) -> impl Iterator<Item = UserId> {
        self.users
            .iter()
            .filter(move |user| is(user.role))
            .map(|user| user.id)
    }
}

/// What a list of selectors stands for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ResolvedSet {
    /// `*`.
    pub any: bool,
    /// `autogroup:self`.
    pub owned: bool,
    /// `autogroup:internet`.
    pub internet: bool,
    /// `autogroup:danger-all`.
    pub danger: bool,
    /// `autogroup:member`.
    member: bool,
    /// `autogroup:tagged`.
    tagged: bool,
    users: Vec<UserId>,
    tags: Vec<Box<str>>,
    /// Addresses, prefix by prefix as written.
    pub literals: Vec<IpNet>,
    /// All of `literals`.
    pub literal: Ranges,
}

impl ResolvedSet {
    /// Resolves selectors.
    pub fn new(selectors: &[Selector], index: &UserIndex) -> Self {
        let mut set = Self::default();
        for selector in selectors {
            match selector {
                Selector::Any => set.any = true,
                Selector::User(name) => set.users.extend(index.user(name)),
                Selector::Domain(domain) => {
                    let users = index.users.iter();
                    let of_domain = users.filter(|user| domain_of(user) == Some(domain));
                    set.users.extend(of_domain.map(|user| user.id));
                }
                Selector::Group(name) => {
                    set.users
                        .extend(index.groups.get(name).into_iter().flatten());
                }
                Selector::Tag(tag) => set.tags.push(tag.clone()),
                Selector::Addresses(sets) => {
                    set.literals.extend(sets.iter().flat_map(Ranges::prefixes));
                }
                Selector::Autogroup(group) => match group {
                    Autogroup::Owned => set.owned = true,
                    Autogroup::Internet => set.internet = true,
                    Autogroup::DangerAll => set.danger = true,
                    Autogroup::Member => set.member = true,
                    Autogroup::Tagged => set.tagged = true,
                    Autogroup::Admin => {
                        let is = |role| matches!(role, Role::Admin | Role::Owner);
                        set.users.extend(index.with_role(is));
                    }
                    Autogroup::Owner => {
                        set.users
                            .extend(index.with_role(|role| role == Role::Owner));
                    }
                    Autogroup::Nonroot | Autogroup::Nobody => {}
                },
            }
        }
        if set.danger {
            set.literals.extend([any_v4(), any_v6()]);
        }
        set.users.sort_unstable();
        set.users.dedup();
        set.tags.sort_unstable();
        set.tags.dedup();
        set.literals.sort_unstable();
        set.literals.dedup();
        set.literal = Ranges::from_nets(&set.literals);
        set
    }

    /// Whether a node is named by owner or `*`, not by an address.
    pub fn names(&self, node: &Node) -> bool {
        self.any || self.names_owner(&node.owner)
    }

    /// Whether an owner is named.
    pub fn names_owner(&self, owner: &Owner) -> bool {
        match owner {
            Owner::User(user) => self.member || self.users.binary_search(user).is_ok(),
            Owner::Tags(tags) => {
                self.tagged || tags.iter().any(|tag| self.tags.binary_search(tag).is_ok())
            }
        }
    }

    /// Whether an address of a node is named.
    pub fn holds_address(&self, node: &Node) -> bool {
        addresses(node).any(|address| self.literal.contains(address))
    }

    /// Whether a node is named in any way.
    pub fn has(&self, node: &Node) -> bool {
        self.names(node) || self.holds_address(node)
    }

    /// Whether anything but `autogroup:self` is named.
    pub fn names_others(&self) -> bool {
        let nothing = Self {
            owned: self.owned,
            ..Self::default()
        };
        *self != nothing
    }

    /// How many of a node's tags are named: the official service lists a node once for each.
    pub fn times(&self, node: &Node) -> usize {
        match &node.owner {
            Owner::Tags(tags) if self.tagged => tags.len(),
            Owner::Tags(tags) => {
                let named = tags
                    .iter()
                    .filter(|tag| self.tags.binary_search(tag).is_ok());
                named.count().max(1)
            }
            Owner::User(_) => 1,
        }
    }

    /// Whether the whole internet is named.
    pub fn holds_internet(&self) -> bool {
        self.any
            || self.internet
            || self.literals.iter().any(|net| net.prefix_len() == 0)
            || !self.literal.is_empty() && self.literal.covers(&INTERNET)
    }
}

/// The sources of a rule: named nodes that meet a posture.
#[derive(Debug, Clone, PartialEq)]
pub struct ResolvedSources {
    /// The named nodes.
    pub set: ResolvedSet,
    /// Postures of which one must hold with all its conditions; empty: any machine.
    pub postures: Vec<Vec<Condition>>,
}

impl ResolvedSources {
    /// Whether a node is a source.
    pub fn admit(&self, node: &Node) -> bool {
        let fits = |conditions: &Vec<Condition>| {
            conditions
                .iter()
                .all(|condition| condition.holds(&node.posture))
        };
        self.set.has(node) && (self.postures.is_empty() || self.postures.iter().any(fits))
    }

    /// Whether hosts behind an approved route are sources. `*` includes all of them; hosts behind a subnet router
    /// have no posture.
    pub fn admit_route(&self, route: IpNet) -> bool {
        self.postures.is_empty() && (self.set.any || self.set.literal.overlaps(route))
    }
}

/// The addresses of a node.
pub fn addresses(node: &Node) -> impl Iterator<Item = IpAddr> {
    let v4 = node.ipv4.map(IpAddr::V4);
    v4.into_iter().chain(node.ipv6.map(IpAddr::V6))
}

/// The approved routes of a node other than those of an exit node.
pub fn subnets(node: &Node) -> impl Iterator<Item = IpNet> {
    node.routes
        .iter()
        .copied()
        .filter(|route| route.prefix_len() != 0)
}

/// Whether a node is an approved exit node.
pub fn is_exit(node: &Node) -> bool {
    node.routes.iter().any(|route| route.prefix_len() == 0)
}

/// The domain of a user's email address, or of its login if that is one.
pub fn domain_of(user: &User) -> Option<&str> {
    let mut addresses = [&user.email, &user.login].into_iter();
    addresses.find_map(|address| Some(address.rsplit_once('@')?.1))
}

/// The user of an untagged node.
pub fn user(node: &Node) -> Option<UserId> {
    match node.owner {
        Owner::User(user) => Some(user),
        Owner::Tags(_) => None,
    }
}
