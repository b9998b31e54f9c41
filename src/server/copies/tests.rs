use std::os::unix::fs::PermissionsExt as _;

use super::*;

/// More than any of the programs takes.
const PATIENCE: Duration = Duration::from_secs(60);

fn program(directory: &Path, text: &str) -> Program {
    let path = directory.join("program");
    std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    Program {
        path,
        arguments: vec![directory.display().to_string()],
    }
}

#[tokio::test]
async fn the_program_gets_the_backup_and_its_name_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let program = program(directory.path(), "cat >\"$1/got\"; env >\"$1/env\"");
    let backup: Vec<u8> = (0..1_000_000_u32).map(|n| n as u8).collect();
    run(&program, "b.tar.zst", &backup, PATIENCE).await.unwrap();
    assert_eq!(std::fs::read(directory.path().join("got")).unwrap(), backup);
    let env = std::fs::read_to_string(directory.path().join("env")).unwrap();
    assert!(env.contains("HEARTH_BACKUP_NAME=b.tar.zst"), "{env}");
    assert!(!env.contains("CARGO"), "{env}");
}

#[tokio::test]
async fn a_program_that_fails_or_reads_nothing_is_a_fault() {
    let directory = tempfile::tempdir().unwrap();
    let backup = vec![0; 1_000_000];
    let failing = program(directory.path(), "cat >/dev/null; exit 3");
    let fault = run(&failing, "b", &backup, PATIENCE).await.unwrap_err();
    assert!(fault.to_string().contains("exit status: 3"), "{fault}");
    let deaf = program(directory.path(), "exit 0");
    assert!(run(&deaf, "b", &backup, PATIENCE).await.is_err());
}

/// Runs a script that gets no backup worth the name; gives what is said of it.
async fn fault_of(text: &str, within: Duration) -> String {
    let directory = tempfile::tempdir().unwrap();
    let program = program(directory.path(), text);
    let fault = run(&program, "b", b"backup", within).await.unwrap_err();
    let text = fault.to_string();
    text.strip_prefix(&program.path.display().to_string())
        .unwrap()
        .to_owned()
}

#[tokio::test]
async fn what_a_program_says_when_it_fails_is_in_the_fault() {
    let fault = fault_of(
        "cat >/dev/null; echo no; echo 'no route\n to host' >&2; exit 7",
        PATIENCE,
    )
    .await;
    assert_eq!(fault, " failed: exit status: 7: no route; to host");
    let killed = fault_of("kill -9 $$", PATIENCE).await;
    assert_eq!(killed, " failed: signal: 9 (SIGKILL)");
    // However much that is.
    let flood = fault_of(
        "cat >/dev/null; head -c 3000000 /dev/zero | tr '\\0' x >&2; echo end >&2; exit 1",
        PATIENCE,
    )
    .await;
    assert!(flood.len() < 600 && flood.ends_with("xxend"), "{flood}");
}

#[tokio::test]
async fn output_of_a_program_that_succeeds_goes_nowhere() {
    let directory = tempfile::tempdir().unwrap();
    let loud = program(
        directory.path(),
        "cat >/dev/null; head -c 3000000 /dev/zero | tee /dev/stderr",
    );
    run(&loud, "b", b"backup", PATIENCE).await.unwrap();
}

#[tokio::test]
async fn what_a_program_leaves_behind_is_not_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    let leaving = program(
        directory.path(),
        "cat >/dev/null; sleep 1000 & echo $! >\"$1/id\"",
    );
    run(&leaving, "b", b"backup", PATIENCE).await.unwrap();
    let id = std::fs::read_to_string(directory.path().join("id")).unwrap();
    let id = Pid::from_raw(id.trim().parse().unwrap()).unwrap();
    rustix::process::kill_process(id, Signal::KILL).unwrap();
}

#[tokio::test]
async fn a_program_that_hangs_is_killed_with_what_it_started() {
    let directory = tempfile::tempdir().unwrap();
    let hanging = program(
        directory.path(),
        "sleep 1000 & echo $! >\"$1/id\"; echo waiting >&2; wait",
    );
    let id = directory.path().join("id");
    let written = || std::fs::read_to_string(&id).is_ok_and(|id| id.ends_with('\n'));
    // Long enough on any machine: it is looked for what the program has written.
    let mut within = Duration::from_millis(200);
    let fault = loop {
        let fault = run(&hanging, "b", b"backup", within).await.unwrap_err();
        if written() {
            break fault;
        }
        within *= 2;
    };
    let text = fault.to_string();
    assert!(
        text.contains("did not end within") && text.contains("was killed"),
        "{text}"
    );
    let id: i32 = std::fs::read_to_string(&id)
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    let deadline = tokio::time::Instant::now() + PATIENCE;
    // Killed, though it may still wait for its parent to notice.
    let is_there = || {
        let status = std::fs::read_to_string(format!("/proc/{id}/stat"));
        status.is_ok_and(|status| !status.contains(") Z "))
    };
    while is_there() {
        assert!(
            tokio::time::Instant::now() < deadline,
            "{id} is still there"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
