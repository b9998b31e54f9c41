//! Upgrade: the protocol of a connection after its HTTP part.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use hyper::Response;

use super::body::Body;
use super::gate::Ticket;
use super::stream::Stream;

/// A response being made.
pub type PendingResponse = Pin<Box<dyn Future<Output = Response<Body>> + Send>>;

/// The rest of a connection, after its HTTP part.
pub type Continuation = Pin<Box<dyn Future<Output = ()> + Send>>;

type TakeOver = Box<dyn FnOnce(Stream, Bytes, Ticket) -> Continuation + Send>;

/// Protocol upgrade: a response with this in its extensions hands the connection over.
///
/// Extensions can be cloned; only one of the clones can take the connection over.
#[derive(Clone)]
pub struct Upgrade {
    protocol: &'static str,
    take_over: Arc<Mutex<Option<TakeOver>>>,
}

impl Upgrade {
    /// An upgrade to `protocol`. The function gets the stream, the bytes already received, which come
    /// before those of the stream, and the ticket of the connection, by which the client can be proven.
    pub fn new(
        protocol: &'static str,
        take_over: impl FnOnce(Stream, Bytes, Ticket) -> Continuation + Send + 'static,
    ) -> Self {
        Self {
            protocol,
            take_over: Arc::new(Mutex::new(Some(Box::new(take_over)))),
        }
    }

    /// Name of the protocol, for logs.
    pub fn protocol(&self) -> &'static str {
        self.protocol
    }

    /// Hands the connection over.
    pub fn start(self, stream: Stream, received: Bytes, ticket: Ticket) -> Continuation {
        let mut slot = self
            .take_over
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let take_over = slot.take();
        drop(slot);
        match take_over {
            Some(take_over) => take_over(stream, received, ticket),
            None => Box::pin(std::future::ready(())),
        }
    }
}

impl fmt::Debug for Upgrade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Upgrade({})", self.protocol)
    }
}
