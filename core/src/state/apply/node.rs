//! Nodes that have joined: what their clients report, their map streams, their names.

use std::sync::Arc;
use std::time::Duration;

use crate::id::NodeId;
use crate::state::apply::{Applied, keys, routes};
use crate::state::command::{NodeUpdate, Outcome, Rejected};
use crate::state::dns::label_in;
use crate::state::event::{Action, Property, Target, Values, list_text};
use crate::state::model::{Hostinfo, Model, Node, Presence, SessionId};
use crate::state::name;
use crate::state::tx::{Touched, Tx};

pub(super) fn update(tx: &mut Tx<'_>, update: &NodeUpdate) -> Applied {
    let id = update.node.ok_or(Rejected::NoSuchNode)?;
    let old = tx.node(id).ok_or(Rejected::NoSuchNode)?.clone();
    let mut node = (*old).clone();
    node.live |= update.endpoints.is_some() || update.disco.is_some();
    let touched = merge(tx, &mut node, update);
    report_events(tx, &old, &node);
    tx.put_node(node, touched);
    Ok(Outcome::Done)
}

pub(super) fn open_stream(
    tx: &mut Tx<'_>,
    id: NodeId,
    session: SessionId,
    mut fallback: NodeUpdate,
) -> Applied {
    let old = tx.node(id).ok_or(Rejected::NoSuchNode)?.clone();
    let mut node = (*old).clone();
    // A stream's own data may be older than a separate update's. After a restart, though, it is all
    // there is: the client sends no update because its stream broke.
    if node.live {
        fallback = NodeUpdate {
            capability: fallback.capability,
            forwarding_off: fallback.forwarding_off,
            ..NodeUpdate::default()
        };
    } else {
        fallback.endpoints = fallback.endpoints.filter(|list| !list.is_empty());
        fallback.home_derp = fallback.home_derp.filter(|region| *region != 0);
    }
    let mut touched = merge(tx, &mut node, &fallback);
    touched.presence = !node.presence.is_online();
    let introduced = node.presence.is_visible();
    touched.core |= !introduced;
    touched.soft |= touched.presence;
    node.presence = Presence::Online(session);
    node.unhealthy = false;
    report_events(tx, &old, &node);
    tx.put_node(node, touched);
    Ok(Outcome::Done)
}

pub(super) fn close_stream(tx: &mut Tx<'_>, id: NodeId, session: SessionId) -> Applied {
    let node = tx.node(id).ok_or(Rejected::NoSuchNode)?;
    // A stream that ended before it was open has ended the older one, too.
    match node.presence {
        Presence::Online(open) if open <= session => {}
        _ => return Ok(Outcome::Done),
    }
    // The grace is for connections that were lost. A node that logged out, or whose key has expired, is offline already.
    let grace = match node.expired {
        true => Duration::ZERO,
        false => tx.settings.offline_grace,
    };
    let node = Node {
        presence: Presence::Leaving {
            until: tx.now().mono.saturating_add(grace),
            since: tx.now().wall,
        },
        ..(**node).clone()
    };
    tx.put_node_silently(node);
    Ok(Outcome::Done)
}

pub(super) fn rename(tx: &mut Tx<'_>, id: NodeId, label: Box<str>) -> Applied {
    if !name::is_free_label(&label) {
        return Err(Rejected::BadNodeName(label));
    }
    let old = tx.node(id).ok_or(Rejected::NoSuchNode)?.clone();
    if old.label_chosen && old.label == label {
        return Ok(Outcome::Node(id));
    }
    if is_taken(tx, id, &label) {
        return Err(Rejected::NodeNameTaken(label));
    }
    let node = Node {
        label,
        label_chosen: true,
        ..(*old).clone()
    };
    renamed_event(tx, &old, &node);
    tx.put_whole_node(node);
    Ok(Outcome::Node(id))
}

pub(super) fn delete(tx: &mut Tx<'_>, id: NodeId) -> Applied {
    let node = tx.node(id).ok_or(Rejected::NoSuchNode)?.clone();
    tx.event(Action::Delete, Target::node(&node), Values::default());
    tx.remove_node(id);
    Ok(Outcome::Done)
}

/// Notes whether a node answers. Nothing durable: after a restart it is asked again.
pub(super) fn set_health(tx: &mut Tx<'_>, id: NodeId, healthy: bool) -> Applied {
    let node = tx.node(id).ok_or(Rejected::NoSuchNode)?;
    let node = Node {
        unhealthy: !healthy,
        ..(**node).clone()
    };
    tx.put_node(node, Touched::default());
    Ok(Outcome::Done)
}

/// Whether another node has this label.
pub(super) fn is_taken(model: &Model, except: NodeId, label: &str) -> bool {
    model
        .nodes
        .iter()
        .any(|node| node.id != except && &*node.label == label)
}

/// Whether the configuration, the policy or a record uses this label for something else than the device that reports
/// it as its host name.
fn is_reserved(model: &Model, label: &str) -> bool {
    let base = &model.reserved.base_domain;
    let policy = model.compiled.policy();
    let mut of_policy = policy.iter().flat_map(|policy| policy.extra_records());
    model.reserved.labels.contains(label)
        || model
            .dns_records
            .iter()
            .any(|record| record.uses(label, base))
        || of_policy.any(|record| label_in(&record.name.to_ascii_lowercase(), base) == Some(label))
}

/// A free label for a device with this host name.
pub(super) fn label_of_host(model: &Model, id: NodeId, hostname: &str) -> Box<str> {
    let wanted = name::label_for(hostname);
    let is_unavailable = |label: &str| is_taken(model, id, label) || is_reserved(model, label);
    name::unique(&wanted, is_unavailable).into()
}

/// Makes the label of a node one that an administrator chose, because one names the node by it.
pub(super) fn choose_label(tx: &mut Tx<'_>, label: &str) {
    let mut nodes = tx.nodes.iter();
    let named = nodes.find(|node| &*node.label == label && !node.label_chosen);
    if let Some(node) = named.cloned() {
        tx.put_whole_node(Node {
            label_chosen: true,
            ..(*node).clone()
        });
    }
}

/// Takes over what is new in `update`, and says what that touches.
fn merge(model: &Model, node: &mut Node, update: &NodeUpdate) -> Touched {
    let mut touched = Touched::default();
    if let Some(endpoints) = &update.endpoints
        && node.endpoints != *endpoints
    {
        node.endpoints = endpoints.clone();
        touched.endpoints = true;
    }
    if let Some(disco) = update.disco
        && node.disco != Some(disco)
    {
        node.disco = Some(disco);
        touched.endpoints = true;
    }
    if let Some(region) = update.home_derp
        && node.home_derp != region
    {
        node.home_derp = region;
        touched.endpoints = true;
    }
    if let Some(capability) = update.capability
        && node.capability != capability
    {
        node.capability = capability;
        touched.core = true;
    }
    if let Some(lock) = update.lock
        && node.lock != Some(lock)
    {
        node.lock = Some(lock);
        touched.core = true;
    }
    // Peers get nothing of it, and the next request says it again.
    node.forwarding_off = update.forwarding_off.unwrap_or(node.forwarding_off);
    let hostinfo = update.hostinfo.as_ref();
    if let Some(hostinfo) = hostinfo.map(|hostinfo| with_tags_of_login(node, hostinfo))
        && node.hostinfo != hostinfo
    {
        touched.soft = true;
        let offers = node.hostinfo.routable_ips != hostinfo.routable_ips;
        touched.core |= offers || node.hostinfo.shared != hostinfo.shared;
        let renamed = node.hostinfo.hostname != hostinfo.hostname;
        node.hostinfo = hostinfo;
        if offers {
            routes::approve_by_policy(model, node);
        }
        if renamed && !node.label_chosen {
            take_host_name(model, node);
            touched.core = true;
        }
    }
    touched.soft |= touched.core || touched.endpoints;
    touched
}

/// Host information as kept: with the tags of the last login, since no report changes whose a node is. Remembers others
/// that it asks for.
fn with_tags_of_login(node: &mut Node, hostinfo: &Arc<Hostinfo>) -> Arc<Hostinfo> {
    let granted = &node.hostinfo.request_tags;
    if hostinfo.request_tags == *granted {
        node.unmet_tags = Box::default();
        return hostinfo.clone();
    }
    node.unmet_tags = match keys::are_same_tags(&hostinfo.request_tags, granted) {
        true => Box::default(),
        false => hostinfo.request_tags.clone(),
    };
    Arc::new(Hostinfo {
        request_tags: granted.clone(),
        ..(**hostinfo).clone()
    })
}

/// Notes what others should know of a report: another name, other routes.
fn report_events(tx: &mut Tx<'_>, old: &Node, node: &Node) {
    if old.label != node.label {
        renamed_event(tx, old, node);
    }
    if old.lock != node.lock {
        let target = Target::node(node).property(Property::LockKey);
        tx.event(Action::Update, target, Values::default());
    }
    let (before, after) = (&old.hostinfo.routable_ips, &node.hostinfo.routable_ips);
    if before != after {
        let target = Target::node(node).property(Property::AdvertisedRoutes);
        let values = Values::change(&list_text(before), &list_text(after));
        tx.event(Action::Update, target, values);
    }
}

fn renamed_event(tx: &mut Tx<'_>, old: &Node, node: &Node) {
    let target = Target::node(node).property(Property::Name);
    tx.event(
        Action::Update,
        target,
        Values::change(&old.label, &node.label),
    );
}

/// Names a node by its host name.
pub(super) fn take_host_name(model: &Model, node: &mut Node) {
    node.label = label_of_host(model, node.id, &node.hostinfo.hostname);
}
