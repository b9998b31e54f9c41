//! Deltas: the later messages of a stream, with what changed since the last one.

use std::cell::OnceCell;
use std::collections::BTreeSet;
use std::sync::Arc;

use crate::id::{NodeId, Revision, UserId};
use crate::netmap::cache::{DeltaKey, MapCache};
use crate::netmap::context::MapContext;
use crate::netmap::fragment::{self, self_node};
use crate::netmap::frame::Message;
use crate::netmap::full::NO_SSH;
use crate::netmap::peer_view::PeerView;
use crate::netmap::user_profiles::{owner_number, profiles};
use crate::policy::{Compiled, Touched};
use crate::state::model::{Change, Node};
use crate::tailcfg::json;
use crate::tailcfg::map::PeerChange;

/// The state that a viewer was last sent.
pub struct LastSent<'a> {
    /// Revision of the state.
    pub revision: Revision,
    /// The compiled policy of that state.
    pub compiled: &'a Arc<Compiled>,
}

/// The state changes since the last message are no longer in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the changes since the last message are no longer in memory")]
pub struct TooLongAgo;

/// The changes since `last_sent` for `viewer`: `Ok(None)` if there are none for it. An isolated viewer only gets
/// changes of itself.
///
/// # Errors
/// [`TooLongAgo`]; then only a full map helps.
pub fn delta(
    context: &MapContext<'_>,
    cache: &MapCache,
    viewer: &Node,
    last_sent: &LastSent<'_>,
) -> Result<Option<Message>, TooLongAgo> {
    let compiled = context.snapshot.compiled();
    let touched = match Arc::ptr_eq(last_sent.compiled, compiled) {
        true => Touched::Nodes(Vec::new()),
        false => compiled.touched_since(last_sent.compiled),
    };
    let update = Update {
        context,
        cache,
        viewer,
        last_sent,
        touched,
        known_owners: OnceCell::new(),
    };
    let viewer_affected = update.viewer_affected()?;
    let key = DeltaKey {
        since: last_sent.revision,
        until: context.snapshot.revision(),
        view_classes: (
            last_sent.compiled.view_class(viewer.id),
            compiled.view_class(viewer.id),
        ),
        filter: update.new_filter(),
    };
    if !viewer_affected && let Some(message) = cache.deltas.get(&key) {
        return Ok(message);
    }
    let message = update.message()?.map(Message::new);
    if !viewer_affected {
        cache.deltas.insert(key, &message);
    }
    Ok(message)
}

/// What a viewer has to be sent, by field.
#[derive(Default)]
struct PendingChanges {
    /// Whether the viewer's own node changed.
    self_node: bool,
    removed: BTreeSet<NodeId>,
    /// Peers to send in full.
    changed: BTreeSet<NodeId>,
    /// Peers to send as a patch.
    patched: BTreeSet<NodeId>,
    users: BTreeSet<UserId>,
    /// Whether a profile is sent that the client may not show yet.
    new_profiles: bool,
    filter: Option<Arc<str>>,
    ssh: Option<Option<Arc<str>>>,
}

/// One delta in the making.
struct Update<'a> {
    context: &'a MapContext<'a>,
    cache: &'a MapCache,
    viewer: &'a Node,
    last_sent: &'a LastSent<'a>,
    touched: Touched,
    /// See [`Self::known_owners`].
    known_owners: OnceCell<BTreeSet<u64>>,
}

impl Update<'_> {
    fn changes(&self) -> Result<impl Iterator<Item = Change> + '_, TooLongAgo> {
        let snapshot = self.context.snapshot;
        snapshot
            .changes_since(self.last_sent.revision)
            .ok_or(TooLongAgo)
    }

    fn is_same_policy(&self) -> bool {
        Arc::ptr_eq(self.last_sent.compiled, self.context.snapshot.compiled())
    }

    /// Whether a change affects the viewer itself, so that its delta cannot be shared.
    fn viewer_affected(&self) -> Result<bool, TooLongAgo> {
        let viewer = self.viewer;
        let about = |change: Change| match change {
            Change::Node(id) => id == viewer.id,
            Change::User(id) => viewer.user() == Some(id),
            Change::NodeRemoved(_) => false,
        };
        let touched = match &self.touched {
            Touched::Nodes(nodes) => nodes.contains(&viewer.id),
            Touched::Everything => true,
        };
        Ok(viewer.is_isolated()
            || touched
            || self.changes()?.any(about)
            || self.new_ssh().is_some())
    }

    /// The viewer's packet filter, if it changed.
    fn new_filter(&self) -> Option<Arc<str>> {
        if self.is_same_policy() || self.viewer.is_isolated() {
            return None;
        }
        let before = self.last_sent.compiled.filter(self.viewer.id);
        let now = self.context.snapshot.compiled().filter(self.viewer.id);
        (!Arc::ptr_eq(&before, &now) && before != now).then_some(now)
    }

    /// The viewer's SSH policy, if it changed.
    fn new_ssh(&self) -> Option<Option<Arc<str>>> {
        if self.is_same_policy() || self.viewer.is_isolated() {
            return None;
        }
        let before = self.last_sent.compiled.ssh(self.viewer.id);
        let now = self.context.snapshot.compiled().ssh(self.viewer.id);
        (before != now).then_some(now)
    }

    /// Whether the viewer's attributes by policy changed.
    fn has_new_attributes(&self) -> bool {
        let before = self.last_sent.compiled.attributes(self.viewer.id);
        let now = self.context.snapshot.compiled().attributes(self.viewer.id);
        !Arc::ptr_eq(&before, &now) && before != now
    }

    fn message(&self) -> Result<Option<Vec<u8>>, TooLongAgo> {
        let pending = self.pending_changes()?;
        let snapshot = self.context.snapshot;
        let mut parts = Vec::new();
        if pending.self_node {
            let node = self_node(self.context, self.viewer);
            parts.push(format!(r#""Node":{node}"#));
        }
        if !pending.removed.is_empty() {
            let removed = json::plain(&pending.removed);
            parts.push(format!(r#""PeersRemoved":{removed}"#));
        }
        let nodes = |ids: &BTreeSet<NodeId>| -> Vec<Arc<Node>> {
            ids.iter()
                .filter_map(|id| snapshot.node(*id).cloned())
                .collect()
        };
        let changed = nodes(&pending.changed);
        if !changed.is_empty() {
            let peers: Vec<_> = changed
                .iter()
                .map(|node| {
                    let view = PeerView::of(snapshot.compiled(), self.viewer.id, node);
                    fragment::peer(self.context, self.cache, node, view)
                })
                .collect();
            let texts: Vec<_> = peers
                .iter()
                .map(|bytes| String::from_utf8_lossy(bytes))
                .collect();
            parts.push(format!(r#""PeersChanged":[{}]"#, texts.join(",")));
        }
        let viewer = snapshot.node(self.viewer.id);
        let owned = changed.iter().chain(viewer.filter(|_| pending.self_node));
        let profiles = profiles(snapshot, owned, &pending.users);
        if !profiles.is_empty() {
            parts.push(format!(r#""UserProfiles":{}"#, json::plain(&profiles)));
        }
        if pending.new_profiles && !pending.self_node {
            // Clients that apply a change step by step show new profiles only after they have made their map from scratch,
            // which this field makes them do: `mapResponseContainsNonPatchFields` in tailscale `types/netmap/nodemut.go`,
            // and `populatePeerStatusLocked` in `ipn/ipnlocal/local.go`. Until then `tailscale status` shows `userid:3`.
            let domain = json::plain(&self.context.shared.base_domain);
            parts.push(format!(r#""Domain":{domain}"#));
        }
        if !pending.patched.is_empty() {
            let nodes = nodes(&pending.patched);
            let since = self.last_sent.revision;
            let patches: Vec<_> = nodes.iter().map(|node| patch(node, since)).collect();
            parts.push(format!(r#""PeersChangedPatch":{}"#, json::plain(&patches)));
        }
        if let Some(filter) = pending.filter {
            parts.push(format!(r#""PacketFilters":{{"base":{filter}}}"#));
        }
        if let Some(ssh) = pending.ssh {
            let ssh = ssh.as_deref().unwrap_or(NO_SSH);
            parts.push(format!(r#""SSHPolicy":{ssh}"#));
        }
        if parts.is_empty() {
            return Ok(None);
        }
        Ok(Some(format!("{{{}}}", parts.join(",")).into_bytes()))
    }

    fn pending_changes(&self) -> Result<PendingChanges, TooLongAgo> {
        let viewer = self.viewer;
        let since = self.last_sent.revision;
        let mut pending = PendingChanges {
            filter: self.new_filter(),
            ssh: self.new_ssh(),
            self_node: !self.is_same_policy() && self.has_new_attributes(),
            ..PendingChanges::default()
        };
        for change in self.changes()? {
            match change {
                Change::Node(id) if id == viewer.id => {
                    pending.self_node |= viewer.facets.core > since;
                }
                Change::User(id) => {
                    if viewer.user() == Some(id) || self.sees_node_of(id) {
                        pending.users.insert(id);
                        pending.new_profiles = true;
                    }
                }
                Change::Node(id) | Change::NodeRemoved(id) => self.compare(id, &mut pending),
            }
        }
        match &self.touched {
            Touched::Nodes(nodes) if !nodes.contains(&viewer.id) => {
                for id in nodes {
                    self.compare(*id, &mut pending);
                }
            }
            Touched::Nodes(_) | Touched::Everything => {
                for node in self.context.snapshot.nodes() {
                    self.compare(node.id, &mut pending);
                }
            }
        }
        Ok(pending)
    }

    fn sees_node_of(&self, user: UserId) -> bool {
        let snapshot = self.context.snapshot;
        let mut nodes = snapshot.nodes().iter();
        !self.viewer.is_isolated()
            && nodes.any(|node| {
                node.user() == Some(user) && snapshot.compiled().are_peers(self.viewer.id, node.id)
            })
    }

    /// The owners of the peers that the viewer had before, each for a node that it owns all along: the client shows their
    /// profiles. The viewer's own is left out, so that all viewers of a class may be sent the same: the only node that counts here and is not
    /// a peer of one of them is that viewer itself, which shows its own owner too.
    fn known_owners(&self) -> &BTreeSet<u64> {
        self.known_owners.get_or_init(|| {
            let since = self.last_sent.revision;
            let before = self.last_sent.compiled;
            let nodes = self.context.snapshot.nodes().iter();
            let known = nodes.filter(|node| {
                node.facets.owner <= since && before.are_peers(self.viewer.id, node.id)
            });
            known.map(|node| owner_number(node)).collect()
        })
    }

    /// Adds what the viewer has to be sent of another node, if it was or is a peer.
    fn compare(&self, id: NodeId, pending: &mut PendingChanges) {
        if id == self.viewer.id || self.viewer.is_isolated() {
            return;
        }
        let since = self.last_sent.revision;
        let (before, now) = (self.last_sent.compiled, self.context.snapshot.compiled());
        let was_peer = before.are_peers(self.viewer.id, id);
        let is_peer = now.are_peers(self.viewer.id, id);
        let Some(node) = self.context.snapshot.node(id).filter(|_| is_peer) else {
            if was_peer {
                pending.removed.insert(id);
            }
            return;
        };
        let (moved, appeared) = (node.facets.endpoints > since, node.facets.presence > since);
        // Changes of both facets are sent in full: clients drop some patches that carry a disco key and a presence
        // together.
        let in_full = !was_peer || node.facets.core > since || (moved && appeared);
        let has_new_view = || {
            !self.is_same_policy()
                && PeerView::of(before, self.viewer.id, node)
                    != PeerView::of(now, self.viewer.id, node)
        };
        if in_full || has_new_view() {
            pending.changed.insert(id);
            pending.new_profiles |= match was_peer {
                true => node.facets.owner > since,
                false => !self.known_owners().contains(&owner_number(node)),
            };
        } else if moved || appeared {
            pending.patched.insert(id);
        }
    }
}

fn patch(node: &Node, since: Revision) -> PeerChange<'_> {
    let moved = node.facets.endpoints > since;
    let appeared = node.facets.presence > since;
    PeerChange {
        node_id: node.id.number(),
        derp_region: if moved { node.home_derp } else { 0 },
        endpoints: moved.then_some(&*node.endpoints),
        disco_key: node.disco.filter(|_| moved),
        online: appeared.then(|| node.is_online()),
        last_seen: node.last_seen().filter(|_| appeared),
    }
}
