//! `hearth preauthkeys`, `hearth apikeys` and `hearth invite`.

use serde_json::json;

use super::args::{ApiKeys, OneApiKey, OnePreAuthKey, PreAuthKeys, end_of};
use super::client::{CliError, Client, escaped, read};
use super::output::{Format, Output, cell, table};
use super::users::{self, inner, when};
use crate::api::{
    ApiKeysAnswer, CreateApiKey, CreateInvite, CreatePreAuthKey, Invite, NameKey, NewApiKeyAnswer,
    NumberText, PreAuthKeyAnswer, PreAuthKeysAnswer,
};
use crate::qr;
use hearth_core::clock::Timestamp;

const SHOWN_ONCE: &str = "This key is shown this once: hearth keeps only its hash.";

/// Carries out a command about preauth keys.
pub fn run_preauth(
    command: PreAuthKeys,
    client: &Client,
    format: Option<Format>,
) -> Result<Output, CliError> {
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
                Some(user) => NumberText(users::find(client, &user)?.id),
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
            let answer = client.post("/api/v1/preauthkey", &key)?;
            let made: PreAuthKeyAnswer = read(&answer)?;
            let json = inner(&answer, "preAuthKey");
            Ok(Output::of(format, &json, || made.pre_auth_key.key).note(format, SHOWN_ONCE))
        }
        PreAuthKeys::List => list_preauth(client, format),
        PreAuthKeys::Expire { which } => {
            let body = NameKey {
                id: NumberText(preauth_id(&which)),
                ..NameKey::default()
            };
            let answer = client.post("/api/v1/preauthkey/expire", &body)?;
            Ok(Output::of(format, &answer, || "key expired".into()))
        }
        PreAuthKeys::Delete { which } => {
            let path = format!("/api/v1/preauthkey?id={}", preauth_id(&which));
            let answer = client.delete(&path)?;
            Ok(Output::of(format, &answer, || "key deleted".into()))
        }
    }
}

/// In a request for a key: it has no end. Without an end a default applies.
/// The greatest time that RFC 3339 can write.
pub const NEVER: Timestamp = Timestamp::from_unix_ms(253_402_300_799_000);

fn preauth_id(which: &OnePreAuthKey) -> String {
    which.key.or(which.id).unwrap_or_default().to_string()
}

fn list_preauth(client: &Client, format: Option<Format>) -> Result<Output, CliError> {
    let answer = client.get("/api/v1/preauthkey")?;
    let keys: PreAuthKeysAnswer = read(&answer)?;
    Ok(Output::of(format, &inner(&answer, "preAuthKeys"), || {
        let yes_no = |value| if value { "yes" } else { "no" }.to_owned();
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
        table(head, &rows)
    }))
}

fn expires(time: Option<Timestamp>) -> String {
    time.map_or_else(|| "never".into(), |time| when(Some(time)))
}

/// Carries out a command about API keys.
pub fn run_api(
    command: ApiKeys,
    client: &Client,
    format: Option<Format>,
) -> Result<Output, CliError> {
    match command {
        ApiKeys::Create { expiration } => {
            let body = CreateApiKey {
                expiration: end_of(expiration).or(Some(NEVER)),
            };
            let answer = client.post("/api/v1/apikey", &body)?;
            let made: NewApiKeyAnswer = read(&answer)?;
            let json = json!(made.api_key);
            Ok(Output::of(format, &json, || made.api_key).note(format, SHOWN_ONCE))
        }
        ApiKeys::List => {
            let answer = client.get("/api/v1/apikey")?;
            let keys: ApiKeysAnswer = read(&answer)?;
            Ok(Output::of(format, &inner(&answer, "apiKeys"), || {
                let rows: Vec<[String; 4]> = keys
                    .api_keys
                    .iter()
                    .map(|key| {
                        [
                            key.id.clone(),
                            key.prefix.clone(),
                            expires(key.expiration),
                            when(key.created_at),
                        ]
                    })
                    .collect();
                table(["ID", "Prefix", "Expires", "Created"], &rows)
            }))
        }
        ApiKeys::Expire { which } => {
            let (id, prefix) = api_key(which);
            let body = NameKey {
                id: NumberText(id),
                prefix,
            };
            let answer = client.post("/api/v1/apikey/expire", &body)?;
            Ok(Output::of(format, &answer, || "key expired".into()))
        }
        ApiKeys::Delete { which } => {
            let (id, prefix) = api_key(which);
            let path = match id.as_str() {
                "" => format!("/api/v1/apikey/{}", escaped(&prefix)),
                id => format!("/api/v1/apikey/?id={}", escaped(id)),
            };
            let answer = client.delete(&path)?;
            Ok(Output::of(format, &answer, || "key deleted".into()))
        }
    }
}

/// Id and prefix of the key, one of them empty. Prefixes have 12 characters, ids fewer.
fn api_key(which: OneApiKey) -> (String, String) {
    let is_id = |text: &str| text.len() < 12 && text.bytes().all(|byte| byte.is_ascii_digit());
    match which.key.or(which.prefix) {
        Some(key) if is_id(&key) => (key, String::new()),
        Some(key) => (String::new(), key),
        None => (which.id.unwrap_or_default().to_string(), String::new()),
    }
}

/// Makes a single-use key: the line for the device is the result; the QR code is for the person.
pub fn invite(
    client: &Client,
    format: Option<Format>,
    user: Option<String>,
    expiration: Option<Timestamp>,
) -> Result<Output, CliError> {
    let body = CreateInvite {
        user: user.unwrap_or_default(),
        expiration: expiration.or(Some(NEVER)),
    };
    let answer = client.post("/api/v1/hearth/invite", &body)?;
    let invite: Invite = read(&answer)?;
    let code = qr::for_terminal(&invite.join_url).unwrap_or_default();
    let note = format!(
        "\nThe line above lets one device join as {}, until {}.\n\
         On a phone, scan this; it opens {}\n\n{code}",
        cell(&invite.user.name),
        expires(invite.expiration),
        invite.join_url,
    );
    Ok(Output::of(format, &answer, || invite.command).note(format, &note))
}
