//! Room for a client that logs in: which other one is closed for it when there are too many.

use std::net::IpAddr;
use std::task::Waker;

use hearth_shares::pool::Sole;
use hearth_shares::{Held as HeldPlace, Source};

use super::{ClientRole, CloseReason, ConnId, Registry, State};
use crate::Key;
use crate::stats::count;

impl Registry {
    /// Finds a place for a client that logs in, closing another one if need be. `surplus` is the connection
    /// of its key that it replaces. Returns its place among those of its address: none for loopback,
    /// which may be a proxy, and for mesh peers.
    ///
    /// A mesh peer always gets in, and so does a known client where there are strangers. Else a client
    /// gets the place of another one that holds more than it would then: among known clients by key,
    /// among strangers by address.
    ///
    /// # Errors
    /// That the relay is full, or the address has too many connections.
    pub(super) fn make_room(
        &mut self,
        key: Key,
        role: ClientRole,
        source: Source,
        surplus: Option<ConnId>,
    ) -> Result<(Option<HeldPlace<IpAddr>>, Vec<Waker>), CloseReason> {
        let mut gives_way = None;
        let mut place = None;
        if !role.is_mesh_peer && !source.is_loopback() {
            let address = source.narrow();
            place = self.addresses.take(address);
            if place.is_none() {
                place = self.inherit(surplus, address);
            }
            if place.is_none() && !role.is_stranger {
                gives_way = self.oldest_stranger(address);
                place = self.inherit(gives_way, address);
            }
            if place.is_none() {
                return Err(CloseReason::TooManyFromAddress);
            }
        }
        let is_full = self.open >= self.limits.connections;
        if is_full && surplus.is_none() && gives_way.is_none() {
            gives_way = Some(self.gives_way(key, role, source).ok_or(CloseReason::Full)?);
        }
        let mut wakers = Vec::new();
        if let Some(id) = gives_way {
            count(&mut self.stats.crowded_out);
            wakers = self.detach(id);
            wakers.extend(self.close(id, CloseReason::CrowdedOut));
        }
        Ok((place, wakers))
    }

    /// The connection that is closed for a client when the relay is full.
    fn gives_way(&self, key: Key, role: ClientRole, source: Source) -> Option<ConnId> {
        let entry = if role.is_stranger {
            self.strangers.gives_way_to(&source)
        } else {
            let stranger = self.strangers.gives_way();
            stranger.or_else(|| match role.is_mesh_peer {
                true => self.known.gives_way(),
                false => self.known.gives_way_to(&Sole(key)),
            })
        };
        entry.map(|entry| ConnId(entry.number()))
    }

    /// The place of a connection that will be closed, if it is of this address.
    fn inherit(&mut self, from: Option<ConnId>, address: IpAddr) -> Option<HeldPlace<IpAddr>> {
        let slot = self.slots.get_mut(&from?)?;
        let is_same = slot.source().narrow() == address;
        is_same.then(|| slot.place.take()).flatten()
    }

    fn oldest_stranger(&self, address: IpAddr) -> Option<ConnId> {
        let of_address = self.slots.iter().filter(|(_, slot)| {
            matches!(slot.state, State::Open(_))
                && slot.role.is_stranger
                && slot.source().narrow() == address
        });
        of_address.map(|(id, _)| *id).min()
    }
}
