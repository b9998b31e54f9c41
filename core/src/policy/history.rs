//! What changed from one version to the next, for as long as it matters.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::id::NodeId;
use crate::policy::compiled::Touched;

/// Versions that are remembered.
const MAX_VERSIONS: usize = 64;

/// Touched nodes that are remembered, over all versions.
const MAX_NODES: usize = 1024;

/// A version and the way to it.
///
/// A version is known by the address of its mark, which lives as long as anybody remembers it: two versions
/// that were made from the same one do not take each other for the next.
#[derive(Debug, Clone, Default)]
pub struct History {
    mark: Arc<Mark>,
    /// Each older version and what was touched right after it; the newest last.
    past: VecDeque<(Arc<Mark>, Arc<[NodeId]>)>,
}

/// Not of size zero, so that each has an address of its own.
type Mark = u8;

impl History {
    /// The version after this one.
    pub fn after(&self, touched: Vec<NodeId>) -> Self {
        let mut past = self.past.clone();
        past.push_back((self.mark.clone(), touched.into()));
        let nodes = |past: &VecDeque<(_, Arc<[NodeId]>)>| -> usize {
            past.iter().map(|(_, touched)| touched.len()).sum()
        };
        while past.len() > MAX_VERSIONS || nodes(&past) > MAX_NODES {
            past.pop_front();
        }
        Self {
            mark: Arc::default(),
            past,
        }
    }

    /// What was touched since an older version.
    pub fn since(&self, older: &Self) -> Touched {
        if Arc::ptr_eq(&self.mark, &older.mark) {
            return Touched::Nodes(Vec::new());
        }
        let is_older = |(mark, _): &(Arc<Mark>, _)| Arc::ptr_eq(mark, &older.mark);
        let Some(at) = self.past.iter().position(is_older) else {
            return Touched::Everything;
        };
        let touched = self.past.iter().skip(at);
        let mut nodes: Vec<NodeId> = touched
            .flat_map(|(_, nodes)| nodes.iter().copied())
            .collect();
        nodes.sort_unstable();
        nodes.dedup();
        Touched::Nodes(nodes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(number: u64) -> NodeId {
        NodeId::new(number).unwrap()
    }

    #[test]
    fn what_happened_since_is_told_while_it_is_remembered() {
        let first = History::default();
        let second = first.after(vec![node(2), node(1)]);
        let third = second.after(vec![node(2)]);
        assert_eq!(third.since(&third), Touched::Nodes(vec![]));
        assert_eq!(third.since(&second), Touched::Nodes(vec![node(2)]));
        assert_eq!(third.since(&first), Touched::Nodes(vec![node(1), node(2)]));
        assert_eq!(first.since(&third), Touched::Everything);
        let far = (0..100).fold(third.clone(), |last, _| last.after(vec![node(3)]));
        assert_eq!(far.since(&third), Touched::Everything);
    }

    #[test]
    fn versions_side_by_side_know_nothing_of_each_other() {
        let first = History::default();
        let (one, other) = (first.after(vec![node(1)]), first.after(vec![node(2)]));
        assert_eq!(one.since(&other), Touched::Everything);
        assert_eq!(other.after(vec![]).since(&one), Touched::Everything);
    }
}
