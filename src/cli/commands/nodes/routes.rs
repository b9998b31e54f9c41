//! `hearth nodes list-routes` and `approve-routes`.

use serde_json::Value;

use crate::api::{ApproveRoutes, Node, NodesAnswer};
use crate::cli::args::given;
use crate::cli::client::{CliError, read};
use crate::cli::context::Ctx;
use crate::cli::lookup::node_path;
use crate::cli::output::{Output, cell, yes_no};

/// Lists the routes of one or all nodes.
pub fn list(ctx: &Ctx, which: Option<String>) -> Result<Output, CliError> {
    let answer = match which {
        Some(which) => {
            let answer = ctx.client.get(&node_path(&ctx.client, &which, "")?)?;
            let node = answer.get("node").cloned().unwrap_or(Value::Null);
            vec![node]
        }
        None => match ctx.client.get("/api/v1/node")?.get_mut("nodes") {
            Some(Value::Array(nodes)) => std::mem::take(nodes),
            _ => return Err(CliError::Answer),
        },
    };
    let NodesAnswer { nodes } = read(&serde_json::json!({ "nodes": answer }))?;
    let with_routes: Vec<(Value, Node)> = answer.into_iter().zip(nodes).collect();
    let with_routes = with_routes.into_iter().filter(|(_, node)| has_routes(node));
    let (json, nodes): (Vec<Value>, Vec<Node>) = with_routes.unzip();
    let output = ctx.output(&Value::Array(json), || text(ctx, &nodes));
    let commands: Vec<String> = nodes.iter().filter_map(approval).collect();
    if commands.is_empty() {
        return Ok(output);
    }
    let note = format!(
        "\nTo approve all advertised routes:\n{}",
        commands.join("\n")
    );
    Ok(output.note(&note))
}

/// Sets the approved routes of a node.
pub fn approve(ctx: &Ctx, which: &str, routes: Vec<String>) -> Result<Output, CliError> {
    let path = node_path(&ctx.client, which, "/approve_routes")?;
    let body = ApproveRoutes {
        routes: given(routes),
    };
    ctx.node(&ctx.client.post(&path, &body)?, |node| {
        let name = cell(&node.given_name);
        match node.approved_routes.as_slice() {
            [] => format!("no routes of {name} are approved"),
            approved => format!("approved routes of {name}: {}", approved.join(", ")),
        }
    })
}

fn has_routes(node: &Node) -> bool {
    !node.available_routes.is_empty() || !node.approved_routes.is_empty()
}

fn needs_approval<'a>(node: &'a Node, route: &'a String) -> bool {
    node.available_routes.contains(route) && !node.approved_routes.contains(route)
}

/// The command that approves the routes that need approval, along with those that have it.
fn approval(node: &Node) -> Option<String> {
    let waiting: Vec<&String> = node
        .available_routes
        .iter()
        .filter(|route| needs_approval(node, route))
        .collect();
    if waiting.is_empty() {
        return None;
    }
    let mut all: Vec<&str> = node.approved_routes.iter().map(String::as_str).collect();
    all.extend(waiting.iter().map(|route| route.as_str()));
    let (id, all) = (&node.id, all.join(","));
    Some(format!("    hearth nodes approve-routes -i {id} -r {all}"))
}

fn text(ctx: &Ctx, nodes: &[Node]) -> String {
    let head = [
        "ID",
        "Name",
        "Route",
        "Advertised",
        "Approved",
        "Serving",
        "State",
    ];
    ctx.table(head, &rows(nodes))
}

fn rows(nodes: &[Node]) -> Vec<[String; 7]> {
    let mut rows = Vec::new();
    for node in nodes {
        let advertised = node.available_routes.iter();
        let only_approved = node
            .approved_routes
            .iter()
            .filter(|route| !node.available_routes.contains(route));
        for route in advertised.chain(only_approved) {
            rows.push([
                node.id.clone(),
                cell(&node.given_name),
                route.clone(),
                yes_no(node.available_routes.contains(route)),
                yes_no(node.approved_routes.contains(route)),
                yes_no(node.subnet_routes.contains(route)),
                state(node, route).into(),
            ]);
        }
    }
    rows
}

fn state(node: &Node, route: &String) -> &'static str {
    let approved = node.approved_routes.contains(route);
    match node.available_routes.contains(route) {
        true if !approved => "needs approval",
        false => "not advertised",
        true if node.subnet_routes.contains(route) && node.online => "active",
        true if node.subnet_routes.contains(route) => "no router online",
        true => "standby",
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
        let rows = rows(&[node]);
        let last: Vec<&str> = rows.iter().map(|row| row[6].as_str()).collect();
        assert_eq!(
            last,
            ["needs approval", "active", "standby", "not advertised"]
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
