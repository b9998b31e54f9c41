//! Login handshake, the relay's side: states that are consumed by the step to the next. Does no I/O.
//!
//! [`Greeting`] encodes the `ServerKey` frame and verifies `ClientInfo`, whose box only the owner of
//! its key can seal. [`Proven`] waits for the decision about admission and encodes `ServerInfo`.

use std::borrow::Cow;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::frame::{Frame, FrameError, Kind, PROTOCOL_VERSION};
use crate::nacl::{NONCE_LEN, NotAuthentic, SharedKey};
use crate::{Key, MeshKey, ServerSecret};

/// Client information of a login. Unknown fields are ignored. Source: `derp.ClientInfo`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClientInfo {
    /// The client's protocol version; not checked, as in the reference.
    #[serde(skip_serializing_if = "is_default")]
    pub version: u32,
    /// Whether the client answers pings.
    #[serde(rename = "CanAckPings")]
    pub can_ack_pings: bool,
    /// Whether the client measures the relay rather than using it.
    #[serde(rename = "IsProber", skip_serializing_if = "is_default")]
    pub is_prober: bool,
    /// The mesh key, with which a relay of the same region identifies itself. An invalid key counts
    /// as none, because some clients send a word instead.
    #[serde(
        rename = "meshKey",
        skip_serializing_if = "Option::is_none",
        serialize_with = "mesh_key_to_text",
        deserialize_with = "mesh_key_from_text"
    )]
    pub mesh_key: Option<MeshKey>,
}

fn mesh_key_to_text<S: Serializer>(key: &Option<MeshKey>, to: S) -> Result<S::Ok, S::Error> {
    key.as_ref()
        .map(|key| key.to_hex().to_string())
        .serialize(to)
}

fn mesh_key_from_text<'de, D: Deserializer<'de>>(from: D) -> Result<Option<MeshKey>, D::Error> {
    let text = Option::<Cow<'de, str>>::deserialize(from)?;
    Ok(text.and_then(|text| text.parse().ok()))
}

/// Server information that an admitted client gets. Source: `derp.ServerInfo`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerInfo {
    /// The relay's protocol version.
    pub version: u32,
    /// Rate limit that the client must apply, in bytes per second with frame headers; 0 is no limit.
    #[serde(
        default,
        rename = "TokenBucketBytesPerSecond",
        skip_serializing_if = "is_default"
    )]
    pub bytes_per_second: u32,
    /// Burst of that limit in bytes.
    #[serde(
        default,
        rename = "TokenBucketBytesBurst",
        skip_serializing_if = "is_default"
    )]
    pub burst_bytes: u32,
}

impl Default for ServerInfo {
    fn default() -> Self {
        ServerInfo {
            version: PROTOCOL_VERSION,
            bytes_per_second: 0,
            burst_bytes: 0,
        }
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Why a login failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoginError {
    /// `ClientInfo` has an invalid length.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The client's key is all zero.
    #[error("client key is zero")]
    ZeroKey,
    /// The client does not own its key, or wanted another relay.
    #[error(transparent)]
    Box(#[from] NotAuthentic),
    /// The box does not hold the JSON of `ClientInfo`.
    #[error("client information is not valid JSON")]
    Json,
}

/// The first state: `ServerKey` was sent, waiting for `ClientInfo`.
#[derive(Clone, Debug)]
pub struct Greeting(Arc<ServerSecret>);

impl Greeting {
    /// Starts a login to the relay with this key.
    pub fn new(secret: Arc<ServerSecret>) -> Self {
        Greeting(secret)
    }

    /// Appends the `ServerKey` frame to `out`. `public` is the public half of the relay's key, which
    /// the caller keeps because it is slow to compute.
    pub fn server_key(&self, public: Key, out: &mut Vec<u8>) {
        Frame::ServerKey(public).encode(out);
    }

    /// Verifies the body of `ClientInfo`. Costs one scalar multiplication.
    pub fn client_info(self, body: &[u8]) -> Result<Proven, LoginError> {
        let Frame::ClientInfo { key, sealed } = Frame::decode(Kind::ClientInfo, body)? else {
            return Err(LoginError::Json);
        };
        if key.is_zero() {
            return Err(LoginError::ZeroKey);
        }
        let shared = SharedKey::new(&self.0, &key);
        let text = shared.open(sealed)?;
        let info = serde_json::from_slice(&text).map_err(|_| LoginError::Json)?;
        Ok(Proven { key, info, shared })
    }
}

/// The second state: the client owns `key`; admission is not decided.
pub struct Proven {
    /// The client's key.
    pub key: Key,
    /// Its client information.
    pub info: ClientInfo,
    shared: SharedKey,
}

impl Proven {
    /// The last step, for an admitted client: appends the `ServerInfo` frame to `out`. `nonce` must
    /// be random.
    pub fn server_info(
        self,
        info: &ServerInfo,
        nonce: &[u8; NONCE_LEN],
        out: &mut Vec<u8>,
    ) -> Result<(), LoginError> {
        let text = serde_json::to_vec(info).map_err(|_| LoginError::Json)?;
        let sealed = self.shared.seal(nonce, &text)?;
        Frame::ServerInfo(&sealed).encode(out);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{client_info_body, hex, secret};

    fn keys() -> (ServerSecret, Arc<ServerSecret>) {
        (secret(1), Arc::new(secret(2)))
    }

    #[test]
    fn login_proves_the_key_and_answers_in_the_same_box() {
        let (client, server) = keys();
        let text =
            br#"{"version":2,"CanAckPings":true,"IsProber":true,"AppName":"x","meshKey":"none"}"#;
        let body = client_info_body(&client, &server.public(), text);
        let proven = Greeting::new(server.clone()).client_info(&body).unwrap();
        assert_eq!(proven.key, client.public());
        assert_eq!(
            proven.info,
            ClientInfo {
                version: 2,
                can_ack_pings: true,
                is_prober: true,
                mesh_key: None
            }
        );
        let mut out = Vec::new();
        proven
            .server_info(&ServerInfo::default(), &[4; 24], &mut out)
            .unwrap();
        assert_eq!(out[..5], [3, 0, 0, 0, 53]);
        let text = SharedKey::new(&client, &server.public())
            .open(&out[5..])
            .unwrap();
        assert_eq!(text, br#"{"version":2}"#);
    }

    /// Made by `derp.NewClient` of tailscale.com v1.102.5 with the private keys 0x11 and 0x22 repeated, clamped.
    #[test]
    fn frame_of_the_reference_client_logs_in() {
        let body = hex(concat!(
            "7b4e909bbe7ffe44c465a220037d608ee35897d31ef972f07f74892cb0f73f13b0bd5232c7746181e182c929e85f22a6",
            "3c3428855c191ef793f00a67fdb1001d5d7457c616d30c5e6277b95812f06623fc53b873736edd94166da53d732f8004",
            "5a315cedb659e2a06eafd1958be3a0525adb8b8689d8ce01",
        ));
        let mut clamped = [0x22; 32];
        clamped[0] = 0x20;
        clamped[31] = 0x62;
        let server = Arc::new(ServerSecret::from_bytes(clamped));
        let public = hex("0faa684ed28867b97f4a6a2dee5df8ce974e76b7018e3f22a1c4cf2678570f20");
        assert_eq!(server.public().as_bytes()[..], public);
        let proven = Greeting::new(server).client_info(&body).unwrap();
        assert_eq!(format!("{:?}", proven.key), "[e06Qm]");
        assert_eq!(
            proven.info,
            ClientInfo {
                version: 2,
                can_ack_pings: true,
                is_prober: true,
                mesh_key: None
            }
        );
    }

    #[test]
    fn mesh_key_is_read_and_written() {
        let text = format!(
            r#"{{"version":2,"CanAckPings":true,"meshKey":"{}"}}"#,
            "ab".repeat(32)
        );
        let info: ClientInfo = serde_json::from_str(&text).unwrap();
        assert_eq!(info.mesh_key, "ab".repeat(32).parse().ok());
        assert_eq!(serde_json::to_string(&info).unwrap(), text);
    }

    #[test]
    fn fields_of_other_clients_are_ignored() {
        let (client, server) = keys();
        let text = br#"{"can_ack_pings":true,"is_prober":false,"mesh_key":"none","version":2}"#;
        let body = client_info_body(&client, &server.public(), text);
        assert_eq!(
            Greeting::new(server)
                .client_info(&body)
                .unwrap()
                .info
                .version,
            2
        );
    }

    #[test]
    fn key_of_another_client_is_refused() {
        let (client, server) = keys();
        let mut body = client_info_body(&client, &server.public(), b"{}");
        body[..32].copy_from_slice(secret(5).public().as_bytes());
        let error = Greeting::new(server.clone()).client_info(&body).err();
        assert_eq!(error, Some(LoginError::Box(NotAuthentic)));
        body[..32].fill(0);
        assert_eq!(
            Greeting::new(server).client_info(&body).err(),
            Some(LoginError::ZeroKey)
        );
    }

    #[test]
    fn every_truncation_and_bit_flip_is_refused() {
        let (client, server) = keys();
        let body = client_info_body(&client, &server.public(), b"{}");
        let greeting = Greeting::new(server);
        for end in 0..body.len() {
            assert!(greeting.clone().client_info(&body[..end]).is_err());
        }
        // The last bit of an X25519 key carries no meaning (RFC 7748 section 5), so it is left out.
        for bit in (0..body.len() * 8).filter(|bit| *bit != 255) {
            let mut bad = body.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(greeting.clone().client_info(&bad).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn text_that_is_not_client_info_is_refused() {
        let (client, server) = keys();
        for text in [&b""[..], b"[", b"7", br#"{"version":"2"}"#, b"\xff"] {
            let body = client_info_body(&client, &server.public(), text);
            assert_eq!(
                Greeting::new(server.clone()).client_info(&body).err(),
                Some(LoginError::Json)
            );
        }
    }
}
