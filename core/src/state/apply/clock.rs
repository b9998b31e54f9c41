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

/// Whether the clock was set since the last tick.
pub fn was_set(model: &Model, now: Now) -> bool {
    step(model, now) != 0
}

/// By how many milliseconds the clock was set, forward or back; zero if it was not.
fn step(model: &Model, now: Now) -> i64 {
    let moved = now.offset_ms().saturating_sub(model.clock_offset);
    match Duration::from_millis(moved.unsigned_abs()) < STEP {
        true => 0,
        false => moved,
    }
}

/// Moves what was reckoned from a clock that was set since.
pub(super) fn follow(tx: &mut Tx<'_>) {
    let now = tx.now();
    let step = step(tx, now);
    tx.clock_seen();
    // A clock that is reset to 1970 knows less than before.
    if step > 0 || step < 0 && now.is_plausible() {
        shift(tx, step);
    }
    if now.is_plausible() {
        renew(tx);
        if now.mono.saturating_sub(tx.started.mono) > PROVEN_AFTER {
            tx.take_unproven();
        }
    }
}

fn shift(tx: &mut Tx<'_>, step: i64) {
    let Unproven {
        nodes,
        preauth_keys,
        api_keys,
    } = tx.take_unproven();
    let before = tx.now().wall.moved(step.saturating_neg());
    // What a person named as a date is no span of time.
    let moved = |at: Timestamp| match at.is_plausible() == before.is_plausible() {
        true => at.moved(step),
        false => at,
    };
    for id in nodes {
        if let Some(node) = tx.node(id).cloned() {
            key_expiry::put(tx, (*node).clone(), node.expiry.map(moved));
        }
    }
    for id in preauth_keys {
        if let Some(key) = tx.preauth_keys.get(&id).cloned() {
            tx.put_preauth_key(PreAuthKey {
                expiry: key.expiry.map(moved),
                created: moved(key.created),
                ..(*key).clone()
            });
        }
    }
    for id in api_keys {
        if let Some(key) = tx.api_keys.get(&id).cloned() {
            tx.put_api_key(ApiKey {
                expiry: key.expiry.map(moved),
                created: moved(key.created),
                ..(*key).clone()
            });
        }
    }
    for pending in tx.pending.clone().values() {
        tx.put_pending(PendingRegistration {
            created: moved(pending.created),
            ..(**pending).clone()
        });
    }
}

/// Reckons again what an earlier run reckoned in 1970. What ended by hand then stays so.
fn renew(tx: &mut Tx<'_>) {
    let now = tx.now();
    let is_old = |at: Timestamp| at < CLOCKLESS_BEFORE;
    for node in tx.nodes.clone().iter() {
        let ends = !node.expired && node.expiry.is_some_and(is_old);
        if !ends && !is_old(node.created) {
            continue;
        }
        let expiry = match ends {
            true => admit::expiry_for(tx, &node.owner, None, now),
            false => node.expiry,
        };
        let created = match is_old(node.created) {
            true => now.wall,
            false => node.created,
        };
        let node = Node {
            created,
            ..(**node).clone()
        };
        key_expiry::put(tx, node, expiry);
    }
    let renewed = |created: Timestamp, expiry: Option<Timestamp>| {
        let life = expiry.filter(|end| is_old(*end))?.since(created);
        (!life.is_zero()).then(|| (now.wall, Some(now.wall.plus(life))))
    };
    for key in tx.preauth_keys.clone().values() {
        if let Some((created, expiry)) = renewed(key.created, key.expiry) {
            tx.put_preauth_key(PreAuthKey {
                created,
                expiry,
                ..(**key).clone()
            });
        }
    }
    for key in tx.api_keys.clone().values() {
        if let Some((created, expiry)) = renewed(key.created, key.expiry) {
            tx.put_api_key(ApiKey {
                created,
                expiry,
                ..(**key).clone()
            });
        }
    }
}
