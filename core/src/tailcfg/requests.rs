//! The small requests of clients: a node key and a few fields.
//!
//! Source: tailscale `tailcfg/tailcfg.go`, the types of the same names.

use std::borrow::Cow;

use serde_json::Value;

use crate::keys::NodeKey;
use crate::tailcfg::fields::{self, Fields};
use crate::tailcfg::json::DecodeError;

/// Most attributes that are read of one request; hearth keeps fewer of a node.
const ATTRIBUTES_MAX: usize = 64;

/// Attributes by name: null removes one, and `None` stands for a list or an object, which no attribute can be.
pub type AttributeUpdates<'a> = Vec<(Cow<'a, str>, Option<Value>)>;

/// A request with its fields.
///
/// The node key is only a claim: the machine key of the Noise session has to match.
#[derive(Debug, Clone)]
pub struct NodeRequest<'a> {
    /// Node key of the requesting node; `None` if the client sent zero.
    pub node_key: Option<NodeKey>,
    fields: Fields<'a>,
}

/// The fields that are read, of any request.
const FIELDS: &[&str] = &[
    "NodeKey",
    "Feature",
    "Name",
    "Type",
    "Subsys",
    "Error",
    "Action",
    "Details",
    "EventType",
    "SrcNode",
    "LocalUser",
    "Update",
];

impl<'a> NodeRequest<'a> {
    /// Decodes any of these requests.
    ///
    /// # Errors
    /// If it is not a JSON object or the node key is invalid.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let fields = Fields::of(fields::parse(bytes)?, FIELDS)?;
        let key: Option<NodeKey> = fields.parsed("NodeKey", "a node key")?;
        Ok(Self {
            node_key: key.and_then(NodeKey::non_zero),
            fields,
        })
    }

    /// `QueryFeatureRequest.Feature`: the feature that the client asks about.
    ///
    /// # Errors
    /// If it is not a string.
    pub fn feature(&self) -> Result<Cow<'a, str>, DecodeError> {
        self.fields.text("Feature")
    }

    /// `SetDNSRequest`: name and type of the record.
    ///
    /// # Errors
    /// If they are not strings.
    pub fn dns_record(&self) -> Result<(Cow<'a, str>, Cow<'a, str>), DecodeError> {
        Ok((self.fields.text("Name")?, self.fields.text("Type")?))
    }

    /// `HealthChangeRequest`: the subsystem and its error; empty once it is resolved.
    ///
    /// # Errors
    /// If they are not strings.
    pub fn health(&self) -> Result<(Cow<'a, str>, Cow<'a, str>), DecodeError> {
        Ok((self.fields.text("Subsys")?, self.fields.text("Error")?))
    }

    /// `AuditLogRequest`: the action and its details.
    ///
    /// # Errors
    /// If they are not strings.
    pub fn audit(&self) -> Result<(Cow<'a, str>, Cow<'a, str>), DecodeError> {
        Ok((self.fields.text("Action")?, self.fields.text("Details")?))
    }

    /// `SSHEventNotifyRequest`: the event type (1 rejected, 2 terminated, 3 failed), the source node and the
    /// local user.
    ///
    /// # Errors
    /// If a field has the wrong type.
    pub fn ssh_event(&self) -> Result<(i64, i64, Cow<'a, str>), DecodeError> {
        let (event, source) = (
            self.fields.number("EventType")?,
            self.fields.number("SrcNode")?,
        );
        Ok((event, source, self.fields.text("LocalUser")?))
    }

    /// `SetDeviceAttributesRequest.Update`; more than 64 attributes are not read.
    ///
    /// # Errors
    /// If it is not an object.
    pub fn attributes(&self) -> Result<AttributeUpdates<'a>, DecodeError> {
        let Some(update) = self.fields.get("Update") else {
            return Ok(Vec::new());
        };
        let entries = fields::entries(update, ATTRIBUTES_MAX).map_err(|_| DecodeError::Field {
            field: "Update",
            expected: "an object",
        })?;
        let is_nested = |text: &str| text.starts_with(['{', '[']);
        let entries = entries.into_iter().map(|(name, value)| {
            let plain = Some(value.get()).filter(|text| !is_nested(text));
            (name, plain.and_then(|text| serde_json::from_str(text).ok()))
        });
        Ok(entries.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_without_a_node_key_is_decoded() {
        let zero = format!(r#"{{"NodeKey":"nodekey:{}","Error":"x"}}"#, "0".repeat(64));
        for text in [zero.as_str(), r#"{"nodekey":null,"ERROR":"x"}"#] {
            let request = NodeRequest::decode(text.as_bytes()).unwrap();
            assert_eq!(request.node_key, None);
            assert_eq!(request.health(), Ok(("".into(), "x".into())));
        }
        assert!(NodeRequest::decode(br#"{"NodeKey":"x"}"#).is_err());
        assert!(NodeRequest::decode(b"[]").is_err());
    }

    #[test]
    fn attributes_keep_their_null() {
        let text = br#"{"Update":{"custom:a":null,"custom:b":1,"custom:c":[]}}"#;
        let request = NodeRequest::decode(text).unwrap();
        let attributes = request.attributes().unwrap();
        let expected = [
            ("custom:a".into(), Some(Value::Null)),
            ("custom:b".into(), Some(Value::from(1))),
            ("custom:c".into(), None),
        ];
        assert_eq!(attributes, expected);
    }
}
