//! Parameters of API requests: the one reader of bodies and queries.
//!
//! Names are those of Headscale's protocol in both spellings, `aclTags` and `acl_tags`, as its gRPC gateway reads them (up
//! to 0.29), and `null` is a parameter that is not set. Other than there, an unknown name is refused: a mistyped
//! restriction must not be lost.

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, MapAccess, Visitor};
use serde_json::{Map, Value};

use super::problem::ApiError;

/// A request without parameters.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::admin) struct NoFields {}

/// The members of a JSON object in their order, repeated ones included.
struct Members(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = object.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Collect)
    }
}

/// A name in camelCase, given in that or in snake_case.
pub(super) fn canonical(name: &str) -> String {
    let mut words = name.split('_');
    let mut joined = words.next().unwrap_or_default().to_owned();
    for word in words {
        let mut letters = word.chars();
        joined.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        joined.push_str(letters.as_str());
    }
    joined
}

/// Reads the parameters in a body and a query; both may give the same one. `node` is the ID of the node in the path,
/// which a body may repeat.
///
/// # Errors
/// Names the parameter that is unknown, invalid or given twice with different values.
pub(super) fn read<T: DeserializeOwned + Default>(
    body: &[u8],
    query: &[(String, String)],
    node: &str,
) -> Result<T, ApiError> {
    // All but the parser is the same code for all types.
    let mut read = T::default();
    let mut parse = |object: &[u8]| {
        read = serde_json::from_slice(object)?;
        Ok(())
    };
    read_with(gathered(body, query, node)?, &mut parse)?;
    Ok(read)
}

/// The parameters under their canonical names, without those that are not set.
fn gathered(
    body: &[u8],
    query: &[(String, String)],
    node: &str,
) -> Result<Map<String, Value>, ApiError> {
    let mut given = Map::new();
    let queried = query
        .iter()
        .map(|(name, value)| (name.clone(), Value::from(value.as_str())));
    for (name, value) in members(body)?.into_iter().chain(queried) {
        let name = canonical(&name);
        let repeats_path = name == "nodeId" && !node.is_empty() && text(&value) == node;
        if value.is_null() || repeats_path {
            continue;
        }
        if given
            .get(&name)
            .is_some_and(|known| text(known) != text(&value))
        {
            let message = format!("parameter {name:?} is given twice, with different values");
            return Err(ApiError::invalid(&message));
        }
        given.entry(name).or_insert(value);
    }
    Ok(given)
}

/// Parses one object.
type Parse<'a> = &'a mut dyn FnMut(&[u8]) -> serde_json::Result<()>;

/// Has parameters parsed, if there are any. On an error names the first one that is invalid by itself.
fn read_with(given: Map<String, Value>, parse: Parse<'_>) -> Result<(), ApiError> {
    if given.is_empty() {
        return Ok(());
    }
    let Err(fault) = parse(Value::Object(given.clone()).to_string().as_bytes()) else {
        return Ok(());
    };
    for (name, value) in given {
        let alone = Value::Object(Map::from_iter([(name.clone(), value)]));
        if let Err(fault) = parse(alone.to_string().as_bytes()) {
            let fault = without_position(&fault);
            return Err(ApiError::invalid(&format!(
                "invalid parameter {name:?}: {fault}"
            )));
        }
    }
    let fault = without_position(&fault);
    Err(ApiError::invalid(&format!("invalid request: {fault}")))
}

/// The text of a fault. A position in what was put together means nothing to the client.
fn without_position(fault: &serde_json::Error) -> String {
    let message = fault.to_string();
    let end = message.rfind(" at line ").unwrap_or(message.len());
    message.get(..end).unwrap_or(&message).to_owned()
}

fn members(body: &[u8]) -> Result<Vec<(String, Value)>, ApiError> {
    // Some clients always send a body, and send `null` when they have none.
    if matches!(body.trim_ascii(), b"" | b"null") {
        return Ok(Vec::new());
    }
    let read = serde_json::from_slice::<Members>(body);
    read.map(|members| members.0)
        .map_err(|fault| ApiError::invalid(&format!("invalid body: {fault}")))
}

/// A value as a query would give it.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{CreatePreAuthKey, ExpireNode};

    fn query(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        let pairs = pairs.iter();
        pairs
            .map(|(name, value)| ((*name).into(), (*value).into()))
            .collect()
    }

    fn key(body: &str) -> Result<CreatePreAuthKey, String> {
        read(body.as_bytes(), &[], "").map_err(|fault: ApiError| fault.message().to_owned())
    }

    fn expire(body: &str, pairs: &[(&str, &str)]) -> Result<ExpireNode, String> {
        let read = read(body.as_bytes(), &query(pairs), "7");
        read.map_err(|fault: ApiError| fault.message().to_owned())
    }

    #[test]
    fn names_have_two_spellings_and_null_is_not_set() {
        for body in [
            r#"{"user": 1, "acl_tags": ["tag:a"], "expiration": null, "preauthorized": null}"#,
            r#"{"user": "1", "aclTags": ["tag:a"], "reusable": null, "ephemeral": false}"#,
        ] {
            let key = key(body).unwrap();
            assert_eq!((&*key.user.0, key.acl_tags.len()), ("1", 1), "{body}");
            assert_eq!((key.expiration, key.preauthorized), (None, None), "{body}");
        }
        for empty in ["", " ", "null", "{}", r#"{"user": null}"#] {
            assert_eq!(key(empty).unwrap().user.0, "", "{empty}");
        }
    }

    #[test]
    fn every_word_of_go_disables_the_expiry() {
        for word in ["1", "t", "T", "true", "TRUE", "True"] {
            for name in ["disable_expiry", "disableExpiry"] {
                assert!(
                    expire("", &[(name, word)]).unwrap().disable_expiry,
                    "{name}={word}"
                );
                let body = format!("{{\"{name}\": \"{word}\"}}");
                assert!(expire(&body, &[]).unwrap().disable_expiry, "{body}");
            }
        }
        assert!(
            expire(r#"{"disable_expiry": true}"#, &[])
                .unwrap()
                .disable_expiry
        );
        for word in ["0", "f", "F", "false", "FALSE", "False"] {
            assert!(
                !expire("", &[("disableExpiry", word)])
                    .unwrap()
                    .disable_expiry,
                "{word}"
            );
        }
    }

    #[test]
    fn what_is_unknown_invalid_or_contradictory_is_refused_by_name() {
        for (body, pairs, name) in [
            (r#"{"disableExpire": true}"#, &[][..], "disableExpire"),
            ("", &[("disable-expiry", "true")], "disable-expiry"),
            ("", &[("DisableExpiry", "true")], "DisableExpiry"),
            ("", &[("disableExpiry", "")], "disableExpiry"),
            ("", &[("disableExpiry", "yes")], "disableExpiry"),
            (r#"{"disableExpiry": "on"}"#, &[], "disableExpiry"),
            (r#"{"disableExpiry": [true]}"#, &[], "disableExpiry"),
            (r#"{"expiry": 5}"#, &[], "expiry"),
            (
                r#"{"disableExpiry": true, "disable_expiry": false}"#,
                &[],
                "disableExpiry",
            ),
            (r#"{"expiry": "1d", "expiry": "2d"}"#, &[], "expiry"),
            (r#"{"expiry": "1d"}"#, &[("expiry", "2d")], "expiry"),
            (r#"{"nodeId": "8"}"#, &[], "nodeId"),
        ] {
            let fault = expire(body, pairs).unwrap_err();
            assert!(
                fault.contains(&format!("{name:?}")),
                "{body} {pairs:?}: {fault}"
            );
        }
        for body in ["[]", "5", "\"x\"", "{", "a=b"] {
            assert!(
                expire(body, &[]).unwrap_err().starts_with("invalid body"),
                "{body}"
            );
        }
        let same = expire(r#"{"node_id": 7, "expiry": "1d"}"#, &[("expiry", "1d")]).unwrap();
        assert_eq!(same.expiry.as_deref(), Some("1d"));
    }

    #[test]
    fn names_of_the_protocol_become_those_of_json() {
        for (name, json) in [
            ("acl_tags", "aclTags"),
            ("aclTags", "aclTags"),
            ("masquerade_v4", "masqueradeV4"),
            ("id", "id"),
            ("_x__y_", "XY"),
            ("", ""),
        ] {
            assert_eq!(canonical(name), json, "{name}");
        }
    }
}
