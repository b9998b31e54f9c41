//! Requests to nodes (control to node) outside of maps. Kept in memory only; nothing here outlives a
//! restart.

pub mod calls;
pub mod mailbox;
pub mod ping;
pub mod request;

use std::sync::Arc;
use std::time::Duration;

use crate::config::Limits;
use crate::status::addresses::CurrentUrl;
use calls::{PendingCalls, TooManyCalls};
use hearth_core::state::secret::NoRandomness;
use mailbox::{Mailboxes, Undelivered};

/// Requests to nodes, shared by the handlers of nodes and of administrators.
#[derive(Debug)]
pub struct NodeCalls {
    /// Messages to nodes outside of their maps.
    pub mailboxes: Arc<Mailboxes>,
    /// Requests that wait for a reply.
    pub pending: Arc<PendingCalls>,
    /// Longest reply of a node, in bytes.
    answer_bytes: usize,
    /// `server_url`.
    server_url: CurrentUrl,
}

impl NodeCalls {
    /// No requests.
    pub fn new(server_url: CurrentUrl, limits: &Limits) -> Self {
        Self {
            mailboxes: Arc::default(),
            pending: Arc::new(PendingCalls::new(limits.node_calls)),
            answer_bytes: limits.node_answer,
            server_url,
        }
    }
}

/// Why a node did not reply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NodeCallError {
    /// The message could not be delivered.
    #[error(transparent)]
    Undelivered(#[from] Undelivered),
    /// Too many requests are pending.
    #[error(transparent)]
    TooMany(#[from] TooManyCalls),
    /// The system has no random bytes.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
    /// The deadline passed.
    #[error("the node did not reply within {} s", .0.as_secs())]
    Timeout(Duration),
    /// The reply is not valid HTTP.
    #[error("the node sent an invalid reply")]
    Answer,
    /// The request is invalid.
    #[error("{0}")]
    C2nRequest(&'static str),
}
