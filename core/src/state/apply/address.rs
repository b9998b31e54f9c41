//! Addresses of nodes: the next free ones, chosen ones, and new ones after the prefixes changed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::id::NodeId;
use crate::policy;
use crate::state::addr::Prefixes;
use crate::state::apply::{Applied, routes};
use crate::state::command::{Outcome, Rejected};
use crate::state::event::{Action, Property, Target, Values};
use crate::state::model::{Model, Node};
use crate::state::tx::Tx;

/// Free addresses for a node that the policy sees so: from the pool that the policy names for it, otherwise
/// from the tailnet's prefixes.
pub(super) fn next_free(
    model: &Model,
    facts: &policy::Node,
) -> Result<(Ipv4Addr, Ipv6Addr), Rejected> {
    if model.settings.prefixes_are_lost {
        return Err(Rejected::PrefixesLost);
    }
    let ipv4 = next_v4(model, &prefixes_for(model, facts))?;
    Ok((ipv4, next_v6(model)?))
}

fn prefixes_for(model: &Model, facts: &policy::Node) -> Prefixes {
    let prefixes = model.settings.prefixes;
    let pool = model.compiled.ip_pool(facts);
    pool.map_or(prefixes, |pool| prefixes.with_v4(pool))
}

/// Notes that a node was given its addresses.
pub(super) fn given(tx: &mut Tx<'_>, node: &Node) {
    let prefixes = prefixes_for(tx, &routes::facts(tx, node));
    tx.addresses_given(&prefixes, node);
}

fn next_v4(model: &Model, prefixes: &Prefixes) -> Result<Ipv4Addr, Rejected> {
    let used = model.nodes.iter().map(|node| node.ipv4);
    let next = prefixes.next_v4(used, &model.cursors);
    next.ok_or(Rejected::NoAddress)
}

fn next_v6(model: &Model) -> Result<Ipv6Addr, Rejected> {
    let used = model.nodes.iter().map(|node| node.ipv6);
    let next = model.settings.prefixes.next_v6(used, &model.cursors);
    next.ok_or(Rejected::NoAddress)
}

/// Gives a node the addresses that somebody chose.
pub(super) fn set(
    tx: &mut Tx<'_>,
    id: NodeId,
    v4: Option<Ipv4Addr>,
    v6: Option<Ipv6Addr>,
) -> Applied {
    let old = tx.node(id).ok_or(Rejected::NoSuchNode)?.clone();
    let ipv4 = v4.unwrap_or(old.ipv4);
    let ipv6 = v6.unwrap_or(old.ipv6);
    if (ipv4, ipv6) == (old.ipv4, old.ipv6) {
        return Ok(Outcome::Node(id));
    }
    check(tx, id, v4, v6)?;
    let target = Target::node(&old).property(Property::Addresses);
    let before = format!("{},{}", old.ipv4, old.ipv6);
    let after = format!("{ipv4},{ipv6}");
    tx.event(Action::Update, target, Values::change(&before, &after));
    tx.put_whole_node(Node {
        ipv4,
        ipv6,
        ..(*old).clone()
    });
    Ok(Outcome::Node(id))
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

/// Moves every node whose address lies neither in the configured prefixes nor in its pool to a new one. What
/// somebody chose outside of them moves as well: that is what the command is for.
pub(super) fn backfill(tx: &mut Tx<'_>) -> Applied {
    if tx.settings.prefixes_are_lost {
        return Err(Rejected::PrefixesLost);
    }
    let moved = tx.attempt(|tx| {
        let mut moved = Vec::new();
        for old in tx.nodes.clone().iter() {
            let node = with_addresses_within(tx, old)?;
            if (node.ipv4, node.ipv6) != (old.ipv4, old.ipv6) {
                moved.push(old.id);
                given(tx, &node);
                tx.put_whole_node(node);
            }
        }
        Ok(moved)
    })?;
    if !moved.is_empty() {
        let target = Target::tailnet().property(Property::Addresses);
        let details = format!("{} nodes", moved.len());
        tx.event(Action::Update, target, Values::made("", &details));
    }
    Ok(Outcome::Nodes(moved))
}

/// A node with new addresses in place of those outside the prefixes.
fn with_addresses_within(model: &Model, old: &Node) -> Result<Node, Rejected> {
    let prefixes = model.settings.prefixes;
    let own = prefixes_for(model, &routes::facts(model, old));
    let mut node = old.clone();
    if !prefixes.holds_v4(old.ipv4) && !own.holds_v4(old.ipv4) {
        node.ipv4 = next_v4(model, &own)?;
    }
    if !prefixes.holds_v6(old.ipv6) {
        node.ipv6 = next_v6(model)?;
    }
    Ok(node)
}
