//! What hearth and its nodes say to each other beside maps. In memory only: nothing here outlives a
//! restart.

pub mod calls;
pub mod mailbox;
pub mod ping;
pub mod request;

use std::sync::Arc;
use std::time::Duration;

use crate::config::Limits;
use calls::{PendingCalls, TooManyCalls};
use hearth_core::state::secret::NoRandomness;
use mailbox::{Mailboxes, Undelivered};

/// Requests to nodes, shared by the handlers of nodes and those of administrators.
#[derive(Debug)]
pub struct NodeCalls {
    /// Messages to nodes outside of their maps.
    pub mailboxes: Arc<Mailboxes>,
    /// Requests that wait for an answer.
    pub pending: Arc<PendingCalls>,
    /// Longest answer of a node, in bytes.
    answer_bytes: usize,
    /// The URL that clients connect to.
    server_url: String,
}

impl NodeCalls {
    /// No requests yet.
    pub fn new(server_url: &str, limits: &Limits) -> Self {
        Self {
            mailboxes: Arc::default(),
            pending: Arc::new(PendingCalls::new(limits.node_calls)),
            answer_bytes: limits.node_answer,
            server_url: server_url.to_owned(),
        }
    }
}

/// Why a node gave no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NodeCallError {
    /// It cannot be told anything now.
    #[error(transparent)]
    Undelivered(#[from] Undelivered),
    /// Too many questions wait already.
    #[error(transparent)]
    TooMany(#[from] TooManyCalls),
    /// The system gives no random bytes.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
    /// It said nothing in time.
    #[error("the node gave no answer within {} s", .0.as_secs())]
    Timeout(Duration),
    /// What it said is no answer.
    #[error("the node gave an answer that cannot be read")]
    Answer,
    /// The question cannot be asked.
    #[error("{0}")]
    C2nRequest(&'static str),
}
