//! What happens because time passes: nodes go offline, expire, are collected; soft state is flushed.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Now;
use crate::id::{AuthId, NodeId};
use crate::state::apply::{node, policy, routes};
use crate::state::model::{Change, Model, Node, Presence};
use crate::state::record::Record;

/// Longest time between two looks at the wall clock, which may jump.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// Whether soft state is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flush {
    /// Each flush interval.
    WhenDue,
    /// Now, because hearth shuts down.
    Now,
    /// Not at all, and nothing else either: the database takes no changes.
    Never,
}

/// Does all that is due at `now`, and all that follows from the commands before.
pub fn tick(model: &mut Model, records: &mut Vec<Record>, now: Now, how: Flush) {
    for id in due(model, now) {
        pass(model, records, id, now, how);
    }
    routes::settle(model);
    if how == Flush::Never {
        return;
    }
    drop_old_logins(model, records, now);
    if how == Flush::Now || now.mono >= model.flush_at {
        model.flush_at = now.mono.saturating_add(model.settings.flush_interval);
        flush(model, records);
    }
}

/// Brings a model that was just loaded to the present, without anything counting as a change.
pub fn settle_after_load(model: &mut Model, now: Now) {
    for node in Arc::make_mut(&mut model.nodes) {
        let node = Arc::make_mut(node);
        // Routers boot in 1970: until the time is known, whose key had ended stays out.
        node.expired = has_ended(node, now) || node.expired && !now.is_plausible();
        if let Presence::Offline { since_mono, .. } = &mut node.presence {
            *since_mono = now.mono;
        }
    }
    model.touched = Arc::new(model.nodes.iter().map(|node| node.id).collect());
    policy::apply_stored(model);
    routes::settle(model);
    model.changed = false;
    Arc::make_mut(&mut model.changes).clear();
}

/// When [`tick`] has something to do next, on the monotonic clock.
pub fn next_deadline(model: &Model, now: Now) -> Duration {
    let mut next = now.mono.saturating_add(LOOK_AGAIN).min(model.flush_at);
    for node in model.nodes.iter() {
        let presence = match node.presence {
            Presence::Leaving { until, .. } => Some(until),
            Presence::Returning => Some(restart_grace_end(model)),
            Presence::Offline { since_mono, .. } if node.ephemeral => {
                Some(since_mono.saturating_add(model.settings.ephemeral_timeout))
            }
            Presence::New | Presence::Online(_) | Presence::Offline { .. } | Presence::Fixed => {
                None
            }
        };
        let expiry = node
            .expiry
            .filter(|_| !node.expired && now.is_plausible())
            .map(|end| now.mono.saturating_add(end.since(now.wall)));
        next = [presence, expiry]
            .into_iter()
            .flatten()
            .fold(next, Duration::min);
    }
    next
}

fn restart_grace_end(model: &Model) -> Duration {
    model
        .started
        .mono
        .saturating_add(model.settings.restart_grace)
}

fn has_ended(node: &Node, now: Now) -> bool {
    now.is_plausible() && node.expiry.is_some_and(|end| end <= now.wall)
}

/// The nodes for which something is due.
fn due(model: &Model, now: Now) -> Vec<NodeId> {
    let is_due = |node: &&Arc<Node>| {
        let presence = match node.presence {
            Presence::Leaving { until, .. } => until <= now.mono,
            Presence::Returning => restart_grace_end(model) <= now.mono,
            Presence::Offline { since_mono, .. } => {
                let end = since_mono.saturating_add(model.settings.ephemeral_timeout);
                node.ephemeral && end <= now.mono
            }
            Presence::New | Presence::Online(_) | Presence::Fixed => false,
        };
        presence || (!node.expired && has_ended(node, now))
    };
    model
        .nodes
        .iter()
        .filter(is_due)
        .map(|node| node.id)
        .collect()
}

fn pass(model: &mut Model, records: &mut Vec<Record>, id: NodeId, now: Now, how: Flush) {
    let Some(old) = model.node(id) else {
        return;
    };
    let mut node = (**old).clone();
    let gone_since = match node.presence {
        Presence::Leaving { until, since } if until <= now.mono => Some(since),
        Presence::Returning if restart_grace_end(model) <= now.mono => Some(model.started.wall),
        Presence::Offline { since_mono, .. } if node.ephemeral => {
            if since_mono.saturating_add(model.settings.ephemeral_timeout) <= now.mono {
                if how != Flush::Never {
                    node::remove(model, records, id);
                }
                return;
            }
            None
        }
        _ => None,
    };
    if let Some(since) = gone_since {
        node.presence = Presence::Offline {
            since,
            since_mono: now.mono,
        };
        node.facets.presence = model.revision;
        node.unflushed = true;
    }
    if !node.expired && has_ended(&node, now) {
        node.expired = true;
        node.unflushed = true;
        node.facets.core = model.revision;
        model.admission = model.revision;
    }
    model.put_node(node);
    model.note(Change::Node(id));
}

fn drop_old_logins(model: &mut Model, records: &mut Vec<Record>, now: Now) {
    if !now.is_plausible() {
        return;
    }
    let lifetime = model.settings.pending_lifetime;
    let old: Vec<AuthId> = model
        .pending
        .values()
        .filter(|login| now.wall.since(login.created) > lifetime)
        .map(|login| login.id.clone())
        .collect();
    for id in old {
        Arc::make_mut(&mut model.pending).remove(&id);
        records.push(Record::DeletePending(id));
        model.changed = true;
    }
}

fn flush(model: &mut Model, records: &mut Vec<Record>) {
    let unflushed: Vec<NodeId> = model
        .nodes
        .iter()
        .filter(|node| node.unflushed)
        .map(|node| node.id)
        .collect();
    for id in unflushed {
        if let Some(node) = model.node(id) {
            let node = Node {
                unflushed: false,
                ..(**node).clone()
            };
            model.put_node(node);
        }
        if let Some(node) = model.node(id) {
            records.push(Record::PutNode(Arc::clone(node)));
        }
    }
}
