//! A clock that is set while hearth runs, or between two runs: ends that were made from a span of time move along.
//!
//! Routers without a battery start in 1970, or weeks ago, until a time server answers, and some show a year to come. A
//! key that is to live for an hour lives for an hour all the same; a date that somebody named stays that date.

use std::time::Duration;

use crate::clock::{CLOCKLESS_BEFORE, End, Now, Timestamp};
use crate::state::apply::key_expiry;
use crate::state::model::{
    ApiKey, ClockSeen, Ending, Model, Node, PendingRegistration, PreAuthKey, Presence, Span,
};
use crate::state::tx::Tx;

/// By how much a clock moves that is set, and not just corrected.
const STEP: Duration = Duration::from_secs(600);
/// How long a clock must go on unchanged to be trusted more than the one that made an end in times to come: a router is
/// seldom without internet for so long.
const PROVEN_AFTER: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Whether the clock was set since ends were last made to follow it, or has proven right since.
pub fn was_set(model: &Model, now: Now) -> bool {
    match model.clock {
        None => true,
        Some(seen) => is_set(seen, now) || !seen.proven && is_proven(seen, now),
    }
}

fn is_set(seen: ClockSeen, now: Now) -> bool {
    seen.plausible != now.is_plausible() || is_step(now.offset_ms().saturating_sub(seen.offset))
}

fn is_step(ms: i64) -> bool {
    Duration::from_millis(ms.unsigned_abs()) >= STEP
}

fn is_proven(seen: ClockSeen, now: Now) -> bool {
    now.is_plausible() && now.mono.saturating_sub(seen.since) > PROVEN_AFTER
}

/// Moves what was made by a clock that was set since.
pub(super) fn follow(tx: &mut Tx<'_>) {
    let now = tx.now();
    if !was_set(tx, now) {
        return;
    }
    let seen = match tx.clock {
        Some(seen) if !is_set(seen, now) => ClockSeen {
            proven: true,
            ..seen
        },
        _ => ClockSeen {
            offset: now.offset_ms(),
            plausible: now.is_plausible(),
            since: now.mono,
            proven: false,
        },
    };
    tx.clock_seen(seen);
    // A clock that is reset to 1970 knows less than before.
    if now.is_plausible() {
        follow_nodes(tx);
        follow_preauth_keys(tx);
        follow_api_keys(tx);
    }
    follow_pending(tx);
}

fn follow_nodes(tx: &mut Tx<'_>) {
    let now = tx.now();
    for node in tx.nodes.clone().iter() {
        let (expiry, ending) = moved(tx, node.expiry, node.ending);
        let created = first_known(node.created, now);
        let presence = last_seen(node.presence, now);
        let is_over = ending.is_over(expiry, now);
        let revives = node.expired && !is_over;
        let is_same = (node.expiry, node.ending, node.created, node.presence)
            == (expiry, ending, created, presence);
        if is_same && !revives {
            continue;
        }
        if revives {
            key_expiry::event(tx, node, expiry);
        }
        tx.put_whole_node(Node {
            expiry,
            ending,
            created,
            presence,
            // Its time comes with the events of an expiry.
            expired: node.expired && is_over,
            ..(**node).clone()
        });
    }
}

fn follow_preauth_keys(tx: &mut Tx<'_>) {
    for key in tx.preauth_keys.clone().values() {
        let (expiry, ending) = moved(tx, key.expiry, key.ending);
        let created = made(key.created, expiry, ending, tx.now());
        if (key.expiry, key.ending, key.created) != (expiry, ending, created) {
            tx.put_preauth_key(PreAuthKey {
                expiry,
                ending,
                created,
                ..(**key).clone()
            });
        }
    }
}

fn follow_api_keys(tx: &mut Tx<'_>) {
    for key in tx.api_keys.clone().values() {
        let (expiry, ending) = moved(tx, key.expiry, key.ending);
        let created = made(key.created, expiry, ending, tx.now());
        if (key.expiry, key.ending, key.created) != (expiry, ending, created) {
            tx.put_api_key(ApiKey {
                expiry,
                ending,
                created,
                ..(**key).clone()
            });
        }
    }
}

fn follow_pending(tx: &mut Tx<'_>) {
    let now = tx.now();
    for pending in tx.pending.clone().values() {
        let created = ago(now.mono.saturating_sub(pending.asked), now);
        if is_step(created.unix_ms().saturating_sub(pending.created.unix_ms())) {
            tx.put_pending(PendingRegistration {
                created,
                ..(**pending).clone()
            });
        }
    }
}

/// An end as the clock of now makes it.
fn moved(tx: &Tx<'_>, end: Option<Timestamp>, ending: Ending) -> (Option<Timestamp>, Ending) {
    let now = tx.now();
    match (end, ending) {
        (None, _) | (_, Ending::Date) => (end, ending),
        // What is over did not end in a time to come.
        (Some(at), Ending::Hand) => (Some(first_known(at, now).min(now.wall)), ending),
        (Some(at), Ending::Span(span)) => moved_span(tx, at, span),
    }
}

fn moved_span(tx: &Tx<'_>, at: Timestamp, span: Span) -> (Option<Timestamp>, Ending) {
    let here = tx.span(span.life);
    // Between two runs of the system nobody knows how much time has passed.
    let by = match span.boot == here.boot {
        true => here.boot_ms.saturating_sub(span.boot_ms),
        false => 0,
    };
    let end = at.moved(by).min(Timestamp::LAST);
    let begin = span.begin(end);
    let is_trusted = tx.clock.is_some_and(|seen| seen.proven);
    let is_ahead = is_trusted && begin > tx.now().wall.plus(STEP);
    if !begin.is_plausible() || is_ahead {
        return tx.end(End::In(span.life));
    }
    match is_step(by) {
        true => (Some(end), Ending::Span(here)),
        false => (Some(at), Ending::Span(span)),
    }
}

/// When a key was made.
fn made(created: Timestamp, end: Option<Timestamp>, ending: Ending, now: Now) -> Timestamp {
    match (end, ending) {
        (Some(end), Ending::Span(span)) => span.begin(end),
        _ => first_known(created, now),
    }
}

/// When a node was last online, if a clock that was not set showed another time.
fn last_seen(presence: Presence, now: Now) -> Presence {
    match presence {
        Presence::Offline { since, since_mono } if since < CLOCKLESS_BEFORE => Presence::Offline {
            since: ago(now.mono.saturating_sub(since_mono), now),
            since_mono,
        },
        Presence::Leaving { until, since } => Presence::Leaving {
            until,
            since: first_known(since, now),
        },
        other => other,
    }
}

/// What the clock of now would have shown so long ago.
fn ago(time: Duration, now: Now) -> Timestamp {
    let ms = i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
    now.wall.moved(ms.saturating_neg())
}

/// A time, or now if a clock that was not set showed it.
fn first_known(at: Timestamp, now: Now) -> Timestamp {
    match at < CLOCKLESS_BEFORE {
        true => now.wall,
        false => at,
    }
}
