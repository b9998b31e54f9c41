//! Tags, and the user in their place: who owns a node.

use std::sync::Arc;

use crate::clock::End;
use crate::id::{NodeId, UserId};
use crate::state::apply::{Applied, admit, key_expiry, keys, routes};
use crate::state::command::{Outcome, Rejected};
use crate::state::event::{Action, Property, Target, Values, owner_text};
use crate::state::model::{Hostinfo, Model, Node, Owner};
use crate::state::tx::Tx;

/// Gives a node tags. A tagged node does not expire, so an expiry it had ends; a key that has expired stays
/// expired.
pub(super) fn set_tags(tx: &mut Tx<'_>, id: NodeId, tags: Vec<Box<str>>) -> Applied {
    let tags = keys::checked_tags(tags)?;
    if tags.is_empty() {
        return Err(Rejected::NoTags);
    }
    let old = tx.node(id).ok_or(Rejected::NoSuchNode)?.clone();
    if old.tags() == &*tags {
        return Ok(Outcome::Node(id));
    }
    let owner = Owner::Tags(tags);
    check_twin(tx, &old, &owner)?;
    event(tx, &old, &owner, Property::Tags);
    let mut node = Node {
        owner,
        ..(*old).clone()
    };
    routes::approve_by_policy(tx, &mut node);
    match node.expired {
        true => tx.put_whole_node(node),
        false => key_expiry::put(tx, node, End::Never),
    }
    Ok(Outcome::Node(id))
}

/// Gives a node to a user.
pub(super) fn move_to(tx: &mut Tx<'_>, id: NodeId, user: UserId) -> Applied {
    if !tx.users.contains_key(&user) {
        return Err(Rejected::NoSuchUser);
    }
    let old = tx.node(id).ok_or(Rejected::NoSuchNode)?.clone();
    if old.user() == Some(user) {
        return Ok(Outcome::Node(id));
    }
    let owner = Owner::User(user);
    check_twin(tx, &old, &owner)?;
    event(tx, &old, &owner, Property::Owner);
    let mut node = Node {
        owner,
        ..(*old).clone()
    };
    routes::approve_by_policy(tx, &mut node);
    tx.put_whole_node(node);
    Ok(Outcome::Node(id))
}

/// The owner of a device that requests tags: those tags, if the owner it would have otherwise may give all of them.
/// The tags of a preauth key count more than the requested ones.
pub(super) fn requested_owner(
    model: &Model,
    owner: Owner,
    hostinfo: &Hostinfo,
) -> Result<Owner, Rejected> {
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

/// Whether a client asks for other tags than at the last login of its node. Where the key gives tags they do not count.
pub(super) fn asks_for_others(owner: &Owner, hostinfo: &Hostinfo, node: &Node) -> bool {
    let (now, before) = (&hostinfo.request_tags, &node.hostinfo.request_tags);
    matches!(owner, Owner::User(_)) && !keys::are_same_tags(now, before)
}

/// Refuses an owner with whom the machine has another node: the client's next login could not tell the two
/// apart.
fn check_twin(model: &Model, node: &Node, owner: &Owner) -> Result<(), Rejected> {
    let is_twin = |other: &&Arc<Node>| other.id != node.id && admit::owns(owner, other);
    let mut of_machine = model.nodes_of_machine(&node.machine);
    match of_machine.find(is_twin) {
        Some(twin) if node.wireguard.is_none() => Err(Rejected::MachineHasNode(twin.id)),
        _ => Ok(()),
    }
}

fn event(tx: &mut Tx<'_>, node: &Node, owner: &Owner, property: Property) {
    let values = Values::change(&owner_text(tx, &node.owner), &owner_text(tx, owner));
    tx.event(
        Action::Update,
        Target::node(node).property(property),
        values,
    );
}
