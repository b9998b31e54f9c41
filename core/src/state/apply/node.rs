//! Nodes that are in: news from the client, streams, and what an administrator does to them.

use std::sync::Arc;

use crate::clock::{Now, Timestamp};
use crate::id::NodeId;
use crate::state::apply::{Applied, attributes, routes};
use crate::state::command::{NodeUpdate, Rejected, Reply};
use crate::state::model::{Change, FLUSH_SOON, Model, Node, Presence, SessionId};
use crate::state::name;
use crate::state::record::Record;

/// Which sides of a node a change touched.
#[derive(Default, Clone, Copy)]
struct Touched {
    core: bool,
    endpoints: bool,
    presence: bool,
    /// It must be on disk before anybody is answered.
    durable: bool,
    /// It should be on disk within [`FLUSH_SOON`].
    soon: bool,
}

pub(super) fn update(
    model: &mut Model,
    records: &mut Vec<Record>,
    update: &NodeUpdate,
    now: Now,
) -> Applied {
    let id = update.node.ok_or(Rejected::NoSuchNode)?;
    let mut node = (**model.node(id).ok_or(Rejected::NoSuchNode)?).clone();
    let came_alive = !node.live && (update.endpoints.is_some() || update.disco.is_some());
    node.live |= came_alive;
    let touched = merge(model, &mut node, update);
    flush_soon(model, touched, now);
    store(model, records, node, touched);
    model.changed |= came_alive;
    Ok(Reply::Done)
}

pub(super) fn open_stream(
    model: &mut Model,
    records: &mut Vec<Record>,
    id: NodeId,
    session: SessionId,
    mut fallback: NodeUpdate,
    now: Now,
) -> Applied {
    let mut node = (**model.node(id).ok_or(Rejected::NoSuchNode)?).clone();
    // A stream's own data may be older than a separate update's. After a restart, though, it is all
    // there is: the client sends no update because its stream broke.
    if node.live {
        fallback = NodeUpdate {
            capability: fallback.capability,
            ..NodeUpdate::default()
        };
    } else {
        fallback.endpoints = fallback.endpoints.filter(|list| !list.is_empty());
        fallback.home_derp = fallback.home_derp.filter(|region| *region != 0);
    }
    let mut touched = merge(model, &mut node, &fallback);
    touched.presence = !node.presence.is_online();
    let introduced = node.presence.is_visible();
    touched.core |= !introduced;
    // Whether an ephemeral node was ever there decides whether it is collected.
    touched.durable |= !introduced && node.ephemeral;
    node.unflushed |= touched.presence;
    node.presence = Presence::Online(session);
    node.unhealthy = false;
    flush_soon(model, touched, now);
    store(model, records, node, touched);
    model.changed = true;
    Ok(Reply::Done)
}

pub(super) fn close_stream(model: &mut Model, id: NodeId, session: SessionId, now: Now) -> Applied {
    let node = model.node(id).ok_or(Rejected::NoSuchNode)?;
    if node.presence == Presence::Online(session) {
        let until = now.mono.saturating_add(model.settings.offline_grace);
        let mut node = (**node).clone();
        node.presence = Presence::Leaving {
            until,
            since: now.wall,
        };
        model.put_node(node);
    }
    Ok(Reply::Done)
}

pub(super) fn rename(
    model: &mut Model,
    records: &mut Vec<Record>,
    id: NodeId,
    label: Box<str>,
) -> Applied {
    if !name::is_label(&label) {
        return Err(Rejected::BadNodeName(label));
    }
    let node = model.node(id).ok_or(Rejected::NoSuchNode)?.clone();
    if is_taken(model, id, &label) {
        return Err(Rejected::NodeNameTaken(label));
    }
    let node = Node {
        label,
        label_chosen: true,
        ..(*node).clone()
    };
    put_whole(model, records, node);
    answer(model, id)
}

pub(super) fn expire(
    model: &mut Model,
    records: &mut Vec<Record>,
    id: NodeId,
    at: Option<Timestamp>,
    now: Now,
) -> Applied {
    let node = model.node(id).ok_or(Rejected::NoSuchNode)?.clone();
    if node.wireguard.is_some() && at.is_some() {
        return Err(Rejected::WireGuardOnly);
    }
    set_expiry(model, records, (*node).clone(), at, now);
    answer(model, id)
}

/// Lets a node take part, or no longer.
pub(super) fn authorize(
    model: &mut Model,
    records: &mut Vec<Record>,
    id: NodeId,
    whether: bool,
) -> Applied {
    let node = model.node(id).ok_or(Rejected::NoSuchNode)?.clone();
    if node.authorized == whether {
        return Ok(Reply::Node(node));
    }
    let node = Node {
        authorized: whether,
        ..(*node).clone()
    };
    model.admission = model.revision;
    put_whole(model, records, node);
    answer(model, id)
}

pub(super) fn delete(model: &mut Model, records: &mut Vec<Record>, id: NodeId) -> Applied {
    let node = model.node(id).ok_or(Rejected::NoSuchNode)?.clone();
    remove(model, records, id);
    Ok(Reply::Node(node))
}

/// Sets the end of a node's key and, at once, whether it has passed.
pub(super) fn set_expiry(
    model: &mut Model,
    records: &mut Vec<Record>,
    mut node: Node,
    at: Option<Timestamp>,
    now: Now,
) {
    let expired = at.is_some_and(|at| at <= now.wall);
    if node.expired != expired {
        model.admission = model.revision;
    }
    node.expiry = at;
    node.expired = expired;
    put_whole(model, records, node);
}

/// Takes a node out for good.
pub(super) fn remove(model: &mut Model, records: &mut Vec<Record>, id: NodeId) {
    if model.take_node(id) {
        records.push(Record::DeleteNode(id));
        attributes::remove(model, records, id);
        model.note(Change::NodeRemoved(id));
    }
}

/// Puts a node that is new, or changed as a whole, into the model and on disk.
pub(super) fn put_whole(model: &mut Model, records: &mut Vec<Record>, node: Node) {
    store(
        model,
        records,
        node,
        Touched {
            core: true,
            durable: true,
            ..Touched::default()
        },
    );
}

/// Whether another node has this label.
pub(super) fn is_taken(model: &Model, except: NodeId, label: &str) -> bool {
    model
        .nodes
        .iter()
        .any(|node| node.id != except && &*node.label == label)
}

/// Takes over what is new in `update`, and says what that touches.
fn merge(model: &Model, node: &mut Node, update: &NodeUpdate) -> Touched {
    let mut touched = Touched::default();
    if let Some(endpoints) = &update.endpoints
        && node.endpoints != *endpoints
    {
        node.endpoints = endpoints.clone();
        node.unflushed = true;
        touched.endpoints = true;
    }
    if let Some(disco) = update.disco
        && node.disco != Some(disco)
    {
        node.disco = Some(disco);
        touched.endpoints = true;
        touched.soon = true;
    }
    if let Some(region) = update.home_derp
        && node.home_derp != region
    {
        node.home_derp = region;
        touched.endpoints = true;
        touched.soon = true;
    }
    if let Some(capability) = update.capability
        && node.capability != capability
    {
        node.capability = capability;
        touched.core = true;
        touched.durable = true;
    }
    if let Some(hostinfo) = &update.hostinfo
        && node.hostinfo != *hostinfo
    {
        touched.durable = true;
        let offers = node.hostinfo.routable_ips != hostinfo.routable_ips;
        touched.core |= offers || node.hostinfo.shared != hostinfo.shared;
        let renamed = node.hostinfo.hostname != hostinfo.hostname;
        node.hostinfo = hostinfo.clone();
        if offers {
            routes::approve_by_policy(model, node);
        }
        if renamed && !node.label_chosen {
            take_host_name(model, node);
            touched.core = true;
        }
    }
    touched
}

/// Names a node by its host name.
pub(super) fn take_host_name(model: &Model, node: &mut Node) {
    let wanted = name::label_for(&node.hostinfo.hostname);
    node.label = name::unique(&wanted, |label| is_taken(model, node.id, label)).into();
}

fn flush_soon(model: &mut Model, touched: Touched, now: Now) {
    if touched.soon && !touched.durable {
        model.flush_at = model.flush_at.min(now.mono.saturating_add(FLUSH_SOON));
    }
}

fn store(model: &mut Model, records: &mut Vec<Record>, mut node: Node, touched: Touched) {
    let id = node.id;
    if touched.core {
        node.facets.core = model.revision;
    }
    if touched.endpoints {
        node.facets.endpoints = model.revision;
    }
    if touched.presence {
        node.facets.presence = model.revision;
    }
    node.unflushed = (node.unflushed || touched.soon) && !touched.durable;
    model.put_node(node);
    if touched.core || touched.endpoints || touched.presence {
        model.note(Change::Node(id));
    }
    if touched.durable
        && let Some(node) = model.node(id)
    {
        records.push(Record::PutNode(Arc::clone(node)));
        model.changed = true;
    }
}

/// Has a node sent whole to all who are told of it, without anything of its own having changed.
pub(super) fn mark_changed(model: &mut Model, which: impl Fn(&Node) -> bool) {
    let ids: Vec<NodeId> = model
        .nodes
        .iter()
        .filter(|node| which(node))
        .map(|node| node.id)
        .collect();
    for id in ids {
        if let Some(node) = model.node(id) {
            let mut node = (**node).clone();
            node.facets.core = model.revision;
            model.put_node(node);
            model.note(Change::Node(id));
        }
    }
}

pub(super) fn answer(model: &Model, id: NodeId) -> Applied {
    let node = model.node(id).ok_or(Rejected::NoSuchNode)?;
    Ok(Reply::Node(Arc::clone(node)))
}
