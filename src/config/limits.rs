//! Limits: every bound of the program in one place.
//!
//! Each row is a field of [`Limits`] and a key of the `[limits]` section, with its default and its range.
//! The defaults are for an unknown machine; the files of `board-configs/` take precedence.

use std::fmt;
use std::time::Duration;

use super::file::RawConfig;
use super::value::{Amount, ByteCount, Range};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;
const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;

macro_rules! kind {
    (count) => {
        usize
    };
    (bytes) => {
        usize
    };
    (time) => {
        Duration
    };
}

macro_rules! amount {
    (count, $value:expr) => {
        $value
    };
    (bytes, $value:expr) => {
        $value
    };
    (time, $value:expr) => {
        Duration::from_secs($value)
    };
}

macro_rules! read {
    (count, $raw:ident, $key:expr, $range:expr) => {
        $raw.take_in_range($key, $range)
    };
    (bytes, $raw:ident, $key:expr, $range:expr) => {
        $raw.take_in_range(
            $key,
            Range {
                least: ByteCount($range.least),
                most: ByteCount($range.most),
            },
        )
        .map(|bytes: ByteCount| bytes.0)
    };
    (time, $raw:ident, $key:expr, $range:expr) => {
        $raw.take_in_range($key, $range)
    };
}

macro_rules! row {
    (count, $value:expr) => {
        Row::Count($value)
    };
    (bytes, $value:expr) => {
        Row::Amount(ByteCount($value).show())
    };
    (time, $value:expr) => {
        Row::Amount($value.show())
    };
}

macro_rules! limits {
    ($($(#[$doc:meta])* $name:ident: $kind:ident = $default:expr, $least:expr, $most:expr;)*) => {
        /// The limits. Everything that a peer can make grow is bounded by one of them.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct Limits {
            $($(#[$doc])* pub $name: kind!($kind),)*
        }

        impl Default for Limits {
            fn default() -> Self {
                Self { $($name: amount!($kind, $default),)* }
            }
        }

        impl Limits {
            /// Takes the `[limits]` section from a file; missing keys are taken from `limits`.
            pub(super) fn take(raw: &mut RawConfig, mut limits: Self) -> Self {
                $(
                    let range = Range {
                        least: amount!($kind, $least),
                        most: amount!($kind, $most),
                    };
                    let key = concat!("limits.", stringify!($name));
                    if let Some(value) = read!($kind, raw, key, range) {
                        limits.$name = value;
                    }
                )*
                limits
            }

            /// All rows, as in a file, in the order above.
            pub fn rows(&self) -> Vec<(&'static str, Row)> {
                vec![$((stringify!($name), row!($kind, self.$name)),)*]
            }
        }
    };
}

/// The value of a row, as in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Row {
    /// A count.
    Count(usize),
    /// A size or a duration, with its unit.
    Amount(String),
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => count.fmt(f),
            Self::Amount(amount) => f.pad(amount),
        }
    }
}

limits! {
    /// Open connections of all kinds; further ones wait in the backlog.
    connections: count = 1024, 16, 65_536;
    /// Open connections per source: one IPv4 address or IPv6 /64, which may be a whole household.
    connections_per_address: count = 512, 4, 65_536;
    /// Concurrent TLS and Noise handshakes; further ones wait. Limits CPU use, not memory.
    handshakes: count = 8, 1, 1024;
    /// Timeout from the first byte of a connection to the end of its handshake and request header.
    handshake_timeout: time = 10, 1, 10 * MINUTE;
    /// Timeout of a request body, from the end of the header.
    request_timeout: time = 30, 1, HOUR;
    /// Timeout of an idle HTTP connection.
    idle_timeout: time = 2 * MINUTE, 5, HOUR;
    /// Size of a register request, in bytes.
    register_body: bytes = 64 * KIB, 4 * KIB, MIB;
    /// Size of a map request, in bytes.
    map_body: bytes = 64 * KIB, 4 * KIB, MIB;
    /// Size of an API request, in bytes.
    admin_body: bytes = 64 * KIB, 4 * KIB, MIB;
    /// Size of all request bodies in transfer; further requests get 503. In bytes.
    request_bodies: bytes = 4 * MIB, 64 * KIB, 1024 * MIB;
    /// Concurrent requests per Noise connection.
    http2_streams: count = 8, 2, 256;
    /// HTTP/2 receive window of a connection and of a stream. At least 65535, the initial window of
    /// RFC 9113 section 6.9.2. In bytes.
    http2_window: bytes = 65_535, 65_535, 16 * MIB;
    /// Send buffer of an HTTP/2 stream, in bytes.
    http2_send_buffer: bytes = 16 * KIB, 4 * KIB, MIB;
    /// Concurrent map streams: devices online.
    map_streams: count = 512, 4, 65_536;
    /// Full maps that are built and sent concurrently; further ones wait.
    full_map_builds: count = 2, 1, 64;
    /// Concurrent requests to nodes (C2N).
    node_calls: count = 16, 1, 1024;
    /// Size of a node's response to a C2N request. The map of a node with a thousand peers is the
    /// longest. In bytes.
    node_answer: bytes = 512 * KIB, 4 * KIB, 16 * MIB;
    /// Audit entries that nodes reported; the oldest is dropped.
    audit_entries: count = 128, 1, 65_536;
    /// Entries of the audit log; the oldest ones are deleted.
    audit_log_entries: count = 4096, 16, 65_536;
    /// Size of the audit log in the database, in bytes; the oldest entries are deleted.
    audit_log_bytes: bytes = MIB, 16 * KIB, 64 * MIB;
    /// SSH sessions that wait for a check; the oldest is dropped.
    ssh_checks: count = 64, 4, 4096;
    /// Queued changes; when the queue is full, requests get 503.
    engine_queue: count = 256, 16, 65_536;
    /// Changes per commit.
    engine_batch: count = 64, 1, 4096;
    /// Pending registrations; the oldest is dropped.
    pending_registrations: count = 128, 4, 4096;
    /// Timeout of a pending registration.
    pending_timeout: time = 24 * HOUR, 5 * MINUTE, 7 * 24 * HOUR;
    /// Nodes.
    nodes: count = 1000, 1, 16_384;
    /// Users.
    users: count = 256, 1, 16_384;
    /// Preauth keys, including used and expired ones.
    preauth_keys: count = 1024, 8, 65_536;
    /// API keys.
    api_keys: count = 64, 1, 4096;
    /// Size of the hostinfo that a node reports, in bytes.
    hostinfo: bytes = 16 * KIB, KIB, 256 * KIB;
    /// Routes of a node that are kept, exit routes first; `hearth status` names nodes with more.
    node_routes: count = 896, 8, 1024;
    /// Endpoints per node that are sent to peers.
    endpoints: count = 32, 4, 256;
    /// Relay connections.
    derp_connections: count = 512, 4, 65_536;
    /// Relay connections per source: one IPv4 address or IPv6 /64.
    derp_connections_per_address: count = 512, 1, 65_536;
    /// Relay connections that have not logged in; the oldest is dropped.
    derp_logins: count = 64, 4, 4096;
    /// Relay rate limit per client, in bytes per second; 0 is unlimited.
    derp_client_rate: bytes = 0, 0, 2047 * MIB;
    /// Relay burst per client above that rate, in bytes.
    derp_client_burst: bytes = 256 * KIB, 65 * KIB, 2047 * MIB;
    /// Relay rate limit of all clients together, in bytes per second; 0 is unlimited.
    derp_total_rate: bytes = 0, 0, 2047 * MIB;
    /// Relay burst of all clients together above that rate, in bytes.
    derp_total_burst: bytes = 512 * KIB, 65 * KIB, 2047 * MIB;
    /// Relay write timeout: how long a client may read nothing while data is waiting for it.
    derp_write_timeout: time = 2, 1, 10 * MINUTE;
    /// Relay idle timeout; 0 is none. Clients with nothing to send are silent.
    derp_idle_timeout: time = 0, 0, 24 * HOUR;
    /// Clients of mesh peers that are remembered.
    derp_mesh_keys: count = 4096, 16, 1_048_576;
    /// Cached answers of `derp.admit_url`.
    derp_admit_cache: count = 1024, 16, 65_536;
    /// Lifetime of a cached answer.
    derp_admit_time: time = MINUTE, 1, 24 * HOUR;
    /// Size of a DERP map from a file or URL, in bytes.
    derp_map: bytes = 512 * KIB, 4 * KIB, 16 * MIB;
    /// STUN requests per second and source (one IPv4 address or IPv6 /64, which may be a whole
    /// household); 0 is unlimited.
    stun_rate: count = 50, 0, 1_000_000;
    /// Queued packets per relay client.
    derp_queue_packets: count = 32, 4, 1024;
    /// Size of the queue of a relay client, in bytes.
    derp_queue: bytes = 64 * KIB, 64 * KIB, 16 * MIB;
    /// Size of the queues of all relay clients; when it is used up, packets are dropped. In bytes.
    derp_pool: bytes = 4 * MIB, 256 * KIB, 1024 * MIB;
    /// Size of the database cache, in bytes.
    database_cache: bytes = 2 * MIB, 256 * KIB, 1024 * MIB;
    /// Interval at which last-seen times are written to flash.
    flush_interval: time = 30 * MINUTE, MINUTE, 24 * HOUR;
    /// How long a node may be disconnected before its peers see it as offline.
    offline_grace: time = 10, 0, 10 * MINUTE;
    /// How long after a start of hearth no node is reported as offline.
    restart_grace: time = 90, 0, 10 * MINUTE;
    /// Keepalive interval of a map stream. Clients time out after 120 s (`watchdogTimeout` in
    /// tailscale `control/controlclient/direct.go`).
    keepalive: time = 50, 5, 110;
    /// Timeout of a shutdown.
    shutdown_timeout: time = 4, 1, 10 * MINUTE;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_with_a_unit_take_it_and_rows_out_of_range_keep_the_default() {
        let text = "[limits]\nderp_pool = \"8MiB\"\nkeepalive = \"20s\"\nnodes = 50\nusers = 0\n";
        let mut raw = RawConfig::parse("hearth.toml".into(), text);
        let limits = Limits::take(&mut raw, Limits::default());
        assert_eq!(limits.derp_pool, 8 * MIB);
        assert_eq!(limits.keepalive, Duration::from_secs(20));
        assert_eq!(limits.nodes, 50);
        assert_eq!(limits.users, Limits::default().users);
        let warnings: Vec<String> = raw.finish().iter().map(ToString::to_string).collect();
        assert_eq!(
            warnings,
            [
                "hearth.toml:5:9: `limits.users` is out of range: allowed are 1 to 16384 (using the default)"
            ]
        );
    }
}
