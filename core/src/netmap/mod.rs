//! Network maps: what each node is told of the others, first whole and then by changes.
//!
//! Pure: snapshots in, bytes out. Peers are serialised once and shared between all who are told.
//! Must not know: HTTP, the database, the system's clocks.

mod chunk;
pub mod delta;
pub mod dns;
pub mod fragment;
pub mod frame;
pub mod full;
pub mod notices;
pub mod reverse;
pub mod session;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::clock::Timestamp;
use crate::id::{TAGGED_DEVICES, TAGGED_DEVICES_NAME, UserId};
use crate::netmap::dns::DnsSources;
use crate::netmap::fragment::Fragments;
use crate::netmap::notices::Notices;
use crate::state::model::{Node, Owner, User};
use crate::state::snapshot::Snapshot;
use crate::tailcfg::derpmap::DerpMap;
use crate::tailcfg::json;
use crate::tailcfg::map::UserProfile;

/// What every message is made of.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// What is the same in every map.
    pub tailnet: &'a Tailnet,
    /// The parts that maps share.
    pub fragments: &'a Fragments,
    /// The state to tell of.
    pub snapshot: &'a Snapshot,
    /// The time to tell.
    pub now: Timestamp,
}

/// What is the same in every map.
#[derive(Debug, Clone)]
pub struct Tailnet {
    /// Domain of the nodes' names, without a dot at the end.
    pub base_domain: String,
    /// The relays, as JSON.
    pub derp_map: String,
    /// Which version of the relays this is, counted from 0 at the start of the server.
    pub derp_version: u32,
    /// How many regions of relays there are.
    pub region_count: usize,
    /// The region of all nodes that have not said theirs yet; 0 where there is not exactly one.
    pub only_region: u16,
    /// What DNS settings are made of; `dns::DnsTexts` makes them, since nodes differ.
    pub dns: Arc<DnsSources>,
    /// Which version of them this is, counted from 0 at the start of the server.
    pub dns_version: u32,
    /// Which version of those parts of them this is that show in peers.
    pub peers_version: u32,
    /// What is said beside the network.
    pub notices: Notices,
    /// Which version of the way to the server in it this is, counted from 0 at the start of the server.
    pub dial_plan_version: u32,
}

impl Tailnet {
    /// The constant parts for this base domain and these relays, with the usual DNS settings.
    pub fn new(base_domain: String, derp_map: &DerpMap) -> Self {
        let with_relay = derp_map.regions.iter().filter(|(_, region)| {
            let mut nodes = region.nodes.iter();
            nodes.any(|node| !node.stun_only)
        });
        let mut regions = with_relay.map(|(number, _)| number);
        let only_region = match (regions.next(), regions.next()) {
            (Some(region), None) => *region,
            _ => 0,
        };
        let region_count = derp_map.regions.len();
        let derp_map = to_json(derp_map);
        Self {
            region_count,
            base_domain,
            derp_map,
            derp_version: 0,
            only_region,
            dns: Arc::default(),
            dns_version: 0,
            peers_version: 0,
            notices: Notices::default(),
            dial_plan_version: 0,
        }
    }

    /// The same with these notices.
    pub fn with_notices(self, notices: Notices) -> Self {
        let is_other = notices.differ_in_dial_plan(&self.notices);
        Self {
            dial_plan_version: self.dial_plan_version.wrapping_add(u32::from(is_other)),
            notices,
            ..self
        }
    }

    /// The same with other relays.
    pub fn with_derp_map(&self, derp_map: &DerpMap) -> Self {
        Self {
            derp_version: self.derp_version.wrapping_add(1),
            dns: self.dns.clone(),
            dns_version: self.dns_version,
            peers_version: self.peers_version,
            notices: self.notices.clone(),
            dial_plan_version: self.dial_plan_version,
            ..Self::new(self.base_domain.clone(), derp_map)
        }
    }

    /// The same with other DNS settings.
    pub fn with_dns(&self, dns: DnsSources) -> Self {
        let is_same = dns.settings.wildcard == self.dns.settings.wildcard;
        Self {
            peers_version: self.peers_version.wrapping_add(u32::from(!is_same)),
            dns: Arc::new(dns),
            dns_version: self.dns_version.wrapping_add(1),
            ..self.clone()
        }
    }

    /// Whether all names below the node's own lead to it.
    pub fn is_wildcard(&self, node: &Node) -> bool {
        node.is_one_of(&self.dns.settings.wildcard, &self.base_domain)
    }

    /// The full name of a node, without a dot at the end.
    pub fn name_of(&self, node: &Node) -> String {
        format!("{}.{}", node.label, self.base_domain)
    }
}

/// The text of a value; see [`json::plain`].
fn to_json<T: serde::Serialize>(value: &T) -> String {
    json::plain(value)
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

/// The profiles of these users and of the owners of these nodes, each once.
fn profiles<'a>(
    snapshot: &'a Snapshot,
    nodes: impl Iterator<Item = &'a Arc<Node>>,
    users: &BTreeSet<UserId>,
) -> Vec<UserProfile<'a>> {
    let mut known = BTreeMap::new();
    for user in users.iter().filter_map(|id| snapshot.users().get(id)) {
        known.insert(user.id.number(), profile_of(user));
    }
    for node in nodes {
        let profile = || owner_profile(snapshot, &node.owner);
        known.entry(owner_number(node)).or_insert_with(profile);
    }
    known.into_values().collect()
}

/// A keep-alive message. It says the time as well: a bare `{"KeepAlive":true}` makes the official
/// client remember its compressed form and mistake other messages of the same length for it
/// (`decodeMsg` in tailscale `control/controlclient/direct.go`).
pub fn keep_alive(now: Timestamp) -> String {
    format!(r#"{{"KeepAlive":true,"ControlTime":"{now}"}}"#)
}
