//! I/O: code that takes bytes, values and `now` must not name it.

use super::report;
use super::sources::sources;
use super::starts_with;

/// The modules of the relay that may use the tokio runtime; the rest of that package does no I/O.
const RELAY_SHELL: &[&str] = &["derp/relay", "derp/udp", "derp/websocket/stream"];

/// What code without I/O must not name.
const IO: &[&[&str]] = &[
    &["tokio"],
    &["hyper"],
    &["redb"],
    &["std", "fs"],
    &["std", "io", "stdin"],
    &["std", "net", "TcpStream"],
    &["std", "net", "TcpListener"],
    &["std", "net", "UdpSocket"],
    &["std", "os"],
    &["std", "env"],
    &["std", "process"],
    &["std", "thread"],
    &["std", "time", "Instant"],
    &["std", "time", "SystemTime"],
];

#[test]
fn code_without_io_names_none() {
    let mut wrong = Vec::new();
    let relay = sources("derp/src").into_iter();
    let relay = relay.filter(|file| !RELAY_SHELL.iter().any(|place| file.is_in(place)));
    let pure = ["core/src", "shares/src"].into_iter().flat_map(sources);
    for file in pure.chain(relay) {
        for path in &file.paths {
            if IO.iter().any(|forbidden| starts_with(path, forbidden)) {
                wrong.push(format!("{}: {}", file.name, path.join("::")));
            }
        }
    }
    report("code without I/O names some", wrong);
}
