//! Every bound of the program in one place.
//!
//! Each row is a field of [`Limits`], a key of the `[limits]` section, its default and its range.
//! The defaults are for a machine of which nothing is known; those of `board-configs/` come before them.

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
        /// The bounds, each with its unit. What a peer can make grow stops at one of these.
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
            /// Takes the `[limits]` section out of a file; `limits` has what is not in it.
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

            /// All rows as a file would have them, in the order above.
            pub fn rows(&self) -> Vec<(&'static str, Row)> {
                vec![$((stringify!($name), row!($kind, self.$name)),)*]
            }
        }
    };
}

/// The value of a row as a file would have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Row {
    /// A count.
    Count(usize),
    /// Bytes or a time, with a unit.
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
    /// Open connections of all kinds; when they are used up the listeners wait.
    connections: count = 1024, 16, 65_536;
    /// Open connections from one address (IPv4) or one /64 (IPv6). A whole home may sit behind one.
    connections_per_address: count = 512, 4, 65_536;
    /// TLS and Noise handshakes at the same time; others wait. Bounds processor time, not memory.
    handshakes: count = 8, 1, 1024;
    /// From the first byte of a connection to the end of its handshake and request header.
    handshake_timeout: time = 10, 1, 10 * MINUTE;
    /// From the end of a request's header to the end of its body.
    request_timeout: time = 30, 1, HOUR;
    /// An HTTP connection between two requests.
    idle_timeout: time = 2 * MINUTE, 5, HOUR;
    /// Body of a register request, in bytes.
    register_body: bytes = 64 * KIB, 4 * KIB, MIB;
    /// Body of a map request, in bytes.
    map_body: bytes = 64 * KIB, 4 * KIB, MIB;
    /// Body of a request to the administration API, in bytes.
    admin_body: bytes = 64 * KIB, 4 * KIB, MIB;
    /// Bodies of requests that are arriving, all together, in bytes; when they are used up, others get 503.
    request_bodies: bytes = 4 * MIB, 64 * KIB, 1024 * MIB;
    /// Requests at the same time inside one Noise connection.
    http2_streams: count = 8, 2, 256;
    /// HTTP/2 receive window of a connection and of a stream, in bytes.
    /// At least 65535, the initial window of RFC 9113 section 6.9.2.
    http2_window: bytes = 65_535, 65_535, 16 * MIB;
    /// What may wait to be sent on one HTTP/2 stream, in bytes.
    http2_send_buffer: bytes = 16 * KIB, 4 * KIB, MIB;
    /// Map streams at the same time.
    map_streams: count = 512, 4, 65_536;
    /// Full maps that are built and sent at the same time; others wait in line.
    full_map_builds: count = 2, 1, 64;
    /// Questions to nodes that wait for an answer at the same time.
    node_calls: count = 16, 1, 1024;
    /// Answer of a node to a question of the administrator, in bytes. The map of a node with a
    /// thousand peers is the longest.
    node_answer: bytes = 512 * KIB, 4 * KIB, 16 * MIB;
    /// Reports of nodes about what was done on them; the oldest one makes room.
    audit_entries: count = 128, 1, 65_536;
    /// Entries of the audit log; the oldest ones are deleted.
    audit_log_entries: count = 4096, 16, 65_536;
    /// Size of the audit log in the database, in bytes; the oldest entries are deleted.
    audit_log_bytes: bytes = MIB, 16 * KIB, 64 * MIB;
    /// SSH connections that wait for a person; the oldest one makes room.
    ssh_checks: count = 64, 4, 4096;
    /// Changes that wait for the writer; when full, requests get 503.
    engine_queue: count = 256, 16, 65_536;
    /// Changes that share one commit.
    engine_batch: count = 64, 1, 4096;
    /// Devices that wait for approval; the oldest one makes room.
    pending_registrations: count = 128, 4, 4096;
    /// How long a device may wait for approval.
    pending_timeout: time = 24 * HOUR, 5 * MINUTE, 7 * 24 * HOUR;
    /// Nodes in the tailnet.
    nodes: count = 1000, 1, 16_384;
    /// Users.
    users: count = 256, 1, 16_384;
    /// Preauth keys, used and expired ones included.
    preauth_keys: count = 1024, 8, 65_536;
    /// API keys.
    api_keys: count = 64, 1, 4096;
    /// What a node tells about itself, in bytes.
    hostinfo: bytes = 16 * KIB, KIB, 256 * KIB;
    /// Endpoints of one node that peers are told.
    endpoints: count = 32, 4, 256;
    /// Connections to the relay.
    derp_connections: count = 512, 4, 65_536;
    /// Connections to the relay from one address (IPv4) or one /64 (IPv6).
    derp_connections_per_address: count = 512, 1, 65_536;
    /// Connections to the relay that have not logged in; the oldest one makes room.
    derp_logins: count = 64, 4, 4096;
    /// Bytes each second that one client of the relay may send; 0 is no limit.
    derp_client_rate: bytes = 0, 0, 2047 * MIB;
    /// Bytes that one client may send at once above that rate.
    derp_client_burst: bytes = 256 * KIB, 65 * KIB, 2047 * MIB;
    /// Bytes each second that all clients of the relay together may send; 0 is no limit.
    derp_total_rate: bytes = 0, 0, 2047 * MIB;
    /// Bytes that all clients together may send at once above that rate.
    derp_total_burst: bytes = 512 * KIB, 65 * KIB, 2047 * MIB;
    /// How long a client of the relay may take none of the bytes that wait for it.
    derp_write_timeout: time = 2, 1, 10 * MINUTE;
    /// How long a client of the relay may say nothing; 0 is for ever. Clients with nothing to send
    /// are silent.
    derp_idle_timeout: time = 0, 0, 24 * HOUR;
    /// Keys that are known to be at other relays of the region.
    derp_mesh_keys: count = 4096, 16, 1_048_576;
    /// Answers of `derp.admit_url` that are remembered.
    derp_admit_cache: count = 1024, 16, 65_536;
    /// How long such an answer counts before the URL is asked again.
    derp_admit_time: time = MINUTE, 1, 24 * HOUR;
    /// DERP map of one file or URL, in bytes.
    derp_map: bytes = 512 * KIB, 4 * KIB, 16 * MIB;
    /// STUN requests each second from one address (IPv4) or one /64 (IPv6); 0 is no limit. A whole
    /// home may sit behind one.
    stun_rate: count = 50, 0, 1_000_000;
    /// Packets that wait for one client of the relay.
    derp_queue_packets: count = 32, 4, 1024;
    /// What waits for one client of the relay, in bytes.
    derp_queue: bytes = 64 * KIB, 64 * KIB, 16 * MIB;
    /// What waits for all clients of the relay, in bytes; then packets are dropped.
    derp_pool: bytes = 4 * MIB, 256 * KIB, 1024 * MIB;
    /// Cache of the database, in bytes.
    database_cache: bytes = 2 * MIB, 256 * KIB, 1024 * MIB;
    /// How often last-seen times go to flash.
    flush_interval: time = 30 * MINUTE, MINUTE, 24 * HOUR;
    /// How long a node may be away before its peers are told.
    offline_grace: time = 10, 0, 10 * MINUTE;
    /// After a start of hearth: how long nobody is said to be offline.
    restart_grace: time = 90, 0, 10 * MINUTE;
    /// Between two signs of life on a silent map stream. Clients give up after 120 s
    /// (`watchdogTimeout` in tailscale `control/controlclient/direct.go`).
    keepalive: time = 50, 5, 110;
    /// From the signal to stop until the process ends.
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
                "hearth.toml:5:9: `limits.users` is out of range: it goes from 1 to 16384 (using the default)"
            ]
        );
    }
}
