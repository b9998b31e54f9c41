//! `hearth ssh`.

use super::pending::id_in;
use crate::api::{DecideSshCheck, SshChecksAnswer};
use crate::cli::args::Ssh;
use crate::cli::client::{CliError, read};
use crate::cli::context::Ctx;
use crate::cli::output::{Output, cell, when};

/// Carries out a command about SSH connections.
pub fn run(ctx: &Ctx, command: Ssh) -> Result<Output, CliError> {
    let (id, verb, done) = match command {
        Ssh::List => return list(ctx),
        Ssh::Approve { id } => (id, "approve", "approved"),
        Ssh::Reject { id } => (id, "reject", "rejected"),
    };
    let id = id_in(&id);
    let path = format!("/api/v1/hearth/ssh/{verb}");
    let answer = ctx.client.post(&path, &DecideSshCheck { id })?;
    Ok(ctx.output(&answer, || done.into()))
}

fn list(ctx: &Ctx) -> Result<Output, CliError> {
    let answer = ctx.client.get("/api/v1/hearth/ssh")?;
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
