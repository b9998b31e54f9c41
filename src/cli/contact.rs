//! `hearth nodes c2n` and its relatives, `hearth ssh`, `hearth audit`.

use std::collections::BTreeMap;

use clap::Subcommand;
use serde_json::Value;

use super::client::{CliError, Client, escaped, read};
use super::nodes::path_of;
use super::output::{Format, Output, cell, table};
use super::users::{inner, when};
use crate::api::{
    AskNode, Attributes, AuditAnswer, DecideSshCheck, NodeReply, OpenPage, PingAnswer, PingNode,
    SshChecksAnswer,
};

/// Short names of what nodes answer most usefully.
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

/// Commands about one node that only the node itself can carry out. It has to be connected.
#[derive(Debug, Subcommand)]
pub enum ToNode {
    /// Ask a node something over its control connection.
    C2n {
        /// Name or id of the node.
        node: String,
        /// echo, goroutines, health, metrics, netmap, prefs, update, or a path.
        what: String,
        /// Method of HTTP.
        #[arg(short = 'X', long, default_value = "GET")]
        method: String,
        /// Body of the request.
        #[arg(short, long, default_value = "")]
        data: String,
    },
    /// Have a node ping another one, or this server.
    Ping {
        /// Name or id of the node.
        node: String,
        /// An address, or name or id of a node [default: this server, by HTTP].
        target: Option<String>,
        /// disco, TSMP, ICMP or peerapi; more than one with commas.
        #[arg(short, long, value_delimiter = ',', default_value = "disco")]
        types: Vec<String>,
    },
    /// Have a node update its client, if its user allows that.
    Update {
        /// Name or id of the node.
        node: String,
    },
    /// Have a node wake a machine in its network (Wake-on-LAN).
    Wol {
        /// Name or id of a node in the network of that machine.
        via: String,
        /// Hardware address of the machine to wake, such as 00:11:22:33:44:55.
        mac: String,
    },
    /// Show how a node's HTTPS certificate is.
    Cert {
        /// Name or id of the node.
        node: String,
        /// Name in the certificate.
        domain: String,
    },
    /// Have a node open a page in the browser of its user.
    Open {
        /// Name or id of the node.
        node: String,
        /// Address of the page.
        url: String,
    },
    /// Show or set the attributes that policies ask for.
    #[command(alias = "attrs")]
    Attributes {
        /// Name or id of the node.
        node: String,
        /// `custom:name=value` sets an attribute, `custom:name=` takes it away.
        changes: Vec<String>,
    },
}

/// Commands about SSH connections that wait to be confirmed.
#[derive(Debug, Subcommand)]
pub enum Ssh {
    /// List connections that wait or were lately decided about.
    #[command(aliases = ["ls", "show"])]
    List,
    /// Let a connection in.
    Approve {
        /// Id of the connection: the last part of the address that is shown to whoever connects, or all
        /// of it.
        id: String,
    },
    /// Turn a connection away.
    Reject {
        /// Id of the connection: the last part of the address that is shown to whoever connects, or all
        /// of it.
        id: String,
    },
}

/// Carries out a command about one node.
pub fn run(command: ToNode, client: &Client, format: Option<Format>) -> Result<Output, CliError> {
    match command {
        ToNode::C2n {
            node,
            what,
            method,
            data,
        } => {
            let short = SHORT_NAMES.iter().find(|(name, _)| *name == what);
            let path = short.map_or(what.as_str(), |(_, path)| path);
            let (reply, answer) = ask(client, &node, &method, path, &data)?;
            Ok(Output::of(format, &answer, || text_of(&reply)))
        }
        ToNode::Update { node } => {
            let (reply, answer) = ask(client, &node, "POST", "/update", "")?;
            Ok(Output::of(format, &answer, || text_of(&reply)))
        }
        ToNode::Wol { via, mac } => {
            let path = format!("/wol?mac={}", escaped(&mac));
            let (reply, answer) = ask(client, &via, "POST", &path, "")?;
            Ok(Output::of(format, &answer, || text_of(&reply)))
        }
        ToNode::Cert { node, domain } => {
            let path = format!("/tls-cert-status?domain={}", escaped(&domain));
            let (reply, answer) = ask(client, &node, "GET", &path, "")?;
            Ok(Output::of(format, &answer, || text_of(&reply)))
        }
        ToNode::Ping {
            node,
            target,
            types,
        } => ping(client, format, &node, target, types),
        ToNode::Open { node, url } => {
            let path = path_of(client, &node, "/open")?;
            let answer = client.post(&path, &OpenPage { url })?;
            Ok(Output::of(format, &answer, || "the node was told".into()))
        }
        ToNode::Attributes { node, changes } => attributes(client, format, &node, changes),
    }
}

/// Asks, and fails when the node does not answer with success.
fn ask(
    client: &Client,
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
    let target = path_of(client, node, "/c2n")?;
    let answer = client.post(&target, &question)?;
    let reply: NodeReply = read(&answer)?;
    if !(200..300).contains(&reply.status) {
        let text = cell(reply.body.trim());
        let fault = format!("the node answers {}: {text}", reply.status);
        return Err(CliError::Command(fault));
    }
    Ok((reply, answer))
}

/// The text of an answer, with nothing in it that could steer a terminal.
fn text_of(reply: &NodeReply) -> String {
    let body = match reply.body_base64.as_str() {
        "" => reply.body.trim_end(),
        base64 => base64,
    };
    let keeps = |letter: &char| !letter.is_control() || matches!(letter, '\n' | '\t');
    body.chars().filter(keeps).collect()
}

fn ping(
    client: &Client,
    format: Option<Format>,
    node: &str,
    target: Option<String>,
    types: Vec<String>,
) -> Result<Output, CliError> {
    let wish = PingNode {
        target: target.unwrap_or_default(),
        types,
    };
    let path = path_of(client, node, "/ping")?;
    let answer = client.post(&path, &wish)?;
    let result: PingAnswer = read(&answer)?;
    Ok(Output::of(format, &answer, || {
        if let Some(seconds) = result.reached_after_seconds {
            return format!(
                "the node reached this server within {:.1} ms",
                seconds * 1000.0
            );
        }
        let lines: Vec<String> = result.pings.iter().map(line).collect();
        match lines.is_empty() {
            true => "no answer".into(),
            false => lines.join("\n"),
        }
    }))
}

/// How one ping went.
fn line(ping: &Value) -> String {
    let text = |field: &str| ping.get(field).and_then(Value::as_str).unwrap_or_default();
    let kind = cell(text("Type"));
    if !text("Err").is_empty() {
        return format!("{kind}: {}", cell(text("Err")));
    }
    let way = match (text("Endpoint"), text("DERPRegionCode")) {
        ("", "") => String::new(),
        ("", region) => format!(" by relay {}", cell(region)),
        (endpoint, _) => format!(" at {}", cell(endpoint)),
    };
    let seconds = ping.get("LatencySeconds").and_then(Value::as_f64);
    format!(
        "{kind}: {:.1} ms{way}",
        seconds.unwrap_or_default() * 1000.0
    )
}

fn attributes(
    client: &Client,
    format: Option<Format>,
    node: &str,
    changes: Vec<String>,
) -> Result<Output, CliError> {
    let path = path_of(client, node, "/attributes")?;
    let answer = if changes.is_empty() {
        client.get(&path)?
    } else {
        let changes = changes.iter().map(|change| {
            change
                .split_once('=')
                .map(|(name, value)| (name.to_owned(), value_of(value)))
        });
        let attributes: Option<BTreeMap<_, _>> = changes.collect();
        let attributes =
            attributes.ok_or_else(|| CliError::Command("a change is custom:name=value".into()))?;
        client.post(&path, &Attributes { attributes })?
    };
    let all: Attributes = read(&answer)?;
    Ok(Output::of(format, &inner(&answer, "attributes"), || {
        let lines = all.attributes.iter();
        let lines: Vec<String> = lines
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        lines.join("\n")
    }))
}

/// A value as somebody types it: whole numbers and truth values are themselves, the rest is text.
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

/// Carries out a command about SSH connections.
pub fn ssh(command: Ssh, client: &Client, format: Option<Format>) -> Result<Output, CliError> {
    let (id, verb, done) = match command {
        Ssh::List => return list(client, format),
        Ssh::Approve { id } => (id, "approve", "let in"),
        Ssh::Reject { id } => (id, "reject", "turned away"),
    };
    let id = super::pending::id_in(&id);
    let path = format!("/api/v1/hearth/ssh/{verb}");
    let answer = client.post(&path, &DecideSshCheck { id })?;
    Ok(Output::of(format, &answer, || done.into()))
}

fn list(client: &Client, format: Option<Format>) -> Result<Output, CliError> {
    let answer = client.get("/api/v1/hearth/ssh")?;
    let SshChecksAnswer { checks } = read(&answer)?;
    Ok(Output::of(format, &inner(&answer, "checks"), || {
        let rows: Vec<[String; 6]> = checks
            .iter()
            .map(|check| {
                [
                    check.id.clone(),
                    cell(&check.source),
                    cell(&check.target),
                    cell(&check.local_user),
                    when(Some(check.created_at)),
                    check.state.clone(),
                ]
            })
            .collect();
        table(["ID", "From", "To", "As user", "Since", "State"], &rows)
    }))
}

/// Lists what clients reported was done on them.
pub fn audit(client: &Client, format: Option<Format>) -> Result<Output, CliError> {
    let answer = client.get("/api/v1/hearth/audit")?;
    let AuditAnswer { entries } = read(&answer)?;
    Ok(Output::of(format, &inner(&answer, "entries"), || {
        let rows: Vec<[String; 4]> = entries
            .iter()
            .map(|entry| {
                [
                    when(Some(entry.at)),
                    cell(&entry.node),
                    cell(&entry.action),
                    cell(&entry.details),
                ]
            })
            .collect();
        table(["At", "Node", "Action", "Details"], &rows)
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

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
        assert_eq!(line(&direct), "disco: 1.5 ms at 1.2.3.4:5");
        let relayed = json!({"Type":"disco","LatencySeconds":0.02,"DERPRegionCode":"home\u{1b}"});
        assert_eq!(line(&relayed), "disco: 20.0 ms by relay home?");
        assert_eq!(line(&json!({"Type":"TSMP","Err":"no"})), "TSMP: no");
    }
}
