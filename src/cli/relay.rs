//! `hearth derp` and `hearth derp status`.

use std::process::ExitCode;

use super::client::{CliError, Client, read};
use super::output::{Format, Output};
#[cfg(feature = "standalone-relay")]
use super::server;
use crate::api::{RELAY_PATH, RelayReport};
use crate::config::Overrides;

/// Runs the relay and STUN until told to stop.
#[cfg(feature = "standalone-relay")]
pub fn serve(overrides: Overrides) -> ExitCode {
    server::start(overrides, |config, log, load, sockets| {
        crate::server::run_relay(config, log, load, sockets)
    })
}

/// Says that this program cannot be a relay alone.
#[cfg(not(feature = "standalone-relay"))]
pub fn serve(_: Overrides) -> ExitCode {
    eprintln!(
        "Error: this program was built without the relay alone (feature `standalone-relay`); \
         `hearth serve` has a relay, and `hearth derp status` shows how it is"
    );
    ExitCode::FAILURE
}

/// How the relay is.
pub fn status(client: &Client, format: Option<Format>) -> Result<Output, CliError> {
    let answer = client.get(RELAY_PATH)?;
    let report: RelayReport = read(&answer)?;
    Ok(Output::of(format, &answer, || card(&report)))
}

fn card(report: &RelayReport) -> String {
    let (stats, stun) = (&report.stats, &report.stun);
    let stun = format!(
        "{} answers ({} over IPv4), {} packets ignored, {} beyond the rate",
        stun.answered_ipv4.saturating_add(stun.answered_ipv6),
        stun.answered_ipv4,
        stun.ignored,
        stun.limited
    );
    if !report.is_on {
        return format!("Relay        off\nSTUN         {stun}");
    }
    let lines = [
        (
            "Clients",
            format!(
                "{} ({} at home here, {} logging in)",
                stats.connections, stats.home_connections, stats.logins
            ),
        ),
        (
            "Region",
            format!(
                "{} links to other relays, {} from them, {} clients there",
                stats.mesh_links, stats.mesh_connections, stats.remote_keys
            ),
        ),
        (
            "Received",
            format!(
                "{} packets, {} bytes",
                stats.received.packets, stats.received.bytes
            ),
        ),
        (
            "Sent",
            format!("{} packets, {} bytes", stats.sent.packets, stats.sent.bytes),
        ),
        (
            "Forwarded",
            format!(
                "{} packets in, {} out",
                stats.forwarded_in.packets, stats.forwarded_out.packets
            ),
        ),
        (
            "Waiting",
            format!(
                "{} packets, {} bytes of the pool",
                stats.queued_packets, stats.pool_bytes_used
            ),
        ),
        ("Dropped", dropped(report)),
        (
            "Turned away",
            format!(
                "{} not admitted, {} for want of room, {} bad logins",
                stats.refused,
                stats.turned_away.saturating_add(stats.logins_evicted),
                stats.logins_failed
            ),
        ),
        ("STUN", stun),
    ];
    let lines = lines.map(|(name, value)| format!("{name:<12} {value}"));
    lines.join("\n")
}

fn dropped(report: &RelayReport) -> String {
    let drops = report.drops.iter().filter(|drop| drop.packets > 0);
    let drops: Vec<String> = drops
        .map(|drop| format!("{} {}/{}", drop.packets, drop.reason, drop.kind))
        .collect();
    match drops.is_empty() {
        true => "nothing".to_owned(),
        false => drops.join(", "),
    }
}
