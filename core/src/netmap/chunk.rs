//! Stretches of a list of peers, compressed once for all who see the same.
//!
//! A whole map of a thousand peers is half a megabyte, and what differs between viewers is mostly that
//! each is missing from its own list. So the list goes as a row of zstd frames, each of up to
//! [`CHUNK_IDS`] numbers, which clients decode as one text: `DecodeAll` in tailscale `util/zstdframe`
//! takes frames in a row (RFC 8878, section 2.2). Only the frame in which the viewer itself would stand
//! is its own.

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::id::NodeId;
use crate::netmap::fragment::Form;
use crate::netmap::{Source, frame};
use crate::state::model::Node;

/// Numbers of nodes in one chunk: large enough to compress well, small enough that a change of one node
/// costs little.
const CHUNK_IDS: u64 = 32;

/// Chunks that are kept beyond one for each stretch: where the policy divides viewers into classes, the
/// classes lately served find theirs.
const SPARE: usize = 64;

/// The compressed chunks. Bounded by [`SPARE`] and the number of stretches.
#[derive(Debug, Default)]
pub struct Chunks(Mutex<Cache>);

#[derive(Debug, Default)]
struct Cache {
    kept: HashMap<Place, (u64, Bytes)>,
    order: VecDeque<Place>,
}

/// Which chunk: of which stretch, whether the first of its list, for which class of viewers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Place {
    stretch: u64,
    first: bool,
    class: u32,
}

/// The peers of a viewer within one stretch of numbers.
struct Stretch<'a> {
    number: u64,
    peers: Vec<(&'a Arc<Node>, Form)>,
}

/// The peers of `viewer` as the pieces of a JSON list without its brackets; empty for none.
pub(super) fn peers(source: &Source<'_>, viewer: &Node, zstd: bool) -> Vec<Bytes> {
    let mut first = true;
    let mut pieces = Vec::new();
    for stretch in stretches(source, viewer) {
        if zstd {
            pieces.push(compressed(source, viewer, &stretch, first));
            first = false;
            continue;
        }
        // Uncompressed it is long: the fragments themselves, which all viewers share.
        for (node, form) in stretch.peers {
            if !first {
                pieces.push(Bytes::from_static(b","));
            }
            first = false;
            pieces.push(source.fragments.peer(source, node, form));
        }
    }
    pieces
}

fn stretches<'a>(source: &Source<'a>, viewer: &Node) -> Vec<Stretch<'a>> {
    let compiled = source.snapshot.compiled();
    let mut stretches: Vec<Stretch<'a>> = Vec::new();
    for node in source.snapshot.nodes() {
        if !compiled.are_peers(viewer.id, node.id) {
            continue;
        }
        let peer = (node, Form::of(compiled, viewer.id, node));
        let number = stretch_of(node.id);
        match stretches.last_mut().filter(|last| last.number == number) {
            Some(last) => last.peers.push(peer),
            None => stretches.push(Stretch {
                number,
                peers: vec![peer],
            }),
        }
    }
    stretches
}

/// In how many stretches there are nodes. Numbers are never used again, so there may be far fewer than the
/// highest number would have.
fn stretches_of_all(source: &Source<'_>) -> usize {
    let nodes = source.snapshot.nodes();
    nodes
        .chunk_by(|one, next| stretch_of(one.id) == stretch_of(next.id))
        .count()
}

fn stretch_of(id: NodeId) -> u64 {
    id.number() / CHUNK_IDS
}

fn compressed(source: &Source<'_>, viewer: &Node, stretch: &Stretch<'_>, first: bool) -> Bytes {
    let make = || Bytes::from(frame::compressed(&text(source, stretch, first)));
    if stretch_of(viewer.id) == stretch.number {
        return make();
    }
    let place = Place {
        stretch: stretch.number,
        first,
        class: source.snapshot.compiled().view_class(viewer.id),
    };
    let stamp = stamp(source, stretch);
    let chunks = &source.fragments.chunks;
    if let Some((_, bytes)) = chunks
        .lock()
        .kept
        .get(&place)
        .filter(|kept| kept.0 == stamp)
    {
        return bytes.clone();
    }
    let bytes = make();
    let most = stretches_of_all(source).saturating_add(SPARE);
    chunks.keep(place, stamp, &bytes, most);
    bytes
}

impl Chunks {
    fn keep(&self, place: Place, stamp: u64, bytes: &Bytes, most: usize) {
        let mut cache = self.lock();
        if cache.kept.insert(place, (stamp, bytes.clone())).is_none() {
            cache.order.push_back(place);
        }
        while cache.order.len() > most {
            if let Some(oldest) = cache.order.pop_front() {
                cache.kept.remove(&oldest);
            }
        }
    }

    /// A panic while the lock is held cannot leave half an entry: the cache is taken as it is.
    fn lock(&self) -> MutexGuard<'_, Cache> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What changes whenever the text of a stretch does.
fn stamp(source: &Source<'_>, stretch: &Stretch<'_>) -> u64 {
    let mut hasher = DefaultHasher::new();
    source.tailnet.derp_version.hash(&mut hasher);
    source.tailnet.peers_version.hash(&mut hasher);
    for (node, form) in &stretch.peers {
        (node.id, node.facets.latest(), form).hash(&mut hasher);
    }
    hasher.finish()
}

fn text(source: &Source<'_>, stretch: &Stretch<'_>, first: bool) -> Vec<u8> {
    let mut text = Vec::new();
    for (node, form) in &stretch.peers {
        if !(first && text.is_empty()) {
            text.push(b',');
        }
        text.extend_from_slice(&source.fragments.peer(source, node, form.clone()));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::PLAUSIBLE_FROM;
    use crate::netmap::Tailnet;
    use crate::netmap::fragment::Fragments;
    use crate::state::testing::World;
    use crate::tailcfg::derpmap::DerpMap;

    #[test]
    fn an_uncompressed_list_is_made_of_what_others_are_told_too() {
        let (mut world, _) = World::with_user();
        for number in 1..=4 {
            let id = world.node_number(number);
            world.open_stream(id);
        }
        let snapshot = world.snapshot();
        let source = Source {
            tailnet: &Tailnet::new("t.net".into(), &DerpMap::default()),
            fragments: &Fragments::default(),
            snapshot: &snapshot,
            now: PLAUSIBLE_FROM,
        };
        let [one, two] = [0, 1].map(|at| peers(&source, &snapshot.nodes()[at], false));
        assert_eq!(one.len(), 5);
        assert_eq!([&*one[1], &*one[3]], [b",", b","]);
        assert!(std::ptr::eq(one[4].as_ptr(), two[4].as_ptr()));
    }

    #[test]
    fn nodes_that_come_and_go_do_not_raise_what_is_kept() {
        let (mut world, _) = World::with_user();
        world.node_number(1);
        // As after very many ephemeral nodes.
        world.model.counters.node = NodeId::new(1_000_000).unwrap();
        world.node_number(2);
        let snapshot = world.snapshot();
        let source = Source {
            tailnet: &Tailnet::new("t.net".into(), &DerpMap::default()),
            fragments: &Fragments::default(),
            snapshot: &snapshot,
            now: PLAUSIBLE_FROM,
        };
        assert_eq!(stretches_of_all(&source), 2);
    }
}
