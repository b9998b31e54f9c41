//! Names in the configuration and in records that mean no device, since no administrator chose them.

use std::collections::BTreeSet;

use hearth_core::state::dns::{DnsRecord, DnsSettings, DnsValue, label_in};
use hearth_core::state::name::label_for;
use hearth_core::state::snapshot::Snapshot;

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
