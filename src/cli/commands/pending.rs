//! `hearth pending` and `hearth auth`.

use crate::api::{self, DecideLogin, NodeAnswer, PendingAnswer};
use crate::cli::args::{Auth, OnePending, Pending};
use crate::cli::client::{CliError, read};
use crate::cli::context::Ctx;
use crate::cli::lookup;
use crate::cli::output::{Output, cell, when};

const PATH: &str = "/api/v1/hearth/pending";

/// State of a registration that nobody has decided about.
const WAITING: &str = "waiting";

/// Carries out a command about devices that wait to join.
pub fn run(ctx: &Ctx, command: Pending) -> Result<Output, CliError> {
    match command {
        Pending::List => list(ctx),
        Pending::Approve { which, user } => {
            let id = find(ctx, which)?;
            approve_id(ctx, &id, user.as_deref())
        }
        Pending::Reject { which } => {
            let id = find(ctx, which)?;
            reject_id(ctx, &id)
        }
    }
}

/// Carries out a command in Headscale's spelling.
pub fn run_auth(ctx: &Ctx, command: Auth) -> Result<Output, CliError> {
    match command {
        Auth::Register { user, auth_id } => approve_id(ctx, &auth_id, Some(&user)),
        Auth::Approve { auth_id } => decide(ctx, &auth_id, "approve", "approved"),
        Auth::Reject { auth_id } => reject_id(ctx, &auth_id),
    }
}

/// Approves a pending registration by its ID or URL.
pub fn approve_id(ctx: &Ctx, id: &str, user: Option<&str>) -> Result<Output, CliError> {
    let owner = match user {
        Some(user) => lookup::user(&ctx.client, user)?,
        None => lookup::only_user(&ctx.client)?,
    };
    let body = DecideLogin {
        user: owner.name,
        auth_id: id_in(id),
    };
    let answer = ctx.client.post("/api/v1/auth/register", &body)?;
    let NodeAnswer { node } = read(&answer)?;
    Ok(ctx.field(&answer, "node", || {
        format!(
            "approved {} as node {} of {} with {}",
            cell(&node.given_name),
            node.id,
            lookup::owner(&node),
            node.ip_addresses.join(" and "),
        )
    }))
}

fn reject_id(ctx: &Ctx, id: &str) -> Result<Output, CliError> {
    decide(ctx, id, "reject", "rejected")
}

/// Approves or rejects a pending registration, or an SSH connection, by its ID or URL.
fn decide(ctx: &Ctx, id: &str, verb: &str, done: &'static str) -> Result<Output, CliError> {
    let body = DecideLogin {
        user: String::new(),
        auth_id: id_in(id),
    };
    let answer = ctx.client.post(&format!("/api/v1/auth/{verb}"), &body)?;
    Ok(ctx.output(&answer, || done.into()))
}

/// The ID in a text that may be a whole URL.
pub fn id_in(text: &str) -> String {
    let text = text.trim_end_matches('/');
    text.rsplit('/').next().unwrap_or(text).to_owned()
}

fn list(ctx: &Ctx) -> Result<Output, CliError> {
    let answer = ctx.client.get(PATH)?;
    let PendingAnswer { pending } = read(&answer)?;
    Ok(ctx.field(&answer, "pending", || {
        let rows = pending.iter().map(|login| {
            [
                login.auth_id.clone(),
                cell(&login.name),
                cell(&login.os),
                when(Some(login.created_at)),
                login.state.clone(),
            ]
        });
        let rows: Vec<[String; 5]> = rows.collect();
        ctx.table(["ID", "Device", "OS", "Requested", "State"], &rows)
    }))
}

/// The ID of the registration that a person means.
fn find(ctx: &Ctx, which: OnePending) -> Result<String, CliError> {
    let PendingAnswer { pending } = read(&ctx.client.get(PATH)?)?;
    chosen(&pending, &which).map_err(CliError::Command)
}

fn chosen(pending: &[api::Pending], which: &OnePending) -> Result<String, String> {
    let waiting = || pending.iter().filter(|login| login.state == WAITING);
    let Some(device) = &which.device else {
        let last = waiting().max_by_key(|login| login.created_at);
        return last
            .map(|login| login.auth_id.clone())
            .ok_or_else(|| "no device is waiting; run `tailscale up` on it first".into());
    };
    let named: Vec<&api::Pending> = waiting().filter(|login| login.name == *device).collect();
    match named.as_slice() {
        // The server knows whether it is an ID, and what is wrong with it.
        [] => Ok(id_in(device)),
        [one] => Ok(one.auth_id.clone()),
        several => {
            let ids: Vec<&str> = several.iter().map(|login| &*login.auth_id).collect();
            Err(format!(
                "{} devices named `{}` are waiting; use an ID from `hearth pending list`: {}",
                ids.len(),
                cell(device),
                ids.join(", ")
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(id: &str, name: &str, state: &str, second: u32) -> api::Pending {
        let json = serde_json::json!({
            "authId": id, "state": state, "name": name, "os": "linux", "machineKey": "", "nodeKey": "",
            "ephemeral": false, "requestTags": [], "nodeId": null,
            "createdAt": format!("2026-01-01T00:00:0{second}Z"),
        });
        read(&json).unwrap()
    }

    #[test]
    fn the_whole_url_is_as_good_as_the_id() {
        assert_eq!(id_in("http://10.0.0.1:8080/register/aB-_"), "aB-_");
        assert_eq!(id_in("aB-_"), "aB-_");
    }

    #[test]
    fn a_device_is_named_by_name_id_or_as_the_last_one() {
        let pending = [
            login("a", "tablet", "waiting", 1),
            login("b", "phone", "waiting", 3),
            login("c", "phone", "approved", 4),
            login("d", "pc", "waiting", 2),
            login("e", "pc", "waiting", 2),
        ];
        let named = |device: &str| OnePending {
            device: Some(device.into()),
            last: false,
        };
        let last = OnePending {
            device: None,
            last: true,
        };
        assert_eq!(chosen(&pending, &named("tablet")).as_deref(), Ok("a"));
        assert_eq!(chosen(&pending, &named("phone")).as_deref(), Ok("b"));
        assert_eq!(
            chosen(&pending, &named("https://h/register/x")).as_deref(),
            Ok("x")
        );
        assert_eq!(chosen(&pending, &last).as_deref(), Ok("b"));
        let ambiguous = chosen(&pending, &named("pc")).unwrap_err();
        assert!(
            ambiguous.ends_with("`hearth pending list`: d, e"),
            "{ambiguous}"
        );
        assert!(chosen(&[], &last).is_err());
    }
}
