//! Key expiry: when a node's key expires, and what happens at that moment.

use crate::clock::{End, Now, Timestamp};
use crate::id::NodeId;
use crate::state::apply::Applied;
use crate::state::command::{Outcome, Rejected};
use crate::state::event::{Action, Property, Target, Values, expiry_text};
use crate::state::model::{Ending, Node};
use crate::state::tx::{Touched, Tx};

/// Sets when a node's key expires.
pub(super) fn set(tx: &mut Tx<'_>, id: NodeId, end: End) -> Applied {
    let node = tx.node(id).ok_or(Rejected::NoSuchNode)?.clone();
    if node.wireguard.is_some() && end != End::Never {
        return Err(Rejected::WireGuardOnly);
    }
    let (at, ending) = tx.end(end);
    let is_over = at.is_some_and(|at| at <= tx.now().wall);
    // A date that has passed may turn out to lie ahead; what is ended by hand may not.
    let is_for_good = node.ending == Ending::Hand || ending != Ending::Hand;
    let is_same = (node.expiry, node.ending) == (at, ending);
    if is_same || node.expired && is_over && is_for_good {
        return Ok(Outcome::Node(id));
    }
    event(tx, &node, at);
    put(tx, (*node).clone(), end);
    Ok(Outcome::Node(id))
}

/// Notes that a node's key is going to expire at another moment, or has expired.
pub(super) fn event(tx: &mut Tx<'_>, node: &Node, at: Option<Timestamp>) {
    let is_over = at.is_some_and(|at| at <= tx.now().wall);
    let action = match is_over {
        true => Action::Expire,
        false => Action::Update,
    };
    let target = Target::node(node).property(Property::KeyExpiry);
    let values = Values::change(&expiry_text(node.expiry), &expiry_text(at));
    tx.event(action, target, values);
}

/// Puts a changed node with another end of its key, which may have passed.
pub(super) fn put(tx: &mut Tx<'_>, mut node: Node, end: End) {
    (node.expiry, node.ending) = tx.end(end);
    node.expired = node.expiry.is_some_and(|at| at <= tx.now().wall);
    tx.put_whole_node(node);
}

/// Expires a key whose time has come. Without `durable` it is written with the next flush: after a restart it follows
/// from the time.
pub(super) fn expire(tx: &mut Tx<'_>, id: NodeId, durable: bool) {
    let Some(node) = tx.node(id).cloned() else {
        return;
    };
    let values = Values::change("", &expiry_text(node.expiry));
    tx.event(Action::Expire, Target::node(&node), values);
    let expired = Node {
        expired: true,
        ..(*node).clone()
    };
    let touched = Touched {
        core: true,
        durable,
        soft: true,
        ..Touched::default()
    };
    tx.put_node(expired, touched);
}

/// Whether a node's key expires now. Not before the clock is plausible.
pub(super) fn is_due(node: &Node, now: Now) -> bool {
    !node.expired && has_passed(node, now)
}

/// Whether the time at which a node's key expires has passed.
pub(super) fn has_passed(node: &Node, now: Now) -> bool {
    node.ending.is_over(node.expiry, now)
}
