//! Policy: show, check, set, and roll back.
//!
//! Source: headscale `hscontrol/api/v1/policy.go` (paths, fields, error texts).

use std::sync::Arc;

use crate::admin::problem::{ApiError, Code};
use crate::admin::{AdminContext, ApiCall, ApiResult, json};
use crate::api::{
    CheckedPolicy, PolicyAnswer, PolicyVersion, PolicyVersions, RollBackPolicy, SetPolicy,
};
use crate::engine::EngineError;
use crate::status::policy as policy_log;
use hearth_core::id::PolicyId;
use hearth_core::policy::{Compiled, Diagnostic, MAX_BYTES};
use hearth_core::state::command::{NewPolicy, Rejected};
use hearth_core::state::model::PolicyText;
use hearth_core::state::principal::Principal;

/// Longest request body with a policy, in bytes: the longest policy with each character escaped.
pub const BODY_MAX: usize = 2 * MAX_BYTES + 1024;

/// Source of the first part: `ErrPolicyNotFound` in headscale `hscontrol/types/policy.go`, with the prefix
/// of its handler; web interfaces recognize it by this.
const NONE: &str = "loading ACL from database: acl policy not found: everyone can reach everyone until a \
                    policy is set (hearth policy set FILE)";

/// Why a policy was rejected.
#[derive(Debug)]
pub(crate) enum PolicyError {
    /// Errors in the policy.
    Policy(Vec<Diagnostic>),
    /// Another error.
    Request(ApiError),
}

impl From<ApiError> for PolicyError {
    fn from(fault: ApiError) -> Self {
        Self::Request(fault)
    }
}

impl From<PolicyError> for ApiError {
    fn from(unfit: PolicyError) -> Self {
        match unfit {
            PolicyError::Policy(faults) => Self::policy(&faults),
            PolicyError::Request(fault) => fault,
        }
    }
}

impl ApiCall<'_> {
    pub(crate) fn show_policy(&self) -> ApiResult {
        let snapshot = self.admin.engine.snapshot();
        match snapshot.policies().last() {
            Some(version) => json(&self.admin.shown(version)),
            None => {
                let status = self.admin.about.policy_status.borrow();
                let trouble = status.trouble(&snapshot);
                let message = trouble.unwrap_or_else(|| NONE.into());
                Err(ApiError::new(Code::Unknown, message))
            }
        }
    }

    pub(crate) async fn set_policy(&self) -> ApiResult {
        let request: SetPolicy = self.read()?;
        let _turn = self.admin.policy_lock.lock().await;
        let version = self.admin.apply_policy(self.by(), &request.policy).await?;
        json(&self.admin.shown_with_warnings(&version))
    }

    /// Checks a policy without setting it.
    pub(crate) fn check_policy(&self) -> ApiResult {
        let request: SetPolicy = self.read()?;
        let compiled = self.admin.check(&request.policy)?;
        json(&CheckedPolicy {
            warnings: texts(&compiled.warnings()),
        })
    }

    pub(crate) fn list_policies(&self) -> ApiResult {
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

    pub(crate) fn show_policy_version(&self, version: &str) -> ApiResult {
        let version = self.admin.version(version)?;
        json(&self.admin.shown(&version))
    }

    /// Sets an older version again, as a new version.
    pub(crate) async fn roll_back_policy(&self) -> ApiResult {
        let RollBackPolicy { version } = self.read()?;
        let _turn = self.admin.policy_lock.lock().await;
        let wanted = match version.0.as_str() {
            "" | "0" => {
                let snapshot = self.admin.engine.snapshot();
                let mut newest_first = snapshot.policies().iter().rev();
                let before = newest_first.nth(1).cloned();
                before.ok_or_else(|| ApiError::new(Code::NotFound, "there is no earlier policy"))?
            }
            version => self.admin.version(version)?,
        };
        let version = self.admin.apply_policy(self.by(), &wanted.source).await?;
        json(&self.admin.shown_with_warnings(&version))
    }
}

impl AdminContext {
    fn version(&self, version: &str) -> Result<Arc<PolicyText>, ApiError> {
        let id: Option<PolicyId> = version.parse().ok();
        let snapshot = self.engine.snapshot();
        let mut versions = snapshot.policies().iter();
        let found = versions.find(|known| Some(known.id) == id).cloned();
        found.ok_or_else(|| {
            let message =
                "this policy version is not kept; list the versions with hearth policy history";
            ApiError::new(Code::NotFound, message)
        })
    }

    /// Sets the policy. A caller that compared it with the current one must hold `policy_lock`.
    ///
    /// # Errors
    /// When the policy comes from a file, this one has errors, or its tests fail.
    pub(crate) async fn apply_policy(
        &self,
        by: Principal,
        text: &str,
    ) -> Result<Arc<PolicyText>, PolicyError> {
        if self.about.policy_status.borrow().is_lost {
            let message = "the configuration may name a policy file, and cannot be read: fix it first (see `hearth check`)";
            return Err(ApiError::invalid(message).into());
        }
        if let Some(file) = &self.about.policy_status.borrow().file {
            // The first part is Headscale's: `ErrPolicyUpdateIsDisabled` in `hscontrol/types/policy.go`.
            let fault = ApiError::invalid(&format!(
                "update is disabled for modes other than 'database': the policy is in {} and is applied when that \
                file is saved. Remove `policy.file` from the configuration to keep the policy in the database",
                file.display()
            ));
            return Err(fault.into());
        }
        let new = parsed(text)?;
        match self.engine.set_policy(by, new).await {
            Ok(set) => {
                let warnings = self.engine.snapshot().compiled().warnings();
                policy_log::warnings(&warnings);
                Ok(set.value)
            }
            Err(EngineError::Rejected(Rejected::Policy(faults))) => {
                Err(PolicyError::Policy(faults))
            }
            Err(error) => Err(PolicyError::Request(error.into())),
        }
    }

    /// Checks whether a policy could be set.
    ///
    /// # Errors
    /// When it has errors, or its tests fail.
    pub(crate) fn check(&self, text: &str) -> Result<Compiled, PolicyError> {
        let new = parsed(text)?;
        let compiled = self.engine.snapshot().compile(&new.policy);
        compiled.check().map_err(PolicyError::Policy)?;
        Ok(compiled)
    }

    fn shown_with_warnings(&self, version: &PolicyText) -> PolicyAnswer {
        PolicyAnswer {
            warnings: texts(&self.engine.snapshot().compiled().warnings()),
            ..self.shown(version)
        }
    }

    fn shown(&self, version: &PolicyText) -> PolicyAnswer {
        let status = self.about.policy_status.borrow();
        let file = status.file.as_ref().map(|file| file.display().to_string());
        let trouble = status.trouble(&self.engine.snapshot());
        PolicyAnswer {
            policy: version.source.to_string(),
            updated_at: version.created,
            version: version.id.to_string(),
            file: file.unwrap_or_default(),
            trouble: trouble.unwrap_or_default(),
            warnings: Vec::new(),
        }
    }
}

/// Diagnostics as texts.
pub(crate) fn texts(warnings: &[Diagnostic]) -> Vec<String> {
    warnings.iter().map(Diagnostic::to_string).collect()
}

/// Parses a policy. An empty text is an error, not the policy that allows everything.
pub(crate) fn parsed(text: &str) -> Result<NewPolicy, PolicyError> {
    if text.trim().is_empty() {
        let message = "the policy is empty; to allow everything, use {}";
        return Err(ApiError::invalid(message).into());
    }
    NewPolicy::parse(text, true).map_err(PolicyError::Policy)
}
