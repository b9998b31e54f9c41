//! One key: its connections, and who had packets from it.

use super::{ConnId, MeshLinkId};

/// Most connections of one key. The reference has no bound; clients have one, or two while they
/// change networks.
pub(super) const MAX_CONNECTIONS: usize = 8;

/// Most relays of the region through which one key is reached. A client is connected to one, or to
/// two while it moves.
const MAX_FORWARDERS: usize = 4;

/// Everything known about a key.
///
/// Invariants: `connections` is ordered by activity, the last one is the receiver; `destinations`
/// is sorted.
#[derive(Debug, Default)]
pub(super) struct Peer {
    connections: heapless::Vec<ConnId, MAX_CONNECTIONS>,
    /// Links to relays that have said that the key is connected to them; the first is used.
    forwarders: Vec<MeshLinkId>,
    /// Connections that were sent a packet from this key. Some may be gone.
    destinations: Vec<ConnId>,
    /// The value of `newest` when the list was last searched for connections that are gone.
    searched: u64,
}

impl Peer {
    pub(super) fn connections(&self) -> &[ConnId] {
        &self.connections
    }

    pub(super) fn is_connected(&self) -> bool {
        !self.connections.is_empty()
    }

    /// The link through which the key is reached when it is not connected here.
    pub(super) fn forwarder(&self) -> Option<MeshLinkId> {
        self.forwarders.first().copied()
    }

    /// Adds a link. Says false if it is known already or there are too many.
    pub(super) fn add_forwarder(&mut self, link: MeshLinkId) -> bool {
        let new = self.forwarders.len() < MAX_FORWARDERS && !self.forwarders.contains(&link);
        if new {
            self.forwarders.push(link);
        }
        new
    }

    /// Removes a link; says whether it was there.
    pub(super) fn remove_forwarder(&mut self, link: MeshLinkId) -> bool {
        let before = self.forwarders.len();
        self.forwarders.retain(|known| *known != link);
        self.forwarders.len() < before
    }

    /// Whether the key is reached at all.
    pub(super) fn is_reachable(&self) -> bool {
        self.is_connected() || self.forwarder().is_some()
    }

    /// The connection that gets packets for this key.
    pub(super) fn receiver(&self) -> Option<ConnId> {
        self.connections.last().copied()
    }

    /// Adds a connection, which becomes the receiver. If there is no room, gives the one that was
    /// removed for it.
    pub(super) fn add(&mut self, id: ConnId) -> Option<ConnId> {
        let surplus = self
            .connections
            .is_full()
            .then(|| self.connections.first().copied())
            .flatten();
        if let Some(surplus) = surplus {
            self.remove(surplus);
        }
        // There is room now.
        let _ = self.connections.push(id);
        surplus
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

    /// Remembers that `id` was sent a packet from this key. When there are `most`, those that are
    /// gone make room; the search for them is repeated only after new connections have come
    /// (`newest` is the id of the next one), because this is called for each packet. If all are
    /// alive the new one is not remembered.
    pub(super) fn note_destination(
        &mut self,
        id: ConnId,
        most: usize,
        newest: u64,
        is_alive: impl Fn(&ConnId) -> bool,
    ) {
        let Err(mut place) = self.destinations.binary_search(&id) else {
            return;
        };
        if self.destinations.len() >= most {
            if self.searched == newest {
                return;
            }
            self.searched = newest;
            self.destinations.retain(is_alive);
            if self.destinations.len() >= most {
                return;
            }
            place = self.destinations.partition_point(|known| *known < id);
        }
        self.destinations.insert(place, id);
    }

    #[cfg(test)]
    pub(super) fn forwarder_count(&self) -> usize {
        self.forwarders.len()
    }

    #[cfg(test)]
    pub(super) fn destination_count(&self) -> usize {
        self.destinations.len()
    }

    /// Who is to be told that the key is gone.
    pub(super) fn into_destinations(self) -> Vec<ConnId> {
        self.destinations
    }
}
