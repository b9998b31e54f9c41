//! Caches of map parts that several streams send: each part is made once and shared.
//!
//! Entries carry what they were made from and are replaced when that changes, so that nothing has to be
//! invalidated. A panic while a lock is held cannot leave half an entry: poisoned locks are used as they are.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::id::{NodeId, Revision};
use crate::netmap::dns::DnsTexts;
use crate::netmap::frame::Message;
use crate::netmap::peer_view::PeerView;
use crate::state::snapshot::Snapshot;

/// The caches of all streams.
#[derive(Debug, Default)]
pub struct MapCache {
    pub(super) fragments: FragmentCache,
    pub(super) chunks: ChunkCache,
    pub(super) deltas: DeltaCache,
    pub(super) dns: DnsTexts,
}

impl MapCache {
    /// Drops nodes that no longer exist.
    pub fn prune(&self, snapshot: &Snapshot) {
        let mut fragments = lock(&self.fragments.0);
        if fragments.len() > snapshot.nodes().len() {
            fragments.retain(|id, _| snapshot.node(*id).is_some());
        }
    }
}

/// Views of one peer that are kept.
const VIEWS_MAX: usize = 4;

/// Fragments: peers as JSON. Bounded by the number of nodes and [`VIEWS_MAX`].
#[derive(Debug, Default)]
pub(super) struct FragmentCache(Mutex<HashMap<NodeId, Fragments>>);

/// The state that a peer's fragments are made from, apart from the view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FragmentStamp {
    pub(super) revision: Revision,
    pub(super) derp_version: u32,
    pub(super) peers_version: u32,
}

/// The fragments of one peer.
#[derive(Debug)]
struct Fragments {
    stamp: FragmentStamp,
    views: Vec<(PeerView, Bytes)>,
}

impl FragmentCache {
    /// The fragment of this peer and view; made now if it is missing or older than `stamp`.
    pub(super) fn get_or_make(
        &self,
        id: NodeId,
        stamp: FragmentStamp,
        view: PeerView,
        make: impl FnOnce(&PeerView) -> Bytes,
    ) -> Bytes {
        let mut cache = lock(&self.0);
        let fragments = cache.entry(id).or_insert_with(|| Fragments {
            stamp,
            views: Vec::new(),
        });
        if fragments.stamp != stamp {
            fragments.stamp = stamp;
            fragments.views.clear();
        }
        if let Some((_, bytes)) = fragments.views.iter().find(|(known, _)| *known == view) {
            return bytes.clone();
        }
        let bytes = make(&view);
        if fragments.views.len() >= VIEWS_MAX {
            fragments.views.remove(0);
        }
        fragments.views.push((view, bytes.clone()));
        bytes
    }
}

/// Compressed chunks of peer lists. The caller of [`Self::insert`] sets the bound.
#[derive(Debug, Default)]
pub(super) struct ChunkCache(Mutex<Chunks>);

#[derive(Debug, Default)]
struct Chunks {
    kept: HashMap<ChunkKey, (u64, Bytes)>,
    order: VecDeque<ChunkKey>,
}

/// Identifies a chunk: the ID range, whether it begins its list, and the view class of the viewers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct ChunkKey {
    pub(super) range: u64,
    pub(super) is_first: bool,
    pub(super) view_class: u32,
}

impl ChunkCache {
    /// The chunk, if it was made from this stamp.
    pub(super) fn get(&self, key: &ChunkKey, stamp: u64) -> Option<Bytes> {
        let chunks = lock(&self.0);
        let kept = chunks.kept.get(key).filter(|kept| kept.0 == stamp);
        kept.map(|(_, bytes)| bytes.clone())
    }

    /// Keeps a chunk, and evicts the oldest beyond `max`.
    pub(super) fn insert(&self, key: ChunkKey, stamp: u64, bytes: &Bytes, max: usize) {
        let mut chunks = lock(&self.0);
        if chunks.kept.insert(key, (stamp, bytes.clone())).is_none() {
            chunks.order.push_back(key);
        }
        while chunks.order.len() > max {
            if let Some(oldest) = chunks.order.pop_front() {
                chunks.kept.remove(&oldest);
            }
        }
    }
}

/// Largest delta that is kept, in bytes.
const DELTA_MAX_BYTES: usize = 64 * 1024;

/// Deltas that are kept: streams are rarely further apart.
const DELTAS_MAX: usize = 8;

/// The latest deltas that are the same for all viewers of a class; `None` is "nothing to send".
#[derive(Debug, Default)]
pub(super) struct DeltaCache(Mutex<VecDeque<(DeltaKey, Option<Message>)>>);

/// Identifies a delta: two viewers that it does not concern and whose keys are equal get the same one.
#[derive(Debug)]
pub(super) struct DeltaKey {
    pub(super) since: Revision,
    pub(super) until: Revision,
    /// View classes of the viewer before and after.
    pub(super) view_classes: (u32, u32),
    /// The viewer's packet filter, if it changed.
    pub(super) filter: Option<Arc<str>>,
}

impl PartialEq for DeltaKey {
    /// Filters are compared by address: equal ones are shared, and an address stays taken while it is held here.
    fn eq(&self, other: &Self) -> bool {
        let filters = match (&self.filter, &other.filter) {
            (None, None) => true,
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            _ => false,
        };
        let revisions = (self.since, self.until) == (other.since, other.until);
        filters && revisions && self.view_classes == other.view_classes
    }
}

impl DeltaCache {
    pub(super) fn get(&self, wanted: &DeltaKey) -> Option<Option<Message>> {
        let deltas = lock(&self.0);
        let (_, message) = deltas.iter().find(|(key, _)| key == wanted)?;
        Some(message.clone())
    }

    pub(super) fn insert(&self, key: DeltaKey, message: &Option<Message>) {
        if message
            .as_ref()
            .is_some_and(|message| message.json().len() > DELTA_MAX_BYTES)
        {
            return;
        }
        let mut deltas = lock(&self.0);
        while deltas.len() >= DELTAS_MAX {
            deltas.pop_front();
        }
        deltas.push_back((key, message.clone()));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
