//! How much memory hearth takes at most: what each thing costs, and the sum of what the limits allow.
//!
//! The costs are resident memory of the static program for x86_64, allocator included; programs for 32 bits take
//! less. They were measured with `benches/control` (`-full`, whose README has the figures) and `benches/derp`.
//! `tests/memory` holds a server to the sum. What the owner writes down (policy, DNS records, maps of relays) is
//! not counted.

use super::limits::Limits;
use hearth_core::state::event::PAGE_MAX;

const KIB: usize = 1 << 10;

/// The program with an empty database and nobody connected: 6.3 MB (`-full memory-128`, idle).
const PROGRAM: usize = 6_200 * KIB;
/// What one request, one commit and one map being made take beside what is counted below: 0.9 MB once eight nodes
/// have joined.
const WORK: usize = 900 * KIB;
/// A connection's TLS: 7.5 KB (`benches/derp`: 10.3 KB with TLS, 2.8 KB without).
const CONNECTION: usize = 8 * KIB;
/// What a control connection has beside that, for Noise, HTTP/2 and the map stream: 56 KB with TLS
/// (`-full`, 400 streams against 8). A handshake, a head or a body that does not go on takes no more.
const CONTROL: usize = 48 * KIB;
/// What a relay connection has beside [`CONNECTION`] and its queues: 2.8 KB (`benches/derp`).
const RELAY: usize = 3 * KIB;
/// A place in one of the two queues of a relay connection: 5.4 KB for 64 of them (`-full`, flooded).
const RELAY_PLACE: usize = 80;
/// A node beside what it tells about itself, for its record, its fragment and its place in maps and indexes: 1.4 KB,
/// and room for more endpoints and names than the measured ones have.
const NODE: usize = 3 * KIB;
/// How often what a machine tells about itself is held: whole, as peers see it, and its routes and tags.
const HOSTINFO_COPIES: usize = 4;
/// The same for a node, whose fragment holds it too, and its state before the last change for a while: 5.9
/// (`-full`, 500 nodes with 16 KiB against 4 KiB).
const NODE_HOSTINFO_COPIES: usize = 6;
/// A change that waits for the writer, beside what a machine tells about itself.
const CHANGE: usize = KIB;
/// A user, a key, a login that waits.
const RECORD: usize = 512;
/// An entry of the audit log while it is read, at its longest: six texts (`state::event::TEXT_MAX`).
const AUDIT_ENTRY: usize = 1800;
/// A report of a node, at its longest (`http::contact::reports`).
const REPORT: usize = 1200;
/// A key that another relay of the region has (`hearth_derp::Limits`), or an answer about one.
const REMOTE_KEY: usize = 200;

/// What the limits let hearth take, by what it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Needs {
    /// What for, and how many bytes.
    pub parts: Vec<(&'static str, usize)>,
}

impl Needs {
    /// What these limits allow.
    pub fn of(limits: &Limits) -> Self {
        let each = |count: usize, bytes: usize| count.saturating_mul(bytes);
        let controls = limits.connections.saturating_sub(limits.derp_connections);
        let relay = RELAY.saturating_add(each(
            RELAY_PLACE,
            limits.derp_queue_packets.saturating_mul(2),
        ));
        let told = |copies: usize| each(copies, limits.hostinfo);
        let answers = each(limits.node_calls, limits.node_answer);
        let records = [
            limits.users,
            limits.preauth_keys,
            limits.api_keys,
            limits.ssh_checks,
        ];
        let records = records.into_iter().fold(0, usize::saturating_add);
        let logins = each(
            limits.pending_registrations,
            RECORD.saturating_add(told(HOSTINFO_COPIES)),
        );
        // The rest of it is in the database only.
        let audit_page = each(PAGE_MAX, AUDIT_ENTRY).min(limits.audit_log_bytes);
        let parts = vec![
            ("program", PROGRAM.saturating_add(WORK)),
            ("database cache", limits.database_cache),
            ("connections", each(limits.connections, CONNECTION)),
            ("control connections", each(controls, CONTROL)),
            ("relay connections", each(limits.derp_connections, relay)),
            ("packets of the relay", limits.derp_pool),
            (
                "nodes",
                each(
                    limits.nodes,
                    NODE.saturating_add(told(NODE_HOSTINFO_COPIES)),
                ),
            ),
            ("logins that wait", logins),
            (
                "changes that wait",
                each(
                    limits.engine_queue,
                    CHANGE.saturating_add(told(HOSTINFO_COPIES)),
                ),
            ),
            ("request bodies", limits.request_bodies),
            ("answers of nodes", answers),
            ("users and keys", each(records, RECORD)),
            ("reports", each(limits.audit_entries, REPORT)),
            ("audit log", audit_page),
            (
                "other relays",
                each(
                    limits
                        .derp_mesh_keys
                        .saturating_add(limits.derp_admit_cache),
                    REMOTE_KEY,
                ),
            ),
        ];
        Self { parts }
    }

    /// All of it, in bytes.
    pub fn total(&self) -> usize {
        let bytes = self.parts.iter().map(|(_, bytes)| *bytes);
        bytes.fold(0, usize::saturating_add)
    }
}

/// Bytes in MiB with one digit, rounded up.
pub fn show_mib(bytes: usize) -> String {
    let tenths = bytes.saturating_mul(10).div_ceil(1 << 20);
    format!("{}.{} MiB", tenths / 10, tenths % 10)
}
