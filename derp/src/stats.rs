//! Statistics of the relay: plain data for the host program, and the table of its metrics. Does no
//! I/O.

/// Why a packet was dropped. The reasons are those of the reference's metric `derp_packets_dropped`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum DropReason {
    /// The destination is not reachable.
    UnknownDestination,
    /// The receiver's connection was closed before the packet was written.
    GoneDisconnected,
    /// The receiver's lane was full; this was its oldest packet.
    QueueHead,
    /// The pool had no room for the packet.
    QueueTail,
    /// The connection was closed while the packet was being written.
    WriteError,
    /// A mesh peer forwarded it, but the destination is not connected here.
    UnknownDestinationOnForward,
}

impl DropReason {
    /// Every reason.
    pub const ALL: [DropReason; 6] = [
        DropReason::UnknownDestination,
        DropReason::GoneDisconnected,
        DropReason::QueueHead,
        DropReason::QueueTail,
        DropReason::WriteError,
        DropReason::UnknownDestinationOnForward,
    ];

    /// The label of the reference's metric. Source: `derpserver.dropReason`.
    pub fn label(self) -> &'static str {
        match self {
            DropReason::UnknownDestination => "unknown_dest",
            DropReason::GoneDisconnected => "gone_disconnected",
            DropReason::QueueHead => "queue_head",
            DropReason::QueueTail => "queue_tail",
            DropReason::WriteError => "write_error",
            DropReason::UnknownDestinationOnForward => "unknown_dest_on_fwd",
        }
    }
}

/// Kind of a packet, which decides about its lane. Source: `derpserver.packetKind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum PacketKind {
    /// A discovery packet.
    Disco,
    /// Anything else.
    Other,
}

impl PacketKind {
    /// Both kinds.
    pub const ALL: [PacketKind; 2] = [PacketKind::Disco, PacketKind::Other];

    /// The kind of this packet.
    pub fn of(packet: &[u8]) -> Self {
        if crate::frame::is_disco(packet) {
            PacketKind::Disco
        } else {
            PacketKind::Other
        }
    }

    /// The label of the reference's metric.
    pub fn label(self) -> &'static str {
        match self {
            PacketKind::Disco => "disco",
            PacketKind::Other => "other",
        }
    }
}

/// Number of packets and of their bytes, without keys and headers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

impl Tally {
    /// Counts one packet of `length` bytes.
    pub fn record(&mut self, length: usize) {
        self.packets = self.packets.wrapping_add(1);
        self.bytes = self.bytes.wrapping_add(length as u64);
    }

    /// Adds another tally.
    pub fn add(&mut self, other: Tally) {
        self.packets = self.packets.wrapping_add(other.packets);
        self.bytes = self.bytes.wrapping_add(other.bytes);
    }
}

/// Dropped packets by reason and kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drops([[Tally; PacketKind::ALL.len()]; DropReason::ALL.len()]);

impl Drops {
    /// Counts one dropped packet.
    pub fn record(&mut self, reason: DropReason, packet: &[u8]) {
        let kind = PacketKind::of(packet);
        if let Some(tally) = self
            .0
            .get_mut(reason as usize)
            .and_then(|kinds| kinds.get_mut(kind as usize))
        {
            tally.record(packet.len());
        }
    }

    /// Drops of one reason and kind.
    pub fn of(&self, reason: DropReason, kind: PacketKind) -> Tally {
        self.0
            .get(reason as usize)
            .and_then(|kinds| kinds.get(kind as usize))
            .copied()
            .unwrap_or_default()
    }

    /// Drops of all reasons and kinds, one row for each pair.
    pub fn rows(&self) -> impl Iterator<Item = (DropReason, PacketKind, Tally)> + '_ {
        let pairs = DropReason::ALL
            .into_iter()
            .flat_map(|reason| PacketKind::ALL.map(|kind| (reason, kind)));
        pairs.map(|(reason, kind)| (reason, kind, self.of(reason, kind)))
    }

    /// The sum of all drops.
    pub fn total(&self) -> Tally {
        self.0
            .iter()
            .flatten()
            .fold(Tally::default(), |mut sum, tally| {
                sum.add(*tally);
                sum
            })
    }
}

/// Statistics of the relay: gauges (first block), and counters since the start, which wrap around.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Connections that are logged in.
    pub connections: usize,
    /// Connections that are logging in.
    pub logins: usize,
    /// Different keys among the connections.
    pub keys: usize,
    /// Keys with more than one connection.
    pub duplicate_keys: usize,
    /// Connections whose home is this relay.
    pub home_connections: usize,
    /// Connections of clients that prefer another relay of the region.
    pub not_ideal_connections: usize,
    /// Connections of mesh peers, the other relays of the region.
    pub mesh_connections: usize,
    /// Mesh links, the connections to other relays of the region.
    pub mesh_links: usize,
    /// Keys that are reachable through mesh links.
    pub remote_keys: usize,
    /// Queued packets.
    pub queued_packets: usize,
    /// Bytes of the pool in use.
    pub pool_bytes_used: usize,

    /// Connections accepted.
    pub accepted: u64,
    /// Connections refused because of a connection limit or a shutdown, some of them after the login.
    pub turned_away: u64,
    /// Connections evicted before their login by newer ones.
    pub logins_evicted: u64,
    /// Connections closed before their login for a protocol error or a timeout.
    pub logins_failed: u64,
    /// Clients that were not admitted.
    pub refused: u64,
    /// Connections of a key that had a connection already.
    pub duplicates: u64,
    /// Connections closed because their key had too many.
    pub replaced: u64,
    /// Connections closed because their address or key had the most when the relay was full.
    pub crowded_out: u64,
    /// Connections closed because admission was revoked, or because a mesh peer requested it.
    pub disconnected: u64,
    /// Clients that made this relay their home.
    pub home_moves_in: u64,
    /// Clients that left this relay as home.
    pub home_moves_out: u64,
    /// Logged-in connections closed for a protocol error.
    pub faults: u64,
    /// Waits of clients because of their own or the total rate limit.
    pub rate_waits: u64,
    /// Connections closed by a write timeout.
    pub write_timeouts: u64,
    /// Packets from clients.
    pub received: Tally,
    /// Packets written to clients.
    pub sent: Tally,
    /// Packets from mesh peers.
    pub forwarded_in: Tally,
    /// Packets written to mesh links.
    pub forwarded_out: Tally,
    /// Dropped packets.
    pub drops: Drops,
    /// Pings from clients.
    pub pings: u64,
    /// `PeerGone` frames because a peer disconnected.
    pub peer_gone_disconnected: u64,
    /// `PeerGone` frames because a peer is not here.
    pub peer_gone_not_here: u64,
    /// `PeerGone` frames that were left out because of a limit.
    pub peer_gone_suppressed: u64,
}

/// Whether a metric can only grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// Counts events since the start.
    Counter,
    /// Current value.
    Gauge,
}

/// One sample of [`Stats`] with its names for Prometheus and for JSON.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Type of the metric.
    pub kind: MetricKind,
    /// Name without the prefix of the program. Samples with the same name are one metric, and stand
    /// next to each other in [`METRICS`].
    pub name: &'static str,
    /// Name and value of the sample's label, if it has one.
    pub label: Option<(&'static str, &'static str)>,
    /// Member of the JSON report; none if the report leaves it out.
    pub json: Option<&'static str>,
    /// One line of description.
    pub help: &'static str,
    /// Reads the value.
    pub get: fn(&Stats) -> u64,
    /// Writes the value, for a reader of the JSON report.
    pub set: fn(&mut Stats, u64),
}

macro_rules! optional {
    () => {
        None
    };
    ($value:expr) => {
        Some($value)
    };
}

macro_rules! metrics {
    ($($kind:ident $name:literal $({$label:ident: $value:literal})? $(json $json:literal)?
        = $field:ident $(.$part:ident)?, $help:literal;)*) => {
        &[$(Metric {
            kind: MetricKind::$kind,
            name: $name,
            label: optional!($((stringify!($label), $value))?),
            json: optional!($($json)?),
            help: $help,
            get: |stats| u64::try_from(stats.$field$(.$part)?).unwrap_or(u64::MAX),
            set: |stats, value| stats.$field$(.$part)? = value.try_into().unwrap_or_default(),
        }),*]
    };
}

/// All samples of [`Stats`] but [`Stats::drops`], which [`Drops::rows`] lists.
pub const METRICS: &[Metric] = metrics! {
    Gauge "connections" json "connections" = connections, "Clients that are logged in";
    Gauge "logins" json "logins" = logins, "Connections that are logging in";
    Gauge "keys" json "keys" = keys, "Different keys among the clients";
    Gauge "duplicate_keys" json "duplicateKeys" = duplicate_keys, "Keys with more than one connection";
    Gauge "home_connections" json "homeConnections" = home_connections,
        "Clients whose home is this relay";
    Gauge "not_ideal_connections" json "notIdealConnections" = not_ideal_connections,
        "Clients that prefer another relay of the region";
    Gauge "mesh_connections" json "meshConnections" = mesh_connections,
        "Connections from other relays of the region";
    Gauge "mesh_links" json "meshLinks" = mesh_links, "Connections to other relays of the region";
    Gauge "remote_keys" json "remoteKeys" = remote_keys,
        "Keys reachable through other relays of the region";
    Gauge "queued_packets" json "queuedPackets" = queued_packets, "Packets queued for slow clients";
    Gauge "pool_bytes" json "poolBytesUsed" = pool_bytes_used, "Bytes of the packet pool in use";

    Counter "accepted_total" json "accepted" = accepted, "Connections accepted";
    Counter "duplicates_total" = duplicates, "Connections with the key of another connection";
    Counter "write_timeouts_total" json "writeTimeouts" = write_timeouts,
        "Connections closed by a write timeout";
    Counter "faults_total" = faults, "Logged-in clients closed for a protocol error";
    Counter "disconnected_total" = disconnected, "Connections closed because admission was revoked";
    Counter "rate_waits_total" json "rateWaits" = rate_waits, "Waits of clients because of a rate limit";
    Counter "home_moves_in_total" = home_moves_in, "Clients that made this relay their home";
    Counter "home_moves_out_total" = home_moves_out, "Clients that left this relay as home";
    Counter "pings_total" = pings, "Pings from clients";
    Counter "received_packets_total" json "packetsReceived" = received.packets,
        "Packets from clients";
    Counter "received_bytes_total" json "bytesReceived" = received.bytes,
        "Bytes of packets from clients";
    Counter "sent_packets_total" json "packetsSent" = sent.packets, "Packets to clients";
    Counter "sent_bytes_total" json "bytesSent" = sent.bytes, "Bytes of packets to clients";
    Counter "forwarded_in_packets_total" json "packetsForwardedIn" = forwarded_in.packets,
        "Packets from other relays of the region";
    Counter "forwarded_out_packets_total" json "packetsForwardedOut" = forwarded_out.packets,
        "Packets to other relays of the region";

    Counter "refused_total" {reason: "not_admitted"} json "refused" = refused,
        "Connections refused or closed at the login, by reason";
    Counter "refused_total" {reason: "full"} json "turnedAway" = turned_away, "";
    Counter "refused_total" {reason: "pushed_out"} json "loginsEvicted" = logins_evicted, "";
    Counter "refused_total" {reason: "bad_login"} json "loginsFailed" = logins_failed, "";
    Counter "refused_total" {reason: "too_many_of_key"} = replaced, "";
    Counter "refused_total" {reason: "crowded_out"} = crowded_out, "";
    Counter "peer_gone_total" {reason: "disconnected"} = peer_gone_disconnected,
        "Notices that a peer is unreachable, by reason";
    Counter "peer_gone_total" {reason: "not_here"} = peer_gone_not_here, "";
    Counter "peer_gone_total" {reason: "suppressed"} = peer_gone_suppressed, "";
};

/// Increments a counter, which wraps around.
pub(crate) fn count(counter: &mut u64) {
    *counter = counter.wrapping_add(1);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_reads_and_writes_a_field_of_its_own() {
        let mut stats = Stats::default();
        for (metric, value) in METRICS.iter().zip(1..) {
            assert_eq!((metric.get)(&stats), 0, "{metric:?}");
            (metric.set)(&mut stats, value);
        }
        for (metric, value) in METRICS.iter().zip(1..) {
            assert_eq!((metric.get)(&stats), value, "{metric:?}");
        }
    }

    #[test]
    fn samples_of_one_metric_stand_together_and_the_first_has_the_help() {
        let mut names = std::collections::HashSet::new();
        for (at, metric) in METRICS.iter().enumerate() {
            let is_first = at == 0 || METRICS[at - 1].name != metric.name;
            assert_eq!(is_first, names.insert(metric.name), "{}", metric.name);
            assert_eq!(is_first, !metric.help.is_empty(), "{}", metric.name);
            assert!(is_first || metric.label.is_some(), "{}", metric.name);
        }
    }
}
