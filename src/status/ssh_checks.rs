//! SSH check mode: connections that wait for approval in the browser, and approvals still in effect.
//!
//! An approval covers one source node, one target node and one user on the target. Approvals are kept in
//! memory only: after a restart of hearth each connection has to be approved again.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hearth_shares::pool::Sole;
use hearth_shares::{Entry, Lines, Pool};
use tokio::sync::watch;

use hearth_core::clock::{Now, Timestamp};
use hearth_core::id::{AuthId, NodeId};

/// Timeout for approval. Clients give up after 30 minutes (`fetchSSHAction` in
/// tailscale `ssh/tailssh/tailssh.go`).
pub const LIFETIME: Duration = Duration::from_secs(15 * 60);

/// Most connections to one target that wait for approval. Each holds a request on the control connection
/// of the target, which has few (`limits.http2_streams`).
const PER_TARGET: usize = 4;

/// Most approvals that are kept.
const APPROVALS: usize = 1024;

/// Longest check period. Source: `SSHCheckPeriodMax` in headscale `hscontrol/policy/v2/types.go`.
const LONGEST_PERIOD: Duration = Duration::from_secs(168 * 60 * 60);

/// Connections to one target that are logged: eight at once, then one a minute.
const LOGGED: (u32, Duration) = (8, Duration::from_secs(60));

/// Most targets that have a share of the log of their own; all others have one together.
const SHARES_MAX: usize = 256;

/// An SSH connection attempt: from which node, to which node, as which user.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SshAttempt {
    /// The source node.
    pub source: NodeId,
    /// The target node.
    pub target: NodeId,
    /// The user on the target.
    pub local_user: Box<str>,
}

/// State of an SSH check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Waiting for a decision.
    Waiting,
    /// Approved.
    Approved,
    /// Rejected or timed out.
    Rejected,
}

/// An SSH connection that waits for approval or was recently decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// ID of the check: the last part of its URL.
    pub id: AuthId,
    /// The connection attempt.
    pub attempt: SshAttempt,
    /// When the connection was attempted.
    pub since: Timestamp,
    /// The state.
    pub verdict: Verdict,
    /// When the check expires, on the monotonic clock.
    ends: Duration,
}

/// All SSH checks.
#[derive(Debug)]
pub struct SshChecks {
    state: Mutex<CheckState>,
    changed: watch::Sender<()>,
    log: Mutex<Lines<NodeId>>,
    most: usize,
}

#[derive(Debug, Default)]
struct CheckState {
    /// Oldest first.
    checks: Vec<Check>,
    /// When each attempt was last approved, on the monotonic clock.
    approvals: HashMap<SshAttempt, Duration>,
}

/// Why a check could not be decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Undecidable {
    /// There is no such check.
    #[error("no SSH connection with this ID is waiting for approval (expired?); connect again")]
    Unknown,
    /// The check was decided before.
    #[error("this SSH connection was already approved or rejected")]
    Decided,
}

impl SshChecks {
    /// No checks; at most `most` are kept, and the oldest of the target with the most is evicted when it is full.
    pub fn new(most: usize) -> Self {
        Self {
            state: Mutex::default(),
            changed: watch::Sender::default(),
            log: Mutex::new(Lines::new(LOGGED.0, LOGGED.1, SHARES_MAX)),
            most,
        }
    }

    /// Whether a connection to this target that waits for approval is logged; if so, the number of those that were not
    /// since the last one was.
    pub fn is_logged(&self, target: NodeId, now: Now) -> Option<u32> {
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.take(target, now.mono)
    }

    /// Whether this attempt was approved within the last `period`; never when `period` is zero.
    pub fn is_approved(&self, attempt: &SshAttempt, period: Duration, now: Now) -> bool {
        let state = self.lock();
        let approved = state.approvals.get(attempt);
        approved.is_some_and(|at| now.mono.saturating_sub(*at) < period)
    }

    /// Adds a check with this ID.
    pub fn begin(&self, id: AuthId, attempt: SshAttempt, now: Now) {
        let mut state = self.lock();
        state.forget(now);
        let to_target = |check: &Check| check.attempt.target == attempt.target;
        if state.checks.iter().filter(|check| to_target(check)).count() >= PER_TARGET {
            let oldest = state.checks.iter().position(to_target);
            oldest.map(|index| state.checks.remove(index));
        }
        if let Some(index) = state.gives_way(attempt.target, self.most) {
            state.checks.remove(index);
        }
        state.checks.push(Check {
            id,
            attempt,
            since: now.wall,
            verdict: Verdict::Waiting,
            ends: now.mono.saturating_add(LIFETIME),
        });
        drop(state);
        // Wakes the waiter of an evicted check, which can no longer be decided.
        self.changed.send_replace(());
    }

    /// The check with this ID.
    pub fn find(&self, id: &AuthId, now: Now) -> Option<Check> {
        let mut state = self.lock();
        state.forget(now);
        state.checks.iter().find(|check| check.id == *id).cloned()
    }

    /// All checks that wait or were recently decided, oldest first.
    pub fn list(&self, now: Now) -> Vec<Check> {
        let mut state = self.lock();
        state.forget(now);
        state.checks.clone()
    }

    /// Waits until a check is decided or expires. Cancel safe.
    pub async fn decided(&self, id: &AuthId, now: impl Fn() -> Now) -> Verdict {
        let mut changed = self.changed.subscribe();
        loop {
            changed.borrow_and_update();
            let Some(check) = self.find(id, now()) else {
                return Verdict::Rejected;
            };
            if check.verdict != Verdict::Waiting {
                return check.verdict;
            }
            let left = check.ends.saturating_sub(now().mono);
            // Checks again after a decision and after the timeout.
            let _ = tokio::time::timeout(left, changed.changed()).await;
        }
    }

    /// Approves or rejects a check.
    ///
    /// # Errors
    /// When the check is not waiting any more.
    pub fn decide(&self, id: &AuthId, approve: bool, now: Now) -> Result<SshAttempt, Undecidable> {
        let mut state = self.lock();
        state.forget(now);
        let check = state.checks.iter_mut().find(|check| check.id == *id);
        let check = check.ok_or(Undecidable::Unknown)?;
        if check.verdict != Verdict::Waiting {
            return Err(Undecidable::Decided);
        }
        let attempt = check.attempt.clone();
        check.verdict = match approve {
            true => Verdict::Approved,
            false => Verdict::Rejected,
        };
        if approve {
            state.remember(attempt.clone(), now);
        } else {
            state.approvals.remove(&attempt);
        }
        drop(state);
        self.changed.send_replace(());
        Ok(attempt)
    }

    /// Drops checks and approvals of deleted nodes.
    pub fn retain(&self, exists: impl Fn(NodeId) -> bool) {
        let mut state = self.lock();
        let is_there = |attempt: &SshAttempt| exists(attempt.source) && exists(attempt.target);
        state.checks.retain(|check| is_there(&check.attempt));
        state.approvals.retain(|attempt, _| is_there(attempt));
        drop(state);
        self.changed.send_replace(());
    }

    fn lock(&self) -> MutexGuard<'_, CheckState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CheckState {
    /// The check that is evicted for one more of this target, if there are `most`: the oldest of the target with the most.
    fn gives_way(&self, target: NodeId, most: usize) -> Option<usize> {
        let mut pool = Pool::new(most);
        let targets = self.checks.iter().map(|check| check.attempt.target);
        let all = targets.chain([target]).zip(0..);
        let surplus =
            all.filter_map(|(target, number)| pool.enter_as(Entry::numbered(number), Sole(target)));
        let index = surplus.last()?.number();
        usize::try_from(index).ok()
    }

    fn forget(&mut self, now: Now) {
        self.checks.retain(|check| now.mono < check.ends);
    }

    fn remember(&mut self, attempt: SshAttempt, now: Now) {
        let counts = |at: &Duration| now.mono.saturating_sub(*at) < LONGEST_PERIOD;
        self.approvals.retain(|_, at| counts(at));
        if self.approvals.len() >= APPROVALS && !self.approvals.contains_key(&attempt) {
            let oldest = self.approvals.iter().min_by_key(|(_, at)| **at);
            let oldest = oldest.map(|(attempt, _)| attempt.clone());
            oldest.map(|attempt| self.approvals.remove(&attempt));
        }
        self.approvals.insert(attempt, now.mono);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hearth_core::state::secret::new_auth_id;

    fn at(seconds: u64) -> Now {
        Now {
            wall: Timestamp::from_unix_ms(0),
            mono: Duration::from_secs(seconds),
        }
    }

    fn attempt(source: u64, target: u64, user: &str) -> SshAttempt {
        SshAttempt {
            source: NodeId::new(source).unwrap(),
            target: NodeId::new(target).unwrap(),
            local_user: user.into(),
        }
    }

    fn begin(checks: &SshChecks, attempt: &SshAttempt, now: Now) -> AuthId {
        let id = new_auth_id().unwrap();
        checks.begin(id.clone(), attempt.clone(), now);
        id
    }

    #[test]
    fn the_connections_to_a_target_are_logged_eight_at_once_and_then_counted() {
        let checks = SshChecks::new(10);
        let [one, two] = [1, 2].map(|id| NodeId::new(id).unwrap());
        let logged = |target, seconds| checks.is_logged(target, at(seconds));
        for _ in 0..8 {
            assert_eq!(logged(one, 0), Some(0));
        }
        for _ in 0..100 {
            assert_eq!(logged(one, 1), None);
        }
        // Another target has lines of its own; the first of any says how many were left out.
        assert_eq!(logged(two, 1), Some(100));
        assert_eq!(logged(one, 61), Some(0));
        assert_eq!(logged(one, 61), None);
    }

    #[test]
    fn an_approval_covers_its_period_and_its_attempt_only() {
        let checks = SshChecks::new(10);
        let root = attempt(1, 2, "root");
        let id = begin(&checks, &root, at(0));
        assert_eq!(checks.decide(&id, true, at(10)), Ok(root.clone()));
        assert_eq!(checks.decide(&id, true, at(10)), Err(Undecidable::Decided));
        let period = Duration::from_secs(100);
        assert!(checks.is_approved(&root, period, at(109)));
        assert!(!checks.is_approved(&root, period, at(110)));
        assert!(!checks.is_approved(&root, Duration::ZERO, at(10)));
        for other in [
            attempt(1, 2, "anna"),
            attempt(2, 1, "root"),
            attempt(3, 2, "root"),
        ] {
            assert!(!checks.is_approved(&other, period, at(20)));
        }
        let again = begin(&checks, &root, at(20));
        checks.decide(&again, false, at(20)).unwrap();
        assert!(!checks.is_approved(&root, period, at(20)));
    }

    #[test]
    fn connections_are_bounded_and_end() {
        let checks = SshChecks::new(10);
        let quiet = begin(&checks, &attempt(1, 9, "root"), at(0));
        for _ in 0..100 {
            begin(&checks, &attempt(1, 2, "root"), at(1));
        }
        assert_eq!(checks.list(at(1)).len(), PER_TARGET + 1);
        assert!(checks.find(&quiet, at(1)).is_some());
        assert!(checks.find(&quiet, at(LIFETIME.as_secs())).is_none());
        let gone = checks.decide(&quiet, true, at(LIFETIME.as_secs()));
        assert_eq!(gone, Err(Undecidable::Unknown));
    }

    #[test]
    fn a_target_with_many_connections_pushes_out_its_own() {
        let checks = SshChecks::new(6);
        let quiet = begin(&checks, &attempt(1, 9, "root"), at(0));
        for target in [2, 3, 2, 3, 2, 3, 2, 3] {
            begin(&checks, &attempt(1, target, "root"), at(1));
        }
        assert_eq!(checks.list(at(1)).len(), 6);
        assert!(checks.find(&quiet, at(1)).is_some());
    }

    #[tokio::test]
    async fn a_waiting_connection_gets_the_decision() {
        let checks = SshChecks::new(10);
        for (approve, expected) in [(true, Verdict::Approved), (false, Verdict::Rejected)] {
            let id = begin(&checks, &attempt(1, 2, "root"), at(0));
            let decide = async { checks.decide(&id, approve, at(0)).unwrap() };
            let (verdict, _) = tokio::join!(checks.decided(&id, || at(0)), decide);
            assert_eq!(verdict, expected);
        }
        let id = begin(&checks, &attempt(1, 2, "root"), at(0));
        let push_out = async {
            for _ in 0..PER_TARGET {
                begin(&checks, &attempt(3, 2, "root"), at(0));
            }
        };
        let (verdict, ()) = tokio::join!(checks.decided(&id, || at(0)), push_out);
        assert_eq!(verdict, Verdict::Rejected);
        let id = begin(&checks, &attempt(1, 2, "root"), at(0));
        let gone = async { checks.retain(|_| false) };
        let (verdict, ()) = tokio::join!(checks.decided(&id, || at(0)), gone);
        assert_eq!(verdict, Verdict::Rejected);
    }
}
