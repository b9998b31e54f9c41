//! The change log of compiled policies: which nodes each recent version touched.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::id::NodeId;

/// Versions that are kept.
const MAX_VERSIONS: usize = 64;

/// Touched nodes that are kept, over all versions.
const MAX_NODES: usize = 1024;

/// A version and the versions before it.
///
/// A version is identified by the address of its mark, which stays taken as long as a log holds it: two versions
/// made from the same one are never mistaken for each other.
#[derive(Debug, Clone, Default)]
pub struct ChangeLog {
    mark: Arc<Mark>,
    /// Each older version and what was touched right after it; the newest last.
    past: VecDeque<(Arc<Mark>, Arc<[NodeId]>)>,
}

/// Not zero-sized, so that each has its own address.
type Mark = u8;

/// What may differ between two versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Touched {
    /// Only what these nodes see, and how others see them. (Packet filters and SSH policies hold the addresses of
    /// sources, so those of other nodes may still differ.)
    Nodes(Vec<NodeId>),
    /// Possibly everything.
    Everything,
}

impl ChangeLog {
    /// The next version, which touched these nodes.
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
    fn touched_nodes_are_known_while_the_log_reaches_back() {
        let first = ChangeLog::default();
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
    fn versions_made_from_the_same_one_are_unrelated() {
        let first = ChangeLog::default();
        let (one, other) = (first.after(vec![node(1)]), first.after(vec![node(2)]));
        assert_eq!(one.since(&other), Touched::Everything);
        assert_eq!(other.after(vec![]).since(&one), Touched::Everything);
    }
}
