//! The `[derp]` section: the relay, its admission, and the DERP map.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::time::Duration;

use super::fault::ConfigFault;
use super::file::RawConfig;
use super::value::{AdmitKind, Label, List, Range, Score};
use super::web_url::WebUrl;
use hearth_core::keys::NodeKey;

/// Admission to the relay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admission {
    /// Nodes of this tailnet.
    Tailnet,
    /// Clients that another server admits.
    Url {
        /// The URL that is asked about each client. Source: `tailcfg.DERPAdmitClientRequest`.
        url: WebUrl,
        /// Whether to admit a client when the URL cannot be reached and no answer is cached.
        is_fail_open: bool,
    },
    /// Clients with one of these keys.
    Keys(Vec<NodeKey>),
    /// Anyone.
    Open,
}

/// The relay and how it is advertised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DerpSettings {
    /// Whether the relay is on.
    pub enabled: bool,
    /// Whether the region offers STUN only and the relay is off.
    pub is_stun_only: bool,
    /// Region ID; 900 to 999 are reserved for custom regions
    /// (`RegionID` in tailscale `tailcfg/derpmap.go`).
    pub region_id: u16,
    /// Region code.
    pub region_code: String,
    /// Region name.
    pub region_name: String,
    /// Host name of the relay; `None` is the host of `server_url`.
    pub host_name: Option<String>,
    /// IPv4 address of the relay; `None` leaves clients to DNS.
    pub ipv4: Option<Ipv4Addr>,
    /// IPv6 address of the relay; `None` leaves clients to DNS.
    pub ipv6: Option<Ipv6Addr>,
    /// Advertised TCP port; `None` is the port of the HTTPS listener.
    pub port: Option<u16>,
    /// Advertised STUN port (UDP); `None` is the port of the STUN listener.
    pub stun_port: Option<u16>,
    /// Factor by which clients multiply the latency of this region when they choose their home relay;
    /// `None` is one.
    pub region_score: Option<Score>,
    /// Admission to the relay.
    pub admission: Admission,
    /// Mesh peers: other relays of the region.
    pub mesh_with: Vec<WebUrl>,
    /// File with the mesh key of the region.
    pub mesh_key_file: Option<PathBuf>,
    /// Files with more regions, in JSON or YAML.
    pub map_files: Vec<PathBuf>,
    /// URLs with more regions, in JSON.
    pub map_urls: Vec<WebUrl>,
    /// Time between two reads of files and URLs.
    pub map_refresh: Duration,
    /// Whether STUN answers clients with private addresses with `ipv4`, or the public address that the server knows.
    pub stun_lan_as_wan: bool,
}

impl DerpSettings {
    /// Takes the `[derp]` section from a configuration file. `admission` is the default.
    pub(super) fn take(raw: &mut RawConfig, admission: Admission) -> Self {
        let ports = Range {
            least: 1,
            most: u16::MAX,
        };
        let mut label = |key, default: &str| {
            let Label(text) = raw.take(key).unwrap_or_else(|| Label(default.into()));
            text
        };
        let region_code = label("derp.region_code", "hearth");
        let region_name = label("derp.region_name", "hearth");
        let refresh = Range {
            least: Duration::from_secs(60),
            most: Duration::from_secs(30 * 24 * 60 * 60),
        };
        let mut settings = Self {
            enabled: raw.take_or("derp.enabled", true, false),
            is_stun_only: raw.take_or("derp.stun_only", false, true),
            region_id: raw.take_in_range("derp.region_id", ports).unwrap_or(900),
            region_code,
            region_name,
            host_name: raw.take("derp.host_name").map(|Label(text)| text),
            ipv4: raw.take("derp.ipv4"),
            ipv6: raw.take("derp.ipv6"),
            port: raw.take_in_range("derp.port", ports),
            stun_port: raw.take_in_range("derp.stun_port", ports),
            region_score: raw.take("derp.region_score"),
            admission: admission_of(raw, admission),
            mesh_with: list(raw, "derp.mesh_with"),
            mesh_key_file: raw.take("derp.mesh_key_file"),
            map_files: list(raw, "derp.map_files"),
            map_urls: list(raw, "derp.map_urls"),
            map_refresh: raw
                .take_in_range("derp.map_refresh", refresh)
                .unwrap_or(Duration::from_secs(3 * 60 * 60)),
            stun_lan_as_wan: raw.take("derp.stun_lan_as_wan").unwrap_or(false),
        };
        if !settings.mesh_with.is_empty() && settings.mesh_key_file.is_none() {
            requires(raw, "derp.mesh_with", "derp.mesh_key_file");
            settings.mesh_with.clear();
        }
        settings
    }
}

fn list<T>(raw: &mut RawConfig, key: &'static str) -> Vec<T>
where
    List<T>: super::value::Setting,
{
    raw.take(key).map(|List(items)| items).unwrap_or_default()
}

fn requires(raw: &mut RawConfig, key: &'static str, missing: &'static str) {
    raw.warn(raw.location_of(key), ConfigFault::Alone { key, missing });
}

/// Who may use the relay. A slip must not admit anyone: if `admit` cannot be read, members of the tailnet are
/// admitted at most, and if it may depend on a URL or list that cannot be read, nobody is.
fn admission_of(raw: &mut RawConfig, default: Admission) -> Admission {
    let url: Option<WebUrl> = raw.take("derp.admit_url");
    let keys: Option<List<NodeKey>> = raw.take("derp.admit_keys");
    let is_fail_open = raw.take("derp.admit_fail_open").unwrap_or(false);
    let kind: Option<AdmitKind> = raw.take("derp.admit");
    let is_kind_lost = kind.is_none() && raw.is_damaged("derp.admit");
    let is_url_lost = url.is_none() && raw.is_damaged("derp.admit_url");
    let are_keys_lost = keys.is_none() && raw.is_damaged("derp.admit_keys");
    let nobody = Admission::Keys(Vec::new());
    match (kind, url, keys) {
        (None, None, None) if is_kind_lost && !is_url_lost && !are_keys_lost => default,
        (None, ..) if is_kind_lost || is_url_lost || are_keys_lost => nobody,
        (None, Some(url), None) => Admission::Url { url, is_fail_open },
        (None, None, Some(List(keys))) => Admission::Keys(keys),
        (None, ..) => default,
        (Some(AdmitKind::Tailnet), ..) => Admission::Tailnet,
        (Some(AdmitKind::Open), ..) => Admission::Open,
        (Some(AdmitKind::Url), Some(url), _) => Admission::Url { url, is_fail_open },
        (Some(AdmitKind::Url), None, _) if is_url_lost => nobody,
        (Some(AdmitKind::Url), None, _) => {
            requires(raw, "derp.admit", "derp.admit_url");
            default
        }
        (Some(AdmitKind::Keys), _, Some(List(keys))) => Admission::Keys(keys),
        (Some(AdmitKind::Keys), _, None) if are_keys_lost => nobody,
        (Some(AdmitKind::Keys), _, None) => {
            requires(raw, "derp.admit", "derp.admit_keys");
            default
        }
    }
}
