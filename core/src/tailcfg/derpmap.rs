//! `tailcfg.DERPMap`. Source: tailscale `tailcfg/derpmap.go`.

use std::collections::BTreeMap;

use serde::Serialize;

/// The DERP map: relays by region.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct DerpMap {
    /// How clients choose their home region.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub home_params: Option<HomeParams>,
    /// Regions by number.
    pub regions: BTreeMap<u16, DerpRegion>,
}

/// How clients choose their home region.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct HomeParams {
    /// Latency factor by region; below 1 a region is preferred.
    pub region_score: BTreeMap<u16, f64>,
}

/// A region: relays that forward to each other.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct DerpRegion {
    /// Number of the region; 900 to 999 are for self-hosters.
    #[serde(rename = "RegionID")]
    pub region_id: u16,
    /// Short name.
    pub region_code: String,
    /// Long name.
    pub region_name: String,
    /// Degrees north; 0 if unknown.
    #[serde(skip_serializing_if = "is_nowhere")]
    pub latitude: f64,
    /// Degrees east; 0 if unknown.
    #[serde(skip_serializing_if = "is_nowhere")]
    pub longitude: f64,
    /// Whether clients choose it as home only if there is no other (old form).
    #[serde(skip_serializing_if = "is_false")]
    pub avoid: bool,
    /// Whether clients neither measure it nor choose it as home.
    #[serde(skip_serializing_if = "is_false")]
    pub no_measure_no_home: bool,
    /// Its relays; clients connect to the first that works.
    pub nodes: Vec<DerpNode>,
}

/// One relay.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
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
    /// Expected certificate name: empty for `host_name`, or `sha256-raw:` and a hash.
    #[serde(rename = "CertName", skip_serializing_if = "String::is_empty")]
    pub cert_name: String,
    /// IPv4 address; `none` for none, empty to resolve `host_name`.
    #[serde(rename = "IPv4", skip_serializing_if = "String::is_empty")]
    pub ipv4: String,
    /// IPv6 address, likewise.
    #[serde(rename = "IPv6", skip_serializing_if = "String::is_empty")]
    pub ipv6: String,
    /// UDP port of STUN; 0 is 3478, -1 is none.
    #[serde(rename = "STUNPort", skip_serializing_if = "is_zero")]
    pub stun_port: i32,
    /// Whether it answers STUN only.
    #[serde(rename = "STUNOnly", skip_serializing_if = "is_false")]
    pub stun_only: bool,
    /// TCP port of the relay; 0 is 443.
    #[serde(rename = "DERPPort", skip_serializing_if = "is_zero")]
    pub derp_port: i32,
    /// Whether port 80 answers `/generate_204`.
    #[serde(rename = "CanPort80", skip_serializing_if = "is_false")]
    pub can_port_80: bool,
    /// Whether clients do not verify its certificate; for tests only.
    #[serde(rename = "InsecureForTests", skip_serializing_if = "is_false")]
    pub insecure_for_tests: bool,
}

fn is_nowhere(degrees: &f64) -> bool {
    *degrees == 0.0
}

fn is_zero(number: &i32) -> bool {
    *number == 0
}

fn is_false(flag: &bool) -> bool {
    !flag
}
