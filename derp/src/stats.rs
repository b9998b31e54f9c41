//! Counters of the relay, plain data for the host program to read.

/// Why a packet was dropped. The names are those of the reference's metric `derp_packets_dropped`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum DropReason {
    /// No connection has the destination's key.
    UnknownDestination,
    /// The receiver's connection ended before the packet could be written.
    GoneDisconnected,
    /// The receiver's lane was full, this was its oldest packet.
    QueueHead,
    /// The pool had no room for the packet.
    QueueTail,
    /// It was being written when the connection ended.
    WriteError,
    /// A relay of the region forwarded it here, but no connection has the destination's key.
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

/// The two kinds of packets, as the queue treats them. Source: `derpserver.packetKind`.
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

/// A number of packets and their bytes, without keys and headers.
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

    /// What was dropped for this reason, of this kind.
    pub fn of(&self, reason: DropReason, kind: PacketKind) -> Tally {
        self.0
            .get(reason as usize)
            .and_then(|kinds| kinds.get(kind as usize))
            .copied()
            .unwrap_or_default()
    }

    /// What was dropped in all.
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

/// A snapshot of the relay's state (first block) and of its counters since the start, which wrap
/// around.
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
    /// Connections that call this relay their home.
    pub home_connections: usize,
    /// Connections of clients that would rather use another relay of the region.
    pub not_ideal_connections: usize,
    /// Connections of other relays of the region.
    pub mesh_connections: usize,
    /// Connections to other relays of the region.
    pub mesh_links: usize,
    /// Keys that are reached through other relays of the region.
    pub remote_keys: usize,
    /// Packets that wait in queues.
    pub queued_packets: usize,
    /// Bytes of the pool in use.
    pub pool_bytes_used: usize,

    /// Connections handed to the relay.
    pub accepted: u64,
    /// Connections turned away because the relay was full or shutting down.
    pub turned_away: u64,
    /// Connections pushed out while logging in because others came.
    pub logins_evicted: u64,
    /// Connections that broke the protocol or ran out of time while logging in.
    pub logins_failed: u64,
    /// Clients that were not admitted.
    pub refused: u64,
    /// Connections of a key that had a connection already.
    pub duplicates: u64,
    /// Connections closed because their key had too many.
    pub replaced: u64,
    /// Connections closed because their key is not admitted any more, or because another relay of
    /// the region asked for it.
    pub disconnected: u64,
    /// Clients that made this relay their home.
    pub home_moves_in: u64,
    /// Clients that made another relay their home.
    pub home_moves_out: u64,
    /// Logged-in connections that broke the protocol.
    pub faults: u64,
    /// Times that a client had to wait because of the rate of its own or of all clients together.
    pub rate_waits: u64,
    /// Connections that took none of their bytes in time.
    pub write_timeouts: u64,
    /// Packets from clients.
    pub received: Tally,
    /// Packets written to clients.
    pub sent: Tally,
    /// Packets from other relays of the region.
    pub forwarded_in: Tally,
    /// Packets written to other relays of the region.
    pub forwarded_out: Tally,
    /// Packets dropped.
    pub drops: Drops,
    /// Pings from clients.
    pub pings: u64,
    /// Frames that tell a client that a peer has left.
    pub peer_gone_disconnected: u64,
    /// Frames that tell a client that a peer is not here.
    pub peer_gone_not_here: u64,
    /// Such frames of either kind that were left out because of a limit.
    pub peer_gone_suppressed: u64,
}

/// Adds one to a counter; at the end of its range it starts again.
pub(crate) fn count(counter: &mut u64) {
    *counter = counter.wrapping_add(1);
}
