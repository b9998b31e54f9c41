//! Limits: every bound of the program in one place.
//!
//! Each row is a field of [`Limits`] and a key of the `[limits]` section, with its default, its range and its share: who
//! cannot use it up for all others, and why. A row without a share does not compile. docs/limits.md has the same table.
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
    ($($(#[doc = $doc:literal])* $name:ident: $kind:ident = $default:expr, $least:expr, $most:expr, $share:expr;)*) => {
        /// The limits. Everything that a peer can make grow is bounded by one of them.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct Limits {
            $($(#[doc = $doc])* pub $name: kind!($kind),)*
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
                for key in RETIRED {
                    raw.retire(key);
                }
                limits
            }

            /// All rows, as in a file, in the order above.
            pub fn rows(&self) -> Vec<(&'static str, Row)> {
                vec![$((stringify!($name), row!($kind, self.$name)),)*]
            }

            /// What is known of each row, in the order above.
            pub fn table() -> Vec<LimitRow> {
                vec![$(LimitRow {
                    name: stringify!($name),
                    default: row!($kind, amount!($kind, $default)),
                    least: row!($kind, amount!($kind, $least)),
                    most: row!($kind, amount!($kind, $most)),
                    text: concat!($($doc),*).trim(),
                    share: $share,
                },)*]
            }
        }
    };
}

/// Keys that were limits once. Handshakes never overlap on one thread.
const RETIRED: [&str; 1] = ["limits.handshakes"];

impl Limits {
    /// Connections that are reserved for clients that have not yet proven who they are: newcomers, and devices that come
    /// back. They are those that devices and relay clients leave.
    pub fn reserved_for_strangers(&self) -> usize {
        let taken = self.map_streams.saturating_add(self.derp_connections);
        let (least, most) = (self.connections / 32, self.connections / 4);
        self.connections
            .saturating_sub(taken)
            .clamp(least.max(1), most.max(1))
    }
}

/// Who has a share of a limit, so that nobody else can use all of it up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Share {
    /// Each source of connections: an IPv4 address, or an IPv6 /64 within its /48.
    Source,
    /// Each machine key.
    Machine,
    /// Each source and, within it, each machine key.
    SourceAndMachine,
    /// Each node.
    Node,
    /// Each relay key.
    RelayKey,
    /// A total that is divided by other limits or in several ways: how.
    Total(&'static str),
    /// Only the administrator makes it grow.
    Owner,
    /// The bound of a single thing, such as the size of a request: what it is of.
    Single(&'static str),
    /// No share: why none is needed.
    None(&'static str),
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Source => f.write_str("per source"),
            Self::Machine => f.write_str("per machine key"),
            Self::SourceAndMachine => f.write_str("per source and machine key"),
            Self::Node => f.write_str("per node"),
            Self::RelayKey => f.write_str("per relay key"),
            Self::Total(how) => write!(f, "divided: {how}"),
            Self::Owner => f.write_str("only the administrator makes it grow"),
            Self::Single(what) => write!(f, "of a single {what}"),
            Self::None(reason) => write!(f, "none: {reason}"),
        }
    }
}

/// What is known of a limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitRow {
    /// The key, without `limits.`.
    pub name: &'static str,
    /// The default on an unknown machine.
    pub default: Row,
    /// The smallest value.
    pub least: Row,
    /// The largest value.
    pub most: Row,
    /// What it bounds, and what happens at the bound.
    pub text: &'static str,
    /// Who has a share of it.
    pub share: Share,
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
    /// Open connections of all kinds. Devices, admitted relay clients and API keys have all of them but those that
    /// `map_streams` and `derp_connections` leave (at least 1/32, at most 1/4), and clients that have not yet proven who
    /// they are have the rest. When it is full, the source with the most connections of that kind loses its oldest.
    connections: count = 1152, 16, 65_536,
        Share::Total("per key among proven clients, per source among others");
    /// Open connections of clients that have not yet proven who they are, per source: one IPv4 address or IPv6 /48, which
    /// may be a whole household; the oldest is closed. Loopback and trusted proxies are exempt.
    connections_per_address: count = 512, 4, 65_536, Share::Source;
    /// Timeout from the first byte of a connection to the end of its handshake and request header.
    handshake_timeout: time = 10, 1, 10 * MINUTE, Share::Single("connection");
    /// Timeout of a request body, from the end of the header.
    request_timeout: time = 30, 1, HOUR, Share::Single("request");
    /// Timeout of an idle HTTP connection.
    idle_timeout: time = 2 * MINUTE, 5, HOUR, Share::Single("connection");
    /// Size of a register request, in bytes.
    register_body: bytes = 64 * KIB, 4 * KIB, MIB, Share::Single("request");
    /// Size of a map request, in bytes.
    map_body: bytes = 64 * KIB, 4 * KIB, MIB, Share::Single("request");
    /// Size of an API request, in bytes.
    admin_body: bytes = 64 * KIB, 4 * KIB, MIB, Share::Single("request");
    /// Size of all request bodies in transfer. When it is used up, the client with the most loses its oldest, and gets 503.
    /// In bytes.
    request_bodies: bytes = 4 * MIB, 64 * KIB, 1024 * MIB,
        Share::Total("per key among proven clients, per source among others");
    /// Concurrent requests per Noise connection.
    http2_streams: count = 8, 2, 256, Share::Single("connection");
    /// HTTP/2 receive window of a connection and of a stream. At least 65535, the initial window of
    /// RFC 9113 section 6.9.2. In bytes.
    http2_window: bytes = 65_535, 65_535, 16 * MIB, Share::Single("connection");
    /// Send buffer of an HTTP/2 stream, in bytes.
    http2_send_buffer: bytes = 16 * KIB, 4 * KIB, MIB, Share::Single("stream");
    /// Concurrent map streams: devices online, one for each.
    map_streams: count = 512, 4, 65_536, Share::Node;
    /// Full maps that are built and sent concurrently; further ones wait.
    full_map_builds: count = 2, 1, 64, Share::Node;
    /// Concurrent requests to nodes (C2N).
    node_calls: count = 16, 1, 1024, Share::None("only hearth and the administrator start them");
    /// Size of a node's response to a C2N request. The map of a node with a thousand peers is the
    /// longest. In bytes.
    node_answer: bytes = 512 * KIB, 4 * KIB, 16 * MIB, Share::Single("response");
    /// Audit entries that nodes reported; the oldest of the node with the most is dropped.
    audit_entries: count = 128, 1, 65_536, Share::Node;
    /// Entries of the audit log; the oldest ones are deleted.
    audit_log_entries: count = 4096, 16, 65_536,
        Share::Total("devices cause at most half of it, each at a bounded rate");
    /// Size of the audit log in the database, in bytes; the oldest entries are deleted.
    audit_log_bytes: bytes = MIB, 16 * KIB, 64 * MIB,
        Share::Total("devices cause at most half of it, each at a bounded rate");
    /// SSH sessions that wait for a check; the oldest is dropped.
    ssh_checks: count = 64, 4, 4096, Share::Node;
    /// Queued changes; when the queue is full, or a single device has more than a few, requests get 503.
    engine_queue: count = 256, 16, 65_536, Share::Machine;
    /// Changes per commit.
    engine_batch: count = 64, 1, 4096, Share::None("a batch is taken from the queue, which has shares");
    /// Pending registrations, one for each machine; the oldest of the source with the most is dropped.
    pending_registrations: count = 128, 4, 4096, Share::SourceAndMachine;
    /// Timeout of a pending registration.
    pending_timeout: time = 24 * HOUR, 5 * MINUTE, 7 * 24 * HOUR, Share::Single("pending registration");
    /// Nodes.
    nodes: count = 1000, 1, 16_384, Share::None("each needs an approval or a preauth key of the administrator");
    /// Users.
    users: count = 256, 1, 16_384, Share::Owner;
    /// Preauth keys, including used and expired ones.
    preauth_keys: count = 1024, 8, 65_536, Share::Owner;
    /// API keys.
    api_keys: count = 64, 1, 4096, Share::Owner;
    /// Size of the hostinfo that a node reports, in bytes.
    hostinfo: bytes = 16 * KIB, KIB, 256 * KIB, Share::Single("node");
    /// Routes of a node that are kept, exit routes first; `hearth status` names nodes with more.
    node_routes: count = 896, 8, 1024, Share::Single("node");
    /// Endpoints per node that are sent to peers.
    endpoints: count = 32, 4, 256, Share::Single("node");
    /// Relay connections that are logged in. When there are as many, a client gets the place of one whose device (with
    /// `derp.admit = "open"`: address) has more of them, or else is rejected.
    derp_connections: count = 512, 4, 65_536, Share::RelayKey;
    /// Relay connections per source that are logged in: one IPv4 address or IPv6 /64.
    derp_connections_per_address: count = 512, 1, 65_536, Share::Source;
    /// Relay connections that have not logged in; the oldest of the source with the most is dropped.
    derp_logins: count = 64, 4, 4096, Share::Source;
    /// Relay rate limit per client, in bytes per second; 0 is unlimited.
    derp_client_rate: bytes = 0, 0, 2047 * MIB, Share::Single("client");
    /// Relay burst per client above that rate, in bytes.
    derp_client_burst: bytes = 256 * KIB, 65 * KIB, 2047 * MIB, Share::Single("client");
    /// Relay rate limit of all clients together, in bytes per second; 0 is unlimited.
    derp_total_rate: bytes = 0, 0, 2047 * MIB, Share::None("`derp_client_rate` is the share of a client");
    /// Relay burst of all clients together above that rate, in bytes.
    derp_total_burst: bytes = 512 * KIB, 65 * KIB, 2047 * MIB,
        Share::None("`derp_client_burst` is the share of a client");
    /// Relay write timeout: how long a client may read nothing while data is waiting for it.
    derp_write_timeout: time = 2, 1, 10 * MINUTE, Share::Single("client");
    /// Relay idle timeout; 0 is none. Clients with nothing to send are silent.
    derp_idle_timeout: time = 0, 0, 24 * HOUR, Share::Single("client");
    /// Clients of mesh peers that are remembered.
    derp_mesh_keys: count = 4096, 16, 1_048_576, Share::None("only relays with the mesh key announce clients");
    /// Cached answers of `derp.admit_url`.
    derp_admit_cache: count = 1024, 16, 65_536, Share::None("refusals are evicted before admissions");
    /// Lifetime of a cached answer.
    derp_admit_time: time = MINUTE, 1, 24 * HOUR, Share::Single("answer");
    /// Size of a DERP map from a file or URL, in bytes.
    derp_map: bytes = 512 * KIB, 4 * KIB, 16 * MIB, Share::Owner;
    /// STUN requests per second and source (one IPv4 address or IPv6 /64, which may be a whole
    /// household; four times as many for an IPv6 /48); 0 is unlimited.
    stun_rate: count = 50, 0, 1_000_000, Share::Source;
    /// Queued packets per relay client.
    derp_queue_packets: count = 32, 4, 1024, Share::Single("client");
    /// Size of the queue of a relay client, in bytes.
    derp_queue: bytes = 64 * KIB, 64 * KIB, 16 * MIB, Share::Single("client");
    /// Size of the queues of all relay clients; when it is used up, packets are dropped. In bytes.
    derp_pool: bytes = 4 * MIB, 256 * KIB, 1024 * MIB, Share::Total("`derp_queue` bounds each client");
    /// Size of the database cache, in bytes.
    database_cache: bytes = 2 * MIB, 256 * KIB, 1024 * MIB, Share::None("reading and writing need it in turn");
    /// Interval at which what devices report (last seen, endpoints, hostinfo) is written to flash, if it is little; more is
    /// written less often.
    flush_interval: time = HOUR, MINUTE, 24 * HOUR, Share::Single("write");
    /// How long a node may be disconnected before its peers see it as offline.
    offline_grace: time = 10, 0, 10 * MINUTE, Share::Single("node");
    /// How long after a start of hearth no node is reported as offline.
    restart_grace: time = 90, 0, 10 * MINUTE, Share::Single("start");
    /// Keepalive interval of a map stream; up to 5 s are added. Clients time out after 120 s
    /// (`watchdogTimeout` in tailscale `control/controlclient/direct.go`), and proxies cut idle
    /// connections after 50 s (haproxy) or 60 s (nginx).
    keepalive: time = 40, 5, 110, Share::Single("stream");
    /// Timeout of a shutdown.
    shutdown_timeout: time = 4, 1, 10 * MINUTE, Share::Single("shutdown");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `HEARTH_UPDATE_DOCS=1 cargo test --lib config::limits` writes it.
    #[test]
    fn the_page_of_limits_has_every_limit_with_its_share() {
        const HEADING: &str = "## All limits\n";
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/limits.md");
        let written = std::fs::read_to_string(path).unwrap();
        let (before, _) = written.split_once(HEADING).expect("the heading");
        let mut wanted = format!(
            "{before}{HEADING}\nThe defaults are those of an unknown machine. This table is generated from \
             `src/config/limits.rs`; update it with\n`HEARTH_UPDATE_DOCS=1 cargo test --lib config::limits`.\n\n\
             | limit | default | range | what it bounds | share |\n|---|---|---|---|---|\n"
        );
        for row in Limits::table() {
            let LimitRow {
                name,
                default,
                least,
                most,
                text,
                share,
            } = row;
            let line = format!("| `{name}` | {default} | {least} to {most} | {text} | {share} |\n");
            wanted.push_str(&line);
        }
        if std::env::var_os("HEARTH_UPDATE_DOCS").is_some_and(|value| value == "1") {
            std::fs::write(path, &wanted).unwrap();
        }
        let written = std::fs::read_to_string(path).unwrap();
        let differs = written
            .lines()
            .zip(wanted.lines())
            .find(|(old, new)| old != new);
        assert!(
            written == wanted,
            "docs/limits.md is out of date, run HEARTH_UPDATE_DOCS=1 cargo test --lib config::limits; first \
             difference: {differs:?}"
        );
    }

    #[test]
    fn a_limit_that_is_gone_is_accepted_with_a_note() {
        let text = "[limits]\nhandshakes = 8\nhandshake_timeout = \"9s\"\n";
        let mut raw = RawConfig::parse("hearth.toml".into(), text);
        let limits = Limits::take(&mut raw, Limits::default());
        assert_eq!(limits.handshake_timeout, Duration::from_secs(9));
        let warnings: Vec<String> = raw.finish().iter().map(ToString::to_string).collect();
        assert_eq!(
            warnings,
            ["hearth.toml:2:1: `limits.handshakes` is no longer used (ignored)"]
        );
    }

    #[test]
    fn strangers_have_what_devices_and_relay_clients_leave() {
        let of = |connections, map_streams, derp_connections| {
            let limits = Limits {
                connections,
                map_streams,
                derp_connections,
                ..Limits::default()
            };
            limits.reserved_for_strangers()
        };
        assert_eq!(of(74, 32, 32), 10);
        assert_eq!(of(1024, 512, 512), 32);
        assert_eq!(of(1024, 4, 4), 256);
        assert_eq!(of(16, 65_536, 65_536), 1);
    }

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
