//! Posture attributes of nodes: `custom:name` and a value, for the posture rules of the policy.
//!
//! They are stored in a table of their own, so that the record of a node does not change with them.

use std::collections::BTreeMap;

/// Prefix of the names of all attributes that hearth does not set itself.
/// Source: `SetDeviceAttributesRequest` in tailscale `tailcfg/tailcfg.go`.
pub const PREFIX: &str = "custom:";

/// Maximum number of attributes of one node.
pub const MOST: usize = 32;

/// Longest name including the prefix, in bytes.
pub const NAME_BYTES: usize = 64;

/// Longest text value, in bytes.
pub const TEXT_BYTES: usize = 256;

/// The attributes of one node by name.
pub type Attributes = BTreeMap<Box<str>, AttributeValue>;

/// The value of an attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AttributeValue {
    /// A text.
    Text(Box<str>),
    /// An integer.
    Number(i64),
    /// A boolean.
    Flag(bool),
}

impl AttributeValue {
    /// The value as JSON, as policies compare it.
    pub fn to_json(&self) -> serde_json::Value {
        match self {
            Self::Text(text) => (&**text).into(),
            Self::Number(number) => (*number).into(),
            Self::Flag(flag) => (*flag).into(),
        }
    }

    /// The value that JSON has: `Some(None)` for null, which deletes the attribute, and `None` for what cannot be one.
    pub fn from_json(value: &serde_json::Value) -> Option<Option<Self>> {
        use serde_json::Value;
        match value {
            Value::Null => Some(None),
            Value::Bool(flag) => Some(Some(Self::Flag(*flag))),
            Value::Number(number) => number.as_i64().map(Self::Number).map(Some),
            Value::String(text) => Some(Some(Self::Text(text.as_str().into()))),
            Value::Array(_) | Value::Object(_) => None,
        }
    }
}
