//! ClosedStreams: map streams that ended and whose end is not applied yet.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use hearth_core::id::NodeId;
use hearth_core::state::model::SessionId;

/// The newest ended stream of each node: an older one has been replaced anyway. Never longer than there are nodes.
#[derive(Debug, Default)]
pub(super) struct ClosedStreams(Mutex<BTreeMap<NodeId, SessionId>>);

impl ClosedStreams {
    /// Adds a stream. Returns whether it is the first since they were taken: then the writer thread has to be woken.
    pub(super) fn add(&self, node: NodeId, session: SessionId) -> bool {
        let mut closed = self.lock();
        let is_first = closed.is_empty();
        let newest = closed.entry(node).or_insert(session);
        *newest = session.max(*newest);
        is_first
    }

    /// Takes all.
    pub(super) fn take(&self) -> Vec<(NodeId, SessionId)> {
        std::mem::take(&mut *self.lock()).into_iter().collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<NodeId, SessionId>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
