//! SSH policies: `tailcfg.SSHPolicy` as JSON.
//!
//! Source: headscale `hscontrol/policy/v2/filter.go`, `compileSSHPolicy`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::ast::CheckPeriod;
use super::compiled::{Compiled, Entry};
use super::resolved::ResolvedSshRule;
use super::resolved_set::user;
use crate::id::{NodeId, UserId};

/// Action for a session that needs a check: the client asks this URL, with the variables replaced.
/// Source: `expandDelegateURLLocked` in tailscale `ssh/tailssh/tailssh.go`.
const CHECK: &str = r#"{"holdAndDelegate":"https://unused/machine/ssh/action/$SRC_NODE_ID/to/$DST_NODE_ID?local_user=$LOCAL_USER"}"#;

/// Source: `sshAccept` in headscale `hscontrol/policy/v2/filter.go`.
const ACCEPT: &str = r#"{"accept":true,"allowAgentForwarding":true,"allowLocalPortForwarding":true,"allowRemotePortForwarding":true}"#;

/// `sshUsers`: requested user and the local user it maps to; empty: denied.
type UserMap = BTreeMap<String, String>;

impl Compiled {
    /// SSH policy of a node as JSON (`tailcfg.SSHPolicy`); `None` if no rule allows SSH to it.
    pub fn ssh(&self, node: NodeId) -> Option<Arc<str>> {
        let entry = self.find(node)?;
        // The first matching rule decides: those with a check come first.
        let (mut checks, mut accepts) = (Vec::new(), Vec::new());
        for rule in &self.resolved.ssh {
            let to = if rule.check.is_some() {
                &mut checks
            } else {
                &mut accepts
            };
            self.ssh_rules(rule, entry, to);
        }
        checks.append(&mut accepts);
        (!checks.is_empty()).then(|| format!("{{\"rules\":[{}]}}", checks.join(",")).into())
    }

    /// Check period of this session; `None` if no rule requires a check, or none allows the session.
    pub fn ssh_check(&self, src: NodeId, dst: NodeId, local_user: &str) -> Option<CheckPeriod> {
        let (src, dst) = (self.find(src)?, self.find(dst)?);
        let mut rules = self.resolved.ssh.iter();
        rules.find_map(|rule| {
            rule.check
                .filter(|_| self.lets_in(rule, src, dst, local_user))
        })
    }

    /// Whether an SSH rule lets one node log in to another as a user of that one.
    pub(super) fn lets_in(
        &self,
        rule: &ResolvedSshRule,
        src: &Entry,
        dst: &Entry,
        name: &str,
    ) -> bool {
        let owner = user(&src.node);
        let same = owner.is_some() && owner == user(&dst.node);
        let goes = rule.destination.has(&dst.node) || rule.destination.owned && same;
        if !goes || !src.admitted.has(rule.source) {
            return false;
        }
        let localpart = owner.and_then(|owner| self.localpart(rule, owner));
        allows(&base_users(rule), name) || localpart.is_some_and(|localpart| *localpart == *name)
    }

    fn ssh_rules(&self, rule: &ResolvedSshRule, entry: &Entry, to: &mut Vec<String>) {
        let base = base_users(rule);
        let owner = user(&entry.node);
        if rule.destination.owned
            && let Some(owner) = owner
        {
            self.rules_of_user(rule, owner, &base, to);
        }
        if rule.destination.has(&entry.node) {
            if rule.domains.is_empty() {
                push(rule, &self.principals_text(rule.source), &base, to);
            } else {
                // Each user has its own rules, so that the first match is the right one.
                for owner in self.source_users(rule.source) {
                    self.rules_of_user(rule, owner, &base, to);
                }
                let tagged =
                    self.entries.iter().map(|entry| &**entry).filter(|entry| {
                        user(&entry.node).is_none() && entry.admitted.has(rule.source)
                    });
                push(rule, &self.principals(rule.source, tagged), &base, to);
            }
        } else if !rule.domains.is_empty()
            && rule.destination.names_others()
            && entry.admitted.has(rule.source)
        {
            // The official service also lets the devices of a source's user log in to each other here.
            match owner {
                Some(owner) => self.rules_of_user(rule, owner, &base, to),
                None => {
                    let only = std::iter::once(entry);
                    push(rule, &self.principals(rule.source, only), &base, to);
                }
            }
        }
    }

    /// The rule for the devices of a user, and the one for the user's own local user.
    fn rules_of_user(
        &self,
        rule: &ResolvedSshRule,
        owner: UserId,
        base: &UserMap,
        to: &mut Vec<String>,
    ) {
        let principals = self.principals(rule.source, self.own_sources(owner, rule.source));
        push(rule, &principals, base, to);
        if let Some(name) = self.localpart(rule, owner) {
            let map = UserMap::from([(name.to_owned(), name.to_owned())]);
            push(rule, &principals, &map, to);
        }
    }

    fn source_users(&self, number: usize) -> BTreeSet<UserId> {
        let admitted = self
            .entries
            .iter()
            .filter(|entry| entry.admitted.has(number));
        admitted.filter_map(|entry| user(&entry.node)).collect()
    }

    /// The local part of a user's email address, if its domain is one of the rule's.
    fn localpart(&self, rule: &ResolvedSshRule, owner: UserId) -> Option<&str> {
        let user = self.resolved.users.by_id(owner)?;
        let (name, domain) = [&user.email, &user.login]
            .into_iter()
            .find_map(|address| address.rsplit_once('@'))?;
        let known = rule
            .domains
            .iter()
            .any(|known| known.eq_ignore_ascii_case(domain));
        (known && !name.is_empty()).then_some(name)
    }
}

fn base_users(rule: &ResolvedSshRule) -> UserMap {
    let mut map = UserMap::from([("root".to_owned(), String::new())]);
    for user in &rule.users {
        match &**user {
            "autogroup:nonroot" => map.insert("*".to_owned(), "=".to_owned()),
            name => map.insert(name.to_owned(), name.to_owned()),
        };
    }
    map
}

/// Whether a user map allows a user. Source: `mapLocalUser` in tailscale `ssh/tailssh/tailssh.go`.
fn allows(map: &UserMap, name: &str) -> bool {
    let found = map
        .get(name)
        .or_else(|| map.get("*").filter(|_| name != "root"));
    !name.is_empty() && found.is_some_and(|local| !local.is_empty())
}

fn push(rule: &ResolvedSshRule, principals: &str, users: &UserMap, to: &mut Vec<String>) {
    if principals.is_empty() {
        return;
    }
    let users = serde_json::to_string(users).unwrap_or_default();
    let action = if rule.check.is_some() { CHECK } else { ACCEPT };
    let env = match rule.accept_env.is_empty() {
        true => String::new(),
        false => {
            let list = serde_json::to_string(&rule.accept_env).unwrap_or_default();
            format!(",\"acceptEnv\":{list}")
        }
    };
    to.push(format!(
        "{{\"principals\":[{principals}],\"sshUsers\":{users},\"action\":{action}{env}}}"
    ));
}
