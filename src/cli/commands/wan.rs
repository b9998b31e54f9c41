//! `hearth wan`.

use serde_json::json;

use crate::api::{MappedPort, PortMapping, Wan};
use crate::cli::args::WanCommand;
use crate::cli::client::{CliError, read};
use crate::cli::context::Ctx;
use crate::cli::output::{Output, card, cell};

const PATH: &str = "/api/v1/hearth/wan";

/// Exit code when a change was asked for and there is none.
const UNCHANGED: u8 = 3;

/// Carries out a command about the public addresses; without one they are shown.
pub fn run(ctx: &Ctx, command: Option<WanCommand>) -> Result<Output, CliError> {
    let (answer, wants_change) = match command {
        None => (ctx.client.get(PATH)?, false),
        Some(WanCommand::Refresh { changed }) => (ctx.client.post(PATH, &json!({}))?, changed),
    };
    let wan: Wan = read(&answer)?;
    let output = ctx.output(&answer, || text(&wan));
    Ok(match wants_change && !wan.changed {
        true => output.exit_code(UNCHANGED),
        false => output,
    })
}

fn text(wan: &Wan) -> String {
    let both = |v4: &str, v6: &str| match (v4, v6) {
        ("", "") => "none".to_owned(),
        (one, "") | ("", one) => one.to_owned(),
        (v4, v6) => format!("{v4} and {v6}"),
    };
    let own = match wan.kind.as_str() {
        "" | "public" => both(&wan.ipv4, &wan.ipv6),
        kind => format!("{} ({kind})", both(&wan.ipv4, &wan.ipv6)),
    };
    let public = match wan.outside_from.as_str() {
        "" | "interface" => both(&wan.outside_ipv4, &wan.outside_ipv6),
        from => format!(
            "{} (source: {from})",
            both(&wan.outside_ipv4, &wan.outside_ipv6)
        ),
    };
    let advertised = match (wan.publishing, wan.published.is_empty()) {
        (_, false) => wan.published.join(", "),
        (false, true) => "nothing: the host of server_url does not lead to this machine".to_owned(),
        (true, true) => "nothing".to_owned(),
    };
    let mut lines = vec![
        ("Interface", cell(&wan.interface)),
        ("WAN address", own),
        ("Public", public),
        ("Advertised", advertised),
    ];
    if let Some(since) = wan.since {
        lines.push(("Changed", since.to_string()));
    }
    if wan.noticed_by == "looking" {
        lines.push(("Detected by", "polling".to_owned()));
    }
    if wan.port_mapping.enabled {
        lines.push(("Port mapping", mapped(&wan.port_mapping)));
    }
    card(&lines)
}

fn mapped(mapping: &PortMapping) -> String {
    let port = |port: &MappedPort| match port.external {
        0 => format!("{}/{} not mapped", port.internal, port.protocol),
        external => format!("{external}/{} to {}", port.protocol, port.internal),
    };
    let ports: Vec<String> = mapping.ports.iter().map(port).collect();
    match mapping.fault.as_str() {
        "" => format!(
            "{} over {}: {}",
            cell(&mapping.gateway),
            mapping.protocol,
            ports.join(", ")
        ),
        fault => cell(fault),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_see_what_is_advertised_and_why_nothing_is() {
        let mut wan = Wan {
            interface: "wan".into(),
            ipv4: "192.168.178.20".into(),
            kind: "private".into(),
            outside_ipv4: "203.0.113.5".into(),
            outside_from: "stun".into(),
            ..Wan::default()
        };
        let shown = text(&wan);
        assert!(shown.contains("192.168.178.20 (private)"), "{shown}");
        assert!(shown.contains("203.0.113.5 (source: stun)"), "{shown}");
        assert!(shown.contains("does not lead to this machine"), "{shown}");
        wan.published = vec!["203.0.113.5".into()];
        let shown = text(&wan);
        assert!(
            shown
                .lines()
                .any(|line| line.starts_with("Advertised") && line.ends_with(" 203.0.113.5")),
            "{shown}"
        );
    }
}
