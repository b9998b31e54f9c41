//! The first message of a stream: everything.

use std::sync::Arc;

use crate::clock::Timestamp;
use crate::netmap::fragment::{Fragments, self_node};
use crate::netmap::{Tailnet, profiles, to_json};
use crate::state::model::Node;
use crate::state::snapshot::Snapshot;
use crate::tailcfg::filter::allow_all;

/// About the size of a map without peers and relays, in bytes.
const HEAD_BYTES: usize = 3072;

/// Of whom a map tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The viewer and its peers.
    Everyone,
    /// The viewer alone.
    Itself,
}

/// The whole map of `viewer` as JSON.
///
/// A node whose key has ended sees nobody, whatever the scope.
pub fn full_map(
    tailnet: &Tailnet,
    fragments: &Fragments,
    snapshot: &Snapshot,
    viewer: &Node,
    scope: Scope,
    now: Timestamp,
) -> Vec<u8> {
    let nobody = viewer.expired || scope == Scope::Itself;
    let is_peer =
        |node: &&Arc<Node>| node.id != viewer.id && !nobody && node.presence.is_introduced();
    let peers = || snapshot.nodes().iter().filter(is_peer);
    let peers: Vec<_> = peers()
        .map(|peer| (peer, fragments.peer(tailnet, peer)))
        .collect();
    // The size is known almost to the byte: a buffer that grows would leave its earlier selves behind
    // as holes in a small heap.
    let peers_bytes = peers
        .iter()
        .map(|(_, fragment)| fragment.len().saturating_add(1));
    let rest_bytes = tailnet.derp_map.len().saturating_add(HEAD_BYTES);
    let mut text = Vec::with_capacity(peers_bytes.sum::<usize>().saturating_add(rest_bytes));
    let mut part = |piece: &str| text.extend_from_slice(piece.as_bytes());
    part(r#"{"Node":"#);
    part(&self_node(tailnet, viewer));
    part(r#","DERPMap":"#);
    part(&tailnet.derp_map);
    part(r#","DNSConfig":"#);
    part(&tailnet.dns_config);
    part(r#","Domain":"#);
    part(&to_json(&tailnet.base_domain));
    part(&tailnet.notices.fields(viewer));
    part(r#","CollectServices":false,"Debug":{"DisableLogTail":true},"UserProfiles":"#);
    let itself = snapshot.nodes().iter().filter(|node| node.id == viewer.id);
    part(&profiles(
        snapshot,
        itself.chain(peers.iter().map(|(peer, _)| *peer)),
    ));
    let mut lead: &[u8] = br#","Peers":["#;
    for (_, fragment) in &peers {
        text.extend_from_slice(lead);
        text.extend_from_slice(fragment);
        lead = b",";
    }
    // Without peers the field stays away: an empty list means "no change".
    if lead == b"," {
        text.push(b']');
    }
    let mut part = |piece: &str| text.extend_from_slice(piece.as_bytes());
    part(r#","PacketFilters":{"base":"#);
    part(&to_json(&[allow_all()]));
    part(r#"},"ControlTime":""#);
    part(&now.to_string());
    part("\"}");
    text
}
