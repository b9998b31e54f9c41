//! The small requests of clients: a node key and a few fields.
//!
//! Source: tailscale `tailcfg/tailcfg.go`, the types of the same names.

use serde_json::Value;

use crate::keys::NodeKey;
use crate::tailcfg::json::{self, DecodeError, Object};

/// A request with its fields.
///
/// The node key is only a claim: the machine key of the Noise session has to match.
#[derive(Debug, Clone)]
pub struct NodeRequest {
    /// Node key of the requesting node; `None` if the client sent zero.
    pub node_key: Option<NodeKey>,
    fields: Value,
}

impl NodeRequest {
    /// Decodes any of these requests.
    ///
    /// # Errors
    /// If it is not a JSON object or the node key is invalid.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let fields = json::parse(bytes)?;
        let key: Option<NodeKey> = Object::of(&fields)?.parsed("NodeKey", "a node key")?;
        Ok(Self {
            node_key: key.and_then(NodeKey::non_zero),
            fields,
        })
    }

    fn text(&self, field: &'static str) -> Result<&str, DecodeError> {
        Object::of(&self.fields)?.text(field)
    }

    /// `QueryFeatureRequest.Feature`: the feature that the client asks about.
    ///
    /// # Errors
    /// If it is not a string.
    pub fn feature(&self) -> Result<&str, DecodeError> {
        self.text("Feature")
    }

    /// `SetDNSRequest`: name and type of the record.
    ///
    /// # Errors
    /// If they are not strings.
    pub fn dns_record(&self) -> Result<(&str, &str), DecodeError> {
        Ok((self.text("Name")?, self.text("Type")?))
    }

    /// `HealthChangeRequest`: the subsystem and its error; empty once it is resolved.
    ///
    /// # Errors
    /// If they are not strings.
    pub fn health(&self) -> Result<(&str, &str), DecodeError> {
        Ok((self.text("Subsys")?, self.text("Error")?))
    }

    /// `AuditLogRequest`: the action and its details.
    ///
    /// # Errors
    /// If they are not strings.
    pub fn audit(&self) -> Result<(&str, &str), DecodeError> {
        Ok((self.text("Action")?, self.text("Details")?))
    }

    /// `SSHEventNotifyRequest`: the event type (1 rejected, 2 terminated, 3 failed), the source node and the
    /// local user.
    ///
    /// # Errors
    /// If a field has the wrong type.
    pub fn ssh_event(&self) -> Result<(i64, i64, &str), DecodeError> {
        let fields = Object::of(&self.fields)?;
        let (event, source) = (fields.number("EventType")?, fields.number("SrcNode")?);
        Ok((event, source, self.text("LocalUser")?))
    }

    /// `SetDeviceAttributesRequest.Update`: attributes by name; null removes one.
    ///
    /// # Errors
    /// If it is not an object.
    pub fn attributes(&self) -> Result<Vec<(&str, &Value)>, DecodeError> {
        let update = Object::of(&self.fields)?.object("Update")?;
        let update = update.map(|update| update.fields().iter());
        Ok(update
            .into_iter()
            .flatten()
            .map(|(name, value)| (name.as_str(), value))
            .collect())
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
            assert_eq!(request.health(), Ok(("", "x")));
        }
        assert!(NodeRequest::decode(br#"{"NodeKey":"x"}"#).is_err());
        assert!(NodeRequest::decode(b"[]").is_err());
    }

    #[test]
    fn attributes_keep_their_null() {
        let request = NodeRequest::decode(br#"{"Update":{"custom:a":null,"custom:b":1}}"#).unwrap();
        let attributes = request.attributes().unwrap();
        assert_eq!(
            attributes,
            [("custom:a", &Value::Null), ("custom:b", &Value::from(1))]
        );
    }
}
