//! Later messages of a stream: what changed since the last one.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use crate::id::{NodeId, Revision, UserId};
use crate::netmap::fragment::{Fragments, self_node};
use crate::netmap::frame::Message;
use crate::netmap::{Tailnet, profile_of, profiles, to_json};
use crate::state::model::{Change, Node};
use crate::state::snapshot::Snapshot;
use crate::tailcfg::map::PeerChange;

/// What has to be said, sorted by how it is said.
#[derive(Default)]
struct News {
    itself: bool,
    removed: BTreeSet<NodeId>,
    whole: BTreeSet<NodeId>,
    patched: BTreeSet<NodeId>,
    users: BTreeSet<UserId>,
}

/// Most bytes of a message that is kept for other viewers.
const SHARED_MAX: usize = 64 * 1024;

/// How many messages are kept: streams are rarely further apart.
const SHARED_MESSAGES: usize = 4;

/// The last messages that are the same for every viewer whom they do not name.
#[derive(Debug, Default)]
pub struct Shared(Mutex<VecDeque<Entry>>);

#[derive(Debug)]
struct Entry {
    since: Revision,
    until: Revision,
    message: Option<Message>,
}

impl Shared {
    fn find(&self, since: Revision, until: Revision) -> Option<Option<Message>> {
        let entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = entries
            .iter()
            .find(|entry| entry.since == since && entry.until == until)?;
        Some(entry.message.clone())
    }

    fn keep(&self, since: Revision, until: Revision, message: &Option<Message>) {
        if message
            .as_ref()
            .is_some_and(|message| message.json().len() > SHARED_MAX)
        {
            return;
        }
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while entries.len() >= SHARED_MESSAGES {
            entries.pop_front();
        }
        entries.push_back(Entry {
            since,
            until,
            message: message.clone(),
        });
    }
}

/// The changes after `since` for `viewer`: `Ok(None)` when there are none for it. A viewer whose key has
/// ended is told of itself only.
///
/// # Errors
/// When `since` is too long ago; then only a full map helps.
pub fn delta(
    tailnet: &Tailnet,
    fragments: &Fragments,
    snapshot: &Snapshot,
    viewer: &Node,
    since: Revision,
) -> Result<Option<Message>, TooLongAgo> {
    let mut changes = snapshot.changes_since(since).ok_or(TooLongAgo)?;
    let special = viewer.expired || changes.any(|change| change == Change::Node(viewer.id));
    let until = snapshot.revision();
    if !special && let Some(message) = fragments.shared.find(since, until) {
        return Ok(message);
    }
    let message = build(tailnet, fragments, snapshot, viewer, since)?.map(Message::new);
    if !special {
        fragments.shared.keep(since, until, &message);
    }
    Ok(message)
}

fn build(
    tailnet: &Tailnet,
    fragments: &Fragments,
    snapshot: &Snapshot,
    viewer: &Node,
    since: Revision,
) -> Result<Option<Vec<u8>>, TooLongAgo> {
    let news = collect(snapshot, viewer, since)?;
    let mut parts = Vec::new();
    if news.itself {
        parts.push(format!(r#""Node":{}"#, self_node(tailnet, viewer)));
    }
    if !news.removed.is_empty() {
        parts.push(format!(r#""PeersRemoved":{}"#, to_json(&news.removed)));
    }
    let nodes = |ids: &BTreeSet<NodeId>| -> Vec<Arc<Node>> {
        ids.iter()
            .filter_map(|id| snapshot.node(*id).cloned())
            .collect()
    };
    let whole = nodes(&news.whole);
    if !whole.is_empty() {
        let peers: Vec<_> = whole
            .iter()
            .map(|node| fragments.peer(tailnet, node))
            .collect();
        let texts: Vec<_> = peers
            .iter()
            .map(|bytes| String::from_utf8_lossy(bytes))
            .collect();
        parts.push(format!(
            r#""UserProfiles":{}"#,
            profiles(snapshot, whole.iter())
        ));
        parts.push(format!(r#""PeersChanged":[{}]"#, texts.join(",")));
    } else if !news.users.is_empty() {
        let users = news.users.iter().filter_map(|id| snapshot.users().get(id));
        let profiles: Vec<_> = users.map(|user| profile_of(user)).collect();
        parts.push(format!(r#""UserProfiles":{}"#, to_json(&profiles)));
    }
    if !news.patched.is_empty() {
        let nodes = nodes(&news.patched);
        let patches: Vec<_> = nodes.iter().map(|node| patch(node, since)).collect();
        parts.push(format!(r#""PeersChangedPatch":{}"#, to_json(&patches)));
    }
    if parts.is_empty() {
        return Ok(None);
    }
    Ok(Some(format!("{{{}}}", parts.join(",")).into_bytes()))
}

/// The remembered changes do not reach back far enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the changes since then are not remembered")]
pub struct TooLongAgo;

fn collect(snapshot: &Snapshot, viewer: &Node, since: Revision) -> Result<News, TooLongAgo> {
    let mut news = News::default();
    for change in snapshot.changes_since(since).ok_or(TooLongAgo)? {
        match change {
            Change::Node(id) if id == viewer.id => news.itself |= viewer.facets.core > since,
            Change::User(id) if viewer.expired && viewer.user() != Some(id) => {}
            Change::Node(_) | Change::NodeRemoved(_) if viewer.expired => {}
            Change::Node(id) => {
                let Some(node) = snapshot
                    .node(id)
                    .filter(|node| node.presence.is_introduced())
                else {
                    continue;
                };
                // More than one side at once goes as a whole: patches that carry a disco key and a
                // presence together are dropped by clients under some conditions.
                let sides = u8::from(node.facets.endpoints > since)
                    .saturating_add(u8::from(node.facets.presence > since));
                if node.facets.core > since || sides > 1 {
                    news.whole.insert(id);
                } else {
                    news.patched.insert(id);
                }
            }
            Change::NodeRemoved(id) => {
                news.removed.insert(id);
            }
            Change::User(id) => {
                news.users.insert(id);
            }
        }
    }
    Ok(news)
}

fn patch(node: &Node, since: Revision) -> PeerChange<'_> {
    let moved = node.facets.endpoints > since;
    let appeared = node.facets.presence > since;
    PeerChange {
        node_id: node.id.number(),
        derp_region: if moved { node.home_derp } else { 0 },
        endpoints: moved.then_some(&*node.endpoints),
        disco_key: node.disco.filter(|_| moved),
        online: appeared.then(|| node.presence.is_online()),
        last_seen: node.presence.last_seen().filter(|_| appeared),
    }
}
