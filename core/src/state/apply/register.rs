//! Registration: preauth keys, renewing a key, logout.
//!
//! The identity of a node is its machine key together with its owner. Rules distilled from
//! headscale `hscontrol/auth.go` and `hscontrol/state/state.go`, and tailscale
//! `tstest/integration/testcontrol/testcontrol.go`.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::End;
use crate::id::NodeId;
use crate::state::apply::admit::{Admission, admit};
use crate::state::apply::{key_expiry, node, pending, tags};
use crate::state::command::{
    NodeUpdate, PresentedKey, Register, Registration, Rejected, RequestedExpiry,
};
use crate::state::event::{Action, Target, Values, key_text, owner_text};
use crate::state::model::{Ending, Model, Node, PreAuthKey, RegisteredBy};
use crate::state::principal::Principal;
use crate::state::secret::SecretKind;
use crate::state::tx::Tx;

pub(super) fn register(tx: &mut Tx<'_>, request: Register) -> Result<Registration, Rejected> {
    let known = tx.node_by_key(&request.key).cloned();
    if let Some(node) = &known {
        if node.machine != request.machine {
            return Err(Rejected::MachineMismatch);
        }
        tx.act_as(&Principal::Node { id: node.id });
    }
    // Before anything else: a logout may still carry the preauth key with which the machine joined.
    if request.expiry == RequestedExpiry::Logout {
        pending::withdraw(tx, &request.machine);
        return Ok(log_out(tx, known.as_deref()));
    }
    if let Some(presented) = &request.auth_key {
        let key = find_key(tx, presented)?;
        let joined = with_key(tx, &request, known, &key)?;
        pending::withdraw(tx, &request.machine);
        return Ok(joined);
    }
    match known {
        Some(node) if node.expired => Ok(Registration::KeyExpired(Some(node.id))),
        Some(node) => {
            let stays = refresh(tx, &request, &node)?;
            pending::withdraw(tx, &request.machine);
            Ok(stays)
        }
        None => pending::request(tx, request),
    }
}

fn log_out(tx: &mut Tx<'_>, known: Option<&Node>) -> Registration {
    let Some(known) = known else {
        return Registration::KeyExpired(None);
    };
    if known.ephemeral {
        let values = Values::made("", "ephemeral node deleted");
        tx.event(Action::Logout, Target::node(known), values);
        tx.remove_node(known.id);
        return Registration::KeyExpired(None);
    }
    if !known.expired {
        tx.event(Action::Logout, Target::node(known), Values::default());
    }
    // Also if its time is over: that may turn out to lie ahead.
    if !known.expired || known.ending != Ending::Hand {
        // The moment of the logout, never the sentinel that the client sends: peers get to see it.
        key_expiry::put(tx, known.clone(), End::In(Duration::ZERO));
    }
    Registration::KeyExpired(Some(known.id))
}

/// The preauth key that is presented, whether or not it may still be used.
pub(super) fn find_key(
    model: &Model,
    presented: &PresentedKey,
) -> Result<Option<Arc<PreAuthKey>>, Rejected> {
    if matches!(presented, PresentedKey::Malformed) {
        return Err(Rejected::UnknownPreAuthKey);
    }
    Ok(presented.find(model.preauth_keys.values()).cloned())
}

fn with_key(
    tx: &mut Tx<'_>,
    request: &Register,
    known: Option<Arc<Node>>,
    key: &Option<Arc<PreAuthKey>>,
) -> Result<Registration, Rejected> {
    // A container that restarts shows its used, expired or even deleted key again: what counts is the node key, which
    // proves that this machine joined before.
    let living = known.filter(|node| !node.expired);
    let key = match (&living, key) {
        (Some(node), None) => return refresh(tx, request, node),
        (None, None) => return Err(Rejected::UnknownPreAuthKey),
        (_, Some(key)) => key,
    };
    let may_join = key.may_join(tx.now());
    if let Some(node) = &living
        && keeps(tx, request, node, key, may_join.is_ok())?
    {
        return refresh(tx, request, node);
    }
    may_join?;
    let admission = Admission {
        machine: request.machine,
        key: request.key,
        lock: request.lock,
        hostinfo: request.hostinfo.clone(),
        ephemeral: key.ephemeral || request.ephemeral,
        requested_expiry: request.expiry.time(),
        capability: request.capability,
        registered_by: registered_by(key),
        owner: tags::requested_owner(tx, key.owner(), &request.hostinfo)?,
        by_request: key.tags.is_empty(),
        user: key.user,
        authorized: key.preauthorized || !tx.settings.device_approval,
    };
    let (id, is_new) = admit(tx, admission)?;
    joined_event(tx, id, is_new, key);
    if !key.used {
        tx.put_preauth_key(PreAuthKey {
            used: true,
            ..(**key).clone()
        });
    }
    Ok(Registration::Welcome(id))
}

/// Whether a node whose key is valid stays as it is with a preauth key that its client shows: with the one with which it
/// joined, since an administrator may have changed the node, and with any that would change nothing, which is not used
/// up. Another key, or other tags than at the last login, ask for another owner.
fn keeps(
    model: &Model,
    request: &Register,
    node: &Node,
    key: &PreAuthKey,
    may_join: bool,
) -> Result<bool, Rejected> {
    if node.registered_by == registered_by(key) {
        let asks = tags::asks_for_others(&key.owner(), &request.hostinfo, node);
        if !asks || !may_join {
            return Ok(true);
        }
    }
    let owner = tags::requested_owner(model, key.owner(), &request.hostinfo)?;
    Ok(owner == node.owner && (key.ephemeral || request.ephemeral) == node.ephemeral)
}

fn registered_by(key: &PreAuthKey) -> RegisteredBy {
    RegisteredBy::PreAuthKey(key.id)
}

/// Notes that a node joined, or came back, with a key.
fn joined_event(tx: &mut Tx<'_>, id: NodeId, is_new: bool, key: &PreAuthKey) {
    let Some(node) = tx.node(id).cloned() else {
        return;
    };
    tx.act_as(&Principal::Node { id });
    let action = match is_new {
        true => Action::Create,
        false => Action::Login,
    };
    let key = key_text(SecretKind::PreAuth, &key.prefix);
    let values = Values::made(&owner_text(tx, &node.owner), &key);
    tx.event(action, Target::node(&node), values);
}

/// A known node asks whether its key is still valid, and may report changes of its machine.
fn refresh(tx: &mut Tx<'_>, request: &Register, known: &Node) -> Result<Registration, Rejected> {
    if let Some(at) = request.expiry.time() {
        if known.expiry.is_some_and(|end| at > end) {
            return Err(Rejected::ExpiryExtended);
        }
        if known.expiry != Some(at) {
            key_expiry::event(tx, known, Some(at));
            key_expiry::put(tx, known.clone(), End::At(at));
        }
    }
    let update = NodeUpdate {
        node: Some(known.id),
        lock: request.lock,
        hostinfo: Some(request.hostinfo.clone()),
        capability: Some(request.capability),
        ..NodeUpdate::default()
    };
    node::update(tx, &update)?;
    Ok(Registration::Welcome(known.id))
}
