//! The first message of a stream: everything.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;

use crate::netmap::fragment::self_node;
use crate::netmap::{Source, chunk, frame, profiles, to_json};
use crate::state::model::Node;

/// Of whom a map tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The viewer and its peers.
    Everyone,
    /// The viewer alone.
    Itself,
}

/// The whole map of `viewer`, framed, in pieces to be sent one after the other; compressed when the client
/// asked for zstd. `more` are further fields, each after a comma.
///
/// A node whose key has ended, or that nobody let take part, sees nobody, whatever the scope.
pub fn full_map(
    source: &Source<'_>,
    viewer: &Node,
    scope: Scope,
    zstd: bool,
    more: &str,
) -> Vec<Bytes> {
    let peers = match viewer.is_isolated() || scope == Scope::Itself {
        true => Vec::new(),
        false => chunk::peers(source, viewer, zstd),
    };
    let end = |text: String| Bytes::from(frame::encoded(text.as_bytes(), zstd).into_owned());
    let mut pieces = Vec::with_capacity(peers.len().saturating_add(3));
    let tells_of_peers = !peers.is_empty();
    pieces.push(end(head(source, viewer, tells_of_peers)));
    pieces.extend(peers);
    pieces.push(end(tail(source, viewer, tells_of_peers, more)));
    pieces.insert(0, frame::length_of(&pieces));
    pieces
}

/// All but the peers, up to where their list begins. Without peers the field stays away: an empty list
/// means "no change".
fn head(source: &Source<'_>, viewer: &Node, with_peers: bool) -> String {
    let Source {
        tailnet,
        fragments,
        snapshot,
        ..
    } = *source;
    let compiled = snapshot.compiled();
    let nodes = snapshot.nodes().iter();
    let owned = nodes.filter(|node| {
        node.id == viewer.id || with_peers && compiled.are_peers(viewer.id, node.id)
    });
    let profiles = profiles(snapshot, owned, &BTreeSet::new());
    let mut text = String::with_capacity(tailnet.derp_map.len().saturating_add(4096));
    let mut part = |piece: &str| text.push_str(piece);
    part(r#"{"Node":"#);
    part(&self_node(source, viewer));
    part(r#","DERPMap":"#);
    part(&tailnet.derp_map);
    part(r#","DNSConfig":"#);
    let (_, dns_config) = fragments.dns.text(tailnet, snapshot, viewer);
    part(&dns_config);
    part(r#","Domain":"#);
    part(&to_json(&tailnet.base_domain));
    part(
        &tailnet
            .notices
            .fields(viewer, tailnet.dial_plan_version > 0),
    );
    part(r#","CollectServices":false,"Debug":{"DisableLogTail":true},"UserProfiles":"#);
    part(&to_json(&profiles));
    if with_peers {
        part(r#","Peers":["#);
    }
    text
}

/// What comes after the peers.
fn tail(source: &Source<'_>, viewer: &Node, with_peers: bool, more: &str) -> String {
    let compiled = source.snapshot.compiled();
    let mut text = String::new();
    let mut part = |piece: &str| text.push_str(piece);
    if with_peers {
        part("]");
    }
    part(more);
    // Filters name the addresses of sources: who sees nobody is told none.
    let (filter, ssh) = match viewer.is_isolated() {
        true => (Arc::from("[]"), None),
        false => (compiled.filter(viewer.id), compiled.ssh(viewer.id)),
    };
    part(r#","PacketFilters":{"base":"#);
    part(&filter);
    part(r#"},"SSHPolicy":"#);
    part(ssh.as_deref().unwrap_or(NO_SSH));
    part(r#","ControlTime":""#);
    part(&source.now.to_string());
    part("\"}");
    text
}

/// The SSH policy that lets nobody in.
pub(super) const NO_SSH: &str = r#"{"rules":[]}"#;
