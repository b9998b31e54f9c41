//! Users.

use std::sync::Arc;

use crate::admin::fields::NoFields;
use crate::admin::problem::ApiError;
use crate::admin::v1::convert;
use crate::admin::{ApiCall, ApiResult, json};
use crate::api::{CreateUser, EmptyAnswer, SetRole, SetUserExpiry, UserAnswer, UsersAnswer};
use crate::config::moment;
use crate::engine::Reply;
use crate::status::policy;
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
        let NoFields {} = self.read()?;
        let id = user_id(id)?;
        let engine = &self.admin.engine;
        let before = policy::missing_users(&engine.snapshot());
        let renamed = engine.rename_user(self.by(), id, name.into()).await?;
        self.warn_of_policy(before.as_deref());
        changed_user(&renamed)
    }

    pub(crate) async fn delete_user(&self, id: &str) -> ApiResult {
        let NoFields {} = self.read()?;
        let engine = &self.admin.engine;
        let before = policy::missing_users(&engine.snapshot());
        engine.delete_user(self.by(), user_id(id)?).await?;
        self.warn_of_policy(before.as_deref());
        json(&EmptyAnswer {})
    }

    /// Logs that the policy names a user who is there no more, if it did not before.
    fn warn_of_policy(&self, before: Option<&str>) {
        let now = policy::missing_users(&self.admin.engine.snapshot());
        if let Some(warning) = now.filter(|now| Some(now.as_str()) != before) {
            tracing::warn!("{warning}");
        }
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
            text => {
                let life = moment::lifetime(text);
                let life =
                    life.map_err(|fault| ApiError::invalid(&format!("invalid expiry: {fault}")))?;
                Some(life.map_or(KeyLifetime::Unlimited, KeyLifetime::For))
            }
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

/// The user with this name, in upper or lower case, or with this ID.
///
/// # Errors
/// When there is none, or the text is the name of one and the ID of another.
pub fn find(snapshot: &Snapshot, who: &str) -> Result<UserId, ApiError> {
    let users = snapshot.users();
    let lower = who.to_lowercase();
    let exact = users.values().find(|user| &*user.name == who);
    let by_name = exact.or_else(|| {
        users
            .values()
            .find(|user| user.name.to_lowercase() == lower)
    });
    let by_id = who.parse().ok().and_then(|id: UserId| users.get(&id));
    match (by_name, by_id) {
        (Some(one), Some(other)) if one.id != other.id => {
            let (name, id) = (one.id, &other.name);
            let message =
                format!("{who:?} is ambiguous: the name of user {name} and the ID of {id}");
            Err(ApiError::invalid(&message))
        }
        (named, found) => {
            let user = named.or(found);
            user.map(|user| user.id)
                .ok_or_else(|| Rejected::NoSuchUser.into())
        }
    }
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
