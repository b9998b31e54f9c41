//! `tailcfg.DERPMap`. Source: tailscale `tailcfg/derpmap.go`.

use std::collections::BTreeMap;

use serde::Serialize;

/// The relays that clients may use.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct DerpMap {
    /// Regions by number.
    pub regions: BTreeMap<u16, DerpRegion>,
}

/// One region: relays that forward to each other.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct DerpRegion {
    /// Number of the region; 900 to 999 are for self-hosters.
    #[serde(rename = "RegionID")]
    pub region_id: u16,
    /// Short name.
    pub region_code: String,
    /// Long name.
    pub region_name: String,
    /// Its relays; clients meet at the first.
    pub nodes: Vec<DerpNode>,
}

/// One relay.
#[derive(Debug, Clone, Serialize)]
pub struct DerpNode {
    /// Name, unique over all regions.
    #[serde(rename = "Name")]
    pub name: String,
    /// Number of its region.
    #[serde(rename = "RegionID")]
    pub region_id: u16,
    /// DNS name or address.
    #[serde(rename = "HostName")]
    pub host_name: String,
    /// What its certificate must be: empty for `host_name`, or `sha256-raw:` and a hash.
    #[serde(rename = "CertName", skip_serializing_if = "String::is_empty")]
    pub cert_name: String,
    /// IPv4 address; `none` for none, empty to ask DNS.
    #[serde(rename = "IPv4", skip_serializing_if = "String::is_empty")]
    pub ipv4: String,
    /// IPv6 address, likewise.
    #[serde(rename = "IPv6", skip_serializing_if = "String::is_empty")]
    pub ipv6: String,
    /// UDP port of STUN; 0 is 3478, -1 is none.
    #[serde(rename = "STUNPort", skip_serializing_if = "is_zero")]
    pub stun_port: i32,
    /// TCP port of the relay; 0 is 443.
    #[serde(rename = "DERPPort", skip_serializing_if = "is_zero")]
    pub derp_port: i32,
    /// Whether port 80 answers `/generate_204`.
    #[serde(rename = "CanPort80", skip_serializing_if = "is_false")]
    pub can_port_80: bool,
}

fn is_zero(number: &i32) -> bool {
    *number == 0
}

fn is_false(flag: &bool) -> bool {
    !flag
}
