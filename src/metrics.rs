//! Metrics in the text format of Prometheus, and the listener that serves them.
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
use hearth_derp::udp::StunStats;
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};

use crate::api::RelayDrops;
use crate::net::body;
use crate::net::body::Body;
use crate::net::http1;
use crate::net::limits::Limits;
use crate::net::stream::Stream;
use crate::net::upgrade::PendingResponse;
use crate::shutdown::Shutdown;
use crate::status::relay::{self, Numbers};

impl Numbers {
    /// For monitoring systems. Source of the form: Prometheus, "Text-based exposition format".
    pub fn prometheus(&self) -> String {
        let mut text = prometheus(self.relay.as_ref().map(Relay::stats), self.stun.stats());
        if let Some(counters) = &self.http {
            counters.prometheus(&mut text);
        }
        text
    }

    /// Answers one monitoring system: `GET /metrics`.
    pub async fn serve(self, stream: Stream, shutdown: &Shutdown) {
        let answer = |request: Request<Incoming>| -> PendingResponse {
            Box::pin(std::future::ready(match request.uri().path() {
                "/metrics" => self.metrics(),
                _ => body::text(StatusCode::NOT_FOUND, "see /metrics"),
            }))
        };
        let limits = Limits::default();
        if let Err(error) = http1::serve(stream, &limits, shutdown, &answer, &|_, _| None).await {
            tracing::debug!(%error, "connection for metrics ended");
        }
    }

    fn metrics(&self) -> Response<Body> {
        let kind = "text/plain; version=0.0.4; charset=utf-8";
        body::typed(StatusCode::OK, kind, self.prometheus())
    }
}

/// Appends one metric with its samples, each with its labels and value.
fn metric(text: &mut String, kind: &str, name: &str, help: &str, samples: &[(String, u64)]) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "# HELP hearth_{name} {help}");
    let _ = writeln!(text, "# TYPE hearth_{name} {kind}");
    for (labels, value) in samples {
        let _ = match labels.is_empty() {
            true => writeln!(text, "hearth_{name} {value}"),
            false => writeln!(text, "hearth_{name}{{{labels}}} {value}"),
        };
    }
}

fn prometheus(stats: Option<Stats>, stun: StunStats) -> String {
    let mut text = String::with_capacity(8192);
    if let Some(stats) = stats {
        relay_metrics(&mut text, &stats);
    }
    let one = |name: &str, value: u64| (format!("result=\"{name}\""), value);
    metric(
        &mut text,
        "counter",
        "stun_requests_total",
        "STUN packets by what became of them",
        &[
            one("answered_ipv4", stun.answered_ipv4),
            one("answered_ipv6", stun.answered_ipv6),
            one("ignored", stun.ignored),
            one("limited", stun.limited),
            one("read_error", stun.read_errors),
            one("write_error", stun.write_errors),
        ],
    );
    text
}

fn relay_metrics(text: &mut String, stats: &Stats) {
    let as_u64 = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
    for (name, help, value) in [
        (
            "connections",
            "Clients that are logged in",
            stats.connections,
        ),
        ("logins", "Connections that are logging in", stats.logins),
        ("keys", "Different keys among the clients", stats.keys),
        (
            "duplicate_keys",
            "Keys with more than one connection",
            stats.duplicate_keys,
        ),
        (
            "home_connections",
            "Clients whose home is this relay",
            stats.home_connections,
        ),
        (
            "not_ideal_connections",
            "Clients that would rather use another relay of the region",
            stats.not_ideal_connections,
        ),
        (
            "mesh_connections",
            "Connections of other relays of the region",
            stats.mesh_connections,
        ),
        (
            "mesh_links",
            "Connections to other relays of the region",
            stats.mesh_links,
        ),
        (
            "remote_keys",
            "Keys reached through other relays of the region",
            stats.remote_keys,
        ),
        (
            "queued_packets",
            "Packets that wait for slow clients",
            stats.queued_packets,
        ),
        (
            "pool_bytes",
            "Bytes of the packet pool in use",
            stats.pool_bytes_used,
        ),
    ] {
        let name = format!("derp_{name}");
        metric(
            text,
            "gauge",
            &name,
            help,
            &[(String::new(), as_u64(value))],
        );
    }
    for (name, help, value) in [
        ("accepted_total", "Connections taken", stats.accepted),
        (
            "duplicates_total",
            "Connections of a key that had one already",
            stats.duplicates,
        ),
        (
            "write_timeouts_total",
            "Connections that took none of their bytes",
            stats.write_timeouts,
        ),
        (
            "faults_total",
            "Logged-in clients that broke the protocol",
            stats.faults,
        ),
        (
            "disconnected_total",
            "Connections closed because admission ended",
            stats.disconnected,
        ),
        (
            "rate_waits_total",
            "Times a client had to wait because of a rate",
            stats.rate_waits,
        ),
        (
            "home_moves_in_total",
            "Clients that made this relay their home",
            stats.home_moves_in,
        ),
        (
            "home_moves_out_total",
            "Clients that left this relay as home",
            stats.home_moves_out,
        ),
        ("pings_total", "Pings of clients", stats.pings),
        (
            "received_packets_total",
            "Packets from clients",
            stats.received.packets,
        ),
        (
            "received_bytes_total",
            "Bytes of packets from clients",
            stats.received.bytes,
        ),
        (
            "sent_packets_total",
            "Packets to clients",
            stats.sent.packets,
        ),
        (
            "sent_bytes_total",
            "Bytes of packets to clients",
            stats.sent.bytes,
        ),
        (
            "forwarded_in_packets_total",
            "Packets from other relays",
            stats.forwarded_in.packets,
        ),
        (
            "forwarded_out_packets_total",
            "Packets to other relays",
            stats.forwarded_out.packets,
        ),
    ] {
        let name = format!("derp_{name}");
        metric(text, "counter", &name, help, &[(String::new(), value)]);
    }
    let refused = |reason: &str, value| (format!("reason=\"{reason}\""), value);
    metric(
        text,
        "counter",
        "derp_refused_total",
        "Connections that did not come to be, by reason",
        &[
            refused("not_admitted", stats.refused),
            refused("full", stats.turned_away),
            refused("pushed_out", stats.logins_evicted),
            refused("bad_login", stats.logins_failed),
            refused("too_many_of_key", stats.replaced),
        ],
    );
    let gone = |reason: &str, value| (format!("reason=\"{reason}\""), value);
    metric(
        text,
        "counter",
        "derp_peer_gone_total",
        "Notices that a peer cannot be reached, by reason",
        &[
            gone("disconnected", stats.peer_gone_disconnected),
            gone("not_here", stats.peer_gone_not_here),
            gone("suppressed", stats.peer_gone_suppressed),
        ],
    );
    let labels = |drop: &RelayDrops| format!("reason=\"{}\",kind=\"{}\"", drop.reason, drop.kind);
    let drops = relay::drops(stats);
    let packets: Vec<_> = drops
        .iter()
        .map(|drop| (labels(drop), drop.packets))
        .collect();
    let bytes: Vec<_> = drops
        .iter()
        .map(|drop| (labels(drop), drop.bytes))
        .collect();
    let help = "Packets that were dropped";
    metric(
        text,
        "counter",
        "derp_packets_dropped_total",
        help,
        &packets,
    );
    let help = "Bytes of packets that were dropped";
    metric(text, "counter", "derp_bytes_dropped_total", help, &bytes);
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

    #[test]
    fn without_a_relay_there_is_still_stun() {
        let text = prometheus(None, StunStats::default());
        assert!(text.contains("stun_requests_total") && !text.contains("derp"));
    }
}
