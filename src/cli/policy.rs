//! `hearth policy`.

use std::io::{self, Read as _};
use std::path::Path;

use serde_json::{Value, json};

use super::args::PolicyCommand;
use super::client::{CliError, Client, escaped, read};
use super::output::{Format, Output, cell, table};
use super::users::{inner, when};
use crate::api::{
    NumberText, PolicyAnswer, PolicyVersions, RollBackPolicy, SetPolicy, WhyAnswer, WhyPair,
};
use crate::files;
use hearth_core::policy::{MAX_BYTES, Policy};

const PATH: &str = "/api/v1/policy";
const CHECK: &str = "/api/v1/policy/check";
const HISTORY: &str = "/api/v1/hearth/policy/history";
const ROLLBACK: &str = "/api/v1/hearth/policy/rollback";
const WHY: &str = "/api/v1/hearth/policy/why";

/// Protocols that have ports.
const WITH_PORTS: [&str; 6] = ["tcp", "udp", "sctp", "6", "17", "132"];

/// Carries out a command about policies.
pub fn run(
    command: PolicyCommand,
    client: &Client,
    format: Option<Format>,
) -> Result<Output, CliError> {
    match command {
        PolicyCommand::Get { version } => get(client, format, version),
        PolicyCommand::Set { file } => set(client, format, &file.path()),
        PolicyCommand::Check { file } => check(client, format, &file.path()),
        PolicyCommand::History => history(client, format),
        PolicyCommand::Rollback { version } => {
            let version = NumberText(version.map(|id| id.to_string()).unwrap_or_default());
            let answer = client.post(ROLLBACK, &RollBackPolicy { version })?;
            taken(&answer, format)
        }
        PolicyCommand::Why { src, dst, proto } => why(client, format, &src, &dst, &proto),
        #[cfg(feature = "policy-tools")]
        PolicyCommand::Template { name } => {
            let text = hearth_core::policy::template(&name).unwrap_or_default();
            Ok(Output::of(format, &json!({ "policy": text }), || {
                text.trim_end().into()
            }))
        }
        // It needs no server and has no one result; `run` has carried it out before.
        #[cfg(feature = "policy-tools")]
        PolicyCommand::Eval => Ok(Output::default()),
    }
}

fn get(client: &Client, format: Option<Format>, version: Option<u64>) -> Result<Output, CliError> {
    let answer = match version {
        Some(version) => client.get(&format!("{HISTORY}/{version}"))?,
        None => client.get(PATH)?,
    };
    let policy: PolicyAnswer = read(&answer)?;
    let output = Output::of(format, &answer, || policy.policy.trim_end().into());
    Ok(match policy.trouble.is_empty() {
        true => output,
        false => output.note(format, &format!("Warning: {}", policy.trouble)),
    })
}

fn set(client: &Client, format: Option<Format>, path: &Path) -> Result<Output, CliError> {
    let policy = text_of(path)?;
    let answer = client
        .put(
            PATH,
            &SetPolicy {
                policy: policy.clone(),
            },
        )
        .map_err(|fault| with_lines(fault, path, &policy))?;
    taken(&answer, format)
}

fn taken(answer: &Value, format: Option<Format>) -> Result<Output, CliError> {
    let policy: PolicyAnswer = read(answer)?;
    Ok(Output::of(format, answer, || {
        format!("version {} of the policy applies", policy.version)
    }))
}

fn check(client: &Client, format: Option<Format>, path: &Path) -> Result<Output, CliError> {
    let policy = text_of(path)?;
    let asked = client.post(
        CHECK,
        &SetPolicy {
            policy: policy.clone(),
        },
    );
    let good = |what: &str, is_whole: bool| {
        Output::of(
            format,
            &json!({ "valid": true, "complete": is_whole }),
            || format!("{}: {what}", path.display()),
        )
    };
    match asked {
        Ok(_) => Ok(good("the policy can be set", true)),
        Err(CliError::NotRunning { .. }) => {
            if let Err(faults) = Policy::parse(&policy) {
                let lines: Vec<String> = faults.iter().map(ToString::to_string).collect();
                let fault = CliError::Refused(lines.join("\n"));
                return Err(with_lines(fault, path, &policy));
            }
            let note = "no hearth is running here: whether its users and nodes are there, and whether its tests \
                        hold, was not checked";
            Ok(good("the policy is well written", false).note(format, note))
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
    String::from_utf8(bytes).map_err(|_| fault("not text in UTF-8".into()))
}

/// A refusal with the file, and the line of the text, in place of the numbers alone.
fn with_lines(fault: CliError, path: &Path, text: &str) -> CliError {
    let CliError::Refused(message) = fault else {
        return fault;
    };
    let lines = message.lines().map(|line| match place_in(line) {
        Some((number, column, what)) => {
            let written = number.checked_sub(1).and_then(|at| text.lines().nth(at));
            let written = written.map(|written| format!("\n    {}", cell(written.trim())));
            let file = path.display();
            format!(
                "{file}:{number}:{column}: {what}{}",
                written.unwrap_or_default()
            )
        }
        None => line.to_owned(),
    });
    let lines: Vec<String> = lines.collect();
    match lines.as_slice() {
        [one] => CliError::Refused(one.clone()),
        many => CliError::Refused(format!("the policy was refused\n{}", many.join("\n"))),
    }
}

/// Line, column and what follows, in `line 3, column 5: what`.
fn place_in(line: &str) -> Option<(usize, usize, &str)> {
    let (place, what) = line.strip_prefix("line ")?.split_once(": ")?;
    let (number, column) = place.split_once(", column ")?;
    Some((number.parse().ok()?, column.parse().ok()?, what))
}

fn history(client: &Client, format: Option<Format>) -> Result<Output, CliError> {
    let answer = client.get(HISTORY)?;
    let PolicyVersions { versions } = read(&answer)?;
    let newest = versions.len().saturating_sub(1);
    Ok(Output::of(format, &inner(&answer, "versions"), || {
        let rows: Vec<[String; 4]> = versions
            .iter()
            .enumerate()
            .map(|(place, version)| {
                let applies = if place == newest { "applies" } else { "" };
                [
                    version.version.clone(),
                    when(Some(version.updated_at)),
                    version.bytes.to_string(),
                    applies.into(),
                ]
            })
            .collect();
        table(["Version", "Set", "Bytes", ""], &rows)
    }))
}

fn why(
    client: &Client,
    format: Option<Format>,
    src: &str,
    dst: &str,
    proto: &str,
) -> Result<Output, CliError> {
    let (host, port) = host_and_port(dst);
    if port.is_empty() && WITH_PORTS.contains(&proto.to_ascii_lowercase().as_str()) {
        let fault = format!("{dst}: expected a destination with a port, as in nas:22");
        return Err(CliError::Command(fault));
    }
    let pairs = [
        ("src", src),
        ("dst", host),
        ("port", port),
        ("proto", proto),
    ];
    let query = pairs.map(|(key, value)| format!("{key}={}", escaped(value)));
    let answer = client.get(&format!("{WHY}?{}", query.join("&")))?;
    let WhyAnswer { pairs, more } = read(&answer)?;
    Ok(Output::of(format, &inner(&answer, "pairs"), || {
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
}
