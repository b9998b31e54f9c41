//! Every number of the relay that a board or an operator may want to change.

use std::time::Duration;

/// The relay's bounds and timers.
///
/// Worst-case memory is about `pool_bytes` + `connections` x (`partial_bytes` + 32 x
/// `peer_gone_pending` + 8 x `destinations_per_key` + 2 x 40 x `queue_slots` + 6 KiB); idle
/// connections use about 2 KiB. Where several relays form a region, add `mesh_keys` x 200 bytes, and
/// for each relay that watches this one twice `connections` x 80 bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once, those still logging in included.
    pub connections: usize,
    /// Connections at once from one address (IPv4) or one /64 (IPv6); loopback is exempt.
    pub connections_per_address: usize,
    /// Connections that may be logging in at once. One more pushes the oldest of them out, so that
    /// connections that never finish cannot keep others from logging in.
    pub logins: usize,
    /// Time from the start of a connection to a complete `ClientInfo`. Source: 10 s in
    /// `derpserver.Server.accept`.
    pub login_timeout: Duration,
    /// Largest `ClientInfo` body in bytes. The reference takes 256 KiB; known clients send less
    /// than 300 bytes.
    pub client_info_bytes: u32,
    /// How long the peer may take none of the bytes waiting for it. Source:
    /// `derpserver.DefaultTCPWiteTimeout`, 2 s.
    pub write_timeout: Duration,
    /// Time between keepalive frames. Source: `derp.KeepAlive`; clients give up after twice this
    /// time.
    pub keepalive: Duration,
    /// Upper bound of the random time added to `keepalive`, drawn once for each connection, so that
    /// connections do not beat together. Source: 5 s in `derpserver.sclient.sendLoop`.
    pub keepalive_jitter: Duration,
    /// How long to wait, after a polite close, for the peer to close too. Closing with unread input
    /// would reset the connection and could destroy the `Restarting` frame on its way.
    pub linger: Duration,
    /// Packets in each of the two lanes of a connection's queue. Source:
    /// `derpserver.defaultPerClientSendQueueDepth`.
    pub queue_slots: usize,
    /// Bytes in the data lane of a connection's queue; a single larger packet still passes when the
    /// lane is empty.
    pub data_queue_bytes: usize,
    /// Bytes in the discovery lane of a connection's queue, with the same exception.
    pub disco_queue_bytes: usize,
    /// Bytes of all queued packets and partial frames of all connections together.
    pub pool_bytes: usize,
    /// The part of `pool_bytes`, in bytes, that only discovery packets may use. The relay takes no
    /// more than a quarter of the pool for it.
    pub pool_reserve_bytes: usize,
    /// Bytes of a partial frame that a connection holds without asking the pool.
    pub partial_bytes: usize,
    /// Bytes of packets that one vectored write takes out of the queue; at least one packet is
    /// taken.
    pub batch_bytes: usize,
    /// Connections remembered for each key as having got a packet from it, to tell them when the
    /// key leaves; 8 bytes each. Beyond it a receiver is not told.
    pub destinations_per_key: usize,
    /// Notices about keys that left, waiting in each connection; 32 bytes each. Beyond it they are
    /// dropped and counted.
    pub peer_gone_pending: usize,
    /// How fast clients may send; can be changed later.
    pub rates: Rates,
    /// How long a client may say nothing; zero is for ever, as in the reference, since a client
    /// with nothing to send is silent.
    pub idle_timeout: Duration,
    /// Keys in all that are reached through other relays of the region; about 200 bytes each.
    /// Beyond it they are not reached.
    pub mesh_keys: usize,
    /// How long another relay of the region may take none of the bytes waiting for it. Source: 30 s
    /// in `derpserver.sclient.setWriteDeadline`.
    pub mesh_write_timeout: Duration,
}

/// How fast clients may send. Other relays of the region are exempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rates {
    /// Bytes each second that one client may send, frame headers included; 0 is no limit. Source:
    /// `derpserver.RateConfig`.
    pub client_bytes_per_second: u32,
    /// Bytes that one client may send at once above that rate. The relay takes no less than
    /// [`MIN_BURST_BYTES`].
    pub client_burst_bytes: u32,
    /// Bytes each second that all clients together may send; 0 is no limit.
    pub total_bytes_per_second: u32,
    /// Bytes that all clients together may send at once above that rate, with the same least value.
    pub total_burst_bytes: u32,
}

impl Default for Rates {
    /// No limits.
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
    /// The same with bursts that let every frame through.
    pub(crate) fn with_min_burst(self) -> Self {
        Rates {
            client_burst_bytes: self.client_burst_bytes.max(MIN_BURST_BYTES),
            total_burst_bytes: self.total_burst_bytes.max(MIN_BURST_BYTES),
            ..self
        }
    }
}

/// The least burst in bytes: the largest frame of a client with its header. With less, clients that
/// keep to the rate could never send such a frame. Source:
/// `derpserver.minRateLimitTokenBucketSize`.
pub const MIN_BURST_BYTES: u32 = (64 << 10) + 32 + 5;

impl Default for Limits {
    /// Values for a board with 128 MB of memory.
    fn default() -> Self {
        Limits {
            connections: 1024,
            connections_per_address: 512,
            logins: 64,
            login_timeout: Duration::from_secs(10),
            client_info_bytes: 8 << 10,
            write_timeout: Duration::from_secs(2),
            keepalive: Duration::from_secs(60),
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
