//! API keys.

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::id::ApiKeyId;
use crate::state::model::ApiKey;
use crate::state::record::codec::{Reader, encode};
use crate::state::record::ending::EndingV1;
use crate::state::record::{DecodeError, Stored};
use crate::state::scope::Scopes;
use crate::state::secret::SecretHash;

const NEWEST: u8 = 3;

#[derive(Serialize, Deserialize)]
struct ApiKeyV1 {
    id: ApiKeyId,
    prefix: Box<str>,
    hash: [u8; 32],
    expiry_ms: Option<i64>,
    created_ms: i64,
}

/// What version 2 added.
#[derive(Serialize, Deserialize)]
struct ApiKeyV2 {
    scopes: u64,
}

/// What version 3 added.
#[derive(Serialize, Deserialize)]
struct ApiKeyV3 {
    ending: EndingV1,
}

impl ApiKeyV2 {
    /// For a key of version 1, which could do everything.
    const BEFORE: Self = Self {
        scopes: Scopes::ALL.to_bits(),
    };
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
        let second = ApiKeyV2 {
            scopes: self.scopes.to_bits(),
        };
        let third = ApiKeyV3 {
            ending: self.ending.into(),
        };
        encode(NEWEST, &(first, second, third))
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::open(bytes, NEWEST)?;
        let first: ApiKeyV1 = reader.read()?;
        let second = reader.added(2, ApiKeyV2::BEFORE)?;
        let by_hand = first.expiry_ms.is_some_and(|end| end <= 0);
        let ending = EndingV1::before(first.expiry_ms, by_hand);
        let ApiKeyV3 { ending } = reader.added(3, ApiKeyV3 { ending })?;
        Ok(Self {
            id: first.id,
            prefix: first.prefix,
            hash: SecretHash::from_bytes(first.hash),
            scopes: Scopes::from_bits(second.scopes),
            expiry: first.expiry_ms.map(Timestamp::from_unix_ms),
            ending: ending.into(),
            created: Timestamp::from_unix_ms(first.created_ms),
        })
    }
}
