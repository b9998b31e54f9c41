//! `hearth policy eval`: what a policy means for a made-up tailnet, by the very compiler that serves clients.
//!
//! Reads one JSON object a line: `id`, `policy` (an object, or HuJSON as a text), `users` (`name`, `email`,
//! and `role` if it is known) and `nodes` by name (`ipv4`, `ipv6`, `user` or `tags`, `routable_ips`,
//! `approved_routes`). Answers each with one JSON object a line: `id`, `status` (200 or 400), `message` and
//! `nodes`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, Write};
use std::sync::Arc;

use ipnet::IpNet;
use serde::Deserialize;
use serde_json::{Value, json};

use hearth_core::id::{NodeId, UserId};
use hearth_core::policy::{Compiled, Diagnostic, Directory, Node, Owner, Policy, Role, User};

/// One made-up tailnet.
#[derive(Deserialize)]
struct Case {
    #[serde(default)]
    id: Value,
    policy: Value,
    #[serde(default)]
    users: Vec<CaseUser>,
    #[serde(default)]
    nodes: BTreeMap<String, CaseNode>,
}

#[derive(Deserialize)]
struct CaseUser {
    #[serde(default)]
    id: u64,
    name: String,
    #[serde(default)]
    email: String,
    role: Option<String>,
}

#[derive(Deserialize)]
struct CaseNode {
    ipv4: Option<std::net::Ipv4Addr>,
    ipv6: Option<std::net::Ipv6Addr>,
    user: Option<String>,
    tags: Option<Vec<String>>,
    routable_ips: Option<Vec<String>>,
    approved_routes: Option<Vec<String>>,
}

/// Capabilities that the official service gives to every node, whatever the policy says.
const GIVEN: &[&str] = &[
    "default-auto-update",
    "https://tailscale.com/cap/file-sharing",
    "https://tailscale.com/cap/ssh",
    "https://tailscale.com/cap/tailnet-lock",
    "probe-udp-lifetime",
    "ssh-behavior-v1",
    "ssh-env-vars",
    "store-appc-routes",
    "tailnet-display-name",
];

/// The first of two routers to register serves a subnet that both offer. The cases do not say who was first;
/// in the tailnets from which the official service's answers were recorded it was in this order. Others
/// register in the order of their names.
const REGISTERED: &[&str] = &[
    "spearow",
    "fearow",
    "blastoise",
    "squirtle",
    "metapod",
    "butterfree",
];

/// Answers all cases.
///
/// # Errors
///
/// When reading or writing fails, or a line is no case.
pub fn run(input: impl BufRead, mut output: impl Write) -> Result<(), String> {
    for line in input.lines() {
        let line = line.map_err(|error| format!("standard input: {error}"))?;
        if line.trim().is_empty() {
            continue;
        }
        let case: Case = serde_json::from_str(&line).map_err(|error| format!("a case: {error}"))?;
        writeln!(output, "{}", case.answer())
            .map_err(|error| format!("standard output: {error}"))?;
    }
    Ok(())
}

impl Case {
    fn answer(&self) -> Value {
        match self.apply() {
            Ok(nodes) => json!({"id": self.id, "status": 200, "message": null, "nodes": nodes}),
            Err(faults) => {
                let message = faults.first().map(|fault| fault.message.clone());
                json!({"id": self.id, "status": 400, "message": message, "nodes": {}})
            }
        }
    }

    fn apply(&self) -> Result<Value, Vec<Diagnostic>> {
        let text = match &self.policy {
            Value::String(text) => text.clone(),
            policy => policy.to_string(),
        };
        let policy = Arc::new(Policy::parse(&text)?);
        let (directory, names) = self.directory();
        let compiled = Compiled::compile(&policy, &directory);
        let directory = self.approve(directory, &names, &compiled);
        let compiled = compiled.with_nodes(&directory.nodes, &[]);
        compiled.check()?;
        let nodes = names.iter().zip(&directory.nodes);
        Ok(nodes
            .map(|(name, node)| {
                let told = tell(&compiled, &directory, &names, node);
                ((*name).to_owned(), told)
            })
            .collect())
    }

    /// The directory, and the names of its nodes in their order.
    fn directory(&self) -> (Directory, Vec<&str>) {
        let first = self.users.iter().map(|user| user.id).min();
        let users: Vec<User> = numbered(&self.users)
            .filter_map(|(number, user)| {
                Some(User {
                    id: UserId::new(number)?,
                    login: user.name.as_str().into(),
                    email: user.email.as_str().into(),
                    role: match user.role.as_deref() {
                        Some("owner") => Role::Owner,
                        Some("member") => Role::Member,
                        Some(_) => Role::Admin,
                        // Of the recorded tailnets the first user is the owner, and all others administer.
                        None if Some(user.id) == first => Role::Owner,
                        None => Role::Admin,
                    },
                    groups: Arc::default(),
                })
            })
            .collect();
        let mut names: Vec<&str> = self.nodes.keys().map(String::as_str).collect();
        let rank = |name: &str| REGISTERED.iter().position(|known| *known == name);
        names.sort_by_key(|name| rank(name).unwrap_or(REGISTERED.len()));
        let mut nodes = Vec::new();
        for (number, name) in numbered(&names) {
            let (Some(id), Some(node)) = (NodeId::new(number), self.nodes.get(*name)) else {
                continue;
            };
            let approved = parsed(&node.approved_routes);
            let routes =
                approved.filter(|route| parsed(&node.routable_ips).any(|known| known == *route));
            nodes.push(Node {
                id,
                owner: self.owner(node, &users),
                ipv4: node.ipv4,
                ipv6: node.ipv6,
                routes: routes.collect(),
                primary: Arc::default(),
                posture: Arc::default(),
            });
        }
        (Directory { users, nodes }, names)
    }

    /// Approves what the policy approves by itself, and lets the first router of each subnet serve it.
    fn approve(&self, mut directory: Directory, names: &[&str], policy: &Compiled) -> Directory {
        let mut served = BTreeSet::new();
        for (name, node) in names.iter().zip(&mut directory.nodes) {
            let offered = self.nodes.get(*name).map(|node| parsed(&node.routable_ips));
            let approved = offered.into_iter().flatten();
            let mut routes = node.routes.to_vec();
            routes.extend(approved.filter(|route| policy.auto_approves(node, route)));
            routes.sort();
            routes.dedup();
            let subnets = routes.iter().filter(|route| route.prefix_len() != 0);
            node.primary = subnets
                .filter(|route| served.insert(**route))
                .copied()
                .collect();
            node.routes = routes.into();
        }
        directory
    }

    fn owner(&self, node: &CaseNode, users: &[User]) -> Owner {
        let mut tags: Vec<Box<str>> = Vec::new();
        tags.extend(node.tags.iter().flatten().map(|tag| tag.as_str().into()));
        tags.sort();
        let named = users
            .iter()
            .find(|user| Some(&*user.login) == node.user.as_deref());
        match named.filter(|_| tags.is_empty()) {
            Some(user) => Owner::User(user.id),
            None => Owner::Tags(tags.into()),
        }
    }
}

fn parsed(routes: &Option<Vec<String>>) -> impl Iterator<Item = IpNet> {
    let routes = routes.iter().flatten();
    routes.filter_map(|route| route.parse().ok())
}

fn numbered<T>(list: &[T]) -> impl Iterator<Item = (u64, &T)> {
    (1..).zip(list)
}

/// What one node would be sent.
fn tell(compiled: &Compiled, directory: &Directory, names: &[&str], node: &Node) -> Value {
    let mut peers = serde_json::Map::new();
    for (name, peer) in names.iter().zip(&directory.nodes) {
        if compiled.are_peers(node.id, peer.id) {
            let routes = compiled.routes(node.id, peer.id);
            let ipv4 = peer
                .ipv4
                .filter(|_| !compiled.without_ipv4(node.id, peer.id));
            let own = [ipv4.map(Into::into), peer.ipv6.map(Into::into)];
            let own = own
                .into_iter()
                .flatten()
                .map(|own: std::net::IpAddr| IpNet::from(own));
            let allowed: Vec<IpNet> = own.chain(routes.allowed.iter().copied()).collect();
            let told = json!({"allowed_ips": allowed.iter().map(IpNet::to_string).collect::<Vec<_>>(),
                "primary_routes": routes.primary.iter().map(IpNet::to_string).collect::<Vec<_>>()});
            peers.insert((*name).to_owned(), told);
        }
    }
    let filter: Value = serde_json::from_str(&compiled.filter(node.id)).unwrap_or_default();
    let ssh = compiled
        .ssh(node.id)
        .and_then(|text| serde_json::from_str::<Value>(&text).ok());
    let rules = ssh.and_then(|mut policy| policy.get_mut("rules").map(Value::take));
    json!({
        "packet_filter": filter,
        "ssh_rules": rules,
        "peers": peers,
        "cap_map": capabilities(compiled, directory, node),
    })
}

/// What the policy gives, and what the official service adds by itself.
fn capabilities(compiled: &Compiled, directory: &Directory, node: &Node) -> Value {
    let mut map: BTreeMap<String, Value> = BTreeMap::new();
    for name in GIVEN {
        map.insert((*name).to_owned(), Value::Null);
    }
    let role = match &node.owner {
        Owner::User(id) => {
            let user = directory.users.iter().find(|user| user.id == *id);
            user.map_or(Role::Member, |user| user.role)
        }
        // Tagged nodes were set up by the owner.
        Owner::Tags(_) => Role::Owner,
    };
    if role == Role::Owner {
        map.insert("https://tailscale.com/cap/is-owner".to_owned(), Value::Null);
    }
    if role != Role::Member && matches!(node.owner, Owner::User(_)) {
        map.insert("https://tailscale.com/cap/is-admin".to_owned(), Value::Null);
    }
    let given = compiled.attributes(node.id);
    // None of the recorded tailnets has HTTPS.
    if given.contains_key("funnel") {
        let name = "https://tailscale.com/cap/warn-funnel-no-https";
        map.insert(name.to_owned(), Value::Null);
    }
    for (name, values) in given.iter() {
        map.insert(name.to_string(), json!(values));
    }
    json!(map)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(case: &Value) -> Value {
        let mut output = Vec::new();
        run(case.to_string().as_bytes(), &mut output).unwrap();
        serde_json::from_slice(&output).unwrap()
    }

    fn case(policy: &Value) -> Value {
        json!({
            "id": "one",
            "policy": policy,
            "users": [{"id": 1, "name": "anna", "email": "anna@example.com"}, {"id": 2, "name": "ben"}],
            "nodes": {
                "phone": {"ipv4": "100.64.0.1", "ipv6": "fd7a:115c:a1e0::1", "user": "anna", "tags": []},
                "router": {"ipv4": "100.64.0.2", "tags": ["tag:router"], "routable_ips": ["10.0.0.0/8"],
                    "approved_routes": []},
            },
        })
    }

    #[test]
    fn a_case_is_answered_with_what_each_node_is_sent() {
        let said = answer(&case(&json!({
            "tagOwners": {"tag:router": []},
            "autoApprovers": {"routes": {"10.0.0.0/8": ["tag:router"]}},
            "acls": [{"action": "accept", "src": ["anna@"], "dst": ["10.0.0.0/8:*"]}],
        })));
        assert_eq!((&said["id"], &said["status"]), (&json!("one"), &json!(200)));
        let router = &said["nodes"]["phone"]["peers"]["router"];
        assert_eq!(
            router["allowed_ips"],
            json!(["100.64.0.2/32", "10.0.0.0/8"])
        );
        assert_eq!(router["primary_routes"], json!(["10.0.0.0/8"]));
        let filter = &said["nodes"]["router"]["packet_filter"];
        assert_eq!(
            filter[0]["SrcIPs"],
            json!(["100.64.0.1", "fd7a:115c:a1e0::1"])
        );
        assert!(
            said["nodes"]["phone"]["cap_map"]
                .get("https://tailscale.com/cap/is-owner")
                .is_some()
        );
    }

    #[test]
    fn a_refusal_says_why() {
        let said = answer(&case(&json!("{\"acls\": [,]}")));
        assert_eq!(said["status"], 400);
        assert_eq!(said["message"], "expected a value, found ','");
        let said = answer(&case(&json!({"tests": [{"src": "anna@"}]})));
        assert_eq!(said["message"], "test(s) failed");
        assert!(run(&b"{}"[..], Vec::new()).is_err());
    }
}
