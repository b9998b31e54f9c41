//! Where the policy comes from, as far as answers tell of it.

use std::path::PathBuf;

use hearth_core::policy::Policy;
use hearth_core::state::snapshot::Snapshot;

/// Where the policy comes from, and what is wrong there.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PolicyStatus {
    /// The file; `None` is the database.
    pub file: Option<PathBuf>,
    /// Why what is in the file does not apply, one fault a line; empty: it does.
    pub fault: String,
}

impl PolicyStatus {
    /// What a person should know of the policy, if something is wrong with it.
    pub fn trouble(&self, snapshot: &Snapshot) -> Option<String> {
        let applies = match snapshot.compiled().policy() {
            Some(_) => "the one before it applies",
            None => "there is no other, so everyone may reach everyone",
        };
        if let Some(file) = self.file.as_ref().filter(|_| !self.fault.is_empty()) {
            let (file, fault) = (file.display(), first_of(&self.fault));
            return Some(format!(
                "the policy in {file} was not taken over, {applies}: {fault}"
            ));
        }
        // Only another version of hearth can have stored what this one cannot read.
        let newest = snapshot.policies().last()?;
        let faults = Policy::parse(&newest.source).err()?;
        let fault = faults.first()?;
        let mut all = snapshot.policies().iter();
        let applies = match all.any(|version| Policy::parse(&version.source).is_ok()) {
            true => "the one before it applies",
            false => "nor any before it, so nobody may reach anybody; set one (hearth policy set)",
        };
        Some(format!(
            "the stored policy cannot be read, {applies}: {fault}"
        ))
    }
}

/// The first of the faults, and how many there are besides.
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
    fn trouble_names_the_file_the_fault_and_what_applies() {
        let (mut world, _) = World::with_user();
        let mut place = PolicyStatus::default();
        assert_eq!(place.trouble(&world.snapshot()), None);
        place.file = Some("/p".into());
        assert_eq!(place.trouble(&world.snapshot()), None);
        place.fault = "line 1, column 2: x\nline 2, column 3: y".into();
        assert_eq!(
            place.trouble(&world.snapshot()).as_deref(),
            Some(
                "the policy in /p was not taken over, there is no other, so everyone may reach everyone: \
                 line 1, column 2: x (and 1 more)"
            )
        );
        world.set_policy("{}");
        let newest = Arc::make_mut(&mut world.model.policies).last_mut();
        Arc::make_mut(newest.unwrap()).source = "{\"x\": 1}".into();
        let text = PolicyStatus::default().trouble(&world.snapshot()).unwrap();
        assert!(text.contains("nobody may reach anybody"), "{text}");
        let text = place.trouble(&world.snapshot()).unwrap();
        assert!(text.contains("the one before it applies"), "{text}");
    }
}
