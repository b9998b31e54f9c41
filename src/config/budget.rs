//! How much memory hearth takes at most: what each thing costs, and the sum of what the limits allow.
//!
//! The costs are resident memory of the static program for x86_64, allocator included, with everything at its limit
//! at once; programs for 32 bits take less. `tests/memory` measures them again, and holds a server to the sum.

use super::limits::Limits;

const KIB: usize = 1 << 10;

/// The program with an empty database and nobody connected.
const PROGRAM: usize = 6_500 * KIB;
/// What one request, one commit and one map being made take beside what is counted below.
const WORK: usize = 512 * KIB;
/// A connection inside TLS that is idle between two requests.
const CONNECTION: usize = 11 * KIB;
/// What a control connection has beside that: Noise, HTTP/2, the map stream.
const CONTROL: usize = 36 * KIB;
/// What a relay connection has beside [`CONNECTION`], without what waits for it.
const RELAY: usize = 6 * KIB;
/// A place in the queue of a relay connection, and what is remembered for each of its peers.
const RELAY_PLACE: usize = 80;
/// A node beside what it tells about itself: its record, its fragment, its place in maps and indexes.
const NODE: usize = 5 * KIB;
/// How often what a machine tells about itself is held: whole, as peers see it, and its routes and tags.
const HOSTINFO_COPIES: usize = 4;
/// The same for a node, whose fragment and stretch of a compressed list hold it too.
const NODE_HOSTINFO_COPIES: usize = 6;
/// A change that waits for the writer, beside what a machine tells about itself.
const CHANGE: usize = KIB;
/// A user, a key, a login that waits.
const RECORD: usize = 512;
/// A report of a node, at its longest.
const REPORT: usize = 1200;

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
