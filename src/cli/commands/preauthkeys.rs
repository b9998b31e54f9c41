//! `hearth preauthkeys`.

use crate::api::{CreatePreAuthKey, NameKey, NumberText, PreAuthKeyAnswer, PreAuthKeysAnswer};
use crate::cli::args::PreAuthKeys;
use crate::cli::client::{CliError, read};
use crate::cli::context::Ctx;
use crate::cli::lookup;
use crate::cli::output::{Output, cell, when, yes_no};
use crate::config::moment;
use hearth_core::clock::Timestamp;

/// Note beside a new key.
pub const SHOWN_ONCE: &str = "Save this key now: it is not shown again.";

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
                expiration: Some(moment::text(expiration)),
                acl_tags: tags,
                preauthorized: Some(preauthorized),
            };
            let answer = ctx.client.post("/api/v1/preauthkey", &key)?;
            let made: PreAuthKeyAnswer = read(&answer)?;
            let expiry = match made.pre_auth_key.expiration {
                Some(end) => format!("It expires {}.", when(Some(end))),
                None => "It never expires.".into(),
            };
            let output = ctx.field(&answer, "preAuthKey", || made.pre_auth_key.key);
            Ok(output.note(&format!("{SHOWN_ONCE} {expiry}")))
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
        let rows: Vec<[String; 10]> = keys
            .pre_auth_keys
            .iter()
            .map(|key| {
                let owner = key.user.as_ref();
                let owner = owner.map_or_else(|| "-".into(), |user| cell(&user.name));
                [
                    key.id.clone(),
                    key.key.clone(),
                    owner,
                    cell(&key.acl_tags.join(", ")),
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
            "Tags",
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
