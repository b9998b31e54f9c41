//! `hearth nodes`.

mod remote;
mod routes;
mod wireguard;

use serde_json::Value;

use super::pending;
use crate::api::{
    BackfillAnswer, ExpireNode, MoveNode, Node, NodeAnswer, NodesAnswer, NumberText, SetAddresses,
    SetTags,
};
use crate::cli::args::{NodeAndName, Nodes, given};
use crate::cli::client::{CliError, escaped, read};
use crate::cli::context::{Ctx, inner};
use crate::cli::lookup::{self, node_path, owner};
use crate::cli::output::{Output, card, cell, when};
use crate::config::moment::{self, End};
use crate::system_clock;
use hearth_core::clock::Timestamp;

/// Carries out a command about nodes.
pub fn run(ctx: &Ctx, command: Nodes) -> Result<Output, CliError> {
    match command {
        Nodes::Remote(command) => remote::run(ctx, command),
        Nodes::List { user, tags } => list(ctx, user.as_deref(), tags),
        Nodes::Show { which } => {
            let answer = ctx
                .client
                .get(&node_path(&ctx.client, &which.text(), "")?)?;
            let NodeAnswer { node, .. } = read(&answer)?;
            let server_url = match node.requested_tags.is_empty() {
                true => String::new(),
                false => lookup::status(&ctx.client)?.server_url,
            };
            ctx.node(&answer, |node| card(&details(node, &server_url)))
        }
        Nodes::Rename(names) => rename(ctx, names),
        Nodes::Expire {
            which,
            expiry,
            disable,
            all_of,
        } => {
            let is_now = match expiry {
                None => !disable,
                Some(End::In(life)) => life.is_zero(),
                Some(End::At(time)) => is_past(time),
                Some(End::Never) => false,
            };
            let body = ExpireNode {
                expiry: expiry.map(moment::text),
                disable_expiry: disable,
            };
            match all_of {
                Some(user) => expire_all(ctx, &user, &body),
                None => expire(ctx, &which.text(), &body, is_now),
            }
        }
        Nodes::ListRoutes { identifier } => routes::list(ctx, identifier),
        Nodes::ApproveRoutes {
            which,
            routes,
            add,
            all_offered,
        } => routes::approve(ctx, &which.text(), given(routes), add, all_offered),
        Nodes::Tag { which, tags } => {
            let body = SetTags { tags: given(tags) };
            let path = node_path(&ctx.client, &which.text(), "/tags")?;
            let answer = ctx.client.post(&path, &body)?;
            let output = ctx.node(&answer, |node| {
                let tags = cell(&node.tags.join(", "));
                format!("{} is tagged {tags}", cell(&node.given_name))
            })?;
            let NodeAnswer { warnings, .. } = read(&answer)?;
            let warnings = warnings
                .iter()
                .map(|warning| format!("Warning: {}", cell(warning)));
            Ok(output.note(&warnings.collect::<Vec<_>>().join("\n")))
        }
        Nodes::Move { which, user } => move_to(ctx, &which.text(), &user),
        Nodes::SetIp { which, ipv4, ipv6 } => {
            let body = SetAddresses {
                ipv4: ipv4.map(|address| address.to_string()).unwrap_or_default(),
                ipv6: ipv6.map(|address| address.to_string()).unwrap_or_default(),
            };
            change(ctx, &which.text(), "/ip", &body, |node| {
                let addresses = node.ip_addresses.join(" and ");
                format!("{} now has {addresses}", cell(&node.given_name))
            })
        }
        Nodes::BackfillIps => backfill(ctx),
        Nodes::Approve { which } => change(ctx, &which.text(), "/approve", &(), |node| {
            format!("approved {}", cell(&node.given_name))
        }),
        Nodes::Disapprove { which } => {
            let which = which.text();
            confirm(ctx, &which, |node| {
                format!("revoke the approval of {node} and cut it off from all peers")
            })?;
            change(ctx, &which, "/disapprove", &(), |node| {
                format!("revoked the approval of {}", cell(&node.given_name))
            })
        }
        Nodes::AddWireguard(device) => wireguard::add(ctx, device),
        Nodes::Register { user, key, tags } => pending::approve_id(ctx, &key, Some(&user), tags),
        Nodes::Delete { which } => delete(ctx, &which.text()),
    }
}

/// Sends a change of one node, and shows the node as it is then.
fn change(
    ctx: &Ctx,
    which: &str,
    verb: &str,
    body: &impl serde::Serialize,
    text: impl FnOnce(&Node) -> String,
) -> Result<Output, CliError> {
    let path = node_path(&ctx.client, which, verb)?;
    ctx.node(&ctx.client.post(&path, body)?, text)
}

/// Asks before a change of one node, which the question describes.
fn confirm(ctx: &Ctx, which: &str, action: impl FnOnce(String) -> String) -> Result<(), CliError> {
    ctx.confirm(|| {
        let node = lookup::node(&ctx.client, which)?;
        let (id, name, owner) = (&node.id, cell(&node.given_name), owner(&node));
        Ok(action(format!("node {id} ({name}, owner {owner})")))
    })
}

fn rename(ctx: &Ctx, names: NodeAndName) -> Result<Output, CliError> {
    let (which, name) = names.texts();
    let verb = format!("/rename/{}", escaped(&name));
    change(ctx, &which, &verb, &(), |node| {
        format!("renamed node {} to {}", node.id, cell(&node.given_name))
    })
}

fn move_to(ctx: &Ctx, which: &str, user: &str) -> Result<Output, CliError> {
    let user = lookup::user(&ctx.client, user)?;
    confirm(ctx, which, |node| {
        format!("move {node} to {} and remove its tags", cell(&user.name))
    })?;
    let body = MoveNode {
        user: NumberText(user.id),
    };
    change(ctx, which, "/user", &body, |node| {
        format!("{} now belongs to {}", cell(&node.given_name), owner(node))
    })
}

fn delete(ctx: &Ctx, which: &str) -> Result<Output, CliError> {
    confirm(ctx, which, |node| {
        format!("delete {node}; its device must join again")
    })?;
    let path = node_path(&ctx.client, which, "")?;
    let answer = ctx.client.delete(&path)?;
    Ok(ctx.output(&answer, || format!("deleted node {}", cell(which))))
}

fn expire(ctx: &Ctx, which: &str, body: &ExpireNode, is_now: bool) -> Result<Output, CliError> {
    // A later time takes nothing away now.
    if is_now {
        confirm(ctx, which, |node| {
            format!("expire the key of {node}; its device must log in again")
        })?;
    }
    change(ctx, which, "/expire", body, expiry)
}

fn expire_all(ctx: &Ctx, user: &str, body: &ExpireNode) -> Result<Output, CliError> {
    let user = lookup::user(&ctx.client, user)?;
    let nodes = lookup::nodes(&ctx.client, Some(&user.id))?;
    let nodes: Vec<&Node> = (nodes.iter())
        .filter(|node| node.wireguard.is_none())
        .collect();
    if !nodes.is_empty() {
        ctx.confirm(|| {
            let what = match body.disable_expiry {
                true => "disable the key expiry",
                false => "set the key expiry",
            };
            let (count, name) = (nodes.len(), cell(&user.name));
            Ok(format!("{what} of all {count} nodes of {name}"))
        })?;
    }
    let (mut json, mut lines) = (Vec::new(), Vec::new());
    for node in nodes {
        let path = format!("/api/v1/node/{}/expire", escaped(&node.id));
        let answer = ctx.client.post(&path, body)?;
        let changed: NodeAnswer = read(&answer)?;
        json.push(inner(&answer, "node"));
        lines.push(expiry(&changed.node));
    }
    if lines.is_empty() {
        lines.push(format!("{} has no such nodes", cell(&user.name)));
    }
    Ok(ctx.output(&Value::Array(json), || lines.join("\n")))
}

fn expiry(node: &Node) -> String {
    let name = cell(&node.given_name);
    match node.expiry {
        Some(end) if is_past(end) => format!("the key of {name} is expired"),
        Some(_) => format!("the key of {name} expires {}", when(node.expiry)),
        None => format!("the key of {name} never expires"),
    }
}

fn is_past(time: Timestamp) -> bool {
    time <= system_clock::now().wall
}

fn backfill(ctx: &Ctx) -> Result<Output, CliError> {
    ctx.confirm(|| {
        Ok("assign new addresses to all nodes whose addresses are outside of the prefixes".into())
    })?;
    let path = "/api/v1/node/backfillips?confirmed=true";
    let answer = ctx.client.post(path, &())?;
    let BackfillAnswer { changes } = read(&answer)?;
    Ok(ctx.output(&answer, || match changes.as_slice() {
        [] => "no changes: all addresses are inside the prefixes".into(),
        changes => changes.join("\n"),
    }))
}

fn list(ctx: &Ctx, user: Option<&str>, shows_tags: bool) -> Result<Output, CliError> {
    let path = lookup::nodes_path(&ctx.client, user)?;
    let answer = ctx.client.get(&path)?;
    let NodesAnswer { nodes } = read(&answer)?;
    Ok(ctx.field(&answer, "nodes", || {
        let rows: Vec<[String; 7]> = nodes.iter().map(row).collect();
        let head = [
            "ID",
            "Name",
            "Owner",
            "Addresses",
            "State",
            "Last seen",
            "Key expiry",
        ];
        if !shows_tags {
            return ctx.table(head, &rows);
        }
        let [id, name, owner, addresses, state, seen, expiry] = head;
        let head = [id, name, owner, "Tags", addresses, state, seen, expiry];
        let rows = nodes.iter().zip(rows).map(|(node, row)| {
            let [id, name, owner, addresses, state, seen, expiry] = row;
            let tags = cell(&node.tags.join(", "));
            [id, name, owner, tags, addresses, state, seen, expiry]
        });
        ctx.table(head, &rows.collect::<Vec<_>>())
    }))
}

fn row(node: &Node) -> [String; 7] {
    [
        node.id.clone(),
        cell(&node.given_name),
        owner(node),
        node.ip_addresses.join(", "),
        match node.ephemeral {
            true => format!("{}, ephemeral", state(node)),
            false => state(node).into(),
        },
        if node.online {
            "-".into()
        } else {
            when(node.last_seen)
        },
        key_expiry(node),
    ]
}

fn key_expiry(node: &Node) -> String {
    match node.expiry {
        Some(expiry) => when(Some(expiry)),
        None => "never".into(),
    }
}

fn state(node: &Node) -> &'static str {
    if !node.authorized {
        return "needs approval";
    }
    match (&node.wireguard, node.online) {
        _ if node.expiry.is_some_and(is_past) => "expired",
        (Some(_), _) => "WireGuard",
        (None, true) => "online",
        (None, false) => "offline",
    }
}

fn details(node: &Node, server_url: &str) -> Vec<(&'static str, String)> {
    let list = |texts: &[String]| cell(&texts.join(", "));
    let mut lines = vec![
        ("ID", node.id.clone()),
        ("Name", cell(&node.given_name)),
        ("Hostname", cell(&node.name)),
        ("Owner", owner(node)),
        ("Addresses", node.ip_addresses.join(", ")),
        ("State", state(node).into()),
        ("Last seen", when(node.last_seen)),
        ("Created", when(Some(node.created_at))),
        ("Key expiry", key_expiry(node)),
        ("Advertised", list(&node.available_routes)),
        ("Approved", list(&node.approved_routes)),
        ("Serving", list(&node.subnet_routes)),
        ("Health", cell(&node.health.join("; "))),
        ("Node key", node.node_key.clone()),
    ];
    match &node.wireguard {
        Some(peer) => {
            lines.push(("Endpoints", list(&peer.endpoints)));
            lines.push(("Exit node DNS", list(&peer.exit_dns)));
            let masquerade = [&peer.masquerade_v4, &peer.masquerade_v6];
            let masquerade: Vec<String> = masquerade.into_iter().flatten().cloned().collect();
            lines.push(("Masquerade", list(&masquerade)));
        }
        None => {
            let ephemeral = "yes: deleted when it logs out or stays offline";
            lines.extend(node.ephemeral.then(|| ("Ephemeral", ephemeral.to_owned())));
            lines.extend((!node.requested_tags.is_empty()).then(|| {
                let requested = list(&node.requested_tags);
                let tags = cell(&node.requested_tags.join(","));
                let command = format!(
                    "tailscale up --force-reauth --login-server={server_url} --advertise-tags={tags}"
                );
                ("Requested", format!("{requested} (to apply: {command})"))
            }));
            lines.push(("Machine key", node.machine_key.clone()));
            lines.push(("Disco key", node.disco_key.clone()));
        }
    }
    lines
}
