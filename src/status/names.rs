//! Names of devices for which status and doctor have a warning: in the configuration and in records, those that mean no
//! device, since no administrator chose them; and subnet routers that do not forward.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::config::{Host, ServerUrl};
use hearth_core::state::dns::{DnsRecord, DnsSettings, DnsValue, label_in};
use hearth_core::state::model::{Node, Owner, PendingRegistration, User};
use hearth_core::state::name::label_for;
use hearth_core::state::snapshot::Snapshot;
use hearth_core::wan::report::Moved;

/// Most nodes that a warning names.
const NAMED_MAX: usize = 10;

/// Names of the nodes with approved routes on which IP forwarding is off, as their clients say.
pub fn not_forwarding(snapshot: &Snapshot) -> Vec<String> {
    let nodes = snapshot.nodes().iter();
    let broken = nodes.filter(|node| node.forwarding_off && node.served_routes().next().is_some());
    broken.map(|node| node.label.to_string()).collect()
}

/// Time after a change of the server URL within which connections under the one before are noticed to be gone.
const NOTICED: Duration = Duration::from_secs(15 * 60);

/// The change of the LAN address that `server_url` follows, and the nodes that have been offline since; `None` while there are
/// none. They probably joined with the URL before.
pub fn left_behind(snapshot: &Snapshot, moved: Option<Moved>) -> Option<(Moved, Vec<String>)> {
    let moved = moved?;
    let is_left = |node: &&Arc<Node>| {
        let is_known = node.wireguard.is_none() && node.authorized && !node.expired;
        let last_seen = node.last_seen();
        is_known && last_seen.is_some_and(|at| at <= moved.at.plus(NOTICED))
    };
    let names = snapshot.nodes().iter().filter(is_left);
    let names: Vec<String> = names.map(|node| node.label.to_string()).collect();
    (!names.is_empty()).then_some((moved, names))
}

/// Warning about nodes that a change of the server URL has left behind.
pub fn left_behind_warning(
    snapshot: &Snapshot,
    moved: Option<Moved>,
    url: &ServerUrl,
) -> Option<String> {
    let (moved, names) = left_behind(snapshot, moved)?;
    let before = url.with_host(Host::Address(moved.from));
    let more = if names.len() > NAMED_MAX { ", …" } else { "" };
    let shown = names.iter().take(NAMED_MAX).map(String::as_str);
    let shown: Vec<&str> = shown.collect();
    Some(format!(
        "the server URL was {before} until {}; devices that joined with it are offline until this machine has that address again ({}{more}): give it a fixed address (DHCP reservation) or set server_url, and log the devices in again with `--login-server={url}`",
        moved.at,
        shown.join(", ")
    ))
}

/// The users for whom a registration can be approved with the tags that it requests.
pub fn tag_approvers<'s>(
    login: &'s PendingRegistration,
    snapshot: &'s Snapshot,
) -> impl Iterator<Item = &'s User> {
    let users = snapshot.users().values().map(|user| &**user);
    users.filter(move |user| {
        let owner = Owner::User(user.id);
        let mut tags = login.hostinfo.request_tags.iter();
        tags.all(|tag| snapshot.compiled().may_tag(&owner, tag))
    })
}

/// One line for each name that only a device gave itself, with the command that confirms it: where it is used, it has
/// no effect. Older versions of hearth let a device have such a name. `of_file` are the records of a file.
pub fn unconfirmed(
    snapshot: &Snapshot,
    base_domain: &str,
    settings: &DnsSettings,
    of_file: &[DnsRecord],
) -> Vec<String> {
    let records = settings.records.iter().chain(of_file);
    let records = records.chain(&**snapshot.dns_records());
    let aliases = records.filter_map(|record| match &record.value {
        DnsValue::Alias(target) => Some((format!("the alias {}", record.name), &**target)),
        DnsValue::A(_) | DnsValue::Aaaa(_) => None,
    });
    let of_settings = settings.node_names();
    let of_settings = of_settings.map(|(place, name)| (place.to_owned(), name));
    let names: BTreeSet<(String, &str)> = of_settings.chain(aliases).collect();
    let mut found = Vec::new();
    for (place, name) in names {
        let Some(label) = label_in(name, base_domain) else {
            continue;
        };
        let mut nodes = snapshot.nodes().iter();
        let self_named = nodes.find(|node| {
            let is_claimed = || label_for(&node.hostinfo.hostname) == label;
            !node.label_chosen && (&*node.label == label || is_claimed())
        });
        let mut nodes = snapshot.nodes().iter();
        let is_confirmed = nodes.any(|node| node.is_meant_by(name, base_domain));
        if let Some(node) = self_named.filter(|_| !is_confirmed) {
            let (id, shown) = (node.id, &node.label);
            found.push(format!(
                "`{name}` ({place}) means no device yet: device {shown} (node {id}) gives itself this name. If it is the one that is meant: `hearth nodes rename -i {id} {label}`"
            ));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use hearth_core::state::command::Command;
    use hearth_core::state::testing::World;
    use std::sync::Arc;

    #[test]
    fn an_alias_from_before_names_were_confirmed_is_named_with_the_command_that_confirms_it() {
        let (mut world, _) = World::with_user();
        let id = world.node_number(1);
        let label = world.node(id).label.clone();
        let settings = DnsSettings::default();
        // As an older hearth stored it: nobody chose the label.
        for target in [label.to_string(), format!("{label}.t.net")] {
            let record = DnsRecord::parse("git", "", &target).unwrap();
            world.model.dns_records = Arc::new([record].into_iter().collect());
            let found = unconfirmed(&world.snapshot(), "t.net", &settings, &[]);
            assert_eq!(found.len(), 1, "{found:?}");
            assert!(
                found[0].contains("the alias git")
                    && found[0].contains(&format!("`hearth nodes rename -i {id} {label}`")),
                "{found:?}"
            );
        }
        let rename = Command::RenameNode(id, label);
        world.apply(rename).unwrap();
        let found = unconfirmed(&world.snapshot(), "t.net", &settings, &[]);
        assert_eq!(found, [""; 0]);
    }
}
