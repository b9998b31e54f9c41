//! Rooms: which module at the top of a package may use which other one.

use super::sources::{Source, sources};
use super::{CRATES, LIBRARIES, report};

/// What each room may use of the others. A room of the program has its name, a module of `hearth-core` and `hearth-derp`
/// is `core/NAME` and `derp/NAME`. `core/NAME/PART` allows that part only.
const MAY_USE: &[(&str, &[&str])] = &[
    // hearth-core: values in, values out.
    ("core/age", &[]),
    ("core/backup", &["core/age", "core/clock"]),
    ("core/id", &[]),
    ("core/keys", &[]),
    ("core/clock", &[]),
    ("core/redacted", &[]),
    ("core/release", &[]),
    ("core/visible", &[]),
    (
        "core/tailcfg",
        &[
            "core/keys",
            "core/clock",
            "core/redacted",
            "core/wan/address",
        ],
    ),
    ("core/derp_map_file", &["core/tailcfg"]),
    ("core/noise", &["core/keys"]),
    ("core/wan", &["core/clock"]),
    ("core/disk", &["core/clock"]),
    ("core/doctor", &["core/wan", "core/clock", "core/disk"]),
    (
        "core/policy",
        &["core/tailcfg", "core/id", "core/wan/address"],
    ),
    (
        "core/state",
        &[
            "core/policy",
            "core/id",
            "core/keys",
            "core/clock",
            "core/disk",
            "core/visible",
            "core/wan/address",
        ],
    ),
    (
        "core/netmap",
        &[
            "core/keys",
            "core/tailcfg",
            "core/policy",
            "core/state",
            "core/id",
            "core/keys",
            "core/clock",
            "core/release",
        ],
    ),
    // hearth-shares: used by all the others.
    ("shares/bucket", &["shares/source"]),
    ("shares/counts", &[]),
    ("shares/lines", &["shares/bucket"]),
    ("shares/source", &[]),
    ("shares/pool", &["shares/source"]),
    ("shares/sketch", &["shares/source"]),
    // hearth-derp: relay, udp and websocket drive the rest with tokio.
    ("derp/admit", &[]),
    ("derp/frame", &[]),
    ("derp/key", &[]),
    ("derp/limits", &[]),
    ("derp/mesh_key", &[]),
    ("derp/nacl", &[]),
    ("derp/pool", &[]),
    ("derp/stun", &[]),
    ("derp/headers", &["derp/frame"]),
    ("derp/stats", &["derp/frame"]),
    ("derp/handshake", &["derp/frame", "derp/nacl"]),
    ("derp/queue", &["derp/frame", "derp/pool", "derp/stats"]),
    ("derp/outbox", &["derp/queue", "derp/stats"]),
    ("derp/deframer", &["derp/frame", "derp/pool"]),
    (
        "derp/conn",
        &[
            "derp/frame",
            "derp/handshake",
            "derp/nacl",
            "derp/pool",
            "derp/queue",
            "derp/outbox",
            "derp/deframer",
        ],
    ),
    (
        "derp/mesh_link",
        &[
            "derp/conn",
            "derp/frame",
            "derp/handshake",
            "derp/nacl",
            "derp/pool",
            "derp/queue",
            "derp/outbox",
            "derp/deframer",
        ],
    ),
    (
        "derp/registry",
        &[
            "derp/conn",
            "derp/frame",
            "derp/pool",
            "derp/queue",
            "derp/stats",
        ],
    ),
    (
        "derp/relay",
        &[
            "derp/admit",
            "derp/conn",
            "derp/handshake",
            "derp/mesh_link",
            "derp/nacl",
            "derp/outbox",
            "derp/pool",
            "derp/queue",
            "derp/registry",
        ],
    ),
    ("derp/udp", &["derp/stats", "derp/stun"]),
    ("derp/websocket", &["derp/outbox", "derp/relay"]),
    // The program, bottom up: tools.
    ("files", &["core/clock"]),
    ("panics", &[]),
    ("qr", &[]),
    ("shutdown", &[]),
    ("supervise", &[]),
    ("system_clock", &["core/clock"]),
    ("interfaces", &["core/wan"]),
    ("relay_key", &["core/keys", "derp"]),
    // Configuration and storage.
    (
        "config",
        &[
            "files",
            "interfaces",
            "core/age",
            "core/clock",
            "core/keys",
            "core/policy",
            "core/release",
            "core/state",
            "core/wan",
        ],
    ),
    ("logging", &["config"]),
    ("service", &["config", "shutdown", "system_clock"]),
    (
        "store",
        &[
            "files",
            "system_clock",
            "core/id",
            "core/keys",
            "core/state",
        ],
    ),
    (
        "engine",
        &[
            "store",
            "system_clock",
            "core/clock",
            "core/disk",
            "core/id",
            "core/keys",
            "core/state",
        ],
    ),
    // What the rooms above share.
    (
        "api",
        &["core/clock", "core/redacted", "derp/stats", "derp/Stats"],
    ),
    (
        "status",
        &[
            "api",
            "config",
            "core/clock",
            "core/doctor/backup",
            "core/doctor/public_url",
            "core/id",
            "core/policy",
            "core/state",
            "core/wan",
            "derp",
        ],
    ),
    (
        "net",
        &[
            "config",
            "files",
            "shutdown",
            "supervise",
            "core/clock",
            "core/wan/address",
            "derp/relay/Rewind",
            "derp/websocket",
        ],
    ),
    ("outbound", &["net", "config", "core/wan", "derp/headers"]),
    // Backups: files in, files out. It does not know the running server.
    (
        "backup",
        &[
            "config",
            "files",
            "net/tls",
            "qr",
            "store",
            "core/age",
            "core/backup",
            "core/clock",
            "core/keys",
        ],
    ),
    // What is served. None of these knows another, but for the handle of requests to nodes that admin has.
    (
        "control",
        &[
            "net",
            "engine",
            "status",
            "config",
            "shutdown",
            "supervise",
            "system_clock",
            "core/clock",
            "core/id",
            "core/keys",
            "core/netmap",
            "core/noise",
            "core/policy",
            "core/redacted",
            "core/state",
            "core/tailcfg",
            "derp/websocket",
        ],
    ),
    (
        "relay",
        &[
            "net",
            "outbound",
            "status",
            "config",
            "files",
            "relay_key",
            "shutdown",
            "supervise",
            "system_clock",
            "core/clock",
            "core/derp_map_file",
            "core/keys",
            "core/netmap",
            "core/policy",
            "core/state",
            "core/tailcfg",
            "core/wan",
            "derp",
        ],
    ),
    (
        "admin",
        &[
            "net",
            "engine",
            "status",
            "api",
            "backup",
            "config",
            "files",
            "qr",
            "control/c2n",
            "core/clock",
            "core/doctor",
            "core/id",
            "core/keys",
            "core/netmap",
            "core/policy",
            "core/state",
            "core/wan",
            "derp/relay",
        ],
    ),
    (
        "web",
        &[
            "net",
            "engine",
            "status",
            "system_clock",
            "core/clock",
            "core/id",
            "core/state",
            "core/visible",
        ],
    ),
    (
        "metrics",
        &["net", "status", "shutdown", "core/disk", "derp"],
    ),
    // The one table, above all that it names.
    (
        "routes",
        &[
            "admin",
            "control",
            "relay",
            "web",
            "status",
            "net",
            "api",
            "config",
            "system_clock",
            "core/state",
        ],
    ),
    (
        "server",
        &[
            "admin",
            "control",
            "relay",
            "web",
            "metrics",
            "routes",
            "status",
            "net",
            "outbound",
            "api",
            "backup",
            "engine",
            "store",
            "config",
            "logging",
            "service",
            "files",
            "interfaces",
            "relay_key",
            "shutdown",
            "supervise",
            "system_clock",
            "core",
            "derp",
        ],
    ),
    // The command line. It asks a running server over the socket and shares only the types of the API with it.
    (
        "cli",
        &[
            "server",
            // Database files that no server has open.
            "store",
            "api",
            "backup",
            "config",
            "logging",
            "service",
            "files",
            "panics",
            "qr",
            "system_clock",
            "net/query",
            "core/age",
            "core/backup",
            "core/clock",
            "core/id",
            "core/policy",
            "core/state",
            "core/visible",
        ],
    ),
    ("main", &["cli"]),
];

#[test]
fn rooms_use_only_what_the_design_lets_them() {
    let mut wrong = Vec::new();
    for file in all() {
        let Some((_, allowed)) = MAY_USE.iter().find(|(room, _)| *room == file.room()) else {
            continue;
        };
        for path in &file.paths {
            let Some(target) = target(&file, path) else {
                continue;
            };
            let is_allowed = is_below(&target, file.room())
                || allowed.iter().any(|allowed| is_below(&target, allowed));
            if !is_allowed {
                wrong.push(format!("{}: {}", file.name, path.join("::")));
            }
        }
    }
    report("a room uses another that it must not know", wrong);
}

#[test]
fn every_room_has_a_row() {
    let known = |room: &str| MAY_USE.iter().any(|(known, _)| *known == room);
    let files = all().into_iter().filter(|file| !file.path().is_empty());
    let wrong = files
        .filter(|file| !known(file.room()))
        .map(|file| format!("{}: give `{}` a row in MAY_USE", file.name, file.room()))
        .collect();
    report("a room has no rule", wrong);
}

#[test]
fn every_row_names_rooms_that_are_there() {
    let files = all();
    let exists = |name: &str| {
        // Types of the libraries can be named too.
        let end = name.find(|c: char| c.is_ascii_uppercase());
        let place = name[..end.unwrap_or(name.len())].trim_end_matches('/');
        files.iter().any(|file| file.is_in(place))
    };
    let names = MAY_USE
        .iter()
        .flat_map(|(room, allowed)| [room].into_iter().chain(*allowed));
    let wrong = names.filter(|name| !exists(name));
    report(
        "MAY_USE names a room that is not there",
        wrong.map(|name| (*name).to_owned()).collect(),
    );
}

#[test]
fn net_knows_no_path() {
    // Files of certificates are no paths of requests.
    let is_path = |text: &str| {
        text.starts_with('/')
            && text.len() > 1
            && !text.starts_with("//")
            && !text.starts_with("/etc/")
    };
    let mut wrong = Vec::new();
    for file in all().into_iter().filter(|file| file.room() == "net") {
        for text in file.texts.iter().filter(|text| is_path(text)) {
            wrong.push(format!("{}: {text:?}", file.name));
        }
    }
    report("net names a path", wrong);
}

#[test]
fn what_is_served_sees_commands_and_snapshots_only() {
    let forbidden = ["core/state/model/Model", "core/state/apply", "store"];
    let rooms = [
        "net", "control", "relay", "admin", "web", "metrics", "routes", "status",
    ];
    let mut wrong = Vec::new();
    for file in all()
        .into_iter()
        .filter(|file| rooms.contains(&file.room()))
    {
        for path in &file.paths {
            let target = target(&file, path).unwrap_or_default();
            if forbidden
                .iter()
                .any(|forbidden| is_below(&target, forbidden))
            {
                wrong.push(format!("{}: {}", file.name, path.join("::")));
            }
        }
    }
    report("a room reaches past commands and snapshots", wrong);
}

fn all() -> Vec<Source> {
    CRATES
        .iter()
        .flat_map(|(_, folder)| sources(folder))
        .collect()
}

/// Whether a place is another one or below it.
fn is_below(place: &str, other: &str) -> bool {
    place
        .strip_prefix(other)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The place in the workspace that a path leads to, `None` for other packages and local names.
fn target(file: &Source, path: &[String]) -> Option<String> {
    let rest = path.get(1..)?.join("/");
    // An item of the package's root is at home in a module that the compiler knows; circles follows it.
    let is_module = path.get(1)?.starts_with(|c: char| c.is_ascii_lowercase());
    let home = match file.place.split('/').next() {
        Some(library) if LIBRARIES.contains(&library) => format!("{library}/"),
        _ => String::new(),
    };
    match path.first()?.as_str() {
        "crate" | "hearth" => is_module.then(|| format!("{home}{rest}")),
        "hearth_core" => Some(format!("core/{rest}")),
        "hearth_derp" => Some(format!("derp/{rest}")),
        // `hearth_shares` depends on nothing, and may be used anywhere.
        _ => None,
    }
}
