//! Network maps: what each node is told of the others, first whole and then by changes.
//!
//! Pure: snapshots in, bytes out. Peers are serialised once and shared between all who are told.
//! Must not know: HTTP, the database, the system's clocks.

pub mod delta;
pub mod fragment;
pub mod frame;
pub mod full;
pub mod notices;
pub mod session;

use std::sync::Arc;

use crate::clock::Timestamp;
use crate::id::{TAGGED_DEVICES, TAGGED_DEVICES_NAME};
use crate::netmap::notices::Notices;
use crate::state::model::{Node, Owner, User};
use crate::state::snapshot::Snapshot;
use crate::tailcfg::derpmap::DerpMap;
use crate::tailcfg::dns::DnsConfig;
use crate::tailcfg::map::UserProfile;

/// What is the same in every map.
#[derive(Debug, Clone)]
pub struct Tailnet {
    /// Domain of the nodes' names, without a dot at the end.
    pub base_domain: String,
    /// The relays, as JSON.
    pub derp_map: String,
    /// Which version of the relays this is, counted from 0 at the start of the server.
    pub derp_version: u32,
    /// The region of all nodes that have not said theirs yet; 0 where there is not exactly one.
    pub only_region: u16,
    /// DNS settings, as JSON.
    pub dns_config: String,
    /// What is said beside the network.
    pub notices: Notices,
}

impl Tailnet {
    /// The constant parts for this base domain and these relays.
    pub fn new(base_domain: String, derp_map: &DerpMap) -> Self {
        let dns = DnsConfig {
            domains: vec![base_domain.clone()],
            proxied: true,
            ..DnsConfig::default()
        };
        let dns_config = to_json(&dns);
        let with_relay = derp_map.regions.iter().filter(|(_, region)| {
            let mut nodes = region.nodes.iter();
            nodes.any(|node| !node.stun_only)
        });
        let mut regions = with_relay.map(|(number, _)| number);
        let only_region = match (regions.next(), regions.next()) {
            (Some(region), None) => *region,
            _ => 0,
        };
        let derp_map = to_json(derp_map);
        Self {
            base_domain,
            derp_map,
            derp_version: 0,
            only_region,
            dns_config,
            notices: Notices::default(),
        }
    }

    /// The same with these notices.
    pub fn with_notices(self, notices: Notices) -> Self {
        Self { notices, ..self }
    }

    /// The same with other relays.
    pub fn with_derp_map(&self, derp_map: &DerpMap) -> Self {
        Self {
            derp_version: self.derp_version.wrapping_add(1),
            notices: self.notices.clone(),
            ..Self::new(self.base_domain.clone(), derp_map)
        }
    }

    /// The full name of a node, without a dot at the end.
    pub fn name_of(&self, node: &Node) -> String {
        format!("{}.{}", node.label, self.base_domain)
    }
}

/// The text of a value whose serialisation cannot fail: string keys, no foreign types.
fn to_json<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// The number under which a node's owner appears.
pub fn owner_number(node: &Node) -> u64 {
    node.user().map_or(TAGGED_DEVICES, |user| user.number())
}

/// How the owner of a node is shown.
pub fn owner_profile<'a>(snapshot: &'a Snapshot, owner: &Owner) -> UserProfile<'a> {
    let user = match owner {
        Owner::User(id) => snapshot.users().get(id).map(|user| profile_of(user)),
        Owner::Tags(_) => None,
    };
    user.unwrap_or(UserProfile {
        id: TAGGED_DEVICES,
        login_name: TAGGED_DEVICES_NAME,
        display_name: "Tagged Devices",
        profile_pic_url: "",
    })
}

/// How a user is shown.
pub fn profile_of(user: &User) -> UserProfile<'_> {
    let shown = if user.display_name.is_empty() {
        &user.name
    } else {
        &user.display_name
    };
    UserProfile {
        id: user.id.number(),
        login_name: &user.name,
        display_name: shown,
        profile_pic_url: &user.picture_url,
    }
}

/// The profiles of the owners of these nodes, each once, as a JSON list.
fn profiles<'a>(snapshot: &Snapshot, nodes: impl Iterator<Item = &'a Arc<Node>>) -> String {
    let mut known = std::collections::BTreeMap::new();
    for node in nodes {
        let profile = || owner_profile(snapshot, &node.owner);
        known.entry(owner_number(node)).or_insert_with(profile);
    }
    to_json(&known.into_values().collect::<Vec<_>>())
}

/// A keep-alive message. It says the time as well: a bare `{"KeepAlive":true}` makes the official
/// client remember its compressed form and mistake other messages of the same length for it
/// (`decodeMsg` in tailscale `control/controlclient/direct.go`).
pub fn keep_alive(now: Timestamp) -> String {
    format!(r#"{{"KeepAlive":true,"ControlTime":"{now}"}}"#)
}
