//! `POST /machine/map`: the request, and the small parts of the response.

use std::net::{IpAddr, SocketAddr};

use serde::Serialize;

use crate::clock::Timestamp;
use crate::keys::{DiscoKey, NodeKey};
use crate::tailcfg::capability::CapabilityVersion;
use crate::tailcfg::fields::{self, Fields, text_of};
use crate::tailcfg::hostinfo::Hostinfo;
use crate::tailcfg::json::DecodeError;
use crate::wan::address::is_endpoint;

/// `tailcfg.MapRequest`, the fields that are used.
#[derive(Debug, Clone)]
pub struct MapRequest {
    /// Capability version of the client.
    pub version: CapabilityVersion,
    /// Whether the response is to be compressed with zstd.
    pub zstd: bool,
    /// Node key of the requesting node.
    pub node_key: NodeKey,
    /// Its disco key.
    pub disco_key: Option<DiscoKey>,
    /// Whether the response is a stream of updates.
    pub stream: bool,
    /// Whether the request only updates the node, without asking for peers.
    pub omit_peers: bool,
    /// Whether the request does not update the node (deprecated, still sent by some clients).
    pub read_only: bool,
    /// Hostinfo, if sent.
    pub hostinfo: Option<Hostinfo>,
    /// Endpoint candidates; those that no peer could use are left out.
    pub endpoints: Vec<SocketAddr>,
    /// Whether the node offers routes while IP forwarding is off on it.
    pub is_forwarding_off: bool,
}

/// The fields that are read.
const FIELDS: &[&str] = &[
    "Version",
    "Compress",
    "NodeKey",
    "DiscoKey",
    "Stream",
    "OmitPeers",
    "ReadOnly",
    "Hostinfo",
    "Endpoints",
    "DebugFlags",
];

/// Debug flag of a client that offers routes without IP forwarding.
/// Source: `ipForwardingWarnable` in tailscale `health/warnings.go`.
const FORWARDING_OFF: &str = "warn-ip-forwarding-off";

impl MapRequest {
    /// Decodes a request, with at most `endpoints_max` endpoints; a client has a handful.
    ///
    /// # Errors
    /// If it is not a JSON object, a used field has the wrong type, or the node key is missing.
    pub fn decode(bytes: &[u8], endpoints_max: usize) -> Result<Self, DecodeError> {
        let object = Fields::of(fields::parse(bytes)?, FIELDS)?;
        let node_key: Option<NodeKey> = object.parsed("NodeKey", "a node key")?;
        let missing = DecodeError::Field {
            field: "NodeKey",
            expected: "a node key, not zero",
        };
        let disco_key: Option<DiscoKey> = object.parsed("DiscoKey", "a disco key")?;
        Ok(Self {
            version: CapabilityVersion::new(object.number("Version")?),
            zstd: object.text("Compress")? == "zstd",
            node_key: node_key.and_then(NodeKey::non_zero).ok_or(missing)?,
            disco_key: disco_key.and_then(DiscoKey::non_zero),
            stream: object.flag("Stream")?,
            omit_peers: object.flag("OmitPeers")?,
            read_only: object.flag("ReadOnly")?,
            hostinfo: object.get("Hostinfo").map(Hostinfo::decode).transpose()?,
            endpoints: object.list("Endpoints", endpoints_max, |text| {
                let endpoint = text_of(text)?.parse().ok()?;
                is_endpoint(endpoint).then_some(endpoint)
            })?,
            is_forwarding_off: !object
                .list("DebugFlags", 1, |text| {
                    (text_of(text)? == FORWARDING_OFF).then_some(())
                })?
                .is_empty(),
        })
    }
}

/// `tailcfg.UserProfile`.
#[derive(Debug, Clone, Serialize)]
pub struct UserProfile<'a> {
    /// Number of the user.
    #[serde(rename = "ID")]
    pub id: u64,
    /// Login name.
    #[serde(rename = "LoginName")]
    pub login_name: &'a str,
    /// Name to show.
    #[serde(rename = "DisplayName")]
    pub display_name: &'a str,
    /// URL of a picture.
    #[serde(rename = "ProfilePicURL", skip_serializing_if = "str::is_empty")]
    pub profile_pic_url: &'a str,
}

/// `tailcfg.PeerChange`: a patch of a peer; `None` is "unchanged".
#[derive(Debug, Clone, Serialize)]
pub struct PeerChange<'a> {
    /// The peer.
    #[serde(rename = "NodeID")]
    pub node_id: u64,
    /// Its home region.
    #[serde(rename = "DERPRegion", skip_serializing_if = "is_zero")]
    pub derp_region: u16,
    /// Its endpoint candidates, the full list.
    #[serde(rename = "Endpoints", skip_serializing_if = "Option::is_none")]
    pub endpoints: Option<&'a [SocketAddr]>,
    /// Its disco key.
    #[serde(rename = "DiscoKey", skip_serializing_if = "Option::is_none")]
    pub disco_key: Option<DiscoKey>,
    /// Whether it is online.
    #[serde(rename = "Online", skip_serializing_if = "Option::is_none")]
    pub online: Option<bool>,
    /// When it was last online.
    #[serde(rename = "LastSeen", skip_serializing_if = "Option::is_none")]
    pub last_seen: Option<Timestamp>,
}

fn is_zero(number: &u16) -> bool {
    *number == 0
}

/// The address as a host prefix, for `Addresses` and `AllowedIPs`.
pub fn host_prefix(address: IpAddr) -> String {
    let bits = if address.is_ipv4() { 32 } else { 128 };
    format!("{address}/{bits}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(fields: &str) -> MapRequest {
        let text = format!(r#"{{"NodeKey":"nodekey:{}",{fields}}}"#, "01".repeat(32));
        MapRequest::decode(text.as_bytes(), 32).unwrap()
    }

    #[test]
    fn endpoints_that_no_peer_can_use_are_left_out() {
        let request = request(
            r#""Endpoints":["10.0.0.1:41641","[fe80::1%eth0]:1","[fe80::1]:1","[2001:db8::1]:5","x",null]"#,
        );
        let expected: Vec<SocketAddr> = vec![
            "10.0.0.1:41641".parse().unwrap(),
            "[2001:db8::1]:5".parse().unwrap(),
        ];
        assert_eq!(request.endpoints, expected);
    }

    #[test]
    fn a_client_says_that_ip_forwarding_is_off() {
        for (flags, is_off) in [
            (
                r#""DebugFlags":["warn-router-unhealthy","warn-ip-forwarding-off"]"#,
                true,
            ),
            (r#""DebugFlags":["warn-router-unhealthy",5]"#, false),
            (r#""DebugFlags":null"#, false),
            (r#""Stream":true"#, false),
        ] {
            assert_eq!(request(flags).is_forwarding_off, is_off, "{flags}");
        }
    }

    #[test]
    fn null_lists_and_zero_keys_are_absent() {
        let fields = format!(
            r#""Endpoints":null,"DiscoKey":"discokey:{}""#,
            "0".repeat(64)
        );
        let request = request(&fields);
        assert!(request.endpoints.is_empty());
        assert_eq!(request.disco_key, None);
    }
}
