//! Previews: which rules match a user, or an address and port.

use std::net::IpAddr;

use super::Diagnostic;
use super::compiled::Compiled;
use super::directory::{Node, Owner, Posture};
use super::hujson;
use super::resolved::ResolvedRule;
use super::why::Cause;
use crate::id::NodeId;

/// The policy as JSON: without comments and trailing commas.
///
/// # Errors
/// The first syntax error; whether it is a valid policy is not checked.
pub fn as_json(text: &str) -> Result<serde_json::Value, Diagnostic> {
    let text = if text.trim().is_empty() { "{}" } else { text };
    Ok(hujson::parse(text)?.to_json())
}

impl Compiled {
    /// The rules that have the devices of a user as a source; none if there is no such user.
    pub fn rules_from_user(&self, name: &str) -> Vec<Cause> {
        let Some(user) = self.resolved.users.user(name) else {
            return Vec::new();
        };
        // A device of the user that has no address yet.
        let device = Node {
            id: NodeId::FIRST,
            owner: Owner::User(user),
            ipv4: None,
            ipv6: None,
            routes: [].into(),
            primary: [].into(),
            posture: Posture::default().into(),
        };
        self.causes(|rule| {
            let sources = self.resolved.sources.get(rule.source);
            sources.is_some_and(|sources| sources.set.names(&device))
        })
    }

    /// The rules that allow a port of an address.
    pub fn rules_to(&self, address: IpAddr, port: u16) -> Vec<Cause> {
        self.causes(|rule| {
            let mut ports = rule.access.iter().flat_map(|access| &access.ports);
            ports.any(|ports| ports.first <= port && port <= ports.last)
                && self.holds_destination(rule, address)
        })
    }

    fn causes(&self, matches: impl Fn(&ResolvedRule) -> bool) -> Vec<Cause> {
        let rules = self.resolved.rules.iter().filter(|rule| matches(rule));
        let mut causes: Vec<Cause> = rules.map(Cause::of).collect();
        // One acl may become several rules.
        causes.dedup();
        causes
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::id::UserId;
    use crate::policy::{Directory, Policy, Role, User};

    #[test]
    fn rules_are_found_by_user_and_by_address_and_port() {
        let text = r#"{
            "groups": {"group:family": ["anna@", "ben@"]},
            "acls": [
                {"action": "accept", "src": ["group:family"], "dst": ["100.64.0.1:22,80"]},
                {"action": "accept", "src": ["ben@"], "dst": ["autogroup:self:*", "10.0.0.0/8:443"]},
            ],
        }"#;
        let user = |number, login: &str| User {
            id: UserId::new(number).unwrap(),
            login: login.into(),
            email: "".into(),
            role: Role::Member,
            groups: Arc::default(),
        };
        let directory = Directory {
            users: vec![user(1, "anna"), user(2, "ben")],
            nodes: Vec::new(),
        };
        let policy = Arc::new(Policy::parse(text).unwrap());
        let compiled = Compiled::compile(&policy, &directory);
        let names = |causes: Vec<Cause>| {
            let names: Vec<String> = causes.iter().map(Cause::to_string).collect();
            names.join(" ")
        };
        assert_eq!(names(compiled.rules_from_user("anna@")), "acls[0] (line 4)");
        assert_eq!(
            names(compiled.rules_from_user("ben@")),
            "acls[0] (line 4) acls[1] (line 5)"
        );
        assert_eq!(names(compiled.rules_from_user("eve@")), "");
        let to = |address: &str, port| names(compiled.rules_to(address.parse().unwrap(), port));
        assert_eq!(to("100.64.0.1", 80), "acls[0] (line 4)");
        assert_eq!(to("10.1.2.3", 443), "acls[1] (line 5)");
        assert_eq!(to("10.1.2.3", 80), "");
    }
}
