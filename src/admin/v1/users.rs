//! Users.

use std::sync::Arc;

use crate::admin::problem::ApiError;
use crate::admin::v1::convert;
use crate::admin::{ApiCall, ApiResult, json};
use crate::api::{CreateUser, EmptyAnswer, SetRole, SetUserExpiry, UserAnswer, UsersAnswer};
use crate::config::value::parse_duration;
use crate::engine::Reply;
use hearth_core::id::UserId;
use hearth_core::state::command::{NewUser, Rejected};
use hearth_core::state::model::{KeyLifetime, Role, User};
use hearth_core::state::snapshot::Snapshot;

impl ApiCall<'_> {
    pub(crate) async fn create_user(&self) -> ApiResult {
        let request: CreateUser = self.read()?;
        let new = NewUser {
            name: request.name.into(),
            display_name: request.display_name.into(),
            email: request.email.into(),
            picture_url: request.picture_url.into(),
        };
        changed_user(&self.admin.engine.create_user(self.by(), new).await?)
    }

    pub(crate) async fn rename_user(&self, id: &str, name: &str) -> ApiResult {
        let id = user_id(id)?;
        let engine = &self.admin.engine;
        changed_user(&engine.rename_user(self.by(), id, name.into()).await?)
    }

    pub(crate) async fn delete_user(&self, id: &str) -> ApiResult {
        let engine = &self.admin.engine;
        engine.delete_user(self.by(), user_id(id)?).await?;
        json(&EmptyAnswer {})
    }

    pub(crate) async fn set_role(&self, id: &str) -> ApiResult {
        let request: SetRole = self.read()?;
        let role = match request.role.as_str() {
            "owner" => Role::Owner,
            "admin" => Role::Admin,
            "member" => Role::Member,
            other => {
                let message = format!("invalid role {other:?}: expected owner, admin or member");
                return Err(ApiError::invalid(&message));
            }
        };
        let engine = &self.admin.engine;
        changed_user(&engine.set_role(self.by(), user_id(id)?, role).await?)
    }

    pub(crate) async fn set_user_expiry(&self, id: &str) -> ApiResult {
        let request: SetUserExpiry = self.read()?;
        let life = match request.expiry.as_str() {
            "default" => None,
            "never" => Some(KeyLifetime::Unlimited),
            text => Some(KeyLifetime::For(
                parse_duration(text)
                    .filter(|life| !life.is_zero())
                    .ok_or_else(|| {
                        ApiError::invalid("expected a duration such as `90d`, `never` or `default`")
                    })?,
            )),
        };
        let engine = &self.admin.engine;
        let changed = engine.set_user_expiry(self.by(), user_id(id)?, life);
        changed_user(&changed.await?)
    }

    /// Filters in Headscale's order of precedence: name, email, ID.
    pub(crate) fn list_users(&self) -> ApiResult {
        let query = |key| self.query(key);
        let (name, email, id) = (query("name"), query("email"), query("id"));
        let id = match id {
            "" | "0" => None,
            text => Some(user_id(text)?),
        };
        let snapshot = self.admin.engine.snapshot();
        let wanted = |user: &User| match (name, email, id) {
            ("", "", None) => true,
            ("", "", Some(id)) => user.id == id,
            ("", email, _) => &*user.email == email,
            (name, _, _) => &*user.name == name,
        };
        let users = snapshot.users().values().filter(|user| wanted(user));
        json(&UsersAnswer {
            users: users.map(|user| convert::user(user)).collect(),
        })
    }
}

fn changed_user(changed: &Reply<Arc<User>>) -> ApiResult {
    json(&UserAnswer {
        user: convert::user(&changed.value),
    })
}

/// Parses a user ID.
pub fn user_id(text: &str) -> Result<UserId, ApiError> {
    text.parse()
        .map_err(|_| ApiError::invalid("invalid user id"))
}

/// The user with this name, or else with this ID.
pub fn find(snapshot: &Snapshot, who: &str) -> Result<UserId, ApiError> {
    let users = snapshot.users();
    let by_name = users.values().find(|user| &*user.name == who);
    let by_id = || users.get(&who.parse::<UserId>().ok()?);
    let user = by_name.or_else(by_id);
    user.map(|user| user.id)
        .ok_or_else(|| Rejected::NoSuchUser.into())
}

/// The only user; `None` when there are no users.
///
/// # Errors
/// When there are several.
pub fn only(snapshot: &Snapshot) -> Result<Option<UserId>, ApiError> {
    let users = snapshot.users();
    if users.len() > 1 {
        let names = users
            .values()
            .map(|user| format!("{} ({})", user.name, user.id));
        let names = names.collect::<Vec<_>>().join(", ");
        return Err(ApiError::invalid(&format!(
            "missing user: choose one of {names}"
        )));
    }
    Ok(users.keys().next().copied())
}
