//! Finds the users, nodes and keys that a person names by name or ID.

use super::client::{CliError, Client, escaped, read};
use super::output::cell;
use crate::api::{CreateUser, FIRST_USER, Node, NodesAnswer, User, UserAnswer, UsersAnswer};

/// Most users that a message names.
const NAMED_MAX: usize = 8;

/// The user with this login name or, when there is none, with this ID.
///
/// # Errors
/// When the server cannot be asked or there is no such user.
pub fn user(client: &Client, who: &str) -> Result<User, CliError> {
    let UsersAnswer { users } = read(&client.get("/api/v1/user")?)?;
    let by_name = users.iter().find(|user| user.name == who);
    let by_id = || users.iter().find(|user| user.id == who);
    by_name
        .or_else(by_id)
        .cloned()
        .ok_or_else(|| CliError::Command(format!("no user `{who}`; {}", known(&users))))
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

/// The node with this ID or name.
///
/// # Errors
/// When the server cannot be asked or there is no such node.
pub fn node(client: &Client, which: &str) -> Result<Node, CliError> {
    let nodes = nodes(client, None)?;
    let is_it = |node: &Node| match is_id(which) {
        true => node.id == which,
        false => node.given_name == which,
    };
    let found = nodes.into_iter().find(is_it);
    found.ok_or_else(|| CliError::Command(format!("no node `{which}`; see `hearth nodes list`")))
}

/// The path of the node with this ID or name. An ID needs no request.
///
/// # Errors
/// When the server cannot be asked or there is no such node.
pub fn node_path(client: &Client, which: &str, verb: &str) -> Result<String, CliError> {
    let id = match is_id(which) {
        true => which.to_owned(),
        false => node(client, which)?.id,
    };
    Ok(format!("/api/v1/node/{}{verb}", escaped(&id)))
}

fn is_id(which: &str) -> bool {
    !which.is_empty() && which.bytes().all(|byte| byte.is_ascii_digit())
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
