//! Users: make, rename, remove.

use std::sync::Arc;

use crate::clock::Now;
use crate::id::UserId;
use crate::state::apply::{Applied, check_length, node, routes};
use crate::state::command::{NewUser, Rejected, Reply};
use crate::state::model::{Change, KeyLifetime, Model, Role, User};
use crate::state::record::Record;

const NAME_MAX: usize = 63;
const TEXT_MAX: usize = 256;

pub(super) fn create(
    model: &mut Model,
    records: &mut Vec<Record>,
    new: NewUser,
    now: Now,
) -> Applied {
    check_name(model, &new.name)?;
    check_length("display name", &new.display_name, TEXT_MAX)?;
    check_length("email", &new.email, TEXT_MAX)?;
    check_length("picture URL", &new.picture_url, TEXT_MAX)?;
    let limit = model.settings.max_users;
    if model.users.len() >= limit {
        return Err(Rejected::TooMany {
            what: "users",
            limit,
        });
    }
    let id = model.counters.user;
    model.counters.user = id.next().ok_or(Rejected::NoIds)?;
    records.push(Record::Counters(model.counters));
    let user = User {
        id,
        name: new.name,
        display_name: new.display_name,
        email: new.email,
        picture_url: new.picture_url,
        // Whoever is there first has set the tailnet up.
        role: match model.users.is_empty() {
            true => Role::Owner,
            false => Role::Member,
        },
        node_expiry: None,
        created: now.wall,
    };
    Ok(Reply::User(put(model, records, user)))
}

pub(super) fn rename(
    model: &mut Model,
    records: &mut Vec<Record>,
    id: UserId,
    name: Box<str>,
) -> Applied {
    let user = model.users.get(&id).ok_or(Rejected::NoSuchUser)?.clone();
    if user.name == name {
        return Ok(Reply::User(user));
    }
    check_name(model, &name)?;
    let user = put(
        model,
        records,
        User {
            name,
            ..(*user).clone()
        },
    );
    Ok(Reply::User(user))
}

pub(super) fn set_role(
    model: &mut Model,
    records: &mut Vec<Record>,
    id: UserId,
    role: Role,
) -> Applied {
    let user = model.users.get(&id).ok_or(Rejected::NoSuchUser)?.clone();
    if user.role == role {
        return Ok(Reply::User(user));
    }
    let user = User {
        role,
        ..(*user).clone()
    };
    let user = put(model, records, user);
    // What its nodes may do is part of the nodes.
    node::mark_changed(model, |node| node.user() == Some(id));
    Ok(Reply::User(user))
}

/// Sets how long keys of the user's nodes live from the next login on.
pub(super) fn set_expiry(
    model: &mut Model,
    records: &mut Vec<Record>,
    id: UserId,
    node_expiry: Option<KeyLifetime>,
) -> Applied {
    let user = model.users.get(&id).ok_or(Rejected::NoSuchUser)?.clone();
    if user.node_expiry == node_expiry {
        return Ok(Reply::User(user));
    }
    let user = User {
        node_expiry,
        ..(*user).clone()
    };
    Ok(Reply::User(put(model, records, user)))
}

pub(super) fn delete(model: &mut Model, records: &mut Vec<Record>, id: UserId) -> Applied {
    let user = model.users.get(&id).ok_or(Rejected::NoSuchUser)?.clone();
    let nodes = model
        .nodes
        .iter()
        .filter(|node| node.user() == Some(id))
        .count();
    if nodes > 0 {
        return Err(Rejected::UserHasNodes { nodes });
    }
    Arc::make_mut(&mut model.users).remove(&id);
    records.push(Record::DeleteUser(id));
    let keys = Arc::make_mut(&mut model.preauth_keys);
    keys.retain(|key_id, key| {
        let owned = key.user == Some(id);
        if owned {
            records.push(Record::DeletePreAuthKey(*key_id));
        }
        !owned
    });
    routes::users_changed(model);
    Ok(Reply::User(user))
}

fn put(model: &mut Model, records: &mut Vec<Record>, user: User) -> Arc<User> {
    let user = Arc::new(user);
    Arc::make_mut(&mut model.users).insert(user.id, user.clone());
    records.push(Record::PutUser(user.clone()));
    model.note(Change::User(user.id));
    routes::users_changed(model);
    user
}

fn check_name(model: &Model, name: &str) -> Result<(), Rejected> {
    let clean = |byte: u8| byte.is_ascii_alphanumeric() || b".-_@".contains(&byte);
    let begins_well = name
        .bytes()
        .next()
        .is_some_and(|byte| byte.is_ascii_alphanumeric());
    if name.len() > NAME_MAX || !begins_well || !name.bytes().all(clean) {
        return Err(Rejected::BadUserName(name.into()));
    }
    // A name of digits alone could be taken for an id on the command line.
    if name.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Rejected::BadUserName(name.into()));
    }
    if model
        .users
        .values()
        .any(|user| user.name.eq_ignore_ascii_case(name))
    {
        return Err(Rejected::UserNameTaken(name.into()));
    }
    Ok(())
}
