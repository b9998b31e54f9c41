//! Handshake initiations held for receivers that are not connected yet.
//!
//! A new node is announced to its peers with its first map request, a moment before it connects to the
//! relay. Without this, the initiation of a peer that dials at once would be lost, and WireGuard
//! retries only after five seconds.

use std::collections::BTreeMap;
use std::time::Duration;

use hearth_shares::pool::{Entry, Pool, Sole};

use crate::Key;

/// Length of a WireGuard handshake initiation in bytes, and its first bytes.
/// Source: `MessageInitiationSize`, `MessageInitiationType` in wireguard-go `device/noise-protocol.go`.
pub(super) const INITIATION_BYTES: usize = 148;
const INITIATION_START: [u8; 4] = [1, 0, 0, 0];

/// Most initiations held in total. When there are more, the sender with the most loses its oldest.
pub(super) const MAX_HELD: usize = 64;

/// How long an initiation is held: after that its sender has sent another one, and no longer accepts
/// the response to this one. Source: `RekeyTimeout` in wireguard-go `device/constants.go`.
pub(super) const HELD_FOR: Duration = Duration::from_secs(5);

/// The payload of a handshake initiation.
pub(super) type Initiation = [u8; INITIATION_BYTES];

/// The payload of a packet, if it is a handshake initiation.
pub(super) fn initiation(payload: &[u8]) -> Option<Initiation> {
    payload
        .starts_with(&INITIATION_START)
        .then(|| payload.try_into().ok())
        .flatten()
}

struct Packet {
    source: Key,
    destination: Key,
    payload: Initiation,
    /// Not delivered from this time on.
    until: Duration,
}

/// The held initiations: at most one for each pair of keys, and each charged to its sender.
pub(super) struct Held {
    places: Pool<Sole<Key>>,
    packets: BTreeMap<Entry, Packet>,
}

impl Held {
    pub(super) fn new() -> Self {
        Held {
            places: Pool::new(MAX_HELD),
            packets: BTreeMap::new(),
        }
    }

    /// Holds an initiation. Returns how many others were dropped: those that are too old, the one of
    /// the same pair of keys, and the one that made room.
    pub(super) fn hold(
        &mut self,
        source: Key,
        destination: Key,
        payload: Initiation,
        now: Duration,
    ) -> usize {
        let mut dropped = self.drop_if(|packet| {
            let is_same = packet.source == source && packet.destination == destination;
            is_same || packet.until <= now
        });
        let (entry, surplus) = self.places.enter(Sole(source));
        if surplus.is_some_and(|surplus| self.packets.remove(&surplus).is_some()) {
            dropped = dropped.saturating_add(1);
        }
        let packet = Packet {
            source,
            destination,
            payload,
            until: now.saturating_add(HELD_FOR),
        };
        self.packets.insert(entry, packet);
        dropped
    }

    /// Takes the initiations for a receiver that has connected, each with its sender. Returns also how
    /// many were dropped because they are too old.
    pub(super) fn take(&mut self, receiver: Key, now: Duration) -> (Vec<(Key, Initiation)>, usize) {
        let dropped = self.drop_if(|packet| packet.until <= now);
        let mine = |packet: &Packet| packet.destination == receiver;
        let packets = self.packets.values().filter(|packet| mine(packet));
        let taken = packets.map(|packet| (packet.source, packet.payload));
        let taken = taken.collect();
        self.drop_if(mine);
        (taken, dropped)
    }

    /// Drops the initiations of a sender that has disconnected: their responses would not reach it.
    /// Returns how many there were.
    pub(super) fn drop_from(&mut self, sender: Key) -> usize {
        self.drop_if(|packet| packet.source == sender)
    }

    fn drop_if(&mut self, is_dropped: impl Fn(&Packet) -> bool) -> usize {
        let before = self.packets.len();
        self.packets.retain(|entry, packet| {
            let is_dropped = is_dropped(packet);
            if is_dropped {
                self.places.leave(*entry);
            }
            !is_dropped
        });
        before.saturating_sub(self.packets.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(mark: u8) -> Key {
        Key::new([mark; 32])
    }

    const PAYLOAD: Initiation = [1; INITIATION_BYTES];

    #[test]
    fn only_whole_initiations_are_recognized() {
        let mut payload = [7; INITIATION_BYTES];
        assert_eq!(initiation(&payload), None);
        payload[..4].copy_from_slice(&INITIATION_START);
        assert_eq!(initiation(&payload), Some(payload));
        assert_eq!(initiation(&payload[1..]), None);
        assert_eq!(initiation(&[&payload[..], b"x"].concat()), None);
    }

    #[test]
    fn initiations_that_the_sender_has_given_up_are_not_delivered() {
        let mut held = Held::new();
        let at = Duration::from_secs;
        held.hold(key(1), key(9), PAYLOAD, at(10));
        held.hold(key(2), key(9), PAYLOAD, at(14));
        assert_eq!(held.take(key(9), at(15)), (vec![(key(2), PAYLOAD)], 1));
        assert_eq!(held.take(key(9), at(15)), (vec![], 0));
    }

    proptest! {
        /// Whatever others do, a sender of a single initiation has it delivered in time, and none is
        /// lost without being counted.
        #[test]
        fn a_flood_of_initiations_costs_its_senders_only(
            flood in proptest::collection::vec((2_u8..6, 10_u8..200), 0..400),
        ) {
            let mut held = Held::new();
            let mut dropped = held.hold(key(1), key(250), PAYLOAD, Duration::ZERO);
            for (source, destination) in &flood {
                dropped += held.hold(key(*source), key(*destination), PAYLOAD, Duration::ZERO);
                prop_assert!(held.packets.len() <= MAX_HELD);
                prop_assert_eq!(held.packets.len(), held.places.len());
            }
            prop_assert_eq!(held.packets.len() + dropped, flood.len() + 1);
            prop_assert_eq!(held.take(key(250), Duration::ZERO).0.len(), 1);
        }
    }
}
