//! Entries of the audit log.

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::state::event::{Action, Actor, ActorKind, Event, Property, Target, TargetKind, Values};
use crate::state::record::codec::{decode, encode};
use crate::state::record::{DecodeError, Stored};

#[derive(Serialize, Deserialize)]
struct EventV1<'a> {
    time_ms: i64,
    actor_kind: u8,
    actor_id: &'a str,
    actor_name: &'a str,
    action: u8,
    target_kind: u8,
    target_id: &'a str,
    target_name: &'a str,
    /// 0 is none.
    property: u8,
    old: &'a str,
    new: &'a str,
    details: &'a str,
}

impl Stored for Event {
    fn encode(&self) -> Vec<u8> {
        let first = EventV1 {
            time_ms: self.time.unix_ms(),
            actor_kind: self.actor.kind.code(),
            actor_id: &self.actor.id,
            actor_name: &self.actor.name,
            action: self.action.code(),
            target_kind: self.target.kind.code(),
            target_id: &self.target.id,
            target_name: &self.target.name,
            property: self.target.property.map_or(0, Property::code),
            old: &self.values.old,
            new: &self.values.new,
            details: &self.values.details,
        };
        encode(1, &first)
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let first: EventV1<'_> = decode(bytes)?;
        let property = match first.property {
            0 => None,
            code => Some(Property::from_code(code).ok_or(DecodeError::Damaged)?),
        };
        Ok(Self {
            time: Timestamp::from_unix_ms(first.time_ms),
            actor: Actor {
                kind: ActorKind::from_code(first.actor_kind).ok_or(DecodeError::Damaged)?,
                id: first.actor_id.into(),
                name: first.actor_name.into(),
            },
            action: Action::from_code(first.action).ok_or(DecodeError::Damaged)?,
            target: Target {
                kind: TargetKind::from_code(first.target_kind).ok_or(DecodeError::Damaged)?,
                id: first.target_id.into(),
                name: first.target_name.into(),
                property,
            },
            values: Values {
                old: first.old.into(),
                new: first.new.into(),
                details: first.details.into(),
            },
            source: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> Event {
        Event {
            time: Timestamp::from_unix_ms(1),
            actor: Actor {
                kind: ActorKind::ApiKey,
                id: "7".into(),
                name: "hskey-api-a".into(),
            },
            action: Action::Update,
            target: Target {
                kind: TargetKind::Node,
                id: "3".into(),
                name: "nas".into(),
                property: Some(Property::Tags),
            },
            values: Values {
                old: "anna".into(),
                new: "tag:a".into(),
                details: "x".into(),
            },
            source: None,
        }
    }

    #[test]
    fn the_first_version_is_read_for_ever() {
        let stored =
            b"\x01\x02\x02\x017\x0bhskey-api-a\x02\x03\x013\x03nas\x07\x04anna\x05tag:a\x01x";
        assert_eq!(event().encode(), stored);
        assert_eq!(Event::decode(stored).as_ref(), Ok(&event()));
    }

    #[test]
    fn what_is_damaged_or_newer_is_an_error() {
        let stored = event().encode();
        for end in 0..stored.len() {
            assert!(Event::decode(stored.get(..end).unwrap()).is_err());
        }
        let mut unknown = stored;
        unknown[2] = 200;
        assert_eq!(Event::decode(&unknown), Err(DecodeError::Damaged));
        assert_eq!(Event::decode(&[2]), Err(DecodeError::Newer(2)));
    }
}
