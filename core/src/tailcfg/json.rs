//! JSON as a tree, for files, and the JSON that clients are sent.

use std::io;

use serde_json::ser::{CharEscape, Formatter};
use serde_json::{Map, Value};

/// Why JSON cannot be decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// It is not JSON.
    #[error("not valid JSON: line {line}, column {column}")]
    Syntax {
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
    },
    /// It is JSON but not an object.
    #[error("expected a JSON object")]
    NotAnObject,
    /// A field has the wrong type.
    #[error("field {field}: expected {expected}")]
    Field {
        /// Name of the field.
        field: &'static str,
        /// Expected type.
        expected: &'static str,
    },
}

/// A JSON object with fields by their Go names, which match in any case.
#[derive(Debug, Clone, Copy)]
pub struct Object<'a>(&'a Map<String, Value>);

/// Parses a whole text.
///
/// # Errors
/// If it is not JSON.
pub fn parse(bytes: &[u8]) -> Result<Value, DecodeError> {
    serde_json::from_slice(bytes).map_err(|fault| DecodeError::Syntax {
        line: fault.line(),
        column: fault.column(),
    })
}

impl<'a> Object<'a> {
    /// The object that `value` is.
    ///
    /// # Errors
    /// If it is something else.
    pub fn of(value: &'a Value) -> Result<Self, DecodeError> {
        value.as_object().map(Self).ok_or(DecodeError::NotAnObject)
    }

    /// A field's value; `None` if absent or null.
    pub fn get(&self, field: &str) -> Option<&'a Value> {
        let same = |(name, _): &(&String, &Value)| name.eq_ignore_ascii_case(field);
        let exact = self.0.get(field);
        let found = exact.or_else(|| self.0.iter().find(same).map(|(_, value)| value));
        found.filter(|value| !value.is_null())
    }

    /// A string; empty if absent.
    ///
    /// # Errors
    /// If it is not a string.
    pub fn text(&self, field: &'static str) -> Result<&'a str, DecodeError> {
        match self.get(field) {
            None => Ok(""),
            Some(value) => value.as_str().ok_or(DecodeError::Field {
                field,
                expected: "a string",
            }),
        }
    }
}

/// The JSON of a value without any escape in its strings: a quotation mark becomes an apostrophe, a backslash
/// a slash, and a control character a space.
///
/// The Rust client borrows strings from the message and fails at the first escape, so that one node with an odd
/// name would end the stream of every such peer (`#[serde(borrow)]` in tailscale-rs `ts_control_serde`).
/// Nothing that clients act on has such characters.
pub fn plain<T: serde::Serialize>(value: &T) -> String {
    let mut bytes = Vec::with_capacity(128);
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, Plain);
    // It cannot fail: the keys are texts, and a vector takes everything.
    match value.serialize(&mut serializer) {
        Ok(()) => String::from_utf8(bytes).unwrap_or_default(),
        Err(_) => String::new(),
    }
}

struct Plain;

impl Formatter for Plain {
    fn write_char_escape<W: io::Write + ?Sized>(
        &mut self,
        writer: &mut W,
        escape: CharEscape,
    ) -> io::Result<()> {
        writer.write_all(match escape {
            CharEscape::Quote => b"'",
            CharEscape::ReverseSolidus | CharEscape::Solidus => b"/",
            _ => b" ",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_in_any_case_and_null_is_absent() {
        let value = parse(br#"{"Name":"a","type":null,"VALUE":7}"#).unwrap();
        let object = Object::of(&value).unwrap();
        assert_eq!(
            (object.text("name"), object.text("Type")),
            (Ok("a"), Ok(""))
        );
        let fault = DecodeError::Field {
            field: "Value",
            expected: "a string",
        };
        assert_eq!(object.text("Value"), Err(fault));
    }

    #[test]
    fn plain_strings_have_no_escapes() {
        let value = serde_json::json!({"Name": "R&D \"box\" C:\\x\n\u{1}é"});
        assert_eq!(plain(&value), r#"{"Name":"R&D 'box' C:/x  é"}"#);
    }
}
