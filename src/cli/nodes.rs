//! `hearth nodes`.

use serde_json::Value;

use super::args::{Nodes, OneNode};
use super::client::{CliError, Client, escaped, read};
use super::contact;
use super::output::{Format, Output, cell, table};
use super::users::{self, inner, when};
use super::{pending, routes, wireguard};
use crate::api::{
    BackfillAnswer, ExpireNode, MoveNode, Node, NodeAnswer, NodesAnswer, NumberText, SetAddresses,
    SetTags,
};
use crate::system_clock;
use hearth_core::clock::Timestamp;

/// Carries out a command about nodes.
pub fn run(command: Nodes, client: &Client, format: Option<Format>) -> Result<Output, CliError> {
    match command {
        Nodes::ToNode(command) => contact::run(command, client, format),
        Nodes::List { user } => list(client, format, user),
        Nodes::Show { which } => {
            let path = path_of(client, &named(which), "")?;
            let answer = client.get(&path)?;
            let NodeAnswer { node } = read(&answer)?;
            Ok(Output::of(format, &inner(&answer, "node"), || card(&node)))
        }
        Nodes::Rename {
            new_name,
            identifier,
        } => {
            let verb = format!("/rename/{}", escaped(&new_name));
            let path = path_of(client, &identifier, &verb)?;
            one(&client.post(&path, &())?, format, |node| {
                format!("node {} is named {}", node.id, cell(&node.given_name))
            })
        }
        Nodes::Expire {
            which,
            expiry,
            disable,
            all_of,
        } => {
            let body = ExpireNode {
                expiry,
                disable_expiry: disable,
            };
            if let Some(user) = all_of {
                return expire_all(client, format, &user, &body);
            }
            let path = path_of(client, &named(which), "/expire")?;
            one(&client.post(&path, &body)?, format, expires)
        }
        Nodes::ListRoutes { identifier } => routes::list(client, format, identifier),
        Nodes::ApproveRoutes { which, routes } => {
            routes::approve(client, format, &named(which), routes)
        }
        Nodes::Tag { which, tags } => {
            let path = path_of(client, &named(which), "/tags")?;
            let body = SetTags { tags: given(tags) };
            one(&client.post(&path, &body)?, format, |node| {
                let tags = cell(&node.tags.join(", "));
                format!("{} has the tags {tags}", cell(&node.given_name))
            })
        }
        Nodes::Move { which, user } => {
            let path = path_of(client, &named(which), "/user")?;
            let user = users::find(client, &user)?;
            let body = MoveNode {
                user: NumberText(user.id),
            };
            one(&client.post(&path, &body)?, format, |node| {
                format!("{} belongs to {}", cell(&node.given_name), owner(node))
            })
        }
        Nodes::SetIp { which, ipv4, ipv6 } => {
            let path = path_of(client, &named(which), "/ip")?;
            let body = SetAddresses {
                ipv4: ipv4.map(|address| address.to_string()).unwrap_or_default(),
                ipv6: ipv6.map(|address| address.to_string()).unwrap_or_default(),
            };
            one(&client.post(&path, &body)?, format, |node| {
                let addresses = node.ip_addresses.join(" and ");
                format!("{} is at {addresses}", cell(&node.given_name))
            })
        }
        Nodes::BackfillIps => {
            let path = "/api/v1/node/backfillips?confirmed=true";
            let answer = client.post(path, &())?;
            let BackfillAnswer { changes } = read(&answer)?;
            Ok(Output::of(format, &answer, || match changes.as_slice() {
                [] => "all addresses lie inside the prefixes".into(),
                changes => changes.join("\n"),
            }))
        }
        Nodes::Approve { which } => {
            let path = path_of(client, &named(which), "/approve")?;
            one(&client.post(&path, &())?, format, |node| {
                format!("{} takes part", cell(&node.given_name))
            })
        }
        Nodes::Disapprove { which } => {
            let path = path_of(client, &named(which), "/disapprove")?;
            one(&client.post(&path, &())?, format, |node| {
                format!("{} takes part no longer", cell(&node.given_name))
            })
        }
        Nodes::AddWireguard(device) => wireguard::add(client, format, device),
        Nodes::Register { user, key } => pending::approve(client, format, &key, Some(&user)),
        Nodes::Delete { which } => {
            let which = named(which);
            let path = path_of(client, &which, "")?;
            let answer = client.delete(&path)?;
            Ok(Output::of(format, &answer, || {
                format!("node {} deleted", cell(&which))
            }))
        }
    }
}

fn expire_all(
    client: &Client,
    format: Option<Format>,
    user: &str,
    body: &ExpireNode,
) -> Result<Output, CliError> {
    let user = users::find(client, user)?;
    let path = format!("/api/v1/node?user={}", escaped(&user.name));
    let NodesAnswer { nodes } = read(&client.get(&path)?)?;
    let (mut json, mut lines) = (Vec::new(), Vec::new());
    for node in nodes.iter().filter(|node| node.wireguard.is_none()) {
        let path = format!("/api/v1/node/{}/expire", escaped(&node.id));
        let answer = client.post(&path, body)?;
        let changed: NodeAnswer = read(&answer)?;
        json.push(inner(&answer, "node"));
        lines.push(expires(&changed.node));
    }
    if lines.is_empty() {
        lines.push(format!("{} has no such nodes", cell(&user.name)));
    }
    Ok(Output::of(format, &Value::Array(json), || lines.join("\n")))
}

fn expires(node: &Node) -> String {
    let name = cell(&node.given_name);
    match node.expiry {
        Some(_) => format!("{name} expires {}", when(node.expiry)),
        None => format!("{name} never expires"),
    }
}

/// The texts of a list that may be written as an empty one.
pub fn given(list: Vec<String>) -> Vec<String> {
    let texts = list.into_iter().map(|text| text.trim().to_owned());
    texts.filter(|text| !text.is_empty()).collect()
}

fn named(which: OneNode) -> String {
    which.node.or(which.identifier).unwrap_or_default()
}

/// The path of a node that is named by its id or its name. Only a name needs a look at the list.
pub fn path_of(client: &Client, which: &str, verb: &str) -> Result<String, CliError> {
    let is_id = !which.is_empty() && which.bytes().all(|byte| byte.is_ascii_digit());
    let id = if is_id {
        which.to_owned()
    } else {
        let answer = client.get("/api/v1/node")?;
        let NodesAnswer { nodes } = read(&answer)?;
        let found = nodes.into_iter().find(|node| node.given_name == which);
        found
            .ok_or_else(|| {
                CliError::Command(format!(
                    "there is no node `{which}`; `hearth nodes list` shows all"
                ))
            })?
            .id
    };
    Ok(format!("/api/v1/node/{}{verb}", escaped(&id)))
}

/// The answer about one node: the node as JSON, or this text.
pub fn one(
    answer: &Value,
    format: Option<Format>,
    text: impl FnOnce(&Node) -> String,
) -> Result<Output, CliError> {
    let NodeAnswer { node } = read(answer)?;
    Ok(Output::of(format, &inner(answer, "node"), || text(&node)))
}

fn list(client: &Client, format: Option<Format>, user: Option<String>) -> Result<Output, CliError> {
    let path = match user {
        Some(user) => {
            let user = users::find(client, &user)?;
            format!("/api/v1/node?user={}", escaped(&user.name))
        }
        None => "/api/v1/node".into(),
    };
    let answer = client.get(&path)?;
    let NodesAnswer { nodes } = read(&answer)?;
    Ok(Output::of(format, &inner(&answer, "nodes"), || {
        let rows: Vec<[String; 7]> = nodes.iter().map(row).collect();
        table(
            [
                "ID",
                "Name",
                "User",
                "Addresses",
                "State",
                "Last seen",
                "Expires",
            ],
            &rows,
        )
    }))
}

fn row(node: &Node) -> [String; 7] {
    [
        node.id.clone(),
        cell(&node.given_name),
        owner(node),
        node.ip_addresses.join(", "),
        state(node).into(),
        if node.online {
            "-".into()
        } else {
            when(node.last_seen)
        },
        match node.expiry {
            Some(expiry) => when(Some(expiry)),
            None => "never".into(),
        },
    ]
}

fn state(node: &Node) -> &'static str {
    if !node.authorized {
        return "waits for approval";
    }
    let expired = |end: Timestamp| end <= system_clock::now().wall;
    match (&node.wireguard, node.online) {
        _ if node.expiry.is_some_and(expired) => "expired",
        (Some(_), _) => "WireGuard",
        (None, true) => "online",
        (None, false) => "offline",
    }
}

fn owner(node: &Node) -> String {
    if !node.tags.is_empty() {
        return cell(&node.tags.join(","));
    }
    node.user
        .as_ref()
        .map_or_else(|| "-".into(), |user| cell(&user.name))
}

fn card(node: &Node) -> String {
    let list = |texts: &[String]| cell(&texts.join(", "));
    let mut lines = vec![
        ("ID", node.id.clone()),
        ("Name", cell(&node.given_name)),
        ("Host name", cell(&node.name)),
        ("Owner", owner(node)),
        ("Addresses", node.ip_addresses.join(", ")),
        ("State", state(node).into()),
        ("Last seen", when(node.last_seen)),
        ("Joined", when(Some(node.created_at))),
        (
            "Expires",
            node.expiry
                .map_or_else(|| "never".into(), |time| when(Some(time))),
        ),
        ("Offers", list(&node.available_routes)),
        ("Approved", list(&node.approved_routes)),
        ("Serves", list(&node.subnet_routes)),
        ("Health", cell(&node.health.join("; "))),
        ("Node key", node.node_key.clone()),
    ];
    match &node.wireguard {
        Some(peer) => {
            lines.push(("Endpoints", list(&peer.endpoints)));
            lines.push(("Exit DNS", list(&peer.exit_dns)));
            let masquerade = [&peer.masquerade_v4, &peer.masquerade_v6];
            let masquerade: Vec<String> = masquerade.into_iter().flatten().cloned().collect();
            lines.push(("Masquerade", list(&masquerade)));
        }
        None => {
            lines.push(("Machine key", node.machine_key.clone()));
            lines.push(("Disco key", node.disco_key.clone()));
        }
    }
    let lines: Vec<String> = lines
        .iter()
        .map(|(name, value)| format!("{name:<12} {value}"))
        .collect();
    lines.join("\n")
}
