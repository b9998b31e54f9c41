//! Routes: who may serve which, who does, and what that and every other change means for the policy.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::id::NodeId;
use crate::policy::{self, Compiled, Directory, Policy, Posture};
use crate::state::apply::Applied;
use crate::state::command::{Outcome, Rejected};
use crate::state::event::{Action, Property, Target, Values, list_text};
use crate::state::model::{Model, Node, User, is_exit_route};
use crate::state::tx::{Handover, Touched, Tx};

/// Most routes that are approved for one node.
const APPROVED_MAX: usize = 1024;

/// Sets what a node may serve. Who may be an exit node for one family may be one for both, as with
/// Headscale (`SetApprovedRoutes` in `hscontrol/state/state.go`).
pub(super) fn approve(tx: &mut Tx<'_>, id: NodeId, list: Vec<IpNet>) -> Applied {
    check_count(&list)?;
    let node = tx.node(id).ok_or(Rejected::NoSuchNode)?.clone();
    let approved = sorted(list);
    if node.approved_routes == approved {
        return Ok(Outcome::Node(id));
    }
    let target = Target::node(&node).property(Property::ApprovedRoutes);
    let before = list_text(&node.approved_routes);
    tx.event(
        Action::Update,
        target,
        Values::change(&before, &list_text(&approved)),
    );
    tx.put_whole_node(Node {
        approved_routes: approved,
        ..(*node).clone()
    });
    Ok(Outcome::Node(id))
}

/// Refuses more routes than are kept.
pub(super) fn check_count(list: &[IpNet]) -> Result<(), Rejected> {
    let limit = APPROVED_MAX;
    if list.len() > limit {
        return Err(Rejected::TooMany {
            what: "approved routes",
            limit,
        });
    }
    Ok(())
}

/// Routes without host bits, sorted, each once, exit routes in both families.
pub(super) fn sorted(list: Vec<IpNet>) -> Arc<[IpNet]> {
    let mut routes: BTreeSet<IpNet> = list.iter().map(IpNet::trunc).collect();
    if routes.iter().any(is_exit_route) {
        routes.insert(IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0)));
        routes.insert(IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 0)));
    }
    routes.into_iter().collect()
}

/// Adds to the approved routes of a node those of its offers that the policy approves by itself. Says
/// whether there are any.
pub(super) fn approve_by_policy(model: &Model, node: &mut Node) -> bool {
    let waiting: Vec<IpNet> = node.waiting_routes().collect();
    if waiting.is_empty() {
        return false;
    }
    let facts = facts(model, node);
    let granted = |route: &IpNet| model.compiled.auto_approves(&facts, route);
    let granted: Vec<IpNet> = waiting.into_iter().filter(granted).collect();
    if granted.is_empty() {
        return false;
    }
    let all = node.approved_routes.iter().copied().chain(granted);
    node.approved_routes = sorted(all.collect());
    true
}

/// Recompiles what follows from the nodes that were touched: who serves which route, and what the policy means now.
pub fn recompile(tx: &mut Tx<'_>) {
    if tx.touched.is_empty() {
        return;
    }
    let routes = |id: &NodeId| {
        tx.node(*id).is_none_or(|node| {
            !node.hostinfo.routable_ips.is_empty() || !node.primary_routes.is_empty()
        })
    };
    let is_about_routes = tx.touched.iter().any(routes);
    if is_about_routes {
        elect(tx);
    }
    let mut changed = Vec::new();
    let mut removed = Vec::new();
    for id in tx.take_touched().iter() {
        let compiled = tx.compiled.node(*id);
        match tx.node(*id).filter(|node| node.is_active()) {
            Some(node) => {
                let facts = facts(tx, node);
                if compiled != Some(&facts) {
                    changed.push(facts);
                }
            }
            None if compiled.is_some() => removed.push(*id),
            None => {}
        }
    }
    if !changed.is_empty() || !removed.is_empty() {
        let compiled = tx.compiled.with_nodes(&changed, &removed);
        tx.replace_compiled(compiled);
    }
}

/// Compiles for all users and nodes; without a policy everyone reaches everyone.
pub(super) fn compile_all(tx: &mut Tx<'_>, policy: Option<&Arc<Policy>>) {
    let directory = directory(tx);
    tx.replace_compiled(match policy {
        Some(policy) => Compiled::compile(policy, &directory),
        None => Compiled::allow_all(&directory),
    });
}

/// The users, and the nodes that the policy knows.
pub fn directory(model: &Model) -> Directory {
    let members = model.nodes.iter().filter(|node| node.is_active());
    Directory {
        users: users(model),
        nodes: members.map(|node| facts(model, node)).collect(),
    }
}

/// Compiles for users that changed.
pub(super) fn users_changed(tx: &mut Tx<'_>) {
    let compiled = tx.compiled.with_users(&users(tx));
    replace_compiled(tx, compiled);
}

/// Lets another meaning of the policy apply. Peers get some attributes that it gives to a node.
pub(super) fn replace_compiled(tx: &mut Tx<'_>, compiled: Compiled) {
    let old = tx.replace_compiled(compiled);
    let now = tx.compiled.clone();
    tx.resend_nodes(|node| now.attributes(node.id) != old.attributes(node.id));
}

fn users(model: &Model) -> Vec<policy::User> {
    model.users.values().map(|user| user_facts(user)).collect()
}

fn user_facts(user: &User) -> policy::User {
    policy::User {
        id: user.id,
        login: user.name.clone(),
        email: user.email.clone(),
        role: user.role,
        groups: Arc::default(),
    }
}

/// A node as the policy sees it.
pub(super) fn facts(model: &Model, node: &Node) -> policy::Node {
    let attributes = model.attributes.get(&node.id);
    let attributes = attributes.iter().flat_map(|known| known.iter());
    let posture = Posture {
        os: node.hostinfo.os.clone(),
        os_version: node.hostinfo.os_version.clone(),
        client_version: node.hostinfo.client_version.clone(),
        attributes: attributes
            .map(|(name, value)| (name.clone(), value.to_json()))
            .collect(),
    };
    policy::Node {
        id: node.id,
        owner: node.owner.clone(),
        ipv4: Some(node.ipv4),
        ipv6: Some(node.ipv6),
        routes: node.served_routes().collect(),
        primary: node.primary_routes.clone(),
        posture: Arc::new(posture),
    }
}

/// Chooses who serves each subnet route that several may serve: of the best ones ([`Standing`]) the one that does, then
/// the one with the lowest number; while nobody is there, the one that did. A node that comes back, or forwards again,
/// does not take a route back, so that connections survive.
fn elect(tx: &mut Tx<'_>) {
    let mut servers: BTreeMap<IpNet, Vec<&Node>> = BTreeMap::new();
    for node in tx.nodes.iter().filter(|node| node.is_active()) {
        for route in node.served_routes().filter(|route| !is_exit_route(route)) {
            servers.entry(route).or_default().push(node);
        }
    }
    let mut holders: BTreeMap<IpNet, &Arc<Node>> = BTreeMap::new();
    for node in tx.nodes.iter() {
        holders.extend(node.primary_routes.iter().map(|route| (*route, node)));
    }
    let mut chosen: BTreeMap<NodeId, Vec<IpNet>> = BTreeMap::new();
    let mut handovers = Vec::new();
    for (route, nodes) in servers {
        let holder = holders.get(&route);
        let is_holder = |node: &Node| holder.is_some_and(|holder| holder.id == node.id);
        let best = nodes
            .into_iter()
            .min_by_key(|node| (Standing::of(node), !is_holder(node), node.id));
        let Some(node) = best else {
            continue;
        };
        chosen.entry(node.id).or_default().push(route);
        if let Some(holder) = holder.filter(|holder| holder.id != node.id) {
            handovers.push(Handover {
                route,
                from: holder.id,
                from_name: holder.label.clone(),
                to: node.id,
                to_name: node.label.clone(),
                why: why_it_gives_way(holder, &route),
            });
        }
    }
    handovers
        .into_iter()
        .for_each(|handover| tx.hand_over(handover));
    for node in tx.nodes.clone().iter() {
        let routes = chosen.remove(&node.id).unwrap_or_default();
        if *node.primary_routes != *routes {
            let node = Node {
                primary_routes: routes.into(),
                ..(**node).clone()
            };
            let touched = Touched {
                core: true,
                ..Touched::default()
            };
            tx.put_node(node, touched);
        }
    }
}

/// How well a router can serve, the best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Standing {
    /// It is online and answers.
    Works,
    /// It is online and answers, but its client says that it does not forward.
    DoesNotForward,
    /// It is offline, or does not answer.
    Gone,
}

impl Standing {
    fn of(node: &Node) -> Self {
        match (node.is_online() && !node.unhealthy, node.forwarding_off) {
            (true, false) => Self::Works,
            (true, true) => Self::DoesNotForward,
            (false, _) => Self::Gone,
        }
    }
}

/// Why another router has the route of this one, which had it.
fn why_it_gives_way(node: &Node, route: &IpNet) -> &'static str {
    match () {
        () if !node.is_active() => "it is no longer approved",
        () if node.expired => "its key has expired",
        () if !node.served_routes().any(|served| served == *route) => {
            "it no longer offers the route, or the route is no longer approved for it"
        }
        () if !node.is_online() => "it is offline",
        () if node.unhealthy => "it does not answer",
        () if node.forwarding_off => "IP forwarding is off on it",
        () => "the other router is online and works",
    }
}
