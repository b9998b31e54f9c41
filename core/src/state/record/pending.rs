//! Pending registrations.

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::id::NodeId;
use crate::keys::{LockKey, MachineKey, NodeKey};
use crate::state::model::{PendingRegistration, PendingState};
use crate::state::record::codec::{decode, encode};
use crate::state::record::hostinfo::HostinfoV1;
use crate::state::record::{DecodeError, Stored};

#[derive(Serialize, Deserialize)]
struct PendingV1 {
    id: Box<str>,
    machine: [u8; 32],
    key: [u8; 32],
    lock: Option<[u8; 32]>,
    hostinfo: HostinfoV1,
    ephemeral: bool,
    expiry_ms: Option<i64>,
    capability: u16,
    created_ms: i64,
    state: PendingStateV1,
}

#[derive(Serialize, Deserialize)]
enum PendingStateV1 {
    Waiting,
    Rejected,
    Approved(NodeId),
}

impl Stored for PendingRegistration {
    fn encode(&self) -> Vec<u8> {
        let first = PendingV1 {
            id: self.id.as_str().into(),
            machine: *self.machine.as_bytes(),
            key: *self.key.as_bytes(),
            lock: self.lock.map(|key| *key.as_bytes()),
            hostinfo: HostinfoV1::of(&self.hostinfo),
            ephemeral: self.ephemeral,
            expiry_ms: self.expiry.map(Timestamp::unix_ms),
            capability: self.capability,
            created_ms: self.created.unix_ms(),
            state: match self.state {
                PendingState::Waiting => PendingStateV1::Waiting,
                PendingState::Rejected => PendingStateV1::Rejected,
                PendingState::Approved(node) => PendingStateV1::Approved(node),
            },
        };
        encode(1, &first)
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let first: PendingV1 = decode(bytes)?;
        Ok(Self {
            id: first.id.parse().map_err(|_| DecodeError::Damaged)?,
            machine: MachineKey::from_bytes(first.machine),
            key: NodeKey::from_bytes(first.key),
            lock: first.lock.map(LockKey::from_bytes),
            hostinfo: first.hostinfo.into_domain(Box::default()),
            ephemeral: first.ephemeral,
            expiry: first.expiry_ms.map(Timestamp::from_unix_ms),
            capability: first.capability,
            created: Timestamp::from_unix_ms(first.created_ms),
            state: match first.state {
                PendingStateV1::Waiting => PendingState::Waiting,
                PendingStateV1::Rejected => PendingState::Rejected,
                PendingStateV1::Approved(node) => PendingState::Approved(node),
            },
        })
    }
}
