//! Pending calls: requests to nodes that wait for a reply, each under an unguessable name.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use data_encoding::HEXLOWER;
use tokio::sync::mpsc;

use crate::control::c2n::NodeCallError;
use hearth_core::keys::MachineKey;
use hearth_core::state::secret::random;

/// Channel of a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplyChannel {
    /// Inside the Noise session of this machine.
    Noise(MachineKey),
    /// Plain HTTP from anywhere; the name of the call is the proof.
    Plain,
}

/// All pending calls.
pub struct PendingCalls {
    waiting: Mutex<HashMap<String, ExpectedReplies>>,
    most: usize,
}

struct ExpectedReplies {
    channel: ReplyChannel,
    answers: mpsc::Sender<Bytes>,
    answer_bytes: usize,
}

// Who knows the name of a call may answer it.
hearth_core::redacted!(PendingCalls, NodeCall);

/// The limit of pending calls was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "too many requests to nodes are pending ({most}, limits.node_calls); try again in a moment"
)]
pub struct TooManyCalls {
    most: usize,
}

impl PendingCalls {
    /// No calls; at most `most` can be pending.
    pub fn new(most: usize) -> Self {
        Self {
            waiting: Mutex::default(),
            most,
        }
    }

    /// Adds a call that waits for `answers` replies of at most `answer_bytes` each.
    ///
    /// # Errors
    /// When too many calls are pending, or the system has no random bytes.
    pub fn begin(
        self: &Arc<Self>,
        channel: ReplyChannel,
        answers: usize,
        answer_bytes: usize,
    ) -> Result<NodeCall, NodeCallError> {
        let name = HEXLOWER.encode(&random::<16>()?);
        let (sender, answers) = mpsc::channel(answers.max(1));
        let mut waiting = self.lock();
        if waiting.len() >= self.most {
            return Err(TooManyCalls { most: self.most }.into());
        }
        waiting.insert(
            name.clone(),
            ExpectedReplies {
                channel,
                answers: sender,
                answer_bytes,
            },
        );
        drop(waiting);
        Ok(NodeCall {
            calls: Arc::clone(self),
            name,
            answers,
        })
    }

    /// Claims the slot of a reply, before the reply is read, so that no more are read than are expected.
    /// `None` when no reply is expected through this channel.
    pub fn claim(&self, name: &str, channel: ReplyChannel) -> Option<ReplySlot> {
        let waiting = self.lock();
        let call = waiting.get(name).filter(|call| call.channel == channel)?;
        let permit = call.answers.clone().try_reserve_owned().ok()?;
        Some(ReplySlot {
            permit,
            answer_bytes: call.answer_bytes,
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, ExpectedReplies>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Slot of one reply; released when dropped.
#[derive(Debug)]
pub struct ReplySlot {
    permit: mpsc::OwnedPermit<Bytes>,
    answer_bytes: usize,
}

impl ReplySlot {
    /// Longest reply, in bytes.
    pub fn answer_bytes(&self) -> usize {
        self.answer_bytes
    }

    /// Delivers the reply. False when the caller has stopped waiting.
    pub fn give(self, answer: Bytes) -> bool {
        !self.permit.send(answer).is_closed()
    }
}

/// A pending call, until dropped.
pub struct NodeCall {
    calls: Arc<PendingCalls>,
    name: String,
    answers: mpsc::Receiver<Bytes>,
}

impl NodeCall {
    /// Name of the call, which the reply must carry.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Waits for the next reply, without a timeout. Cancel safe.
    pub async fn next(&mut self) -> Bytes {
        match self.answers.recv().await {
            Some(answer) => answer,
            // The sender lives as long as the call.
            None => std::future::pending().await,
        }
    }
}

impl Drop for NodeCall {
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

    /// Whether a reply was accepted.
    fn answer(calls: &PendingCalls, name: &str, channel: ReplyChannel) -> bool {
        let claim = calls.claim(name, channel);
        claim.is_some_and(|claim| claim.give(Bytes::from_static(b"yes")))
    }

    #[tokio::test]
    async fn only_the_machine_of_the_request_may_reply() {
        let calls = Arc::new(PendingCalls::new(2));
        let mut call = calls.begin(machine(1), 1, 10).unwrap();
        for channel in [machine(2), ReplyChannel::Plain] {
            assert!(!answer(&calls, call.name(), channel));
        }
        assert!(!answer(&calls, "another", machine(1)));
        assert!(answer(&calls, call.name(), machine(1)));
        assert_eq!(call.next().await, "yes");
    }

    #[test]
    fn no_more_replies_are_read_than_are_expected() {
        let calls = Arc::new(PendingCalls::new(2));
        let call = calls.begin(ReplyChannel::Plain, 2, 10).unwrap();
        let first = calls.claim(call.name(), ReplyChannel::Plain).unwrap();
        assert_eq!(first.answer_bytes(), 10);
        let second = calls.claim(call.name(), ReplyChannel::Plain);
        assert!(second.is_some());
        assert!(calls.claim(call.name(), ReplyChannel::Plain).is_none());
        // A reply that breaks off releases its slot for another attempt.
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
