//! `hearth users`.

use serde_json::Value;

use crate::api::{CreateUser, MISSING_USERS, SetRole, SetUserExpiry, UserAnswer, UsersAnswer};
use crate::cli::args::Users;
use crate::cli::client::{CliError, escaped, read};
use crate::cli::context::Ctx;
use crate::cli::lookup;
use crate::cli::output::{Output, cell, when};

/// Carries out a command about users.
pub fn run(ctx: &Ctx, command: Users) -> Result<Output, CliError> {
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
            one(ctx, &ctx.client.post("/api/v1/user", &user)?, "created")
        }
        Users::List {
            identifier,
            name,
            email,
        } => list(ctx, identifier, name, email),
        Users::Rename { who, new, new_name } => {
            let new_name = new.or(new_name).unwrap_or_default();
            let user = lookup::user(&ctx.client, &who.text())?;
            let path = format!(
                "/api/v1/user/{}/rename/{}",
                escaped(&user.id),
                escaped(&new_name)
            );
            let before = policy_warnings(ctx);
            let output = one(ctx, &ctx.client.post(&path, &())?, "renamed")?;
            Ok(with_new_warnings(ctx, output, &before))
        }
        Users::SetRole { user, role } => {
            let user = lookup::user(&ctx.client, &user)?;
            let path = format!("/api/v1/user/{}/role", escaped(&user.id));
            let done = format!("now has the role {role}");
            one(ctx, &ctx.client.post(&path, &SetRole { role })?, &done)
        }
        Users::SetExpiry { user, expiry } => {
            let user = lookup::user(&ctx.client, &user)?;
            let path = format!("/api/v1/user/{}/expiry", escaped(&user.id));
            let done = match expiry.as_str() {
                "never" => "gets node keys that never expire, from the next login on".into(),
                "default" => {
                    "gets the key expiry of the configuration, from the next login on".into()
                }
                life => {
                    format!("gets node keys that expire {life} after each login")
                }
            };
            let body = SetUserExpiry { expiry };
            one(ctx, &ctx.client.post(&path, &body)?, &done)
        }
        Users::Delete { who } => {
            let user = lookup::user(&ctx.client, &who.text())?;
            let name = format!("user {} ({})", cell(&user.name), user.id);
            ctx.confirm(|| Ok(format!("delete {name}")))?;
            let path = format!("/api/v1/user/{}", escaped(&user.id));
            let before = policy_warnings(ctx);
            let answer = ctx.client.delete(&path)?;
            let output = ctx.output(&answer, || format!("{name} deleted"));
            Ok(with_new_warnings(ctx, output, &before))
        }
    }
}

/// The warnings of the server about users in the policy; none when it cannot be asked, because an API key may be for users
/// alone.
fn policy_warnings(ctx: &Ctx) -> Vec<String> {
    let warnings = lookup::status(&ctx.client).map(|status| status.warnings);
    let mut warnings = warnings.unwrap_or_default();
    warnings.retain(|warning| warning.starts_with(MISSING_USERS));
    warnings
}

/// The output, with what the change of a user means for the policy.
fn with_new_warnings(ctx: &Ctx, output: Output, before: &[String]) -> Output {
    let mut new = policy_warnings(ctx);
    new.retain(|warning| !before.contains(warning));
    match new.first() {
        Some(warning) => output.note(&format!("Warning: {}", cell(warning))),
        None => output,
    }
}

fn one(ctx: &Ctx, answer: &Value, done: &str) -> Result<Output, CliError> {
    let UserAnswer { user } = read(answer)?;
    Ok(ctx.field(answer, "user", || {
        format!("user {} ({}) {done}", cell(&user.name), user.id)
    }))
}

fn list(
    ctx: &Ctx,
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
    let answer = ctx.client.get(&path)?;
    let UsersAnswer { users } = read(&answer)?;
    Ok(ctx.field(&answer, "users", || {
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
        ctx.table(
            [
                "ID",
                "Name",
                "Display name",
                "Email",
                "Role",
                "Key expiry",
                "Created",
            ],
            &rows,
        )
    }))
}
