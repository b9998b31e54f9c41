//! The other relays of the region: those that watch who is here, and the links by which keys that
//! are connected to them are reached.

use std::task::Waker;

use super::{ConnId, Forwarded, Registry, State};
use crate::Key;
use crate::frame::Presence;
use crate::queue::{Queue, Route};
use crate::stats::{DropReason, Drops, PacketKind, Tally};

/// Names a link to another relay; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MeshLinkId(u64);

/// A link to another relay.
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
    /// Tells all watchers but the client itself that it has come or gone. Source:
    /// `derpserver.Server.broadcastPeerStateChangeLocked`.
    pub(super) fn announce(&mut self, key: Key, presence: Option<Presence>) -> Vec<Waker> {
        let watchers = std::mem::take(&mut self.watchers);
        let told = watchers
            .iter()
            .filter_map(|id| self.notify(*id, key, presence));
        let wakers = told.collect();
        self.watchers = watchers;
        wakers
    }

    fn notify(&mut self, id: ConnId, key: Key, presence: Option<Presence>) -> Option<Waker> {
        // Each connected client can be news, and as many can have gone since.
        let most = self.limits.connections.saturating_mul(2);
        let slot = self.slots.get_mut(&id)?;
        if matches!(slot.state, State::Open(watcher) if watcher == key) {
            return None;
        }
        if !slot.mailbox.push_presence(key, presence, most) {
            slot.missed_presence = true;
        }
        slot.waker.take()
    }

    /// A relay of the region wants to know who is connected here, and who comes and goes later. Its
    /// driver need not be woken, it is the one that calls. Source: `derpserver.Server.addWatcher`.
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

    /// Queues a packet that another relay forwards, for a connection here. It is never forwarded
    /// again. Source: `derpserver.sclient.handleFrameForwardPacket`.
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

    /// Queues a packet for another relay.
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

    /// Takes a link to another relay, which reaches nobody yet.
    pub fn add_link(&mut self) -> MeshLinkId {
        let id = MeshLinkId(self.next);
        self.next = self.next.wrapping_add(1);
        self.links.insert(id, LinkSlot::default());
        id
    }

    /// Called by the driver of a link at the start of each turn: remembers how to wake it, and says
    /// whether it goes on.
    pub fn register_link_waker(&mut self, id: MeshLinkId, waker: &Waker) -> bool {
        let Some(link) = self.links.get_mut(&id) else {
            return false;
        };
        link.waker = Some(waker.clone());
        self.restart.is_none()
    }

    /// What waits for a link.
    pub fn link_queue(&mut self, id: MeshLinkId) -> Option<&mut Queue> {
        self.links.get_mut(&id).map(|link| &mut link.queue)
    }

    /// Notes packets that were written to a link.
    pub fn note_forwarded(&mut self, sent: Tally) {
        self.stats.forwarded_out.add(sent);
    }

    /// Counts packets that a link leaves behind.
    pub fn note_abandoned(&mut self, abandon: impl FnOnce(&mut Drops)) {
        abandon(&mut self.stats.drops);
    }

    /// A key is connected to the relay at the other end. Does nothing when too many keys are known
    /// already. Source: `derpserver.Server.AddPacketForwarder`.
    pub fn add_forwarder(&mut self, id: MeshLinkId, key: Key) {
        if !self.links.contains_key(&id) || self.remote >= self.limits.mesh_keys {
            return;
        }
        if self.peers.entry(key).or_default().add_forwarder(id) {
            self.remote = self.remote.saturating_add(1);
        }
    }

    /// A key has left the relay at the other end. If it is not reached any more, all who had packets
    /// from it will be told; their drivers are to be woken. Source:
    /// `derpserver.Server.RemovePacketForwarder`.
    pub fn remove_forwarder(&mut self, id: MeshLinkId, key: &Key) -> Vec<Waker> {
        let peer = self.peers.get_mut(key);
        if !peer.is_some_and(|peer| peer.remove_forwarder(id)) {
            return Vec::new();
        }
        self.remote = self.remote.saturating_sub(1);
        self.forget_unreachable(*key)
    }

    /// Removes a link that has ended, with all that is reached through it. The drivers are to be
    /// woken.
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
