//! API keys.

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::id::ApiKeyId;
use crate::state::model::ApiKey;
use crate::state::record::codec::{decode, encode};
use crate::state::record::{DecodeError, Stored};
use crate::state::secret::SecretHash;

#[derive(Serialize, Deserialize)]
struct ApiKeyV1 {
    id: ApiKeyId,
    prefix: Box<str>,
    hash: [u8; 32],
    expiry_ms: Option<i64>,
    created_ms: i64,
}

impl Stored for ApiKey {
    fn encode(&self) -> Vec<u8> {
        let first = ApiKeyV1 {
            id: self.id,
            prefix: self.prefix.clone(),
            hash: self.hash.to_bytes(),
            expiry_ms: self.expiry.map(Timestamp::unix_ms),
            created_ms: self.created.unix_ms(),
        };
        encode(1, &first)
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let first: ApiKeyV1 = decode(bytes)?;
        Ok(Self {
            id: first.id,
            prefix: first.prefix,
            hash: SecretHash::from_bytes(first.hash),
            expiry: first.expiry_ms.map(Timestamp::from_unix_ms),
            created: Timestamp::from_unix_ms(first.created_ms),
        })
    }
}
