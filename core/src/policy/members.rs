//! Selectors, looked up in the users of a directory: a question that each node answers for itself.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::LazyLock;

use ipnet::IpNet;

use crate::id::UserId;
use crate::policy::ast::{Autogroup, Policy, Selector};
use crate::policy::directory::{Node, Owner, Role, User};
use crate::policy::posture::Condition;
use crate::policy::ranges::{Ranges, any_v4, any_v6};

/// All addresses of the tailnet; a part belongs to virtual machines of ChromeOS.
/// Source: `CGNATRange`, `ChromeOSVMRange` and `TailscaleULARange` in tailscale `net/tsaddr/tsaddr.go`.
pub static TAILNET: LazyLock<Ranges> = LazyLock::new(|| {
    let all = nets(&["100.64.0.0/10", "fd7a:115c:a1e0::/48"]);
    all.without(&nets(&["100.115.92.0/23"]))
});

/// What `autogroup:internet` stands for.
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

/// Users and the groups that they are in.
#[derive(Debug, Clone, Default)]
pub struct People {
    users: Vec<User>,
    groups: BTreeMap<Box<str>, Vec<UserId>>,
}

impl People {
    /// The users of a directory, in the groups of a policy and those of the identity provider.
    pub fn new(users: &[User], policy: &Policy) -> Self {
        let mut people = Self {
            users: users.to_vec(),
            groups: BTreeMap::new(),
        };
        for (name, members) in &policy.groups {
            let ids = members
                .iter()
                .filter_map(|member| people.user(member))
                .collect();
            people.groups.insert(name.clone(), ids);
        }
        for user in users {
            for group in user.groups.iter() {
                people
                    .groups
                    .entry(group.clone())
                    .or_default()
                    .push(user.id);
            }
        }
        people
    }

    /// The one user with this login or mail address; `login@` is a login without a domain. Nobody when two
    /// have it: a rule must not grant more than its author saw.
    pub fn user(&self, name: &str) -> Option<UserId> {
        let login = name.strip_suffix('@').unwrap_or(name);
        let mut found = self.users.iter().filter(|user| {
            user.login.eq_ignore_ascii_case(login)
                || user.login.eq_ignore_ascii_case(name)
                || !user.email.is_empty() && user.email.eq_ignore_ascii_case(name)
        });
        let first = found.next()?;
        found.next().is_none().then_some(first.id)
    }

    /// Whether a group is known.
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

/// Who or what a list of selectors names.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Members {
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
    /// What is written as addresses, prefix by prefix.
    pub literals: Vec<IpNet>,
    /// All of it.
    pub literal: Ranges,
}

impl Members {
    /// Looks selectors up.
    pub fn new(selectors: &[Selector], people: &People) -> Self {
        let mut members = Self::default();
        for selector in selectors {
            match selector {
                Selector::Any => members.any = true,
                Selector::User(name) => members.users.extend(people.user(name)),
                Selector::Domain(domain) => {
                    let users = people.users.iter();
                    let of_domain = users.filter(|user| domain_of(user) == Some(domain));
                    members.users.extend(of_domain.map(|user| user.id));
                }
                Selector::Group(name) => {
                    members
                        .users
                        .extend(people.groups.get(name).into_iter().flatten());
                }
                Selector::Tag(tag) => members.tags.push(tag.clone()),
                Selector::Addresses(sets) => {
                    members
                        .literals
                        .extend(sets.iter().flat_map(Ranges::prefixes));
                }
                Selector::Autogroup(group) => match group {
                    Autogroup::Owned => members.owned = true,
                    Autogroup::Internet => members.internet = true,
                    Autogroup::DangerAll => members.danger = true,
                    Autogroup::Member => members.member = true,
                    Autogroup::Tagged => members.tagged = true,
                    Autogroup::Admin => {
                        let is = |role| matches!(role, Role::Admin | Role::Owner);
                        members.users.extend(people.with_role(is));
                    }
                    Autogroup::Owner => {
                        members
                            .users
                            .extend(people.with_role(|role| role == Role::Owner));
                    }
                    Autogroup::Nonroot | Autogroup::Nobody => {}
                },
            }
        }
        if members.danger {
            members.literals.extend([any_v4(), any_v6()]);
        }
        members.users.sort_unstable();
        members.users.dedup();
        members.tags.sort_unstable();
        members.tags.dedup();
        members.literals.sort_unstable();
        members.literals.dedup();
        members.literal = Ranges::from_nets(&members.literals);
        members
    }

    /// Whether a node is named for what it is, not for an address.
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

    /// Whether anything but devices of the same user is named.
    pub fn names_others(&self) -> bool {
        let nothing = Self {
            owned: self.owned,
            ..Self::default()
        };
        *self != nothing
    }

    /// How often a node's tags are named: the official service lists a node once for each.
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

    /// Whether all of the internet is named.
    pub fn holds_internet(&self) -> bool {
        self.any
            || self.internet
            || self.literals.iter().any(|net| net.prefix_len() == 0)
            || !self.literal.is_empty() && self.literal.covers(&INTERNET)
    }
}

/// Those who may be sources: named, and with a machine that is as it should be.
#[derive(Debug, Clone, PartialEq)]
pub struct Sources {
    /// Who is named.
    pub members: Members,
    /// One of these must hold whole; empty: no matter.
    pub postures: Vec<Vec<Condition>>,
}

impl Sources {
    /// Whether a node may be a source.
    pub fn admit(&self, node: &Node) -> bool {
        let fits = |conditions: &Vec<Condition>| {
            conditions
                .iter()
                .all(|condition| condition.holds(&node.posture))
        };
        self.members.has(node) && (self.postures.is_empty() || self.postures.iter().any(fits))
    }

    /// Whether hosts behind an approved route may be sources. `*` stands for all of these too; what is behind
    /// a router has no posture.
    pub fn admit_route(&self, route: IpNet) -> bool {
        self.postures.is_empty() && (self.members.any || self.members.literal.overlaps(route))
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

/// The domain of a user's mail address, or of its login if that is one.
pub fn domain_of(user: &User) -> Option<&str> {
    let mut addresses = [&user.email, &user.login].into_iter();
    addresses.find_map(|address| Some(address.rsplit_once('@')?.1))
}

/// The user of a device without tags.
pub fn user(node: &Node) -> Option<UserId> {
    match node.owner {
        Owner::User(user) => Some(user),
        Owner::Tags(_) => None,
    }
}
