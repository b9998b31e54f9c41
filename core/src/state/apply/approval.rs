//! Device approval: a node without it sees nobody, and nobody sees it.

use crate::id::NodeId;
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
    if node.authorized == authorized {
        return Ok(Outcome::Node(id));
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
