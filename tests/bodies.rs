//! What it costs to decode what strangers send: memory in proportion to the body, however many values are in it.
//!
//! Measured, not timed: the peak of resident memory while one body is decoded, each in a process of its own, so that no
//! memory that is free already hides what is used.

use std::fs;
use std::process::Command;

use hearth_core::tailcfg::map::MapRequest;
use hearth_core::tailcfg::register::RegisterRequest;

const MIB: usize = 1 << 20;

/// The largest body that `limits.register_body` and `limits.map_body` can allow. The defaults are a sixteenth of it.
const BODY: usize = MIB;

/// The most that decoding a body may take: a copy of it (of a hostinfo without its `NetInfo`) while that grows, and the lists,
/// which are bounded by themselves.
const MOST: usize = 2 * BODY + MIB / 2;

/// The least that a tree of values takes, which decoding used to make: this is what the measurement would show.
const TREE: usize = 20 * BODY;

/// Names the body to measure in a process of its own.
const VARIABLE: &str = "HEARTH_TEST_BODY";

/// Decodes a body.
type Decode = fn(&[u8]);

/// Bodies of one size: how each begins, what is repeated, how it ends.
const BODIES: [(&str, &str, &str, &str); 10] = [
    ("objects", "{", "\"\":{},", "\"\":0}"),
    ("spellings", "{", "\"hostINFO\":{},", "\"\":0}"),
    ("lists", "{\"Endpoints\":[", "[],", "0]}"),
    ("boxes", "{\"Endpoints\":[", "{\"\":0},", "0]}"),
    ("endpoints", "{\"Endpoints\":[", "\"1.1.1.1:1\",", "\"\"]}"),
    ("flags", "{\"DebugFlags\":[", "\"\",", "\"\"]}"),
    ("hostinfo", "{\"Hostinfo\":{", "\"\":{},", "\"\":0}}"),
    (
        "netinfo",
        "{\"Hostinfo\":{\"NetInfo\":{\"DERPLatency\":{",
        "\"\":0,",
        "\"\":0}}}}",
    ),
    (
        "routes",
        "{\"Hostinfo\":{\"RoutableIPs\":[",
        "\"::/0\",",
        "\"\"]}}",
    ),
    (
        "tags",
        "{\"Hostinfo\":{\"RequestTags\":[",
        "\"t\",",
        "\"\"]}}",
    ),
];

/// What decodes them.
const DECODERS: [(&str, Decode); 3] = [
    ("map", |body| drop(MapRequest::decode(body, 32))),
    ("register", |body| drop(RegisterRequest::decode(body))),
    ("tree", |body| {
        drop(serde_json::from_slice::<serde_json::Value>(body))
    }),
];

/// A body of `BODY` bytes, made without any other memory.
fn body((_, begin, piece, end): (&str, &str, &str, &str)) -> String {
    let key = format!("\"NodeKey\":\"nodekey:{}\",", "11".repeat(32));
    let mut body = String::with_capacity(BODY);
    body.push('{');
    body.push_str(&key);
    body.push_str(&begin[1..]);
    while body.len() + piece.len() + end.len() <= BODY {
        body.push_str(piece);
    }
    body.push_str(end);
    body
}

/// A value of `/proc/self/status` in bytes.
fn memory(name: &str) -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    let kib = line.split_whitespace().nth(1).unwrap();
    kib.parse::<usize>().unwrap() << 10
}

/// By how much the peak of resident memory grows while a body is decoded, in a process of its own.
fn growth(decoder: &str, name: &str) -> usize {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "one_body", "--nocapture"])
        .env(VARIABLE, format!("{decoder} {name}"))
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{decoder} {name}: {said}");
    let (_, after) = said.split_once("grown by ").expect(&said);
    let bytes = after.split_whitespace().next().unwrap();
    bytes.parse().unwrap()
}

/// Measures the body that the process is for, if it is.
#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "the kernel's file takes a number and keeps nothing"
)]
fn one_body() {
    let Ok(what) = std::env::var(VARIABLE) else {
        return;
    };
    let (decoder, name) = what.split_once(' ').unwrap();
    let decode = DECODERS
        .iter()
        .find(|(name, _)| *name == decoder)
        .unwrap()
        .1;
    let body = body(*BODIES.iter().find(|(known, ..)| *known == name).unwrap());
    // Forgets the peak so far. Source: Linux `Documentation/filesystems/proc.rst`, `clear_refs`.
    fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = memory("VmRSS:");
    decode(body.as_bytes());
    println!("grown by {} bytes", memory("VmHWM:").saturating_sub(before));
}

#[test]
fn a_body_full_of_values_takes_little_more_than_itself() {
    for body in BODIES {
        for decoder in ["map", "register"] {
            let grown = growth(decoder, body.0);
            println!("{decoder} {}: {grown} bytes of {BODY}", body.0);
            assert!(grown <= MOST, "{decoder} {}: {grown}", body.0);
        }
    }
}

/// Else the measurement would show nothing.
#[test]
fn a_tree_of_the_same_values_takes_many_times_itself() {
    let grown = growth("tree", "boxes");
    println!("tree boxes: {grown} bytes of {BODY}");
    assert!(grown >= TREE, "{grown}");
}
