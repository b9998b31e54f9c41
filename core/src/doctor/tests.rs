//! Facts and what is said about them.

use super::*;
use crate::wan::Addresses;
use crate::wan::mapping::{Mapped, Mapping, Port, Protocol, Transport};
use crate::wan::report::{AddressSource, Lookup};

fn now() -> Timestamp {
    Timestamp::parse("2026-11-23T12:00:00Z").unwrap()
}

fn v4(text: &str) -> Addresses {
    Addresses {
        v4: text.parse().ok(),
        v6: None,
    }
}

/// A router with a public address and a name that resolves to it.
fn healthy() -> Facts {
    let public = Addresses {
        v4: "203.0.113.5".parse().ok(),
        v6: "2001:db8::1".parse().ok(),
    };
    Facts {
        now: now(),
        clock_is_plausible: true,
        wan: Report {
            interface: "pppoe-wan".into(),
            own: public,
            public,
            public_source: AddressSource::Interface,
            lan: "192.168.1.1".parse().ok(),
            has_route: true,
            is_published: true,
            advertised: public.iter().collect(),
            lookup: Lookup::Found(vec!["203.0.113.5".parse().unwrap()]),
            ..Report::default()
        },
        server_url: "https://home.example".into(),
        host: Host::Name("home.example".into()),
        port: 443,
        is_https: true,
        http: "[::]:80".parse().ok(),
        https: "[::]:443".parse().ok(),
        stun: "[::]:3478".parse().ok(),
        relay_is_on: true,
        other_regions: 0,
        is_closed: false,
        local_v4: Vec::new(),
        unconfirmed_names: Vec::new(),
        nodes_v4: "100.64.0.0/10".parse().unwrap(),
        certificate: Some(Certificate {
            is_own: false,
            validity: Some((
                Timestamp::parse("2026-10-01T00:00:00Z").unwrap(),
                Timestamp::parse("2027-01-01T00:00:00Z").unwrap(),
            )),
            is_for_host: true,
        }),
        database_is_writable: true,
        limit_usages: Vec::new(),
        memory: None,
        warnings: Vec::new(),
        waiting_routes: 0,
        unauthorized: 0,
        pending: 0,
    }
}

/// The level of a finding, by its id.
fn level(facts: &Facts, id: &str) -> Option<Level> {
    let findings = diagnose(facts);
    let found = findings.iter().find(|finding| finding.id == id);
    found.map(|finding| finding.level)
}

fn bad(facts: &Facts) -> Vec<(&'static str, Level)> {
    let findings = diagnose(facts);
    let bad = findings
        .iter()
        .filter(|finding| finding.level >= Level::Warning);
    bad.map(|finding| (finding.id, finding.level)).collect()
}

#[test]
fn a_healthy_server_has_no_problems_and_says_what_works() {
    let findings = diagnose(&healthy());
    assert_eq!(bad(&healthy()), []);
    for id in [
        "wan.address",
        "wan.ipv6",
        "url.name",
        "certificate",
        "clock",
        "database",
    ] {
        assert_eq!(level(&healthy(), id), Some(Level::Ok), "{id}");
    }
    let worst_first = findings
        .windows(2)
        .all(|pair| pair[0].level >= pair[1].level);
    assert!(worst_first);
    for finding in findings {
        assert!(
            !finding.title.ends_with('.') && !finding.title.contains('\n'),
            "{finding:?}"
        );
    }
}

#[test]
fn carrier_nat_is_a_problem_and_with_ipv6_a_warning() {
    let mut facts = healthy();
    facts.wan.own = v4("100.71.2.3");
    facts.wan.public = Addresses::default();
    facts.nodes_v4 = "100.112.0.0/16".parse().unwrap();
    assert_eq!(level(&facts, "wan.carrier-nat"), Some(Level::Problem));
    assert_eq!(level(&facts, "wan.prefix-collision"), None);
    facts.nodes_v4 = "100.64.0.0/10".parse().unwrap();
    assert_eq!(level(&facts, "wan.prefix-collision"), Some(Level::Problem));
    facts.wan.public.v6 = "2001:db8::1".parse().ok();
    let findings = diagnose(&facts);
    let finding = findings
        .iter()
        .find(|finding| finding.id == "wan.carrier-nat")
        .unwrap();
    assert_eq!(finding.level, Level::Warning);
    assert!(finding.detail.contains("What works") && finding.detail.contains("What does not"));
    assert!(finding.advice.contains("hearth derp"));
    // Those who have IPv4 inside IPv6 only are in the same place.
    facts.wan.own = v4("192.0.0.2");
    assert_eq!(level(&facts, "wan.carrier-nat"), Some(Level::Warning));
}

#[test]
fn behind_another_router_the_ports_to_forward_are_named() {
    let mut facts = healthy();
    facts.wan.own = v4("192.168.178.20");
    facts.wan.public = v4("203.0.113.5");
    facts.wan.public_source = AddressSource::Stun;
    let findings = diagnose(&facts);
    let finding = findings
        .iter()
        .find(|finding| finding.id == "wan.double-nat")
        .unwrap();
    assert_eq!(finding.level, Level::Warning);
    let ports = "443 (tcp), 3478 (udp)";
    assert!(finding.advice.contains(ports), "{}", finding.advice);
    assert!(finding.advice.contains("wan.port_mapping"));

    let port = |number, transport| Port { transport, number };
    let mapped = |port: Port, external| Mapped { port, external };
    let (tcp, udp) = (port(443, Transport::Tcp), port(3478, Transport::Udp));
    facts.wan.mapping = Mapping {
        is_wanted: true,
        protocol: Some(Protocol::Pcp),
        external: "203.0.113.5".parse().ok(),
        ports: vec![mapped(tcp, Some(443)), mapped(udp, Some(3478))],
        ..Mapping::default()
    };
    assert_eq!(level(&facts, "wan.double-nat"), None);
    assert_eq!(level(&facts, "mapping"), Some(Level::Ok));
    facts.wan.mapping.ports[1].external = Some(9999);
    assert_eq!(level(&facts, "mapping.other-ports"), Some(Level::Warning));
    facts.wan.mapping.ports[1].external = None;
    assert_eq!(level(&facts, "mapping.failed"), Some(Level::Warning));
    facts.wan.mapping.external = "10.0.0.7".parse().ok();
    assert_eq!(level(&facts, "wan.upstream-nat"), Some(Level::Problem));
}

#[test]
fn a_name_resolves_here_elsewhere_to_an_old_address_or_not_at_all() {
    let of = |lookup: Lookup, is_published| {
        let mut facts = healthy();
        facts.wan.lookup = lookup;
        facts.wan.is_published = is_published;
        let findings = diagnose(&facts);
        let found = findings
            .iter()
            .find(|finding| finding.id.starts_with("url."));
        found.map(|finding| (finding.id, finding.level))
    };
    let to = |ip: &str| Lookup::Found(vec![ip.parse().unwrap()]);
    assert_eq!(of(to("203.0.113.5"), true), Some(("url.name", Level::Ok)));
    assert_eq!(
        of(to("192.168.1.1"), true),
        Some(("url.name-at-home", Level::Note))
    );
    assert_eq!(
        of(to("203.0.113.4"), true),
        Some(("url.old-address", Level::Warning))
    );
    assert_eq!(
        of(to("198.51.100.1"), false),
        Some(("url.elsewhere", Level::Note))
    );
    let failed = Lookup::Failed("no such name".into());
    assert_eq!(of(failed, true), Some(("url.no-address", Level::Problem)));
    assert_eq!(of(Lookup::None, true), None);
}

#[test]
fn an_address_in_the_url_is_judged_by_who_can_reach_it() {
    let of = |host: &str| {
        let mut facts = healthy();
        facts.host = Host::Address(host.parse().unwrap());
        let findings = diagnose(&facts);
        let found = findings
            .iter()
            .find(|finding| finding.id.starts_with("url."));
        found.map(|finding| (finding.id, finding.level)).unwrap()
    };
    assert_eq!(of("203.0.113.5"), ("url.address", Level::Ok));
    assert_eq!(of("203.0.113.4"), ("url.old-address", Level::Warning));
    assert_eq!(of("192.168.1.1"), ("url.private", Level::Note));
    assert_eq!(of("127.0.0.1"), ("url.local", Level::Problem));
}

#[test]
fn certificates_are_judged_by_validity_and_by_who_must_accept_them() {
    let at = |text: &str| {
        let mut facts = healthy();
        facts.now = Timestamp::parse(text).unwrap();
        let findings = diagnose(&facts);
        let found = findings
            .iter()
            .find(|finding| finding.id.starts_with("certificate"));
        found.map(|finding| (finding.id, finding.level)).unwrap()
    };
    assert_eq!(at("2026-11-23T12:00:00Z"), ("certificate", Level::Ok));
    let soon = ("certificate.ends-soon", Level::Warning);
    assert_eq!(at("2026-12-20T12:00:00Z"), soon);
    let ended = ("certificate.ended", Level::Problem);
    assert_eq!(at("2027-01-01T00:00:00Z"), ended);
    let future = ("certificate.future", Level::Problem);
    assert_eq!(at("2026-09-01T00:00:00Z"), future);

    let mut facts = healthy();
    let set = |facts: &mut Facts, is_own, is_for_host| {
        facts.certificate = Some(Certificate {
            is_own,
            is_for_host,
            validity: None,
        });
    };
    set(&mut facts, true, true);
    assert_eq!(level(&facts, "certificate.own"), Some(Level::Problem));
    facts.wan.is_published = false;
    assert_eq!(level(&facts, "certificate.own"), Some(Level::Warning));
    facts.is_https = false;
    assert_eq!(level(&facts, "certificate.own"), Some(Level::Ok));
    set(&mut facts, false, false);
    assert_eq!(
        level(&facts, "certificate.other-name"),
        Some(Level::Warning)
    );
}

#[test]
fn faults_of_the_server_itself_are_named() {
    let mut facts = healthy();
    facts.clock_is_plausible = false;
    facts.database_is_writable = false;
    facts.warnings = vec!["hearth.toml:1:1: unknown key `x`".into()];
    facts.memory = Some(Memory {
        used: 13 << 20,
        budget: 12 << 20,
    });
    let usage = |used| LimitUsage {
        what: "nodes",
        key: "limits.nodes",
        used,
        most: 100,
    };
    facts.limit_usages = vec![usage(89), usage(90), usage(100)];
    facts.https = None;
    facts.stun = None;
    facts.wan.has_route = false;
    let (problem, warning) = (Level::Problem, Level::Warning);
    let mut bad = bad(&facts);
    bad.sort_unstable();
    let mut expected = [
        ("clock", problem),
        ("configuration", warning),
        ("database", problem),
        ("limit", problem),
        ("limit", warning),
        ("memory", warning),
        ("stun.off", warning),
        ("url.no-listener", warning),
        ("wan.offline", warning),
    ];
    expected.sort_unstable();
    assert_eq!(bad, expected);
    facts.relay_is_on = false;
    assert_eq!(level(&facts, "relay.none"), Some(Level::Problem));
}

#[test]
fn pending_approvals_are_notes() {
    let mut facts = healthy();
    (facts.pending, facts.unauthorized, facts.waiting_routes) = (1, 2, 3);
    assert_eq!(bad(&facts), []);
    for id in ["waiting.logins", "waiting.devices", "waiting.routes"] {
        assert_eq!(level(&facts, id), Some(Level::Note), "{id}");
    }
}

#[test]
fn a_private_address_in_the_url_that_this_machine_lost_is_a_warning() {
    let mut facts = healthy();
    facts.server_url = "http://192.168.1.31:8080".into();
    facts.host = Host::Address("192.168.1.31".parse().unwrap());
    (facts.port, facts.is_https) = (8080, false);
    facts.http = "[::]:8080".parse().ok();
    assert_eq!(level(&facts, "url.lost-address"), None);
    facts.local_v4 = vec![
        "127.0.0.1".parse().unwrap(),
        "192.168.1.31".parse().unwrap(),
    ];
    assert_eq!(level(&facts, "url.lost-address"), None);
    assert_eq!(level(&facts, "url.private"), Some(Level::Note));
    facts.local_v4 = vec![
        "127.0.0.1".parse().unwrap(),
        "192.168.1.77".parse().unwrap(),
    ];
    let findings = diagnose(&facts);
    let found = findings
        .iter()
        .find(|finding| finding.id == "url.lost-address");
    let title = "server_url names 192.168.1.31, no longer an address of this machine";
    assert_eq!(found.map(|found| found.title.as_str()), Some(title));
}

#[test]
fn a_listener_that_the_url_does_not_lead_to_is_a_problem() {
    let mut facts = healthy();
    let mut found = |host: &str, listener: &str| {
        facts.host = match host.parse() {
            Ok(address) => Host::Address(address),
            Err(_) => Host::Name("home.example".into()),
        };
        let lookup = host.split(' ').map(|ip| ip.parse().unwrap());
        facts.wan.lookup = Lookup::Found(lookup.collect());
        facts.https = listener.parse().ok();
        level(&facts, "url.unreachable-listener").is_some()
    };
    for (host, listener) in [
        ("2001:db8::1", "0.0.0.0:443"),
        ("2001:db8::1", "192.168.1.1:443"),
        ("fd00::1", "0.0.0.0:443"),
        ("192.168.1.1", "[fd00::1]:443"),
        ("192.168.1.1", "10.0.0.1:443"),
        ("2001:db8::1 2001:db8::2", "0.0.0.0:443"),
    ] {
        assert!(found(host, listener), "{host} {listener}");
    }
    for (host, listener) in [
        ("2001:db8::1", "[::]:443"),
        ("203.0.113.5", "[::]:443"),
        ("203.0.113.5", "0.0.0.0:443"),
        ("203.0.113.5", "192.168.1.1:443"),
        ("192.168.1.1", "192.168.1.1:443"),
        ("2001:db8::1", "127.0.0.1:443"),
        ("2001:db8::1 203.0.113.5", "0.0.0.0:443"),
    ] {
        assert!(!found(host, listener), "{host} {listener}");
    }
}

#[test]
fn what_is_closed_by_a_fault_is_a_problem() {
    let mut facts = healthy();
    facts.warnings = vec!["hearth.toml:1:1: unknown key `colour`".into()];
    assert_eq!(level(&facts, "configuration"), Some(Level::Warning));
    facts.is_closed = true;
    assert_eq!(level(&facts, "configuration"), Some(Level::Problem));
}

#[test]
fn names_that_devices_gave_themselves_are_a_warning() {
    let mut facts = healthy();
    assert_eq!(level(&facts, "dns.unconfirmed-names"), None);
    facts.unconfirmed_names = vec!["x".into()];
    assert_eq!(level(&facts, "dns.unconfirmed-names"), Some(Level::Warning));
}
