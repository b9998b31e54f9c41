//! One map stream: what it was told last, and what it is told next. Does no I/O.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::clock::Timestamp;
use crate::id::{NodeId, Revision};
use crate::netmap::delta::delta;
use crate::netmap::dns::Told;
use crate::netmap::fragment::Fragments;
use crate::netmap::frame::Message;
use crate::netmap::full::{Scope, full_map};
use crate::netmap::{Tailnet, to_json};
use crate::state::model::{Change, Node, Presence, SessionId};
use crate::state::snapshot::Snapshot;

/// The state of a stream between two messages: small, and no snapshot in it.
#[derive(Debug)]
pub struct MapSession {
    viewer: NodeId,
    session: SessionId,
    told: Revision,
    expired: bool,
    /// Version of the relays that it was told.
    derp_version: u32,
    /// What it was told about DNS.
    dns: Told,
}

/// What a stream does next.
#[derive(Debug)]
pub enum Next {
    /// Nothing: all that is new does not concern it.
    Nothing,
    /// It sends this message.
    Send(Message),
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
    /// A stream of `viewer` that has been told nothing yet.
    pub fn new(viewer: NodeId, session: SessionId) -> Self {
        Self {
            viewer,
            session,
            told: Revision::ZERO,
            expired: false,
            derp_version: 0,
            dns: Told::default(),
        }
    }

    /// The first message.
    pub fn begin(
        &mut self,
        tailnet: &Tailnet,
        fragments: &Fragments,
        snapshot: &Snapshot,
        now: Timestamp,
    ) -> Next {
        let Some(viewer) = snapshot.node(self.viewer) else {
            return Next::End(EndReason::Deleted);
        };
        self.told = snapshot.revision();
        self.expired = viewer.expired;
        self.derp_version = tailnet.derp_version;
        (self.dns, _) = fragments.dns.text(tailnet, snapshot, viewer);
        let map = full_map(tailnet, fragments, snapshot, viewer, Scope::Everyone, now);
        Next::Send(Message::new(map))
    }

    /// The message for all that happened until `snapshot`, and for changes of the relays and of DNS.
    pub fn advance(
        &mut self,
        tailnet: &Tailnet,
        fragments: &Fragments,
        snapshot: &Snapshot,
        now: Timestamp,
    ) -> Next {
        let next = self.advance_nodes(tailnet, fragments, snapshot, now);
        if matches!(next, Next::End(_)) {
            return next;
        }
        // A whole map has told of both already.
        let mut parts = Vec::new();
        if self.derp_version != tailnet.derp_version {
            self.derp_version = tailnet.derp_version;
            parts.push(format!(r#""DERPMap":{}"#, tailnet.derp_map));
        }
        let viewer = snapshot.node(self.viewer);
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
            _ => text.push(b'}'),
        }
        Next::Send(Message::new(text))
    }

    fn advance_nodes(
        &mut self,
        tailnet: &Tailnet,
        fragments: &Fragments,
        snapshot: &Snapshot,
        now: Timestamp,
    ) -> Next {
        let Some(viewer) = snapshot.node(self.viewer) else {
            return Next::End(EndReason::Deleted);
        };
        if viewer.presence != Presence::Online(self.session) {
            return Next::End(EndReason::Superseded);
        }
        if snapshot.revision() <= self.told {
            return Next::Nothing;
        }
        if viewer.expired != self.expired {
            return self.turn(tailnet, fragments, snapshot, now);
        }
        let since = std::mem::replace(&mut self.told, snapshot.revision());
        match delta(tailnet, fragments, snapshot, viewer, since) {
            Ok(Some(message)) => Next::Send(message),
            Ok(None) => Next::Nothing,
            Err(_) => self.start_over(tailnet, fragments, snapshot, now),
        }
    }

    /// The viewer's key has just ended, or lives again.
    fn turn(
        &mut self,
        tailnet: &Tailnet,
        fragments: &Fragments,
        snapshot: &Snapshot,
        now: Timestamp,
    ) -> Next {
        if self.expired {
            return self.start_over(tailnet, fragments, snapshot, now);
        }
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
            .filter(|id| *id != self.viewer)
            .collect();
        let next = self.begin(tailnet, fragments, snapshot, now);
        let Next::Send(message) = next else {
            return next;
        };
        let mut text = message.json().to_vec();
        if text.pop() == Some(b'}') {
            text.extend_from_slice(br#","PeersRemoved":"#);
            text.extend_from_slice(to_json(&others).as_bytes());
            text.push(b'}');
        }
        Next::Send(Message::new(text))
    }

    /// Everything once more. Only a list of peers that is not empty replaces the client's; without
    /// one the stream has to end, and the client begins a new one with nothing.
    fn start_over(
        &mut self,
        tailnet: &Tailnet,
        fragments: &Fragments,
        snapshot: &Snapshot,
        now: Timestamp,
    ) -> Next {
        let is_peer = |node: &Arc<Node>| node.id != self.viewer && node.presence.is_introduced();
        let sees_somebody = snapshot
            .node(self.viewer)
            .is_some_and(|viewer| !viewer.expired)
            && snapshot.nodes().iter().any(is_peer);
        if !sees_somebody {
            return Next::End(EndReason::Behind);
        }
        self.begin(tailnet, fragments, snapshot, now)
    }
}

#[cfg(test)]
mod tests;
