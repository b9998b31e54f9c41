//! Strangers, the proven, and who loses a connection to whom.

use super::*;
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

fn limits(connections: usize, reserved: usize, per_source: usize) -> Limits {
    Limits {
        connections,
        reserved_for_strangers: reserved,
        connections_per_source: per_source,
        ..Limits::default()
    }
}

fn gate(connections: usize, reserved: usize, per_source: usize) -> Gate {
    let proxies = Proxies::new(vec!["192.0.2.200/32".parse().unwrap()]);
    Gate::new(
        &limits(connections, reserved, per_source),
        Arc::new(proxies),
    )
}

async fn from(gate: &Gate, address: &str) -> Place {
    gate.enter(Some(SocketAddr::new(address.parse().unwrap(), 1)))
        .await
}

fn machine(mark: u8) -> Holder {
    Holder::new("machine", [mark; 32])
}

fn is_open(place: &Place) -> bool {
    let ended = pin!(place.ticket.ended());
    let mut context = Context::from_waker(Waker::noop());
    ended.poll(&mut context) == Poll::Pending
}

#[tokio::test]
async fn the_source_with_the_most_connections_loses_its_oldest() {
    let gate = gate(4, 1, 4);
    let greedy = [
        from(&gate, "192.0.2.1").await,
        from(&gate, "192.0.2.1").await,
        from(&gate, "192.0.2.1").await,
    ];
    let other = from(&gate, "192.0.2.2").await;
    let newcomer = from(&gate, "192.0.2.3").await;
    assert_eq!(greedy.each_ref().map(is_open), [false, true, true]);
    assert!(is_open(&other) && is_open(&newcomer));
    assert_eq!(gate.counts(), (4, 0));
}

#[tokio::test]
async fn a_site_with_many_networks_is_one_source() {
    let gate = gate(40, 1, 4);
    let mut site = Vec::new();
    for network in 0..12 {
        site.push(from(&gate, &format!("2001:db8:1:{network:x}::1")).await);
    }
    assert_eq!(site.iter().filter(|place| is_open(place)).count(), 4);
    // Within the site, a network with many does not take the place of another one.
    let mut greedy = Vec::new();
    for _ in 0..8 {
        greedy.push(from(&gate, "2001:db8:1:ff::1").await);
    }
    assert!(is_open(&site[11]) && !is_open(&site[8]));
    assert!(is_open(&from(&gate, "2001:db8:2::1").await));
}

#[tokio::test]
async fn strangers_with_different_addresses_keep_no_client_out() {
    let gate = gate(16, 4, 8);
    let mut strangers = Vec::new();
    for host in 1..100 {
        strangers.push(from(&gate, &format!("198.51.100.{host}")).await);
    }
    let known = from(&gate, "192.0.2.1").await;
    for host in 1..15 {
        strangers.push(from(&gate, &format!("203.0.113.{host}")).await);
    }
    assert!(
        is_open(&known),
        "while as many others come as there are places"
    );
    known.ticket.prove(machine(1));
    for host in 1..200 {
        strangers.push(from(&gate, &format!("203.0.113.{host}")).await);
    }
    assert!(is_open(&known) && known.ticket.is_proven());
    assert_eq!(gate.counts(), (15, 1));
}

#[tokio::test]
async fn a_household_that_was_there_before_comes_back_whatever_strangers_do() {
    let gate = gate(16, 4, 8);
    from(&gate, "192.0.2.1").await.ticket.prove(machine(1));
    let mut strangers = Vec::new();
    for host in 1..100 {
        strangers.push(from(&gate, &format!("198.51.100.{host}")).await);
    }
    let mut home = Vec::new();
    for _ in 0..4 {
        home.push(from(&gate, "192.0.2.1").await);
    }
    for _ in 0..3 {
        for host in 1..250 {
            strangers.push(from(&gate, &format!("203.0.113.{host}")).await);
        }
    }
    assert!(home.iter().all(is_open));
    // One that holds many is like any other.
    for _ in 0..4 {
        home.push(from(&gate, "192.0.2.1").await);
    }
    strangers.push(from(&gate, "203.0.113.1").await);
    assert!(!is_open(&home[0]) && is_open(&home[7]));
    // What is remembered is bounded.
    for host in 1..100 {
        from(&gate, &format!("198.51.100.{host}"))
            .await
            .ticket
            .prove(machine(1));
    }
    let Kind::Shares(shares) = &gate.0 else {
        panic!("no shares");
    };
    assert_eq!(shares.lock().familiar.sources.len(), 16);
}

#[tokio::test]
async fn devices_of_one_household_are_not_counted_as_strangers() {
    let gate = gate(32, 4, 2);
    let mut home = Vec::new();
    for device in 0..20 {
        let place = from(&gate, "192.0.2.1").await;
        place.ticket.prove(machine(device));
        home.push(place);
    }
    assert!(home.iter().all(is_open));
    assert_eq!(gate.counts(), (0, 20));
}

#[tokio::test]
async fn the_proven_leave_places_for_strangers() {
    let gate = gate(8, 3, 8);
    let mut devices = Vec::new();
    for device in 0..8 {
        let place = from(&gate, "192.0.2.1").await;
        place.ticket.prove(machine(device));
        devices.push(place);
    }
    assert_eq!(gate.counts(), (3, 5));
    assert!(
        devices.iter().all(is_open),
        "the rest stays among the strangers"
    );
    drop(devices);
    assert_eq!(gate.counts(), (0, 0));
}

#[tokio::test]
async fn one_device_cannot_hold_the_places_of_the_others() {
    let gate = gate(10, 2, 10);
    let mut greedy = Vec::new();
    for _ in 0..8 {
        let place = from(&gate, "192.0.2.1").await;
        place.ticket.prove(machine(1));
        greedy.push(place);
    }
    let mut others = Vec::new();
    for device in 2..6 {
        let place = from(&gate, "192.0.2.2").await;
        place.ticket.prove(machine(device));
        assert!(place.ticket.is_proven(), "{device}");
        others.push(place);
    }
    assert!(others.iter().all(is_open));
    // One more of its own replaces its oldest.
    let last = from(&gate, "192.0.2.1").await;
    last.ticket.prove(machine(1));
    assert!(last.ticket.is_proven() && others.iter().all(is_open));
    assert_eq!(greedy.iter().filter(|place| is_open(place)).count(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_proves_nothing_ends_and_a_proven_one_does_not() {
    let gate = gate(8, 2, 8);
    let (stranger, known) = (
        from(&gate, "192.0.2.1").await,
        from(&gate, "192.0.2.1").await,
    );
    known.ticket.prove(machine(1));
    let life = limits(1, 1, 1).stranger_life;
    let early = tokio::time::timeout(life - Duration::from_secs(1), stranger.ticket.ended());
    assert!(early.await.is_err());
    let late = tokio::time::timeout(Duration::from_secs(2), stranger.ticket.ended());
    assert!(late.await.is_ok());
    let never = tokio::time::timeout(life * 10, known.ticket.ended());
    assert!(never.await.is_err());
    assert_eq!(gate.counts(), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn the_connection_of_a_deleted_device_becomes_that_of_a_stranger() {
    let gate = gate(8, 2, 8);
    let (kept, deleted) = (
        from(&gate, "192.0.2.1").await,
        from(&gate, "192.0.2.1").await,
    );
    kept.ticket.prove(machine(1));
    deleted.ticket.prove(machine(2));
    tokio::time::sleep(Duration::from_secs(24 * 60 * 60)).await;
    gate.demote(|holder| *holder == machine(2));
    assert!(kept.ticket.is_proven() && !deleted.ticket.is_proven());
    assert!(is_open(&deleted), "it has as long as any stranger");
    let life = limits(1, 1, 1).stranger_life;
    let over = tokio::time::timeout(life * 2, deleted.ticket.ended());
    assert!(over.await.is_ok());
}

#[tokio::test]
async fn loopback_and_proxies_carry_many_clients() {
    let gate = gate(40, 2, 2);
    let mut places = Vec::new();
    for _ in 0..10 {
        places.push(from(&gate, "127.0.0.1").await);
        places.push(from(&gate, "192.0.2.200").await);
        places.push(from(&gate, "192.0.2.1").await);
    }
    assert_eq!(places.iter().filter(|place| is_open(place)).count(), 22);
}

#[tokio::test]
async fn what_a_proxy_carries_is_not_closed_for_strangers_that_come_again_and_again() {
    let gate = gate(16, 4, 8);
    let mut strangers = Vec::new();
    for (round, proxy) in ["127.0.0.1", "::1", "192.0.2.200"].into_iter().enumerate() {
        let mut carried = Vec::new();
        for _ in 0..8 {
            carried.push(from(&gate, proxy).await);
            for host in 1..40 {
                strangers.push(from(&gate, &format!("198.51.{round}.{host}")).await);
            }
        }
        assert!(carried.iter().all(is_open), "{proxy}");
        // Not more than half of all places.
        carried.push(from(&gate, proxy).await);
        assert_eq!(carried.iter().filter(|place| is_open(place)).count(), 8);
    }
    // An address of loopback that is none of the usual ones is a source like any other.
    let mut silent = Vec::new();
    for _ in 0..10 {
        silent.push(from(&gate, "127.0.0.2").await);
    }
    assert_eq!(silent.iter().filter(|place| is_open(place)).count(), 8);
}

#[tokio::test]
async fn a_connection_is_charged_to_the_client_that_a_proxy_names() {
    let gate = gate(40, 2, 2);
    let client = SocketAddr::from(([203, 0, 113, 1], 0));
    let mut places = Vec::new();
    for _ in 0..3 {
        let place = from(&gate, "192.0.2.200").await;
        place.ticket.prove(machine(1));
        place.ticket.recharge(client);
        assert!(!place.ticket.is_proven());
        places.push(place);
    }
    assert_eq!(places[2].ticket.source(), client);
    let open: Vec<bool> = places.iter().map(is_open).collect();
    assert_eq!(open, [false, true, true]);
}

#[tokio::test]
async fn without_files_the_strangers_make_room() {
    let gate = gate(8, 2, 8);
    let (stranger, known) = (
        from(&gate, "192.0.2.1").await,
        from(&gate, "192.0.2.1").await,
    );
    known.ticket.prove(machine(1));
    assert!(gate.make_room() && !gate.make_room());
    assert!(!is_open(&stranger) && is_open(&known));
}

#[tokio::test]
async fn the_admin_socket_waits() {
    let gate = Gate::queue(1);
    let first = gate.enter(None).await;
    let wait = tokio::time::timeout(Duration::from_millis(5), gate.enter(None));
    assert!(wait.await.is_err());
    drop(first);
    gate.enter(None).await;
}
