//! Whom a node belongs to: tags, and the way from one user to another.

use crate::clock::Now;
use crate::id::{NodeId, UserId};
use crate::state::apply::{Applied, keys, node, routes};
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
    let mut node = Node {
        owner: Owner::Tags(tags),
        ..(*old).clone()
    };
    routes::approve_by_policy(model, &mut node);
    let expiry = node.expiry.filter(|_| node.expired);
    node::set_expiry(model, records, node, expiry, now);
    node::answer(model, id)
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
    // A machine and an owner are one node: a second one could never be told from the first.
    let twin = model.nodes.iter().find(|node| {
        node.id != id
            && node.wireguard.is_none()
            && node.machine == old.machine
            && node.user() == Some(user)
    });
    if let Some(twin) = twin.filter(|_| old.wireguard.is_none()) {
        return Err(Rejected::MachineHasNode(twin.id));
    }
    let mut node = Node {
        owner: Owner::User(user),
        ..(*old).clone()
    };
    routes::approve_by_policy(model, &mut node);
    node::put_whole(model, records, node);
    node::answer(model, id)
}
