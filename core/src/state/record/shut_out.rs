//! Machines that are shut out.

use crate::keys::MachineKey;
use crate::state::record::codec::{decode, encode};
use crate::state::record::{DecodeError, Stored};

impl Stored for MachineKey {
    fn encode(&self) -> Vec<u8> {
        encode(1, self.as_bytes())
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        decode(bytes).map(Self::from_bytes)
    }
}
