//! Counters: the next id of each kind.

use serde::{Deserialize, Serialize};

use crate::id::{ApiKeyId, NodeId, PreAuthKeyId, UserId};
use crate::state::model::Counters;
use crate::state::record::codec::{decode, encode};
use crate::state::record::{DecodeError, Stored};

#[derive(Serialize, Deserialize)]
struct CountersV1 {
    node: NodeId,
    user: UserId,
    preauth_key: PreAuthKeyId,
    api_key: ApiKeyId,
}

impl Stored for Counters {
    fn encode(&self) -> Vec<u8> {
        let first = CountersV1 {
            node: self.node,
            user: self.user,
            preauth_key: self.preauth_key,
            api_key: self.api_key,
        };
        encode(1, &first)
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let first: CountersV1 = decode(bytes)?;
        Ok(Self {
            node: first.node,
            user: first.user,
            preauth_key: first.preauth_key,
            api_key: first.api_key,
        })
    }
}
