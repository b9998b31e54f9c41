//! The first message of a stream: everything.

use std::sync::Arc;

use crate::clock::Timestamp;
use crate::netmap::fragment::{Fragments, self_node};
use crate::netmap::{Tailnet, profiles, to_json};
use crate::state::model::Node;
use crate::state::snapshot::Snapshot;
use crate::tailcfg::filter::allow_all;

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
    let mut text = Vec::with_capacity(4096);
    let mut part = |piece: &str| text.extend_from_slice(piece.as_bytes());
    part(r#"{"Node":"#);
    part(&self_node(tailnet, viewer));
    part(r#","DERPMap":"#);
    part(&tailnet.derp_map);
    part(r#","DNSConfig":"#);
    part(&tailnet.dns_config);
    part(r#","Domain":"#);
    part(&to_json(&tailnet.base_domain));
    part(r#","CollectServices":false,"Debug":{"DisableLogTail":true},"UserProfiles":"#);
    let nobody = viewer.expired || scope == Scope::Itself;
    let is_peer =
        |node: &&Arc<Node>| node.id != viewer.id && !nobody && node.presence.is_introduced();
    let peers = || snapshot.nodes().iter().filter(is_peer);
    let itself = snapshot.nodes().iter().filter(|node| node.id == viewer.id);
    part(&profiles(snapshot, itself.chain(peers())));
    let mut lead: &[u8] = br#","Peers":["#;
    for peer in peers() {
        text.extend_from_slice(lead);
        text.extend_from_slice(&fragments.peer(tailnet, peer));
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
