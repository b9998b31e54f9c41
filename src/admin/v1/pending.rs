//! Machines that wait for a person.

use crate::admin::problem::Fault;
use crate::admin::v1::{convert, users};
use crate::admin::{Answer, Call, json};
use crate::api::{DecideLogin, EmptyAnswer, PendingAnswer};
use hearth_core::id::AuthId;
use hearth_core::state::command::Rejected;

impl Call<'_> {
    pub(crate) async fn approve_for_user(&self) -> Answer {
        let wish: DecideLogin = self.read()?;
        self.let_in(&wish.auth_id, &wish.user).await
    }

    /// Headscale's older way, with everything in the query.
    pub(crate) async fn register_node(&self) -> Answer {
        let query = |key| self.query(key);
        self.let_in(query("key"), query("user")).await
    }

    /// Lets a machine in without naming a user, which only works when there is just one; or an SSH
    /// connection, which Headscale has decided here too.
    pub(crate) async fn approve(&self) -> Answer {
        let wish: DecideLogin = self.read()?;
        let id = auth_id(&wish.auth_id)?;
        if self.is_ssh_check(&id) {
            return self.decide_ssh(&id, true);
        }
        let snapshot = self.admin.engine.snapshot();
        let user = users::only(&snapshot)?.ok_or(Rejected::NoSuchUser)?;
        let engine = &self.admin.engine;
        engine.approve_registration(self.by(), id, user).await?;
        json(&EmptyAnswer {})
    }

    pub(crate) async fn reject(&self) -> Answer {
        let wish: DecideLogin = self.read()?;
        let id = auth_id(&wish.auth_id)?;
        if self.is_ssh_check(&id) {
            return self.decide_ssh(&id, false);
        }
        self.admin.engine.reject_registration(self.by(), id).await?;
        json(&EmptyAnswer {})
    }

    pub(crate) fn list_pending(&self) -> Answer {
        let snapshot = self.admin.engine.snapshot();
        let mut pending: Vec<_> = snapshot
            .pending()
            .values()
            .map(|login| convert::pending(login))
            .collect();
        pending.sort_by_key(|login| login.created_at);
        json(&PendingAnswer { pending })
    }

    async fn let_in(&self, id: &str, who: &str) -> Answer {
        let id = auth_id(id)?;
        let user = users::find(&self.admin.engine.snapshot(), who)?;
        let engine = &self.admin.engine;
        self.changed_node(&engine.approve_registration(self.by(), id, user).await?)
    }
}

fn auth_id(text: &str) -> Result<AuthId, Fault> {
    text.parse()
        .map_err(|fault| Fault::invalid(&format!("invalid auth_id: {fault}")))
}
