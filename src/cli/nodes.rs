//! `hearth nodes`.

use serde_json::Value;

use super::args::{Nodes, OneNode};
use super::client::{CliError, Client, escaped};
use super::contact;
use super::output::{Format, Output, cell, table};
use super::users::{self, inner, when};
use crate::api::{ExpireNode, Node, NodeAnswer, NodesAnswer};

/// Carries out a command about nodes.
pub async fn run(
    command: Nodes,
    client: &Client,
    format: Option<Format>,
) -> Result<Output, CliError> {
    match command {
        Nodes::ToNode(command) => contact::run(command, client, format).await,
        Nodes::List { user } => list(client, format, user).await,
        Nodes::Show { which } => {
            let path = path_of(client, &named(which), "").await?;
            let answer = client.get(&path).await?;
            let NodeAnswer { node } = serde_json::from_value(answer.clone())?;
            Ok(Output::of(format, &inner(&answer, "node"), || card(&node)))
        }
        Nodes::Rename {
            new_name,
            identifier,
        } => {
            let verb = format!("/rename/{}", escaped(&new_name));
            let path = path_of(client, &identifier, &verb).await?;
            one(&client.post(&path, &()).await?, format, |node| {
                format!("node {} is named {}", node.id, cell(&node.given_name))
            })
        }
        Nodes::Expire {
            which,
            expiry,
            disable,
        } => {
            let path = path_of(client, &named(which), "/expire").await?;
            let body = ExpireNode {
                expiry,
                disable_expiry: disable,
            };
            one(
                &client.post(&path, &body).await?,
                format,
                |node| match node.expiry {
                    Some(_) => format!("{} expires {}", cell(&node.given_name), when(node.expiry)),
                    None => format!("{} never expires", cell(&node.given_name)),
                },
            )
        }
        Nodes::Delete { which } => {
            let which = named(which);
            let path = path_of(client, &which, "").await?;
            let answer = client.delete(&path).await?;
            Ok(Output::of(format, &answer, || {
                format!("node {} deleted", cell(&which))
            }))
        }
    }
}

fn named(which: OneNode) -> String {
    which.node.or(which.identifier).unwrap_or_default()
}

/// The path of a node that is named by its id or its name. Only a name needs a look at the list.
pub(super) async fn path_of(client: &Client, which: &str, verb: &str) -> Result<String, CliError> {
    let is_id = !which.is_empty() && which.bytes().all(|byte| byte.is_ascii_digit());
    let id = if is_id {
        which.to_owned()
    } else {
        let answer = client.get("/api/v1/node").await?;
        let NodesAnswer { nodes } = serde_json::from_value(answer)?;
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

fn one(
    answer: &Value,
    format: Option<Format>,
    text: impl FnOnce(&Node) -> String,
) -> Result<Output, CliError> {
    let NodeAnswer { node } = serde_json::from_value(answer.clone())?;
    Ok(Output::of(format, &inner(answer, "node"), || text(&node)))
}

async fn list(
    client: &Client,
    format: Option<Format>,
    user: Option<String>,
) -> Result<Output, CliError> {
    let path = match user {
        Some(user) => {
            let user = users::find(client, &user).await?;
            format!("/api/v1/node?user={}", escaped(&user.name))
        }
        None => "/api/v1/node".into(),
    };
    let answer = client.get(&path).await?;
    let NodesAnswer { nodes } = serde_json::from_value(answer.clone())?;
    Ok(Output::of(format, &inner(&answer, "nodes"), || {
        let rows: Vec<[String; 7]> = nodes.iter().map(row).collect();
        table(
            [
                "ID",
                "Name",
                "User",
                "Addresses",
                "Online",
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
        if node.online { "yes" } else { "no" }.into(),
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

fn owner(node: &Node) -> String {
    if !node.tags.is_empty() {
        return cell(&node.tags.join(","));
    }
    node.user
        .as_ref()
        .map_or_else(|| "-".into(), |user| cell(&user.name))
}

fn card(node: &Node) -> String {
    let lines = [
        ("ID", node.id.clone()),
        ("Name", cell(&node.given_name)),
        ("Host name", cell(&node.name)),
        ("Owner", owner(node)),
        ("Addresses", node.ip_addresses.join(", ")),
        ("Online", if node.online { "yes" } else { "no" }.into()),
        ("Last seen", when(node.last_seen)),
        ("Joined", when(Some(node.created_at))),
        (
            "Expires",
            node.expiry
                .map_or_else(|| "never".into(), |time| when(Some(time))),
        ),
        ("Health", cell(&node.health.join("; "))),
        ("Node key", node.node_key.clone()),
        ("Machine key", node.machine_key.clone()),
        ("Disco key", node.disco_key.clone()),
    ];
    let lines: Vec<String> = lines
        .iter()
        .map(|(name, value)| format!("{name:<12} {value}"))
        .collect();
    lines.join("\n")
}
