//! Limits and timers of the relay.

use std::time::Duration;

/// Limits and timers that a board or an operator may want to change.
///
/// Worst-case memory is about `pool_bytes` + `connections` x (`partial_bytes` + 32 x
/// `peer_gone_pending` + 8 x `destinations_per_key` + 2 x 40 x `queue_slots` + 6 KiB) + `logins` x
/// (`partial_bytes` + 6 KiB); idle connections use about 2 KiB. In a region with several relays, add `mesh_keys` x 200 bytes, and for
/// each mesh peer 2 x `connections` x 80 bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Concurrent connections that are logged in. When there are as many, a client is admitted only in
    /// place of another one, see [`Standing`](crate::Standing).
    pub connections: usize,
    /// Concurrent connections from one IPv4 address or IPv6 /64 that are logged in; loopback and mesh
    /// peers are exempt.
    pub connections_per_address: usize,
    /// Concurrent logins, beside `connections`. One more evicts the oldest of the address that has the
    /// most, so that nobody's logins keep out those of others.
    pub logins: usize,
    /// Time from the start of a connection to a complete `ClientInfo`. Source: 10 s in
    /// `derpserver.Server.accept`.
    pub login_timeout: Duration,
    /// Largest `ClientInfo` body in bytes. The reference accepts 256 KiB; known clients send less
    /// than 300 bytes.
    pub client_info_bytes: u32,
    /// Write timeout: how long a client may accept no bytes while some are queued. Source:
    /// `derpserver.DefaultTCPWiteTimeout`, 2 s.
    pub write_timeout: Duration,
    /// Keepalive interval. The reference has 60 s (`derp.KeepAlive`), and clients time out after twice
    /// that. With the jitter it is below the 50 s and 60 s after which proxies cut idle connections
    /// (`timeout client` in Debian's haproxy.cfg, `proxy_read_timeout` of nginx).
    pub keepalive: Duration,
    /// Largest keepalive jitter, which is chosen once for each connection and added to `keepalive`.
    /// Source: 5 s in `derpserver.sclient.sendLoop`.
    pub keepalive_jitter: Duration,
    /// How long to wait, after closing our side, for the client to close. Closing with unread input
    /// would reset the connection and could lose the `Restarting` frame.
    pub linger: Duration,
    /// Packets in each of the two lanes of a send queue. Source:
    /// `derpserver.defaultPerClientSendQueueDepth`.
    pub queue_slots: usize,
    /// Bytes in the data lane of a send queue; a single larger packet passes if the lane is empty.
    pub data_queue_bytes: usize,
    /// Bytes in the discovery lane of a send queue, with the same exception.
    pub disco_queue_bytes: usize,
    /// Size of the pool in bytes, which all queued packets and partial frames share.
    pub pool_bytes: usize,
    /// Bytes of the pool reserved for discovery packets; at most a quarter of `pool_bytes` is used.
    pub pool_reserve_bytes: usize,
    /// Bytes of a partial frame that are not charged to the pool.
    pub partial_bytes: usize,
    /// Bytes of packets in one batch that is taken from the queue to be written; at least one packet
    /// is taken.
    pub batch_bytes: usize,
    /// Receivers remembered for each sending key, which get `PeerGone` when the key disconnects; 8
    /// bytes each. Further receivers do not get it.
    pub destinations_per_key: usize,
    /// Queued `PeerGone` notices of each connection; 32 bytes each. Further ones are dropped and
    /// counted.
    pub peer_gone_pending: usize,
    /// Rate limits; can be changed later.
    pub rates: Rates,
    /// Idle timeout: how long a client may send nothing. Zero, as in the reference, is no timeout: a
    /// client without traffic sends nothing.
    pub idle_timeout: Duration,
    /// Keys reachable through mesh links, in total; about 200 bytes each. Further keys are not
    /// reachable.
    pub mesh_keys: usize,
    /// Write timeout of mesh peers and mesh links. Source: 30 s in
    /// `derpserver.sclient.setWriteDeadline`.
    pub mesh_write_timeout: Duration,
}

impl Limits {
    /// Upper bound of [`Limits::connections_per_key`].
    pub(crate) const MAX_PER_KEY: usize = 8;

    /// Most connections of one key, the share of it in [`Limits::connections`]: the reference has no
    /// bound, and a client has one, or two while it changes networks.
    pub fn connections_per_key(&self) -> usize {
        (self.connections >> 4).clamp(2, Self::MAX_PER_KEY)
    }
}

/// Rate limits for traffic from clients. Mesh peers are exempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rates {
    /// Bytes per second from one client, including frame headers; 0 is no limit. Source:
    /// `derpserver.RateConfig`.
    pub client_bytes_per_second: u32,
    /// Burst of one client in bytes; at least [`MIN_BURST_BYTES`] is used.
    pub client_burst_bytes: u32,
    /// Bytes per second from all clients together; 0 is no limit.
    pub total_bytes_per_second: u32,
    /// Burst of all clients together in bytes, with the same minimum.
    pub total_burst_bytes: u32,
}

impl Default for Rates {
    /// No rate limits.
    fn default() -> Self {
        Rates {
            client_bytes_per_second: 0,
            client_burst_bytes: 256 << 10,
            total_bytes_per_second: 0,
            total_burst_bytes: 512 << 10,
        }
    }
}

impl Rates {
    /// These rates with bursts of at least [`MIN_BURST_BYTES`].
    #[cfg(feature = "tokio")]
    pub(crate) fn with_min_burst(self) -> Self {
        Rates {
            client_burst_bytes: self.client_burst_bytes.max(MIN_BURST_BYTES),
            total_burst_bytes: self.total_burst_bytes.max(MIN_BURST_BYTES),
            ..self
        }
    }
}

/// Smallest burst in bytes: the largest frame of a client with its header. With less, a client that
/// limits its own rate could never send such a frame. Source:
/// `derpserver.minRateLimitTokenBucketSize`.
pub const MIN_BURST_BYTES: u32 = (64 << 10) + 32 + 5;

impl Default for Limits {
    /// Limits for a board with 128 MB of memory.
    fn default() -> Self {
        Limits {
            connections: 1024,
            connections_per_address: 512,
            logins: 64,
            login_timeout: Duration::from_secs(10),
            client_info_bytes: 8 << 10,
            write_timeout: Duration::from_secs(2),
            keepalive: Duration::from_secs(40),
            keepalive_jitter: Duration::from_secs(5),
            linger: Duration::from_secs(1),
            queue_slots: 32,
            data_queue_bytes: 64 << 10,
            disco_queue_bytes: 16 << 10,
            pool_bytes: 4 << 20,
            pool_reserve_bytes: 256 << 10,
            partial_bytes: 2 << 10,
            batch_bytes: 64 << 10,
            destinations_per_key: 512,
            peer_gone_pending: 128,
            rates: Rates::default(),
            idle_timeout: Duration::ZERO,
            mesh_keys: 4096,
            mesh_write_timeout: Duration::from_secs(30),
        }
    }
}
