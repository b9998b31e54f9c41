//! What the names in a policy stand for now: warnings about those that match nothing, and explanations for tests that
//! cannot pass because of them.

use std::collections::BTreeSet;

use ipnet::IpNet;

use super::ast::Selector;
use super::compiled::Compiled;
use super::diagnostic::{Diagnostic, Position};
use super::directory::{Owner, User};
use super::resolved_set::{INTERNET, TAILNET, addresses, domain_of, subnets};

/// Most warnings about one policy.
const WARNINGS_MAX: usize = 50;

/// Most names that a message lists.
const LISTED_MAX: usize = 8;

/// A login or email address by which a policy can name a user, comparable with others: `login` and `login@` are the same,
/// and so are upper and lower case. Of two users that share one both would be meant by it, and rules with it match neither.
pub fn spelling(name: &str) -> String {
    name.trim_end_matches('@').to_lowercase()
}

/// The users whom a policy cannot tell apart, in pairs.
fn ambiguous_users(users: &[User]) -> Vec<(&User, &User)> {
    let mut known: Vec<(String, &User)> = Vec::new();
    for user in users {
        let names = [spelling(&user.login), spelling(&user.email)];
        let names = names.into_iter().filter(|name| !name.is_empty());
        known.extend(names.map(|name| (name, user)));
    }
    known.sort_by(|(one, _), (other, _)| one.cmp(other));
    let pairs = known.iter().zip(known.iter().skip(1));
    let mut pairs: Vec<(&User, &User)> = pairs
        .filter(|((one, of), (other, by))| one == other && of.id != by.id)
        .map(|((_, of), (_, by))| (*of, *by))
        .collect();
    pairs.dedup_by_key(|(one, other)| (one.id, other.id));
    pairs
}

/// How a policy names the user with this login.
pub fn user_selector(login: &str) -> String {
    match login.contains('@') {
        true => login.to_owned(),
        false => format!("{login}@"),
    }
}

impl Compiled {
    /// The users whom no policy can tell apart, in pairs.
    pub fn ambiguous_users(&self) -> Vec<(&User, &User)> {
        ambiguous_users(self.resolved.users.users())
    }

    /// What is probably not as it was meant in a valid policy: names of users, groups, tags and hosts that match nobody
    /// and nothing at the moment. Ordered by position.
    pub fn warnings(&self) -> Vec<Diagnostic> {
        let policy = &self.resolved.policy;
        let tags: BTreeSet<&str> = (self.entries.iter())
            .flat_map(|entry| match &entry.node.owner {
                Owner::Tags(tags) => &**tags,
                Owner::User(_) => &[],
            })
            .map(|tag| &**tag)
            .collect();
        let mut warnings = policy.notes.clone();
        let mut warn = |at: Position, message: Option<String>| {
            warnings.extend(message.map(|message| Diagnostic::at(at, message)));
        };
        for (name, at) in &policy.named_at {
            if name.starts_with("tag:") {
                let owners = policy.tag_owners.get(name);
                let assigned = match owners.is_some_and(Vec::is_empty) {
                    true => "; it has no owner, so only administrators can assign it",
                    false => "",
                };
                let is_unused = !tags.contains(&**name);
                warn(
                    *at,
                    is_unused.then(|| format!("no device has {name:?} yet{assigned}")),
                );
            } else if name.starts_with("group:") {
                let is_empty = policy.groups.get(name).is_some_and(Vec::is_empty);
                warn(*at, is_empty.then(|| format!("{name:?} has no members")));
            } else if name.contains('@') {
                warn(*at, self.unknown_user(name));
            } else if let Some(net) = policy.hosts.get(name) {
                warn(*at, self.unreachable_host(name, *net));
            }
        }
        warnings.sort_by_key(|warning| (warning.line, warning.column));
        let more = warnings.len().saturating_sub(WARNINGS_MAX);
        warnings.truncate(WARNINGS_MAX);
        if more > 0
            && let Some(last) = warnings.last().cloned()
        {
            let message = format!("and {more} more warnings");
            warnings.push(Diagnostic { message, ..last });
        }
        warnings
    }

    /// The users whom the policy names and who do not exist, as it names them, sorted.
    pub fn missing_users(&self) -> BTreeSet<&str> {
        let users = &self.resolved.users;
        let names = self.resolved.policy.named_at.iter();
        let names = names.map(|(name, _)| &**name);
        names
            .filter(|name| !name.starts_with("tag:") && !name.starts_with("group:"))
            .filter(|name| name.contains('@') && users.named(name).next().is_none())
            .collect()
    }

    /// Why a name stands for no user; `None` when it stands for one.
    fn unknown_user(&self, name: &str) -> Option<String> {
        let users = &self.resolved.users;
        let mut matching = users.named(name);
        let first = matching.next();
        match (first, matching.next()) {
            (Some(_), None) => None,
            (Some(one), Some(other)) => Some(format!(
                "{name:?} matches user {} ({}) as well as user {} ({}), and so neither: rename one of them (hearth users rename)",
                one.id, one.login, other.id, other.login
            )),
            (None, _) => Some(format!(
                "no user is called {name:?} (users: {})",
                listed(users.users().iter().map(|user| user_selector(&user.login)))
            )),
        }
    }

    fn unreachable_host(&self, name: &str, net: IpNet) -> Option<String> {
        let entries = || self.entries.iter().map(|entry| &entry.node);
        if entries().any(|node| addresses(node).any(|address| net.contains(&address))) {
            return None;
        }
        if TAILNET.overlaps(net) {
            return Some(format!("hosts[{name:?}]: no device has the address {net}"));
        }
        let meets = |route: IpNet| route.contains(&net) || net.contains(&route);
        let is_routed = entries().any(|node| subnets(node).any(meets));
        (!is_routed && !INTERNET.overlaps(net))
            .then(|| format!("hosts[{name:?}]: no approved route leads to {net}"))
    }

    /// Why a selector of a test stands for no device, and what to do.
    pub(super) fn nobody(&self, text: &str, selector: &Selector) -> String {
        const ADVICE: &str = "add one, or comment the test out until there is one";
        match selector {
            Selector::User(name) => match self.unknown_user(name) {
                Some(why) => why,
                None => format!("user {text:?} has no devices: {ADVICE} (hearth invite)"),
            },
            Selector::Tag(_) => format!("no device has {text:?}: {ADVICE} (hearth nodes tag)"),
            Selector::Group(_) => format!("no member of {text:?} has a device: {ADVICE}"),
            _ => format!("{text:?} stands for no device: {ADVICE}"),
        }
    }

    /// The message about a domain that no user has.
    pub(super) fn unknown_domain(&self, domain: &str) -> String {
        let users = self.resolved.users.users().iter();
        let domains: BTreeSet<&str> = users.filter_map(domain_of).collect();
        let known = match domains.is_empty() {
            true => "no user has an email address".to_owned(),
            false => format!(
                "users have: {}",
                listed(domains.into_iter().map(str::to_owned))
            ),
        };
        format!(
            "{domain} is not associated with this Tailnet and cannot be used in user:*@<domain> expressions ({known})"
        )
    }
}

/// The first of some names.
fn listed(names: impl Iterator<Item = String>) -> String {
    let mut names: Vec<String> = names.take(LISTED_MAX.saturating_add(1)).collect();
    match names.len() {
        0 => "none".to_owned(),
        count => {
            if count > LISTED_MAX {
                names.truncate(LISTED_MAX);
                names.push("…".to_owned());
            }
            names.join(", ")
        }
    }
}
