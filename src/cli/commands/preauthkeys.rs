//! `hearth preauthkeys`.

use crate::api::{CreatePreAuthKey, NameKey, NumberText, PreAuthKeyAnswer, PreAuthKeysAnswer};
use crate::cli::args::{PreAuthKeys, end_of};
use crate::cli::client::{CliError, read};
use crate::cli::context::Ctx;
use crate::cli::lookup;
use crate::cli::output::{Output, cell, when, yes_no};
use hearth_core::clock::Timestamp;

/// Note beside a new key.
pub const SHOWN_ONCE: &str = "Save this key now: it is not shown again.";

/// Expiry of a key without one, in a request: the latest time that RFC 3339 can express. A request without
/// an expiry gets a default.
pub const NEVER: Timestamp = Timestamp::from_unix_ms(253_402_300_799_000);

/// Carries out a command about preauth keys.
pub fn run(ctx: &Ctx, command: PreAuthKeys) -> Result<Output, CliError> {
    match command {
        PreAuthKeys::Create {
            user,
            reusable,
            ephemeral,
            expiration,
            tags,
            preauthorized,
        } => {
            let user = match user {
                Some(user) => NumberText(lookup::user(&ctx.client, &user)?.id),
                None => NumberText::default(),
            };
            let key = CreatePreAuthKey {
                user,
                reusable,
                ephemeral,
                expiration: end_of(expiration).or(Some(NEVER)),
                acl_tags: tags,
                preauthorized: Some(preauthorized),
            };
            let answer = ctx.client.post("/api/v1/preauthkey", &key)?;
            let made: PreAuthKeyAnswer = read(&answer)?;
            let output = ctx.field(&answer, "preAuthKey", || made.pre_auth_key.key);
            Ok(output.note(SHOWN_ONCE))
        }
        PreAuthKeys::List => list(ctx),
        PreAuthKeys::Expire { which } => {
            let id = which.id();
            ctx.confirm(|| Ok(format!("expire preauth key {id}")))?;
            let body = NameKey {
                id: NumberText(id.clone()),
                ..NameKey::default()
            };
            let answer = ctx.client.post("/api/v1/preauthkey/expire", &body)?;
            Ok(ctx.output(&answer, || format!("preauth key {id} expired")))
        }
        PreAuthKeys::Delete { which } => {
            let id = which.id();
            ctx.confirm(|| Ok(format!("delete preauth key {id}")))?;
            let answer = ctx.client.delete(&format!("/api/v1/preauthkey?id={id}"))?;
            Ok(ctx.output(&answer, || format!("preauth key {id} deleted")))
        }
    }
}

fn list(ctx: &Ctx) -> Result<Output, CliError> {
    let answer = ctx.client.get("/api/v1/preauthkey")?;
    let keys: PreAuthKeysAnswer = read(&answer)?;
    Ok(ctx.field(&answer, "preAuthKeys", || {
        let rows: Vec<[String; 9]> = keys
            .pre_auth_keys
            .iter()
            .map(|key| {
                let owner = match &key.user {
                    Some(user) => cell(&user.name),
                    None => cell(&key.acl_tags.join(",")),
                };
                [
                    key.id.clone(),
                    key.key.clone(),
                    owner,
                    yes_no(key.reusable),
                    yes_no(key.ephemeral),
                    yes_no(key.preauthorized),
                    yes_no(key.used),
                    expires(key.expiration),
                    when(key.created_at),
                ]
            })
            .collect();
        let head = [
            "ID",
            "Key",
            "Owner",
            "Reusable",
            "Ephemeral",
            "Preauthorized",
            "Used",
            "Expires",
            "Created",
        ];
        ctx.table(head, &rows)
    }))
}

/// When a key expires.
pub fn expires(time: Option<Timestamp>) -> String {
    time.map_or_else(|| "never".into(), |time| when(Some(time)))
}
