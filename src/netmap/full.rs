//! The first message of a stream: everything.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::netmap::fragment::{routes_for, self_node};
use crate::netmap::{Source, profiles, to_json};
use crate::state::model::Node;

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
/// A node whose key has ended, or that nobody let take part, sees nobody, whatever the scope.
pub fn full_map(source: &Source<'_>, viewer: &Node, scope: Scope) -> Vec<u8> {
    let Source {
        tailnet,
        snapshot,
        fragments,
        now,
    } = *source;
    let compiled = snapshot.compiled();
    let nobody = viewer.is_alone() || scope == Scope::Itself;
    let is_peer = |node: &&Arc<Node>| !nobody && compiled.are_peers(viewer.id, node.id);
    let peers: Vec<_> = snapshot
        .nodes()
        .iter()
        .filter(is_peer)
        .map(|peer| {
            let routes = routes_for(compiled, viewer.id, peer);
            (peer, fragments.peer(source, peer, routes))
        })
        .collect();
    let filter = compiled.filter(viewer.id);
    let ssh = compiled.ssh(viewer.id);
    // The size is known almost to the byte: a buffer that grows would leave its earlier selves behind
    // as holes in a small heap.
    let peers_bytes = peers
        .iter()
        .map(|(_, fragment)| fragment.len().saturating_add(1));
    let ssh_bytes = ssh.as_ref().map_or(0, |ssh| ssh.len());
    let rest_bytes = [tailnet.derp_map.len(), filter.len(), ssh_bytes, HEAD_BYTES];
    let bytes = peers_bytes.chain(rest_bytes).sum();
    let mut text = Vec::with_capacity(bytes);
    let mut part = |piece: &str| text.extend_from_slice(piece.as_bytes());
    part(r#"{"Node":"#);
    part(&self_node(source, viewer));
    part(r#","DERPMap":"#);
    part(&tailnet.derp_map);
    part(r#","DNSConfig":"#);
    part(&tailnet.dns_config);
    part(r#","Domain":"#);
    part(&to_json(&tailnet.base_domain));
    part(r#","CollectServices":false,"Debug":{"DisableLogTail":true},"UserProfiles":"#);
    let itself = snapshot.nodes().iter().filter(|node| node.id == viewer.id);
    let owned = itself.chain(peers.iter().map(|(peer, _)| *peer));
    part(&to_json(&profiles(snapshot, owned, &BTreeSet::new())));
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
    part(&filter);
    part("}");
    part(r#","SSHPolicy":"#);
    part(ssh.as_deref().unwrap_or(NO_SSH));
    part(r#","ControlTime":""#);
    part(&now.to_string());
    part("\"}");
    text
}

/// The SSH policy that lets nobody in.
pub(super) const NO_SSH: &str = r#"{"rules":[]}"#;
