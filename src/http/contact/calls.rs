//! Questions to nodes that wait for an answer, each under a name that nobody can guess.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use data_encoding::HEXLOWER;
use tokio::sync::mpsc;

use super::ContactError;
use crate::keys::MachineKey;
use crate::state::secret::random;

/// Answers that one call may get before they are taken.
const ANSWERS: usize = 4;

/// How an answer comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Through the Noise tunnel of this machine.
    Noise(MachineKey),
    /// By plain HTTP from anywhere; the name of the call is the proof.
    Plain,
}

/// All calls that wait.
#[derive(Debug)]
pub struct Calls {
    waiting: Mutex<HashMap<String, (Way, mpsc::Sender<Bytes>)>>,
    most: usize,
    answer_bytes: usize,
}

/// Too many calls wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{most} questions to nodes wait already (limits.node_calls); try again in a moment")]
pub struct TooManyCalls {
    most: usize,
}

impl Calls {
    /// No call; at most `most` will wait, and an answer has at most `answer_bytes`.
    pub fn new(most: usize, answer_bytes: usize) -> Self {
        Self {
            waiting: Mutex::default(),
            most,
            answer_bytes,
        }
    }

    /// The longest answer, in bytes.
    pub fn answer_bytes(&self) -> usize {
        self.answer_bytes
    }

    /// Begins to wait.
    ///
    /// # Errors
    /// When too many calls wait, or the system gives no random bytes.
    pub fn begin(self: &Arc<Self>, way: Way) -> Result<Call, ContactError> {
        let name = HEXLOWER.encode(&random::<16>()?);
        let (sender, answers) = mpsc::channel(ANSWERS);
        let mut waiting = self.lock();
        if waiting.len() >= self.most {
            return Err(TooManyCalls { most: self.most }.into());
        }
        waiting.insert(name.clone(), (way, sender));
        drop(waiting);
        Ok(Call {
            calls: Arc::clone(self),
            name,
            answers,
        })
    }

    /// Whether an answer to this call would be taken; to be asked before the answer is read.
    pub fn expects(&self, name: &str, way: Way) -> bool {
        self.lock()
            .get(name)
            .is_some_and(|(wanted, _)| *wanted == way)
    }

    /// Takes an answer, unless nobody waits for it any more, and says which.
    pub fn answer(&self, name: &str, way: Way, answer: Bytes) -> bool {
        let waiting = self.lock();
        let call = waiting.get(name).filter(|(wanted, _)| *wanted == way);
        call.is_some_and(|(_, answers)| answers.try_send(answer).is_ok())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, (Way, mpsc::Sender<Bytes>)>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call that waits until it is dropped.
#[derive(Debug)]
pub struct Call {
    calls: Arc<Calls>,
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

    fn machine(number: u8) -> Way {
        Way::Noise(MachineKey::from_bytes([number; 32]))
    }

    #[tokio::test]
    async fn only_the_machine_that_was_asked_may_answer() {
        let calls = Arc::new(Calls::new(2, 10));
        let mut call = calls.begin(machine(1)).unwrap();
        let answer = Bytes::from_static(b"yes");
        for way in [machine(2), Way::Plain] {
            assert!(!calls.expects(call.name(), way));
            assert!(!calls.answer(call.name(), way, answer.clone()));
        }
        assert!(!calls.expects("another", machine(1)));
        assert!(calls.expects(call.name(), machine(1)));
        assert!(calls.answer(call.name(), machine(1), answer.clone()));
        assert_eq!(call.next().await, answer);
    }

    #[test]
    fn calls_are_bounded_and_leave_nothing_behind() {
        let calls = Arc::new(Calls::new(2, 10));
        let first = calls.begin(Way::Plain).unwrap();
        let second = calls.begin(Way::Plain).unwrap();
        assert_ne!(first.name(), second.name());
        let third = calls.begin(Way::Plain).unwrap_err();
        assert_eq!(third, TooManyCalls { most: 2 }.into());
        for _ in 0..ANSWERS {
            assert!(calls.answer(first.name(), Way::Plain, Bytes::new()));
        }
        assert!(!calls.answer(first.name(), Way::Plain, Bytes::new()));
        drop((first, second));
        assert!(calls.lock().is_empty());
    }
}
