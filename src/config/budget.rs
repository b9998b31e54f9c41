//! The most memory that hearth uses under given limits: the cost of each item, and the sum.
//!
//! Costs are resident memory of the static program for x86_64, allocator included; 32-bit programs use less.
//! They were measured with `benches/control` (`-full`; figures in its README) and `benches/derp`.
//! `tests/memory` holds a server to the sum. What the administrator writes (policy, DNS records, DERP maps) is not
//! counted.

use super::limits::Limits;
use hearth_core::state::event::PAGE_MAX;

const KIB: usize = 1 << 10;

/// The program with an empty database and no connections: 8.0 MB (`-full memory-128`, idle).
const PROGRAM: usize = 7_800 * KIB;
/// One request, one commit and one map in progress, beside what is counted below: 0.9 MB with eight nodes.
const WORK: usize = 900 * KIB;
/// A connection's TLS: 7.5 KB (`benches/derp`: 10.3 KB with TLS, 2.8 KB without).
const CONNECTION: usize = 8 * KIB;
/// A control connection beside that, for Noise, HTTP/2 and the map stream: 56 KB with TLS (`-full`, 400
/// streams against 8). A stalled handshake, head or body uses no more.
const CONTROL: usize = 48 * KIB;
/// A relay connection beside [`CONNECTION`] and its queues: 2.8 KB (`benches/derp`).
const RELAY: usize = 3 * KIB;
/// A slot in one of the two queues of a relay connection: 5.4 KB for 64 of them (`-full`, flooded).
const RELAY_PLACE: usize = 80;
/// A node without its `Hostinfo`: record, fragment and index entries: 1.4 KB, plus room for more endpoints
/// and names than the measured nodes have.
const NODE: usize = 3 * KIB;
/// Copies of a `Hostinfo`: whole, as peers see it, and its routes and tags.
const HOSTINFO_COPIES: usize = 4;
/// The same for a node, with its fragment and, for a while, its previous state: 5.9 (`-full`, 500 nodes with
/// 16 KiB against 4 KiB).
const NODE_HOSTINFO_COPIES: usize = 6;
/// A route, `size_of::<IpNet>()`. The routes are one of the copies of a `Hostinfo`.
const ROUTE: usize = 18;
/// A queued change without its `Hostinfo`.
const CHANGE: usize = KIB;
/// A user, a key, a pending registration.
const RECORD: usize = 512;
/// The longest entry of the audit log while it is read: six texts (`state::event::TEXT_MAX`).
const AUDIT_ENTRY: usize = 1800;
/// The longest report of a node (`status::client_reports`).
const REPORT: usize = 1200;
/// A client of a mesh peer (`hearth_derp::Limits`), or a cached admission.
const REMOTE_KEY: usize = 200;

/// The most memory that the limits allow, by purpose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Needs {
    /// Purpose and bytes.
    pub parts: Vec<(&'static str, usize)>,
}

impl Needs {
    /// The most memory under these limits.
    pub fn of(limits: &Limits) -> Self {
        let each = |count: usize, bytes: usize| count.saturating_mul(bytes);
        let controls = limits.connections.saturating_sub(limits.derp_connections);
        let relay = RELAY.saturating_add(each(
            RELAY_PLACE,
            limits.derp_queue_packets.saturating_mul(2),
        ));
        let hostinfo = limits.hostinfo.max(each(limits.node_routes, ROUTE));
        let hostinfo = |copies: usize| each(copies, hostinfo);
        let responses = each(limits.node_calls, limits.node_answer);
        let records = [
            limits.users,
            limits.preauth_keys,
            limits.api_keys,
            limits.ssh_checks,
        ];
        let records = records.into_iter().fold(0, usize::saturating_add);
        let registrations = each(
            limits.pending_registrations,
            RECORD.saturating_add(hostinfo(HOSTINFO_COPIES)),
        );
        // The rest of it is in the database only.
        let audit_page = each(PAGE_MAX, AUDIT_ENTRY).min(limits.audit_log_bytes);
        let parts = vec![
            ("program", PROGRAM.saturating_add(WORK)),
            ("database cache", limits.database_cache),
            ("connections", each(limits.connections, CONNECTION)),
            ("control connections", each(controls, CONTROL)),
            ("relay connections", each(limits.derp_connections, relay)),
            ("relay packet queues", limits.derp_pool),
            (
                "nodes",
                each(
                    limits.nodes,
                    NODE.saturating_add(hostinfo(NODE_HOSTINFO_COPIES)),
                ),
            ),
            ("pending registrations", registrations),
            (
                "queued changes",
                each(
                    limits.engine_queue,
                    CHANGE.saturating_add(hostinfo(HOSTINFO_COPIES)),
                ),
            ),
            ("request bodies", limits.request_bodies),
            ("node responses", responses),
            ("users and keys", each(records, RECORD)),
            ("reports", each(limits.audit_entries, REPORT)),
            ("audit log", audit_page),
            (
                "mesh and admission cache",
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

    /// The sum in bytes.
    pub fn total(&self) -> usize {
        let bytes = self.parts.iter().map(|(_, bytes)| *bytes);
        bytes.fold(0, usize::saturating_add)
    }
}

/// Formats bytes as MiB with one decimal, rounded up.
pub fn show_mib(bytes: usize) -> String {
    let tenths = bytes.saturating_mul(10).div_ceil(1 << 20);
    format!("{}.{} MiB", tenths / 10, tenths % 10)
}
