//! MapStreams: who has a map stream open.
//!
//! A node has one stream, and at most one single map beside it: a newer one takes the place of the older, which is reset
//! at once, also when its client reads nothing. When all places are taken, an approved node replaces the stream of one
//! that is not, or a single map.
//!
//! A machine without its node has one stream, too, and needs no place for it: the stream is part of its connection, which
//! is one of a stranger's. The gate (`net::gate`) bounds those per source, ends them after a time, and closes one of the
//! source with the most for a newcomer. So however many such machines there are, the next one gets its map.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hearth_shares::Buckets;

use crate::net::revocation::Revocation;
use hearth_core::id::NodeId;
use hearth_core::keys::MachineKey;

/// Maps that a node may ask for: 32 at once, then one a second. A client asks again at once when its stream ends, and two
/// with the same keys (a copied disk) would end each other's streams without a pause.
const OPENINGS: (u32, Duration) = (32, Duration::from_secs(1));

/// What a place is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum MapKind {
    /// A single map.
    Once,
    /// A stream of maps.
    Stream,
}

/// Places of map streams.
#[derive(Debug)]
pub struct MapStreams {
    most: usize,
    open: Mutex<Open>,
}

#[derive(Debug)]
struct Open {
    openings: Buckets<NodeId>,
    /// Number of the next place.
    next: u64,
    /// Oldest first.
    nodes: BTreeMap<u64, (NodeId, MapKind, Revocation)>,
    /// The newest stream of each machine without its node. There are no more of them than connections: a connection is
    /// that of one machine. A client whose stream ends asks again at once, so they replace only themselves.
    former: BTreeMap<MachineKey, (u64, Revocation)>,
}

/// Which place of [`Open`].
#[derive(Debug, Clone, Copy)]
enum Number {
    Node(u64),
    Former(MachineKey, u64),
}

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoPlace {
    /// The node asks for maps too often.
    #[error("this device asks for maps too often; is there another one with a copy of its keys?")]
    TooOften,
    /// All places are taken.
    #[error("too many map streams (limits.map_streams)")]
    Full,
}

/// A place; given back when dropped.
#[derive(Debug)]
pub struct MapPlace {
    streams: Arc<MapStreams>,
    number: Number,
    /// Ends the response for which the place was taken.
    pub revocation: Revocation,
}

impl MapStreams {
    /// `most` places for nodes, of which there are at most `max_nodes`.
    pub fn new(most: usize, max_nodes: usize) -> Arc<Self> {
        Arc::new(Self {
            most,
            open: Mutex::new(Open {
                openings: Buckets::new(OPENINGS.0, OPENINGS.1, max_nodes),
                next: 0,
                nodes: BTreeMap::new(),
                former: BTreeMap::new(),
            }),
        })
    }

    /// A place for a node, which ends the one of the same kind that it has. `now` is the monotonic time.
    ///
    /// # Errors
    /// If the node asks too often, or all places are taken by nodes that count as much: of nodes that are approved streams
    /// count more than single maps, and both count more than what others have.
    pub fn enter(
        self: &Arc<Self>,
        node: NodeId,
        kind: MapKind,
        now: Duration,
        is_approved: impl Fn(NodeId) -> bool,
    ) -> Result<MapPlace, NoPlace> {
        let mut open = self.lock();
        if !open.openings.take(node, now) {
            return Err(NoPlace::TooOften);
        }
        let own = |(_, (known, had, _)): &(&u64, &(NodeId, MapKind, Revocation))| {
            (*known, *had) == (node, kind)
        };
        if let Some(number) = open.nodes.iter().find(own).map(|(number, _)| *number) {
            open.end(number);
        }
        if open.nodes.len() >= self.most {
            let weight = |node, kind| is_approved(node).then_some(kind);
            let places = open.nodes.iter();
            let weights = places.map(|(number, (node, kind, _))| (weight(*node, *kind), *number));
            // Of equals the oldest.
            let (least, number) = weights.min().ok_or(NoPlace::Full)?;
            if least >= weight(node, kind) {
                return Err(NoPlace::Full);
            }
            open.end(number);
        }
        let (number, revocation) = open.begin();
        open.nodes.insert(number, (node, kind, revocation.clone()));
        Ok(MapPlace {
            streams: Arc::clone(self),
            number: Number::Node(number),
            revocation,
        })
    }

    /// The stream of a machine without its node, which ends the one that it has.
    pub fn enter_former(self: &Arc<Self>, machine: MachineKey) -> MapPlace {
        let mut open = self.lock();
        let (number, revocation) = open.begin();
        let older = open.former.insert(machine, (number, revocation.clone()));
        if let Some((_, older)) = older {
            older.revoke();
        }
        MapPlace {
            streams: Arc::clone(self),
            number: Number::Former(machine, number),
            revocation,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    /// The number of a new place, and what ends its response.
    fn begin(&mut self) -> (u64, Revocation) {
        let number = self.next;
        self.next = number.wrapping_add(1);
        (number, Revocation::default())
    }

    /// Frees the place of a node and ends its response.
    fn end(&mut self, number: u64) {
        if let Some((_, _, revocation)) = self.nodes.remove(&number) {
            revocation.revoke();
        }
    }

    fn free(&mut self, number: Number) {
        match number {
            Number::Node(number) => {
                self.nodes.remove(&number);
            }
            Number::Former(machine, number) => {
                let newest = self.former.get(&machine);
                if newest.is_some_and(|(newest, _)| *newest == number) {
                    self.former.remove(&machine);
                }
            }
        }
    }
}

impl Drop for MapPlace {
    fn drop(&mut self) {
        self.streams.lock().free(self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(number: u64) -> NodeId {
        NodeId::new(number).unwrap()
    }

    fn is_over(place: &MapPlace) -> bool {
        place.revocation.is_revoked()
    }

    #[test]
    fn a_newer_stream_of_a_node_ends_the_older_one_and_takes_its_place() {
        let streams = MapStreams::new(2, 64);
        let now = std::cell::Cell::new(Duration::ZERO);
        let enter = |number, kind| {
            now.set(now.get() + OPENINGS.1);
            streams
                .enter(node(number), kind, now.get(), |_| true)
                .unwrap()
        };
        let other = enter(2, MapKind::Stream);
        let mut held = vec![enter(1, MapKind::Stream)];
        for _ in 0..32 {
            held.push(enter(1, MapKind::Stream));
        }
        let (newest, older) = held.split_last().unwrap();
        assert!(older.iter().all(is_over));
        assert!(!is_over(newest) && !is_over(&other));
        // The places of streams that have ended are free already; that they are dropped later changes nothing.
        held.truncate(1);
        assert_eq!(streams.lock().nodes.len(), 1);
        let again = enter(1, MapKind::Stream);
        drop(held);
        assert!(!is_over(&again) && streams.lock().nodes.len() == 2);
    }

    #[test]
    fn a_single_map_replaces_that_of_the_same_node_and_gives_way_to_streams() {
        let streams = MapStreams::new(2, 64);
        let enter = |number, kind| streams.enter(node(number), kind, Duration::ZERO, |_| true);
        let stream = enter(1, MapKind::Stream).unwrap();
        let older = enter(1, MapKind::Once).unwrap();
        let once = enter(1, MapKind::Once).unwrap();
        assert!(is_over(&older) && !is_over(&once) && !is_over(&stream));
        assert!(enter(2, MapKind::Once).is_err());
        let other = enter(2, MapKind::Stream).unwrap();
        assert!(is_over(&once) && !is_over(&stream) && !is_over(&other));
        assert!(enter(3, MapKind::Stream).is_err());
    }

    #[test]
    fn a_node_that_asks_without_a_pause_is_refused_and_keeps_its_stream() {
        let streams = MapStreams::new(2, 64);
        let enter = |number| streams.enter(node(number), MapKind::Stream, Duration::ZERO, |_| true);
        let mut last = enter(1);
        for _ in 1..OPENINGS.0 {
            last = enter(1);
        }
        assert_eq!(enter(1).map(drop), Err(NoPlace::TooOften));
        assert!(!is_over(&last.unwrap()) && enter(2).is_ok());
    }

    #[test]
    fn nodes_without_approval_crowd_out_nobody() {
        let streams = MapStreams::new(4, 64);
        let is_approved = |id: NodeId| id.number() >= 100;
        let enter =
            |number| streams.enter(node(number), MapKind::Stream, Duration::ZERO, is_approved);
        let strangers: Vec<MapPlace> = (1..=4).map(|number| enter(number).unwrap()).collect();
        assert_eq!(enter(5).map(drop), Err(NoPlace::Full));
        let approved: Vec<MapPlace> = (100..104).map(|number| enter(number).unwrap()).collect();
        assert!(strangers.iter().all(is_over));
        assert!(enter(5).is_err() && enter(104).is_err());
        assert!(!approved.iter().any(is_over));
    }

    #[test]
    fn a_machine_without_its_node_has_a_stream_however_many_others_have_one() {
        let streams = MapStreams::new(1, 64);
        let enter = |number: u8| streams.enter_former(MachineKey::from_bytes([number; 32]));
        let strangers: Vec<MapPlace> = (0..200).map(enter).collect();
        let first = enter(201);
        let again = enter(201);
        assert!(is_over(&first) && !is_over(&again));
        assert!(!strangers.iter().any(is_over));
        // They take no place of a node.
        let of_node = streams.enter(node(1), MapKind::Stream, Duration::ZERO, |_| true);
        assert!(of_node.is_ok());
        drop(first);
        assert_eq!(streams.lock().former.len(), 201);
        drop((again, strangers));
        assert!(streams.lock().former.is_empty());
    }
}
