//! Key of a client: its connections, the mesh links that reach it, and the receivers of its packets.

use super::{ConnId, MeshLinkId};
use crate::Limits;

/// Most mesh links that reach one key. A client is connected to one relay, or to two while it
/// changes its home.
const MAX_FORWARDERS: usize = 4;

/// A key and how it is reached.
///
/// Invariants: `connections` is ordered by activity, the last one is the receiver; `destinations`
/// is sorted.
#[derive(Debug, Default)]
pub(super) struct Peer {
    connections: heapless::Vec<ConnId, { Limits::MAX_PER_KEY }>,
    /// Links to the relays to which the key is connected; the first one is used.
    forwarders: Vec<MeshLinkId>,
    /// Connections that were sent a packet from this key. Some may be closed.
    destinations: Vec<ConnId>,
    /// The value of `newest` when the list was last searched for closed connections.
    searched: u64,
}

impl Peer {
    pub(super) fn connections(&self) -> &[ConnId] {
        &self.connections
    }

    pub(super) fn is_connected(&self) -> bool {
        !self.connections.is_empty()
    }

    /// The mesh link to the key, for when it is not connected here.
    pub(super) fn forwarder(&self) -> Option<MeshLinkId> {
        self.forwarders.first().copied()
    }

    /// Adds a link. Returns false if it is known or there are too many.
    pub(super) fn add_forwarder(&mut self, link: MeshLinkId) -> bool {
        let new = self.forwarders.len() < MAX_FORWARDERS && !self.forwarders.contains(&link);
        if new {
            self.forwarders.push(link);
        }
        new
    }

    /// Removes a link. Returns whether it was there.
    pub(super) fn remove_forwarder(&mut self, link: MeshLinkId) -> bool {
        let before = self.forwarders.len();
        self.forwarders.retain(|known| *known != link);
        self.forwarders.len() < before
    }

    /// Whether the key is connected here or reachable through a link.
    pub(super) fn is_reachable(&self) -> bool {
        self.is_connected() || self.forwarder().is_some()
    }

    /// The connection that gets packets for this key.
    pub(super) fn receiver(&self) -> Option<ConnId> {
        self.connections.last().copied()
    }

    /// Adds a connection, which becomes the receiver. The caller has removed one if there were as many
    /// as a key may have.
    pub(super) fn add(&mut self, id: ConnId) {
        let _ = self.connections.push(id);
    }

    pub(super) fn remove(&mut self, id: ConnId) {
        self.connections.retain(|known| *known != id);
    }

    /// Makes a connection the receiver.
    pub(super) fn note_activity(&mut self, id: ConnId) {
        if self.receiver() != Some(id) && self.connections.contains(&id) {
            self.remove(id);
            let _ = self.connections.push(id);
        }
    }

    /// Remembers that `id` was sent a packet from this key. If there are `max`, closed connections are
    /// removed; because this is called for each packet, they are searched again only after new
    /// connections have come (`newest` is the ID of the next one). If none is closed, `id` is not
    /// remembered.
    pub(super) fn note_destination(
        &mut self,
        id: ConnId,
        max: usize,
        newest: u64,
        is_alive: impl Fn(&ConnId) -> bool,
    ) {
        let Err(mut index) = self.destinations.binary_search(&id) else {
            return;
        };
        if self.destinations.len() >= max {
            if self.searched == newest {
                return;
            }
            self.searched = newest;
            self.destinations.retain(is_alive);
            if self.destinations.len() >= max {
                return;
            }
            index = self.destinations.partition_point(|known| *known < id);
        }
        self.destinations.insert(index, id);
    }

    #[cfg(test)]
    pub(super) fn forwarder_count(&self) -> usize {
        self.forwarders.len()
    }

    #[cfg(test)]
    pub(super) fn destination_count(&self) -> usize {
        self.destinations.len()
    }

    /// The connections that get `PeerGone` when the key is gone.
    pub(super) fn into_destinations(self) -> Vec<ConnId> {
        self.destinations
    }
}
