//! WireGuard-only peers: devices without a Tailscale client, as an administrator describes them.

use std::net::IpAddr;
use std::sync::Arc;

use crate::keys::MachineKey;
use crate::state::apply::{Applied, address, check_length, keys, node, routes};
use crate::state::command::{NewWireGuard, Outcome, Rejected};
use crate::state::ending::Ending;
use crate::state::event::{Action, Target, Values, owner_text};
use crate::state::model::{
    Facets, Hostinfo, Model, Node, Owner, Presence, RegisteredBy, is_exit_route,
};
use crate::state::name;
use crate::state::tx::Tx;
use crate::wan::address::is_endpoint;

/// Most endpoints of one peer.
const ENDPOINTS_MAX: usize = 8;
/// Most resolvers of one peer.
const RESOLVERS_MAX: usize = 8;
/// Longest text of a resolver, in bytes.
const RESOLVER_BYTES_MAX: usize = 256;

pub(super) fn add(tx: &mut Tx<'_>, new: NewWireGuard) -> Applied {
    let owner = check(tx, &new)?;
    let id = tx.counters.node;
    let served = routes::sorted(new.routes);
    let exit = served.iter().any(is_exit_route);
    let hostinfo = Hostinfo {
        raw: "{}".into(),
        shared: r#"{"OS":"wireguard"}"#.into(),
        hostname: new.label.clone(),
        os: "wireguard".into(),
        routable_ips: served.to_vec().into(),
        ..Hostinfo::default()
    };
    let mut peer = Node {
        id,
        // No client can come with this key: it is the neutral element, which Noise refuses.
        machine: MachineKey::from_bytes([0; 32]),
        key: new.key,
        disco: None,
        lock: None,
        owner,
        label: new.label,
        label_chosen: true,
        hostinfo: Arc::new(hostinfo),
        ipv4: std::net::Ipv4Addr::UNSPECIFIED,
        ipv6: std::net::Ipv6Addr::UNSPECIFIED,
        created: tx.now().wall,
        expiry: None,
        ending: Ending::default(),
        expired: false,
        authorized: true,
        wireguard: Some(Arc::new(crate::state::model::WireGuard {
            exit_dns: if exit {
                new.details.exit_dns
            } else {
                Box::default()
            },
            ..new.details
        })),
        approved_routes: served,
        primary_routes: Arc::default(),
        unhealthy: false,
        forwarding_off: false,
        ephemeral: false,
        registered_by: RegisteredBy::Hand,
        capability: 0,
        home_derp: 0,
        endpoints: new.endpoints.into(),
        live: true,
        unmet_tags: Box::default(),
        presence: Presence::Fixed,
        facets: Facets::default(),
        unflushed: false,
    };
    let (ipv4, ipv6) = address::next_free(tx, &routes::facts(tx, &peer))?;
    peer.ipv4 = new.ipv4.unwrap_or(ipv4);
    peer.ipv6 = new.ipv6.unwrap_or(ipv6);
    tx.take_node_id()?;
    if (peer.ipv4, peer.ipv6) == (ipv4, ipv6) {
        address::given(tx, &peer);
    }
    let values = Values::made(&owner_text(tx, &peer.owner), "WireGuard-only peer");
    tx.event(Action::Create, Target::node(&peer), values);
    tx.put_whole_node(peer);
    Ok(Outcome::Node(id))
}

/// Refuses a peer that cannot be, and gives the owner with its tags sorted.
fn check(model: &Model, new: &NewWireGuard) -> Result<Owner, Rejected> {
    if !name::is_free_label(&new.label) {
        return Err(Rejected::BadNodeName(new.label.clone()));
    }
    let id = model.counters.node;
    if node::is_taken(model, id, &new.label) {
        return Err(Rejected::NodeNameTaken(new.label.clone()));
    }
    if let Some(taken) = model.node_by_key(&new.key) {
        return Err(Rejected::KeyTaken(taken.id));
    }
    if new.endpoints.is_empty() {
        return Err(Rejected::NoEndpoint);
    }
    let mut endpoints = new.endpoints.iter();
    if let Some(bad) = endpoints.find(|endpoint| !is_endpoint(**endpoint)) {
        return Err(Rejected::BadEndpoint(*bad));
    }
    if new.endpoints.len() > ENDPOINTS_MAX {
        return Err(Rejected::TooMany {
            what: "endpoints",
            limit: ENDPOINTS_MAX,
        });
    }
    let owner = match &new.owner {
        Owner::User(user) if !model.users.contains_key(user) => return Err(Rejected::NoSuchUser),
        Owner::User(user) => Owner::User(*user),
        Owner::Tags(tags) if tags.is_empty() => return Err(Rejected::NoTags),
        Owner::Tags(tags) => Owner::Tags(keys::checked_tags(tags.to_vec())?),
    };
    routes::check_count(&new.routes)?;
    check_resolvers(&new.details.exit_dns)?;
    let limit = model.settings.max_nodes;
    if model.nodes.len() >= limit {
        return Err(Rejected::TooManyNodes { limit });
    }
    address::check(model, id, new.ipv4, new.ipv6)?;
    Ok(owner)
}

/// The forms that clients take (`Resolver.Addr` in tailscale `types/dnstype/dnstype.go`), without those that
/// say nothing to an exit node.
fn check_resolvers(list: &[Box<str>]) -> Result<(), Rejected> {
    if list.len() > RESOLVERS_MAX {
        return Err(Rejected::TooMany {
            what: "resolvers",
            limit: RESOLVERS_MAX,
        });
    }
    let is_resolver = |text: &str| {
        let doh = text.strip_prefix("https://");
        let url =
            doh.is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_graphic()));
        url || text.parse::<IpAddr>().is_ok()
    };
    for text in list {
        check_length("resolver", text, RESOLVER_BYTES_MAX)?;
        if !is_resolver(text) {
            return Err(Rejected::BadResolver(text.clone()));
        }
    }
    Ok(())
}
