//! Registration: preauth keys, renewing a key, logout.
//!
//! The identity of a node is its machine key together with its owner. Rules distilled from
//! headscale `hscontrol/auth.go` and `hscontrol/state/state.go`, and tailscale
//! `tstest/integration/testcontrol/testcontrol.go`.

use std::sync::Arc;

use crate::id::NodeId;
use crate::state::apply::admit::{Admission, admit, owns};
use crate::state::apply::{key_expiry, keys, node, pending, tags};
use crate::state::command::{
    NodeUpdate, PresentedKey, Register, Registration, Rejected, RequestedExpiry,
};
use crate::state::event::{Action, Property, Target, Values, key_text, owner_text};
use crate::state::model::{Model, Node, PreAuthKey, RegisteredBy};
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
        return Ok(log_out(tx, known.as_deref()));
    }
    if let Some(presented) = &request.auth_key {
        let key = find_key(tx, presented)?;
        return with_key(tx, &request, known, &key);
    }
    match known {
        Some(node) if node.expired => Ok(Registration::KeyExpired(Some(node.id))),
        Some(node) => refresh(tx, &request, &node),
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
        // The moment of the logout, never the sentinel that the client sends: peers get to see it.
        let now = tx.now().wall;
        key_expiry::put(tx, known.clone(), Some(now));
    }
    Registration::KeyExpired(Some(known.id))
}

/// The preauth key that is presented, whether or not it may still be used.
pub(super) fn find_key(
    model: &Model,
    presented: &PresentedKey,
) -> Result<Option<Arc<PreAuthKey>>, Rejected> {
    let PresentedKey::WellFormed { prefix, hash } = presented else {
        return Err(Rejected::UnknownPreAuthKey);
    };
    let same = |key: &&Arc<PreAuthKey>| key.prefix == *prefix && key.hash == *hash;
    Ok(model.preauth_keys.values().find(same).cloned())
}

fn with_key(
    tx: &mut Tx<'_>,
    request: &Register,
    known: Option<Arc<Node>>,
    key: &Option<Arc<PreAuthKey>>,
) -> Result<Registration, Rejected> {
    // A container that restarts shows its used, expired or even deleted key again: what counts is the
    // node key, which proves that this machine joined before. Since then an administrator may have
    // given the node to somebody else; only another key asks for another owner.
    let same_owner = |node: &Node| {
        let key = key.as_ref();
        key.is_none_or(|key| {
            node.registered_by == registered_by(key) || owns(&keys::owner_by(key), node)
        })
    };
    if let Some(node) = known.filter(|node| !node.expired && same_owner(node)) {
        return refresh(tx, request, &node);
    }
    let key = key.as_ref().ok_or(Rejected::UnknownPreAuthKey)?;
    let now = tx.now();
    if now.is_plausible() && key.expiry.is_some_and(|end| end <= now.wall) {
        return Err(Rejected::PreAuthKeyExpired);
    }
    if key.used && !key.reusable {
        return Err(Rejected::PreAuthKeyUsed);
    }
    let admission = Admission {
        machine: request.machine,
        key: request.key,
        lock: request.lock,
        hostinfo: request.hostinfo.clone(),
        ephemeral: key.ephemeral || request.ephemeral,
        requested_expiry: request.expiry.time(),
        capability: request.capability,
        registered_by: registered_by(key),
        owner: tags::requested_owner(tx, keys::owner_by(key), &request.hostinfo)?,
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
            key_expiry::put(tx, known.clone(), Some(at));
        }
    }
    let update = NodeUpdate {
        node: Some(known.id),
        hostinfo: Some(request.hostinfo.clone()),
        capability: Some(request.capability),
        ..NodeUpdate::default()
    };
    node::update(tx, &update)?;
    if let Some(lock) = request.lock.filter(|lock| known.lock != Some(*lock))
        && let Some(node) = tx.node(known.id).cloned()
    {
        let target = Target::node(&node).property(Property::LockKey);
        tx.event(Action::Update, target, Values::default());
        tx.put_whole_node(Node {
            lock: Some(lock),
            ..(*node).clone()
        });
    }
    Ok(Registration::Welcome(known.id))
}
