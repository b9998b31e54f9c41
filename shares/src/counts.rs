//! Counts per source: places that cannot be taken back, of which no source gets more than its share.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Places in use, per source. Clones share the counts.
#[derive(Debug, Clone)]
pub struct Counts<K> {
    counts: Arc<Mutex<HashMap<K, usize>>>,
    per_source: usize,
}

/// A place; given back when dropped.
#[derive(Debug)]
#[must_use = "the place is given back when this is dropped"]
pub struct Held<K: Hash + Eq> {
    source: K,
    counts: Arc<Mutex<HashMap<K, usize>>>,
}

impl<K: Hash + Eq + Clone> Counts<K> {
    /// At most `per_source` places for each source.
    pub fn new(per_source: usize) -> Self {
        Self {
            counts: Arc::default(),
            per_source,
        }
    }

    /// Takes a place for `source`; none if it has its share already.
    pub fn take(&self, source: K) -> Option<Held<K>> {
        let mut counts = lock(&self.counts);
        let count = counts.get(&source).copied().unwrap_or_default();
        if count >= self.per_source {
            return None;
        }
        counts.insert(source.clone(), count.saturating_add(1));
        Some(Held {
            source,
            counts: Arc::clone(&self.counts),
        })
    }

    /// Number of places that `source` holds.
    pub fn held(&self, source: &K) -> usize {
        lock(&self.counts).get(source).copied().unwrap_or_default()
    }

    /// Number of sources that hold a place.
    pub fn sources(&self) -> usize {
        lock(&self.counts).len()
    }
}

impl<K: Hash + Eq> Drop for Held<K> {
    fn drop(&mut self) {
        let mut counts = lock(&self.counts);
        // Sources without a place are not remembered, so the map is never longer than the places in use.
        if let Some(count) = counts.get_mut(&self.source) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                counts.remove(&self.source);
            }
        }
    }
}

/// Counts are valid at any moment, so a panic elsewhere cannot spoil them.
fn lock<K>(counts: &Mutex<HashMap<K, usize>>) -> MutexGuard<'_, HashMap<K, usize>> {
    counts.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_source_has_its_share_and_gives_it_back() {
        let counts = Counts::new(2);
        let held = [counts.take('a'), counts.take('a')];
        assert!(held.iter().all(Option::is_some));
        assert!(counts.take('a').is_none());
        assert_eq!((counts.held(&'a'), counts.held(&'b')), (2, 0));
        let other = counts.take('b');
        assert!(other.is_some() && counts.sources() == 2);
        drop(held);
        assert!(counts.take('a').is_some());
        drop(other);
        assert_eq!(counts.sources(), 0);
    }
}
