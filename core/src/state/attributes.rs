//! Attributes of nodes that policies ask for (postures): `custom:name` and a value.
//!
//! They live in a table of their own, keyed by node, so that a node's record does not change with them.

use std::collections::BTreeMap;

/// What the names of all attributes begin with that are not made by hearth itself.
/// Source: `SetDeviceAttributesRequest` in tailscale `tailcfg/tailcfg.go`.
pub const PREFIX: &str = "custom:";

/// Most attributes of one node.
pub const MOST: usize = 32;

/// Longest name, with its prefix, in bytes.
pub const NAME_BYTES: usize = 64;

/// Longest text, in bytes.
pub const TEXT_BYTES: usize = 256;

/// The attributes of one node by name.
pub type Attributes = BTreeMap<Box<str>, AttributeValue>;

/// A value of an attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AttributeValue {
    /// A text.
    Text(Box<str>),
    /// A whole number.
    Number(i64),
    /// Yes or no.
    Flag(bool),
}

impl AttributeValue {
    /// The value as policies compare it.
    pub fn to_json(&self) -> serde_json::Value {
        match self {
            Self::Text(text) => (&**text).into(),
            Self::Number(number) => (*number).into(),
            Self::Flag(flag) => (*flag).into(),
        }
    }
}
