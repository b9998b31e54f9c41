//! Fields of a JSON object, decoded by Go's rules: names match in any case, null means absent, unknown names are ignored.
//!
//! What strangers send is not turned into a tree of values, which would take a hundred times the memory of its text. The
//! text is checked as a whole, then cut into the texts of the fields that a reader names; each is decoded when it is
//! asked for.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::clock::Timestamp;
use crate::tailcfg::json::DecodeError;

/// Most strings that are kept of a list. The longest lists are the routes of a subnet router.
pub const TEXTS_MAX: usize = 4096;

/// Checks a whole text.
///
/// # Errors
/// If it is not JSON.
pub fn parse(bytes: &[u8]) -> Result<&RawValue, DecodeError> {
    serde_json::from_slice(bytes).map_err(|fault| DecodeError::Syntax {
        line: fault.line(),
        column: fault.column(),
    })
}

/// The fields of an object that a reader knows.
#[derive(Debug, Clone)]
pub struct Fields<'a>(Vec<Field<'a>>);

#[derive(Debug, Clone, Copy)]
struct Field<'a> {
    name: &'static str,
    /// Whether it is spelt as the reader spells it, which counts more than another spelling.
    is_exact: bool,
    value: &'a RawValue,
}

impl<'a> Fields<'a> {
    /// The fields with these names; of several with one name the last.
    ///
    /// # Errors
    /// If it is not an object.
    pub fn of(value: &'a RawValue, names: &'static [&'static str]) -> Result<Self, DecodeError> {
        let mut deserializer = serde_json::Deserializer::from_str(value.get());
        let fields = Named(names).deserialize(&mut deserializer);
        fields.map(Self).map_err(|_| DecodeError::NotAnObject)
    }

    /// The text of a field's value; `None` if absent or null.
    pub fn get(&self, field: &str) -> Option<&'a RawValue> {
        let known = self.0.iter().find(|known| known.name == field)?;
        (known.value.get() != "null").then_some(known.value)
    }

    fn decoded<T: Deserialize<'a>>(
        &self,
        field: &'static str,
        expected: &'static str,
    ) -> Result<Option<T>, DecodeError> {
        let decode = |value: &'a RawValue| serde_json::from_str(value.get());
        let fault = |_| DecodeError::Field { field, expected };
        self.get(field).map(decode).transpose().map_err(fault)
    }

    /// A string; empty if absent.
    ///
    /// # Errors
    /// If it is not a string.
    pub fn text(&self, field: &'static str) -> Result<Cow<'a, str>, DecodeError> {
        let text: Option<Text<'a>> = self.decoded(field, "a string")?;
        Ok(text.map(|text| text.0).unwrap_or_default())
    }

    /// A boolean; false if absent.
    ///
    /// # Errors
    /// If it has another type.
    pub fn flag(&self, field: &'static str) -> Result<bool, DecodeError> {
        let flag = self.decoded(field, "true or false")?;
        Ok(flag.unwrap_or_default())
    }

    /// An integer; zero if absent.
    ///
    /// # Errors
    /// If it has another type.
    pub fn number(&self, field: &'static str) -> Result<i64, DecodeError> {
        let number = self.decoded(field, "an integer")?;
        Ok(number.unwrap_or_default())
    }

    /// An object; `None` if absent.
    ///
    /// # Errors
    /// If it is something else.
    pub fn object(
        &self,
        field: &'static str,
        names: &'static [&'static str],
    ) -> Result<Option<Fields<'a>>, DecodeError> {
        let fields = self.get(field).map(|value| Fields::of(value, names));
        fields.transpose().map_err(|_| DecodeError::Field {
            field,
            expected: "an object",
        })
    }

    /// A value parsed from a string; `None` if absent or empty.
    ///
    /// # Errors
    /// If the string is not what is `expected`.
    pub fn parsed<T: FromStr>(
        &self,
        field: &'static str,
        expected: &'static str,
    ) -> Result<Option<T>, DecodeError> {
        let text = self.text(field)?;
        if text.is_empty() {
            return Ok(None);
        }
        let parsed = text.parse();
        parsed
            .map(Some)
            .map_err(|_| DecodeError::Field { field, expected })
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
        Timestamp::parse(&text)
            .map(Some)
            .ok_or(DecodeError::Field { field, expected })
    }

    /// What `pick` makes of the values of a list, at most `most` of them; values of which it makes nothing are skipped.
    ///
    /// # Errors
    /// If it is not a list.
    pub fn list<T>(
        &self,
        field: &'static str,
        most: usize,
        pick: impl FnMut(&'a RawValue) -> Option<T>,
    ) -> Result<Vec<T>, DecodeError> {
        let Some(value) = self.get(field) else {
            return Ok(Vec::new());
        };
        let mut deserializer = serde_json::Deserializer::from_str(value.get());
        let picked = Picked { most, pick }.deserialize(&mut deserializer);
        picked.map_err(|_| DecodeError::Field {
            field,
            expected: "a list",
        })
    }

    /// The strings of a list that are not empty, at most [`TEXTS_MAX`]; other values are skipped.
    ///
    /// # Errors
    /// If it is not a list.
    pub fn texts(&self, field: &'static str) -> Result<Box<[Box<str>]>, DecodeError> {
        let pick = |value| text_of(value).filter(|text| !text.is_empty());
        let texts = self.list(field, TEXTS_MAX, |value| pick(value).map(Box::from))?;
        Ok(texts.into())
    }
}

/// The string that a value is.
pub fn text_of(value: &RawValue) -> Option<Cow<'_, str>> {
    let text: Text<'_> = serde_json::from_str(value.get()).ok()?;
    Some(text.0)
}

/// The first `most` fields of the object that a value is, of any name.
///
/// # Errors
/// If it is not an object.
pub fn entries(
    value: &RawValue,
    most: usize,
) -> Result<Vec<(Cow<'_, str>, &RawValue)>, DecodeError> {
    let mut deserializer = serde_json::Deserializer::from_str(value.get());
    let entries = Entries(most).deserialize(&mut deserializer);
    entries.map_err(|_| DecodeError::NotAnObject)
}

/// The object that a value is, as JSON of the same fields without the one that is named `left_out`.
///
/// # Errors
/// If it is not an object.
pub fn without(value: &RawValue, left_out: &str) -> Result<String, DecodeError> {
    let mut deserializer = serde_json::Deserializer::from_str(value.get());
    let copied = Without(left_out).deserialize(&mut deserializer);
    copied.map_err(|_| DecodeError::NotAnObject)
}

/// A string, borrowed where it has no escapes.
struct Text<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Borrowed;
        impl<'de> Visitor<'de> for Borrowed {
            type Value = Text<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Borrowed)
    }
}

/// Reads the fields with these names.
struct Named(&'static [&'static str]);

impl<'de> DeserializeSeed<'de> for Named {
    type Value = Vec<Field<'de>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Named {
    type Value = Vec<Field<'de>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields: Vec<Field<'de>> = Vec::new();
        while let Some(key) = map.next_key::<Text<'de>>()? {
            let same = |name: &&&str| name.eq_ignore_ascii_case(&key.0);
            let Some(name) = self.0.iter().find(same).copied() else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            let field = Field {
                name,
                is_exact: *name == *key.0,
                value: map.next_value()?,
            };
            match fields.iter_mut().find(|known| known.name == name) {
                Some(known) if known.is_exact && !field.is_exact => {}
                Some(known) => *known = field,
                None => fields.push(field),
            }
        }
        Ok(fields)
    }
}

/// Reads so many fields of any name.
struct Entries(usize);

impl<'de> DeserializeSeed<'de> for Entries {
    type Value = Vec<(Cow<'de, str>, &'de RawValue)>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Entries {
    type Value = Vec<(Cow<'de, str>, &'de RawValue)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut entries = Vec::new();
        while entries.len() < self.0
            && let Some((name, value)) = map.next_entry::<Text<'de>, &'de RawValue>()?
        {
            entries.push((name.0, value));
        }
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(entries)
    }
}

/// Reads a list, of which it keeps what `pick` makes of it.
struct Picked<F> {
    most: usize,
    pick: F,
}

impl<'de, T, F: FnMut(&'de RawValue) -> Option<T>> DeserializeSeed<'de> for Picked<F> {
    type Value = Vec<T>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<T>, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de, T, F: FnMut(&'de RawValue) -> Option<T>> Visitor<'de> for Picked<F> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<Vec<T>, A::Error> {
        let mut picked = Vec::new();
        while picked.len() < self.most
            && let Some(value) = list.next_element::<&'de RawValue>()?
        {
            picked.extend((self.pick)(value));
        }
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(picked)
    }
}

/// Copies an object without the field of this name.
struct Without<'a>(&'a str);

impl<'de> DeserializeSeed<'de> for Without<'_> {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Without<'_> {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<String, A::Error> {
        let mut copy = String::from("{");
        while let Some(key) = map.next_key::<&'de RawValue>()? {
            let value = map.next_value::<&'de RawValue>()?;
            let name = key.get().trim_matches('"');
            if name.eq_ignore_ascii_case(self.0) {
                continue;
            }
            if copy.len() > 1 {
                copy.push(',');
            }
            copy.push_str(key.get());
            copy.push(':');
            copy.push_str(value.get());
        }
        copy.push('}');
        Ok(copy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: &[&str] = &["Hostinfo", "NodeKey", "Version", "Expiry", "List", "x"];

    fn fields(text: &str) -> Fields<'_> {
        Fields::of(parse(text.as_bytes()).unwrap(), NAMES).unwrap()
    }

    #[test]
    fn names_match_in_any_case_and_null_is_absent() {
        let object = fields(r#"{"HostInfo":{"x":1},"nodekey":null,"Version":"7"}"#);
        assert!(object.object("Hostinfo", NAMES).unwrap().is_some());
        assert_eq!(object.text("NodeKey"), Ok("".into()));
        let fault = DecodeError::Field {
            field: "Version",
            expected: "an integer",
        };
        assert_eq!(object.number("Version"), Err(fault));
        // The exact spelling counts more, and the last of several.
        let object = fields(r#"{"version":1,"Version":2,"Version":3,"VERSION":4}"#);
        assert_eq!(object.number("Version"), Ok(3));
    }

    #[test]
    fn the_zero_time_is_absent() {
        let zero = fields(r#"{"Expiry":"0001-01-01T00:00:00Z"}"#);
        assert_eq!(zero.time("Expiry"), Ok(None));
        let early = fields(r#"{"Expiry":"1970-01-01T00:02:03Z"}"#);
        let time = early.time("Expiry").unwrap();
        assert_eq!(time.map(Timestamp::unix_seconds), Some(123));
    }

    #[test]
    fn strings_with_escapes_are_decoded_and_broken_ones_refused() {
        let object = fields(r#"{"NodeKey":"a\n\u00e9","List":["b","\"",1,null,"","\ud800"]}"#);
        assert_eq!(object.text("NodeKey"), Ok("a\né".into()));
        let texts = object.texts("List").unwrap();
        assert_eq!(
            texts.iter().map(|text| &**text).collect::<Vec<_>>(),
            ["b", "\""]
        );
        for broken in ["{", "", "[1", r#"{"a":}"#, "{} {}", "{\"a\":\"\n\"}"] {
            assert!(parse(broken.as_bytes()).is_err(), "{broken}");
        }
        for other in ["[]", "1", "null", r#""text""#] {
            let value = parse(other.as_bytes()).unwrap();
            assert_eq!(
                Fields::of(value, NAMES).map(drop),
                Err(DecodeError::NotAnObject)
            );
        }
    }

    #[test]
    fn a_copy_lacks_the_field_in_any_spelling() {
        let copy = |text: &str| without(parse(text.as_bytes()).unwrap(), "NetInfo").unwrap();
        let text = r#"{"OS":"linux","netinfo":{"a":[1]},"Net":{"NetInfo":1},"NetInfo":2}"#;
        assert_eq!(copy(text), r#"{"OS":"linux","Net":{"NetInfo":1}}"#);
        assert_eq!(copy("{ }"), "{}");
    }

    /// What is kept of a text is bounded by the names, not by the number of values in it.
    #[test]
    fn a_text_full_of_values_leaves_nothing_behind() {
        let many = |piece: &str| vec![piece; 20_000].join(",");
        for text in [
            format!("{{{}}}", many(r#""":{}"#)),
            format!("{{{}}}", many(r#""x":[[]]"#)),
            format!(r#"{{"x":[{}]}}"#, many(r#"{"":1}"#)),
            format!(r#"{{"x":{}{}}}"#, "[".repeat(60_000), "]".repeat(60_000)),
        ] {
            let fields = fields(&text);
            assert!(fields.0.len() <= 1);
        }
        let text = format!(r#"{{"List":[{}]}}"#, many(r#""1""#));
        assert_eq!(fields(&text).texts("List").unwrap().len(), TEXTS_MAX);
    }
}
