//! `hearth derp` and `hearth derp status`.

use std::path::PathBuf;
use std::process::ExitCode;

#[cfg(feature = "standalone-relay")]
use super::serve;
use crate::api::{RELAY_PATH, RelayReport};
use crate::cli::args::ServeFlags;
use crate::cli::client::{CliError, read};
use crate::cli::context::Ctx;
#[cfg(not(feature = "standalone-relay"))]
use crate::cli::output::{Format, print_error};
use crate::cli::output::{Output, card};

/// Runs the relay and the STUN server until they are stopped.
#[cfg(feature = "standalone-relay")]
pub fn serve(flags: ServeFlags, socket: Option<PathBuf>) -> ExitCode {
    serve::start(flags, socket, |config, log, load, sockets| {
        crate::server::run_relay(config, log, load, sockets)
    })
}

/// Says that this program cannot run the relay alone.
#[cfg(not(feature = "standalone-relay"))]
pub fn serve(_: ServeFlags, _: Option<PathBuf>) -> ExitCode {
    print_error(
        Format::Table,
        "this program was built without the standalone relay (feature `standalone-relay`)",
        Some("`hearth serve` has a relay; `hearth derp status` shows its statistics."),
    );
    ExitCode::FAILURE
}

/// Shows relay and STUN statistics.
pub fn status(ctx: &Ctx) -> Result<Output, CliError> {
    let answer = ctx.client.get(RELAY_PATH)?;
    let report: RelayReport = read(&answer)?;
    Ok(ctx.output(&answer, || card(&lines(&report))))
}

fn lines(report: &RelayReport) -> Vec<(&'static str, String)> {
    let (stats, stun) = (&report.stats, &report.stun);
    let stun = format!(
        "{} answers ({} over IPv4), {} invalid packets, {} rate-limited",
        stun.answered_ipv4.saturating_add(stun.answered_ipv6),
        stun.answered_ipv4,
        stun.ignored,
        stun.limited
    );
    if !report.is_on {
        return vec![("Relay", "off".into()), ("STUN", stun)];
    }
    vec![
        (
            "Clients",
            format!(
                "{} ({} with this home relay, {} in handshake)",
                stats.connections, stats.home_connections, stats.logins
            ),
        ),
        (
            "Mesh",
            format!(
                "{} links out, {} in, {} remote clients",
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
            "Queued",
            format!(
                "{} packets, {} bytes of the buffer pool",
                stats.queued_packets, stats.pool_bytes_used
            ),
        ),
        ("Dropped", dropped(report)),
        (
            "Rejected",
            format!(
                "{} not admitted, {} over a limit, {} bad handshakes",
                stats.refused,
                stats.turned_away.saturating_add(stats.logins_evicted),
                stats.logins_failed
            ),
        ),
        ("STUN", stun),
    ]
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
