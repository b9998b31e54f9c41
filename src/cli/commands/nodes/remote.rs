//! `hearth nodes c2n` and its relatives: what a connected node carries out itself.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::api::{AskNode, Attributes, NodeReply, OpenPage, PingAnswer, PingNode};
use crate::cli::args::Remote;
use crate::cli::client::{CliError, escaped, read};
use crate::cli::context::Ctx;
use crate::cli::lookup::node_path;
use crate::cli::output::{Output, cell, lines};

/// Short names of useful C2N paths.
/// Source: tailscale `ipn/ipnlocal/c2n.go`, `feature/clientupdate/clientupdate.go`.
const SHORT_NAMES: [(&str, &str); 7] = [
    ("echo", "/echo"),
    ("goroutines", "/debug/goroutines"),
    ("health", "/debug/health"),
    ("metrics", "/debug/metrics"),
    ("netmap", "/debug/netmap"),
    ("prefs", "/debug/prefs"),
    ("update", "/update"),
];

/// Carries out a command.
pub fn run(ctx: &Ctx, command: Remote) -> Result<Output, CliError> {
    match command {
        Remote::C2n {
            node,
            what,
            method,
            data,
        } => {
            let short = SHORT_NAMES.iter().find(|(name, _)| *name == what);
            let path = short.map_or(what.as_str(), |(_, path)| path);
            let (reply, answer) = ask(ctx, &node, &method, path, &data)?;
            Ok(ctx.output(&answer, || text_of(&reply)))
        }
        Remote::Update { node } => {
            let (reply, answer) = ask(ctx, &node, "POST", "/update", "")?;
            let text = update_of(&node, &reply).map_err(CliError::Command)?;
            Ok(ctx.output(&answer, || text))
        }
        Remote::Wol { via, mac } => {
            let path = format!("/wol?mac={}", escaped(&mac));
            let (reply, answer) = ask(ctx, &via, "POST", &path, "")?;
            Ok(ctx.output(&answer, || text_of(&reply)))
        }
        Remote::Cert { node, domain } => {
            let path = format!("/tls-cert-status?domain={}", escaped(&domain));
            let (reply, answer) = ask(ctx, &node, "GET", &path, "")?;
            Ok(ctx.output(&answer, || text_of(&reply)))
        }
        Remote::Ping {
            node,
            target,
            types,
        } => ping(ctx, &node, target, types),
        Remote::Open { node, url } => {
            let path = node_path(&ctx.client, &node, "/open")?;
            let answer = ctx.client.post(&path, &OpenPage { url })?;
            Ok(ctx.output(&answer, || format!("sent to {}", cell(&node))))
        }
        Remote::Attributes { node, changes } => attributes(ctx, &node, changes),
    }
}

/// Sends a request to the node; fails unless its status is 2xx.
fn ask(
    ctx: &Ctx,
    node: &str,
    method: &str,
    path: &str,
    body: &str,
) -> Result<(NodeReply, Value), CliError> {
    let question = AskNode {
        method: method.into(),
        path: path.into(),
        body: body.into(),
    };
    let target = node_path(&ctx.client, node, "/c2n")?;
    let answer = ctx.client.post(&target, &question)?;
    let reply: NodeReply = read(&answer)?;
    if !(200..300).contains(&reply.status) {
        let text = cell(reply.body.trim());
        let fault = format!("the node answered {}: {text}", reply.status);
        return Err(CliError::Command(fault));
    }
    Ok((reply, answer))
}

/// What a client says to the request to update itself; an error when it does not.
/// Source: `C2NUpdateResponse` in tailscale `tailcfg/c2ntypes.go`.
fn update_of(node: &str, reply: &NodeReply) -> Result<String, String> {
    let answer = serde_json::from_str::<Value>(&reply.body).unwrap_or_default();
    if answer.get("Started").is_none() {
        return Ok(text_of(reply));
    }
    let is = |field: &str| answer.get(field).and_then(Value::as_bool) == Some(true);
    let (node, fault) = (cell(node), answer.get("Err").and_then(Value::as_str));
    let fault = cell(fault.unwrap_or_default());
    if is("Started") {
        return Ok(format!(
            "{node} updates its client; it is offline for a moment"
        ));
    }
    Err(match (is("Supported"), is("Enabled")) {
        (false, _) => format!(
            "the client of {node} cannot update itself ({fault}); update it as it was installed, for example with apt"
        ),
        (true, false) => format!(
            "{node} does not let the server update its client; on {node}, run `tailscale set --auto-update`, or `tailscale update` once"
        ),
        (true, true) => format!("{node} did not start the update: {fault}"),
    })
}

/// The text of a reply, without what cannot be seen.
fn text_of(reply: &NodeReply) -> String {
    let body = match reply.body_base64.as_str() {
        "" => reply.body.trim_end(),
        base64 => base64,
    };
    lines(body)
}

fn ping(
    ctx: &Ctx,
    node: &str,
    target: Option<String>,
    types: Vec<String>,
) -> Result<Output, CliError> {
    let request = PingNode {
        target: target.unwrap_or_default(),
        types,
    };
    let path = node_path(&ctx.client, node, "/ping")?;
    let answer = ctx.client.post(&path, &request)?;
    let result: PingAnswer = read(&answer)?;
    Ok(ctx.output(&answer, || {
        if let Some(seconds) = result.reached_after_seconds {
            return format!("the node reached this server in {:.1} ms", seconds * 1000.0);
        }
        let lines: Vec<String> = result.pings.iter().map(line).collect();
        match lines.is_empty() {
            true => "no reply".into(),
            false => lines.join("\n"),
        }
    }))
}

/// The result of one ping.
fn line(ping: &Value) -> String {
    let text = |field: &str| ping.get(field).and_then(Value::as_str).unwrap_or_default();
    let kind = cell(text("Type"));
    if !text("Err").is_empty() {
        return format!("{kind}: {}", cell(text("Err")));
    }
    let path = match (text("Endpoint"), text("DERPRegionCode")) {
        ("", "") => String::new(),
        ("", region) => format!(" via DERP({})", cell(region)),
        (endpoint, _) => format!(" via {}", cell(endpoint)),
    };
    let seconds = ping.get("LatencySeconds").and_then(Value::as_f64);
    format!(
        "{kind}: {:.1} ms{path}",
        seconds.unwrap_or_default() * 1000.0
    )
}

fn attributes(ctx: &Ctx, node: &str, changes: Vec<String>) -> Result<Output, CliError> {
    let path = node_path(&ctx.client, node, "/attributes")?;
    let answer = if changes.is_empty() {
        ctx.client.get(&path)?
    } else {
        let changes = changes.iter().map(|change| {
            change
                .split_once('=')
                .map(|(name, value)| (name.to_owned(), value_of(value)))
        });
        let attributes: Option<BTreeMap<_, _>> = changes.collect();
        let attributes =
            attributes.ok_or_else(|| CliError::Command("expected custom:name=value".into()))?;
        ctx.client.post(&path, &Attributes { attributes })?
    };
    let all: Attributes = read(&answer)?;
    Ok(ctx.field(&answer, "attributes", || {
        let lines = all.attributes.iter();
        let lines: Vec<String> = lines
            .map(|(name, value)| cell(&format!("{name}={value}")))
            .collect();
        lines.join("\n")
    }))
}

/// The value of an attribute: whole numbers and booleans are themselves, everything else is text.
fn value_of(text: &str) -> Value {
    match text {
        "" => Value::Null,
        "true" => Value::Bool(true),
        "false" => Value::Bool(false),
        text => text
            .parse::<i64>()
            .map_or_else(|_| text.into(), Value::from),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_client_that_does_not_update_itself_says_why() {
        let said = |body: &str| {
            let reply = NodeReply {
                status: 200,
                content_type: String::new(),
                body: body.into(),
                body_base64: String::new(),
            };
            update_of("nas", &reply)
        };
        assert!(
            said(r#"{"Started":true}"#)
                .unwrap()
                .starts_with("nas updates")
        );
        let off = r#"{"Err":"not enabled","Enabled":false,"Supported":true,"Started":false}"#;
        assert!(
            said(off)
                .unwrap_err()
                .contains("tailscale set --auto-update")
        );
        assert!(
            said(r#"{"Err":"no way","Started":false}"#)
                .unwrap_err()
                .contains("(no way)")
        );
        assert_eq!(said("text"), Ok("text".into()));
    }

    #[test]
    fn values_are_what_they_look_like() {
        let texts = ["", "true", "-5", "1.5", "x"];
        let values = texts.map(value_of);
        let expected = [
            json!(null),
            json!(true),
            json!(-5),
            json!("1.5"),
            json!("x"),
        ];
        assert_eq!(values, expected);
    }

    #[test]
    fn a_ping_is_one_line() {
        let direct = json!({"Type":"disco","LatencySeconds":0.0015,"Endpoint":"1.2.3.4:5"});
        assert_eq!(line(&direct), "disco: 1.5 ms via 1.2.3.4:5");
        let relayed = json!({"Type":"disco","LatencySeconds":0.02,"DERPRegionCode":"home\u{1b}"});
        assert_eq!(line(&relayed), "disco: 20.0 ms via DERP(home?)");
        assert_eq!(line(&json!({"Type":"TSMP","Err":"no"})), "TSMP: no");
    }
}
