//! One map stream: what it was told last, and what it is told next. Does no I/O.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;

use crate::id::{NodeId, Revision};
use crate::netmap::delta::{Told, TooLongAgo, delta};
use crate::netmap::frame::Message;
use crate::netmap::full::{Scope, full_map};
use crate::netmap::notices::messages_field;
use crate::netmap::{Source, dns, to_json};
use crate::policy::Compiled;
use crate::state::model::{Change, Node, Presence, SessionId};
use crate::tailcfg::notice::DisplayMessages;

/// The state of a stream between two messages: small, and no snapshot in it. What the policy meant is
/// kept, since it tells whom the client knows; all streams share a few of these.
#[derive(Debug)]
pub struct MapSession {
    viewer: NodeId,
    session: SessionId,
    /// Whether its messages are compressed.
    zstd: bool,
    told: Revision,
    compiled: Arc<Compiled>,
    alone: bool,
    /// Version of the relays that it was told.
    derp_version: u32,
    /// Version of the way to the server that it was told.
    dial_plan_version: u32,
    /// The messages for a person that it was told; empty for none.
    messages: String,
    /// What it was told about DNS.
    dns: dns::Told,
    /// Version of the settings that the peers were told by.
    peers_version: u32,
}

/// What a stream does next.
#[derive(Debug)]
pub enum Next {
    /// Nothing: all that is new does not concern it.
    Nothing,
    /// It sends this message.
    Send(Message),
    /// It sends the whole map: these pieces, which are framed already.
    SendMap(Vec<Bytes>),
    /// It ends.
    End(EndReason),
}

/// Why a stream ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndReason {
    /// The node is no more.
    Deleted,
    /// The node opened another stream.
    Superseded,
    /// What it would have to be told is not known any more.
    Behind,
}

impl MapSession {
    /// A stream of `viewer` that begins with the whole map.
    pub fn begin(
        viewer: NodeId,
        session: SessionId,
        zstd: bool,
        source: &Source<'_>,
    ) -> (Self, Next) {
        let mut begun = Self {
            viewer,
            session,
            zstd,
            told: Revision::ZERO,
            compiled: source.snapshot.compiled().clone(),
            alone: false,
            derp_version: 0,
            dial_plan_version: 0,
            peers_version: 0,
            messages: String::new(),
            dns: dns::Told::default(),
        };
        let next = begun.tell_everything(source, &BTreeSet::new());
        (begun, next)
    }

    /// The message for all that happened until `source`, and for changes of the relays, of DNS and of the way to
    /// the server.
    pub fn advance(&mut self, source: &Source<'_>) -> Next {
        let next = self.advance_nodes(source);
        // A whole map has told of all of it already.
        if matches!(next, Next::SendMap(_) | Next::End(_)) {
            return next;
        }
        let Source {
            tailnet,
            fragments,
            snapshot,
            ..
        } = *source;
        let mut parts = Vec::new();
        if self.derp_version != tailnet.derp_version {
            self.derp_version = tailnet.derp_version;
            parts.push(format!(r#""DERPMap":{}"#, tailnet.derp_map));
        }
        if self.dial_plan_version != tailnet.dial_plan_version {
            self.dial_plan_version = tailnet.dial_plan_version;
            parts.push(tailnet.notices.dial_plan_field());
        }
        let viewer = snapshot.node(self.viewer);
        if let Some(viewer) = viewer {
            parts.extend(self.new_messages(source, viewer));
        }
        let of_dns = |viewer| fragments.dns.news(tailnet, snapshot, viewer, self.dns);
        if let Some((told, dns_config)) = viewer.and_then(|viewer| of_dns(viewer)) {
            self.dns = told;
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

    fn tell_everything(&mut self, source: &Source<'_>, removed: &BTreeSet<NodeId>) -> Next {
        let Some(viewer) = source.snapshot.node(self.viewer) else {
            return Next::End(EndReason::Deleted);
        };
        self.told = source.snapshot.revision();
        self.compiled = source.snapshot.compiled().clone();
        self.alone = viewer.is_isolated();
        self.derp_version = source.tailnet.derp_version;
        self.dial_plan_version = source.tailnet.dial_plan_version;
        self.peers_version = source.tailnet.peers_version;
        let mut more = String::new();
        if !removed.is_empty() {
            more.push_str(r#","PeersRemoved":"#);
            more.push_str(&to_json(removed));
        }
        if let Some(messages) = self.new_messages(source, viewer) {
            more.push(',');
            more.push_str(&messages);
        }
        let texts = &source.fragments.dns;
        (self.dns, _) = texts.text(source.tailnet, source.snapshot, viewer);
        Next::SendMap(full_map(source, viewer, Scope::Everyone, self.zstd, &more))
    }

    /// The field with the messages for a person, if they are others than those that were told.
    fn new_messages(&mut self, source: &Source<'_>, viewer: &Node) -> Option<String> {
        let messages = source.tailnet.notices.messages(viewer);
        if messages == self.messages {
            return None;
        }
        self.messages.clone_from(&messages);
        Some(match messages.is_empty() {
            true => messages_field(viewer, &DisplayMessages::new()),
            false => messages,
        })
    }

    fn advance_nodes(&mut self, source: &Source<'_>) -> Next {
        let snapshot = source.snapshot;
        // A state from before the one that was told may not even know of this stream.
        let are_peers_as_told = source.tailnet.peers_version == self.peers_version;
        if snapshot.revision() < self.told || snapshot.revision() == self.told && are_peers_as_told
        {
            return Next::Nothing;
        }
        let Some(viewer) = snapshot.node(self.viewer) else {
            return Next::End(EndReason::Deleted);
        };
        if viewer.presence != Presence::Online(self.session) {
            return Next::End(EndReason::Superseded);
        }
        if viewer.is_isolated() != self.alone {
            return self.turn(source);
        }
        if !are_peers_as_told {
            return self.start_over(source);
        }
        let told = Told {
            revision: self.told,
            compiled: &self.compiled,
        };
        let next = delta(source, viewer, &told);
        self.told = snapshot.revision();
        match next {
            Ok(message) => {
                self.compiled = snapshot.compiled().clone();
                message.map_or(Next::Nothing, Next::Send)
            }
            Err(TooLongAgo) => self.start_over(source),
        }
    }

    /// The viewer sees nobody from now on, or sees the others again.
    fn turn(&mut self, source: &Source<'_>) -> Next {
        if self.alone {
            return self.start_over(source);
        }
        let snapshot = source.snapshot;
        let Some(changes) = snapshot.changes_since(self.told) else {
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
        self.tell_everything(source, &others)
    }

    /// Everything once more. Only a list of peers that is not empty replaces the client's; without
    /// one the stream has to end, and the client begins a new one with nothing.
    fn start_over(&mut self, source: &Source<'_>) -> Next {
        let snapshot = source.snapshot;
        let viewer = snapshot.node(self.viewer);
        let is_peer = |node: &Arc<Node>| snapshot.compiled().are_peers(self.viewer, node.id);
        let sees_somebody = viewer.is_some_and(|viewer| !viewer.is_isolated())
            && snapshot.nodes().iter().any(is_peer);
        if !sees_somebody {
            return Next::End(EndReason::Behind);
        }
        self.tell_everything(source, &BTreeSet::new())
    }
}

#[cfg(test)]
mod tests;
