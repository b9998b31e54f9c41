//! `hearth apikeys`.

use serde_json::json;

use super::preauthkeys::{SHOWN_ONCE, expires};
use crate::api::{ApiKeysAnswer, CreateApiKey, NameKey, NewApiKeyAnswer, NumberText};
use crate::cli::args::{ApiKeys, OneApiKey};
use crate::cli::client::{CliError, escaped, read};
use crate::cli::context::Ctx;
use crate::cli::output::{Output, cell, when};
use crate::config::moment;

/// Carries out a command about API keys.
pub fn run(ctx: &Ctx, command: ApiKeys) -> Result<Output, CliError> {
    match command {
        ApiKeys::Create { expiration, scopes } => {
            let body = CreateApiKey {
                expiration: Some(moment::text(expiration)),
                scopes: (!scopes.is_empty()).then_some(scopes),
            };
            let answer = ctx.client.post("/api/v1/apikey", &body)?;
            let made: NewApiKeyAnswer = read(&answer)?;
            let output = ctx.output(&json!(made.api_key), || made.api_key);
            Ok(output.note(SHOWN_ONCE))
        }
        ApiKeys::List => list(ctx),
        ApiKeys::Expire { which } => {
            let (id, prefix) = api_key(which);
            let name = cell(&format!("API key {id}{prefix}"));
            ctx.confirm(|| Ok(format!("expire {name}")))?;
            let body = NameKey {
                id: NumberText(id),
                prefix,
                ..NameKey::default()
            };
            let answer = ctx.client.post("/api/v1/apikey/expire", &body)?;
            Ok(ctx.output(&answer, || format!("{name} expired")))
        }
        ApiKeys::Delete { which } => {
            let (id, prefix) = api_key(which);
            let name = cell(&format!("API key {id}{prefix}"));
            ctx.confirm(|| Ok(format!("delete {name}")))?;
            let path = match id.as_str() {
                "" => format!("/api/v1/apikey/{}", escaped(&prefix)),
                id => format!("/api/v1/apikey/?id={}", escaped(id)),
            };
            let answer = ctx.client.delete(&path)?;
            Ok(ctx.output(&answer, || format!("{name} deleted")))
        }
    }
}

fn list(ctx: &Ctx) -> Result<Output, CliError> {
    let answer = ctx.client.get("/api/v1/apikey")?;
    let keys: ApiKeysAnswer = read(&answer)?;
    Ok(ctx.field(&answer, "apiKeys", || {
        let rows = keys.api_keys.iter().map(|key| {
            let scopes = match key.scopes.is_empty() {
                true => "all".into(),
                false => cell(&key.scopes.join(", ")),
            };
            [
                key.id.clone(),
                key.prefix.clone(),
                scopes,
                expires(key.expiration),
                when(key.created_at),
            ]
        });
        let rows: Vec<[String; 5]> = rows.collect();
        ctx.table(["ID", "Prefix", "Scopes", "Expires", "Created"], &rows)
    }))
}

/// ID and prefix of the key, one of them empty. Prefixes have 12 characters, IDs fewer.
fn api_key(which: OneApiKey) -> (String, String) {
    let is_id = |text: &str| text.len() < 12 && text.bytes().all(|byte| byte.is_ascii_digit());
    match which.key.or(which.prefix) {
        Some(key) if is_id(&key) => (key, String::new()),
        Some(key) => (String::new(), key),
        None => (which.id.unwrap_or_default().to_string(), String::new()),
    }
}
