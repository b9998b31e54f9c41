//! Packages: where each may be named, and what the pure library depends on.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use super::sources::sources;
use super::{CRATES, report};

/// Packages that belong to some rooms only. A folder or file of a room can be named too. What is not listed here may be
/// used anywhere.
const BELONGS_TO: &[(&str, &[&str])] = &[
    ("redb", &["store"]),
    (
        "hyper",
        &[
            "net",
            "control",
            "relay",
            "routes",
            "admin",
            "web",
            "metrics",
            "outbound",
            "status/http_counters",
        ],
    ),
    ("hyper_util", &["net", "outbound"]),
    ("http_body_util", &["net", "outbound"]),
    (
        "httparse",
        &["net/http1", "outbound/client", "control/c2n", "cli/client"],
    ),
    ("rustls", &["net/tls"]),
    ("tokio_rustls", &["net/connection", "net/tls"]),
    ("rcgen", &["net/tls"]),
    ("snow", &["core/noise/handshake"]),
    ("socket2", &["net/listener", "cli/client"]),
    (
        "x25519_dalek",
        &["core/age", "core/keys", "core/noise/handshake", "derp/key"],
    ),
    ("crypto_box", &["derp/nacl"]),
    ("ruzstd", &["core/backup/zstd", "core/netmap/frame"]),
    ("postcard", &["core/state/record"]),
    ("toml", &["config"]),
    ("strsim", &["config/near"]),
    ("clap", &["cli"]),
    ("qrcodegen", &["qr"]),
    ("dlmalloc", &["main"]),
    ("sd_listen_fds", &["service/sockets"]),
    ("nix", &["system_clock"]),
    (
        "rustix",
        &[
            "backup/space",
            "interfaces",
            "config",
            "cli/output/terminal",
            "server/copies",
            "store/directory",
        ],
    ),
    ("tracing_subscriber", &["logging"]),
];

/// Packages that do I/O.
const IO_PACKAGES: [&str; 6] = ["tokio", "hyper", "redb", "mio", "socket2", "rustls"];

#[test]
fn packages_stay_where_they_belong() {
    let mut wrong = Vec::new();
    for file in CRATES.iter().flat_map(|(_, folder)| sources(folder)) {
        for path in &file.paths {
            let places = path
                .first()
                .and_then(|first| BELONGS_TO.iter().find(|(package, _)| package == first));
            let Some((package, places)) = places else {
                continue;
            };
            if !places.iter().any(|place| file.is_in(place)) {
                wrong.push(format!("{}: {package} belongs to {places:?}", file.name));
            }
        }
    }
    report("a package is used outside its place", wrong);
}

#[test]
fn the_pure_library_depends_on_no_package_that_does_io() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let lock = fs::read_to_string(root.join("Cargo.lock")).expect("Cargo.lock can be read");
    let packages = dependencies(&lock);
    let mut reached = BTreeSet::new();
    let mut open = vec!["hearth-core"];
    while let Some(package) = open.pop() {
        let of = packages
            .get(package)
            .expect("the lock file has the package");
        open.extend(of.iter().filter(|dependency| reached.insert(**dependency)));
    }
    assert!(reached.contains("serde"), "{reached:?}");
    let wrong = IO_PACKAGES
        .iter()
        .filter(|package| reached.contains(*package));
    report(
        "hearth-core depends on a package that does I/O",
        wrong.map(|package| (*package).to_owned()).collect(),
    );
}

/// The names of all packages of a lock file, and what each depends on. Versions of one package count as one.
fn dependencies(lock: &str) -> BTreeMap<&str, BTreeSet<&str>> {
    let mut packages: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut name = "";
    for line in lock.lines() {
        if let Some(package) = line.strip_prefix("name = ") {
            name = package.trim_matches('"');
            packages.entry(name).or_default();
        } else if let Some(dependency) = line.strip_prefix(" \"") {
            let dependency = dependency.split([' ', '"']).next().unwrap_or_default();
            packages.entry(name).or_default().insert(dependency);
        }
    }
    packages
}
