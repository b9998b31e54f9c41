//! `hearth nodes list-routes` and `approve-routes`.

use serde_json::Value;

use super::client::{CliError, Client, read};
use super::nodes::{given, one, path_of};
use super::output::{Format, Output, cell, table};
use crate::api::{ApproveRoutes, Node, NodesAnswer};

/// Lists the routes of one or all nodes.
pub fn list(
    client: &Client,
    format: Option<Format>,
    which: Option<String>,
) -> Result<Output, CliError> {
    let answer = match which {
        Some(which) => {
            let answer = client.get(&path_of(client, &which, "")?)?;
            let node = answer.get("node").cloned().unwrap_or(Value::Null);
            vec![node]
        }
        None => match client.get("/api/v1/node")?.get_mut("nodes") {
            Some(Value::Array(nodes)) => std::mem::take(nodes),
            _ => return Err(CliError::Answer),
        },
    };
    let NodesAnswer { nodes } = read(&serde_json::json!({ "nodes": answer }))?;
    let with_routes: Vec<(Value, Node)> = answer.into_iter().zip(nodes).collect();
    let with_routes = with_routes.into_iter().filter(|(_, node)| has_routes(node));
    let (json, nodes): (Vec<Value>, Vec<Node>) = with_routes.unzip();
    let output = Output::of(format, &Value::Array(json), || text(&nodes));
    let commands: Vec<String> = nodes.iter().filter_map(approval).collect();
    if commands.is_empty() {
        return Ok(output);
    }
    let note = format!("\nTo approve what waits:\n{}", commands.join("\n"));
    Ok(output.note(format, &note))
}

/// Sets the routes that a node may serve.
pub fn approve(
    client: &Client,
    format: Option<Format>,
    which: &str,
    routes: Vec<String>,
) -> Result<Output, CliError> {
    let path = path_of(client, which, "/approve_routes")?;
    let body = ApproveRoutes {
        routes: given(routes),
    };
    let answer = client.post(&path, &body)?;
    one(&answer, format, |node| {
        let name = cell(&node.given_name);
        match node.approved_routes.as_slice() {
            [] => format!("{name} may serve no routes"),
            approved => format!("{name} may serve {}", approved.join(", ")),
        }
    })
}

fn has_routes(node: &Node) -> bool {
    !node.available_routes.is_empty() || !node.approved_routes.is_empty()
}

fn waits<'a>(node: &'a Node, route: &'a String) -> bool {
    node.available_routes.contains(route) && !node.approved_routes.contains(route)
}

/// The command that approves what waits, along with what is approved already.
fn approval(node: &Node) -> Option<String> {
    let waiting: Vec<&String> = node
        .available_routes
        .iter()
        .filter(|route| waits(node, route))
        .collect();
    if waiting.is_empty() {
        return None;
    }
    let mut all: Vec<&str> = node.approved_routes.iter().map(String::as_str).collect();
    all.extend(waiting.iter().map(|route| route.as_str()));
    let (id, all) = (&node.id, all.join(","));
    Some(format!("    hearth nodes approve-routes -i {id} -r {all}"))
}

fn text(nodes: &[Node]) -> String {
    let mut rows: Vec<[String; 7]> = Vec::new();
    for node in nodes {
        let offered = node.available_routes.iter();
        let only_approved = node
            .approved_routes
            .iter()
            .filter(|route| !node.available_routes.contains(route));
        for route in offered.chain(only_approved) {
            rows.push([
                node.id.clone(),
                cell(&node.given_name),
                route.clone(),
                yes_no(node.available_routes.contains(route)),
                yes_no(node.approved_routes.contains(route)),
                yes_no(node.subnet_routes.contains(route)),
                meaning(node, route).into(),
            ]);
        }
    }
    let head = [
        "ID", "Name", "Route", "Offered", "Approved", "Serving", "Meaning",
    ];
    table(head, &rows)
}

fn yes_no(whether: bool) -> String {
    if whether { "yes" } else { "no" }.into()
}

fn meaning(node: &Node, route: &String) -> &'static str {
    let approved = node.approved_routes.contains(route);
    match node.available_routes.contains(route) {
        true if !approved => "waits for approval",
        false => "not offered",
        true if node.subnet_routes.contains(route) && node.online => "in use",
        true if node.subnet_routes.contains(route) => "nobody is there to serve it",
        true => "stands by",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(available: &[&str], approved: &[&str], serving: &[&str]) -> Node {
        let node = serde_json::json!({
            "id": "3", "machineKey": "", "nodeKey": "", "discoKey": "", "ipAddresses": [],
            "name": "pi", "user": null, "lastSeen": null, "expiry": null, "preAuthKey": null,
            "createdAt": "2026-01-01T00:00:00Z", "registerMethod": "", "givenName": "pi",
            "online": true, "approvedRoutes": approved, "availableRoutes": available,
            "subnetRoutes": serving, "tags": [],
        });
        read(&node).unwrap()
    }

    #[test]
    fn the_table_tells_each_route_apart() {
        let node = node(
            &["10.0.0.0/8", "10.1.0.0/16", "10.2.0.0/16"],
            &["10.1.0.0/16", "10.2.0.0/16", "10.9.0.0/16"],
            &["10.1.0.0/16"],
        );
        let rows = text(&[node]);
        let last: Vec<&str> = rows
            .lines()
            .skip(1)
            .filter_map(|row| row.rsplit("  ").next())
            .collect();
        assert_eq!(
            last,
            ["waits for approval", "in use", "stands by", "not offered"]
        );
    }

    #[test]
    fn the_command_keeps_what_is_approved() {
        let one = node(&["10.0.0.0/8", "10.1.0.0/16"], &["10.1.0.0/16"], &[]);
        assert_eq!(
            approval(&one).unwrap().trim(),
            "hearth nodes approve-routes -i 3 -r 10.1.0.0/16,10.0.0.0/8"
        );
        assert_eq!(approval(&node(&["10.0.0.0/8"], &["10.0.0.0/8"], &[])), None);
    }
}
