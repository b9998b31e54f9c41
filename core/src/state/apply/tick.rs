//! What happens because time passes: nodes go offline, keys expire, ephemeral nodes and pending registrations are
//! removed, soft state is flushed.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Now;
use crate::id::NodeId;
use crate::state::addr::Cursors;
use crate::state::apply::{clock, key_expiry, policy, routes};
use crate::state::event::{Action, Target, Values};
use crate::state::model::{Model, Node, PendingRegistration, PendingState, Presence};
use crate::state::name;
use crate::state::principal::Principal;
use crate::state::tx::{Touched, Tx};

/// Longest time between two looks at the wall clock, which may jump.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// Whether soft state is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flush {
    /// Each flush interval.
    WhenDue,
    /// Now, because hearth shuts down.
    Now,
    /// Not at all, and nothing else either: the database cannot be written.
    Never,
}

/// Does all that is due, and recompiles what follows from the commands before.
pub fn tick(tx: &mut Tx<'_>, how: Flush) {
    tx.act_as(&Principal::System);
    if how != Flush::Never {
        clock::follow(tx);
    }
    for id in due_nodes(tx, tx.now()) {
        advance_node(tx, id, how);
    }
    routes::recompile(tx);
    drop_expired_registrations(tx);
    if how == Flush::Never {
        return;
    }
    if how == Flush::Now || tx.is_flush_due() {
        tx.flush_nodes();
    }
}

/// Brings a model that was just loaded to the present, without anything counting as a change.
pub fn restore(model: &mut Model, now: Now) {
    for node in Arc::make_mut(&mut model.nodes) {
        let node = Arc::make_mut(node);
        // Routers boot in 1970: until the time is known, a key that had expired stays expired.
        node.expired = key_expiry::has_passed(node, now) || node.expired && !now.is_plausible();
        match &mut node.presence {
            Presence::Offline { since_mono, .. } => *since_mono = now.mono,
            // It may have come since it was written.
            presence @ Presence::New { .. } => *presence = Presence::Returning,
            _ => {}
        }
    }
    repair_labels(model);
    if model.cursors.is_empty() {
        let mut cursors = Cursors::default();
        for node in model.nodes.iter() {
            cursors.pass(&model.settings.prefixes, node.ipv4, node.ipv6);
        }
        model.cursors = Arc::new(cursors);
    }
    model.touched = Arc::new(model.nodes.iter().map(|node| node.id).collect());
    let mut tx = Tx::resume(model, now);
    policy::apply_stored(&mut tx);
    routes::recompile(&mut tx);
    model.changed = false;
    Arc::make_mut(&mut model.changes).clear();
}

/// Gives each node a label of its own. A label that follows the hostname may be written later than that of a node which has
/// taken the one before it.
fn repair_labels(model: &mut Model) {
    let chosen = model.nodes.iter().filter(|node| node.label_chosen);
    let mut taken: HashSet<Box<str>> = chosen.map(|node| node.label.clone()).collect();
    for node in Arc::make_mut(&mut model.nodes) {
        if node.label_chosen || taken.insert(node.label.clone()) {
            continue;
        }
        let label: Box<str> = name::unique(&node.label, |label| taken.contains(label)).into();
        taken.insert(label.clone());
        let node = Arc::make_mut(node);
        node.label = label;
        node.unflushed = true;
    }
}

/// When [`tick`] has something to do next, on the monotonic clock. What [`Flush::Never`] leaves undone does not count with it.
pub fn next_deadline(model: &Model, now: Now, how: Flush) -> Duration {
    let writes = how != Flush::Never;
    let mut next = now.mono.saturating_add(LOOK_AGAIN);
    if writes {
        next = next.min(model.flush_at);
    }
    for node in model.nodes.iter() {
        let presence = match node.presence {
            Presence::Leaving { until, .. } => Some(until),
            Presence::Returning => Some(restart_grace_end(model)),
            Presence::Offline { since_mono, .. } | Presence::New { since_mono }
                if node.ephemeral && writes =>
            {
                Some(since_mono.saturating_add(model.settings.ephemeral_timeout))
            }
            Presence::New { .. }
            | Presence::Online(_)
            | Presence::Offline { .. }
            | Presence::Fixed => None,
        };
        let expiry = node
            .ending
            .known(node.expiry)
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

/// The nodes for which something is due.
fn due_nodes(model: &Model, now: Now) -> Vec<NodeId> {
    let is_due = |node: &&Arc<Node>| {
        let presence = match node.presence {
            Presence::Leaving { until, .. } => until <= now.mono,
            Presence::Returning => restart_grace_end(model) <= now.mono,
            Presence::Offline { .. } | Presence::New { .. } => is_ephemeral_gone(model, node, now),
            Presence::Online(_) | Presence::Fixed => false,
        };
        presence || key_expiry::is_due(node, now)
    };
    model
        .nodes
        .iter()
        .filter(is_due)
        .map(|node| node.id)
        .collect()
}

/// Whether a node is ephemeral and has been offline for too long, or has not come since it registered.
fn is_ephemeral_gone(model: &Model, node: &Node, now: Now) -> bool {
    let (Presence::Offline { since_mono, .. } | Presence::New { since_mono }) = node.presence
    else {
        return false;
    };
    let end = since_mono.saturating_add(model.settings.ephemeral_timeout);
    node.ephemeral && end <= now.mono
}

/// Does what is due for a node.
fn advance_node(tx: &mut Tx<'_>, id: NodeId, how: Flush) {
    let now = tx.now();
    let Some(node) = tx.node(id).cloned() else {
        return;
    };
    if is_ephemeral_gone(tx, &node, now) {
        if how != Flush::Never {
            let values = Values::made("", "ephemeral node was offline for too long");
            tx.event(Action::Delete, Target::node(&node), values);
            tx.remove_node(id);
        }
        return;
    }
    let gone_since = match node.presence {
        Presence::Leaving { until, since } if until <= now.mono => Some(since),
        Presence::Returning if restart_grace_end(tx) <= now.mono => Some(tx.started.wall),
        _ => None,
    };
    if let Some(since) = gone_since {
        let gone = Node {
            presence: Presence::Offline {
                since,
                since_mono: now.mono,
            },
            ..(*node).clone()
        };
        let touched = Touched {
            presence: true,
            soft: true,
            ..Touched::default()
        };
        tx.put_node(gone, touched);
    }
    if key_expiry::is_due(&node, now) {
        key_expiry::expire(tx, id, how != Flush::Never);
    }
}

fn drop_expired_registrations(tx: &mut Tx<'_>) {
    let now = tx.now();
    let lifetime = tx.settings.pending_lifetime;
    let is_old =
        |pending: &&Arc<PendingRegistration>| now.mono.saturating_sub(pending.asked) > lifetime;
    let old: Vec<Arc<PendingRegistration>> = tx.pending.values().filter(is_old).cloned().collect();
    for pending in old {
        if pending.state == PendingState::Waiting {
            tx.event_of_stranger(Action::Expire, &pending);
        }
        tx.remove_pending(&pending.id);
    }
}
