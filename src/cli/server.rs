//! `hearth serve`, `check`, `version`, `status` and `health`.

use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::json;

use super::client::{CliError, Client, read};
use super::output::{Format, Output, cell};
use super::{print, print_fault};
use crate::api::{BoardStatus, HealthAnswer, NodeName, Status};
use crate::config::budget::show_mib;
use crate::config::value::show_duration;
use crate::config::{Config, Overrides, Surroundings, Warning};
use crate::files;
use crate::logging::{self, LogControl};
use crate::server::ServeError;
use crate::service::Sockets;
use hearth_core::policy::{MAX_BYTES, Policy};

/// Most lines of one kind about what waits.
const LINES_MAX: usize = 8;

/// How long a server may take to say that it is well. Container engines ask every few seconds and give up on
/// an answer after 30 s by default.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(10);

/// Runs the server until it is told to stop.
pub fn serve(overrides: Overrides) -> ExitCode {
    start(overrides, |config, log, load, sockets| {
        crate::server::run(config, log, load, sockets)
    })
}

/// Reads the configuration, starts the log and then the server.
pub(super) fn start(
    overrides: Overrides,
    run: impl FnOnce(Config, &LogControl, &dyn Fn() -> Config, Sockets) -> Result<(), ServeError>,
) -> ExitCode {
    let sockets = Sockets::of_this_process();
    let overrides = sockets.override_flags(overrides);
    let load = || Config::load(overrides.clone(), &Surroundings::of_this_process());
    let config = load();
    let log = match logging::start(config.log_level) {
        Ok(log) => log,
        Err(fault) => {
            print_fault(&fault.to_string(), None);
            return ExitCode::FAILURE;
        }
    };
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    match run(config, &log, &load, sockets) {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            tracing::error!("{fault}");
            ExitCode::FAILURE
        }
    }
}

/// Names all that is wrong with the configuration, and with the policy file that it names.
pub fn check(overrides: Overrides, format: Option<Format>) -> ExitCode {
    let config = Config::load(overrides, &Surroundings::of_this_process());
    let mut warnings: Vec<String> = config.warnings.iter().map(ToString::to_string).collect();
    let policy = config.policy.file.as_deref().map(faults_of_policy);
    let policy = policy.unwrap_or_default();
    let is_faulty = !policy.is_empty() || config.warnings.iter().any(Warning::is_of_configuration);
    warnings.extend(policy);
    let file = config.file.as_ref().map(|path| path.display().to_string());
    let board = &config.board;
    let json = json!({ "file": file, "warnings": warnings, "board": board.name() });
    let output = Output::of(format, &json, || {
        if !warnings.is_empty() {
            return warnings.join("\n");
        }
        match &file {
            Some(file) => format!("{file}: no faults (board: {})", board.name()),
            None => format!(
                "no configuration file: the defaults for {} apply",
                board.name()
            ),
        }
    });
    print(&output);
    if is_faulty {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

/// What is wrong with the text of a policy. Whether it fits the tailnet only a running server knows.
fn faults_of_policy(path: &Path) -> Vec<String> {
    let file = path.display();
    let text = files::read(path, MAX_BYTES).and_then(|bytes| {
        String::from_utf8(bytes).map_err(|_| io::Error::other("not text in UTF-8"))
    });
    match text.map(|text| Policy::parse(&text)) {
        Ok(Ok(_)) => Vec::new(),
        Ok(Err(faults)) => faults
            .iter()
            .map(|fault| format!("{file}:{}:{}: {}", fault.line, fault.column, fault.message))
            .collect(),
        Err(fault) => vec![format!("{file}: {fault}")],
    }
}

/// What this program was built without: names of Cargo features.
const LEFT_OUT: &[&str] = &[
    #[cfg(not(feature = "https-client"))]
    "https-client",
    #[cfg(not(feature = "policy-tools"))]
    "policy-tools",
    #[cfg(not(feature = "portmap"))]
    "portmap",
    #[cfg(not(feature = "standalone-relay"))]
    "standalone-relay",
];

/// The version of this program, and what it was built without.
pub fn program() -> &'static str {
    static TEXT: OnceLock<String> = OnceLock::new();
    TEXT.get_or_init(|| {
        let version = env!("CARGO_PKG_VERSION");
        match LEFT_OUT {
            [] => version.to_owned(),
            parts => format!("{version} (built without {})", parts.join(", ")),
        }
    })
}

/// The version of this program.
pub fn version(format: Option<Format>) -> Output {
    let version = env!("CARGO_PKG_VERSION");
    let json = json!({ "version": version, "leftOut": LEFT_OUT });
    Output::of(format, &json, || format!("hearth {}", program()))
}

/// How the server is.
pub fn status(client: &Client, format: Option<Format>) -> Result<Output, CliError> {
    let answer = client.get("/api/v1/hearth/status")?;
    let status: Status = read(&answer)?;
    Ok(Output::of(format, &answer, || card(&status)))
}

fn card(status: &Status) -> String {
    let uptime = Duration::from_secs(status.uptime_seconds);
    let policy = match status.policy_version.as_str() {
        "" => "none: everyone may reach everyone".to_owned(),
        version => format!("version {version}"),
    };
    let lines = [
        ("Version", status.version.clone()),
        ("Server URL", status.server_url.clone()),
        ("Base domain", status.base_domain.clone()),
        ("Board", board(&status.board)),
        ("Running for", show_duration(uptime)),
        (
            "Database",
            if status.database_is_writable {
                "ok"
            } else {
                "takes no changes: see the log"
            }
            .into(),
        ),
        (
            "Clock",
            if status.clock_is_plausible {
                "ok"
            } else {
                "not set: nothing expires until it is"
            }
            .into(),
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
    let mut text: Vec<String> = lines
        .iter()
        .map(|(name, value)| format!("{name:<12} {value}"))
        .collect();
    text.extend(
        status
            .warnings
            .iter()
            .map(|warning| format!("Warning      {warning}")),
    );
    text.extend(waiting(status));
    if status.nodes == 0 {
        text.push("\nAdd the first device with `hearth invite`.".into());
    }
    text.join("\n")
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

/// What somebody has to decide, and how.
fn waiting(status: &Status) -> Vec<String> {
    let mut lines = Vec::new();
    if status.pending > 0 {
        let count = status.pending;
        lines.push(format!(
            "Waiting      {count} login(s): `hearth pending list` shows them"
        ));
    }
    lines.extend(each(&status.unauthorized, |id, name| {
        format!("{name} may not take part yet: `hearth nodes approve {id}` lets it")
    }));
    lines.extend(each(&status.waiting_routes, |id, name| {
        format!("routes of {name}: `hearth nodes list-routes -i {id}` shows them")
    }));
    lines
}

/// A line for each of the first nodes, and one for the rest.
fn each(nodes: &[NodeName], line: impl Fn(&str, String) -> String) -> Vec<String> {
    let shown = nodes.iter().take(LINES_MAX);
    let mut lines: Vec<String> = shown
        .map(|node| format!("Waiting      {}", line(&node.id, cell(&node.given_name))))
        .collect();
    let more = nodes.len().saturating_sub(LINES_MAX);
    if more > 0 {
        lines.push(format!("Waiting      and {more} more like it"));
    }
    lines
}

/// Whether the server is well; fails when it is not, or does not answer soon.
pub fn health(client: &Client, format: Option<Format>) -> Result<Output, CliError> {
    let answer = client.get_within("/api/v1/health", HEALTH_TIMEOUT)?;
    let health: HealthAnswer = read(&answer)?;
    if !health.database_connectivity {
        return Err(CliError::Refused(
            "the database takes no changes: see the log of hearth".into(),
        ));
    }
    Ok(Output::of(format, &answer, || "ok".into()))
}
