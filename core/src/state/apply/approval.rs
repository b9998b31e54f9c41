//! Device approval: a node without it sees nobody, and nobody sees it.
//!
//! A machine whose approval was revoked stays out, whatever it does with its node and whichever keys it has, until a person
//! approves one of its nodes or registrations.

use crate::id::NodeId;
use crate::keys::MachineKey;
use crate::state::apply::Applied;
use crate::state::command::{Outcome, Rejected};
use crate::state::event::{Action, Target, Values};
use crate::state::model::Node;
use crate::state::tx::Tx;

pub(super) fn approve(tx: &mut Tx<'_>, id: NodeId) -> Applied {
    set(tx, id, true)
}

pub(super) fn revoke(tx: &mut Tx<'_>, id: NodeId) -> Applied {
    set(tx, id, false)
}

fn set(tx: &mut Tx<'_>, id: NodeId, authorized: bool) -> Applied {
    let node = tx.node(id).ok_or(Rejected::NoSuchNode)?.clone();
    let is_out = tx.shut_out.contains(&node.machine);
    // Devices without a client all have the same machine key, and cannot join again by themselves.
    let is_known = node.machine == MachineKey::ZERO || is_out != authorized;
    if node.authorized == authorized && is_known {
        return Ok(Outcome::Node(id));
    }
    match authorized {
        true => tx.let_in(node.machine),
        false => tx.shut_out(node.machine),
    }
    let action = match authorized {
        true => Action::Approve,
        false => Action::Revoke,
    };
    tx.event(action, Target::node(&node), Values::default());
    tx.put_whole_node(Node {
        authorized,
        ..(*node).clone()
    });
    Ok(Outcome::Node(id))
}
