//! The full map: the first message of a stream.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;

use crate::netmap::cache::MapCache;
use crate::netmap::context::MapContext;
use crate::netmap::fragment::self_node;
use crate::netmap::user_profiles::profiles;
use crate::netmap::{chunk, client_version, frame};
use crate::state::model::Node;
use crate::tailcfg::json;

/// Whether a map includes peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The viewer and its peers.
    Everyone,
    /// The viewer only.
    Itself,
}

/// The full map of `viewer`, framed, in pieces to send one after the other; compressed if the client asked for
/// zstd. `more` are further fields, each after a comma.
///
/// A node that is expired or awaits approval gets no peers, whatever the scope.
pub fn full_map(
    context: &MapContext<'_>,
    cache: &MapCache,
    viewer: &Node,
    scope: Scope,
    zstd: bool,
    more: &str,
) -> Vec<Bytes> {
    let peers = match viewer.is_isolated() || scope == Scope::Itself {
        true => Vec::new(),
        false => chunk::peers(context, cache, viewer, zstd),
    };
    let end = |text: String| Bytes::from(frame::encoded(text.as_bytes(), zstd).into_owned());
    let mut pieces = Vec::with_capacity(peers.len().saturating_add(3));
    let with_peers = !peers.is_empty();
    pieces.push(end(head(context, cache, viewer, with_peers)));
    pieces.extend(peers);
    pieces.push(end(tail(context, viewer, with_peers, more)));
    pieces.insert(0, frame::length_of(&pieces));
    pieces
}

/// The fields before the list of peers. Without peers the field is left out: an empty list means "no change".
fn head(context: &MapContext<'_>, cache: &MapCache, viewer: &Node, with_peers: bool) -> String {
    let MapContext {
        shared, snapshot, ..
    } = *context;
    let compiled = snapshot.compiled();
    let nodes = snapshot.nodes().iter();
    let owned = nodes.filter(|node| {
        node.id == viewer.id || with_peers && compiled.are_peers(viewer.id, node.id)
    });
    let profiles = profiles(snapshot, owned, &BTreeSet::new());
    let mut text = String::with_capacity(shared.derp_map.len().saturating_add(4096));
    let mut part = |piece: &str| text.push_str(piece);
    part(r#"{"Node":"#);
    part(&self_node(context, viewer));
    part(r#","DERPMap":"#);
    part(&shared.derp_map);
    part(r#","DNSConfig":"#);
    let (_, dns_config) = cache.dns.text(shared, snapshot, viewer);
    part(&dns_config);
    part(r#","Domain":"#);
    part(&json::plain(&shared.base_domain));
    // The client may remember a plan that was withdrawn.
    if shared.dial_plan_version > 0 || !shared.dial_plan.is_empty() {
        part(",");
        part(&shared.dial_plan.field());
    }
    if let Some(field) = client_version::field(shared.latest_client, viewer) {
        part(",");
        part(&field);
    }
    part(r#","CollectServices":false,"Debug":{"DisableLogTail":true},"UserProfiles":"#);
    part(&json::plain(&profiles));
    if with_peers {
        part(r#","Peers":["#);
    }
    text
}

/// The fields after the list of peers.
fn tail(context: &MapContext<'_>, viewer: &Node, with_peers: bool, more: &str) -> String {
    let compiled = context.snapshot.compiled();
    let mut text = String::new();
    let mut part = |piece: &str| text.push_str(piece);
    if with_peers {
        part("]");
    }
    part(more);
    // Filters name the addresses of sources, so an isolated node gets an empty one.
    let (filter, ssh) = match viewer.is_isolated() {
        true => (Arc::from("[]"), None),
        false => (compiled.filter(viewer.id), compiled.ssh(viewer.id)),
    };
    part(r#","PacketFilters":{"base":"#);
    part(&filter);
    part(r#"},"SSHPolicy":"#);
    part(ssh.as_deref().unwrap_or(NO_SSH));
    part(r#","ControlTime":""#);
    part(&context.now.to_string());
    part("\"}");
    text
}

/// The SSH policy that rejects everyone.
pub(super) const NO_SSH: &str = r#"{"rules":[]}"#;
