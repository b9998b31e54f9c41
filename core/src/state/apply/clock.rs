//! A clock that is set while hearth runs: what was reckoned from the wrong time moves along.
//!
//! Routers without a battery start in 1970, or weeks ago, until a time server answers. A key that is to live for an hour
//! lives for an hour all the same.

use std::time::Duration;

use crate::clock::{CLOCKLESS_BEFORE, Now, Timestamp};
use crate::state::apply::{admit, key_expiry};
use crate::state::model::{ApiKey, Model, Node, PendingRegistration, PreAuthKey, Unproven};
use crate::state::tx::{PROVEN_AFTER, Tx};

/// By how much a clock moves at once that was set. One that is corrected while it runs moves in smaller steps.
const STEP: Duration = Duration::from_secs(600);

/// Whether the clock was set forward since the last tick.
pub fn was_set(model: &Model, now: Now) -> bool {
    !step(model, now).is_zero()
}

fn step(model: &Model, now: Now) -> Duration {
    let moved = now.offset_ms().saturating_sub(model.clock_offset);
    let moved = Duration::from_millis(u64::try_from(moved).unwrap_or(0));
    if moved < STEP { Duration::ZERO } else { moved }
}

/// Moves what was reckoned from a clock that was set since.
pub(super) fn follow(tx: &mut Tx<'_>) {
    let now = tx.now();
    let step = step(tx, now);
    tx.clock_seen();
    if !step.is_zero() {
        shift(tx, step);
    }
    if now.is_plausible() {
        renew(tx);
        if now.mono.saturating_sub(tx.started.mono) > PROVEN_AFTER {
            tx.take_unproven();
        }
    }
}

fn shift(tx: &mut Tx<'_>, step: Duration) {
    let Unproven {
        nodes,
        preauth_keys,
        api_keys,
    } = tx.take_unproven();
    for id in nodes {
        if let Some(node) = tx.node(id).cloned() {
            let at = node.expiry.map(|at| at.plus(step));
            key_expiry::put(tx, (*node).clone(), at);
        }
    }
    for id in preauth_keys {
        if let Some(key) = tx.preauth_keys.get(&id).cloned() {
            tx.put_preauth_key(PreAuthKey {
                expiry: key.expiry.map(|at| at.plus(step)),
                created: key.created.plus(step),
                ..(*key).clone()
            });
        }
    }
    for id in api_keys {
        if let Some(key) = tx.api_keys.get(&id).cloned() {
            tx.put_api_key(ApiKey {
                expiry: key.expiry.map(|at| at.plus(step)),
                created: key.created.plus(step),
                ..(*key).clone()
            });
        }
    }
    for pending in tx.pending.clone().values() {
        tx.put_pending(PendingRegistration {
            created: pending.created.plus(step),
            ..(**pending).clone()
        });
    }
}

/// Reckons anew what was reckoned in 1970, by this run or an earlier one. What ended by hand then stays so.
fn renew(tx: &mut Tx<'_>) {
    let now = tx.now();
    let is_old = |at: Option<Timestamp>| at.is_some_and(|at| at < CLOCKLESS_BEFORE);
    for node in tx.nodes.clone().iter() {
        let ends = !node.expired && is_old(node.expiry);
        if !ends && !is_old(Some(node.created)) {
            continue;
        }
        let expiry = match ends {
            true => admit::expiry_for(tx, &node.owner, None, now),
            false => node.expiry,
        };
        let node = Node {
            created: node.created.max(now.wall),
            ..(**node).clone()
        };
        key_expiry::put(tx, node, expiry);
    }
    let moved = |created: Timestamp, expiry: Option<Timestamp>| {
        let life = expiry.map(|end| end.since(created));
        (is_old(expiry) && life.is_some_and(|life| !life.is_zero()))
            .then(|| life.map(|life| now.wall.plus(life)))
    };
    for key in tx.preauth_keys.clone().values() {
        if let Some(expiry) = moved(key.created, key.expiry) {
            let created = now.wall;
            let key = (**key).clone();
            tx.put_preauth_key(PreAuthKey {
                expiry,
                created,
                ..key
            });
        }
    }
    for key in tx.api_keys.clone().values() {
        if let Some(expiry) = moved(key.created, key.expiry) {
            let created = now.wall;
            let key = (**key).clone();
            tx.put_api_key(ApiKey {
                expiry,
                created,
                ..key
            });
        }
    }
}
