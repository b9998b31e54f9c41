//! Revocation: takes back a response that is being sent.
//!
//! HTTP/2 asks a body for its next piece only after the one before has found room in the peer's window. A body therefore
//! cannot end by itself while its peer reads nothing. A [`Revocation`] in the extensions of a response ends it from
//! outside: a body that is asked may end properly ([`Revocation::revoked`]); otherwise what is still queued is dropped, and
//! the stream is reset.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

/// Ends the response that carries it. Clones belong to the same response.
#[derive(Debug, Clone, Default)]
pub struct Revocation(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    is_revoked: bool,
    /// Wakes the connection that sends the response.
    connection: Option<Waker>,
}

impl Revocation {
    /// Ends the response: its body is polled once more, at once, and then dropped.
    pub fn revoke(&self) {
        let mut state = self.lock();
        state.is_revoked = true;
        let connection = state.connection.take();
        drop(state);
        if let Some(connection) = connection {
            connection.wake();
        }
    }

    /// Whether the response was ended.
    pub fn is_revoked(&self) -> bool {
        self.lock().is_revoked
    }

    /// Waits until the response is ended. Only for the body of the response, which is polled once more then.
    pub async fn revoked(&self) {
        poll_fn(|_| match self.is_revoked() {
            true => Poll::Ready(()),
            false => Poll::Pending,
        })
        .await;
    }

    /// The same as [`Self::is_revoked`]; `connection` is woken once it is.
    pub(super) fn poll(&self, connection: &Waker) -> bool {
        let mut state = self.lock();
        let known = state.connection.as_ref();
        if !state.is_revoked && !known.is_some_and(|known| known.will_wake(connection)) {
            state.connection = Some(connection.clone());
        }
        state.is_revoked
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
