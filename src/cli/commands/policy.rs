//! `hearth policy`.

use std::io::{self, Read as _};
use std::path::Path;

use serde_json::{Value, json};

#[cfg(feature = "policy-tools")]
use crate::api::UsersAnswer;
use crate::api::{
    CheckedPolicy, NumberText, PolicyAnswer, PolicyVersions, RollBackPolicy, SetPolicy, WhyAnswer,
    WhyPair,
};
use crate::cli::args::PolicyCommand;
use crate::cli::client::{CliError, escaped, read};
use crate::cli::context::Ctx;
use crate::cli::output::{Output, cell, when};
use crate::files;
#[cfg(feature = "policy-tools")]
use hearth_core::policy::user_selector;
use hearth_core::policy::{Diagnostic, MAX_BYTES, Policy};

const PATH: &str = "/api/v1/policy";
const CHECK: &str = "/api/v1/policy/check";
const HISTORY: &str = "/api/v1/hearth/policy/history";
const ROLLBACK: &str = "/api/v1/hearth/policy/rollback";
const WHY: &str = "/api/v1/hearth/policy/why";

/// Most characters of a line that are shown.
const EXCERPT: usize = 120;

/// Protocols that have ports.
const WITH_PORTS: [&str; 6] = ["tcp", "udp", "sctp", "6", "17", "132"];

/// Carries out a command about the policy.
pub fn run(ctx: &Ctx, command: PolicyCommand) -> Result<Output, CliError> {
    match command {
        PolicyCommand::Get { version } => get(ctx, version),
        PolicyCommand::Set { file } => set(ctx, &file.path()),
        PolicyCommand::Check { file } => check(ctx, &file.path()),
        PolicyCommand::History => history(ctx),
        PolicyCommand::Rollback { version } => {
            ctx.confirm(|| {
                let which =
                    version.map_or("the version before it".into(), |id| format!("version {id}"));
                Ok(format!("replace the policy with {which} at once"))
            })?;
            let version = NumberText(version.map(|id| id.to_string()).unwrap_or_default());
            let answer = ctx.client.post(ROLLBACK, &RollBackPolicy { version })?;
            in_effect(ctx, &answer)
        }
        PolicyCommand::Why { src, dst, proto } => why(ctx, &src, &dst, &proto),
        #[cfg(feature = "policy-tools")]
        PolicyCommand::Template { name } => template(ctx, &name),
        // It has no single result; `cli::run` has carried it out before.
        #[cfg(feature = "policy-tools")]
        PolicyCommand::Eval => Ok(Output::default()),
    }
}

/// What `policy get` says without a policy.
const NO_POLICY: &str = "no policy is set: every device can reach every other; set one with `hearth policy set FILE`, and see `hearth help policy`";

fn get(ctx: &Ctx, version: Option<u64>) -> Result<Output, CliError> {
    let answer = match version {
        Some(version) => ctx.client.get(&format!("{HISTORY}/{version}"))?,
        None => ctx.client.get(PATH).map_err(|fault| match fault {
            // Headscale's words, which programs compare.
            CliError::Refused(message) if message.contains("acl policy not found") => {
                CliError::Command(NO_POLICY.into())
            }
            fault => fault,
        })?,
    };
    let policy: PolicyAnswer = read(&answer)?;
    let output = ctx.output(&answer, || policy.policy.trim_end().into());
    Ok(match policy.trouble.is_empty() {
        true => output,
        false => output.note(&format!("Warning: {}", policy.trouble)),
    })
}

fn set(ctx: &Ctx, path: &Path) -> Result<Output, CliError> {
    let text = text_of(path)?;
    let policy = text.clone();
    let answer = ctx.client.put(PATH, &SetPolicy { policy });
    let answer = answer.map_err(|fault| with_lines(fault, path, &text))?;
    let PolicyAnswer { warnings, .. } = read(&answer)?;
    Ok(in_effect(ctx, &answer)?.note(&warned(&warnings, path, &text)))
}

fn in_effect(ctx: &Ctx, answer: &Value) -> Result<Output, CliError> {
    let policy: PolicyAnswer = read(answer)?;
    Ok(ctx.output(answer, || {
        format!("version {} of the policy is in effect", policy.version)
    }))
}

/// A template, with the users of the server if one is running here.
#[cfg(feature = "policy-tools")]
fn template(ctx: &Ctx, name: &str) -> Result<Output, CliError> {
    let users = ctx.client.get("/api/v1/user");
    let users = users.and_then(|answer| read::<UsersAnswer>(&answer));
    let users = users.map(|answer| answer.users).unwrap_or_default();
    let with_role = |is_member: bool| -> Vec<String> {
        let users = users.iter();
        let users = users.filter(|user| (user.role == "member") == is_member);
        users.map(|user| user_selector(&user.name)).collect()
    };
    let text = hearth_core::policy::template(name, &with_role(false), &with_role(true));
    let text = text.unwrap_or_default();
    Ok(ctx.output(&json!({ "policy": text }), || text.trim_end().into()))
}

/// Warnings with the file and the line of its text; empty for none.
fn warned(warnings: &[String], path: &Path, text: &str) -> String {
    let warnings: Vec<String> = warnings
        .iter()
        .map(|line| format!("Warning: {line}"))
        .collect();
    located(&warnings.join("\n"), path, text).join("\n")
}

fn check(ctx: &Ctx, path: &Path) -> Result<Output, CliError> {
    let policy = text_of(path)?;
    let request = SetPolicy {
        policy: policy.clone(),
    };
    let valid = |what: &str, is_whole: bool| {
        let json = json!({ "valid": true, "complete": is_whole });
        ctx.output(&json, || format!("{}: {what}", path.display()))
    };
    match ctx.client.post(CHECK, &request) {
        Ok(answer) => {
            let CheckedPolicy { warnings } = read(&answer)?;
            let note = warned(&warnings, path, &policy);
            Ok(valid("the policy is valid", true).note(&note))
        }
        Err(CliError::NotRunning { .. }) => {
            let lines = |faults: &[Diagnostic]| -> Vec<String> {
                faults.iter().map(Diagnostic::to_string).collect()
            };
            let read = Policy::parse(&policy).map_err(|faults| {
                let fault = CliError::Refused(lines(&faults).join("\n"));
                with_lines(fault, path, &policy)
            })?;
            let mut notes = warned(&lines(read.notes()), path, &policy);
            if !notes.is_empty() {
                notes.push('\n');
            }
            notes.push_str("No hearth server is running here: only the syntax was checked, not names or tests.");
            Ok(valid("the syntax is valid", false).note(&notes))
        }
        Err(fault) => Err(with_lines(fault, path, &policy)),
    }
}

/// Reads a policy; `-` is standard input.
fn text_of(path: &Path) -> Result<String, CliError> {
    let fault = |what: String| CliError::Command(format!("{}: {what}", path.display()));
    let bytes = if path == Path::new("-") {
        let most = u64::try_from(MAX_BYTES).unwrap_or(u64::MAX);
        let mut bytes = Vec::new();
        let read = io::stdin().lock().take(most.saturating_add(1));
        { read }.read_to_end(&mut bytes).map(|_| bytes)
    } else {
        files::read(path, MAX_BYTES)
    };
    let bytes = bytes.map_err(|error| fault(error.to_string()))?;
    String::from_utf8(bytes).map_err(|_| fault("not UTF-8 text".into()))
}

/// A refusal with the file and the line of its text instead of line numbers alone.
fn with_lines(fault: CliError, path: &Path, text: &str) -> CliError {
    let CliError::Refused(message) = fault else {
        return fault;
    };
    let lines = located(&message, path, text);
    match lines.as_slice() {
        [one] => CliError::Refused(one.clone()),
        many => CliError::Refused(format!("the policy was refused\n{}", many.join("\n"))),
    }
}

/// The lines of a message, each that names a place with the file and what is written there. Takes time proportional to
/// the lengths of both texts.
fn located(message: &str, path: &Path, text: &str) -> Vec<String> {
    let file = path.display();
    let written: Vec<&str> = text.lines().collect();
    let located = message.lines().map(|line| {
        let (kind, line) = match line.strip_prefix("Warning: ") {
            Some(line) => ("Warning: ", line),
            None => ("", line),
        };
        let Some((number, column, what)) = place_in(line) else {
            return format!("{kind}{line}");
        };
        let written = number.checked_sub(1).and_then(|at| written.get(at));
        let written = written.map(|written| format!("\n    {}", excerpt(written, column)));
        let written = written.unwrap_or_default();
        format!("{kind}{file}:{number}:{column}: {what}{written}")
    });
    located.collect()
}

/// What is written at a column of a line, which may be very long.
fn excerpt(line: &str, column: usize) -> String {
    if line.chars().nth(EXCERPT).is_none() {
        return cell(line.trim());
    }
    let skipped = column.saturating_sub(EXCERPT / 4);
    let shown: String = line.chars().skip(skipped).take(EXCERPT).collect();
    let before = if skipped > 0 { "…" } else { "" };
    format!("{before}{}…", cell(shown.trim()))
}

/// Line, column and what follows, in `line 3, column 5: what`.
fn place_in(line: &str) -> Option<(usize, usize, &str)> {
    let (place, what) = line.strip_prefix("line ")?.split_once(": ")?;
    let (number, column) = place.split_once(", column ")?;
    Some((number.parse().ok()?, column.parse().ok()?, what))
}

fn history(ctx: &Ctx) -> Result<Output, CliError> {
    let answer = ctx.client.get(HISTORY)?;
    let PolicyVersions { versions } = read(&answer)?;
    let newest = versions.len().saturating_sub(1);
    Ok(ctx.field(&answer, "versions", || {
        let rows: Vec<[String; 4]> = versions
            .iter()
            .enumerate()
            .map(|(place, version)| {
                let state = if place == newest { "active" } else { "" };
                [
                    version.version.clone(),
                    when(Some(version.updated_at)),
                    version.bytes.to_string(),
                    state.into(),
                ]
            })
            .collect();
        ctx.table(["Version", "Set at", "Bytes", "State"], &rows)
    }))
}

fn why(ctx: &Ctx, src: &str, dst: &str, proto: &str) -> Result<Output, CliError> {
    let (host, port) = host_and_port(dst);
    if port.is_empty() && WITH_PORTS.contains(&proto.to_ascii_lowercase().as_str()) {
        let fault = format!("{dst}: expected a destination with a port, such as nas:22");
        return Err(CliError::Command(fault));
    }
    let pairs = [
        ("src", src),
        ("dst", host),
        ("port", port),
        ("proto", proto),
    ];
    let query = pairs.map(|(key, value)| format!("{key}={}", escaped(value)));
    let answer = ctx.client.get(&format!("{WHY}?{}", query.join("&")))?;
    let WhyAnswer { pairs, more } = read(&answer)?;
    Ok(ctx.field(&answer, "pairs", || {
        let mut lines: Vec<String> = pairs.iter().map(|pair| line(pair, port)).collect();
        if more > 0 {
            lines.push(format!("and {more} more"));
        }
        lines.join("\n")
    }))
}

fn line(pair: &WhyPair, port: &str) -> String {
    let named = |name: &str, address: &str| match name == address {
        true => address.to_owned(),
        false => format!("{} ({address})", cell(name)),
    };
    let from = named(&pair.source, &pair.source_address);
    let to = named(&pair.destination, &pair.destination_address);
    let port = match port {
        "" => String::new(),
        port => format!(" port {port}"),
    };
    format!("{from} to {to}{port}: {}", cell(&pair.reason))
}

/// Splits `host:port`; the port is empty when there is none. IPv6 addresses with a port stand in brackets.
fn host_and_port(text: &str) -> (&str, &str) {
    if text.parse::<std::net::IpAddr>().is_ok() {
        return (text, "");
    }
    if let Some((host, rest)) = text.strip_prefix('[').and_then(|text| text.split_once(']')) {
        return (host, rest.strip_prefix(':').unwrap_or(rest));
    }
    match text.rsplit_once(':') {
        // The colon of `tag:web` is its own.
        Some((host, port)) if host != "tag" => (host, port),
        _ => (text, ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_is_a_host_with_or_without_a_port() {
        for (text, host, port) in [
            ("nas:22", "nas", "22"),
            ("100.64.0.1:22", "100.64.0.1", "22"),
            ("[fd7a::1]:22", "fd7a::1", "22"),
            ("[fd7a::1]", "fd7a::1", ""),
            ("fd7a::1", "fd7a::1", ""),
            ("tag:web:22", "tag:web", "22"),
            ("tag:web", "tag:web", ""),
            ("anna@:22", "anna@", "22"),
            ("nas", "nas", ""),
        ] {
            assert_eq!(host_and_port(text), (host, port), "{text}");
        }
    }

    #[test]
    fn a_refusal_shows_the_lines_that_are_at_fault() {
        let text = "{\n  \"acls\": 5,\n  \"x\": 1,\n}";
        let shown = |message: &str| {
            let fault = CliError::Refused(message.into());
            with_lines(fault, Path::new("p.hujson"), text).to_string()
        };
        assert_eq!(
            shown("line 2, column 11: expected a list, found a number"),
            "p.hujson:2:11: expected a list, found a number\n    \"acls\": 5,"
        );
        assert_eq!(
            shown("line 3, column 3: a\nline 9, column 1: b"),
            "the policy was refused\np.hujson:3:3: a\n    \"x\": 1,\np.hujson:9:1: b"
        );
        assert_eq!(shown("update is disabled"), "update is disabled");
    }

    #[test]
    fn many_refusals_take_little_time_and_room_however_the_text_is_written() {
        let message: String = (1..4000)
            .map(|line| format!("line {line}, column 5: a\nline 1, column {line}: b\n"))
            .collect();
        for text in ["    \"x\": 1,\n".repeat(4000), "\"x\": 1, ".repeat(40_000)] {
            let lines = located(&message, Path::new("p.hujson"), &text);
            assert_eq!(lines.len(), 2 * 3999);
            let longest = lines.iter().map(String::len).max();
            assert!(longest < Some(400), "{longest:?}");
        }
    }
}
