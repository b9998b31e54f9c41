//! Any text as the configuration file, as TOML or JSON: hearth starts with what can be read of it, says what it did not
//! read in text that a terminal can show, and a device needs approval if the file says so, whatever comes after that.
#![no_main]

use std::path::PathBuf;

use hearth::config::{Config, Overrides, Surroundings};
use libfuzzer_sys::fuzz_target;

/// Where texts are put: in memory, a file for each process.
fn load(name: &str, text: &[u8]) -> Config {
    let path = PathBuf::from(format!("/dev/shm/hearth-fuzz-{}-{name}", std::process::id()));
    std::fs::write(&path, text).expect("/dev/shm can be written");
    let overrides = Overrides { config: Some(path), ..Overrides::default() };
    Config::load(overrides, &Surroundings::default())
}

fuzz_target!(|input: &[u8]| {
    for name in ["hearth.toml", "hearth.json"] {
        for warning in &load(name, input).warnings {
            let text = warning.to_string();
            assert!(!text.is_empty() && !text.chars().any(|sign| sign.is_control() && sign != '\n'), "{text:?}");
        }
    }
    if !input.windows(8).any(|word| word.eq_ignore_ascii_case(b"approval")) {
        let mut text = b"[node]\napproval = true\n".to_vec();
        text.extend(input);
        assert!(load("hearth.toml", &text).node.approval, "{}", String::from_utf8_lossy(&text));
    }
});
