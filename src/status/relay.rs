//! Counters of the relay and of STUN, as JSON for the command line; metrics are made from the same.

use std::sync::Arc;

use hearth_derp::Stats;
use hearth_derp::relay::Relay;
use hearth_derp::stats::{DropReason, PacketKind};
use hearth_derp::udp::{StunCounters, StunStats};

use super::http_counters::HttpCounters;
use crate::api::{RelayDrops, RelayReport, StunReport};

/// Counters of the relay, of STUN and of requests.
#[derive(Clone)]
pub struct Numbers {
    /// The relay, unless it is off.
    pub relay: Option<Relay>,
    /// The STUN responder.
    pub stun: StunCounters,
    /// Requests by route; a relay alone has none.
    pub http: Option<Arc<HttpCounters>>,
}

impl Numbers {
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
        connections: stats.connections,
        logins: stats.logins,
        keys: stats.keys,
        duplicate_keys: stats.duplicate_keys,
        home_connections: stats.home_connections,
        not_ideal_connections: stats.not_ideal_connections,
        mesh_connections: stats.mesh_connections,
        mesh_links: stats.mesh_links,
        remote_keys: stats.remote_keys,
        queued_packets: stats.queued_packets,
        pool_bytes_used: stats.pool_bytes_used,
        accepted: stats.accepted,
        turned_away: stats.turned_away,
        refused: stats.refused,
        logins_failed: stats.logins_failed,
        logins_evicted: stats.logins_evicted,
        write_timeouts: stats.write_timeouts,
        rate_waits: stats.rate_waits,
        packets_received: stats.received.packets,
        bytes_received: stats.received.bytes,
        packets_sent: stats.sent.packets,
        bytes_sent: stats.sent.bytes,
        packets_forwarded_in: stats.forwarded_in.packets,
        packets_forwarded_out: stats.forwarded_out.packets,
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

/// Dropped packets, one row for each reason and kind.
pub fn drops(stats: &Stats) -> Vec<RelayDrops> {
    let kinds = DropReason::ALL
        .into_iter()
        .flat_map(|reason| PacketKind::ALL.map(|kind| (reason, kind)));
    let drops = kinds.map(|(reason, kind)| {
        let tally = stats.drops.of(reason, kind);
        RelayDrops {
            reason: reason.label().to_owned(),
            kind: kind.label().to_owned(),
            packets: tally.packets,
            bytes: tally.bytes,
        }
    });
    drops.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_relay_the_report_says_that_it_is_off() {
        assert!(!report(None, StunStats::default()).is_on);
        assert!(report(Some(Stats::default()), StunStats::default()).is_on);
    }
}
