//! Preauth keys and API keys: make, end, remove.

use std::sync::Arc;

use crate::clock::Now;
use crate::id::{ApiKeyId, PreAuthKeyId};
use crate::state::apply::Applied;
use crate::state::command::{NewApiKey, NewPreAuthKey, Rejected, Reply};
use crate::state::model::{ApiKey, Model, PreAuthKey};
use crate::state::record::Record;

const TAGS_MAX: usize = 32;
const TAG_BYTES_MAX: usize = 64;

pub(super) fn create_preauth(
    model: &mut Model,
    records: &mut Vec<Record>,
    new: NewPreAuthKey,
    now: Now,
) -> Applied {
    if new.user.is_none() && new.tags.is_empty() {
        return Err(Rejected::KeyWithoutOwner);
    }
    if new
        .user
        .is_some_and(|user| !model.users.contains_key(&user))
    {
        return Err(Rejected::NoSuchUser);
    }
    let tags = checked_tags(new.tags)?;
    let limit = model.settings.max_preauth_keys;
    if model.preauth_keys.len() >= limit {
        return Err(Rejected::TooMany {
            what: "preauth keys",
            limit,
        });
    }
    let id = model.counters.preauth_key;
    model.counters.preauth_key = id.next().ok_or(Rejected::NoIds)?;
    records.push(Record::Counters(model.counters));
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
        expiry: new.expiry,
        created: now.wall,
    };
    Ok(Reply::PreAuthKey(put_preauth(model, records, key)))
}

pub(super) fn expire_preauth(
    model: &mut Model,
    records: &mut Vec<Record>,
    id: PreAuthKeyId,
    now: Now,
) -> Applied {
    let key = model
        .preauth_keys
        .get(&id)
        .ok_or(Rejected::NoSuchKey)?
        .clone();
    let key = PreAuthKey {
        expiry: Some(now.wall),
        ..(*key).clone()
    };
    Ok(Reply::PreAuthKey(put_preauth(model, records, key)))
}

pub(super) fn delete_preauth(
    model: &mut Model,
    records: &mut Vec<Record>,
    id: PreAuthKeyId,
) -> Applied {
    let removed = Arc::make_mut(&mut model.preauth_keys).remove(&id);
    let key = removed.ok_or(Rejected::NoSuchKey)?;
    records.push(Record::DeletePreAuthKey(id));
    model.changed = true;
    Ok(Reply::PreAuthKey(key))
}

pub(super) fn create_api(
    model: &mut Model,
    records: &mut Vec<Record>,
    new: NewApiKey,
    now: Now,
) -> Applied {
    let limit = model.settings.max_api_keys;
    if model.api_keys.len() >= limit {
        return Err(Rejected::TooMany {
            what: "API keys",
            limit,
        });
    }
    let id = model.counters.api_key;
    model.counters.api_key = id.next().ok_or(Rejected::NoIds)?;
    records.push(Record::Counters(model.counters));
    let key = ApiKey {
        id,
        prefix: new.prefix,
        hash: new.hash,
        scopes: new.scopes,
        expiry: new.expiry,
        created: now.wall,
    };
    Ok(Reply::ApiKey(put_api(model, records, key)))
}

pub(super) fn expire_api(
    model: &mut Model,
    records: &mut Vec<Record>,
    id: ApiKeyId,
    now: Now,
) -> Applied {
    let key = model.api_keys.get(&id).ok_or(Rejected::NoSuchKey)?.clone();
    let key = ApiKey {
        expiry: Some(now.wall),
        ..(*key).clone()
    };
    Ok(Reply::ApiKey(put_api(model, records, key)))
}

pub(super) fn delete_api(model: &mut Model, records: &mut Vec<Record>, id: ApiKeyId) -> Applied {
    let removed = Arc::make_mut(&mut model.api_keys).remove(&id);
    let key = removed.ok_or(Rejected::NoSuchKey)?;
    records.push(Record::DeleteApiKey(id));
    model.changed = true;
    Ok(Reply::ApiKey(key))
}

pub(super) fn put_preauth(
    model: &mut Model,
    records: &mut Vec<Record>,
    key: PreAuthKey,
) -> Arc<PreAuthKey> {
    let key = Arc::new(key);
    Arc::make_mut(&mut model.preauth_keys).insert(key.id, key.clone());
    records.push(Record::PutPreAuthKey(key.clone()));
    model.changed = true;
    key
}

fn put_api(model: &mut Model, records: &mut Vec<Record>, key: ApiKey) -> Arc<ApiKey> {
    let key = Arc::new(key);
    Arc::make_mut(&mut model.api_keys).insert(key.id, key.clone());
    records.push(Record::PutApiKey(key.clone()));
    model.changed = true;
    key
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
