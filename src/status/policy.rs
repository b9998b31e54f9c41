//! Source of the policy, and its errors.

use std::path::PathBuf;

use hearth_core::policy::{Diagnostic, Policy, User};
use hearth_core::state::snapshot::Snapshot;

/// Source of the policy, and its errors.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PolicyStatus {
    /// Path of the policy file; `None` when the policy is in the database.
    pub file: Option<PathBuf>,
    /// Errors that keep the policy file from being applied, one per line; empty when it is applied.
    pub fault: String,
}

impl PolicyStatus {
    /// Warning for the operator, if there is a problem with the policy.
    pub fn trouble(&self, snapshot: &Snapshot) -> Option<String> {
        let applies = match snapshot.compiled().policy() {
            Some(_) => "the previous policy stays in effect",
            None => "no previous policy, so everyone can reach everyone",
        };
        if let Some(file) = self.file.as_ref().filter(|_| !self.fault.is_empty()) {
            let (file, fault) = (file.display(), first_of(&self.fault));
            return Some(format!(
                "the policy in {file} was rejected, {applies}: {fault}"
            ));
        }
        // Only another version of hearth can have stored a policy that this one cannot read.
        let newest = snapshot.policies().last()?;
        let faults = Policy::parse(&newest.source).err()?;
        let fault = faults.first()?;
        let mut all = snapshot.policies().iter();
        let applies = match all.any(|version| Policy::parse(&version.source).is_ok()) {
            true => "the previous policy stays in effect",
            false => "no previous policy, so all traffic is denied; set one (hearth policy set)",
        };
        Some(format!(
            "the stored policy cannot be read, {applies}: {fault}"
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

    #[test]
    fn the_warning_names_the_file_the_error_and_the_policy_in_effect() {
        let (mut world, _) = World::with_user();
        let mut status = PolicyStatus::default();
        assert_eq!(status.trouble(&world.snapshot()), None);
        status.file = Some("/p".into());
        assert_eq!(status.trouble(&world.snapshot()), None);
        status.fault = "line 1, column 2: x\nline 2, column 3: y".into();
        assert_eq!(
            status.trouble(&world.snapshot()).as_deref(),
            Some(
                "the policy in /p was rejected, no previous policy, so everyone can reach everyone: \
                 line 1, column 2: x (and 1 more)"
            )
        );
        world.set_policy("{}");
        let newest = Arc::make_mut(&mut world.model.policies).last_mut();
        Arc::make_mut(newest.unwrap()).source = "{\"x\": 1}".into();
        let text = PolicyStatus::default().trouble(&world.snapshot()).unwrap();
        assert!(text.contains("all traffic is denied"), "{text}");
        let text = status.trouble(&world.snapshot()).unwrap();
        assert!(
            text.contains("the previous policy stays in effect"),
            "{text}"
        );
    }
}
