//! Addresses of nodes: the next free ones, chosen ones, and new ones after the prefixes changed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::id::NodeId;
use crate::policy;
use crate::state::apply::{Applied, node};
use crate::state::command::{Rejected, Reply};
use crate::state::model::{Model, Node};
use crate::state::record::Record;

/// Free addresses for a node that the policy sees so: from the pool that the policy names for it, otherwise
/// from the tailnet's prefixes.
pub(super) fn next_free(
    model: &Model,
    facts: &policy::Node,
) -> Result<(Ipv4Addr, Ipv6Addr), Rejected> {
    let prefixes = model.settings.prefixes;
    let pool = model.compiled.ip_pool(facts);
    let v4_from = pool.map_or(prefixes, |pool| prefixes.with_v4(pool));
    let ipv4 = v4_from.next_v4(model.nodes.iter().map(|node| node.ipv4));
    let ipv6 = prefixes.next_v6(model.nodes.iter().map(|node| node.ipv6));
    ipv4.zip(ipv6).ok_or(Rejected::NoAddress)
}

/// Gives a node the addresses that somebody chose.
pub(super) fn set(
    model: &mut Model,
    records: &mut Vec<Record>,
    id: NodeId,
    v4: Option<Ipv4Addr>,
    v6: Option<Ipv6Addr>,
) -> Applied {
    let old = model.node(id).ok_or(Rejected::NoSuchNode)?.clone();
    let ipv4 = v4.unwrap_or(old.ipv4);
    let ipv6 = v6.unwrap_or(old.ipv6);
    if (ipv4, ipv6) == (old.ipv4, old.ipv6) {
        return Ok(Reply::Node(old));
    }
    check(model, id, v4, v6)?;
    let node = Node {
        ipv4,
        ipv6,
        ..(*old).clone()
    };
    node::put_whole(model, records, node);
    node::answer(model, id)
}

/// Refuses addresses that no node, or not this one, can have.
pub(super) fn check(
    model: &Model,
    id: NodeId,
    v4: Option<Ipv4Addr>,
    v6: Option<Ipv6Addr>,
) -> Result<(), Rejected> {
    let prefixes = model.settings.prefixes;
    if let Some(v4) = v4.filter(|v4| !prefixes.accepts_v4(*v4)) {
        return Err(Rejected::BadAddress(IpAddr::V4(v4), "100.64.0.0/10".into()));
    }
    if let Some(v6) = v6.filter(|v6| !prefixes.accepts_v6(*v6)) {
        return Err(Rejected::BadAddress(
            IpAddr::V6(v6),
            "fd7a:115c:a1e0::/48".into(),
        ));
    }
    for other in model.nodes.iter().filter(|node| node.id != id) {
        if v4 == Some(other.ipv4) {
            return Err(Rejected::AddressTaken(IpAddr::V4(other.ipv4), other.id));
        }
        if v6 == Some(other.ipv6) {
            return Err(Rejected::AddressTaken(IpAddr::V6(other.ipv6), other.id));
        }
    }
    Ok(())
}

/// Moves every node whose address the configured prefixes do not hold into them. Addresses that somebody
/// chose outside of them move as well: that is what the command is for.
pub(super) fn backfill(model: &mut Model, records: &mut Vec<Record>) -> Applied {
    let prefixes = model.settings.prefixes;
    let strays: Vec<NodeId> = model
        .nodes
        .iter()
        .filter(|node| !prefixes.holds_v4(node.ipv4) || !prefixes.holds_v6(node.ipv6))
        .map(|node| node.id)
        .collect();
    let mut moved = Vec::new();
    for id in strays {
        let Some(old) = model.node(id).cloned() else {
            continue;
        };
        let (ipv4, ipv6) = next_free(model, &super::routes::facts(&old))?;
        let node = Node {
            ipv4: if prefixes.holds_v4(old.ipv4) {
                old.ipv4
            } else {
                ipv4
            },
            ipv6: if prefixes.holds_v6(old.ipv6) {
                old.ipv6
            } else {
                ipv6
            },
            ..(*old).clone()
        };
        node::put_whole(model, records, node);
        moved.extend(model.node(id).cloned());
    }
    Ok(Reply::Nodes(moved))
}
