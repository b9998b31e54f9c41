//! `hearth ssh`.

use super::pending::id_in;
use crate::api::{DecideSshCheck, SshCheck, SshChecksAnswer};
use crate::cli::args::{OneSsh, Ssh};
use crate::cli::client::{CliError, read};
use crate::cli::context::Ctx;
use crate::cli::output::{Output, cell, when};

const PATH: &str = "/api/v1/hearth/ssh";
/// State of a connection that nobody has decided about.
const WAITING: &str = "waiting";
/// Least characters of an ID that stand for the whole one; the log shows eight.
const SHORT_MIN: usize = 4;

/// Carries out a command about SSH connections.
pub fn run(ctx: &Ctx, command: Ssh) -> Result<Output, CliError> {
    let (which, verb, done) = match command {
        Ssh::List => return list(ctx),
        Ssh::Approve { which } => (which, "approve", "approved"),
        Ssh::Reject { which } => (which, "reject", "rejected"),
    };
    let SshChecksAnswer { checks } = read(&ctx.client.get(PATH)?)?;
    let id = chosen(&checks, &which).map_err(CliError::Command)?;
    let about = checks.iter().find(|check| check.id == id).map(|check| {
        let (user, from, to) = (
            cell(&check.local_user),
            cell(&check.source),
            cell(&check.target),
        );
        format!("connection of {from} to {user}@{to} ")
    });
    let path = format!("{PATH}/{verb}");
    let answer = ctx.client.post(&path, &DecideSshCheck { id })?;
    Ok(ctx.output(&answer, || about.unwrap_or_default() + done))
}

/// The ID of the connection that a person means: by the name of one of its two devices, by an ID or the beginning of one, or
/// as the newest.
fn chosen(checks: &[SshCheck], which: &OneSsh) -> Result<String, String> {
    let waiting = || checks.iter().filter(|check| check.state == WAITING);
    let Some(text) = &which.connection else {
        let last = waiting().max_by_key(|check| check.created_at);
        let id = last.map(|check| check.id.clone());
        return id.ok_or_else(|| {
            "no SSH connection waits for approval; connect again, then see `hearth ssh list`".into()
        });
    };
    let id = id_in(text.trim_end_matches('…'));
    let is_meant = |check: &&SshCheck| {
        let names = [&check.source, &check.target];
        names.iter().any(|name| name.eq_ignore_ascii_case(text))
            || check.id == id
            || (id.len() >= SHORT_MIN && check.id.starts_with(&id))
    };
    let named: Vec<&SshCheck> = waiting().filter(is_meant).collect();
    match named.as_slice() {
        // The server knows whether it is an ID, and what is wrong with it.
        [] => Ok(id),
        [one] => Ok(one.id.clone()),
        several => {
            let ids: Vec<&str> = several.iter().map(|check| &*check.id).collect();
            Err(format!(
                "{} SSH connections that wait fit `{}`; use an ID from `hearth ssh list`: {}",
                ids.len(),
                cell(text),
                ids.join(", ")
            ))
        }
    }
}

fn list(ctx: &Ctx) -> Result<Output, CliError> {
    let answer = ctx.client.get(PATH)?;
    let SshChecksAnswer { checks } = read(&answer)?;
    Ok(ctx.field(&answer, "checks", || {
        let rows = checks.iter().map(|check| {
            [
                check.id.clone(),
                cell(&check.source),
                cell(&check.target),
                cell(&check.local_user),
                when(Some(check.created_at)),
                check.state.clone(),
            ]
        });
        let rows: Vec<[String; 6]> = rows.collect();
        ctx.table(["ID", "From", "To", "As user", "Requested", "State"], &rows)
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(id: &str, source: &str, state: &str, second: u32) -> SshCheck {
        let json = serde_json::json!({
            "id": id, "state": state, "source": source, "target": "nas", "localUser": "root",
            "createdAt": format!("2026-01-01T00:00:0{second}Z"),
        });
        read(&json).unwrap()
    }

    #[test]
    fn a_connection_is_named_by_device_short_id_or_as_the_last_one() {
        let checks = [
            check("abcdef", "laptop", "waiting", 1),
            check("abcxyz", "phone", "waiting", 3),
            check("zzzzzz", "phone", "approved", 4),
        ];
        let named = |text: &str| OneSsh {
            connection: Some(text.into()),
            last: false,
        };
        let last = OneSsh {
            connection: None,
            last: true,
        };
        for (text, id) in [
            ("laptop", "abcdef"),
            ("Phone", "abcxyz"),
            ("abcd", "abcdef"),
            ("abcd…", "abcdef"),
            ("http://h/ssh/abcxyz", "abcxyz"),
            ("abc", "abc"),
            ("unknown", "unknown"),
        ] {
            assert_eq!(chosen(&checks, &named(text)).unwrap(), id, "{text}");
        }
        assert_eq!(chosen(&checks, &last).unwrap(), "abcxyz");
        let several = chosen(&checks, &named("nas")).unwrap_err();
        assert!(several.ends_with("`hearth ssh list`: abcdef, abcxyz"));
        assert!(chosen(&[], &last).unwrap_err().contains("hearth ssh list"));
    }
}
