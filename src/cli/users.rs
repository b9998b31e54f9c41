//! `hearth users`, and how other commands find a user.

use serde_json::Value;

use super::args::{OneUser, Users};
use super::client::{CliError, Client, escaped, read};
use super::output::{Format, Output, cell, table};
use crate::api::{CreateUser, FIRST_USER, SetRole, SetUserExpiry, User, UserAnswer, UsersAnswer};
use hearth_core::clock::Timestamp;

/// Carries out a command about users.
pub fn run(command: Users, client: &Client, format: Option<Format>) -> Result<Output, CliError> {
    match command {
        Users::Create {
            name,
            display_name,
            email,
            picture_url,
        } => {
            let user = CreateUser {
                name,
                display_name,
                email,
                picture_url,
            };
            let answer = client.post("/api/v1/user", &user)?;
            one(&answer, format, "made")
        }
        Users::List {
            identifier,
            name,
            email,
        } => list(client, format, identifier, name, email),
        Users::Rename { who, new_name } => {
            let user = find(client, &named(who))?;
            let path = format!(
                "/api/v1/user/{}/rename/{}",
                escaped(&user.id),
                escaped(&new_name)
            );
            one(&client.post(&path, &())?, format, "renamed")
        }
        Users::SetRole { user, role } => {
            let user = find(client, &user)?;
            let path = format!("/api/v1/user/{}/role", escaped(&user.id));
            let done = format!("has the role {role}");
            one(&client.post(&path, &SetRole { role })?, format, &done)
        }
        Users::SetExpiry { user, expiry } => {
            let user = find(client, &user)?;
            let path = format!("/api/v1/user/{}/expiry", escaped(&user.id));
            let done = match expiry.as_str() {
                "never" => "keeps its nodes without an end, from their next login on".into(),
                "default" => "has the expiry of the configuration again".into(),
                life => format!("has to log its nodes in again {life} after each login"),
            };
            let body = SetUserExpiry { expiry };
            one(&client.post(&path, &body)?, format, &done)
        }
        Users::Delete { who } => {
            let user = find(client, &named(who))?;
            let path = format!("/api/v1/user/{}", escaped(&user.id));
            let answer = client.delete(&path)?;
            Ok(Output::of(format, &answer, || {
                format!("user {} ({}) deleted", cell(&user.name), user.id)
            }))
        }
    }
}

/// Finds a user by login name or, when none has that name, by id.
pub fn find(client: &Client, who: &str) -> Result<User, CliError> {
    let UsersAnswer { users } = read(&client.get("/api/v1/user")?)?;
    let by_name = users.iter().find(|user| user.name == who);
    let by_id = || users.iter().find(|user| user.id == who);
    by_name
        .or_else(by_id)
        .cloned()
        .ok_or_else(|| CliError::Command(format!("there is no user `{who}`; {}", known(&users))))
}

/// The only user; the first one is made when there is none.
pub fn only(client: &Client) -> Result<User, CliError> {
    let UsersAnswer { mut users } = read(&client.get("/api/v1/user")?)?;
    if users.len() > 1 {
        let message = format!("name the owner with `--user`; {}", known(&users));
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

/// A time for people.
pub fn when(time: Option<Timestamp>) -> String {
    let Some(time) = time else { return "-".into() };
    let seconds = Timestamp::from_unix_ms(time.unix_seconds().saturating_mul(1000));
    seconds.to_string().replace('T', " ").replace('Z', " UTC")
}

/// The field of an answer that a program wants to see.
pub fn inner(answer: &Value, field: &str) -> Value {
    answer.get(field).cloned().unwrap_or(Value::Null)
}

fn known(users: &[User]) -> String {
    if users.is_empty() {
        return "there are none yet: `hearth users create NAME`".into();
    }
    let names: Vec<String> = users
        .iter()
        .map(|user| format!("{} ({})", cell(&user.name), user.id))
        .collect();
    format!("users are {}", names.join(", "))
}

fn named(who: OneUser) -> String {
    let id = who.identifier.map(|id| id.to_string());
    who.user.or(id).or(who.name).unwrap_or_default()
}

fn one(answer: &Value, format: Option<Format>, done: &str) -> Result<Output, CliError> {
    let UserAnswer { user } = read(answer)?;
    Ok(Output::of(format, &inner(answer, "user"), || {
        format!("user {} ({}) {done}", cell(&user.name), user.id)
    }))
}

fn list(
    client: &Client,
    format: Option<Format>,
    id: Option<u64>,
    name: Option<String>,
    email: Option<String>,
) -> Result<Output, CliError> {
    let id = id.map(|id| id.to_string());
    let filters = [("id", id), ("name", name), ("email", email)];
    let query: Vec<String> = filters
        .into_iter()
        .filter_map(|(key, value)| Some(format!("{key}={}", escaped(&value?))))
        .collect();
    let path = format!("/api/v1/user?{}", query.join("&"));
    let answer = client.get(&path)?;
    let UsersAnswer { users } = read(&answer)?;
    Ok(Output::of(format, &inner(&answer, "users"), || {
        let rows: Vec<[String; 7]> = users
            .iter()
            .map(|user| {
                [
                    user.id.clone(),
                    cell(&user.name),
                    cell(&user.display_name),
                    cell(&user.email),
                    cell(&user.role),
                    cell(&user.node_expiry),
                    when(Some(user.created_at)),
                ]
            })
            .collect();
        table(
            [
                "ID",
                "Name",
                "Display name",
                "Email",
                "Role",
                "Node expiry",
                "Created",
            ],
            &rows,
        )
    }))
}
