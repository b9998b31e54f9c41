//! Facts and what is said about them.

use super::backup::{Backups, Place};
use super::public_url::{Answer, RelayCheck, Served};
use super::*;
use crate::disk::Cause;
use crate::wan::Addresses;
use crate::wan::mapping::{Mapped, Mapping, Port, Protocol, Transport};
use crate::wan::report::{AddressSource, Lookup};
use std::time::Duration;

fn now() -> Timestamp {
    Timestamp::parse("2026-11-23T12:00:00Z").unwrap()
}

fn v4(text: &str) -> Addresses {
    Addresses {
        v4: text.parse().ok(),
        v6: None,
    }
}

/// Copies on a USB drive.
pub(super) fn backups() -> Backups {
    Backups {
        every: Some(Duration::from_secs(24 * 60 * 60)),
        directory: "/mnt/usb/hearth".into(),
        is_configured: true,
        place: Place::Elsewhere,
        has_command: false,
        last: Timestamp::parse("2026-11-22T12:00:00Z"),
        due_since: None,
        fault: None,
    }
}

/// A router with a public address and a name that resolves to it.
pub(super) fn healthy() -> Facts {
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
        public: None,
        dropped_upgrade: None,
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
        taken_names: Vec::new(),
        nodes_v4: "100.64.0.0/10".parse().unwrap(),
        certificate: Some(Certificate {
            is_own: false,
            validity: Some((
                Timestamp::parse("2026-10-01T00:00:00Z").unwrap(),
                Timestamp::parse("2027-01-01T00:00:00Z").unwrap(),
            )),
            is_for_host: true,
        }),
        opening: None,
        database_fault: None,
        backups: backups(),
        limit_usages: Vec::new(),
        memory: None,
        warnings: Vec::new(),
        left_behind: None,
        not_forwarding: Vec::new(),
        waiting_routes: 0,
        unauthorized: 0,
        pending: 0,
    }
}

/// The level of a finding, by its id.
pub(super) fn level(facts: &Facts, id: &str) -> Option<Level> {
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
        "backup",
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
    facts.wan.mapping.protocol = Some(Protocol::Upnp);
    assert_eq!(level(&facts, "mapping.unconfirmed"), None);
    facts.wan.public = Addresses::default();
    assert_eq!(level(&facts, "mapping.unconfirmed"), Some(Level::Warning));
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
    facts.database_fault = Some(DiskFault {
        cause: Cause::Full,
        detail: "No space left on device (os error 28)".into(),
        since: facts.now,
    });
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

#[test]
fn records_with_the_name_of_a_device_are_a_warning() {
    let mut facts = healthy();
    assert_eq!(level(&facts, "dns.taken-names"), None);
    facts.taken_names = vec!["x".into()];
    assert_eq!(level(&facts, "dns.taken-names"), Some(Level::Warning));
}

#[test]
fn a_database_that_was_damaged_at_the_start_is_a_warning() {
    let mut facts = healthy();
    assert_eq!(level(&facts, "database.opening"), None);
    facts.opening = Some("the database was damaged".into());
    assert_eq!(level(&facts, "database.opening"), Some(Level::Warning));
}

/// A check behind a proxy in which everything works.
fn behind_a_proxy() -> PublicCheck {
    PublicCheck {
        url: "https://home.example".into(),
        certificate: Some(Served::Trusted),
        key: Answer::Good,
        control: Answer::Good,
        relay: Some(RelayCheck {
            place: "home.example:443".into(),
            is_pinned: false,
            certificate: Some(Served::Trusted),
            upgrade: Answer::Good,
        }),
        stun: Some(("home.example:3478".into(), Answer::Good)),
    }
}

/// What the check of the public URL is said to have found.
fn public(change: impl FnOnce(&mut PublicCheck)) -> Vec<(&'static str, Level)> {
    let mut facts = healthy();
    let mut check = behind_a_proxy();
    change(&mut check);
    facts.public = Some(check);
    let found = diagnose(&facts).into_iter();
    found
        .filter(|finding| finding.id.starts_with("public."))
        .map(|finding| (finding.id, finding.level))
        .collect()
}

#[test]
fn each_fault_of_the_public_url_is_named() {
    let problem = |id| vec![(id, Level::Problem)];
    assert_eq!(public(|_| {}), [("public.url", Level::Ok)]);
    let timeout = || Answer::Unreachable("timeout".into());
    assert_eq!(
        public(|check| check.key = timeout()),
        problem("public.unreachable")
    );
    assert_eq!(
        public(|check| check.control = timeout()),
        problem("public.unreachable")
    );
    assert_eq!(
        public(|check| check.key = Answer::Status(404)),
        problem("public.key")
    );
    assert_eq!(
        public(|check| check.key = Answer::OtherServer),
        problem("public.key")
    );
    for answer in [Answer::Status(400), Answer::NoData] {
        assert_eq!(
            public(|check| check.control = answer.clone()),
            problem("public.upgrade")
        );
        let relay =
            |check: &mut PublicCheck| check.relay.as_mut().unwrap().upgrade = answer.clone();
        assert_eq!(public(relay), problem("public.relay"));
    }
    for served in [Served::Own, Served::Rejected("it has expired".into())] {
        let served = |check: &mut PublicCheck| check.certificate = Some(served.clone());
        assert_eq!(public(served), problem("public.certificate"));
    }
    let relay = |check: &mut PublicCheck| check.relay.as_mut().unwrap().upgrade = timeout();
    assert_eq!(public(relay), problem("public.relay"));
    let stun = |check: &mut PublicCheck| check.stun = Some(("home.example:3478".into(), timeout()));
    assert_eq!(public(stun), [("public.stun", Level::Warning)]);
    let unjudged = |check: &mut PublicCheck| check.certificate = Some(Served::Unjudged);
    assert_eq!(public(unjudged), [("public.certificate", Level::Note)]);
}

#[test]
fn the_certificate_of_the_relay_must_be_the_advertised_one() {
    let of = |is_pinned, certificate: Served| {
        let found = public(|check| {
            let relay = check.relay.as_mut().unwrap();
            (relay.is_pinned, relay.certificate) = (is_pinned, Some(certificate));
        });
        found
            .iter()
            .any(|(id, _)| *id == "public.relay-certificate")
    };
    assert!(!of(true, Served::Own) && !of(false, Served::Trusted));
    assert!(of(true, Served::Trusted) && of(false, Served::Own));
    assert!(of(false, Served::Rejected("it is for another name".into())));
}

#[test]
fn an_unreachable_url_is_no_problem_where_this_machine_cannot_tell() {
    let unreachable = |facts: &Facts| {
        let findings = diagnose(facts);
        let found = findings
            .into_iter()
            .find(|finding| finding.id == "public.unreachable");
        found
            .map(|finding| (finding.level, finding.detail))
            .unwrap()
    };
    let mut facts = healthy();
    facts.public = Some(PublicCheck {
        key: Answer::Unreachable("timeout".into()),
        ..behind_a_proxy()
    });
    assert_eq!(unreachable(&facts).0, Level::Problem);
    let mut behind_nat = facts.clone();
    behind_nat.wan.own = v4("192.168.178.20");
    let (level, detail) = unreachable(&behind_nat);
    assert_eq!(level, Level::Warning);
    assert!(detail.contains("NAT loopback"), "{detail}");
    facts.wan.lookup = Lookup::Found(vec!["203.0.113.99".parse().unwrap()]);
    let (level, detail) = unreachable(&facts);
    assert_eq!(level, Level::Warning);
    assert!(detail.contains("old address"), "{detail}");
}

#[test]
fn behind_a_working_proxy_the_own_certificate_and_ports_are_no_fault() {
    let mut facts = healthy();
    facts.https = None;
    facts.http = "127.0.0.1:8080".parse().ok();
    facts.certificate = Some(Certificate {
        is_own: true,
        validity: None,
        is_for_host: false,
    });
    assert!(level(&facts, "url.no-listener").is_some());
    assert!(level(&facts, "certificate.own").is_some());
    facts.public = Some(behind_a_proxy());
    assert_eq!(bad(&facts), []);
    // The proxy has the port of the relay, too.
    let ports = |facts: &Facts| {
        let findings = diagnose(facts).into_iter();
        let mut ports = findings.filter(|finding| finding.id == "ports.needed");
        ports
            .next()
            .map(|finding| finding.detail)
            .unwrap_or_default()
    };
    for https in [None, Some("[::]:8443"), Some("127.0.0.1:443")] {
        facts.https = https.and_then(|text| text.parse().ok());
        assert!(
            ports(&facts).starts_with("3478 (udp). "),
            "{}",
            ports(&facts)
        );
    }
}

#[test]
fn a_dropped_upgrade_names_the_remedy_of_each_proxy() {
    let mut facts = healthy();
    facts.dropped_upgrade = Some(DroppedUpgrade {
        source: "127.0.0.1".parse().unwrap(),
        path: "/ts2021".into(),
        at: now(),
    });
    let findings = diagnose(&facts);
    let finding = findings.first().unwrap();
    assert_eq!(
        (finding.id, finding.level),
        ("proxy.upgrade", Level::Problem)
    );
    for proxy in [
        "nginx",
        "Apache",
        "Caddy",
        "HAProxy",
        "Traefik",
        "Cloudflare",
    ] {
        assert!(finding.advice.contains(proxy), "{proxy}");
    }
    let dropped = facts.dropped_upgrade.as_mut().unwrap();
    dropped.source = "203.0.113.9".parse().unwrap();
    assert_eq!(bad(&facts), [("proxy.upgrade", Level::Warning)]);
    // The check of the public URL says the same.
    facts.public = Some(PublicCheck {
        control: Answer::Status(400),
        ..behind_a_proxy()
    });
    assert_eq!(bad(&facts), [("public.upgrade", Level::Problem)]);
}

#[test]
fn the_port_of_plain_http_is_never_to_be_opened() {
    let mut facts = healthy();
    facts.is_https = false;
    facts.server_url = "http://192.168.1.20:8080".into();
    facts.host = Host::Address("192.168.1.20".parse().unwrap());
    facts.port = 8080;
    facts.http = "[::]:8080".parse().ok();
    facts.https = "[::]:8443".parse().ok();
    facts.wan.public_source = AddressSource::Stun;
    for (own, expected) in [
        ("203.0.113.5", "ports.needed"),
        ("192.168.1.20", "wan.double-nat"),
    ] {
        facts.wan.own = v4(own);
        facts.wan.public.v6 = None;
        facts.wan.lan = "192.168.1.20".parse().ok();
        let findings = diagnose(&facts);
        let finding = findings
            .iter()
            .find(|finding| finding.id == expected)
            .unwrap();
        let text = format!("{} {}", finding.detail, finding.advice);
        assert!(
            text.contains("8443 (tcp), 3478 (udp)") && !text.contains("8080"),
            "{text}"
        );
        // A machine on the LAN of a router is the normal set-up.
        assert_eq!(finding.level, Level::Note, "{expected}");
    }
}

#[test]
fn a_read_only_database_is_a_problem_with_its_reason_and_advice() {
    let mut facts = healthy();
    let cases = [
        (Cause::Full, "no space left", "`df -h`"),
        (Cause::ReadOnly, "is read-only", "`mount -o remount,rw`"),
        (Cause::Failing, "I/O error", "replace the disk"),
        (Cause::Silent, "does not respond", "`dmesg`"),
        (
            Cause::Denied,
            "permission denied",
            "must belong to the user",
        ),
    ];
    for (cause, reason, advice) in cases {
        facts.database_fault = Some(DiskFault {
            cause,
            detail: "(os error 28)".into(),
            since: facts.now,
        });
        let findings = diagnose(&facts);
        let found = findings.iter().find(|finding| finding.id == "database");
        let found = found.unwrap();
        assert_eq!(found.level, Level::Problem);
        assert!(found.title.contains(reason), "{}", found.title);
        assert!(found.advice.contains(advice), "{}", found.advice);
        assert!(found.advice.contains("needs no restart"));
        let since = facts.now.to_string();
        assert!(found.detail.contains(&since) && found.detail.ends_with("(os error 28)"));
    }
}

#[test]
fn a_router_that_does_not_forward_is_named_with_the_fix() {
    let mut facts = healthy();
    facts.not_forwarding = vec!["tablet".into()];
    assert_eq!(bad(&facts), [("routes.forwarding", Level::Warning)]);
    let findings = diagnose(&facts);
    assert!(findings[0].title.ends_with(": tablet"), "{findings:?}");
    assert!(findings[0].advice.contains("net.ipv4.ip_forward=1"));
}
