//! Counters of the relay and of STUN, as JSON for the command line; metrics are made from the same.

use std::sync::Arc;

use hearth_derp::Stats;
use hearth_derp::relay::Relay;
use hearth_derp::udp::{StunCounters, StunStats};
use tokio::sync::watch;

use super::http_counters::HttpCounters;
use crate::api::{RelayDrops, RelayReport, StunReport};
use hearth_core::state::snapshot::Snapshot;

/// Sources of the metrics.
#[derive(Clone)]
pub struct Metrics {
    /// The relay; `None` when it is disabled.
    pub relay: Option<Relay>,
    /// The STUN responder.
    pub stun: StunCounters,
    /// Requests by route; none in a relay without a control server.
    pub http: Option<Arc<HttpCounters>>,
    /// The states of the control server, if there is one.
    pub states: Option<watch::Receiver<Arc<Snapshot>>>,
}

impl Metrics {
    /// The report that the API sends.
    pub fn report(&self) -> RelayReport {
        report(self.relay.as_ref().map(Relay::stats), self.stun.stats())
    }
}

fn report(stats: Option<Stats>, stun: StunStats) -> RelayReport {
    let is_on = stats.is_some();
    let stats = stats.unwrap_or_default();
    RelayReport {
        is_on,
        stats,
        drops: drops(&stats),
        stun: StunReport {
            answered_ipv4: stun.answered_ipv4,
            answered_ipv6: stun.answered_ipv6,
            ignored: stun.ignored,
            limited: stun.limited,
            errors: stun.read_errors.wrapping_add(stun.write_errors),
        },
    }
}

fn drops(stats: &Stats) -> Vec<RelayDrops> {
    let drops = stats.drops.rows().map(|(reason, kind, tally)| RelayDrops {
        reason: reason.label().to_owned(),
        kind: kind.label().to_owned(),
        packets: tally.packets,
        bytes: tally.bytes,
    });
    drops.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use hearth_derp::stats::Tally;

    /// Scripts depend on these names.
    #[test]
    fn names_of_json_members_stay() {
        let json = serde_json::to_value(report(None, StunStats::default())).unwrap();
        let members: Vec<&String> = json.as_object().unwrap().keys().collect();
        let mut expected = [
            "isOn",
            "connections",
            "logins",
            "keys",
            "duplicateKeys",
            "homeConnections",
            "notIdealConnections",
            "meshConnections",
            "meshLinks",
            "remoteKeys",
            "queuedPackets",
            "poolBytesUsed",
            "accepted",
            "turnedAway",
            "refused",
            "loginsFailed",
            "loginsEvicted",
            "writeTimeouts",
            "rateWaits",
            "packetsReceived",
            "bytesReceived",
            "packetsSent",
            "bytesSent",
            "packetsForwardedIn",
            "packetsForwardedOut",
            "drops",
            "stun",
        ];
        expected.sort_unstable();
        assert_eq!(members, expected);
    }

    #[test]
    fn the_command_line_reads_what_the_server_reports() {
        let stats = Stats {
            connections: 7,
            received: Tally {
                packets: 2,
                bytes: 300,
            },
            refused: 1,
            ..Stats::default()
        };
        let report = report(Some(stats), StunStats::default());
        let text = serde_json::to_string(&report).unwrap();
        assert!(text.contains(r#""connections":7"#), "{text}");
        assert_eq!(serde_json::from_str::<RelayReport>(&text).unwrap(), report);
    }

    #[test]
    fn without_a_relay_the_report_says_that_it_is_off() {
        assert!(!report(None, StunStats::default()).is_on);
        assert!(report(Some(Stats::default()), StunStats::default()).is_on);
    }
}
