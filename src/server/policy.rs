//! The policy in a file: read at the start and whenever it changes. Saved means applied.
//!
//! What is wrong with a file changes nothing: the policy before it stays, and the reason is told.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};

use crate::engine::{EngineError, Handle};
use crate::files::{self, Stamp};
use crate::shutdown::Shutdown;
use crate::status::policy::PolicyStatus;
use hearth_core::policy::{Diagnostic, MAX_BYTES};
use hearth_core::state::command::{Command, NewPolicy, Rejected, Reply};
use hearth_core::state::model::PolicyText;
use hearth_core::state::snapshot::Snapshot;

/// How often the file is looked at. It is read when two looks find it the same, so that nobody gets half of a
/// policy that is just being written.
const LOOK: Duration = Duration::from_millis(400);

/// Why a file is not the policy.
#[derive(Debug, thiserror::Error)]
enum FileFault {
    #[error("{0}")]
    File(#[from] std::io::Error),
    #[error("not text in UTF-8")]
    NotText,
    /// An editor that truncates a file before it writes must not open everything for a moment.
    #[error("the file is empty; a policy that lets everyone reach everyone is {{}}")]
    Empty,
    #[error("{}", lines(.0))]
    Policy(Vec<Diagnostic>),
    #[error("{0}")]
    Engine(EngineError),
}

impl From<EngineError> for FileFault {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Rejected(Rejected::Policy(faults)) => Self::Policy(faults),
            other => Self::Engine(other),
        }
    }
}

fn lines(faults: &[Diagnostic]) -> String {
    let lines: Vec<String> = faults.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

/// The file, if there is one, and what is known of it.
pub(super) struct PolicyFile {
    engine: Handle,
    place: watch::Sender<PolicyStatus>,
    path: Option<PathBuf>,
    /// How the file was when it was read: `None` when it was not there.
    read: Option<Stamp>,
    /// How it was at the last look.
    seen: Option<Stamp>,
}

impl PolicyFile {
    /// The file at this path; without one the database is the place.
    pub(super) fn new(
        path: Option<PathBuf>,
        engine: Handle,
    ) -> (Self, watch::Receiver<PolicyStatus>) {
        let (place, told) = watch::channel(PolicyStatus {
            file: path.clone(),
            fault: String::new(),
        });
        let file = Self {
            engine,
            place,
            path,
            read: None,
            seen: None,
        };
        (file, told)
    }

    /// Lets the file apply, even if its tests fail: to go on without it would be another policy than the
    /// owner's.
    pub(super) async fn at_start(&mut self) {
        if let Some(path) = self.path.clone() {
            self.seen = Stamp::of(&path);
            self.apply(&path, false).await;
        }
        warn_of_stored(&self.engine.snapshot());
    }

    /// Lets the file apply whenever it changes, and when told to by `again`.
    pub(super) async fn keep(mut self, again: Arc<Notify>, shutdown: Shutdown) {
        let Some(path) = self.path.clone() else {
            return;
        };
        loop {
            let asked = tokio::select! {
                () = shutdown.wait() => return,
                () = again.notified() => true,
                () = tokio::time::sleep(LOOK) => false,
            };
            let now = Stamp::of(&path);
            let is_settled = now == self.seen;
            self.seen = now;
            if asked || is_settled && now != self.read {
                self.apply(&path, true).await;
            }
        }
    }

    async fn apply(&mut self, path: &Path, must_hold: bool) {
        self.read = self.seen;
        let file = path.display();
        let before = self.engine.snapshot().policies().last().cloned();
        let fault = match self.hand_over(path, must_hold).await {
            Ok(version) => {
                if before.is_none_or(|before| before.id != version.id) {
                    tracing::info!(%file, version = %version.id, "the policy has changed");
                }
                String::new()
            }
            Err(fault) => {
                if matches!(fault, FileFault::Engine(_)) {
                    // The file is not at fault: it is tried again.
                    self.read = None;
                }
                let fault = fault.to_string();
                if self.place.borrow().fault != fault {
                    let fault = fault.replace('\n', "; ");
                    tracing::error!(%file, %fault, "this policy was not taken over; the one before it applies");
                }
                fault
            }
        };
        self.place.send_modify(|place| place.fault = fault);
    }

    async fn hand_over(&self, path: &Path, must_hold: bool) -> Result<Arc<PolicyText>, FileFault> {
        let bytes = files::read(path, MAX_BYTES)?;
        let text = str::from_utf8(&bytes).map_err(|_| FileFault::NotText)?;
        if text.trim().is_empty() {
            return Err(FileFault::Empty);
        }
        let snapshot = self.engine.snapshot();
        let newest = snapshot.policies().last();
        let is_known = newest.is_some_and(|newest| *newest.source == *text);
        if is_known && must_hold {
            warn_of_stored(&snapshot);
        }
        // What applies already is not refused for what has become of the nodes since.
        let new = NewPolicy::parse(text, must_hold && !is_known).map_err(FileFault::Policy)?;
        match self.engine.apply(Command::SetPolicy(Box::new(new))).await? {
            Reply::Policy(version) => Ok(version),
            _ => Err(FileFault::Engine(EngineError::Unavailable)),
        }
    }
}

/// Tells what does not hold of the policy that applies; it applies all the same.
fn warn_of_stored(snapshot: &Snapshot) {
    if let Some(trouble) = PolicyStatus::default().trouble(snapshot) {
        tracing::error!("{trouble}");
    }
    if let Err(faults) = snapshot.compiled().check() {
        for fault in faults {
            tracing::warn!(%fault, "the policy does not hold");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Engine;
    use crate::store::Store;
    use hearth_core::state::testing::settings;

    struct World {
        dir: tempfile::TempDir,
        engine: Engine,
        handle: Handle,
    }

    impl World {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let (store, loaded) = Store::open(dir.path(), 1 << 20).unwrap();
            let (engine, handle) = Engine::start(store, loaded, settings(), 16, 16).unwrap();
            Self {
                dir,
                engine,
                handle,
            }
        }

        fn path(&self) -> PathBuf {
            self.dir.path().join("policy.hujson")
        }

        fn save(&self, text: &str) {
            files::replace(&self.path(), text.as_bytes()).unwrap();
        }

        fn applies(&self) -> Option<String> {
            let snapshot = self.handle.snapshot();
            let newest = snapshot.policies().last();
            newest.map(|version| version.source.to_string())
        }
    }

    const FAILING: &str =
        r#"{"acls": [], "tests": [{"src": "nobody@", "accept": ["100.64.0.1:22"]}]}"#;

    #[tokio::test]
    async fn a_bad_file_changes_nothing_and_is_told_with_line_and_column() {
        let world = World::new();
        let (mut file, told) = PolicyFile::new(Some(world.path()), world.handle.clone());
        file.at_start().await;
        assert!(told.borrow().fault.contains("No such file"));
        assert_eq!(world.applies(), None);
        for (text, applies, fault) in [
            ("{\"acls\": []}", "{\"acls\": []}", ""),
            ("{\n  \"acls\": [\n", "{\"acls\": []}", "line 3, column 1: "),
            (" \n", "{\"acls\": []}", "the file is empty; "),
            (
                FAILING,
                "{\"acls\": []}",
                "line 1, column 14: test(s) failed",
            ),
            ("{}", "{}", ""),
        ] {
            world.save(text);
            file.apply(&world.path(), true).await;
            assert_eq!(world.applies().as_deref(), Some(applies), "{text}");
            let told = told.borrow().fault.clone();
            assert!(
                told.starts_with(fault) && told.is_empty() == fault.is_empty(),
                "{told}"
            );
        }
        world.engine.stop();
    }

    #[tokio::test]
    async fn at_the_start_failing_tests_only_warn() {
        let world = World::new();
        world.save(FAILING);
        let (mut file, told) = PolicyFile::new(Some(world.path()), world.handle.clone());
        file.at_start().await;
        assert_eq!(world.applies().as_deref(), Some(FAILING));
        assert_eq!(told.borrow().fault, "");
        // Nor is it refused later, while it stays the same.
        file.apply(&world.path(), true).await;
        assert_eq!(told.borrow().fault, "");
        world.engine.stop();
    }

    #[tokio::test]
    async fn what_is_saved_applies_and_what_is_asked_for_is_read_at_once() {
        let world = World::new();
        world.save("{}");
        let (mut file, _told) = PolicyFile::new(Some(world.path()), world.handle.clone());
        file.at_start().await;
        let (again, shutdown) = (Arc::new(Notify::new()), Shutdown::new());
        let kept = file.keep(again.clone(), shutdown.clone());
        let mut states = world.handle.watch();
        let seen = async {
            for (text, asks) in [("{\"acls\": []}", false), ("{\"grants\": []}", true)] {
                world.save(text);
                if asks {
                    again.notify_one();
                }
                let is_there = |state: &Arc<Snapshot>| {
                    let newest = state.policies().last();
                    newest.is_some_and(|version| &*version.source == text)
                };
                states.wait_for(is_there).await.unwrap();
            }
            shutdown.trigger();
        };
        tokio::join!(kept, seen);
        world.engine.stop();
    }
}
