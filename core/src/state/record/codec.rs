//! The version byte and the postcard encoding that all kinds share.

use serde::{Deserialize, Serialize};

use crate::state::record::DecodeError;

/// Reads a stored value struct by struct, in the order in which the versions added them.
pub(super) struct Reader<'a> {
    version: u8,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads the version byte, which may be at most `newest`.
    pub(super) fn open(bytes: &'a [u8], newest: u8) -> Result<Self, DecodeError> {
        match bytes.split_first() {
            None | Some((0, _)) => Err(DecodeError::Damaged),
            Some((&version, _)) if version > newest => Err(DecodeError::Newer(version)),
            Some((&version, rest)) => Ok(Self { version, rest }),
        }
    }

    /// The fields that every version has.
    pub(super) fn read<V: Deserialize<'a>>(&mut self) -> Result<V, DecodeError> {
        let (value, rest) =
            postcard::take_from_bytes(self.rest).map_err(|_| DecodeError::Damaged)?;
        self.rest = rest;
        Ok(value)
    }

    /// The fields that version `since` added, or `before` when an older version wrote the value.
    pub(super) fn added<V: Deserialize<'a>>(
        &mut self,
        since: u8,
        before: V,
    ) -> Result<V, DecodeError> {
        if self.version < since {
            return Ok(before);
        }
        self.read()
    }
}

/// The only struct of a kind that has one version.
pub(super) fn decode<'a, V: Deserialize<'a>>(bytes: &'a [u8]) -> Result<V, DecodeError> {
    Reader::open(bytes, 1)?.read()
}

/// The bytes of a value: for several versions, the tuple of their structs.
pub(super) fn encode<V: Serialize>(version: u8, value: &V) -> Vec<u8> {
    let bytes = postcard::to_extend(value, vec![version]);
    bytes.expect("postcard fails only for values of unknown length, and these have none")
}
