//! Mesh: the other relays of the region. Mesh peers subscribe to the presence of our clients; mesh
//! links reach their clients.

use std::task::Waker;

use super::{ConnId, Forwarded, Registry, State};
use crate::Key;
use crate::frame::Presence;
use crate::queue::{Queue, Route};
use crate::stats::{DropReason, Drops, PacketKind, Tally};

/// ID of a mesh link; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MeshLinkId(u64);

/// A mesh link: the connection to another relay of the region.
#[derive(Debug, Default)]
pub(super) struct LinkSlot {
    queue: Queue,
    waker: Option<Waker>,
}

impl LinkSlot {
    pub(super) fn take_waker(&mut self) -> Option<Waker> {
        self.waker.take()
    }
}

impl Registry {
    /// Queues a presence update for all watchers but the client itself. Source:
    /// `derpserver.Server.broadcastPeerStateChangeLocked`.
    pub(super) fn announce(&mut self, key: Key, presence: Option<Presence>) -> Vec<Waker> {
        let watchers = std::mem::take(&mut self.watchers);
        let wakers = watchers
            .iter()
            .filter_map(|id| self.notify(*id, key, presence));
        let wakers = wakers.collect();
        self.watchers = watchers;
        wakers
    }

    fn notify(&mut self, id: ConnId, key: Key, presence: Option<Presence>) -> Option<Waker> {
        // All connected clients can be new, and as many can have disconnected since.
        let max = self.limits.connections.saturating_mul(2);
        let slot = self.slots.get_mut(&id)?;
        if matches!(slot.state, State::Open(watcher) if watcher == key) {
            return None;
        }
        if !slot.mailbox.push_presence(key, presence, max) {
            slot.missed_presence = true;
        }
        slot.waker.take()
    }

    /// Subscribes a mesh peer to presence updates, and queues the clients connected now. Its driver
    /// is the caller and need not be woken. Source: `derpserver.Server.addWatcher`.
    pub fn watch(&mut self, id: ConnId) {
        self.note_activity(id);
        let Some(slot) = self.slots.get(&id) else {
            return;
        };
        if !matches!(slot.state, State::Open(_))
            || !slot.role.is_mesh_peer
            || self.watchers.contains(&id)
        {
            return;
        }
        let here = self.peers.iter().filter_map(|(key, peer)| {
            let slot = self.slots.get(&peer.receiver()?)?;
            Some((*key, slot.role.presence(slot.conn_info)))
        });
        let here: Vec<(Key, Presence)> = here.collect();
        for (key, presence) in here {
            let _ = self.notify(id, key, Some(presence));
        }
        self.watchers.push(id);
    }

    /// Queues a packet forwarded by a mesh peer for a connection here. It is never forwarded again.
    /// Source: `derpserver.sclient.handleFrameForwardPacket`.
    pub fn forward_from_mesh(
        &mut self,
        id: ConnId,
        source: &Key,
        destination: &Key,
        payload: &[u8],
    ) -> Forwarded {
        self.note_activity(id);
        self.stats.forwarded_in.record(payload.len());
        let peer = self.peers.get(destination);
        let receiver = peer
            .filter(|_| self.restart.is_none())
            .and_then(|peer| peer.receiver());
        if let Some(receiver) = receiver {
            return self.push(receiver, *source, payload);
        }
        self.stats
            .drops
            .record(DropReason::UnknownDestinationOnForward, payload);
        match PacketKind::of(payload) {
            PacketKind::Disco => Forwarded::NotHere,
            PacketKind::Other => Forwarded::Dropped,
        }
    }

    /// Queues a packet for a mesh link.
    pub(super) fn push_to_link(
        &mut self,
        link: MeshLinkId,
        source: Key,
        destination: Key,
        payload: &[u8],
    ) -> Forwarded {
        let Some(link) = self.links.get_mut(&link) else {
            return Forwarded::Dropped;
        };
        let route = Route::Forward {
            source,
            destination,
        };
        let drops = &mut self.stats.drops;
        match link
            .queue
            .push(&route, payload, &self.limits, &self.pool, drops)
        {
            true => Forwarded::queued(link.queue.is_filling(&self.limits), link.waker.take()),
            false => Forwarded::Dropped,
        }
    }

    /// Adds a mesh link, through which no key is reachable yet.
    pub fn add_link(&mut self) -> MeshLinkId {
        let id = MeshLinkId(self.next);
        self.next = self.next.wrapping_add(1);
        self.links.insert(id, LinkSlot::default());
        id
    }

    /// Stores the waker of a link's driver, which calls this at the start of each poll. Returns false
    /// if the link must close.
    pub fn register_link_waker(&mut self, id: MeshLinkId, waker: &Waker) -> bool {
        let Some(link) = self.links.get_mut(&id) else {
            return false;
        };
        link.waker = Some(waker.clone());
        self.restart.is_none()
    }

    /// The send queue of a link.
    pub fn link_queue(&mut self, id: MeshLinkId) -> Option<&mut Queue> {
        self.links.get_mut(&id).map(|link| &mut link.queue)
    }

    /// Counts packets that were written to a link.
    pub fn note_forwarded(&mut self, sent: Tally) {
        self.stats.forwarded_out.add(sent);
    }

    /// Counts packets that a closed link did not send.
    pub fn note_abandoned(&mut self, abandon: impl FnOnce(&mut Drops)) {
        abandon(&mut self.stats.drops);
    }

    /// Makes a key reachable through a link, unless there are too many such keys. Source:
    /// `derpserver.Server.AddPacketForwarder`.
    pub fn add_forwarder(&mut self, id: MeshLinkId, key: Key) {
        if !self.links.contains_key(&id) || self.remote >= self.limits.mesh_keys {
            return;
        }
        if self.peers.entry(key).or_default().add_forwarder(id) {
            self.remote = self.remote.saturating_add(1);
        }
    }

    /// Makes a key unreachable through a link. If it is not reachable otherwise, queues `PeerGone` for
    /// the receivers of its packets; wake their drivers. Source:
    /// `derpserver.Server.RemovePacketForwarder`.
    pub fn remove_forwarder(&mut self, id: MeshLinkId, key: &Key) -> Vec<Waker> {
        let peer = self.peers.get_mut(key);
        if !peer.is_some_and(|peer| peer.remove_forwarder(id)) {
            return Vec::new();
        }
        self.remote = self.remote.saturating_sub(1);
        self.forget_unreachable(*key)
    }

    /// Removes a closed link, and makes the keys behind it unreachable. Wake the drivers.
    pub fn remove_link(&mut self, id: MeshLinkId) -> Vec<Waker> {
        let Some(mut link) = self.links.remove(&id) else {
            return Vec::new();
        };
        while let Some(packet) = link.queue.pop() {
            self.stats
                .drops
                .record(DropReason::GoneDisconnected, packet.payload());
        }
        let through = self.peers.iter_mut().filter_map(|(key, peer)| {
            let was_there = peer.remove_forwarder(id);
            was_there.then_some(*key)
        });
        let through: Vec<Key> = through.collect();
        self.remote = self.remote.saturating_sub(through.len());
        let gone = through.into_iter().map(|key| self.forget_unreachable(key));
        gone.flatten().collect()
    }
}
