//! The policy file: loaded at the start and whenever it changes.
//!
//! An invalid file changes nothing: the previous policy stays in force, and the reason is reported. Where no policy
//! was ever valid, nobody reaches anybody (`Settings::policy_is_configured`).

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};

use crate::config::PolicySettings;
use crate::engine::{EngineError, Handle};
use crate::files::{self, Stamp};
use crate::shutdown::Shutdown;
use crate::status::policy::{self, PolicyStatus};
use hearth_core::policy::{Diagnostic, MAX_BYTES};
use hearth_core::state::command::{NewPolicy, Rejected};
use hearth_core::state::model::PolicyText;
use hearth_core::state::principal::Principal;
use hearth_core::state::snapshot::Snapshot;

/// Time between two checks of the file. It is read when two checks find it unchanged, so that a half-written
/// policy is not loaded.
const INTERVAL: Duration = Duration::from_millis(400);

/// Why a policy file is rejected.
#[derive(Debug, thiserror::Error)]
enum PolicyFileFault {
    #[error("{0}")]
    File(#[from] std::io::Error),
    #[error("invalid UTF-8")]
    NotText,
    /// An editor that truncates the file before it writes must not allow everything for a moment.
    #[error("the file is empty; use {{}} to allow everything")]
    Empty,
    #[error("{}", lines(.0))]
    Policy(Vec<Diagnostic>),
    #[error("{0}")]
    Engine(EngineError),
}

impl From<EngineError> for PolicyFileFault {
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

/// The policy file, if there is one.
pub(super) struct PolicyFile {
    engine: Handle,
    place: watch::Sender<PolicyStatus>,
    path: Option<PathBuf>,
    /// Stamp of the file when it was read; `None` if it was missing.
    read: Option<Stamp>,
    /// Stamp at the last check.
    seen: Option<Stamp>,
    /// Stamp of a file that could not be taken because the database is read-only.
    unwritten: Option<Stamp>,
}

impl PolicyFile {
    /// The configured file; without one the policy is in the database.
    pub(super) fn new(
        settings: &PolicySettings,
        engine: Handle,
    ) -> (Self, watch::Receiver<PolicyStatus>) {
        let (place, watched) = watch::channel(PolicyStatus {
            file: settings.file.clone(),
            is_lost: settings.is_lost,
            fault: String::new(),
        });
        let file = Self {
            engine,
            place,
            path: settings.file.clone(),
            read: None,
            seen: None,
            unwritten: None,
        };
        (file, watched)
    }

    /// Applies the file at the start, even if its tests fail: ignoring it would apply another policy than
    /// intended.
    pub(super) async fn load(&mut self) {
        if let Some(path) = self.path.clone() {
            self.seen = Stamp::of(&path);
            self.apply(&path, false).await;
        }
        warn_of_stored(&self.place.borrow(), &self.engine.snapshot());
    }

    /// Applies the file whenever it changes and when `again` is notified.
    pub(super) async fn watch(mut self, again: Arc<Notify>, shutdown: Shutdown) {
        let Some(path) = self.path.clone() else {
            return;
        };
        loop {
            let asked = tokio::select! {
                () = shutdown.wait() => return,
                () = again.notified() => true,
                () = tokio::time::sleep(INTERVAL) => false,
            };
            let now = Stamp::of(&path);
            let is_settled = now == self.seen;
            self.seen = now;
            let waits_for_disk =
                now == self.unwritten && self.engine.snapshot().disk_fault().is_some();
            if asked || is_settled && now != self.read && !waits_for_disk {
                self.apply(&path, true).await;
            }
        }
    }

    async fn apply(&mut self, path: &Path, must_hold: bool) {
        self.read = self.seen;
        self.unwritten = None;
        let file = path.display();
        let before = self.engine.snapshot().policies().last().cloned();
        let fault = match self.hand_over(path, must_hold).await {
            Ok(version) => {
                if before.is_none_or(|before| before.id != version.id) {
                    tracing::debug!(%file, version = %version.id, "policy file read");
                }
                String::new()
            }
            Err(fault) => {
                if matches!(fault, PolicyFileFault::Engine(_)) {
                    // The file is not at fault: try again, if need be once the database is writable.
                    (self.read, self.unwritten) = (None, self.seen);
                }
                fault.to_string()
            }
        };
        let is_news = self.place.borrow().fault != fault;
        self.place.send_modify(|place| place.fault = fault);
        if is_news && let Some(trouble) = self.place.borrow().trouble(&self.engine.snapshot()) {
            tracing::error!("{trouble}");
        }
    }

    async fn hand_over(
        &self,
        path: &Path,
        must_hold: bool,
    ) -> Result<Arc<PolicyText>, PolicyFileFault> {
        let bytes = files::read(path, MAX_BYTES)?;
        let text = str::from_utf8(&bytes).map_err(|_| PolicyFileFault::NotText)?;
        if text.trim().is_empty() {
            return Err(PolicyFileFault::Empty);
        }
        let snapshot = self.engine.snapshot();
        let newest = snapshot.policies().last();
        let is_known = newest.is_some_and(|newest| *newest.source == *text);
        if is_known && must_hold {
            warn_of_stored(&PolicyStatus::default(), &snapshot);
        }
        // The policy in force is not rejected for tests that fail since nodes changed.
        let new =
            NewPolicy::parse(text, must_hold && !is_known).map_err(PolicyFileFault::Policy)?;
        let set = self.engine.set_policy(Principal::System, new).await?;
        if !is_known {
            policy::warnings(&self.engine.snapshot().compiled().warnings());
        }
        Ok(set.value)
    }
}

/// Logs why the policy in force is not the newest, and which of its tests fail.
fn warn_of_stored(status: &PolicyStatus, snapshot: &Snapshot) {
    // A rejected file was logged when it was read.
    if status.fault.is_empty()
        && let Some(trouble) = status.trouble(snapshot)
    {
        tracing::error!("{trouble}");
    }
    for warning in policy::ambiguous_users(snapshot) {
        tracing::warn!("{warning}");
    }
    if let Err(faults) = snapshot.compiled().check() {
        for fault in faults {
            tracing::warn!(%fault, "a test of the policy fails");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Engine;
    use crate::store::{Disk, Mood, Store};
    use hearth_core::state::model::Settings;
    use hearth_core::state::testing::settings;

    struct World {
        dir: tempfile::TempDir,
        engine: Engine,
        handle: Handle,
    }

    impl World {
        fn new() -> Self {
            Self::open(tempfile::tempdir().unwrap())
        }

        /// A server whose configuration names a policy file.
        fn open(dir: tempfile::TempDir) -> Self {
            let (store, loaded) = Store::open(dir.path(), 1 << 20).unwrap();
            let settings = Settings {
                policy_is_configured: true,
                ..settings()
            };
            let (engine, handle) = Engine::start(store, loaded, settings, 16, 16).unwrap();
            Self {
                dir,
                engine,
                handle,
            }
        }

        fn restart(self) -> Self {
            self.engine.stop();
            Self::open(self.dir)
        }

        fn file(&self) -> (PolicyFile, watch::Receiver<PolicyStatus>) {
            let settings = PolicySettings {
                file: Some(self.path()),
                is_lost: false,
            };
            PolicyFile::new(&settings, self.handle.clone())
        }

        /// Whether a policy that nobody wrote applies.
        fn denies_everything(&self) -> bool {
            let snapshot = self.handle.snapshot();
            snapshot.policies().is_empty() && snapshot.compiled().policy().is_some()
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
    async fn with_a_policy_file_that_was_never_valid_nobody_reaches_anybody() {
        let world = World::new();
        assert!(world.denies_everything());
        for text in [
            None,
            Some("{\n"),
            Some(""),
            Some("null"),
            Some("{\"acls\": 5}"),
        ] {
            if let Some(text) = text {
                world.save(text);
            }
            let (mut file, watched) = world.file();
            file.load().await;
            let trouble = watched.borrow().trouble(&world.handle.snapshot());
            let trouble = trouble.unwrap();
            assert!(trouble.contains("no device can reach another"), "{trouble}");
            assert!(world.denies_everything(), "{text:?}");
        }
        world.save("{}");
        let (mut file, watched) = world.file();
        file.load().await;
        assert_eq!(watched.borrow().trouble(&world.handle.snapshot()), None);
        assert!(!world.denies_everything());
        // Now there is a previous one.
        world.save("{\n");
        let world = world.restart();
        let (mut file, watched) = world.file();
        file.load().await;
        let trouble = watched.borrow().trouble(&world.handle.snapshot());
        let trouble = trouble.unwrap();
        assert!(
            trouble.contains("the previous policy stays in effect"),
            "{trouble}"
        );
        assert!(!world.denies_everything());
        world.engine.stop();
    }

    #[tokio::test]
    async fn an_invalid_file_changes_nothing_and_is_reported_with_line_and_column() {
        let world = World::new();
        let (mut file, watched) = world.file();
        file.load().await;
        assert!(watched.borrow().fault.contains("No such file"));
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
            let found = watched.borrow().fault.clone();
            assert!(
                found.starts_with(fault) && found.is_empty() == fault.is_empty(),
                "{found}"
            );
        }
        world.engine.stop();
    }

    /// It was parsed and sent to the engine every 400 ms, for as long as the disk was full.
    #[tokio::test]
    async fn a_file_that_cannot_be_stored_waits_for_the_disk() {
        let (dir, disk) = (tempfile::tempdir().unwrap(), Disk::default());
        let (store, loaded) = Store::failing(dir.path(), disk.clone());
        let (engine, handle) = Engine::start(store, loaded, settings(), 16, 16).unwrap();
        let world = World {
            dir,
            engine,
            handle,
        };
        disk.set(Mood::Fails);
        world.save("{}");
        let (mut file, watched) = world.file();
        file.load().await;
        let fault = watched.borrow().fault.clone();
        assert!(fault.contains("no space left"), "{fault}");
        let shutdown = Shutdown::new();
        let watching = file.watch(Arc::default(), shutdown.clone());
        let waits = async {
            let mut changes = watched.clone();
            changes.mark_unchanged();
            let again = tokio::time::timeout(INTERVAL * 4, changes.changed()).await;
            assert!(again.is_err(), "it was tried again");
            shutdown.trigger();
        };
        tokio::join!(watching, waits);
        world.engine.stop();
    }

    #[tokio::test]
    async fn at_the_start_failing_tests_are_warnings() {
        let world = World::new();
        world.save(FAILING);
        let (mut file, watched) = world.file();
        file.load().await;
        assert_eq!(world.applies().as_deref(), Some(FAILING));
        assert_eq!(watched.borrow().fault, "");
        // Nor is it rejected later while it is unchanged.
        file.apply(&world.path(), true).await;
        assert_eq!(watched.borrow().fault, "");
        world.engine.stop();
    }

    #[tokio::test]
    async fn a_saved_file_applies_and_a_reload_reads_it_at_once() {
        let world = World::new();
        world.save("{}");
        let (mut file, _watched) = world.file();
        file.load().await;
        let (again, shutdown) = (Arc::new(Notify::new()), Shutdown::new());
        let kept = file.watch(again.clone(), shutdown.clone());
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
