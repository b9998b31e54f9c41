//! Finds the users, nodes and keys that a person names by name or ID.

use std::net::IpAddr;

use super::client::{CliError, Client, escaped, read};
use super::output::cell;
use crate::api::{
    CreateUser, FIRST_USER, Node, NodesAnswer, Status, User, UserAnswer, UsersAnswer,
};

/// Most users that a message names.
const NAMED_MAX: usize = 8;

/// The status of the server.
///
/// # Errors
/// When the server cannot be asked.
pub fn status(client: &Client) -> Result<Status, CliError> {
    read(&client.get("/api/v1/hearth/status")?)
}

/// The user with this login name, in upper or lower case, or with this ID.
///
/// # Errors
/// When the server cannot be asked, there is no such user, or the text may mean two.
pub fn user(client: &Client, who: &str) -> Result<User, CliError> {
    let UsersAnswer { users } = read(&client.get("/api/v1/user")?)?;
    user_in(&users, who).map_err(CliError::Command)
}

fn user_in(users: &[User], who: &str) -> Result<User, String> {
    let lower = who.to_lowercase();
    let exact = users.iter().find(|user| user.name == who);
    let by_name = exact.or_else(|| users.iter().find(|user| user.name.to_lowercase() == lower));
    let by_id = users.iter().find(|user| is_id(who, &user.id));
    match (by_name, by_id) {
        (Some(one), Some(other)) if one.id != other.id => {
            let (name, id) = (&one.id, cell(&other.name));
            Err(format!(
                "`{who}` is ambiguous: the name of user {name} and the ID of {id}; rename user {name}"
            ))
        }
        (named, found) => {
            let user = named.or(found).cloned();
            user.ok_or_else(|| format!("no user `{}`; {}", cell(who), known(users)))
        }
    }
}

/// The only user; the first one is created when there is none.
///
/// # Errors
/// When the server cannot be asked or there are several users.
pub fn only_user(client: &Client) -> Result<User, CliError> {
    let UsersAnswer { mut users } = read(&client.get("/api/v1/user")?)?;
    if users.len() > 1 {
        let message = format!("add `--user NAME` to choose the owner; {}", known(&users));
        return Err(CliError::Command(message));
    }
    if let Some(user) = users.pop() {
        return Ok(user);
    }
    let user = CreateUser {
        name: FIRST_USER.into(),
        ..CreateUser::default()
    };
    let answer = client.post("/api/v1/user", &user)?;
    Ok(read::<UserAnswer>(&answer)?.user)
}

fn known(users: &[User]) -> String {
    if users.is_empty() {
        return "there are no users yet: create one with `hearth users create NAME`".into();
    }
    let names: Vec<String> = users
        .iter()
        .take(NAMED_MAX)
        .map(|user| format!("{} ({})", cell(&user.name), user.id))
        .collect();
    let more = if users.len() > NAMED_MAX { ", …" } else { "" };
    format!("users: {}{more}; see `hearth users list`", names.join(", "))
}

/// All nodes, or those of one user by name or ID.
///
/// # Errors
/// When the server cannot be asked or there is no such user.
pub fn nodes(client: &Client, of: Option<&str>) -> Result<Vec<Node>, CliError> {
    let NodesAnswer { nodes } = read(&client.get(&nodes_path(client, of)?)?)?;
    Ok(nodes)
}

/// The path of the list of all nodes, or of those of one user by name or ID.
///
/// # Errors
/// When the server cannot be asked or there is no such user.
pub fn nodes_path(client: &Client, of: Option<&str>) -> Result<String, CliError> {
    Ok(match of {
        Some(who) => format!("/api/v1/node?user={}", escaped(&user(client, who)?.name)),
        None => "/api/v1/node".into(),
    })
}

/// The node with this ID, name or address. Names are those that the list shows, or full names, in upper or lower case.
///
/// # Errors
/// When the server cannot be asked, there is no such node, or the text may mean two.
pub fn node(client: &Client, which: &str) -> Result<Node, CliError> {
    find_node(client, which)?.ok_or_else(|| no_node(which))
}

fn no_node(which: &str) -> CliError {
    let which = cell(which);
    CliError::Command(format!("no node `{which}`; see `hearth nodes list`"))
}

fn find_node(client: &Client, which: &str) -> Result<Option<Node>, CliError> {
    let nodes = nodes(client, None)?;
    let is_name = which.parse::<IpAddr>().is_err();
    let base_domain = match is_name && which.contains('.') {
        true => status(client)?.base_domain,
        false => String::new(),
    };
    node_in(nodes, which, &base_domain).map_err(CliError::Command)
}

fn node_in(nodes: Vec<Node>, which: &str, base_domain: &str) -> Result<Option<Node>, String> {
    let lower = which.trim_end_matches('.').to_lowercase();
    let below = lower.strip_suffix(&base_domain.to_lowercase());
    let label = below.and_then(|label| label.strip_suffix('.'));
    let label = label.unwrap_or(&lower);
    let address = which.parse::<IpAddr>().ok().map(|ip| ip.to_string());
    let is_named = |node: &Node| node.given_name.to_lowercase() == label;
    let is_at = |node: &Node| address.iter().any(|ip| node.ip_addresses.contains(ip));
    let is_meant = |node: &Node| is_id(which, &node.id) || is_named(node) || is_at(node);
    let found: Vec<Node> = nodes.into_iter().filter(is_meant).collect();
    if found.len() > 1 {
        let nodes = found.iter().map(|node| {
            let (id, name) = (&node.id, cell(&node.given_name));
            format!("node {id} ({name}, {})", node.ip_addresses.join(" and "))
        });
        let nodes = nodes.collect::<Vec<_>>().join(", ");
        return Err(format!("`{which}` is ambiguous; use an address: {nodes}"));
    }
    Ok(found.into_iter().next())
}

/// The path of the node with this ID, name or address.
///
/// # Errors
/// When the server cannot be asked, there is no such node, or the text may mean two.
pub fn node_path(client: &Client, which: &str, verb: &str) -> Result<String, CliError> {
    let is_number = !which.is_empty() && which.bytes().all(|byte| byte.is_ascii_digit());
    let id = match find_node(client, which)? {
        Some(node) => node.id,
        // The server says that there is none, as it does to others.
        None if is_number => which.to_owned(),
        None => return Err(no_node(which)),
    };
    Ok(format!("/api/v1/node/{}{verb}", escaped(&id)))
}

/// Whether a text is this ID, which may have zeros before it.
fn is_id(text: &str, id: &str) -> bool {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits && text.trim_start_matches('0') == id
}

/// The owner of a node as people write it: its tags, or the name of its user.
pub fn owner(node: &Node) -> String {
    if !node.tags.is_empty() {
        return cell(&node.tags.join(", "));
    }
    node.user
        .as_ref()
        .map_or_else(|| "-".into(), |user| cell(&user.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: &str, name: &str, address: &str) -> Node {
        let node = serde_json::json!({
            "id": id, "machineKey": "", "nodeKey": "", "discoKey": "", "ipAddresses": [address, "fd7a::1"],
            "name": name, "user": null, "lastSeen": null, "expiry": null, "preAuthKey": null,
            "createdAt": "2026-01-01T00:00:00Z", "registerMethod": "", "givenName": name, "online": true,
            "approvedRoutes": [], "availableRoutes": [], "subnetRoutes": [], "tags": [],
        });
        read(&node).unwrap()
    }

    fn user(id: &str, name: &str) -> User {
        let user = serde_json::json!({
            "id": id, "name": name, "createdAt": "2026-01-01T00:00:00Z", "displayName": "", "email": "",
            "providerId": "", "provider": "", "profilePicUrl": "",
        });
        read(&user).unwrap()
    }

    fn found(which: &str) -> String {
        let nodes = vec![
            node("3", "nas", "100.64.0.3"),
            node("7", "13", "100.64.0.7"),
            node("13", "laptop", "100.64.0.13"),
            node("20", "21", "100.64.0.20"),
        ];
        match node_in(nodes, which, "Hearth.internal") {
            Ok(node) => node.map_or_else(|| "none".into(), |node| node.id),
            Err(message) => message,
        }
    }

    #[test]
    fn a_node_has_an_id_a_name_and_addresses() {
        for (which, id) in [
            ("3", "3"),
            ("03", "3"),
            ("nas", "3"),
            ("NAS", "3"),
            ("nas.hearth.internal", "3"),
            ("Nas.Hearth.Internal.", "3"),
            ("100.64.0.3", "3"),
            ("21", "20"),
            ("13.hearth.internal", "7"),
            ("nas.example.org", "none"),
            ("4", "none"),
            ("", "none"),
        ] {
            assert_eq!(found(which), id, "{which}");
        }
    }

    #[test]
    fn a_number_that_is_an_id_and_a_name_is_refused() {
        let message = found("13");
        assert!(
            message.starts_with("`13` is ambiguous; use an address: "),
            "{message}"
        );
        assert!(message.contains("node 7 (13, 100.64.0.7"), "{message}");
        let users = [user("1", "anna"), user("2", "1")];
        let message = user_in(&users, "1").unwrap_err();
        assert!(message.starts_with("`1` is ambiguous"), "{message}");
        assert_eq!(user_in(&users, "2").unwrap().name, "1");
        assert_eq!(user_in(&users, "ANNA").unwrap().id, "1");
        assert!(
            user_in(&users, "ben")
                .unwrap_err()
                .contains("`hearth users list`")
        );
    }
}
