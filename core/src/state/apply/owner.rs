//! Whom a node belongs to: tags, and the way from one user to another.

use std::sync::Arc;

use crate::clock::Now;
use crate::id::{NodeId, UserId};
use crate::state::apply::{Applied, admit, keys, node, routes};
use crate::state::command::{Rejected, Reply};
use crate::state::model::{Model, Node, Owner};
use crate::state::record::Record;

/// Gives a node tags. A tagged node does not expire, so an expiry it had ends; a key that has ended already
/// stays ended.
pub(super) fn set_tags(
    model: &mut Model,
    records: &mut Vec<Record>,
    id: NodeId,
    tags: Vec<Box<str>>,
    now: Now,
) -> Applied {
    let tags = keys::checked_tags(tags)?;
    if tags.is_empty() {
        return Err(Rejected::NoTags);
    }
    let old = model.node(id).ok_or(Rejected::NoSuchNode)?.clone();
    if old.tags() == &*tags {
        return Ok(Reply::Node(old));
    }
    let owner = Owner::Tags(tags);
    check_twin(model, &old, &owner)?;
    let mut node = Node {
        owner,
        ..(*old).clone()
    };
    routes::approve_by_policy(model, &mut node);
    let expiry = node.expiry.filter(|_| node.expired);
    node::set_expiry(model, records, node, expiry, now);
    node::answer(model, id)
}

/// Refuses an owner with whom the machine has another node: the client's next login could not tell the two
/// apart.
fn check_twin(model: &Model, node: &Node, owner: &Owner) -> Result<(), Rejected> {
    let is_twin = |other: &&Arc<Node>| {
        let other_of_machine = other.id != node.id && other.machine == node.machine;
        other_of_machine && other.wireguard.is_none() && admit::owns(owner, other)
    };
    match model.nodes.iter().find(is_twin) {
        Some(twin) if node.wireguard.is_none() => Err(Rejected::MachineHasNode(twin.id)),
        _ => Ok(()),
    }
}

/// Gives a node to a user.
pub(super) fn move_to(
    model: &mut Model,
    records: &mut Vec<Record>,
    id: NodeId,
    user: UserId,
) -> Applied {
    if !model.users.contains_key(&user) {
        return Err(Rejected::NoSuchUser);
    }
    let old = model.node(id).ok_or(Rejected::NoSuchNode)?.clone();
    if old.user() == Some(user) {
        return Ok(Reply::Node(old));
    }
    let owner = Owner::User(user);
    check_twin(model, &old, &owner)?;
    let mut node = Node {
        owner,
        ..(*old).clone()
    };
    routes::approve_by_policy(model, &mut node);
    node::put_whole(model, records, node);
    node::answer(model, id)
}
