//! `hearth policy eval` held against recorded answers of the official service, where these are at hand.
//!
//! They lie beside the repository (`../shared/policy-corpus`) or where `HEARTH_POLICY_CORPUS` says, with the
//! judge `compare.py`. The project's own cases are in `src/policy/tests.rs`.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Recordings that contradict themselves, and how.
const CONTRADICTIONS: &[&str] = &[
    // Some nodes were asked before the route of squirtle was approved and some after.
    "acl-k03",
    // The IPv6 address in the policy is not the one that the node had when it was recorded.
    "policytest-allpass-grants-only-tag-src-ipv6-literal-dst",
];

#[test]
fn recorded_answers_are_given() {
    let Some(folder) = corpus() else {
        println!("skipped: no recorded answers at hand; set HEARTH_POLICY_CORPUS to their folder");
        return;
    };
    let mut files: Vec<PathBuf> = folder
        .read_dir()
        .expect("the folder can be read")
        .map(|entry| entry.expect("the folder can be read").path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "jsonl")
        })
        .collect();
    files.sort();
    let output = Command::new("python3")
        .arg(folder.join("compare.py"))
        .arg("-v")
        .args(&files)
        .args(["--", env!("CARGO_BIN_EXE_hearth"), "policy", "eval"])
        .output();
    let Ok(output) = output else {
        println!("skipped: there is no python3");
        return;
    };
    let said = String::from_utf8_lossy(&output.stdout);
    let wrong: Vec<&str> = said
        .lines()
        .filter(|line| line.starts_with("  "))
        .filter(|line| {
            let id = line.trim().split(':').next().unwrap_or_default();
            !CONTRADICTIONS.contains(&id)
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(
        said.contains(" passed, "),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn corpus() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let named = std::env::var_os("HEARTH_POLICY_CORPUS").map(PathBuf::from);
    let beside = ["..", "../.."].map(|up| root.join(up).join("shared/policy-corpus"));
    named
        .into_iter()
        .chain(beside)
        .find(|folder| folder.join("compare.py").is_file())
}
