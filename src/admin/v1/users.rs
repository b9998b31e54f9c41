//! Users.

use std::sync::Arc;

use crate::admin::problem::Fault;
use crate::admin::v1::convert;
use crate::admin::{Answer, Call, json};
use crate::api::{CreateUser, EmptyAnswer, SetRole, SetUserExpiry, UserAnswer, UsersAnswer};
use crate::config::value::parse_duration;
use crate::engine::Reply;
use hearth_core::id::UserId;
use hearth_core::state::command::{NewUser, Rejected};
use hearth_core::state::model::{KeyLifetime, Role, User};
use hearth_core::state::snapshot::Snapshot;

impl Call<'_> {
    pub(crate) async fn create_user(&self) -> Answer {
        let wish: CreateUser = self.read()?;
        let new = NewUser {
            name: wish.name.into(),
            display_name: wish.display_name.into(),
            email: wish.email.into(),
            picture_url: wish.picture_url.into(),
        };
        changed_user(&self.admin.engine.create_user(self.by(), new).await?)
    }

    pub(crate) async fn rename_user(&self, id: &str, name: &str) -> Answer {
        let id = user_id(id)?;
        let engine = &self.admin.engine;
        changed_user(&engine.rename_user(self.by(), id, name.into()).await?)
    }

    pub(crate) async fn delete_user(&self, id: &str) -> Answer {
        let engine = &self.admin.engine;
        engine.delete_user(self.by(), user_id(id)?).await?;
        json(&EmptyAnswer {})
    }

    pub(crate) async fn set_role(&self, id: &str) -> Answer {
        let wish: SetRole = self.read()?;
        let role = match wish.role.as_str() {
            "owner" => Role::Owner,
            "admin" => Role::Admin,
            "member" => Role::Member,
            other => {
                let message = format!("{other:?} is no role: expected owner, admin or member");
                return Err(Fault::invalid(&message));
            }
        };
        let engine = &self.admin.engine;
        changed_user(&engine.set_role(self.by(), user_id(id)?, role).await?)
    }

    pub(crate) async fn set_user_expiry(&self, id: &str) -> Answer {
        let wish: SetUserExpiry = self.read()?;
        let life = match wish.expiry.as_str() {
            "default" => None,
            "never" => Some(KeyLifetime::Unlimited),
            text => Some(KeyLifetime::For(
                parse_duration(text)
                    .filter(|life| !life.is_zero())
                    .ok_or_else(|| {
                        Fault::invalid("expected a time such as `90d`, or `never`, or `default`")
                    })?,
            )),
        };
        let engine = &self.admin.engine;
        let changed = engine.set_user_expiry(self.by(), user_id(id)?, life);
        changed_user(&changed.await?)
    }

    /// Headscale's precedence of filters: name, then email, then id.
    pub(crate) fn list_users(&self) -> Answer {
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

fn changed_user(changed: &Reply<Arc<User>>) -> Answer {
    json(&UserAnswer {
        user: convert::user(&changed.value),
    })
}

/// The id of a user.
pub fn user_id(text: &str) -> Result<UserId, Fault> {
    text.parse().map_err(|_| Fault::invalid("invalid user id"))
}

/// The user with this name or, when nobody has it, with this id.
pub fn find(snapshot: &Snapshot, who: &str) -> Result<UserId, Fault> {
    let users = snapshot.users();
    let by_name = users.values().find(|user| &*user.name == who);
    let by_id = || users.get(&who.parse::<UserId>().ok()?);
    let user = by_name.or_else(by_id);
    user.map(|user| user.id)
        .ok_or_else(|| Rejected::NoSuchUser.into())
}

/// The only user there is; `None` when there is none.
///
/// # Errors
/// When there are several: somebody must choose.
pub fn only(snapshot: &Snapshot) -> Result<Option<UserId>, Fault> {
    let users = snapshot.users();
    if users.len() > 1 {
        let names = users
            .values()
            .map(|user| format!("{} ({})", user.name, user.id));
        let names = names.collect::<Vec<_>>().join(", ");
        return Err(Fault::invalid(&format!("name the user; there are {names}")));
    }
    Ok(users.keys().next().copied())
}
