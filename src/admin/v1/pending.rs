//! Pending registrations.

use crate::admin::problem::ApiError;
use crate::admin::v1::{convert, users};
use crate::admin::{ApiCall, ApiResult, json};
use crate::api::{DecideLogin, EmptyAnswer, PendingAnswer, RegisterNode};
use hearth_core::id::AuthId;
use hearth_core::state::command::Rejected;

impl ApiCall<'_> {
    pub(crate) async fn approve_for_user(&self) -> ApiResult {
        let request: DecideLogin = self.read()?;
        self.approve_registration(&request.auth_id, &request.user.0)
            .await
    }

    pub(crate) async fn register_node(&self) -> ApiResult {
        let request: RegisterNode = self.read()?;
        self.approve_registration(&request.key, &request.user.0)
            .await
    }

    /// Approves a registration without naming a user, which requires that there is only one; or an SSH
    /// check, which Headscale decides here too.
    pub(crate) async fn approve(&self) -> ApiResult {
        let request: DecideLogin = self.read()?;
        let id = auth_id(&request.auth_id)?;
        if self.is_ssh_check(&id) {
            return self.decide_ssh(&id, true);
        }
        let snapshot = self.admin.engine.snapshot();
        let user = users::only(&snapshot)?.ok_or(Rejected::NoSuchUser)?;
        let engine = &self.admin.engine;
        engine.approve_registration(self.by(), id, user).await?;
        json(&EmptyAnswer {})
    }

    pub(crate) async fn reject(&self) -> ApiResult {
        let request: DecideLogin = self.read()?;
        let id = auth_id(&request.auth_id)?;
        if self.is_ssh_check(&id) {
            return self.decide_ssh(&id, false);
        }
        self.admin.engine.reject_registration(self.by(), id).await?;
        json(&EmptyAnswer {})
    }

    pub(crate) fn list_pending(&self) -> ApiResult {
        let snapshot = self.admin.engine.snapshot();
        let mut pending: Vec<_> = snapshot
            .pending()
            .values()
            .map(|login| convert::pending(login, &snapshot))
            .collect();
        pending.sort_by_key(|login| login.created_at);
        json(&PendingAnswer { pending })
    }

    async fn approve_registration(&self, id: &str, who: &str) -> ApiResult {
        let id = auth_id(id)?;
        let user = users::find(&self.admin.engine.snapshot(), who)?;
        let engine = &self.admin.engine;
        self.changed_node(&engine.approve_registration(self.by(), id, user).await?)
    }
}

fn auth_id(text: &str) -> Result<AuthId, ApiError> {
    text.parse()
        .map_err(|fault| ApiError::invalid(&format!("invalid auth_id: {fault}")))
}
