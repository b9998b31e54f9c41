//! Preauth keys and API keys: create, expire, delete.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::End;
use crate::id::{ApiKeyId, PreAuthKeyId};
use crate::state::apply::Applied;
use crate::state::command::{NewApiKey, NewPreAuthKey, Outcome, Rejected};
use crate::state::event::{Action, Target, Values, expiry_text, owner_text};
use crate::state::model::{ApiKey, PreAuthKey};
use crate::state::tx::Tx;

const TAGS_MAX: usize = 32;
const TAG_BYTES_MAX: usize = 64;

pub(super) fn create_preauth(tx: &mut Tx<'_>, new: NewPreAuthKey) -> Applied {
    if new.user.is_none() && new.tags.is_empty() {
        return Err(Rejected::KeyWithoutOwner);
    }
    if new.user.is_some_and(|user| !tx.users.contains_key(&user)) {
        return Err(Rejected::NoSuchUser);
    }
    let tags = checked_tags(new.tags)?;
    let limit = tx.settings.max_preauth_keys;
    if tx.preauth_keys.len() >= limit {
        return Err(Rejected::TooMany {
            what: "preauth keys",
            limit,
        });
    }
    let id = tx.take_preauth_key_id()?;
    let (expiry, ending) = tx.end(new.expiry);
    let key = PreAuthKey {
        id,
        prefix: new.prefix,
        hash: new.hash,
        user: new.user,
        tags,
        reusable: new.reusable,
        ephemeral: new.ephemeral,
        preauthorized: new.preauthorized,
        used: false,
        expiry,
        ending,
        created: tx.now().wall,
    };
    let values = Values::made(&owner_text(tx, &key.owner()), &terms(&key));
    tx.event(Action::Create, Target::preauth_key(&key), values);
    tx.put_preauth_key(key);
    Ok(Outcome::PreAuthKey(id))
}

/// What a preauth key allows, in words.
fn terms(key: &PreAuthKey) -> String {
    let mut terms = format!("expires {}", expiry_text(key.expiry));
    for (holds, term) in [
        (key.reusable, ", reusable"),
        (key.ephemeral, ", ephemeral"),
        (!key.preauthorized, ", not preauthorized"),
    ] {
        if holds {
            terms.push_str(term);
        }
    }
    terms
}

pub(super) fn expire_preauth(tx: &mut Tx<'_>, id: PreAuthKeyId) -> Applied {
    let key = tx.preauth_keys.get(&id).ok_or(Rejected::NoSuchKey)?.clone();
    if key.has_ended(tx.now()) {
        return Ok(Outcome::PreAuthKey(id));
    }
    tx.event(Action::Expire, Target::preauth_key(&key), Values::default());
    let (expiry, ending) = tx.end(End::In(Duration::ZERO));
    tx.put_preauth_key(PreAuthKey {
        expiry,
        ending,
        ..(*key).clone()
    });
    Ok(Outcome::PreAuthKey(id))
}

pub(super) fn delete_preauth(tx: &mut Tx<'_>, id: PreAuthKeyId) -> Applied {
    let key = tx.preauth_keys.get(&id).ok_or(Rejected::NoSuchKey)?.clone();
    tx.event(Action::Delete, Target::preauth_key(&key), Values::default());
    tx.remove_preauth_key(id);
    Ok(Outcome::Done)
}

pub(super) fn create_api(tx: &mut Tx<'_>, new: NewApiKey) -> Applied {
    let limit = tx.settings.max_api_keys;
    if tx.api_keys.len() >= limit {
        return Err(Rejected::TooMany {
            what: "API keys",
            limit,
        });
    }
    let id = tx.take_api_key_id()?;
    let (expiry, ending) = tx.end(new.expiry);
    let key = ApiKey {
        id,
        prefix: new.prefix,
        hash: new.hash,
        scopes: new.scopes,
        expiry,
        ending,
        created: tx.now().wall,
    };
    let details = format!("expires {}", expiry_text(key.expiry));
    let values = Values::made(&key.scopes.to_string(), &details);
    tx.event(Action::Create, Target::api_key(&key), values);
    tx.put_api_key(key);
    Ok(Outcome::ApiKey(id))
}

pub(super) fn expire_api(tx: &mut Tx<'_>, id: ApiKeyId) -> Applied {
    let key = tx.api_keys.get(&id).ok_or(Rejected::NoSuchKey)?.clone();
    if key.has_ended(tx.now()) {
        return Ok(Outcome::ApiKey(id));
    }
    tx.event(Action::Expire, Target::api_key(&key), Values::default());
    let (expiry, ending) = tx.end(End::In(Duration::ZERO));
    tx.put_api_key(ApiKey {
        expiry,
        ending,
        ..(*key).clone()
    });
    Ok(Outcome::ApiKey(id))
}

pub(super) fn delete_api(tx: &mut Tx<'_>, id: ApiKeyId) -> Applied {
    let key = tx.api_keys.get(&id).ok_or(Rejected::NoSuchKey)?.clone();
    tx.event(Action::Delete, Target::api_key(&key), Values::default());
    tx.remove_api_key(id);
    Ok(Outcome::Done)
}

/// Tags as they are kept: sorted, each once.
pub(super) fn checked_tags(mut tags: Vec<Box<str>>) -> Result<Arc<[Box<str>]>, Rejected> {
    if tags.len() > TAGS_MAX {
        return Err(Rejected::TooMany {
            what: "tags",
            limit: TAGS_MAX,
        });
    }
    if let Some(bad) = tags.iter().find(|tag| !is_tag(tag)) {
        return Err(Rejected::BadTag(bad.clone()));
    }
    tags.sort_unstable();
    tags.dedup();
    Ok(tags.into())
}

/// Whether two lists have the same tags.
pub(super) fn are_same_tags(one: &[Box<str>], other: &[Box<str>]) -> bool {
    one == other || one.iter().collect::<BTreeSet<_>>() == other.iter().collect()
}

/// Source of the form: `CheckTag` in tailscale `tailcfg/tailcfg.go`.
fn is_tag(text: &str) -> bool {
    let Some(name) = text.strip_prefix("tag:") else {
        return false;
    };
    let begins_well = name
        .bytes()
        .next()
        .is_some_and(|byte| byte.is_ascii_alphabetic());
    let clean = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    text.len() <= TAG_BYTES_MAX && begins_well && name.bytes().all(clean)
}
