//! Users.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::id::UserId;
use crate::state::model::{KeyLifetime, Role, User};
use crate::state::record::codec::{Reader, encode};
use crate::state::record::{DecodeError, Stored};

const NEWEST: u8 = 2;

#[derive(Serialize, Deserialize)]
struct UserV1 {
    id: UserId,
    name: Box<str>,
    display_name: Box<str>,
    email: Box<str>,
    picture_url: Box<str>,
    created_ms: i64,
}

/// What version 2 added.
#[derive(Serialize, Deserialize)]
struct UserV2 {
    role: RoleV2,
    node_expiry: Option<KeyLifetimeV2>,
}

#[derive(Serialize, Deserialize)]
enum RoleV2 {
    Owner,
    Admin,
    Member,
}

#[derive(Serialize, Deserialize)]
enum KeyLifetimeV2 {
    Unlimited,
    Ms(u64),
}

impl Stored for User {
    fn encode(&self) -> Vec<u8> {
        let first = UserV1 {
            id: self.id,
            name: self.name.clone(),
            display_name: self.display_name.clone(),
            email: self.email.clone(),
            picture_url: self.picture_url.clone(),
            created_ms: self.created.unix_ms(),
        };
        let second = UserV2 {
            role: match self.role {
                Role::Owner => RoleV2::Owner,
                Role::Admin => RoleV2::Admin,
                Role::Member => RoleV2::Member,
            },
            node_expiry: self.node_expiry.map(KeyLifetimeV2::from),
        };
        encode(NEWEST, &(first, second))
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::open(bytes, NEWEST)?;
        let first: UserV1 = reader.read()?;
        let second = reader.added(2, UserV2::before(first.id))?;
        Ok(Self {
            id: first.id,
            name: first.name,
            display_name: first.display_name,
            email: first.email,
            picture_url: first.picture_url,
            role: match second.role {
                RoleV2::Owner => Role::Owner,
                RoleV2::Admin => Role::Admin,
                RoleV2::Member => Role::Member,
            },
            node_expiry: second.node_expiry.map(KeyLifetime::from),
            created: Timestamp::from_unix_ms(first.created_ms),
        })
    }
}

impl UserV2 {
    /// For a user of version 1: the first user set the tailnet up and is its owner.
    fn before(id: UserId) -> Self {
        Self {
            role: match id == UserId::FIRST {
                true => RoleV2::Owner,
                false => RoleV2::Member,
            },
            node_expiry: None,
        }
    }
}

impl From<KeyLifetime> for KeyLifetimeV2 {
    fn from(lifetime: KeyLifetime) -> Self {
        match lifetime {
            KeyLifetime::Unlimited => Self::Unlimited,
            KeyLifetime::For(time) => Self::Ms(u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
        }
    }
}

impl From<KeyLifetimeV2> for KeyLifetime {
    fn from(lifetime: KeyLifetimeV2) -> Self {
        match lifetime {
            KeyLifetimeV2::Unlimited => Self::Unlimited,
            KeyLifetimeV2::Ms(time) => Self::For(Duration::from_millis(time)),
        }
    }
}
