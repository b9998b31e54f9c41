use std::os::unix::fs::PermissionsExt as _;

use super::*;

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
    run(&program, "b.tar.zst", &backup).await.unwrap();
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
    let fault = run(&failing, "b", &backup).await.unwrap_err();
    assert!(fault.to_string().contains("exit status: 3"), "{fault}");
    let deaf = program(directory.path(), "exit 0");
    assert!(run(&deaf, "b", &backup).await.is_err());
}
