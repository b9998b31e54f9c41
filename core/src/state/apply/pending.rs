//! Pending registrations: devices that wait until a person approves or rejects them.

use std::sync::Arc;

use crate::id::{AuthId, UserId};
use crate::state::apply::admit::{Admission, admit};
use crate::state::apply::{Applied, tags};
use crate::state::command::{Outcome, Register, Registration, Rejected};
use crate::state::event::{Action, Target, Values};
use crate::state::model::{Model, Owner, PendingRegistration, PendingState, RegisteredBy};
use crate::state::tx::Tx;

/// The pending registration of a device that nobody knows, which may be there already.
pub(super) fn request(tx: &mut Tx<'_>, request: Register) -> Result<Registration, Rejected> {
    let same = |pending: &PendingRegistration| {
        pending.machine == request.machine && pending.key == request.key
    };
    let mut all = tx.pending.values();
    if let Some(known) = all.find(|pending| same(pending) && pending.state == PendingState::Waiting)
    {
        return Ok(Registration::NeedsLogin(known.id.clone()));
    }
    let followed = request.followup.as_ref().and_then(|id| tx.pending.get(id));
    if followed.is_some_and(|pending| same(pending) && pending.state == PendingState::Rejected) {
        return Err(Rejected::LoginRejected);
    }
    make_room(tx);
    let pending = PendingRegistration {
        id: request.fresh_id.clone(),
        machine: request.machine,
        key: request.key,
        lock: request.lock,
        hostinfo: request.hostinfo,
        ephemeral: request.ephemeral,
        expiry: request.expiry.time(),
        capability: request.capability,
        created: tx.now().wall,
        state: PendingState::Waiting,
    };
    tx.event(
        Action::Request,
        Target::registration(&pending),
        Values::default(),
    );
    tx.put_pending(pending);
    Ok(Registration::NeedsLogin(request.fresh_id))
}

/// Removes the oldest registrations, decided ones first, so that one more fits.
fn make_room(tx: &mut Tx<'_>) {
    while tx.pending.len() >= tx.settings.max_pending.max(1) {
        let age = |pending: &&Arc<PendingRegistration>| {
            (pending.state == PendingState::Waiting, pending.created)
        };
        let oldest = tx.pending.values().min_by_key(age);
        let Some(oldest) = oldest.map(|oldest| oldest.id.clone()) else {
            return;
        };
        tx.remove_pending(oldest);
    }
}

/// Lets the device join as a user's node.
pub(super) fn approve(tx: &mut Tx<'_>, id: &AuthId, user: UserId) -> Applied {
    let pending = waiting(tx, id)?;
    let Some(owner) = tx.users.get(&user).map(|user| user.name.clone()) else {
        return Err(Rejected::NoSuchUser);
    };
    let holder = tx.node_by_key(&pending.key);
    if holder.is_some_and(|node| node.machine != pending.machine) {
        return Err(Rejected::MachineMismatch);
    }
    let admission = Admission {
        machine: pending.machine,
        key: pending.key,
        lock: pending.lock,
        hostinfo: pending.hostinfo.clone(),
        ephemeral: pending.ephemeral,
        requested_expiry: pending.expiry,
        capability: pending.capability,
        registered_by: RegisteredBy::Approval,
        owner: tags::requested_owner(tx, Owner::User(user), &pending.hostinfo)?,
        user: Some(user),
        authorized: true,
    };
    let (node, _) = admit(tx, admission)?;
    let label = tx.node(node).map(|node| node.label.clone());
    let details = format!("node {node} {}", label.unwrap_or_default());
    let values = Values::made(&owner, &details);
    tx.event(Action::Approve, Target::registration(&pending), values);
    tx.put_pending(PendingRegistration {
        state: PendingState::Approved(node),
        ..(*pending).clone()
    });
    Ok(Outcome::Node(node))
}

pub(super) fn reject(tx: &mut Tx<'_>, id: &AuthId) -> Applied {
    let pending = waiting(tx, id)?;
    tx.event(
        Action::Reject,
        Target::registration(&pending),
        Values::default(),
    );
    tx.put_pending(PendingRegistration {
        state: PendingState::Rejected,
        ..(*pending).clone()
    });
    Ok(Outcome::Done)
}

/// The registration, if it waits for a decision.
pub(super) fn waiting(model: &Model, id: &AuthId) -> Result<Arc<PendingRegistration>, Rejected> {
    let pending = model.pending.get(id).ok_or(Rejected::NoSuchLogin)?;
    if pending.state != PendingState::Waiting {
        return Err(Rejected::LoginDecided);
    }
    Ok(pending.clone())
}
