//! `hearth pending` and `hearth auth`.

use super::client::{CliError, Client, read};
use super::output::{Format, Output, cell, table};
use super::users::{self, inner, when};
use crate::api::{DecideLogin, NodeAnswer, PendingAnswer};

/// Lists devices that wait.
pub fn list(client: &Client, format: Option<Format>) -> Result<Output, CliError> {
    let answer = client.get("/api/v1/hearth/pending")?;
    let PendingAnswer { pending } = read(&answer)?;
    Ok(Output::of(format, &inner(&answer, "pending"), || {
        let rows: Vec<[String; 5]> = pending
            .iter()
            .map(|login| {
                [
                    login.auth_id.clone(),
                    cell(&login.name),
                    cell(&login.os),
                    when(Some(login.created_at)),
                    login.state.clone(),
                ]
            })
            .collect();
        table(["ID", "Device", "System", "Since", "State"], &rows)
    }))
}

/// Lets a device in.
pub fn approve(
    client: &Client,
    format: Option<Format>,
    id: &str,
    user: Option<&str>,
) -> Result<Output, CliError> {
    let owner = match user {
        Some(user) => users::find(client, user)?,
        None => users::only(client)?,
    };
    let body = DecideLogin {
        user: owner.name,
        auth_id: id_in(id),
    };
    let answer = client.post("/api/v1/auth/register", &body)?;
    let NodeAnswer { node } = read(&answer)?;
    Ok(Output::of(format, &inner(&answer, "node"), || {
        format!(
            "{} joins as node {} of {}, at {}",
            cell(&node.given_name),
            node.id,
            cell(&body.user),
            node.ip_addresses.join(" and "),
        )
    }))
}

/// Turns a device away.
pub fn reject(client: &Client, format: Option<Format>, id: &str) -> Result<Output, CliError> {
    let body = DecideLogin {
        user: String::new(),
        auth_id: id_in(id),
    };
    let answer = client.post("/api/v1/auth/reject", &body)?;
    Ok(Output::of(format, &answer, || "turned away".into()))
}

/// The id itself, also when somebody gives the whole URL.
pub(super) fn id_in(text: &str) -> String {
    let text = text.trim_end_matches('/');
    text.rsplit('/').next().unwrap_or(text).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_url_is_as_good_as_the_id() {
        assert_eq!(id_in("http://10.0.0.1:8080/register/aB-_"), "aB-_");
        assert_eq!(id_in("aB-_"), "aB-_");
    }
}
