//! User profiles: how the owners of nodes are shown to clients.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::id::{TAGGED_DEVICES, TAGGED_DEVICES_NAME, UserId};
use crate::state::model::{Node, Owner, User};
use crate::state::snapshot::Snapshot;
use crate::tailcfg::map::UserProfile;

/// The user number sent as a node's owner.
pub fn owner_number(node: &Node) -> u64 {
    node.user().map_or(TAGGED_DEVICES, |user| user.number())
}

/// The profile of a node's owner; tagged nodes share one.
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

/// The profiles of these users and of the owners of these nodes, each once.
pub(super) fn profiles<'a>(
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

fn profile_of(user: &User) -> UserProfile<'_> {
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
