//! `POST /machine/register`.

use serde::Serialize;

use crate::clock::Timestamp;
use crate::keys::{LockKey, NodeKey};
use crate::tailcfg::capability::CapabilityVersion;
use crate::tailcfg::hostinfo::Hostinfo;
use crate::tailcfg::json::{self, DecodeError, Object};

/// `tailcfg.RegisterRequest`, the fields that are used.
#[derive(Debug, Clone)]
pub struct RegisterRequest {
    /// Capability version of the client.
    pub version: CapabilityVersion,
    /// The node key that the client has or wants.
    pub node_key: NodeKey,
    /// Tailnet Lock key.
    pub lock_key: Option<LockKey>,
    /// Preauth key as typed; empty when there is none.
    pub auth_key: Box<str>,
    /// Wanted expiry; a time in the past is a logout.
    pub expiry: Option<Timestamp>,
    /// The URL of the login whose outcome is awaited; empty when there is none.
    pub followup: Box<str>,
    /// Whether the node wants to be ephemeral.
    pub ephemeral: bool,
    /// What the client says about its machine.
    pub hostinfo: Hostinfo,
}

impl RegisterRequest {
    /// Reads a request.
    ///
    /// # Errors
    /// When it is no JSON object, a used field has another type, or there is no node key.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let value = json::parse(bytes)?;
        let object = Object::of(&value)?;
        let node_key: Option<NodeKey> = object.parsed("NodeKey", "a node key")?;
        let missing = DecodeError::Field {
            field: "NodeKey",
            expected: "a node key, not zero",
        };
        let lock_key: Option<LockKey> = object.parsed("NLKey", "a Tailnet Lock key")?;
        let auth = object.object("Auth")?;
        let hostinfo = object
            .object("Hostinfo")?
            .map(Hostinfo::decode)
            .transpose()?;
        Ok(Self {
            version: CapabilityVersion::new(object.number("Version")?),
            node_key: node_key.and_then(NodeKey::non_zero).ok_or(missing)?,
            lock_key: lock_key.and_then(LockKey::non_zero),
            auth_key: auth
                .map(|auth| auth.text("AuthKey"))
                .transpose()?
                .unwrap_or("")
                .into(),
            expiry: object.time("Expiry")?,
            followup: object.text("Followup")?.into(),
            ephemeral: object.flag("Ephemeral")?,
            hostinfo: hostinfo.unwrap_or_default(),
        })
    }
}

/// `tailcfg.RegisterResponse`. Every field is always written: the Rust client demands it.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct RegisterResponse {
    /// Owner of the node.
    pub user: User,
    /// Identity shown as the account.
    pub login: Login,
    /// The node must come back with a new key.
    pub node_key_expired: bool,
    /// The node may talk.
    pub machine_authorized: bool,
    /// Where a person lets the node in; empty when nobody needs to.
    #[serde(rename = "AuthURL")]
    pub auth_url: String,
    /// What the client shows its user; empty when all is well.
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
    /// Address of a picture.
    #[serde(rename = "ProfilePicURL", skip_serializing_if = "String::is_empty")]
    pub profile_pic_url: String,
}

/// `tailcfg.Login`.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Login {
    /// Number of the login.
    #[serde(rename = "ID")]
    pub id: u64,
    /// Who vouches for it.
    #[serde(rename = "Provider")]
    pub provider: String,
    /// Login name.
    #[serde(rename = "LoginName")]
    pub login_name: String,
    /// Name to show.
    #[serde(rename = "DisplayName")]
    pub display_name: String,
    /// Address of a picture.
    #[serde(rename = "ProfilePicURL", skip_serializing_if = "String::is_empty")]
    pub profile_pic_url: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_of_the_go_client_is_read() {
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
    fn a_request_without_a_node_key_is_refused() {
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
