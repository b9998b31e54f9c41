//! Letting a machine in: which node it is, whose, and until when.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use crate::clock::{Now, Timestamp};
use crate::id::{NodeId, UserId};
use crate::keys::{LockKey, MachineKey, NodeKey};
use crate::state::apply::{address, node, routes};
use crate::state::command::Rejected;
use crate::state::model::{
    Facets, Hostinfo, KeyLifetime, Model, Node, Owner, Presence, RegisteredBy,
};
use crate::state::name;
use crate::state::record::Record;

/// A machine that has been let in, by a key or by a person.
pub(super) struct Admission {
    pub(super) machine: MachineKey,
    pub(super) key: NodeKey,
    pub(super) lock: Option<LockKey>,
    pub(super) hostinfo: Arc<Hostinfo>,
    pub(super) ephemeral: bool,
    pub(super) wish: Option<Timestamp>,
    pub(super) capability: u16,
    pub(super) by: RegisteredBy,
    pub(super) owner: Owner,
    /// Who let it in, where that is a user.
    pub(super) user: Option<UserId>,
    /// Whether it takes part at once, should it be new.
    pub(super) authorized: bool,
}

impl Admission {
    fn is_by_person(&self) -> bool {
        self.by == RegisteredBy::Approval
    }

    /// Whether a user's device comes back with tags.
    fn gives_tags_to(&self, node: &Node) -> bool {
        matches!(self.owner, Owner::Tags(_)) && self.user.is_some() && node.user() == self.user
    }

    /// Whether the node came with the very key that is shown now.
    fn shows_key_of(&self, node: &Node) -> bool {
        !self.is_by_person() && node.registered_by == self.by
    }

    /// Whose the node is from now on. Who has it stays unless the login says otherwise; that the key which
    /// let it in says otherwise is no reason, since an administrator may have moved it.
    fn owner_of(&self, node: &Node) -> Owner {
        if owns(&self.owner, node) || (self.shows_key_of(node) && !self.gives_tags_to(node)) {
            return node.owner.clone();
        }
        self.owner.clone()
    }
}

/// The node that a newcomer is, come back.
fn known_as(model: &Model, arrival: &Admission) -> Result<Option<Arc<Node>>, Rejected> {
    let of_machine =
        |node: &&Arc<Node>| node.wireguard.is_none() && node.machine == arrival.machine;
    let nodes: Vec<&Arc<Node>> = model.nodes.iter().filter(of_machine).collect();
    let first = |which: &dyn Fn(&Node) -> bool| nodes.iter().find(|node| which(node)).copied();
    if let Some(holder) = first(&|node| node.key == arrival.key) {
        // Two nodes cannot have one key, nor a machine two nodes of one owner.
        let owner = arrival.owner_of(holder);
        return match first(&|node| node.id != holder.id && owns(&owner, node)) {
            Some(twin) => Err(Rejected::MachineHasNode(twin.id)),
            None => Ok(Some(holder.clone())),
        };
    }
    // The only node of a machine loses its tags when a person lets it in as a user's.
    let loses_tags =
        |node: &Node| arrival.is_by_person() && nodes.len() == 1 && node.user().is_none();
    let known = first(&|node| owns(&arrival.owner, node))
        .or_else(|| first(&|node| arrival.gives_tags_to(node)))
        .or_else(|| first(&loses_tags))
        .or_else(|| first(&|node| arrival.shows_key_of(node)));
    Ok(known.cloned())
}

/// When the key of a node with this owner ends that logs in now.
fn expiry_for(
    model: &Model,
    owner: &Owner,
    wish: Option<Timestamp>,
    now: Now,
) -> Option<Timestamp> {
    let Owner::User(user) = owner else {
        return None;
    };
    let own = model.users.get(user).and_then(|user| user.node_expiry);
    let life = match own {
        None => model.settings.node_expiry,
        Some(KeyLifetime::Unlimited) => None,
        Some(KeyLifetime::For(life)) => Some(life),
    };
    let default = life.map(|life| now.wall.plus(life));
    [default, wish].into_iter().flatten().min()
}

/// Whether a newcomer with this owner is the node itself come back. Which tags does not matter:
/// an administrator may have changed them.
pub(super) fn owns(owner: &Owner, node: &Node) -> bool {
    match (owner, &node.owner) {
        (Owner::User(one), Owner::User(other)) => one == other,
        (Owner::Tags(_), Owner::Tags(_)) => true,
        (Owner::User(_), Owner::Tags(_)) | (Owner::Tags(_), Owner::User(_)) => false,
    }
}

/// Makes the node, or gives the one that this machine has with this owner its new key.
pub(super) fn admit(
    model: &mut Model,
    records: &mut Vec<Record>,
    arrival: Admission,
    now: Now,
) -> Result<NodeId, Rejected> {
    if let Some(old) = known_as(model, &arrival)? {
        let owner = arrival.owner_of(&old);
        let expiry = expiry_for(model, &owner, arrival.wish, now);
        let renamed = old.hostinfo.hostname != arrival.hostinfo.hostname;
        let is_by_person = arrival.is_by_person();
        let mut came_back = Node {
            key: arrival.key,
            lock: arrival.lock,
            hostinfo: arrival.hostinfo,
            ephemeral: arrival.ephemeral,
            capability: arrival.capability,
            registered_by: arrival.by,
            // Whom an administrator shut out, no key lets in again.
            authorized: old.authorized || is_by_person,
            owner,
            ..(*old).clone()
        };
        if renamed && !came_back.label_chosen {
            node::take_host_name(model, &mut came_back);
        }
        routes::approve_by_policy(model, &mut came_back);
        node::set_expiry(model, records, came_back, expiry, now);
        return Ok(old.id);
    }
    let expiry = expiry_for(model, &arrival.owner, arrival.wish, now);
    let limit = model.settings.max_nodes;
    if model.nodes.len() >= limit {
        return Err(Rejected::TooManyNodes { limit });
    }
    let id = model.counters.node;
    let wanted = name::label_for(&arrival.hostinfo.hostname);
    let label = name::unique(&wanted, |label| node::is_taken(model, id, label));
    let mut newcomer = Node {
        id,
        machine: arrival.machine,
        key: arrival.key,
        disco: None,
        lock: arrival.lock,
        owner: arrival.owner,
        label: label.into(),
        label_chosen: false,
        hostinfo: arrival.hostinfo,
        ipv4: Ipv4Addr::UNSPECIFIED,
        ipv6: Ipv6Addr::UNSPECIFIED,
        created: now.wall,
        expiry,
        expired: false,
        authorized: arrival.authorized,
        wireguard: None,
        approved_routes: Arc::default(),
        primary_routes: Arc::default(),
        unhealthy: false,
        ephemeral: arrival.ephemeral,
        registered_by: arrival.by,
        capability: arrival.capability,
        home_derp: 0,
        endpoints: Arc::from([]),
        live: false,
        presence: Presence::New,
        facets: Facets::default(),
        unflushed: false,
    };
    (newcomer.ipv4, newcomer.ipv6) = address::next_free(model, &routes::facts(model, &newcomer))?;
    routes::approve_by_policy(model, &mut newcomer);
    model.counters.node = id.next().ok_or(Rejected::NoIds)?;
    records.push(Record::Counters(model.counters));
    node::set_expiry(model, records, newcomer, expiry, now);
    Ok(id)
}
