//! Source of the policy, and its errors.

use std::path::PathBuf;

use crate::api::MISSING_USERS;
use hearth_core::policy::{Diagnostic, Policy, User};
use hearth_core::state::snapshot::Snapshot;

/// Source of the policy, and its errors.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PolicyStatus {
    /// Path of the policy file; `None` when the policy is in the database.
    pub file: Option<PathBuf>,
    /// Whether the configuration may name a policy file, and cannot be read.
    pub is_lost: bool,
    /// Errors that keep the policy file from being applied, one per line; empty when it is applied.
    pub fault: String,
}

/// What applies while the newest policy cannot.
const EARLIER: &str = "the previous policy stays in effect";
/// See [`EARLIER`].
const NOBODY: &str = "there is no previous policy, so no device can reach another";

impl PolicyStatus {
    /// Whether no device can reach another because no policy was ever valid. A policy that denies everything is
    /// not meant.
    pub fn is_closed(&self, snapshot: &Snapshot) -> bool {
        let is_expected =
            snapshot.settings().policy_is_configured || !snapshot.policies().is_empty();
        let mut versions = snapshot.policies().iter().rev();
        is_expected && !versions.any(|version| Policy::parse(&version.source).is_ok())
    }

    /// Warning for the operator, if there is a problem with the policy.
    pub fn trouble(&self, snapshot: &Snapshot) -> Option<String> {
        let applies = || match self.is_closed(snapshot) {
            true => NOBODY,
            false => EARLIER,
        };
        if let Some(file) = self.file.as_ref().filter(|_| !self.fault.is_empty()) {
            let (file, fault, applies) = (file.display(), first_of(&self.fault), applies());
            return Some(format!(
                "the policy in {file} was rejected; {applies}: {fault}"
            ));
        }
        if self.is_lost {
            let applies = applies();
            return Some(format!(
                "`policy.file` in the configuration cannot be read; {applies} (see `hearth check`)"
            ));
        }
        // Another version of hearth may have stored a policy that this one cannot read, or it is damaged.
        let newest = snapshot.policies().last()?;
        let faults = Policy::parse(&newest.source).err()?;
        let (fault, applies) = (faults.first()?, applies());
        if fault.is_empty_policy() {
            return Some(format!(
                "the stored policy is empty, and an empty policy no longer allows everything; {applies}; set `{{}}` to allow everything (`hearth policy set`)"
            ));
        }
        Some(format!(
            "the stored policy cannot be read; {applies} (`hearth policy set` sets one): {fault}"
        ))
    }
}

/// Most warnings about one policy that are logged.
const LOGGED_MAX: usize = 10;

/// Logs the warnings about a policy that was set.
pub fn warnings(warnings: &[Diagnostic]) {
    for warning in warnings.iter().take(LOGGED_MAX) {
        tracing::warn!("policy: {warning}");
    }
    let more = warnings.len().saturating_sub(LOGGED_MAX);
    if more > 0 {
        tracing::warn!("policy: and {more} more warnings; see `hearth policy check`");
    }
}

/// Most users that a warning names.
const NAMED_MAX: usize = 10;

/// Warning about users whom the policy names and who do not exist, for example because they were renamed.
pub fn missing_users(snapshot: &Snapshot) -> Option<String> {
    let compiled = snapshot.compiled();
    let missing = compiled.missing_users();
    let names: Vec<&str> = missing.iter().copied().take(NAMED_MAX).collect();
    let more = if missing.len() > NAMED_MAX {
        ", …"
    } else {
        ""
    };
    (!missing.is_empty()).then(|| {
        format!(
            "{MISSING_USERS}{}{more}; what it allows them, and tags that only they own, have no effect (`hearth policy get | hearth policy check -` shows where)",
            names.join(", ")
        )
    })
}

/// Warnings about users whom a policy cannot tell apart, which older versions of hearth allowed.
pub fn ambiguous_users(snapshot: &Snapshot) -> Vec<String> {
    let pairs = snapshot.compiled().ambiguous_users();
    let text = |(one, other): (&User, &User)| {
        format!(
            "users {} ({}) and {} ({}) have the same name in a policy, so its rules for them match neither: rename one (hearth users rename)",
            one.id, one.login, other.id, other.login
        )
    };
    pairs.into_iter().map(text).collect()
}

/// The first error, and the number of others.
fn first_of(faults: &str) -> String {
    let mut lines = faults.lines();
    let first = lines.next().unwrap_or_default();
    match lines.count() {
        0 => first.to_owned(),
        more => format!("{first} (and {more} more)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hearth_core::state::testing::World;
    use std::sync::Arc;

    fn expect_policy(world: &mut World) {
        Arc::make_mut(&mut world.model.settings).policy_is_configured = true;
    }

    #[test]
    fn the_warning_names_the_file_the_error_and_the_policy_in_effect() {
        let (mut world, _) = World::with_user();
        let mut status = PolicyStatus::default();
        assert_eq!(status.trouble(&world.snapshot()), None);
        assert!(!status.is_closed(&world.snapshot()));
        expect_policy(&mut world);
        status.file = Some("/p".into());
        assert_eq!(status.trouble(&world.snapshot()), None);
        status.fault = "line 1, column 2: x\nline 2, column 3: y".into();
        assert!(status.is_closed(&world.snapshot()));
        assert_eq!(
            status.trouble(&world.snapshot()).as_deref(),
            Some(
                "the policy in /p was rejected; there is no previous policy, so no device can reach another: \
                 line 1, column 2: x (and 1 more)"
            )
        );
        world.set_policy("{}");
        assert!(!status.is_closed(&world.snapshot()));
        let text = status.trouble(&world.snapshot()).unwrap();
        assert!(text.contains(EARLIER), "{text}");
        let newest = Arc::make_mut(&mut world.model.policies).last_mut();
        Arc::make_mut(newest.unwrap()).source = "{\"x\": 1}".into();
        let text = PolicyStatus::default().trouble(&world.snapshot()).unwrap();
        assert!(
            text.contains("the stored policy") && text.contains(NOBODY),
            "{text}"
        );
        let text = status.trouble(&world.snapshot()).unwrap();
        assert!(text.contains("/p") && text.contains(NOBODY), "{text}");
    }

    #[test]
    fn a_stored_empty_policy_stays_closed_and_is_named_with_what_to_set() {
        for text in ["", " \n", "null", "\u{feff}", " null // none\n"] {
            let (mut world, _) = World::with_user();
            world.set_policy("{}");
            let newest = Arc::make_mut(&mut world.model.policies).last_mut();
            Arc::make_mut(newest.unwrap()).source = text.into();
            let (status, snapshot) = (PolicyStatus::default(), world.snapshot());
            assert!(status.is_closed(&snapshot), "{text:?}");
            let trouble = status.trouble(&snapshot).unwrap();
            for part in [
                "an empty policy no longer allows everything",
                "set `{}`",
                NOBODY,
            ] {
                assert!(trouble.contains(part), "{text:?}: {trouble}");
            }
        }
    }

    #[test]
    fn a_configuration_that_cannot_be_read_counts_as_one_with_a_policy() {
        let (mut world, _) = World::with_user();
        expect_policy(&mut world);
        let status = PolicyStatus {
            is_lost: true,
            ..PolicyStatus::default()
        };
        let text = status.trouble(&world.snapshot()).unwrap();
        assert!(
            text.contains("`policy.file`") && text.contains(NOBODY),
            "{text}"
        );
        world.set_policy("{}");
        let text = status.trouble(&world.snapshot()).unwrap();
        assert!(text.contains(EARLIER), "{text}");
    }
}
