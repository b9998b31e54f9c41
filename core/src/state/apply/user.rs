//! Users: create, rename, change, delete.

use crate::id::UserId;
use crate::policy::spelling;
use crate::state::apply::{Applied, check_length, routes};
use crate::state::command::{NewUser, Outcome, Rejected};
use crate::state::event::{Action, Property, Target, Values};
use crate::state::model::{KeyLifetime, Model, Role, User};
use crate::state::tx::Tx;
use crate::visible::is_visible;

/// Longest login name, in bytes: that of an email address (RFC 5321, section 4.5.3.1.3).
const NAME_MAX: usize = 254;
const TEXT_MAX: usize = 256;

pub(super) fn create(tx: &mut Tx<'_>, new: NewUser) -> Applied {
    check_name(&new.name)?;
    check_length("display name", &new.display_name, TEXT_MAX)?;
    check_length("email", &new.email, TEXT_MAX)?;
    check_unique(tx, None, &new.name, &new.email)?;
    check_length("picture URL", &new.picture_url, TEXT_MAX)?;
    let limit = tx.settings.max_users;
    if tx.users.len() >= limit {
        return Err(Rejected::TooMany {
            what: "users",
            limit,
        });
    }
    let id = tx.take_user_id()?;
    let user = User {
        id,
        name: new.name,
        display_name: new.display_name,
        email: new.email,
        picture_url: new.picture_url,
        // Whoever is there first has set the tailnet up.
        role: match tx.users.is_empty() {
            true => Role::Owner,
            false => Role::Member,
        },
        node_expiry: None,
        created: tx.now().wall,
    };
    tx.event(Action::Create, Target::user(&user), Values::default());
    put(tx, user);
    Ok(Outcome::User(id))
}

pub(super) fn rename(tx: &mut Tx<'_>, id: UserId, name: Box<str>) -> Applied {
    let user = tx.users.get(&id).ok_or(Rejected::NoSuchUser)?.clone();
    if user.name == name {
        return Ok(Outcome::User(id));
    }
    check_name(&name)?;
    check_unique(tx, Some(id), &name, &user.email)?;
    let values = Values::change(&user.name, &name);
    let user = User {
        name,
        ..(*user).clone()
    };
    tx.event(
        Action::Update,
        Target::user(&user).property(Property::Name),
        values,
    );
    put(tx, user);
    Ok(Outcome::User(id))
}

pub(super) fn set_role(tx: &mut Tx<'_>, id: UserId, role: Role) -> Applied {
    let user = tx.users.get(&id).ok_or(Rejected::NoSuchUser)?.clone();
    if user.role == role {
        return Ok(Outcome::User(id));
    }
    let values = Values::change(role_text(user.role), role_text(role));
    tx.event(
        Action::Update,
        Target::user(&user).property(Property::Role),
        values,
    );
    put(
        tx,
        User {
            role,
            ..(*user).clone()
        },
    );
    // What its nodes may do is part of the nodes.
    tx.resend_nodes(|node| node.user() == Some(id));
    Ok(Outcome::User(id))
}

/// Sets how long keys of the user's nodes live from the next login on.
pub(super) fn set_key_lifetime(
    tx: &mut Tx<'_>,
    id: UserId,
    node_expiry: Option<KeyLifetime>,
) -> Applied {
    let user = tx.users.get(&id).ok_or(Rejected::NoSuchUser)?.clone();
    if user.node_expiry == node_expiry {
        return Ok(Outcome::User(id));
    }
    let values = Values::change(
        &lifetime_text(user.node_expiry),
        &lifetime_text(node_expiry),
    );
    let target = Target::user(&user).property(Property::KeyLifetime);
    tx.event(Action::Update, target, values);
    put(
        tx,
        User {
            node_expiry,
            ..(*user).clone()
        },
    );
    Ok(Outcome::User(id))
}

pub(super) fn delete(tx: &mut Tx<'_>, id: UserId) -> Applied {
    let user = tx.users.get(&id).ok_or(Rejected::NoSuchUser)?.clone();
    let nodes = tx.nodes.iter();
    let nodes = nodes.filter(|node| node.user() == Some(id)).count();
    if nodes > 0 {
        return Err(Rejected::UserHasNodes { nodes });
    }
    let keys = tx.remove_user(id);
    let details = match keys {
        0 => String::new(),
        keys => format!("with {keys} preauth keys"),
    };
    tx.event(
        Action::Delete,
        Target::user(&user),
        Values::made("", &details),
    );
    routes::users_changed(tx);
    Ok(Outcome::Done)
}

fn put(tx: &mut Tx<'_>, user: User) {
    tx.put_user(user);
    routes::users_changed(tx);
}

fn role_text(role: Role) -> &'static str {
    match role {
        Role::Owner => "owner",
        Role::Admin => "admin",
        Role::Member => "member",
    }
}

fn lifetime_text(lifetime: Option<KeyLifetime>) -> String {
    match lifetime {
        None => "default".into(),
        Some(KeyLifetime::Unlimited) => "never".into(),
        Some(KeyLifetime::For(lifetime)) => format!("{}s", lifetime.as_secs()),
    }
}

/// Source of the form: `ValidateUsername` in headscale `hscontrol/util/dns.go`, and the `+` of email addresses.
fn check_name(name: &str) -> Result<(), Rejected> {
    let is_letter = |letter: char| letter.is_alphanumeric() && is_visible(letter);
    let clean = |letter: char| is_letter(letter) || ".-_+@".contains(letter);
    let begins_well = name.chars().next().is_some_and(is_letter);
    let is_address = name.matches('@').count() <= 1;
    // A name of digits alone could be taken for an id on the command line.
    let is_number = name.chars().all(char::is_numeric);
    let fits = (1..=NAME_MAX).contains(&name.len());
    if !fits || !begins_well || !name.chars().all(clean) || !is_address || is_number {
        return Err(Rejected::BadUserName(name.into()));
    }
    Ok(())
}

/// Refuses a name by which a policy would mean two users: rules with it would match neither. Users with the same email
/// address are warned of when a policy is checked.
fn check_unique(
    model: &Model,
    own: Option<UserId>,
    name: &str,
    email: &str,
) -> Result<(), Rejected> {
    let (name_spelling, email_spelling) = (spelling(name), spelling(email));
    for user in model.users.values().filter(|user| Some(user.id) != own) {
        let login = spelling(&user.name);
        if name_spelling == login || name_spelling == spelling(&user.email) {
            return Err(Rejected::UserNameTaken(name.into()));
        }
        if email_spelling == login {
            return Err(Rejected::UserNameTaken(email.into()));
        }
    }
    Ok(())
}
