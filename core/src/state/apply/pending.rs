//! Pending registrations: devices that wait until a person approves or rejects them.
//!
//! They are in memory only. A client whose registration is gone asks again by itself, with a follow-up that names it
//! (`authRoutine` in tailscale `control/controlclient/auto.go`).

use std::sync::Arc;

use hearth_shares::{Entry, Pool, Source};

use crate::id::{AuthId, UserId};
use crate::keys::MachineKey;
use crate::state::apply::admit::{Admission, admit};
use crate::state::apply::{Applied, tags};
use crate::state::command::{Outcome, Register, Registration, Rejected};
use crate::state::event::{Action, Target, Values, owner_text};
use crate::state::model::{Model, Owner, PendingRegistration, PendingState, RegisteredBy};
use crate::state::tx::Tx;

/// The pending registration of a device that nobody knows. A machine has one: what it asks for last counts, under the id
/// that it has already if it asks for the same with another key, so that approving an older request never makes a node with a key that nobody uses any more.
pub(super) fn request(tx: &mut Tx<'_>, request: Register) -> Result<Registration, Rejected> {
    let known = of_machine(tx, &request.machine).cloned();
    let mut pending = PendingRegistration {
        id: request.fresh_id,
        machine: request.machine,
        key: request.key,
        lock: request.lock,
        hostinfo: request.hostinfo,
        ephemeral: request.ephemeral,
        expiry: request.expiry.time(),
        capability: request.capability,
        source: Source::of(request.source),
        created: tx.now().wall,
        asked: tx.now().mono,
        state: PendingState::Waiting,
    };
    if let Some(known) = known {
        let is_same = known.key == pending.key;
        match known.state {
            PendingState::Waiting if is_same => {
                return Ok(Registration::NeedsLogin(known.id.clone()));
            }
            // What a person has seen stays what the id means.
            PendingState::Waiting if !looks_alike(&known, &pending) => tx.remove_pending(&known.id),
            PendingState::Waiting => {
                pending.id = known.id.clone();
                let id = pending.id.clone();
                tx.put_pending(pending);
                return Ok(Registration::NeedsLogin(id));
            }
            PendingState::Rejected if is_same && request.followup.as_ref() == Some(&known.id) => {
                return Err(Rejected::LoginRejected);
            }
            PendingState::Rejected | PendingState::Approved(_) => tx.remove_pending(&known.id),
        }
    }
    let id = pending.id.clone();
    make_room(tx, pending.source);
    tx.event_of_stranger(Action::Request, &pending);
    tx.put_pending(pending);
    Ok(Registration::NeedsLogin(id))
}

/// Whether two requests of a machine ask a person for the same.
fn looks_alike(one: &PendingRegistration, other: &PendingRegistration) -> bool {
    let asked = |pending: &PendingRegistration| {
        let hostinfo = &pending.hostinfo;
        (hostinfo.hostname.clone(), hostinfo.request_tags.clone())
    };
    asked(one) == asked(other) && one.ephemeral == other.ephemeral
}

/// Ends the waiting registration of a machine that has joined by other means, or goes on with the key that it had.
pub(super) fn withdraw(tx: &mut Tx<'_>, machine: &MachineKey) {
    let waiting = of_machine(tx, machine).filter(|known| known.state == PendingState::Waiting);
    if let Some(id) = waiting.map(|known| known.id.clone()) {
        tx.remove_pending(&id);
    }
}

fn of_machine<'a>(model: &'a Model, machine: &MachineKey) -> Option<&'a Arc<PendingRegistration>> {
    let mut all = model.pending.values();
    all.find(|pending| pending.machine == *machine)
}

/// Removes registrations so that one more of `source` fits: the oldest decided one, else the oldest of the source that
/// has the most.
fn make_room(tx: &mut Tx<'_>, source: Source) {
    while tx.pending.len() >= tx.settings.max_pending.max(1) {
        let decided = tx.pending.values();
        let decided = decided.filter(|pending| pending.state != PendingState::Waiting);
        let oldest = decided.min_by_key(|pending| pending.asked);
        let surplus = oldest.map(|pending| pending.id.clone());
        let Some(id) = surplus.or_else(|| gives_way(tx, source)) else {
            return;
        };
        tx.remove_pending(&id);
    }
}

fn gives_way(model: &Model, source: Source) -> Option<AuthId> {
    let mut waiting: Vec<&Arc<PendingRegistration>> = model.pending.values().collect();
    waiting.sort_by_key(|pending| pending.asked);
    let mut pool = Pool::new(waiting.len());
    let entries: Vec<(Entry, &AuthId)> = waiting
        .iter()
        .map(|pending| (pool.enter(pending.source).0, &pending.id))
        .collect();
    let (_, surplus) = pool.enter(source);
    let mut entries = entries.into_iter();
    let found = entries.find(|(entry, _)| Some(*entry) == surplus);
    found.map(|(_, id)| id.clone())
}

/// Lets the device join as a user's node.
pub(super) fn approve(tx: &mut Tx<'_>, id: &AuthId, user: UserId) -> Applied {
    let pending = waiting(tx, id)?;
    if !tx.users.contains_key(&user) {
        return Err(Rejected::NoSuchUser);
    }
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
        by_request: true,
        user: Some(user),
        authorized: true,
    };
    let (node, _) = admit(tx, admission)?;
    let joined = tx.node(node).cloned();
    let label = joined.as_ref().map(|node| &*node.label).unwrap_or_default();
    let owner = joined.as_ref().map(|node| owner_text(tx, &node.owner));
    let details = format!("node {node} {label}");
    let values = Values::made(&owner.unwrap_or_default(), &details);
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
