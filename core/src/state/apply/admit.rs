//! Admitting a device: which node it is, who owns it, and when its key expires.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use crate::clock::{End, Now, Timestamp};
use crate::id::{NodeId, UserId};
use crate::keys::{LockKey, MachineKey, NodeKey};
use crate::state::apply::{address, key_expiry, keys, node, routes};
use crate::state::command::Rejected;
use crate::state::ending::Ending;
use crate::state::model::{
    Facets, Hostinfo, KeyLifetime, Model, Node, Owner, Presence, RegisteredBy,
};
use crate::state::tx::Tx;

/// A device that may join, by a key or because a person approved it.
pub(super) struct Admission {
    pub(super) machine: MachineKey,
    pub(super) key: NodeKey,
    pub(super) lock: Option<LockKey>,
    pub(super) hostinfo: Arc<Hostinfo>,
    pub(super) ephemeral: bool,
    pub(super) requested_expiry: Option<Timestamp>,
    pub(super) capability: u16,
    pub(super) registered_by: RegisteredBy,
    pub(super) owner: Owner,
    /// Whether the tags that the client requests count: those of a key count more.
    pub(super) by_request: bool,
    /// The user of the key, or the one for whom it was approved.
    pub(super) user: Option<UserId>,
    /// Whether it is approved, should it be new.
    pub(super) authorized: bool,
}

impl Admission {
    fn is_by_person(&self) -> bool {
        self.registered_by == RegisteredBy::Approval
    }

    /// Whether a user's device comes back with tags.
    fn gives_tags_to(&self, node: &Node) -> bool {
        matches!(self.owner, Owner::Tags(_)) && self.user.is_some() && node.user() == self.user
    }

    /// Whether the node came with the very key that is shown now.
    fn shows_key_of(&self, node: &Node) -> bool {
        !self.is_by_person() && node.registered_by == self.registered_by
    }

    /// Whether the client asks for other tags than at the last login of the node.
    fn asks_for_other_tags(&self, node: &Node) -> bool {
        let (now, before) = (&self.hostinfo.request_tags, &node.hostinfo.request_tags);
        self.by_request && !keys::are_same_tags(now, before)
    }

    /// Owner of the node from now on. The key with which the node joined does not ask for another than it has, since an
    /// administrator may have changed that; another key does, and so do other tags and a person's approval.
    fn owner_of(&self, node: &Node) -> Owner {
        match self.shows_key_of(node) && !self.asks_for_other_tags(node) {
            true => node.owner.clone(),
            false => self.owner.clone(),
        }
    }

    /// Whether a machine with a single node comes with tags in place of a user, or the reverse: it stays one node.
    fn changes_kind_of(&self, node: &Node) -> bool {
        matches!(self.owner, Owner::Tags(_)) != node.user().is_none()
    }
}

/// The node as which the device is already known.
fn known_as(model: &Model, admission: &Admission) -> Result<Option<Arc<Node>>, Rejected> {
    let nodes: Vec<&Arc<Node>> = model.nodes_of_machine(&admission.machine).collect();
    let first = |which: &dyn Fn(&Node) -> bool| nodes.iter().find(|node| which(node)).copied();
    if let Some(holder) = first(&|node| node.key == admission.key) {
        // Two nodes cannot have one key, nor a machine two nodes of one owner.
        let owner = admission.owner_of(holder);
        return match first(&|node| node.id != holder.id && owns(&owner, node)) {
            Some(twin) => Err(Rejected::MachineHasNode(twin.id)),
            None => Ok(Some(holder.clone())),
        };
    }
    let known = first(&|node| owns(&admission.owner, node))
        .or_else(|| first(&|node| admission.gives_tags_to(node)))
        .or_else(|| first(&|node| nodes.len() == 1 && admission.changes_kind_of(node)))
        .or_else(|| first(&|node| admission.shows_key_of(node)));
    Ok(known.cloned())
}

/// When the key of a node with this owner expires that logs in now.
pub(super) fn expiry_for(
    model: &Model,
    owner: &Owner,
    requested: Option<Timestamp>,
    now: Now,
) -> End {
    let Owner::User(user) = owner else {
        return End::Never;
    };
    let own = model.users.get(user).and_then(|user| user.node_expiry);
    let life = match own {
        None => model.settings.node_expiry,
        Some(KeyLifetime::Unlimited) => None,
        Some(KeyLifetime::For(life)) => Some(life),
    };
    // A client that knows the time cannot ask a server that does not.
    let requested = requested.filter(|_| now.is_plausible());
    match (life, requested) {
        (Some(life), Some(at)) if now.wall.plus(life) <= at => End::In(life),
        (_, Some(at)) => End::At(at),
        (Some(life), None) => End::In(life),
        (None, None) => End::Never,
    }
}

/// Whether a device that joins with this owner is this node. Which tags does not matter:
/// an administrator may have changed them.
pub(super) fn owns(owner: &Owner, node: &Node) -> bool {
    match (owner, &node.owner) {
        (Owner::User(one), Owner::User(other)) => one == other,
        (Owner::Tags(_), Owner::Tags(_)) => true,
        (Owner::User(_), Owner::Tags(_)) | (Owner::Tags(_), Owner::User(_)) => false,
    }
}

/// Makes the node, or gives the one that this machine has with this owner its new key. Says whether it is new.
pub(super) fn admit(tx: &mut Tx<'_>, admission: Admission) -> Result<(NodeId, bool), Rejected> {
    let machine = admission.machine;
    let is_by_person = admission.is_by_person();
    let admitted = make_or_renew(tx, admission)?;
    if is_by_person {
        tx.let_in(machine);
    }
    Ok(admitted)
}

fn make_or_renew(tx: &mut Tx<'_>, admission: Admission) -> Result<(NodeId, bool), Rejected> {
    if let Some(old) = known_as(tx, &admission)? {
        readmit(tx, admission, &old);
        return Ok((old.id, false));
    }
    let expiry = expiry_for(tx, &admission.owner, admission.requested_expiry, tx.now());
    let limit = tx.settings.max_nodes;
    if tx.nodes.len() >= limit {
        return Err(Rejected::TooManyNodes { limit });
    }
    let is_by_person = admission.is_by_person();
    let id = tx.counters.node;
    let label = node::label_of_host(tx, id, &admission.hostinfo.hostname);
    let mut newcomer = Node {
        id,
        machine: admission.machine,
        key: admission.key,
        disco: None,
        lock: admission.lock,
        owner: admission.owner,
        label,
        label_chosen: false,
        hostinfo: admission.hostinfo,
        ipv4: Ipv4Addr::UNSPECIFIED,
        ipv6: Ipv6Addr::UNSPECIFIED,
        created: tx.now().wall,
        expiry: None,
        ending: Ending::default(),
        expired: false,
        authorized: is_by_person
            || admission.authorized && !tx.shut_out.contains(&admission.machine),
        wireguard: None,
        approved_routes: Arc::default(),
        primary_routes: Arc::default(),
        unhealthy: false,
        forwarding_off: false,
        ephemeral: admission.ephemeral,
        registered_by: admission.registered_by,
        capability: admission.capability,
        home_derp: 0,
        endpoints: Arc::from([]),
        live: false,
        unmet_tags: Box::default(),
        presence: Presence::New {
            since_mono: tx.now().mono,
        },
        facets: Facets::default(),
        unflushed: false,
    };
    (newcomer.ipv4, newcomer.ipv6) = address::next_free(tx, &routes::facts(tx, &newcomer))?;
    routes::approve_by_policy(tx, &mut newcomer);
    tx.take_node_id()?;
    address::given(tx, &newcomer);
    key_expiry::put(tx, newcomer, expiry);
    Ok((id, true))
}

/// Gives a known node its new key.
fn readmit(tx: &mut Tx<'_>, admission: Admission, old: &Node) {
    let owner = admission.owner_of(old);
    let expiry = expiry_for(tx, &owner, admission.requested_expiry, tx.now());
    let renamed = old.hostinfo.hostname != admission.hostinfo.hostname;
    let is_by_person = admission.is_by_person();
    let mut came_back = Node {
        key: admission.key,
        lock: admission.lock,
        hostinfo: admission.hostinfo,
        ephemeral: admission.ephemeral,
        capability: admission.capability,
        registered_by: admission.registered_by,
        unmet_tags: Box::default(),
        // No key approves a node whose approval an administrator revoked.
        authorized: old.authorized || is_by_person,
        owner,
        ..old.clone()
    };
    if renamed && !came_back.label_chosen {
        node::take_host_name(tx, &mut came_back);
    }
    routes::approve_by_policy(tx, &mut came_back);
    key_expiry::put(tx, came_back, expiry);
}
