//! What hearth and its nodes say to each other beside maps. In memory only: nothing here outlives a
//! restart.

pub mod calls;
pub mod mailbox;
pub mod ping;
pub mod request;

use std::sync::Arc;
use std::time::Duration;

use crate::config::Limits;
use crate::control::client_reports::Reports;
use crate::control::ssh_checks::SshChecks;
use calls::{Calls, TooManyCalls};
use hearth_core::state::secret::NoRandomness;
use hearth_core::state::snapshot::Snapshot;
use mailbox::{Inboxes, Undelivered};

/// All of it, shared by the requests of nodes and those of administrators.
#[derive(Debug)]
pub struct Contact {
    /// Messages to nodes outside of their maps.
    pub inboxes: Arc<Inboxes>,
    /// Questions to nodes that wait for an answer.
    pub calls: Arc<Calls>,
    /// What nodes tell of themselves.
    pub reports: Reports,
    /// SSH connections that wait for a person.
    pub ssh_checks: SshChecks,
    /// Longest answer of a node, in bytes.
    answer_bytes: usize,
    /// What clients are told to connect to.
    server_url: String,
}

impl Contact {
    /// Nobody has said anything yet.
    pub fn new(server_url: &str, limits: &Limits) -> Self {
        Self {
            inboxes: Arc::default(),
            calls: Arc::new(Calls::new(limits.node_calls)),
            reports: Reports::new(limits.audit_entries),
            ssh_checks: SshChecks::new(limits.ssh_checks),
            answer_bytes: limits.node_answer,
            server_url: server_url.to_owned(),
        }
    }

    /// Forgets nodes that are gone.
    pub fn prune(&self, snapshot: &Snapshot) {
        let exists = |id| snapshot.node(id).is_some();
        self.reports.retain(exists);
        self.ssh_checks.retain(exists);
    }
}

/// Why a node gave no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ContactError {
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
    Question(&'static str),
}
