//! `POST /machine/register`.

use serde::Serialize;

use crate::clock::Timestamp;
use crate::keys::{LockKey, NodeKey};
use crate::tailcfg::capability::CapabilityVersion;
use crate::tailcfg::fields::{self, Fields};
use crate::tailcfg::hostinfo::Hostinfo;
use crate::tailcfg::json::DecodeError;

/// `tailcfg.RegisterRequest`, the fields that are used.
#[derive(Clone)]
pub struct RegisterRequest {
    /// Capability version of the client.
    pub version: CapabilityVersion,
    /// Current or requested node key.
    pub node_key: NodeKey,
    /// Tailnet Lock key.
    pub lock_key: Option<LockKey>,
    /// Preauth key as entered; empty for none.
    pub auth_key: Box<str>,
    /// Requested expiry; a client that logs out sends a time in 1970.
    pub expiry: Option<Timestamp>,
    /// Auth URL of the pending registration to wait for; empty for none.
    pub followup: Box<str>,
    /// Whether the node requests to be ephemeral.
    pub ephemeral: bool,
    /// Hostinfo.
    pub hostinfo: Hostinfo,
}

/// The fields that are read.
const FIELDS: &[&str] = &[
    "Version",
    "NodeKey",
    "NLKey",
    "Auth",
    "Expiry",
    "Followup",
    "Ephemeral",
    "Hostinfo",
];

impl RegisterRequest {
    /// Decodes a request.
    ///
    /// # Errors
    /// If it is not a JSON object, a used field has the wrong type, or the node key is missing.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let object = Fields::of(fields::parse(bytes)?, FIELDS)?;
        let node_key: Option<NodeKey> = object.parsed("NodeKey", "a node key")?;
        let missing = DecodeError::Field {
            field: "NodeKey",
            expected: "a node key, not zero",
        };
        let lock_key: Option<LockKey> = object.parsed("NLKey", "a Tailnet Lock key")?;
        let auth = object.object("Auth", &["AuthKey"])?;
        let auth_key = auth.map(|auth| auth.text("AuthKey")).transpose()?;
        let hostinfo = object.get("Hostinfo").map(Hostinfo::decode).transpose()?;
        Ok(Self {
            version: CapabilityVersion::new(object.number("Version")?),
            node_key: node_key.and_then(NodeKey::non_zero).ok_or(missing)?,
            lock_key: lock_key.and_then(LockKey::non_zero),
            auth_key: auth_key.unwrap_or_default().into(),
            expiry: object.time("Expiry")?,
            followup: object.text("Followup")?.into(),
            ephemeral: object.flag("Ephemeral")?,
            hostinfo: hostinfo.unwrap_or_default(),
        })
    }
}

crate::redacted!(RegisterRequest, RegisterResponse);

/// `tailcfg.RegisterResponse`. Every field is always written: the Rust client requires it.
#[derive(Clone, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct RegisterResponse {
    /// Owner of the node.
    pub user: User,
    /// Identity shown as the account.
    pub login: Login,
    /// Whether the node must register again with a new key.
    pub node_key_expired: bool,
    /// Whether the node is approved.
    pub machine_authorized: bool,
    /// URL to approve the registration; empty if not needed.
    #[serde(rename = "AuthURL")]
    pub auth_url: String,
    /// Error that the client shows; empty for none.
    pub error: String,
}

/// `tailcfg.User`.
#[derive(Debug, Clone, Default, Serialize)]
pub struct User {
    /// Number of the user.
    #[serde(rename = "ID")]
    pub id: u64,
    /// Name to show.
    #[serde(rename = "DisplayName")]
    pub display_name: String,
    /// URL of a picture.
    #[serde(rename = "ProfilePicURL", skip_serializing_if = "String::is_empty")]
    pub profile_pic_url: String,
}

/// `tailcfg.Login`.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Login {
    /// Number of the login.
    #[serde(rename = "ID")]
    pub id: u64,
    /// Identity provider.
    #[serde(rename = "Provider")]
    pub provider: String,
    /// Login name.
    #[serde(rename = "LoginName")]
    pub login_name: String,
    /// Name to show.
    #[serde(rename = "DisplayName")]
    pub display_name: String,
    /// URL of a picture.
    #[serde(rename = "ProfilePicURL", skip_serializing_if = "String::is_empty")]
    pub profile_pic_url: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_of_the_go_client_is_decoded() {
        let key = format!("nodekey:{}", "ab".repeat(32));
        let text = format!(
            r#"{{"Version":145,"NodeKey":"{key}","OldNodeKey":"nodekey:{zero}","NLKey":"nlpub:{zero}",
            "Auth":{{"AuthKey":"hskey-auth-x"}},"Expiry":"0001-01-01T00:00:00Z","Followup":"",
            "Hostinfo":{{"OS":"linux","Hostname":"a"}},"NodeKeySignature":null,"Unknown":[1]}}"#,
            zero = "0".repeat(64)
        );
        let request = RegisterRequest::decode(text.as_bytes()).unwrap();
        assert_eq!(request.node_key.to_string(), key);
        assert_eq!(request.lock_key, None);
        assert_eq!(&*request.auth_key, "hskey-auth-x");
        assert_eq!(request.expiry, None);
        assert_eq!(request.version.number(), 145);
    }

    #[test]
    fn neither_the_preauth_key_nor_the_auth_url_shows() {
        let key = format!("nodekey:{}", "ab".repeat(32));
        let text = format!(
            r#"{{"Version":145,"NodeKey":"{key}","Auth":{{"AuthKey":"hskey-auth-x"}},"Followup":"http://h/register/y"}}"#
        );
        let request = RegisterRequest::decode(text.as_bytes()).unwrap();
        let response = RegisterResponse {
            auth_url: "http://h/register/y".into(),
            ..RegisterResponse::default()
        };
        let shown = format!("{request:?} {response:?}");
        assert!(!shown.contains("hskey") && !shown.contains("/y"), "{shown}");
    }

    #[test]
    fn a_request_without_a_node_key_is_rejected() {
        let fault = RegisterRequest::decode(br#"{"Version":145}"#).unwrap_err();
        assert_eq!(
            fault.to_string(),
            "field NodeKey: expected a node key, not zero"
        );
    }

    #[test]
    fn an_answer_has_every_field() {
        let text = serde_json::to_string(&RegisterResponse::default()).unwrap();
        assert_eq!(
            text,
            r#"{"User":{"ID":0,"DisplayName":""},"Login":{"ID":0,"Provider":"","LoginName":"","DisplayName":""},"NodeKeyExpired":false,"MachineAuthorized":false,"AuthURL":"","Error":""}"#
        );
    }
}
