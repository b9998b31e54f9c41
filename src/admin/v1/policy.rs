//! The policy: shown, checked, set, and set back.
//!
//! Source: headscale `hscontrol/api/v1/policy.go` (paths, fields, texts of refusals).

use std::sync::Arc;

use crate::admin::problem::{Code, Fault};
use crate::admin::{AdminContext, Answer, Call, json};
use crate::api::{
    EmptyAnswer, PolicyAnswer, PolicyVersion, PolicyVersions, RollBackPolicy, SetPolicy,
};
use crate::engine::EngineError;
use hearth_core::id::PolicyId;
use hearth_core::policy::{Diagnostic, MAX_BYTES};
use hearth_core::state::command::{NewPolicy, Rejected};
use hearth_core::state::model::PolicyText;
use hearth_core::state::principal::Principal;

/// Longest body of a request with a policy, in bytes: the longest policy, with each character escaped.
pub const BODY_MAX: usize = 2 * MAX_BYTES + 1024;

/// Source of the first part: `ErrPolicyNotFound` in headscale `hscontrol/types/policy.go`, with what its
/// handler puts before it; web interfaces know it by this.
const NONE: &str = "loading ACL from database: acl policy not found: everyone may reach everyone until \
                    `hearth policy set FILE`";

/// Why a policy is not taken over.
#[derive(Debug)]
pub(crate) enum Unfit {
    /// What is wrong with it.
    Policy(Vec<Diagnostic>),
    /// It does not come to that.
    Request(Fault),
}

impl From<Fault> for Unfit {
    fn from(fault: Fault) -> Self {
        Self::Request(fault)
    }
}

impl From<Unfit> for Fault {
    fn from(unfit: Unfit) -> Self {
        match unfit {
            Unfit::Policy(faults) => Self::policy(&faults),
            Unfit::Request(fault) => fault,
        }
    }
}

impl Call<'_> {
    pub(crate) fn show_policy(&self) -> Answer {
        let snapshot = self.admin.engine.snapshot();
        match snapshot.policies().last() {
            Some(version) => json(&self.admin.shown(version)),
            None => {
                let place = self.admin.about.policy_status.borrow();
                let trouble = place.trouble(&snapshot);
                let message = trouble.unwrap_or_else(|| NONE.into());
                Err(Fault::new(Code::Unknown, message))
            }
        }
    }

    pub(crate) async fn set_policy(&self) -> Answer {
        let wish: SetPolicy = self.read()?;
        let _turn = self.admin.policy_turn.lock().await;
        let version = self.admin.take_over(self.by(), &wish.policy).await?;
        json(&self.admin.shown(&version))
    }

    /// Says whether a policy could be set, without setting it.
    pub(crate) fn check_policy(&self) -> Answer {
        let wish: SetPolicy = self.read()?;
        self.admin.check(&wish.policy)?;
        json(&EmptyAnswer {})
    }

    pub(crate) fn list_policies(&self) -> Answer {
        let snapshot = self.admin.engine.snapshot();
        let versions = snapshot.policies().iter().map(|version| PolicyVersion {
            version: version.id.to_string(),
            updated_at: version.created,
            bytes: version.source.len(),
        });
        json(&PolicyVersions {
            versions: versions.collect(),
        })
    }

    pub(crate) fn show_policy_version(&self, version: &str) -> Answer {
        let version = self.admin.version(version)?;
        json(&self.admin.shown(&version))
    }

    /// Sets an older version again, as a new one.
    pub(crate) async fn roll_back_policy(&self) -> Answer {
        let RollBackPolicy { version } = self.read()?;
        let _turn = self.admin.policy_turn.lock().await;
        let wanted = match version.0.as_str() {
            "" | "0" => {
                let snapshot = self.admin.engine.snapshot();
                let mut newest_first = snapshot.policies().iter().rev();
                let before = newest_first.nth(1).cloned();
                before.ok_or_else(|| Fault::new(Code::NotFound, "there is no older policy"))?
            }
            version => self.admin.version(version)?,
        };
        let version = self.admin.take_over(self.by(), &wanted.source).await?;
        json(&self.admin.shown(&version))
    }
}

impl AdminContext {
    fn version(&self, version: &str) -> Result<Arc<PolicyText>, Fault> {
        let id: Option<PolicyId> = version.parse().ok();
        let snapshot = self.engine.snapshot();
        let mut versions = snapshot.policies().iter();
        let found = versions.find(|known| Some(known.id) == id).cloned();
        found.ok_or_else(|| {
            let message = "this version of the policy is not kept: `hearth policy history` shows those that are";
            Fault::new(Code::NotFound, message)
        })
    }

    /// Lets a policy apply. Whoever compared it with the one before holds `policy_turn`.
    ///
    /// # Errors
    /// When a file is the place of the policy, or this one has faults, or its tests fail.
    pub(crate) async fn take_over(
        &self,
        by: Principal,
        text: &str,
    ) -> Result<Arc<PolicyText>, Unfit> {
        if let Some(file) = &self.about.policy_status.borrow().file {
            // The first part is Headscale's: `ErrPolicyUpdateIsDisabled` in `hscontrol/types/policy.go`.
            let fault = Fault::invalid(&format!(
                "update is disabled for modes other than 'database': the policy is in {}; what is saved there \
                 applies at once. Without `policy.file` in the configuration the database is the place",
                file.display()
            ));
            return Err(fault.into());
        }
        let new = parsed(text)?;
        match self.engine.set_policy(by, new).await {
            Ok(set) => Ok(set.value),
            Err(EngineError::Rejected(Rejected::Policy(faults))) => Err(Unfit::Policy(faults)),
            Err(error) => Err(Unfit::Request(error.into())),
        }
    }

    /// Whether a policy could be set.
    ///
    /// # Errors
    /// When it has faults, or its tests fail.
    pub(crate) fn check(&self, text: &str) -> Result<(), Unfit> {
        let new = parsed(text)?;
        let compiled = self.engine.snapshot().compile(&new.policy);
        compiled.check().map_err(Unfit::Policy)
    }

    fn shown(&self, version: &PolicyText) -> PolicyAnswer {
        let place = self.about.policy_status.borrow();
        let file = place.file.as_ref().map(|file| file.display().to_string());
        let trouble = place.trouble(&self.engine.snapshot());
        PolicyAnswer {
            policy: version.source.to_string(),
            updated_at: version.created,
            version: version.id.to_string(),
            file: file.unwrap_or_default(),
            trouble: trouble.unwrap_or_default(),
        }
    }
}

/// Reads a policy. Nothing at all is taken for a slip, and not for the policy that allows everything.
pub(crate) fn parsed(text: &str) -> Result<NewPolicy, Unfit> {
    if text.trim().is_empty() {
        let message = "the policy is empty; one that lets everyone reach everyone is {}";
        return Err(Fault::invalid(message).into());
    }
    NewPolicy::parse(text, true).map_err(Unfit::Policy)
}
