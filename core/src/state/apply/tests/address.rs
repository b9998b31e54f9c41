//! Addresses that somebody chose, and new ones after the prefixes changed.

use super::*;
use crate::state::addr::{Cursors, Prefixes};
use crate::state::model::Settings;
use std::net::Ipv6Addr;

fn set_v4(world: &mut World, node: NodeId, address: &str) -> Result<Outcome, Rejected> {
    let address = address.parse().unwrap();
    world.apply(Command::SetAddresses(node, Some(address), None))
}

fn with_prefixes(world: &mut World, v4: (&str, u8)) {
    let v6 = "fd7a:115c:a1e0::".parse().unwrap();
    world.model.settings = Arc::new(Settings {
        prefixes: Prefixes::new((v4.0.parse().unwrap(), v4.1), (v6, 48)).unwrap(),
        ..(*world.model.settings).clone()
    });
}

#[test]
fn while_the_prefixes_are_lost_no_node_gets_a_new_address_and_known_ones_keep_theirs() {
    let (mut world, user) = World::with_user();
    world.preauth_key("key", |key| (key.user, key.reusable) = (Some(user), true));
    let first = world.join(with_key(1, 1, "key"));
    Arc::make_mut(&mut world.model.settings).prefixes_are_lost = true;
    let refused = world.register(with_key(2, 2, "key"));
    assert_eq!(refused.unwrap_err(), Rejected::PrefixesLost);
    let again = world.join(with_key(1, 3, "key"));
    assert_eq!((again.id, again.ipv4), (first.id, first.ipv4));
    let refused = world.apply(Command::BackfillAddresses);
    assert_eq!(refused.unwrap_err(), Rejected::PrefixesLost);
}

#[test]
fn a_node_gets_the_address_that_somebody_chose_and_keeps_the_other() {
    let (mut world, _) = World::with_user();
    let id = world.node_number(1);
    world.open_stream(id);
    let before = world.node(id).clone();
    set_v4(&mut world, id, "100.99.0.7").unwrap();
    let after = world.node(id).clone();
    assert_eq!(after.ipv4, Ipv4Addr::new(100, 99, 0, 7));
    assert_eq!(after.ipv6, before.ipv6);
    assert_eq!(after.facets.core, world.model.revision);
    let facts = world.model.compiled.node(id).unwrap();
    assert_eq!(facts.ipv4, Some(after.ipv4));
    world.records.clear();
    set_v4(&mut world, id, "100.99.0.7").unwrap();
    assert!(world.records.is_empty());
}

#[test]
fn addresses_that_are_taken_reserved_or_no_tailnets_are_refused() {
    let (mut world, _) = World::with_user();
    let (one, two) = (world.node_number(1), world.node_number(2));
    let taken = world.node(two).ipv4;
    let refused = set_v4(&mut world, one, &taken.to_string()).unwrap_err();
    assert_eq!(refused, Rejected::AddressTaken(taken.into(), two));
    for bad in ["10.0.0.1", "100.128.0.1", "100.100.100.100", "100.115.92.5"] {
        let refused = set_v4(&mut world, one, bad).unwrap_err();
        assert!(matches!(refused, Rejected::BadAddress(..)), "{bad}");
    }
    for bad in ["fd00::1", "fd7a:115c:a1e0::53", "fd7a:115c:a1e0:b1a::1"] {
        let address: Ipv6Addr = bad.parse().unwrap();
        let refused = world.apply(Command::SetAddresses(one, None, Some(address)));
        assert!(matches!(refused, Err(Rejected::BadAddress(..))), "{bad}");
    }
}

#[test]
fn backfilling_moves_only_what_lies_outside() {
    let (mut world, _) = World::with_user();
    let (one, two) = (world.node_number(1), world.node_number(2));
    set_v4(&mut world, two, "100.80.0.9").unwrap();
    with_prefixes(&mut world, ("100.80.0.0", 16));
    world.records.clear();
    let Ok(Outcome::Nodes(moved)) = world.apply(Command::BackfillAddresses) else {
        panic!("refused");
    };
    assert_eq!(moved.len(), 1);
    assert_eq!(world.node(one).ipv4, Ipv4Addr::new(100, 80, 0, 10));
    assert_eq!(world.node(two).ipv4, Ipv4Addr::new(100, 80, 0, 9));
    assert!(matches!(
        world.records[..],
        [Record::Cursors(_), Record::PutNode(_)]
    ));
    let again = world.apply(Command::BackfillAddresses).unwrap();
    assert_eq!(again, Outcome::Nodes(Vec::new()));
}

#[test]
fn backfilling_that_runs_out_of_addresses_changes_nothing() {
    let (mut world, _) = World::with_user();
    let ids: Vec<NodeId> = (1..=3).map(|number| world.node_number(number)).collect();
    with_prefixes(&mut world, ("100.80.0.0", 30));
    world.records.clear();
    let refused = world.apply(Command::BackfillAddresses).unwrap_err();
    assert_eq!(refused, Rejected::NoAddress);
    assert!(world.records.is_empty() && !world.model.changed);
    let prefixes = Prefixes::default();
    let as_before = |id: &NodeId| prefixes.holds_v4(world.node(*id).ipv4);
    assert!(ids.iter().all(as_before));
}

/// What a policy says of an address would otherwise hold for whoever joins next.
#[test]
fn a_freed_address_is_given_to_nobody_before_the_range_went_round() {
    let (mut world, _) = World::with_user();
    with_prefixes(&mut world, ("100.80.0.0", 29));
    let last = |world: &World, id: NodeId| world.node(id).ipv4.octets()[3];
    let (one, two) = (world.node_number(1), world.node_number(2));
    assert_eq!((last(&world, one), last(&world, two)), (1, 2));
    world.apply(Command::DeleteNode(two)).unwrap();
    let three = world.node_number(3);
    assert_eq!(last(&world, three), 3);
    // Nor one that somebody chose.
    set_v4(&mut world, three, "100.80.0.5").unwrap();
    world.apply(Command::DeleteNode(three)).unwrap();
    // Also after a restart.
    let cursors = Cursors::decode(&world.model.cursors.encode()).unwrap();
    world.model.cursors = Arc::new(cursors);
    restore(&mut world.model, world.now);
    let four = world.node_number(4);
    assert_eq!(last(&world, four), 6);
    // Round once: the lowest free one, and on from there.
    let five = world.node_number(5);
    assert_eq!(last(&world, five), 2);
    world.apply(Command::DeleteNode(five)).unwrap();
    let six = world.node_number(6);
    assert_eq!(last(&world, six), 3);
}

#[test]
fn a_database_without_a_record_of_given_addresses_goes_on_after_the_highest() {
    let (mut world, _) = World::with_user();
    let (_, two) = (world.node_number(1), world.node_number(2));
    world.model.cursors = Arc::default();
    restore(&mut world.model, world.now);
    world.apply(Command::DeleteNode(two)).unwrap();
    let is_kept = |record: &Record| matches!(record, Record::Cursors(_));
    assert!(world.records[world.records.len() - 2..].iter().any(is_kept));
    let three = world.node_number(3);
    assert_eq!(world.node(three).ipv4, Ipv4Addr::new(100, 64, 0, 3));
    assert_eq!(
        world.node(three).ipv6,
        "fd7a:115c:a1e0::3".parse::<Ipv6Addr>().unwrap()
    );
}
