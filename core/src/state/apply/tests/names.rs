//! Names that the configuration and records use, and who has them.

use super::*;
use crate::state::dns::{DnsRecord, DnsRule, DnsSettings, ReservedNames, Resolution, Router};

fn reserve(world: &mut World, change: impl FnOnce(&mut DnsSettings)) {
    let mut settings = DnsSettings::default();
    change(&mut settings);
    let names = ReservedNames::of("t.net", &settings, &[]);
    world.apply(Command::ReserveNames(Box::new(names))).unwrap();
}

/// A device that joins with this host name; gives its label.
fn join_as(world: &mut World, number: u8, hostname: &str) -> NodeId {
    let name = format!("key{number}");
    world.preauth_key(&name, |_| {});
    let mut request = with_key(number, number, &name);
    Arc::make_mut(&mut request.hostinfo).hostname = hostname.into();
    world.join(request).id
}

fn report(world: &mut World, id: NodeId, hostname: &str) {
    let mut hostinfo = (*world.node(id).hostinfo).clone();
    hostinfo.hostname = hostname.into();
    let update = NodeUpdate {
        node: Some(id),
        hostinfo: Some(Arc::new(hostinfo)),
        ..NodeUpdate::default()
    };
    world.apply(Command::UpdateNode(Box::new(update))).unwrap();
}

fn label(world: &World, id: NodeId) -> &str {
    &world.node(id).label
}

#[test]
fn no_device_gets_a_name_that_the_configuration_uses_for_its_host_name() {
    let (mut world, _) = World::with_user();
    reserve(&mut world, |settings| {
        settings.router = Router::Node("gateway".parse().unwrap());
        settings.wildcard = vec!["nas.t.net".parse().unwrap(), "tag:web".parse().unwrap()];
        settings.records = vec![DnsRecord::parse("git", "", "forge").unwrap()];
        settings.rules = vec![DnsRule {
            target: vec!["tablet".into(), "anna@".into(), "*".into()],
            resolution: Resolution::default(),
        }];
    });
    for (number, name) in (1..).zip(["gateway", "nas", "git", "forge", "Tablet"]) {
        let id = join_as(&mut world, number, name);
        let expected = format!("{}-1", name.to_lowercase());
        assert_eq!(label(&world, id), expected);
        assert!(!world.node(id).label_chosen);
    }
    // Neither by another report, nor by a login with another host name.
    let id = join_as(&mut world, 20, "laptop");
    assert_eq!(label(&world, id), "laptop");
    report(&mut world, id, "gateway.local");
    assert_eq!(label(&world, id), "gateway-2");
    // An administrator may give it the name.
    world
        .apply(Command::RenameNode(id, "gateway".into()))
        .unwrap();
    assert_eq!(label(&world, id), "gateway");
    report(&mut world, id, "other");
    assert_eq!(label(&world, id), "gateway");
}

#[test]
fn records_reserve_their_names_and_those_of_their_nodes() {
    let (mut world, _) = World::with_user();
    reserve(&mut world, |_| {});
    for (name, value) in [("printer", "192.168.1.20"), ("files.t.net", "192.168.1.21")] {
        let record = DnsRecord::parse(name, "", value).unwrap();
        world.apply(Command::AddDnsRecord(record)).unwrap();
    }
    let record = DnsRecord::parse("git", "", "forge").unwrap();
    world.apply(Command::AddDnsRecord(record.clone())).unwrap();
    world.set_policy(r#"{"extraDNSRecords": [{"Name": "cam.t.net", "Value": "192.168.1.5"}]}"#);
    for (number, name) in (1..).zip(["printer", "files", "git", "forge", "cam"]) {
        let id = join_as(&mut world, number, name);
        assert_eq!(label(&world, id), format!("{name}-1"));
    }
    let free = join_as(&mut world, 9, "laptop");
    assert_eq!(label(&world, free), "laptop");
    world.apply(Command::DeleteDnsRecord(record)).unwrap();
    let free = join_as(&mut world, 10, "git");
    assert_eq!(label(&world, free), "git");
}

#[test]
fn an_administrator_who_makes_an_alias_of_a_node_chooses_its_name() {
    let (mut world, _) = World::with_user();
    let id = join_as(&mut world, 1, "nas");
    assert!(!world.node(id).label_chosen);
    let record = DnsRecord::parse("git", "", "nas").unwrap();
    world.apply(Command::AddDnsRecord(record)).unwrap();
    assert!(world.node(id).label_chosen);
    report(&mut world, id, "other");
    assert_eq!(label(&world, id), "nas");
}

#[test]
fn a_name_that_a_device_chose_itself_has_no_authority() {
    let (mut world, _) = World::with_user();
    let id = join_as(&mut world, 1, "gateway");
    let means = |world: &World, name: &str| world.node(id).is_meant_by(name, "t.net");
    for name in ["gateway", "gateway.t.net"] {
        assert!(
            world.node(id).is_named(name, "t.net") && !means(&world, name),
            "{name}"
        );
    }
    assert!(means(&world, &id.to_string()) && !means(&world, "7"));
    world
        .apply(Command::RenameNode(id, "gateway".into()))
        .unwrap();
    assert!(means(&world, "gateway") && means(&world, "gateway.t.net"));
    // Digits are the number of a node, whatever its name is.
    world.apply(Command::RenameNode(id, "x7".into())).unwrap();
    assert!(!means(&world, "7") && !means(&world, "gateway"));
    world
        .apply(Command::SetTags(id, vec!["tag:router".into()]))
        .unwrap();
    assert!(means(&world, "tag:router") && !means(&world, "tag:x"));
}
