//! Routes: who may serve which, who does, and what that and every other change means for the policy.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::id::NodeId;
use crate::policy::{self, Compiled, Directory, Policy, Posture};
use crate::state::apply::{Applied, node};
use crate::state::command::{Rejected, Reply};
use crate::state::model::{Change, Model, Node, User, is_exit_route};
use crate::state::record::Record;

/// Most routes that are approved for one node.
const APPROVED_MAX: usize = 1024;

/// Sets what a node may serve. Who may be an exit node for one family may be one for both, as with
/// Headscale (`SetApprovedRoutes` in `hscontrol/state/state.go`).
pub(super) fn approve(
    model: &mut Model,
    records: &mut Vec<Record>,
    id: NodeId,
    list: Vec<IpNet>,
) -> Applied {
    check_count(&list)?;
    let node = model.node(id).ok_or(Rejected::NoSuchNode)?;
    let approved = sorted(list);
    if node.approved_routes == approved {
        return Ok(Reply::Node(node.clone()));
    }
    let node = Node {
        approved_routes: approved,
        ..(**node).clone()
    };
    node::put_whole(model, records, node);
    node::answer(model, id)
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

/// Notes whether a node answers. Nothing durable: after a restart it is asked again.
pub(super) fn set_health(model: &mut Model, id: NodeId, healthy: bool) -> Applied {
    let node = model.node(id).ok_or(Rejected::NoSuchNode)?;
    if node.unhealthy == healthy {
        let node = Node {
            unhealthy: !healthy,
            ..(**node).clone()
        };
        model.put_node(node);
        model.changed = true;
    }
    Ok(Reply::Done)
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

/// Brings up to date what follows from the nodes that were touched: who serves which route, and what the
/// policy means now.
pub fn settle(model: &mut Model) {
    if model.touched.is_empty() {
        return;
    }
    let routes = |id: &NodeId| {
        model.node(*id).is_none_or(|node| {
            !node.hostinfo.routable_ips.is_empty() || !node.primary_routes.is_empty()
        })
    };
    if model.touched.iter().any(routes) {
        elect(model);
    }
    let mut changed = Vec::new();
    let mut removed = Vec::new();
    for id in std::mem::take(&mut model.touched).iter() {
        let compiled = model.compiled.node(*id);
        match model.node(*id).filter(|node| node.is_active()) {
            Some(node) => {
                let facts = facts(model, node);
                if compiled != Some(&facts) {
                    changed.push(facts);
                }
            }
            None if compiled.is_some() => removed.push(*id),
            None => {}
        }
    }
    if !changed.is_empty() || !removed.is_empty() {
        model.compiled = Arc::new(model.compiled.with_nodes(&changed, &removed));
        model.changed = true;
    }
}

/// Compiles for all users and nodes; without a policy everyone reaches everyone.
pub(super) fn compile_anew(model: &mut Model, policy: Option<&Arc<Policy>>) {
    let directory = directory(model);
    model.compiled = Arc::new(match policy {
        Some(policy) => Compiled::compile(policy, &directory),
        None => Compiled::allow_all(&directory),
    });
    model.changed = true;
}

/// The users, and the nodes that take part.
pub fn directory(model: &Model) -> Directory {
    let members = model.nodes.iter().filter(|node| node.is_active());
    Directory {
        users: users(model),
        nodes: members.map(|node| facts(model, node)).collect(),
    }
}

/// Compiles for users that changed.
pub(super) fn users_changed(model: &mut Model) {
    let compiled = model.compiled.with_users(&users(model));
    replace_compiled(model, compiled);
}

/// Lets another meaning of the policy apply. Peers are told of some attributes that it gives to a node.
pub(super) fn replace_compiled(model: &mut Model, compiled: Compiled) {
    let old = std::mem::replace(&mut model.compiled, Arc::new(compiled));
    model.changed = true;
    let now = model.compiled.clone();
    node::mark_changed(model, |node| {
        now.attributes(node.id) != old.attributes(node.id)
    });
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

/// Chooses who serves each subnet route that several may serve: the one that does, as long as it is
/// there; then the one with the lowest number that is there; then, while nobody is, the one that did.
/// Whoever comes back does not take a route back, so that connections live on.
fn elect(model: &mut Model) {
    let mut servers: BTreeMap<IpNet, Vec<&Node>> = BTreeMap::new();
    for node in model.nodes.iter().filter(|node| node.is_active()) {
        for route in node.served_routes().filter(|route| !is_exit_route(route)) {
            servers.entry(route).or_default().push(node);
        }
    }
    let mut chosen: BTreeMap<NodeId, Vec<IpNet>> = BTreeMap::new();
    for (route, nodes) in servers {
        let holds = |node: &&&Node| node.primary_routes.binary_search(&route).is_ok();
        let is_there =
            |node: &&&Node| node.presence.is_online() && !node.expired && !node.unhealthy;
        let holder = nodes.iter().find(holds);
        let best = holder
            .filter(is_there)
            .or_else(|| nodes.iter().find(is_there))
            .or(holder)
            .or_else(|| nodes.first());
        if let Some(node) = best {
            chosen.entry(node.id).or_default().push(route);
        }
    }
    let mut news = Vec::new();
    for node in model.nodes.iter() {
        let routes = chosen.remove(&node.id).unwrap_or_default();
        if *node.primary_routes != *routes {
            let mut node = (**node).clone();
            node.primary_routes = routes.into();
            node.facets.core = model.revision;
            news.push(node);
        }
    }
    for node in news {
        model.note(Change::Node(node.id));
        model.put_node(node);
    }
}
