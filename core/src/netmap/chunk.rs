//! Chunks: parts of a peer list, compressed once for all viewers that see the same.
//!
//! A full map of a thousand peers is half a megabyte, and viewers mostly differ in that each is missing from
//! its own list. So the list is sent as a row of zstd frames, each covering up to [`RANGE_IDS`] node IDs, which
//! clients decode as one text: `DecodeAll` in tailscale `util/zstdframe` accepts concatenated frames (RFC 8878,
//! section 2.2). Only the frame that would hold the viewer itself is made for it alone.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use bytes::Bytes;

use crate::id::NodeId;
use crate::netmap::cache::{ChunkKey, MapCache};
use crate::netmap::context::MapContext;
use crate::netmap::peer_view::PeerView;
use crate::netmap::{fragment, frame};
use crate::state::model::Node;

/// Node IDs in one range: large enough to compress well, small enough that a change of one node costs little.
const RANGE_IDS: u64 = 32;

/// Chunks that are kept beyond one for each range: where the policy divides viewers into classes, those
/// served recently find theirs.
const SPARE_CHUNKS: usize = 64;

/// The peers of a viewer in one range of node IDs.
struct IdRange<'a> {
    number: u64,
    peers: Vec<(&'a Arc<Node>, PeerView)>,
}

/// The peers of `viewer` as the pieces of a JSON list without its brackets; empty if there are none.
pub(super) fn peers(
    context: &MapContext<'_>,
    cache: &MapCache,
    viewer: &Node,
    zstd: bool,
) -> Vec<Bytes> {
    let mut is_first = true;
    let mut pieces = Vec::new();
    for range in id_ranges(context, viewer) {
        if zstd {
            pieces.push(compressed(context, cache, viewer, &range, is_first));
            is_first = false;
            continue;
        }
        // Uncompressed lists are long: send the fragments themselves, which all viewers share.
        for (node, view) in range.peers {
            if !is_first {
                pieces.push(Bytes::from_static(b","));
            }
            is_first = false;
            pieces.push(fragment::peer(context, cache, node, view));
        }
    }
    pieces
}

fn id_ranges<'a>(context: &MapContext<'a>, viewer: &Node) -> Vec<IdRange<'a>> {
    let compiled = context.snapshot.compiled();
    let mut ranges: Vec<IdRange<'a>> = Vec::new();
    for node in context.snapshot.nodes() {
        if !compiled.are_peers(viewer.id, node.id) {
            continue;
        }
        let peer = (node, PeerView::of(compiled, viewer.id, node));
        let number = range_of(node.id);
        match ranges.last_mut().filter(|last| last.number == number) {
            Some(last) => last.peers.push(peer),
            None => ranges.push(IdRange {
                number,
                peers: vec![peer],
            }),
        }
    }
    ranges
}

/// Number of ranges with nodes. IDs are never reused, so there may be far fewer than the highest ID suggests.
fn used_ranges(context: &MapContext<'_>) -> usize {
    let nodes = context.snapshot.nodes();
    nodes
        .chunk_by(|one, next| range_of(one.id) == range_of(next.id))
        .count()
}

fn range_of(id: NodeId) -> u64 {
    id.number() / RANGE_IDS
}

fn compressed(
    context: &MapContext<'_>,
    cache: &MapCache,
    viewer: &Node,
    range: &IdRange<'_>,
    is_first: bool,
) -> Bytes {
    let make = || Bytes::from(frame::compressed(&text(context, cache, range, is_first)));
    if range_of(viewer.id) == range.number {
        return make();
    }
    let key = ChunkKey {
        range: range.number,
        is_first,
        view_class: context.snapshot.compiled().view_class(viewer.id),
    };
    let stamp = stamp(context, range);
    if let Some(bytes) = cache.chunks.get(&key, stamp) {
        return bytes;
    }
    let bytes = make();
    let max = used_ranges(context).saturating_add(SPARE_CHUNKS);
    cache.chunks.insert(key, stamp, &bytes, max);
    bytes
}

/// A hash that changes with the text of a range.
fn stamp(context: &MapContext<'_>, range: &IdRange<'_>) -> u64 {
    let mut hasher = DefaultHasher::new();
    context.shared.derp_version.hash(&mut hasher);
    context.shared.peers_version.hash(&mut hasher);
    for (node, view) in &range.peers {
        (node.id, node.facets.latest(), view).hash(&mut hasher);
    }
    hasher.finish()
}

fn text(
    context: &MapContext<'_>,
    cache: &MapCache,
    range: &IdRange<'_>,
    is_first: bool,
) -> Vec<u8> {
    let mut text = Vec::new();
    for (node, view) in &range.peers {
        if !(is_first && text.is_empty()) {
            text.push(b',');
        }
        text.extend_from_slice(&fragment::peer(context, cache, node, view.clone()));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::PLAUSIBLE_FROM;
    use crate::netmap::shared_data::SharedMapData;
    use crate::state::testing::World;
    use crate::tailcfg::derpmap::DerpMap;

    #[test]
    fn an_uncompressed_list_shares_its_fragments_with_other_viewers() {
        let (mut world, _) = World::with_user();
        for number in 1..=4 {
            let id = world.node_number(number);
            world.open_stream(id);
        }
        let snapshot = world.snapshot();
        let context = MapContext {
            shared: &SharedMapData::new("t.net".into(), &DerpMap::default()),
            snapshot: &snapshot,
            now: PLAUSIBLE_FROM,
        };
        let cache = MapCache::default();
        let [one, two] = [0, 1].map(|at| peers(&context, &cache, &snapshot.nodes()[at], false));
        assert_eq!(one.len(), 5);
        assert_eq!([&*one[1], &*one[3]], [b",", b","]);
        assert!(std::ptr::eq(one[4].as_ptr(), two[4].as_ptr()));
    }

    #[test]
    fn nodes_that_come_and_go_do_not_raise_the_number_of_kept_chunks() {
        let (mut world, _) = World::with_user();
        world.node_number(1);
        // As after very many ephemeral nodes.
        world.model.counters.node = NodeId::new(1_000_000).unwrap();
        world.node_number(2);
        let snapshot = world.snapshot();
        let context = MapContext {
            shared: &SharedMapData::new("t.net".into(), &DerpMap::default()),
            snapshot: &snapshot,
            now: PLAUSIBLE_FROM,
        };
        assert_eq!(used_ranges(&context), 2);
    }
}
