//! The small requests of clients: each names the node that asks, and little else.
//!
//! Source: tailscale `tailcfg/tailcfg.go`, the types of the same names.

use serde_json::Value;

use crate::keys::NodeKey;
use crate::tailcfg::json::{self, DecodeError, Object};

/// A request with the fields that it has.
///
/// The key says which node asks; whether it may say so, the Noise session tells.
#[derive(Debug, Clone)]
pub struct NodeRequest {
    /// The node that asks; `None` from clients that leave the key zero.
    pub node_key: Option<NodeKey>,
    fields: Value,
}

impl NodeRequest {
    /// Reads any of the small requests.
    ///
    /// # Errors
    /// When it is no JSON object or the key is none.
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

    /// `QueryFeatureRequest.Feature`: what the client would like to use.
    ///
    /// # Errors
    /// When it is no text.
    pub fn feature(&self) -> Result<&str, DecodeError> {
        self.text("Feature")
    }

    /// `SetDNSRequest`: name and type of the record.
    ///
    /// # Errors
    /// When they are no texts.
    pub fn dns_record(&self) -> Result<(&str, &str), DecodeError> {
        Ok((self.text("Name")?, self.text("Type")?))
    }

    /// `HealthChangeRequest`: what of the client, and what is wrong with it; empty when nothing is any more.
    ///
    /// # Errors
    /// When they are no texts.
    pub fn health(&self) -> Result<(&str, &str), DecodeError> {
        Ok((self.text("Subsys")?, self.text("Error")?))
    }

    /// `AuditLogRequest`: what was done and why.
    ///
    /// # Errors
    /// When they are no texts.
    pub fn audit(&self) -> Result<(&str, &str), DecodeError> {
        Ok((self.text("Action")?, self.text("Details")?))
    }

    /// `SSHEventNotifyRequest`: the kind of the event (1 rejected, 2 terminated, 3 failed), and who came as
    /// which local user.
    ///
    /// # Errors
    /// When a field has another type.
    pub fn ssh_event(&self) -> Result<(i64, i64, &str), DecodeError> {
        let fields = Object::of(&self.fields)?;
        let (event, source) = (fields.number("EventType")?, fields.number("SrcNode")?);
        Ok((event, source, self.text("LocalUser")?))
    }

    /// `SetDeviceAttributesRequest.Update`: attributes by name; null takes one away.
    ///
    /// # Errors
    /// When it is no object.
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
    fn a_request_without_a_key_is_read_and_says_so() {
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
