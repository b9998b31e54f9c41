//! Versions of the policy.

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::id::PolicyId;
use crate::state::model::PolicyText;
use crate::state::record::codec::{decode, encode};
use crate::state::record::{DecodeError, Stored};

#[derive(Serialize, Deserialize)]
struct PolicyV1 {
    id: PolicyId,
    source: Box<str>,
    created_ms: i64,
}

impl Stored for PolicyText {
    fn encode(&self) -> Vec<u8> {
        let first = PolicyV1 {
            id: self.id,
            source: (&*self.source).into(),
            created_ms: self.created.unix_ms(),
        };
        encode(1, &first)
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let first: PolicyV1 = decode(bytes)?;
        Ok(Self {
            id: first.id,
            source: first.source.into(),
            created: Timestamp::from_unix_ms(first.created_ms),
        })
    }
}
