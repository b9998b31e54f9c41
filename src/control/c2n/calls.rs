//! Questions to nodes that wait for an answer, each under a name that nobody can guess.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use data_encoding::HEXLOWER;
use tokio::sync::mpsc;

use crate::control::c2n::NodeCallError;
use hearth_core::keys::MachineKey;
use hearth_core::state::secret::random;

/// How an answer comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplyChannel {
    /// Through the Noise tunnel of this machine.
    Noise(MachineKey),
    /// By plain HTTP from anywhere; the name of the call is the proof.
    Plain,
}

/// All calls that wait.
pub struct PendingCalls {
    waiting: Mutex<HashMap<String, Waiting>>,
    most: usize,
}

struct Waiting {
    way: ReplyChannel,
    answers: mpsc::Sender<Bytes>,
    answer_bytes: usize,
}

// Who knows the name of a call may answer it.
hearth_core::redacted!(PendingCalls, Call);

/// Too many calls wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{most} questions to nodes wait already (limits.node_calls); try again in a moment")]
pub struct TooManyCalls {
    most: usize,
}

impl PendingCalls {
    /// No call; at most `most` will wait.
    pub fn new(most: usize) -> Self {
        Self {
            waiting: Mutex::default(),
            most,
        }
    }

    /// Begins to wait for so many answers of at most `answer_bytes` each.
    ///
    /// # Errors
    /// When too many calls wait, or the system gives no random bytes.
    pub fn begin(
        self: &Arc<Self>,
        way: ReplyChannel,
        answers: usize,
        answer_bytes: usize,
    ) -> Result<Call, NodeCallError> {
        let name = HEXLOWER.encode(&random::<16>()?);
        let (sender, answers) = mpsc::channel(answers.max(1));
        let mut waiting = self.lock();
        if waiting.len() >= self.most {
            return Err(TooManyCalls { most: self.most }.into());
        }
        waiting.insert(
            name.clone(),
            Waiting {
                way,
                answers: sender,
                answer_bytes,
            },
        );
        drop(waiting);
        Ok(Call {
            calls: Arc::clone(self),
            name,
            answers,
        })
    }

    /// A place for an answer, to be had before the answer is read, so that no more are read than are
    /// waited for; `None` when nobody waits for an answer that comes this way.
    pub fn claim(&self, name: &str, way: ReplyChannel) -> Option<Claim> {
        let waiting = self.lock();
        let call = waiting.get(name).filter(|call| call.way == way)?;
        let place = call.answers.clone().try_reserve_owned().ok()?;
        Some(Claim {
            place,
            answer_bytes: call.answer_bytes,
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place for one answer; free again when it is dropped.
#[derive(Debug)]
pub struct Claim {
    place: mpsc::OwnedPermit<Bytes>,
    answer_bytes: usize,
}

impl Claim {
    /// The longest answer, in bytes.
    pub fn answer_bytes(&self) -> usize {
        self.answer_bytes
    }

    /// Gives the answer, and says whether somebody still waits for it.
    pub fn give(self, answer: Bytes) -> bool {
        !self.place.send(answer).is_closed()
    }
}

/// A call that waits until it is dropped.
pub struct Call {
    calls: Arc<PendingCalls>,
    name: String,
    answers: mpsc::Receiver<Bytes>,
}

impl Call {
    /// The name by which it is answered.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The next answer. Waits for ever when none comes. Cancel safe.
    pub async fn next(&mut self) -> Bytes {
        match self.answers.recv().await {
            Some(answer) => answer,
            // The sender lives as long as the call does.
            None => std::future::pending().await,
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.calls.lock().remove(&self.name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(number: u8) -> ReplyChannel {
        ReplyChannel::Noise(MachineKey::from_bytes([number; 32]))
    }

    /// Whether an answer was taken.
    fn answer(calls: &PendingCalls, name: &str, way: ReplyChannel) -> bool {
        let claim = calls.claim(name, way);
        claim.is_some_and(|claim| claim.give(Bytes::from_static(b"yes")))
    }

    #[tokio::test]
    async fn only_the_machine_that_was_asked_may_answer() {
        let calls = Arc::new(PendingCalls::new(2));
        let mut call = calls.begin(machine(1), 1, 10).unwrap();
        for way in [machine(2), ReplyChannel::Plain] {
            assert!(!answer(&calls, call.name(), way));
        }
        assert!(!answer(&calls, "another", machine(1)));
        assert!(answer(&calls, call.name(), machine(1)));
        assert_eq!(call.next().await, "yes");
    }

    #[test]
    fn no_more_answers_are_read_than_are_waited_for() {
        let calls = Arc::new(PendingCalls::new(2));
        let call = calls.begin(ReplyChannel::Plain, 2, 10).unwrap();
        let first = calls.claim(call.name(), ReplyChannel::Plain).unwrap();
        assert_eq!(first.answer_bytes(), 10);
        let second = calls.claim(call.name(), ReplyChannel::Plain);
        assert!(second.is_some());
        assert!(calls.claim(call.name(), ReplyChannel::Plain).is_none());
        // One that breaks off leaves its place to another try.
        drop(second);
        assert!(answer(&calls, call.name(), ReplyChannel::Plain));
        assert!(!answer(&calls, call.name(), ReplyChannel::Plain));
        drop(call);
        assert!(!first.give(Bytes::new()));
    }

    #[test]
    fn calls_are_bounded_and_leave_nothing_behind() {
        let calls = Arc::new(PendingCalls::new(2));
        let first = calls.begin(ReplyChannel::Plain, 1, 10).unwrap();
        let second = calls.begin(ReplyChannel::Plain, 1, 10).unwrap();
        assert_ne!(first.name(), second.name());
        let third = calls.begin(ReplyChannel::Plain, 1, 10).unwrap_err();
        assert_eq!(third, TooManyCalls { most: 2 }.into());
        drop((first, second));
        assert!(calls.lock().is_empty());
    }
}
