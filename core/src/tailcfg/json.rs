//! Decoding JSON by Go's rules: names match in any case, null means absent, unknown names are ignored.

use std::io;

use serde_json::ser::{CharEscape, Formatter};
use serde_json::{Map, Value};

use crate::clock::Timestamp;

/// Why a request cannot be decoded.
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

/// A JSON object with fields by their Go names.
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

    /// The fields themselves.
    pub fn fields(&self) -> &'a Map<String, Value> {
        self.0
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

    /// A boolean; false if absent.
    ///
    /// # Errors
    /// If it has another type.
    pub fn flag(&self, field: &'static str) -> Result<bool, DecodeError> {
        match self.get(field) {
            None => Ok(false),
            Some(value) => value.as_bool().ok_or(DecodeError::Field {
                field,
                expected: "true or false",
            }),
        }
    }

    /// An integer; zero if absent.
    ///
    /// # Errors
    /// If it has another type.
    pub fn number(&self, field: &'static str) -> Result<i64, DecodeError> {
        match self.get(field) {
            None => Ok(0),
            Some(value) => value.as_i64().ok_or(DecodeError::Field {
                field,
                expected: "an integer",
            }),
        }
    }

    /// A list; empty if absent.
    ///
    /// # Errors
    /// If it is not a list.
    pub fn list(&self, field: &'static str) -> Result<&'a [Value], DecodeError> {
        match self.get(field) {
            None => Ok(&[]),
            Some(value) => value
                .as_array()
                .map(Vec::as_slice)
                .ok_or(DecodeError::Field {
                    field,
                    expected: "a list",
                }),
        }
    }

    /// An object; `None` if absent.
    ///
    /// # Errors
    /// If it is something else.
    pub fn object(&self, field: &'static str) -> Result<Option<Object<'a>>, DecodeError> {
        match self.get(field) {
            None => Ok(None),
            Some(value) => {
                value
                    .as_object()
                    .map(|fields| Some(Object(fields)))
                    .ok_or(DecodeError::Field {
                        field,
                        expected: "an object",
                    })
            }
        }
    }

    /// A value parsed from a string; `None` if absent or empty.
    ///
    /// # Errors
    /// If the string is not what is `expected`.
    pub fn parsed<T: std::str::FromStr>(
        &self,
        field: &'static str,
        expected: &'static str,
    ) -> Result<Option<T>, DecodeError> {
        match self.text(field)? {
            "" => Ok(None),
            text => text
                .parse()
                .map(Some)
                .map_err(|_| DecodeError::Field { field, expected }),
        }
    }

    /// A time; `None` if absent or Go's zero time.
    ///
    /// # Errors
    /// If it is not an RFC 3339 time.
    pub fn time(&self, field: &'static str) -> Result<Option<Timestamp>, DecodeError> {
        let text = self.text(field)?;
        if text.is_empty() || text.starts_with("0001-01-01T00:00:00") {
            return Ok(None);
        }
        let expected = "an RFC 3339 time";
        Timestamp::parse(text)
            .map(Some)
            .ok_or(DecodeError::Field { field, expected })
    }

    /// The strings of a list; other values are skipped.
    ///
    /// # Errors
    /// If it is not a list.
    pub fn texts(&self, field: &'static str) -> Result<Box<[Box<str>]>, DecodeError> {
        let list = self.list(field)?;
        Ok(list
            .iter()
            .filter_map(Value::as_str)
            .map(Box::from)
            .collect())
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
        let value = parse(br#"{"HostInfo":{"x":1},"nodekey":null,"Version":"7"}"#).unwrap();
        let object = Object::of(&value).unwrap();
        assert!(object.object("Hostinfo").unwrap().is_some());
        assert_eq!(object.text("NodeKey"), Ok(""));
        let fault = DecodeError::Field {
            field: "Version",
            expected: "an integer",
        };
        assert_eq!(object.number("Version"), Err(fault));
    }

    #[test]
    fn plain_strings_have_no_escapes() {
        let value = serde_json::json!({"Name": "R&D \"box\" C:\\x\n\u{1}é"});
        assert_eq!(plain(&value), r#"{"Name":"R&D 'box' C:/x  é"}"#);
    }

    #[test]
    fn the_zero_time_is_absent() {
        let value = parse(br#"{"Expiry":"0001-01-01T00:00:00Z"}"#).unwrap();
        assert_eq!(Object::of(&value).unwrap().time("Expiry"), Ok(None));
        let value = parse(br#"{"Expiry":"1970-01-01T00:02:03Z"}"#).unwrap();
        let time = Object::of(&value).unwrap().time("Expiry").unwrap();
        assert_eq!(time.map(Timestamp::unix_seconds), Some(123));
    }
}
