//! A map stream: what it sent last, and what it sends next. Does no I/O.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;

use crate::id::{NodeId, Revision};
use crate::netmap::cache::MapCache;
use crate::netmap::context::MapContext;
use crate::netmap::delta::{LastSent, TooLongAgo, delta};
use crate::netmap::display_messages;
use crate::netmap::dns::SentDns;
use crate::netmap::frame::Message;
use crate::netmap::full::{Scope, full_map};
use crate::policy::Compiled;
use crate::state::model::{Change, Node, Presence, SessionId};
use crate::tailcfg::json;

/// The state of a stream between two messages: small, and without a snapshot. The compiled policy that was sent
/// is kept, because it says which peers the client has; all streams share a few of these.
#[derive(Debug)]
pub struct MapSession {
    viewer: NodeId,
    session: SessionId,
    /// Whether its messages are compressed.
    zstd: bool,
    /// Revision of the state that was sent last.
    sent: Revision,
    /// Compiled policy of that state.
    compiled: Arc<Compiled>,
    /// Whether the viewer was isolated in it.
    is_isolated: bool,
    /// Version of the DERP map that was sent.
    derp_version: u32,
    /// Version of the dial plan that was sent.
    dial_plan_version: u32,
    /// Display messages that were sent; empty for none.
    messages: String,
    /// DNS settings that were sent.
    dns: SentDns,
    /// Version of the DNS settings that show in the peers that were sent.
    peers_version: u32,
}

/// What a stream does next.
#[derive(Debug)]
pub enum Next {
    /// Nothing: no change concerns it.
    Nothing,
    /// It sends this message.
    Send(Message),
    /// It sends the full map: these pieces, already framed.
    SendMap(Vec<Bytes>),
    /// It ends.
    End(EndReason),
}

/// Why a stream ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndReason {
    /// The node was deleted.
    Deleted,
    /// The node opened another stream.
    Superseded,
    /// The changes since its last message are no longer in memory.
    Behind,
}

impl MapSession {
    /// A stream of `viewer`, and its first message, the full map.
    pub fn begin(
        viewer: NodeId,
        session: SessionId,
        zstd: bool,
        context: &MapContext<'_>,
        cache: &MapCache,
    ) -> (Self, Next) {
        let mut begun = Self {
            viewer,
            session,
            zstd,
            sent: Revision::ZERO,
            compiled: context.snapshot.compiled().clone(),
            is_isolated: false,
            derp_version: 0,
            dial_plan_version: 0,
            peers_version: 0,
            messages: String::new(),
            dns: SentDns::default(),
        };
        let next = begun.send_full_map(context, cache, &BTreeSet::new());
        (begun, next)
    }

    /// The message for all changes up to `context`: of the state, the DERP map, DNS and the dial plan.
    pub fn advance(&mut self, context: &MapContext<'_>, cache: &MapCache) -> Next {
        let next = self.advance_nodes(context, cache);
        // A full map includes everything.
        if matches!(next, Next::SendMap(_) | Next::End(_)) {
            return next;
        }
        let MapContext {
            shared, snapshot, ..
        } = *context;
        let mut parts = Vec::new();
        if self.derp_version != shared.derp_version {
            self.derp_version = shared.derp_version;
            parts.push(format!(r#""DERPMap":{}"#, shared.derp_map));
        }
        if self.dial_plan_version != shared.dial_plan_version {
            self.dial_plan_version = shared.dial_plan_version;
            parts.push(shared.dial_plan.field());
        }
        let viewer = snapshot.node(self.viewer);
        if let Some(viewer) = viewer {
            parts.extend(self.new_messages(context, viewer));
        }
        let new_dns = |viewer| cache.dns.changed(shared, snapshot, viewer, self.dns);
        if let Some((sent, dns_config)) = viewer.and_then(|viewer| new_dns(viewer)) {
            self.dns = sent;
            parts.push(format!(r#""DNSConfig":{dns_config}"#));
        }
        if parts.is_empty() {
            return next;
        }
        let mut text = format!("{{{}", parts.join(",")).into_bytes();
        match next {
            Next::Send(message) => {
                text.push(b',');
                text.extend_from_slice(message.json().get(1..).unwrap_or_default());
            }
            Next::Nothing | Next::SendMap(_) | Next::End(_) => text.push(b'}'),
        }
        Next::Send(Message::new(text))
    }

    fn send_full_map(
        &mut self,
        context: &MapContext<'_>,
        cache: &MapCache,
        removed: &BTreeSet<NodeId>,
    ) -> Next {
        let Some(viewer) = context.snapshot.node(self.viewer) else {
            return Next::End(EndReason::Deleted);
        };
        let MapContext {
            shared, snapshot, ..
        } = *context;
        self.sent = snapshot.revision();
        self.compiled = snapshot.compiled().clone();
        self.is_isolated = viewer.is_isolated();
        self.derp_version = shared.derp_version;
        self.dial_plan_version = shared.dial_plan_version;
        self.peers_version = shared.peers_version;
        let mut more = String::new();
        if !removed.is_empty() {
            more.push_str(r#","PeersRemoved":"#);
            more.push_str(&json::plain(removed));
        }
        if let Some(messages) = self.new_messages(context, viewer) {
            more.push(',');
            more.push_str(&messages);
        }
        (self.dns, _) = cache.dns.text(shared, snapshot, viewer);
        let pieces = full_map(context, cache, viewer, Scope::Everyone, self.zstd, &more);
        Next::SendMap(pieces)
    }

    /// The field with the display messages, if they changed.
    fn new_messages(&mut self, context: &MapContext<'_>, viewer: &Node) -> Option<String> {
        let messages = display_messages::field(viewer, context.shared);
        if messages == self.messages {
            return None;
        }
        self.messages.clone_from(&messages);
        Some(match messages.is_empty() {
            true => display_messages::removal(viewer),
            false => messages,
        })
    }

    fn advance_nodes(&mut self, context: &MapContext<'_>, cache: &MapCache) -> Next {
        let snapshot = context.snapshot;
        // A state older than the one that was sent may not even know this stream.
        let is_same_peers_version = context.shared.peers_version == self.peers_version;
        let revision = snapshot.revision();
        if revision < self.sent || revision == self.sent && is_same_peers_version {
            return Next::Nothing;
        }
        let Some(viewer) = snapshot.node(self.viewer) else {
            return Next::End(EndReason::Deleted);
        };
        if viewer.presence != Presence::Online(self.session) {
            return Next::End(EndReason::Superseded);
        }
        if viewer.is_isolated() != self.is_isolated {
            return self.on_isolation_change(context, cache);
        }
        if !is_same_peers_version {
            return self.resend_full_map(context, cache);
        }
        let last_sent = LastSent {
            revision: self.sent,
            compiled: &self.compiled,
        };
        let next = delta(context, cache, viewer, &last_sent);
        self.sent = revision;
        match next {
            Ok(message) => {
                self.compiled = snapshot.compiled().clone();
                message.map_or(Next::Nothing, Next::Send)
            }
            Err(TooLongAgo) => self.resend_full_map(context, cache),
        }
    }

    /// The viewer became isolated, or is no longer.
    fn on_isolation_change(&mut self, context: &MapContext<'_>, cache: &MapCache) -> Next {
        if self.is_isolated {
            return self.resend_full_map(context, cache);
        }
        let snapshot = context.snapshot;
        let Some(changes) = snapshot.changes_since(self.sent) else {
            return Next::End(EndReason::Behind);
        };
        let gone = changes.filter_map(|change| match change {
            Change::NodeRemoved(id) => Some(id),
            Change::Node(_) | Change::User(_) => None,
        });
        let present = snapshot.nodes().iter().map(|node| node.id);
        let others: BTreeSet<NodeId> = present
            .chain(gone)
            .filter(|id| self.compiled.are_peers(self.viewer, *id))
            .collect();
        self.send_full_map(context, cache, &others)
    }

    /// Sends the full map again. Only a list of peers that is not empty replaces the client's; without peers the
    /// stream has to end, and the client opens a new one without any peers.
    fn resend_full_map(&mut self, context: &MapContext<'_>, cache: &MapCache) -> Next {
        let snapshot = context.snapshot;
        let viewer = snapshot.node(self.viewer);
        let is_peer = |node: &Arc<Node>| snapshot.compiled().are_peers(self.viewer, node.id);
        let has_peers = viewer.is_some_and(|viewer| !viewer.is_isolated())
            && snapshot.nodes().iter().any(is_peer);
        if !has_peers {
            return Next::End(EndReason::Behind);
        }
        self.send_full_map(context, cache, &BTreeSet::new())
    }
}

#[cfg(test)]
mod tests;
