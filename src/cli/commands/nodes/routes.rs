//! `hearth nodes list-routes` and `approve-routes`.

use serde_json::Value;

use crate::api::{ApproveRoutes, FORWARDING_REPORT, Node, NodesAnswer, ROUTES_REPORT};
use crate::cli::client::{CliError, escaped, read};
use crate::cli::context::Ctx;
use crate::cli::lookup::{self, node_path};
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
    let mut notes: Vec<String> = nodes.iter().flat_map(warnings).collect();
    if !commands.is_empty() {
        let commands = commands.join("\n");
        notes.push(format!("\nTo approve all offered routes:\n{commands}"));
    }
    Ok(match notes.is_empty() {
        true => output,
        false => output.note(&notes.join("\n")),
    })
}

/// Health warnings of a node that concern its routes.
fn warnings(node: &Node) -> Vec<String> {
    let is_of_routes = |report: &&String| {
        let begins = [ROUTES_REPORT, FORWARDING_REPORT];
        begins.iter().any(|begin| report.starts_with(begin))
    };
    let reports = node.health.iter().filter(is_of_routes);
    reports
        .map(|report| format!("{}: {}", cell(&node.given_name), cell(report)))
        .collect()
}

/// Sets the approved routes of a node: `routes` or all that it offers, in addition to those that are approved where
/// `adds` says so.
pub fn approve(
    ctx: &Ctx,
    which: &str,
    mut routes: Vec<String>,
    adds: bool,
    all_offered: bool,
) -> Result<Output, CliError> {
    let before = lookup::node(&ctx.client, which)?;
    if all_offered && before.available_routes.is_empty() {
        let name = &before.given_name;
        return Err(CliError::Command(format!(
            "{name} offers no routes; on {name}, run `tailscale set --advertise-routes=192.168.1.0/24` with its own subnet, or `tailscale set --advertise-exit-node`"
        )));
    }
    if all_offered {
        routes.extend(before.available_routes.iter().cloned());
    }
    if adds || all_offered {
        routes.extend(before.approved_routes.iter().cloned());
    }
    let path = format!("/api/v1/node/{}/approve_routes", escaped(&before.id));
    let answer = ctx.client.post(&path, &ApproveRoutes { routes })?;
    ctx.node(&answer, |node| outcome(&before, node))
}

/// Which routes are approved now, which of them the node does not offer, and which are approved no longer.
fn outcome(before: &Node, now: &Node) -> String {
    let name = cell(&now.given_name);
    let mut lines = Vec::new();
    match now.approved_routes.as_slice() {
        [] => lines.push(format!("no routes of {name} are approved")),
        approved => lines.push(format!(
            "approved routes of {name}: {}",
            approved.join(", ")
        )),
    }
    let not_offered = without(&now.approved_routes, &now.available_routes);
    if !not_offered.is_empty() {
        let routes = not_offered.join(", ");
        lines.push(format!(
            "not offered by {name}: {routes} (see `hearth nodes list-routes`)"
        ));
    }
    if let Some(report) = forwarding_report(now).filter(|_| !now.approved_routes.is_empty()) {
        lines.push(format!("IP forwarding of {name}: {}", cell(report)));
    }
    let removed = without(&before.approved_routes, &now.approved_routes);
    if !removed.is_empty() {
        let removed = removed.join(", ");
        lines.push(format!(
            "no longer: {removed} (`--add` keeps what is approved)"
        ));
    }
    lines.join("\n")
}

/// Those of a list that are not in another.
fn without(list: &[String], other: &[String]) -> Vec<String> {
    let rest = list.iter().filter(|route| !other.contains(route));
    rest.cloned().collect()
}

/// What the client says of IP forwarding, if that is off.
fn forwarding_report(node: &Node) -> Option<&str> {
    let mut reports = node.health.iter();
    reports.find_map(|report| report.strip_prefix(FORWARDING_REPORT))
}

fn has_routes(node: &Node) -> bool {
    !node.available_routes.is_empty() || !node.approved_routes.is_empty()
}

fn needs_approval<'a>(node: &'a Node, route: &'a String) -> bool {
    node.available_routes.contains(route) && !node.approved_routes.contains(route)
}

/// The command that approves the routes that need approval, along with those that have it.
fn approval(node: &Node) -> Option<String> {
    let mut offered = node.available_routes.iter();
    let waits = offered.any(|route| needs_approval(node, route));
    let id = &node.id;
    waits.then(|| format!("    hearth nodes approve-routes -i {id} --all-offered"))
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
        true if node.subnet_routes.contains(route) && !node.online => "no router online",
        true if forwarding_report(node).is_some() => "does not forward",
        true if node.subnet_routes.contains(route) => "active",
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
    fn the_command_for_all_routes_is_short() {
        let one = node(&["10.0.0.0/8", "10.1.0.0/16"], &["10.1.0.0/16"], &[]);
        assert_eq!(
            approval(&one).unwrap().trim(),
            "hearth nodes approve-routes -i 3 --all-offered"
        );
        assert_eq!(approval(&node(&["10.0.0.0/8"], &["10.0.0.0/8"], &[])), None);
    }

    #[test]
    fn an_approval_says_what_is_not_offered_and_what_is_approved_no_longer() {
        let before = node(&["10.0.0.0/8"], &["10.0.0.0/8", "10.9.0.0/16"], &[]);
        let now = node(&["10.0.0.0/8"], &["10.9.0.0/16", "10.8.0.0/16"], &[]);
        assert_eq!(
            outcome(&before, &now),
            "approved routes of pi: 10.9.0.0/16, 10.8.0.0/16\n\
             not offered by pi: 10.9.0.0/16, 10.8.0.0/16 (see `hearth nodes list-routes`)\n\
             no longer: 10.0.0.0/8 (`--add` keeps what is approved)"
        );
        let mut deaf = node(&["10.0.0.0/8"], &["10.0.0.0/8"], &["10.0.0.0/8"]);
        deaf.health = vec!["ip-forwarding: off".into()];
        assert!(outcome(&deaf, &deaf).contains("IP forwarding of pi: off"));
        assert_eq!(state(&deaf, &"10.0.0.0/8".into()), "does not forward");
        let all = node(&["10.0.0.0/8"], &["10.0.0.0/8"], &[]);
        assert_eq!(outcome(&all, &all), "approved routes of pi: 10.0.0.0/8");
        assert!(
            outcome(&all, &node(&[], &[], &[]))
                .starts_with("no routes of pi are approved\nno longer: ")
        );
    }

    #[test]
    fn warnings_about_routes_are_shown_with_the_list() {
        let mut pi = node(&["10.0.0.0/8"], &[], &[]);
        assert!(warnings(&pi).is_empty());
        pi.health = vec![
            "dns: slow".into(),
            "routes: 3 more".into(),
            "ip-forwarding: off".into(),
        ];
        assert_eq!(
            warnings(&pi),
            ["pi: routes: 3 more", "pi: ip-forwarding: off"]
        );
    }
}
