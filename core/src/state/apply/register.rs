//! Registration: preauth keys, logins that wait for a person, re-authentication, logout.
//!
//! The identity of a node is its machine key together with its owner. Rules distilled from
//! headscale `hscontrol/auth.go` and `hscontrol/state/state.go`, and tailscale
//! `tstest/integration/testcontrol/testcontrol.go`.

use std::sync::Arc;

use crate::clock::Now;
use crate::id::{AuthId, NodeId, UserId};
use crate::state::apply::admit::{Admission, admit, owns};
use crate::state::apply::{Applied, keys, node};
use crate::state::command::{
    PresentedKey, Register, RegisterReply, Rejected, Reply, RequestedExpiry,
};
use crate::state::model::{
    Hostinfo, Model, Node, Owner, PendingRegistration, PendingState, PreAuthKey, RegisteredBy,
};
use crate::state::record::Record;

pub(super) fn register(
    model: &mut Model,
    records: &mut Vec<Record>,
    request: Register,
    now: Now,
) -> Result<RegisterReply, Rejected> {
    let known = model.node_by_key(&request.key).cloned();
    if known
        .as_ref()
        .is_some_and(|node| node.machine != request.machine)
    {
        return Err(Rejected::MachineMismatch);
    }
    // Before anything else: a logout may still carry the preauth key that let the machine in.
    if request.expiry == RequestedExpiry::Logout {
        return Ok(log_out(model, records, known.as_deref(), now));
    }
    if let Some(presented) = &request.auth_key {
        let key = find_key(model, presented)?;
        return with_key(model, records, &request, known, &key, now);
    }
    match known {
        Some(node) if node.expired => Ok(RegisterReply::KeyExpired(Some(node))),
        Some(node) => refresh(model, records, &request, &node, now),
        None => wait_for_person(model, records, request, now),
    }
}

fn log_out(
    model: &mut Model,
    records: &mut Vec<Record>,
    known: Option<&Node>,
    now: Now,
) -> RegisterReply {
    let Some(known) = known else {
        return RegisterReply::KeyExpired(None);
    };
    if known.ephemeral {
        node::remove(model, records, known.id);
        return RegisterReply::KeyExpired(None);
    }
    if !known.expired {
        // The moment of the logout, never the sentinel that the client sends: peers get to see it.
        node::set_expiry(model, records, known.clone(), Some(now.wall), now);
    }
    RegisterReply::KeyExpired(model.node(known.id).cloned())
}

fn find_key(model: &Model, presented: &PresentedKey) -> Result<Option<Arc<PreAuthKey>>, Rejected> {
    let PresentedKey::WellFormed { prefix, hash } = presented else {
        return Err(Rejected::UnknownPreAuthKey);
    };
    let same = |key: &&Arc<PreAuthKey>| key.prefix == *prefix && key.hash == *hash;
    Ok(model.preauth_keys.values().find(same).cloned())
}

fn with_key(
    model: &mut Model,
    records: &mut Vec<Record>,
    request: &Register,
    known: Option<Arc<Node>>,
    key: &Option<Arc<PreAuthKey>>,
    now: Now,
) -> Result<RegisterReply, Rejected> {
    // A container that restarts shows its used, ended or even deleted key again: what counts is the
    // node key, which proves that this machine was let in before. Since then an administrator may have
    // given the node to somebody else; only another key asks for another owner.
    let same_owner = |node: &Node| {
        let key = key.as_ref();
        key.is_none_or(|key| node.registered_by == by(key) || owns(&owner_by(key), node))
    };
    if let Some(node) = known.filter(|node| !node.expired && same_owner(node)) {
        return refresh(model, records, request, &node, now);
    }
    let key = key.as_ref().ok_or(Rejected::UnknownPreAuthKey)?;
    if now.is_plausible() && key.expiry.is_some_and(|end| end <= now.wall) {
        return Err(Rejected::PreAuthKeyExpired);
    }
    if key.used && !key.reusable {
        return Err(Rejected::PreAuthKeyUsed);
    }
    let arrival = Admission {
        machine: request.machine,
        key: request.key,
        lock: request.lock,
        hostinfo: request.hostinfo.clone(),
        ephemeral: key.ephemeral || request.ephemeral,
        wish: match request.expiry {
            RequestedExpiry::At(at) => Some(at),
            RequestedExpiry::None | RequestedExpiry::Logout => None,
        },
        capability: request.capability,
        by: by(key),
        owner: requested_owner(model, owner_by(key), &request.hostinfo)?,
        user: key.user,
        authorized: key.preauthorized || !model.settings.device_approval,
    };
    let id = admit(model, records, arrival, now)?;
    if !key.used {
        keys::put_preauth(
            model,
            records,
            PreAuthKey {
                used: true,
                ..(**key).clone()
            },
        );
    }
    welcome(model, id)
}

fn by(key: &PreAuthKey) -> RegisteredBy {
    RegisteredBy::PreAuthKey(key.id)
}

fn owner_by(key: &PreAuthKey) -> Owner {
    match key.user {
        Some(user) if key.tags.is_empty() => Owner::User(user),
        _ => Owner::Tags(key.tags.clone()),
    }
}

/// A known node asks whether it is still welcome, and may tell news of its machine.
fn refresh(
    model: &mut Model,
    records: &mut Vec<Record>,
    request: &Register,
    known: &Node,
    now: Now,
) -> Result<RegisterReply, Rejected> {
    if let RequestedExpiry::At(at) = request.expiry {
        if known.expiry.is_some_and(|end| at > end) {
            return Err(Rejected::ExpiryExtended);
        }
        if known.expiry != Some(at) {
            node::set_expiry(model, records, known.clone(), Some(at), now);
        }
    }
    let update = crate::state::command::NodeUpdate {
        node: Some(known.id),
        hostinfo: Some(request.hostinfo.clone()),
        capability: Some(request.capability),
        ..Default::default()
    };
    node::update(model, records, &update, now)?;
    if let Some(lock) = request.lock.filter(|lock| known.lock != Some(*lock))
        && let Some(node) = model.node(known.id)
    {
        let node = Node {
            lock: Some(lock),
            ..(**node).clone()
        };
        node::put_whole(model, records, node);
    }
    welcome(model, known.id)
}

fn welcome(model: &Model, id: NodeId) -> Result<RegisterReply, Rejected> {
    let node = model.node(id).ok_or(Rejected::NoSuchNode)?;
    Ok(RegisterReply::Welcome(node.clone()))
}

fn wait_for_person(
    model: &mut Model,
    records: &mut Vec<Record>,
    request: Register,
    now: Now,
) -> Result<RegisterReply, Rejected> {
    let same = |login: &&Arc<PendingRegistration>| {
        login.machine == request.machine && login.key == request.key
    };
    let waits = |login: &&Arc<PendingRegistration>| login.state == PendingState::Waiting;
    if let Some(login) = model
        .pending
        .values()
        .find(|login| same(login) && waits(login))
    {
        return Ok(RegisterReply::NeedsLogin(login.id.clone()));
    }
    let followed = request
        .followup
        .as_ref()
        .and_then(|id| model.pending.get(id));
    if followed.is_some_and(|login| same(&login) && login.state == PendingState::Rejected) {
        return Err(Rejected::LoginRejected);
    }
    make_room(model, records);
    let login = Arc::new(PendingRegistration {
        id: request.fresh_id,
        machine: request.machine,
        key: request.key,
        lock: request.lock,
        hostinfo: request.hostinfo,
        ephemeral: request.ephemeral,
        expiry: match request.expiry {
            RequestedExpiry::At(at) => Some(at),
            RequestedExpiry::None | RequestedExpiry::Logout => None,
        },
        capability: request.capability,
        created: now.wall,
        state: PendingState::Waiting,
    });
    let id = login.id.clone();
    put_pending(model, records, login);
    Ok(RegisterReply::NeedsLogin(id))
}

/// Drops the oldest logins, decided ones first, so that one more fits.
fn make_room(model: &mut Model, records: &mut Vec<Record>) {
    while model.pending.len() >= model.settings.max_pending.max(1) {
        let age = |login: &&Arc<PendingRegistration>| {
            (login.state == PendingState::Waiting, login.created)
        };
        let Some(oldest) = model
            .pending
            .values()
            .min_by_key(age)
            .map(|login| login.id.clone())
        else {
            return;
        };
        Arc::make_mut(&mut model.pending).remove(&oldest);
        records.push(Record::DeletePending(oldest));
    }
}

fn put_pending(model: &mut Model, records: &mut Vec<Record>, login: Arc<PendingRegistration>) {
    Arc::make_mut(&mut model.pending).insert(login.id.clone(), login.clone());
    records.push(Record::PutPending(login));
    model.changed = true;
}

pub(super) fn approve(
    model: &mut Model,
    records: &mut Vec<Record>,
    id: &AuthId,
    user: UserId,
    now: Now,
) -> Applied {
    let login = waiting(model, id)?;
    if !model.users.contains_key(&user) {
        return Err(Rejected::NoSuchUser);
    }
    if model
        .node_by_key(&login.key)
        .is_some_and(|node| node.machine != login.machine)
    {
        return Err(Rejected::MachineMismatch);
    }
    let arrival = Admission {
        machine: login.machine,
        key: login.key,
        lock: login.lock,
        hostinfo: login.hostinfo.clone(),
        ephemeral: login.ephemeral,
        wish: login.expiry,
        capability: login.capability,
        by: RegisteredBy::Approval,
        owner: requested_owner(model, Owner::User(user), &login.hostinfo)?,
        user: Some(user),
        authorized: true,
    };
    let node = admit(model, records, arrival, now)?;
    let decided = PendingRegistration {
        state: PendingState::Approved(node),
        ..(*login).clone()
    };
    put_pending(model, records, Arc::new(decided));
    let node = model.node(node).ok_or(Rejected::NoSuchNode)?;
    Ok(Reply::Node(node.clone()))
}

pub(super) fn reject(model: &mut Model, records: &mut Vec<Record>, id: &AuthId) -> Applied {
    let login = waiting(model, id)?;
    let decided = Arc::new(PendingRegistration {
        state: PendingState::Rejected,
        ..(*login).clone()
    });
    put_pending(model, records, decided.clone());
    Ok(Reply::Pending(decided))
}

fn waiting(model: &Model, id: &AuthId) -> Result<Arc<PendingRegistration>, Rejected> {
    let login = model.pending.get(id).ok_or(Rejected::NoSuchLogin)?;
    if login.state != PendingState::Waiting {
        return Err(Rejected::LoginDecided);
    }
    Ok(login.clone())
}

/// The owner of a machine that asks for tags: those tags, if the one who lets it in may give all of them.
/// The tags of a preauth key count more than the machine's wishes.
fn requested_owner(model: &Model, owner: Owner, hostinfo: &Hostinfo) -> Result<Owner, Rejected> {
    if hostinfo.request_tags.is_empty() || matches!(owner, Owner::Tags(_)) {
        return Ok(owner);
    }
    let refused: Vec<&str> = hostinfo
        .request_tags
        .iter()
        .filter(|tag| !model.compiled.may_tag(&owner, tag))
        .map(|tag| &**tag)
        .collect();
    if !refused.is_empty() {
        return Err(Rejected::TagsNotPermitted(format!("{refused:?}")));
    }
    keys::checked_tags(hostinfo.request_tags.to_vec()).map(Owner::Tags)
}
