//! `hearth wan`.

use clap::Subcommand;
use serde_json::json;

use super::client::{CliError, Client, read};
use super::output::{Format, Output, cell};
use crate::api::Wan;

const PATH: &str = "/api/v1/hearth/wan";

/// Exit code when a change was asked for and there is none.
const UNCHANGED: u8 = 3;

/// Commands about the addresses outside.
#[derive(Debug, Subcommand)]
pub enum WanCommand {
    /// Look at the addresses now, and tell clients of a change: for the scripts of a router.
    Refresh {
        /// Succeed only when the addresses are others than at the last refresh (exit code 3 otherwise).
        #[arg(long)]
        changed: bool,
    },
}

/// Carries out a command about the addresses outside; without one they are shown.
pub fn run(
    command: Option<WanCommand>,
    client: &Client,
    format: Option<Format>,
) -> Result<Output, CliError> {
    let (answer, wants_change) = match command {
        None => (client.get(PATH)?, false),
        Some(WanCommand::Refresh { changed }) => (client.post(PATH, &json!({}))?, changed),
    };
    let wan: Wan = read(&answer)?;
    let output = Output::of(format, &answer, || card(&wan));
    Ok(match wants_change && !wan.changed {
        true => output.exit_code(UNCHANGED),
        false => output,
    })
}

/// The addresses, for people.
pub(super) fn card(wan: &Wan) -> String {
    let both = |v4: &str, v6: &str| match (v4, v6) {
        ("", "") => "none".to_owned(),
        (one, "") | ("", one) => one.to_owned(),
        (v4, v6) => format!("{v4} and {v6}"),
    };
    let own = match wan.kind.as_str() {
        "" | "public" => both(&wan.ipv4, &wan.ipv6),
        kind => format!("{} ({kind})", both(&wan.ipv4, &wan.ipv6)),
    };
    let outside = match wan.outside_from.as_str() {
        "" | "interface" => both(&wan.outside_ipv4, &wan.outside_ipv6),
        from => format!(
            "{} (known by {from})",
            both(&wan.outside_ipv4, &wan.outside_ipv6)
        ),
    };
    let told = match (wan.publishing, wan.published.is_empty()) {
        (_, false) => wan.published.join(", "),
        (false, true) => "nothing: the host of server_url does not lead here".to_owned(),
        (true, true) => "nothing".to_owned(),
    };
    let mut lines = vec![
        ("Interface", cell(&wan.interface)),
        ("Its addresses", own),
        ("From outside", outside),
        ("Clients told", told),
    ];
    if let Some(since) = wan.since {
        lines.push(("Changed", since.to_string()));
    }
    if wan.noticed_by == "looking" {
        lines.push(("Noticed by", "looking now and then".to_owned()));
    }
    let mapping = &wan.port_mapping;
    if mapping.enabled {
        let ports = mapping.ports.iter().map(|port| match port.external {
            0 => format!("{} {} not", port.internal, port.protocol),
            external => format!("{external} to {} {}", port.internal, port.protocol),
        });
        let ports: Vec<String> = ports.collect();
        let text = match mapping.fault.as_str() {
            "" => format!(
                "{} by {}: {}",
                cell(&mapping.gateway),
                mapping.protocol,
                ports.join(", ")
            ),
            fault => cell(fault),
        };
        lines.push(("Forwarded", text));
    }
    let lines = lines
        .iter()
        .map(|(name, value)| format!("{name:<14} {value}"));
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_see_what_clients_are_told_and_why_not() {
        let mut wan = Wan {
            interface: "wan".into(),
            ipv4: "192.168.178.20".into(),
            kind: "private".into(),
            outside_ipv4: "203.0.113.5".into(),
            outside_from: "stun".into(),
            ..Wan::default()
        };
        let text = card(&wan);
        assert!(text.contains("192.168.178.20 (private)"), "{text}");
        assert!(text.contains("203.0.113.5 (known by stun)"), "{text}");
        assert!(text.contains("does not lead here"), "{text}");
        wan.published = vec!["203.0.113.5".into()];
        assert!(card(&wan).contains("Clients told   203.0.113.5"));
    }
}
