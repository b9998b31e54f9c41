//! `hearth policy eval` held against recorded answers of the official service.
//!
//! `tests/policy-corpus/small.jsonl` is a selection of the recordings: one case a line, with the policy, the users,
//! the nodes, and in `expect` the status and what each node was sent. All recordings are compared too where they
//! are at hand: in the directory that `HEARTH_POLICY_CORPUS` names, or beside the repository
//! (`../shared/policy-corpus`).

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

#[path = "policy-corpus/compare.rs"]
mod compare;

/// Recordings that contradict themselves, and how.
const CONTRADICTIONS: &[&str] = &[
    // Some nodes were asked before the route of squirtle was approved and some after.
    "acl-k03",
    // The IPv6 address in the policy is not the one that the node had when it was recorded.
    "policytest-allpass-grants-only-tag-src-ipv6-literal-dst",
];

#[test]
fn the_small_set_of_recorded_answers_is_given() {
    assert_recorded_answers(&root().join("tests/policy-corpus/small.jsonl"));
}

#[test]
fn all_recorded_answers_are_given() {
    let Some(directory) = corpus() else {
        skipped(
            "all recorded answers of the official service",
            "not at hand; HEARTH_POLICY_CORPUS names their directory",
        );
        return;
    };
    let mut files: Vec<PathBuf> = directory
        .read_dir()
        .expect("the directory can be read")
        .map(|entry| entry.expect("the directory can be read").path())
        .filter(|path| path.extension().is_some_and(|found| found == "jsonl"))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "no *.jsonl in {}", directory.display());
    for file in &files {
        assert_recorded_answers(file);
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The directory of all recordings. One that is named has to be there.
fn corpus() -> Option<PathBuf> {
    std::env::var_os("HEARTH_POLICY_CORPUS")
        .map(PathBuf::from)
        .or_else(|| {
            ["..", "../.."]
                .map(|up| root().join(up).join("shared/policy-corpus"))
                .into_iter()
                .find(|directory| directory.is_dir())
        })
}

/// Reports a test that did not run to `tests/run`, which counts the lines of the file `$HEARTH_SKIPS`.
fn skipped(name: &str, reason: &str) {
    println!("skipped: {name}: {reason}");
    let Some(file) = std::env::var_os("HEARTH_SKIPS") else {
        return;
    };
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.append(true).create(true).open(file).unwrap();
    file.write_all(format!("skipped: {name}: {reason}\n").as_bytes())
        .unwrap();
}

fn assert_recorded_answers(file: &Path) {
    let text = std::fs::read_to_string(file).expect("the recordings can be read");
    let cases = values(&text);
    assert!(!cases.is_empty(), "no case in {}", file.display());
    let answers = evaluate(&cases);
    assert_eq!(answers.len(), cases.len(), "answers of {}", file.display());
    let wrong: Vec<String> = cases
        .iter()
        .zip(&answers)
        .filter(|(case, _)| !CONTRADICTIONS.iter().any(|id| case["id"] == *id))
        .filter_map(|(case, answer)| {
            let difference = compare::difference(case, answer)?;
            Some(format!("{}: {difference}", case["id"]))
        })
        .collect();
    println!("{}: {} cases", file.display(), cases.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn values(text: &str) -> Vec<Value> {
    text.lines()
        .filter(|line| !line.trim().is_empty())
        .map(|line| serde_json::from_str(line).expect("one JSON object a line"))
        .collect()
}

/// What hearth answers to the cases, which it gets without the recorded answers.
fn evaluate(cases: &[Value]) -> Vec<Value> {
    let mut questions = tempfile::tempfile().unwrap();
    for case in cases {
        let mut case = case.clone();
        case.as_object_mut()
            .and_then(|case| case.remove("expect"))
            .expect("a recorded answer");
        writeln!(questions, "{case}").unwrap();
    }
    std::io::Seek::rewind(&mut questions).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_hearth"))
        .args(["policy", "eval"])
        .stdin(Stdio::from(questions))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "`hearth policy eval` ended with {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    values(&String::from_utf8_lossy(&output.stdout))
}
