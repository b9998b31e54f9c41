//! Later messages of a stream: what changed since the last one.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use crate::id::{NodeId, Revision, UserId};
use crate::netmap::fragment::{Form, self_node};
use crate::netmap::frame::Message;
use crate::netmap::full::NO_SSH;
use crate::netmap::{Source, profiles, to_json};
use crate::policy::{Compiled, Touched};
use crate::state::model::{Change, Node};
use crate::tailcfg::map::PeerChange;

/// What has to be said, sorted by how it is said.
#[derive(Default)]
struct News {
    itself: bool,
    removed: BTreeSet<NodeId>,
    whole: BTreeSet<NodeId>,
    patched: BTreeSet<NodeId>,
    users: BTreeSet<UserId>,
    filter: Option<Arc<str>>,
    ssh: Option<Option<Arc<str>>>,
}

/// Most bytes of a message that is kept for other viewers.
const SHARED_MAX: usize = 64 * 1024;

/// How many messages are kept: streams are rarely further apart.
const SHARED_MESSAGES: usize = 8;

/// The last messages that are the same for every viewer of a class whom they do not name.
#[derive(Debug, Default)]
pub struct Shared(Mutex<VecDeque<(Key, Option<Message>)>>);

/// What makes two viewers hear the same.
#[derive(Debug)]
struct Key {
    since: Revision,
    until: Revision,
    /// How they saw the others before and after.
    classes: (u32, u32),
    /// Their filter, if it changed.
    filter: Option<Arc<str>>,
}

impl PartialEq for Key {
    /// Filters are compared by place: equal ones are shared, and no other can have the place of one that
    /// is held here.
    fn eq(&self, other: &Self) -> bool {
        let filters = match (&self.filter, &other.filter) {
            (None, None) => true,
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            _ => false,
        };
        let times = (self.since, self.until) == (other.since, other.until);
        filters && times && self.classes == other.classes
    }
}

impl Shared {
    fn find(&self, wanted: &Key) -> Option<Option<Message>> {
        let entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, message) = entries.iter().find(|(key, _)| key == wanted)?;
        Some(message.clone())
    }

    fn keep(&self, key: Key, message: &Option<Message>) {
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
        entries.push_back((key, message.clone()));
    }
}

/// From where a viewer has to be brought to the present.
pub struct Told<'a> {
    /// The last state of which it was told.
    pub revision: Revision,
    /// What the policy meant then.
    pub compiled: &'a Arc<Compiled>,
}

/// What happened since a viewer was told last, and what it sees of that.
struct View<'a> {
    source: &'a Source<'a>,
    viewer: &'a Node,
    told: &'a Told<'a>,
    touched: Touched,
}

/// The changes since `told` for `viewer`: `Ok(None)` when there are none for it. A viewer that sees nobody
/// is told of itself only.
///
/// # Errors
/// When `told` is too long ago; then only a full map helps.
pub fn delta(
    source: &Source<'_>,
    viewer: &Node,
    told: &Told<'_>,
) -> Result<Option<Message>, TooLongAgo> {
    let compiled = source.snapshot.compiled();
    let touched = match Arc::ptr_eq(told.compiled, compiled) {
        true => Touched::Nodes(Vec::new()),
        false => compiled.touched_since(told.compiled),
    };
    let view = View {
        source,
        viewer,
        told,
        touched,
    };
    let special = view.concerns_viewer()?;
    let key = Key {
        since: told.revision,
        until: source.snapshot.revision(),
        classes: (
            told.compiled.view_class(viewer.id),
            compiled.view_class(viewer.id),
        ),
        filter: view.new_filter(),
    };
    if !special && let Some(message) = source.fragments.shared.find(&key) {
        return Ok(message);
    }
    let message = view.message()?.map(Message::new);
    if !special {
        source.fragments.shared.keep(key, &message);
    }
    Ok(message)
}

/// The remembered changes do not reach back far enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the changes since then are not remembered")]
pub struct TooLongAgo;

impl View<'_> {
    fn changes(&self) -> Result<impl Iterator<Item = Change> + '_, TooLongAgo> {
        let snapshot = self.source.snapshot;
        snapshot.changes_since(self.told.revision).ok_or(TooLongAgo)
    }

    fn is_same_policy(&self) -> bool {
        Arc::ptr_eq(self.told.compiled, self.source.snapshot.compiled())
    }

    /// Whether something of this is about the viewer itself, so that nobody else hears the same.
    fn concerns_viewer(&self) -> Result<bool, TooLongAgo> {
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

    /// The viewer's packet filter, if it is another than before.
    fn new_filter(&self) -> Option<Arc<str>> {
        if self.is_same_policy() || self.viewer.is_isolated() {
            return None;
        }
        let before = self.told.compiled.filter(self.viewer.id);
        let now = self.source.snapshot.compiled().filter(self.viewer.id);
        (!Arc::ptr_eq(&before, &now) && before != now).then_some(now)
    }

    /// The viewer's SSH policy, if it is another than before.
    fn new_ssh(&self) -> Option<Option<Arc<str>>> {
        if self.is_same_policy() || self.viewer.is_isolated() {
            return None;
        }
        let before = self.told.compiled.ssh(self.viewer.id);
        let now = self.source.snapshot.compiled().ssh(self.viewer.id);
        (before != now).then_some(now)
    }

    /// Whether the policy gives the viewer other attributes than before.
    fn has_new_attributes(&self) -> bool {
        let before = self.told.compiled.attributes(self.viewer.id);
        let now = self.source.snapshot.compiled().attributes(self.viewer.id);
        !Arc::ptr_eq(&before, &now) && before != now
    }

    fn message(&self) -> Result<Option<Vec<u8>>, TooLongAgo> {
        let news = self.news()?;
        let Source {
            snapshot,
            fragments,
            ..
        } = *self.source;
        let mut parts = Vec::new();
        if news.itself {
            let node = self_node(self.source, self.viewer);
            parts.push(format!(r#""Node":{node}"#));
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
                .map(|node| {
                    let form = Form::of(snapshot.compiled(), self.viewer.id, node);
                    fragments.peer(self.source, node, form)
                })
                .collect();
            let texts: Vec<_> = peers
                .iter()
                .map(|bytes| String::from_utf8_lossy(bytes))
                .collect();
            parts.push(format!(r#""PeersChanged":[{}]"#, texts.join(",")));
        }
        let viewer = snapshot.node(self.viewer.id).filter(|_| news.itself);
        let owned = whole.iter().chain(viewer);
        let profiles = profiles(snapshot, owned, &news.users);
        if !profiles.is_empty() {
            parts.push(format!(r#""UserProfiles":{}"#, to_json(&profiles)));
        }
        if !news.patched.is_empty() {
            let nodes = nodes(&news.patched);
            let since = self.told.revision;
            let patches: Vec<_> = nodes.iter().map(|node| patch(node, since)).collect();
            parts.push(format!(r#""PeersChangedPatch":{}"#, to_json(&patches)));
        }
        if let Some(filter) = news.filter {
            parts.push(format!(r#""PacketFilters":{{"base":{filter}}}"#));
        }
        if let Some(ssh) = news.ssh {
            let ssh = ssh.as_deref().unwrap_or(NO_SSH);
            parts.push(format!(r#""SSHPolicy":{ssh}"#));
        }
        if parts.is_empty() {
            return Ok(None);
        }
        Ok(Some(format!("{{{}}}", parts.join(",")).into_bytes()))
    }

    fn news(&self) -> Result<News, TooLongAgo> {
        let viewer = self.viewer;
        let since = self.told.revision;
        let mut news = News {
            filter: self.new_filter(),
            ssh: self.new_ssh(),
            itself: !self.is_same_policy() && self.has_new_attributes(),
            ..News::default()
        };
        for change in self.changes()? {
            match change {
                Change::Node(id) if id == viewer.id => news.itself |= viewer.facets.core > since,
                Change::User(id) => {
                    if viewer.user() == Some(id) || self.sees_node_of(id) {
                        news.users.insert(id);
                    }
                }
                Change::Node(id) | Change::NodeRemoved(id) => self.compare(id, &mut news),
            }
        }
        match &self.touched {
            Touched::Nodes(nodes) if !nodes.contains(&viewer.id) => {
                for id in nodes {
                    self.compare(*id, &mut news);
                }
            }
            Touched::Nodes(_) | Touched::Everything => {
                for node in self.source.snapshot.nodes() {
                    self.compare(node.id, &mut news);
                }
            }
        }
        Ok(news)
    }

    fn sees_node_of(&self, user: UserId) -> bool {
        let Source { snapshot, .. } = *self.source;
        let mut nodes = snapshot.nodes().iter();
        !self.viewer.is_isolated()
            && nodes.any(|node| {
                node.user() == Some(user) && snapshot.compiled().are_peers(self.viewer.id, node.id)
            })
    }

    /// What the viewer has to be told of another node, if it saw it before or sees it now.
    fn compare(&self, id: NodeId, news: &mut News) {
        if id == self.viewer.id || self.viewer.is_isolated() {
            return;
        }
        let since = self.told.revision;
        let (before, now) = (self.told.compiled, self.source.snapshot.compiled());
        let was_seen = before.are_peers(self.viewer.id, id);
        let seen = now.are_peers(self.viewer.id, id);
        let Some(node) = self.source.snapshot.node(id).filter(|_| seen) else {
            if was_seen {
                news.removed.insert(id);
            }
            return;
        };
        let (moved, appeared) = (node.facets.endpoints > since, node.facets.presence > since);
        // More than one side at once goes as a whole: patches that carry a disco key and a presence
        // together are dropped by clients under some conditions.
        let whole = !was_seen || node.facets.core > since || (moved && appeared);
        let other_form = || {
            !self.is_same_policy()
                && Form::of(before, self.viewer.id, node) != Form::of(now, self.viewer.id, node)
        };
        if whole || other_form() {
            news.whole.insert(id);
        } else if moved || appeared {
            news.patched.insert(id);
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
        online: appeared.then(|| node.presence.is_online()),
        last_seen: node.presence.last_seen().filter(|_| appeared),
    }
}
