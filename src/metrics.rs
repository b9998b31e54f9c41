//! Metrics as Prometheus text, and the listener that serves them. Those of the relay are made from the table in
//! `hearth_derp::stats`.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

use std::fmt::Write as _;

use hearth_derp::Stats;
use hearth_derp::relay::Relay;
use hearth_derp::stats::{DropReason, METRICS, MetricKind, PacketKind};
use hearth_derp::udp::StunStats;
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};

use crate::net::body;
use crate::net::body::Body;
use crate::net::http1;
use crate::net::limits::Limits;
use crate::net::stream::Stream;
use crate::net::upgrade::PendingResponse;
use crate::shutdown::Shutdown;
use crate::status::relay::Metrics;
use hearth_core::disk::DiskFault;

/// Serves one connection of a monitoring system: `GET /metrics`.
pub async fn serve(source: Metrics, stream: Stream, shutdown: &Shutdown) {
    let answer = |request: Request<Incoming>| -> PendingResponse {
        Box::pin(std::future::ready(match request.uri().path() {
            "/metrics" => metrics(&source),
            _ => body::text(StatusCode::NOT_FOUND, "see /metrics"),
        }))
    };
    let limits = Limits::default();
    if let Err(error) = http1::serve(stream, &limits, shutdown, &answer, &|_, _| None).await {
        tracing::debug!(%error, "metrics connection ended");
    }
}

/// Source of the format: Prometheus, "Text-based exposition format".
fn metrics(source: &Metrics) -> Response<Body> {
    let relay = source.relay.as_ref().map(Relay::stats);
    let mut text = prometheus(relay, source.stun.stats());
    if let Some(states) = &source.states {
        database(
            &mut text,
            states.borrow().disk_fault().map(|fault| &**fault),
        );
    }
    if let Some(counters) = &source.http {
        counters.prometheus(&mut text);
    }
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    body::typed(StatusCode::OK, kind, text)
}

/// Appends the two lines that come before the samples of a metric.
fn header(text: &mut String, kind: MetricKind, name: &str, help: &str) {
    let kind = match kind {
        MetricKind::Counter => "counter",
        MetricKind::Gauge => "gauge",
    };
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        "# HELP hearth_{name} {help}\n# TYPE hearth_{name} {kind}"
    );
}

fn prometheus(stats: Option<Stats>, stun: StunStats) -> String {
    let mut text = String::with_capacity(8192);
    if let Some(stats) = stats {
        relay_metrics(&mut text, &stats);
        dropped_metrics(&mut text, &stats);
    }
    let (name, help) = ("stun_requests_total", "STUN packets by result");
    header(&mut text, MetricKind::Counter, name, help);
    for (result, value) in [
        ("answered_ipv4", stun.answered_ipv4),
        ("answered_ipv6", stun.answered_ipv6),
        ("ignored", stun.ignored),
        ("limited", stun.limited),
        ("read_error", stun.read_errors),
        ("write_error", stun.write_errors),
    ] {
        let _ = writeln!(text, "hearth_{name}{{result=\"{result}\"}} {value}");
    }
    text
}

fn database(text: &mut String, fault: Option<&DiskFault>) {
    let name = "database_writable";
    let help = "1 if changes are saved, 0 if the database is read-only";
    header(text, MetricKind::Gauge, name, help);
    let _ = writeln!(text, "hearth_{name} {}", u8::from(fault.is_none()));
    let name = "database_fault_start_time_seconds";
    header(
        text,
        MetricKind::Gauge,
        name,
        "Unix time at which a write failed first",
    );
    if let Some(fault) = fault {
        let (cause, since) = (fault.cause.word(), fault.since.unix_seconds());
        let _ = writeln!(text, "hearth_{name}{{cause=\"{cause}\"}} {since}");
    }
}

fn relay_metrics(text: &mut String, stats: &Stats) {
    for metric in METRICS {
        let name = format!("derp_{}", metric.name);
        // Only the first sample of a metric has a help text.
        if !metric.help.is_empty() {
            header(text, metric.kind, &name, metric.help);
        }
        let value = (metric.get)(stats);
        let _ = match metric.label {
            None => writeln!(text, "hearth_{name} {value}"),
            Some((label, of)) => writeln!(text, "hearth_{name}{{{label}=\"{of}\"}} {value}"),
        };
    }
}

fn dropped_metrics(text: &mut String, stats: &Stats) {
    let (name, help) = ("derp_packets_dropped_total", "Dropped packets");
    header(text, MetricKind::Counter, name, help);
    for (reason, kind, tally) in stats.drops.rows() {
        dropped(text, name, reason, kind, tally.packets);
    }
    let (name, help) = ("derp_bytes_dropped_total", "Bytes of dropped packets");
    header(text, MetricKind::Counter, name, help);
    for (reason, kind, tally) in stats.drops.rows() {
        dropped(text, name, reason, kind, tally.bytes);
    }
}

fn dropped(text: &mut String, name: &str, reason: DropReason, kind: PacketKind, value: u64) {
    let (reason, kind) = (reason.label(), kind.label());
    let _ = writeln!(
        text,
        "hearth_{name}{{reason=\"{reason}\",kind=\"{kind}\"}} {value}"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_in_the_form_of_prometheus() {
        let text = prometheus(Some(Stats::default()), StunStats::default());
        let mut names = std::collections::BTreeSet::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                assert!(
                    names.insert(rest.split(' ').next().unwrap()),
                    "twice: {line}"
                );
                continue;
            }
            if line.starts_with("# HELP hearth_") {
                continue;
            }
            let (name, value) = line.rsplit_once(' ').unwrap();
            assert_eq!(value, "0");
            let name = name.split('{').next().unwrap();
            assert!(names.contains(name), "{line}");
        }
        assert!(text.contains(
            "hearth_derp_packets_dropped_total{reason=\"queue_head\",kind=\"disco\"} 0\n"
        ));
    }

    /// Dashboards and scripts depend on these names.
    #[test]
    fn names_of_metrics_stay() {
        let text = prometheus(Some(Stats::default()), StunStats::default());
        let names = text
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE hearth_"));
        let expected = "\
            derp_connections gauge,derp_logins gauge,derp_keys gauge,derp_duplicate_keys gauge,\
            derp_home_connections gauge,derp_not_ideal_connections gauge,derp_mesh_connections gauge,\
            derp_mesh_links gauge,derp_remote_keys gauge,derp_queued_packets gauge,\
            derp_pool_bytes gauge,derp_accepted_total counter,derp_duplicates_total counter,\
            derp_write_timeouts_total counter,derp_faults_total counter,\
            derp_disconnected_total counter,derp_rate_waits_total counter,\
            derp_home_moves_in_total counter,derp_home_moves_out_total counter,\
            derp_pings_total counter,derp_received_packets_total counter,\
            derp_received_bytes_total counter,derp_sent_packets_total counter,\
            derp_sent_bytes_total counter,derp_forwarded_in_packets_total counter,\
            derp_forwarded_out_packets_total counter,derp_refused_total counter,\
            derp_peer_gone_total counter,derp_packets_dropped_total counter,\
            derp_bytes_dropped_total counter,stun_requests_total counter";
        assert_eq!(names.collect::<Vec<_>>().join(","), expected);
    }

    #[test]
    fn a_read_only_database_has_its_cause() {
        let mut text = String::new();
        database(&mut text, None);
        assert!(text.contains("\nhearth_database_writable 1\n"));
        let mut text = String::new();
        let fault = DiskFault {
            cause: hearth_core::disk::Cause::Full,
            detail: "".into(),
            since: hearth_core::clock::Timestamp::from_unix_ms(1_780_000_000_000),
        };
        database(&mut text, Some(&fault));
        assert!(text.contains("\nhearth_database_writable 0\n"));
        let expected = "hearth_database_fault_start_time_seconds{cause=\"full\"} 1780000000\n";
        assert!(text.ends_with(expected), "{text}");
    }

    #[test]
    fn without_a_relay_there_is_still_stun() {
        let text = prometheus(None, StunStats::default());
        assert!(text.contains("stun_requests_total") && !text.contains("derp"));
    }
}
