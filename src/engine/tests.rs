use std::time::Duration;

use crate::engine::{Engine, EngineError, Handle};
use crate::id::Revision;
use crate::state::command::{Command, NewUser, Rejected, Reply};
use crate::state::testing::settings;
use crate::store::Store;

const CACHE: usize = 256 * 1024;

fn start(directory: &std::path::Path) -> (Engine, Handle) {
    let (store, loaded) = Store::open(directory, CACHE).unwrap();
    Engine::start(store, loaded, settings(), 64, 16).unwrap()
}

fn user(name: &str) -> Command {
    Command::CreateUser(NewUser { name: name.into(), ..NewUser::default() })
}

#[tokio::test]
async fn a_command_is_answered_after_it_is_published_and_survives_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let (engine, handle) = start(directory.path());
    let before = handle.snapshot();
    assert!(matches!(handle.apply(user("anna")).await, Ok(Reply::User(_))));
    assert_eq!(handle.snapshot().users().len(), 1);
    assert!(handle.snapshot().revision() > before.revision());
    assert!(before.users().is_empty(), "an old state stays as it was");
    engine.stop();
    let (engine, handle) = start(directory.path());
    assert_eq!(handle.snapshot().users().len(), 1);
    engine.stop();
}

#[tokio::test]
async fn a_refused_command_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (engine, handle) = start(directory.path());
    let refused = handle.apply(user("")).await;
    let expected = EngineError::Rejected(Rejected::BadUserName("".into()));
    assert_eq!(refused.map(|_| ()), Err(expected));
    assert_eq!(handle.snapshot().revision(), Revision::ZERO);
    engine.stop();
}

#[tokio::test]
async fn commands_that_come_together_share_a_transaction() {
    let directory = tempfile::tempdir().unwrap();
    let (engine, handle) = start(directory.path());
    let names: Vec<String> = (0..8).map(|number| format!("user{number}")).collect();
    let asked = names.iter().map(|name| {
        let handle = handle.clone();
        let command = user(name);
        async move { handle.apply(command).await }
    });
    for answer in futures_join(asked).await {
        assert!(answer.is_ok(), "{answer:?}");
    }
    let snapshot = handle.snapshot();
    assert_eq!(snapshot.users().len(), 8);
    assert!(snapshot.revision() < Revision::new(8), "{:?}", snapshot.revision());
    engine.stop();
}

/// Sends all commands before it waits for the first answer.
async fn futures_join<F: Future<Output = Result<Reply, EngineError>> + Send + 'static>(
    asked: impl Iterator<Item = F>,
) -> Vec<Result<Reply, EngineError>> {
    let mut running = tokio::task::JoinSet::new();
    for future in asked {
        running.spawn(future);
    }
    running.join_all().await
}

#[tokio::test]
async fn nobody_waits_for_a_server_that_has_stopped() {
    let directory = tempfile::tempdir().unwrap();
    let (engine, handle) = start(directory.path());
    engine.stop();
    let answer = tokio::time::timeout(Duration::from_secs(5), handle.apply(user("late"))).await;
    assert_eq!(answer.unwrap().map(|_| ()), Err(EngineError::Stopped));
}

/// A disk that takes nothing any more: `/dev/full` cannot hold a database, a limit on the file's
/// size can. What needs no disk goes on.
#[tokio::test]
async fn without_a_disk_changes_are_refused_and_the_rest_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let (engine, handle) = start(directory.path());
    handle.apply(user("anna")).await.unwrap();
    let read_only = directory.path().join(crate::store::FILE_NAME);
    std::fs::remove_file(&read_only).unwrap();
    std::fs::create_dir(&read_only).unwrap();
    assert!(handle.snapshot().is_writable());
    engine.stop();
}
