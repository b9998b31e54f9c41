//! Preauth keys.

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::id::{PreAuthKeyId, UserId};
use crate::state::model::PreAuthKey;
use crate::state::record::codec::{Reader, encode};
use crate::state::record::ending::EndingV1;
use crate::state::record::{DecodeError, Stored};
use crate::state::secret::SecretHash;

const NEWEST: u8 = 3;

#[derive(Serialize, Deserialize)]
struct PreAuthKeyV1 {
    id: PreAuthKeyId,
    prefix: Box<str>,
    hash: [u8; 32],
    user: Option<UserId>,
    tags: Vec<Box<str>>,
    reusable: bool,
    ephemeral: bool,
    used: bool,
    expiry_ms: Option<i64>,
    created_ms: i64,
}

/// What version 2 added.
#[derive(Serialize, Deserialize)]
struct PreAuthKeyV2 {
    preauthorized: bool,
}

/// What version 3 added.
#[derive(Serialize, Deserialize)]
struct PreAuthKeyV3 {
    ending: EndingV1,
}

impl PreAuthKeyV2 {
    /// For a key of version 1, when no device needed approval.
    const BEFORE: Self = Self {
        preauthorized: true,
    };
}

impl Stored for PreAuthKey {
    fn encode(&self) -> Vec<u8> {
        let first = PreAuthKeyV1 {
            id: self.id,
            prefix: self.prefix.clone(),
            hash: self.hash.to_bytes(),
            user: self.user,
            tags: self.tags.to_vec(),
            reusable: self.reusable,
            ephemeral: self.ephemeral,
            used: self.used,
            expiry_ms: self.expiry.map(Timestamp::unix_ms),
            created_ms: self.created.unix_ms(),
        };
        let second = PreAuthKeyV2 {
            preauthorized: self.preauthorized,
        };
        let third = PreAuthKeyV3 {
            ending: self.ending.into(),
        };
        encode(NEWEST, &(first, second, third))
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::open(bytes, NEWEST)?;
        let first: PreAuthKeyV1 = reader.read()?;
        let second = reader.added(2, PreAuthKeyV2::BEFORE)?;
        let by_hand = first.expiry_ms.is_some_and(|end| end <= 0);
        let ending = EndingV1::before(first.expiry_ms, by_hand);
        let PreAuthKeyV3 { ending } = reader.added(3, PreAuthKeyV3 { ending })?;
        Ok(Self {
            id: first.id,
            prefix: first.prefix,
            hash: SecretHash::from_bytes(first.hash),
            user: first.user,
            tags: first.tags.into(),
            reusable: first.reusable,
            ephemeral: first.ephemeral,
            preauthorized: second.preauthorized,
            used: first.used,
            expiry: first.expiry_ms.map(Timestamp::from_unix_ms),
            ending: ending.into(),
            created: Timestamp::from_unix_ms(first.created_ms),
        })
    }
}
