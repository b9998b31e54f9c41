//! The requests of one HTTP/2 connection, run in the connection's own task.
//!
//! A task for each of them would be woken for each message and would wake the connection's then, and a map
//! stream's would take memory as long as the connection lives.
//! Bounded by the connection's limit of concurrent streams: requests that were taken back end when they are polled,
//! which is right after the connection has read of that.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll};

use hyper::rt::Executor;

type Request = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The running requests. They are dropped with this.
#[derive(Default)]
pub(super) struct Requests {
    begun: Arc<Mutex<Vec<Request>>>,
    running: Vec<Request>,
}

impl Requests {
    /// Where the connection leaves its requests.
    pub(super) fn executor(&self) -> Begin {
        Begin(Arc::downgrade(&self.begun))
    }

    /// Lets the requests and the connection that they came from go on, until the connection ends.
    ///
    /// Requests go first, so that what they send leaves in the same turn.
    pub(super) fn poll<C: Future>(
        &mut self,
        mut connection: Pin<&mut C>,
        context: &mut Context<'_>,
    ) -> Poll<C::Output> {
        loop {
            self.running
                .retain_mut(|request| request.as_mut().poll(context).is_pending());
            if let Poll::Ready(ended) = connection.as_mut().poll(context) {
                return Poll::Ready(ended);
            }
            let begun = &mut *self.begun.lock().unwrap_or_else(PoisonError::into_inner);
            if begun.is_empty() {
                return Poll::Pending;
            }
            self.running.append(begun);
        }
    }
}

/// Begins the requests of a connection.
///
/// Requests hold one of these too, so it does not keep them alive.
#[derive(Clone)]
pub(super) struct Begin(Weak<Mutex<Vec<Request>>>);

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Begin {
    fn execute(&self, request: F) {
        if let Some(begun) = self.0.upgrade() {
            let mut begun = begun.lock().unwrap_or_else(PoisonError::into_inner);
            begun.push(Box::pin(request));
        }
    }
}
