//! `hearth status`.

use std::time::Duration;

use crate::api::{BoardStatus, NodeName, Status};
use crate::cli::client::{CliError, read};
use crate::cli::context::Ctx;
use crate::cli::output::{Output, card, cell};
use crate::config::budget::show_mib;
use crate::config::value::show_duration;

/// Most lines about one kind of decision that is due.
const LINES_MAX: usize = 8;

/// Shows the server's status.
pub fn run(ctx: &Ctx) -> Result<Output, CliError> {
    let answer = ctx.client.get("/api/v1/hearth/status")?;
    let status: Status = read(&answer)?;
    Ok(ctx.output(&answer, || text(&status)))
}

fn text(status: &Status) -> String {
    let uptime = Duration::from_secs(status.uptime_seconds);
    let policy = match status.policy_version.as_str() {
        _ if status.policy_is_closed => "none is valid; no device can reach another".to_owned(),
        "" => "none; every device can reach every other".to_owned(),
        version => format!("version {version}"),
    };
    let one_of = |is_ok, bad: &str| if is_ok { "ok" } else { bad }.to_owned();
    let mut lines = vec![
        ("Version", status.version.clone()),
        ("Server URL", status.server_url.clone()),
        ("Base domain", status.base_domain.clone()),
        ("Board", board(&status.board)),
        ("Uptime", show_duration(uptime)),
        ("Database", database(status)),
        (
            "Clock",
            one_of(
                status.clock_is_plausible,
                "not set; nothing expires until it is",
            ),
        ),
        ("Users", status.users.to_string()),
        (
            "Nodes",
            format!(
                "{} ({} online, {} expired)",
                status.nodes, status.online, status.expired
            ),
        ),
        ("Policy", policy),
    ];
    let last = status.last_backup.as_deref().unwrap_or("none");
    lines.push(("Last backup", cell(last)));
    let warnings = status.warnings.iter();
    lines.extend(warnings.map(|warning| ("Warning", cell(warning))));
    lines.extend(waiting(status).into_iter().map(|line| ("Waiting", line)));
    let mut text = card(&lines);
    if status.nodes == 0 {
        text.push_str("\n\nAdd the first device with `hearth invite`.");
    }
    text
}

fn database(status: &Status) -> String {
    match &status.database_fault {
        Some(fault) => format!(
            "read-only since {}: {}; changes are rejected. {}",
            fault.since, fault.reason, fault.advice
        ),
        None if status.database_is_writable => "ok".to_owned(),
        None => "read-only; see the log".to_owned(),
    }
}

fn board(board: &BoardStatus) -> String {
    let budget = board
        .memory_budget
        .and_then(|bytes| usize::try_from(bytes).ok());
    match budget {
        Some(budget) => format!(
            "{} ({}): up to {} of memory",
            board.name,
            board.source,
            show_mib(budget)
        ),
        None => board.name.clone(),
    }
}

/// Decisions that are due, each with the command for it.
fn waiting(status: &Status) -> Vec<String> {
    let mut lines = Vec::new();
    match status.pending {
        0 => {}
        1 => lines.push("1 device wants to join: see `hearth pending list`".to_owned()),
        count => lines.push(format!(
            "{count} devices want to join: see `hearth pending list`"
        )),
    }
    match status.waiting_ssh {
        0 => {}
        1 => lines.push("1 SSH connection wants approval: see `hearth ssh list`".to_owned()),
        count => lines.push(format!(
            "{count} SSH connections want approval: see `hearth ssh list`"
        )),
    }
    lines.extend(each(&status.unauthorized, |id, name| {
        format!("{name} needs approval: `hearth nodes approve {id}`")
    }));
    lines.extend(each(&status.waiting_routes, |id, name| {
        format!("routes of {name} need approval: `hearth nodes list-routes -i {id}`")
    }));
    lines.extend(each(&status.requested_tags, |id, name| {
        format!("{name} requests other tags, which take a new login: `hearth nodes show {id}`")
    }));
    lines
}

/// A line for each of the first nodes, and one for the rest.
fn each(nodes: &[NodeName], line: impl Fn(&str, String) -> String) -> Vec<String> {
    let shown = nodes.iter().take(LINES_MAX);
    let mut lines: Vec<String> = shown
        .map(|node| line(&node.id, cell(&node.given_name)))
        .collect();
    let more = nodes.len().saturating_sub(LINES_MAX);
    if more > 0 {
        lines.push(format!("and {more} more"));
    }
    lines
}
