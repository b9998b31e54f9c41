//! The `[derp]` section: the relay, who may use it, and how clients are told to reach relays.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::time::Duration;

use super::file::{Fault, RawConfig};
use super::value::{AdmitKind, Label, List, Range, Score};
use super::web_url::WebUrl;
use hearth_core::keys::NodeKey;

/// Who may use the relay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admission {
    /// The nodes of this tailnet.
    Tailnet,
    /// Those that another server lets in.
    Url {
        /// Where it is asked, as other relays ask it. Source: `tailcfg.DERPAdmitClientRequest`.
        url: WebUrl,
        /// Whether a client is let in when the server cannot be asked and was never asked about it.
        is_fail_open: bool,
    },
    /// Those with one of these keys.
    Keys(Vec<NodeKey>),
    /// Anybody.
    Open,
}

/// The relay, and how clients are told to reach it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DerpSettings {
    /// Whether there is a relay at all.
    pub enabled: bool,
    /// Whether clients are told of STUN only, and the relay takes no connections.
    pub is_stun_only: bool,
    /// Number of the region; 900 to 999 are left to the owners of relays
    /// (`RegionID` in tailscale `tailcfg/derpmap.go`).
    pub region_id: u16,
    /// Short name of the region.
    pub region_code: String,
    /// Long name of the region.
    pub region_name: String,
    /// Host that clients dial; `None` is the host of `server_url`.
    pub host_name: Option<String>,
    /// IPv4 address that clients dial; `None` lets them look up the host.
    pub ipv4: Option<Ipv4Addr>,
    /// IPv6 address that clients dial; `None` lets them look up the host.
    pub ipv6: Option<Ipv6Addr>,
    /// TCP port that clients dial; `None` is the port of the listener for HTTPS.
    pub port: Option<u16>,
    /// UDP port that clients ask; `None` is the port of the listener for STUN.
    pub stun_port: Option<u16>,
    /// Factor by which clients multiply the time to this region when they choose their home, in
    /// thousandths. `None` is one.
    pub region_score: Option<Score>,
    /// Who may use the relay.
    pub admission: Admission,
    /// Other relays of the region.
    pub mesh_with: Vec<WebUrl>,
    /// File with the key that the relays of the region share.
    pub mesh_key_file: Option<PathBuf>,
    /// Files with more regions, JSON or YAML.
    pub map_files: Vec<PathBuf>,
    /// URLs with more regions, JSON.
    pub map_urls: Vec<WebUrl>,
    /// How often files and URLs are read again.
    pub map_refresh: Duration,
    /// Whether STUN tells clients at home the address of this site instead of their own: `ipv4`.
    pub stun_lan_as_wan: bool,
}

impl DerpSettings {
    /// Takes the `[derp]` section out of a configuration file. `admission` is who may use the relay
    /// when nobody says so.
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
            enabled: raw.take("derp.enabled").unwrap_or(true),
            is_stun_only: raw.take("derp.stun_only").unwrap_or(false),
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
            alone(raw, "derp.mesh_with", "derp.mesh_key_file");
            settings.mesh_with.clear();
        }
        if settings.stun_lan_as_wan && settings.ipv4.is_none() {
            alone(raw, "derp.stun_lan_as_wan", "derp.ipv4");
            settings.stun_lan_as_wan = false;
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

fn alone(raw: &mut RawConfig, key: &'static str, missing: &'static str) {
    raw.warn(raw.place_of(key), Fault::Alone { key, missing });
}

fn admission_of(raw: &mut RawConfig, default: Admission) -> Admission {
    let url: Option<WebUrl> = raw.take("derp.admit_url");
    let keys: Option<List<NodeKey>> = raw.take("derp.admit_keys");
    let is_fail_open = raw.take("derp.admit_fail_open").unwrap_or(false);
    // Whoever wrote the key and made a slip in it must not have a relay that is more open than meant.
    let is_written = raw.has("derp.admit");
    match (raw.take("derp.admit"), url, keys) {
        (None, Some(url), None) if !is_written => Admission::Url { url, is_fail_open },
        (None, None, Some(List(keys))) if !is_written => Admission::Keys(keys),
        (None, ..) => default,
        (Some(AdmitKind::Tailnet), ..) => Admission::Tailnet,
        (Some(AdmitKind::Open), ..) => Admission::Open,
        (Some(AdmitKind::Url), Some(url), _) => Admission::Url { url, is_fail_open },
        (Some(AdmitKind::Url), None, _) => {
            alone(raw, "derp.admit", "derp.admit_url");
            default
        }
        (Some(AdmitKind::Keys), _, Some(List(keys))) => Admission::Keys(keys),
        (Some(AdmitKind::Keys), _, None) => {
            alone(raw, "derp.admit", "derp.admit_keys");
            default
        }
    }
}
