//! Attributes of a node, all in one record.

use serde::{Deserialize, Serialize};

use crate::state::attributes::{AttributeValue, Attributes};
use crate::state::record::codec::{decode, encode};
use crate::state::record::{DecodeError, Stored};

#[derive(Serialize, Deserialize)]
enum AttributeV1 {
    Text(Box<str>),
    Number(i64),
    Flag(bool),
}

impl Stored for Attributes {
    fn encode(&self) -> Vec<u8> {
        let stored = self.iter().map(|(name, value)| {
            let value = match value {
                AttributeValue::Text(text) => AttributeV1::Text(text.clone()),
                AttributeValue::Number(number) => AttributeV1::Number(*number),
                AttributeValue::Flag(flag) => AttributeV1::Flag(*flag),
            };
            (&**name, value)
        });
        encode(1, &stored.collect::<Vec<(&str, AttributeV1)>>())
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let stored: Vec<(Box<str>, AttributeV1)> = decode(bytes)?;
        let attributes = stored.into_iter().map(|(name, value)| {
            let value = match value {
                AttributeV1::Text(text) => AttributeValue::Text(text),
                AttributeV1::Number(number) => AttributeValue::Number(number),
                AttributeV1::Flag(flag) => AttributeValue::Flag(flag),
            };
            (name, value)
        });
        Ok(attributes.collect())
    }
}
