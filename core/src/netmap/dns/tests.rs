use std::net::Ipv4Addr;

use serde_json::{Value, json};

use super::*;
use crate::clock::End;
use crate::id::NodeId;
use crate::netmap::DnsSources;
use crate::policy::Directory;
use crate::state::command::Command;
use crate::state::dns::{DnsRule, Router};
use crate::state::testing::World;
use crate::tailcfg::derpmap::DerpMap;

const BASE: &str = "t.net";

/// The settings of `viewer`.
fn config_for(tailnet: &SharedMapData, snapshot: &Snapshot, viewer: &Node) -> DnsConfig {
    let facts = Facts::of(tailnet, snapshot, named_nodes(tailnet, snapshot));
    let policy = snapshot.compiled();
    let rule = rule_for(&facts, policy, viewer);
    build(&facts, &Choice::of(&facts, policy, viewer, rule))
}

fn tailnet(change: impl FnOnce(&mut DnsSources, &mut DnsSettings)) -> SharedMapData {
    let (mut sources, mut settings) = (DnsSources::default(), DnsSettings::default());
    change(&mut sources, &mut settings);
    sources.settings = Arc::new(settings);
    SharedMapData::new(BASE.into(), &DerpMap::default()).with_dns(sources)
}

/// Three nodes: 1 and 2 of a user, 3 with `tag:web`. Their labels are `host1` to `host3`, chosen by an administrator.
fn world() -> World {
    let (mut world, _) = World::with_user();
    let one = world.node_number(1);
    let two = world.node_number(2);
    world.preauth_key("web", |key| {
        key.user = None;
        key.tags = vec!["tag:web".into()];
    });
    let three = world.join(crate::state::testing::with_key(3, 3, "web")).id;
    for node in [one, two, three] {
        world.open_stream(node);
        world.confirm_name(node);
    }
    world
}

fn id(number: u64) -> NodeId {
    NodeId::new(number).unwrap()
}

/// The settings of a node, without the reverse zones.
fn settings_of(tailnet: &SharedMapData, world: &World, viewer: u64) -> Value {
    let snapshot = world.snapshot();
    let viewer = snapshot.node(id(viewer)).unwrap();
    let config = config_for(tailnet, &snapshot, viewer);
    let mut value = serde_json::to_value(&config).unwrap();
    if let Some(routes) = value.get_mut("Routes").and_then(Value::as_object_mut) {
        routes.retain(|zone, _| !zone.ends_with(".arpa"));
    }
    value
}

fn record(name: &str, value: &str) -> DnsRecord {
    DnsRecord::parse(name, "", value).unwrap()
}

fn resolver(text: &str) -> Nameserver {
    text.parse().unwrap()
}

fn v4(world: &World, node: u64) -> String {
    world.node(id(node)).ipv4.to_string()
}

fn v6(world: &World, node: u64) -> String {
    world.node(id(node)).ipv6.to_string()
}

#[test]
fn by_default_clients_answer_for_the_tailnet_and_keep_their_resolvers() {
    let world = world();
    let snapshot = world.snapshot();
    let tailnet = tailnet(|_, _| {});
    let viewer = snapshot.node(id(1)).unwrap();
    let config = config_for(&tailnet, &snapshot, viewer);
    let text = json::plain(&config);
    assert!(text.contains(r#""64.100.in-addr.arpa":[]"#), "{text}");
    assert!(
        text.contains(r#""0.e.1.a.c.5.1.1.a.7.d.f.ip6.arpa":[]"#),
        "{text}"
    );
    assert!(!text.contains("null") && !text.contains('\\'), "{text}");
    assert_eq!(config.routes.len(), 65);
    assert_eq!(
        settings_of(&tailnet, &world, 1),
        json!({"Domains": [BASE], "Proxied": true, "Routes": {}})
    );
}

#[test]
fn without_magic_dns_only_what_is_configured_is_sent() {
    let world = world();
    let tailnet = tailnet(|_, settings| {
        settings.magic_dns = false;
        settings.usual.search_domains = vec!["corp.example".into()];
        settings.records = vec![record("a", "10.0.0.1")];
    });
    assert_eq!(
        settings_of(&tailnet, &world, 1),
        json!({
            "Domains": ["corp.example"],
            "Proxied": false,
            "Routes": {"a.t.net": []},
            "ExtraRecords": [{"Name": "a.t.net", "Type": "A", "Value": "10.0.0.1"}],
        })
    );
}

#[test]
fn resolvers_replace_those_of_the_device_or_help_out() {
    let world = world();
    let mut overrides = true;
    let mut resolvers = || {
        let tailnet = tailnet(|_, settings| {
            settings.usual.nameservers = vec![resolver("1.1.1.1"), resolver("[fd00::1]:5353")];
            settings.usual.override_local_dns = overrides;
            settings.usual.use_with_exit_node = overrides;
            let split = vec![resolver("10.0.0.53")];
            settings.usual.split = [("corp.example".into(), split)].into();
        });
        overrides = false;
        settings_of(&tailnet, &world, 1)
    };
    let first = resolvers();
    assert_eq!(
        first["Resolvers"],
        json!([
            {"Addr": "1.1.1.1", "UseWithExitNode": true},
            {"Addr": "[fd00::1]:5353", "UseWithExitNode": true},
        ])
    );
    assert_eq!(first["FallbackResolvers"], Value::Null);
    let second = resolvers();
    assert_eq!(second["Resolvers"], Value::Null);
    assert_eq!(second["FallbackResolvers"][0], json!({"Addr": "1.1.1.1"}));
    assert_eq!(
        second["Routes"],
        json!({"corp.example": [{"Addr": "10.0.0.53"}]})
    );
}

#[test]
fn the_router_is_its_node_and_keeps_its_own_resolver() {
    let world = world();
    let own = world.node(id(1)).ipv4;
    let tailnet = tailnet(|sources, settings| {
        sources.tailnet_addresses = [own].into();
        sources.home_address = Some([192, 168, 1, 1].into());
        settings.usual.use_router = true;
        settings.usual.nameservers = vec![resolver("1.1.1.1")];
        settings.lan_domain = Some("lan".into());
    });
    let router = json!([{"Addr": v4(&world, 1)}, {"Addr": v6(&world, 1)}]);
    let other = settings_of(&tailnet, &world, 2);
    assert_eq!(other["Resolvers"], router);
    assert_eq!(other["Routes"], json!({"lan": router}));
    let itself = settings_of(&tailnet, &world, 1);
    assert_eq!(
        (&itself["Resolvers"], &itself["Routes"]),
        (&Value::Null, &json!({}))
    );
}

#[test]
fn who_may_not_reach_the_router_is_not_sent_there() {
    let world = world();
    let tailnet = tailnet(|_, settings| {
        settings.router = "host1".parse().unwrap();
        settings.usual.use_router = true;
        settings.usual.nameservers = vec![resolver("9.9.9.9")];
    });
    let snapshot = world.snapshot();
    let facts = Facts::of(&tailnet, &snapshot, named_nodes(&tailnet, &snapshot));
    let viewer = snapshot.node(id(2)).unwrap();
    let apart = Compiled::allow_all(&Directory::default());
    let first = |policy: &Compiled| {
        let config = build(&facts, &Choice::of(&facts, policy, viewer, None));
        config.resolvers[0].addr.clone()
    };
    assert_eq!(first(snapshot.compiled()), v4(&world, 1));
    assert_eq!(first(&apart), "9.9.9.9");
}

#[test]
fn a_router_that_is_no_node_is_asked_at_home_and_an_unknown_one_not_at_all() {
    let world = world();
    let resolvers = |router: Router, home: Option<Ipv4Addr>| {
        let tailnet = tailnet(|sources, settings| {
            sources.home_address = home;
            settings.router = router;
            settings.usual.use_router = true;
            settings.usual.nameservers = vec![resolver("9.9.9.9")];
            settings.lan_domain = Some("lan".into());
        });
        let sent = settings_of(&tailnet, &world, 2);
        (sent["Resolvers"].clone(), sent["Routes"].clone())
    };
    let home = [192, 168, 1, 1].into();
    let at_home = json!([{"Addr": "192.168.1.1"}]);
    assert_eq!(
        resolvers(Router::ThisMachine, Some(home)),
        (at_home.clone(), json!({"lan": at_home}))
    );
    let instead = (json!([{"Addr": "9.9.9.9"}]), json!({}));
    assert_eq!(resolvers(Router::ThisMachine, None), instead);
    assert_eq!(resolvers("absent".parse().unwrap(), Some(home)), instead);
    let web = json!([{"Addr": v4(&world, 3)}, {"Addr": v6(&world, 3)}]);
    for name in ["tag:web", "host3", "host3.t.net"] {
        assert_eq!(resolvers(name.parse().unwrap(), None).0, web, "{name}");
    }
    let named = "10.9.9.9".parse().unwrap();
    assert_eq!(
        resolvers(named, Some(home)).0,
        json!([{"Addr": "10.9.9.9"}])
    );
}

#[test]
fn a_router_named_by_its_address_is_not_sent_to_itself() {
    let world = world();
    let own = world.node(id(1)).ipv4;
    for (router, home) in [("192.168.1.1", [192, 168, 1, 1]), (&*v4(&world, 1), [0; 4])] {
        let tailnet = tailnet(|sources, settings| {
            sources.tailnet_addresses = [own].into();
            sources.home_address = Some(home.into());
            settings.router = router.parse().unwrap();
            settings.usual.use_router = true;
        });
        assert_eq!(settings_of(&tailnet, &world, 1)["Resolvers"], Value::Null);
        assert_eq!(
            settings_of(&tailnet, &world, 2)["Resolvers"],
            json!([{"Addr": router}])
        );
    }
}

#[test]
fn the_first_rule_that_fits_counts() {
    let world = world();
    let rule = |target: &str, nameserver: &str| DnsRule {
        target: vec!["tag:other".into(), target.into()],
        resolution: Resolution {
            nameservers: vec![resolver(nameserver)],
            ..Resolution::default()
        },
    };
    let tailnet = tailnet(|_, settings| {
        settings.usual.nameservers = vec![resolver("1.1.1.1")];
        settings.rules = vec![rule("tag:web", "10.0.0.1"), rule("host2", "10.0.0.2")];
        settings.rules.push(rule("tag:web", "10.0.0.3"));
    });
    let first = |viewer| settings_of(&tailnet, &world, viewer)["Resolvers"][0]["Addr"].clone();
    assert_eq!(
        [first(1), first(2), first(3)],
        ["1.1.1.1", "10.0.0.2", "10.0.0.1"]
    );
}

#[test]
fn records_are_sent_once_and_aliases_follow_their_node() {
    let mut world = world();
    let tailnet = tailnet(|sources, settings| {
        settings.records = vec![record("printer.home.example", "192.168.1.20")];
        settings.records.push(record("git", "host2"));
        settings.records.push(record("gone", "nobody"));
        let twice = record("printer.home.example", "192.168.1.20");
        sources.file_records = [twice, record("a.corp.example", "fd00::1")].into();
        let split = vec![resolver("10.0.0.53")];
        settings.usual.split = [("corp.example".into(), split)].into();
    });
    let from_api = record("cam", "10.0.0.9");
    world.apply(Command::AddDnsRecord(from_api)).unwrap();
    let first = settings_of(&tailnet, &world, 1);
    assert_eq!(
        first["ExtraRecords"],
        json!([
            {"Name": "printer.home.example", "Type": "A", "Value": "192.168.1.20"},
            {"Name": "git.t.net", "Type": "A", "Value": v4(&world, 2)},
            {"Name": "git.t.net", "Type": "AAAA", "Value": v6(&world, 2)},
            {"Name": "a.corp.example", "Type": "AAAA", "Value": "fd00::1"},
            {"Name": "cam.t.net", "Type": "A", "Value": "10.0.0.9"},
        ])
    );
    // What no route brings to the client's own resolver gets one of its own.
    assert_eq!(
        first["Routes"],
        json!({"corp.example": [{"Addr": "10.0.0.53"}], "printer.home.example": []})
    );
    let rename = Command::RenameNode(id(2), "forge".into());
    world.apply(rename).unwrap();
    let rename = Command::RenameNode(id(3), "host2".into());
    world.apply(rename).unwrap();
    let later = settings_of(&tailnet, &world, 1);
    assert_eq!(later["ExtraRecords"][1]["Value"], v4(&world, 3));
}

#[test]
fn records_of_the_policy_are_addresses() {
    let text = r#"{"extraDNSRecords": [
        {"Name": "cam.example", "Type": "A", "Value": "10.0.0.9"},
        {"Name": "v6.example", "Value": "fd00::9"},
    ]}"#;
    let policy = Arc::new(Policy::parse(text).unwrap());
    let records: Vec<String> = records_of(Some(&policy))
        .map(|record| format!("{} {} {}", record.name, record.kind(), record.value))
        .collect();
    assert_eq!(
        records,
        ["cam.example A 10.0.0.9", "v6.example AAAA fd00::9"]
    );
    assert_eq!(records_of(None).count(), 0);
}

#[test]
fn next_dns_learns_who_asks() {
    let world = world();
    let snapshot = world.snapshot();
    let tailnet = tailnet(|_, settings| {
        let plain = resolver("https://dns.nextdns.io/abc?x=1&device_name=no");
        settings.usual.nameservers = vec![plain, resolver("https://dns.example.org/abc")];
    });
    let address = v4(&world, 1);
    assert_eq!(
        settings_of(&tailnet, &world, 1)["Resolvers"],
        json!([
            {"Addr": format!("https://dns.nextdns.io/abc?x=1&device_name=host1&device_ip={address}")},
            {"Addr": "https://dns.example.org/abc"},
        ])
    );
    let viewer = snapshot.node(id(1)).unwrap();
    let quiet = NextDns {
        profile: Some("kids".into()),
        device: None,
    };
    let url = "https://dns.nextdns.io/abc?x=1";
    assert_eq!(quiet.url(url), "https://dns.nextdns.io/kids");
    let talking = NextDns {
        profile: Some("kids".into()),
        ..NextDns::of(snapshot.compiled(), viewer)
    };
    assert_eq!(
        talking.url(url),
        format!("https://dns.nextdns.io/kids?device_name=host1&device_ip={address}")
    );
}

#[test]
fn viewers_with_the_same_settings_share_a_text() {
    let mut world = world();
    let texts = DnsTexts::default();
    let plain = tailnet(|_, settings| settings.records = vec![record("git", "host2")]);
    let at = |world: &World, tailnet: &SharedMapData, viewer, sent| {
        let snapshot = world.snapshot();
        let viewer = snapshot.node(id(viewer)).unwrap().clone();
        texts.changed(tailnet, &snapshot, &viewer, sent)
    };
    let (first, text) = at(&world, &plain, 1, SentDns::default()).unwrap();
    let (second, shared) = at(&world, &plain, 2, SentDns::default()).unwrap();
    assert!(first == second && Arc::ptr_eq(&text, &shared));
    // A node that no setting names does not matter.
    world.wait(std::time::Duration::from_secs(1));
    let rename = Command::RenameNode(id(3), "other".into());
    world.apply(rename).unwrap();
    assert!(at(&world, &plain, 1, first).is_none());
    // Records, aliases and other settings are changes.
    let mut sent = first;
    let mut has_changed = |world: &World, tailnet: &SharedMapData| {
        let changed = at(world, tailnet, 1, sent);
        sent = changed.as_ref().map_or(sent, |(now, _)| *now);
        changed.is_some()
    };
    world
        .apply(Command::AddDnsRecord(record("cam", "10.0.0.9")))
        .unwrap();
    assert!(has_changed(&world, &plain) && !has_changed(&world, &plain));
    let rename = Command::RenameNode(id(2), "forge".into());
    world.apply(rename).unwrap();
    assert!(has_changed(&world, &plain) && !has_changed(&world, &plain));
    let other = plain.with_dns(DnsSources::default());
    assert!(has_changed(&world, &other) && !has_changed(&world, &other));
    // A stream with older inputs does not undo the work of the others.
    assert!(!has_changed(&world, &plain));
}

#[test]
fn a_rule_is_matched_again_when_the_node_or_the_policy_changes() {
    let mut world = world();
    let texts = DnsTexts::default();
    let tailnet = tailnet(|_, settings| {
        settings.rules = vec![DnsRule {
            target: vec!["kid".into(), "tag:web".into()],
            resolution: Resolution {
                nameservers: vec![resolver("1.1.1.3")],
                ..Resolution::default()
            },
        }];
    });
    let is_by_rule = |world: &World, viewer| {
        let snapshot = world.snapshot();
        let viewer = snapshot.node(id(viewer)).unwrap();
        texts
            .text(&tailnet, &snapshot, viewer)
            .1
            .contains("1.1.1.3")
    };
    assert!(!is_by_rule(&world, 1) && is_by_rule(&world, 3));
    let rename = Command::RenameNode(id(1), "kid".into());
    world.apply(rename).unwrap();
    assert!(is_by_rule(&world, 1) && !is_by_rule(&world, 2));
}

#[test]
fn wildcards_are_for_named_nodes() {
    let world = world();
    let settings = DnsSettings {
        wildcard: vec!["tag:web".parse().unwrap(), "Host1".parse().unwrap()],
        ..DnsSettings::default()
    };
    let is_wildcard = |node| world.node(id(node)).is_one_of(&settings.wildcard, BASE);
    assert_eq!([1, 2, 3].map(is_wildcard), [true, false, true]);
}

#[test]
fn records_of_the_policy_are_sent_and_go_with_it() {
    let mut world = world();
    let tailnet = tailnet(|_, _| {});
    let texts = DnsTexts::default();
    let text = |world: &World| {
        let snapshot = world.snapshot();
        let viewer = snapshot.node(id(1)).unwrap();
        texts.text(&tailnet, &snapshot, viewer).1
    };
    assert!(!text(&world).contains("nas.example"));
    world.set_policy(r#"{"extraDNSRecords": [{"Name": "nas.example", "Value": "192.168.1.5"}]}"#);
    let sent = text(&world);
    assert!(
        sent.contains("nas.example") && sent.contains("192.168.1.5"),
        "{sent}"
    );
    world.set_policy("{}");
    assert!(!text(&world).contains("nas.example"));
}

#[test]
fn an_alias_is_sent_only_to_peers_of_its_node() {
    const THREE: &str = "100.64.0.3";
    let mut world = world();
    let tailnet = tailnet(|_, settings| {
        settings.records = vec![
            record("a", "host3"),
            record("b", "host3"),
            record("b", THREE),
        ];
    });
    let names = |world: &World, viewer: u64| -> Vec<String> {
        let sent = settings_of(&tailnet, world, viewer);
        let records = sent["ExtraRecords"].as_array().cloned().unwrap_or_default();
        let name = |record: &Value| record["Name"].as_str().unwrap().to_owned();
        records.iter().map(name).collect()
    };
    assert_eq!(v4(&world, 3), THREE);
    let all = ["a.t.net", "a.t.net", "b.t.net", "b.t.net"];
    assert_eq!(names(&world, 1), all);
    world.set_policy(
        r#"{"tagOwners": {"tag:web": []}, "acls": [{"action": "accept", "src": ["anna@"], "dst": ["anna@:*"]}]}"#,
    );
    assert_eq!(names(&world, 1), ["b.t.net"]);
    assert_eq!(names(&world, 3), all);
    world.set_policy("{}");
    assert_eq!(names(&world, 1), all);
    let expire = Command::ExpireNode(id(1), End::At(world.now.wall));
    world.apply(expire).unwrap();
    assert_eq!(names(&world, 1), ["b.t.net"]);
}

#[test]
fn a_device_that_names_itself_is_no_router_and_has_no_alias_rule_or_wildcard() {
    let (mut world, _) = World::with_user();
    for number in [1, 2] {
        let node = world.node_number(number);
        world.open_stream(node);
    }
    let tailnet = tailnet(|_, settings| {
        settings.usual.use_router = true;
        settings.usual.nameservers = vec![resolver("9.9.9.9")];
        settings.router = Router::Node("host2".parse().unwrap());
        settings.records = vec![record("git", "host2"), record("cam", "10.0.0.9")];
        settings.wildcard = vec!["host2".parse().unwrap()];
        settings.rules = vec![DnsRule {
            target: vec!["host2".into()],
            resolution: Resolution {
                search_domains: vec!["ruled.example".into()],
                ..settings.usual.clone()
            },
        }];
    });
    let sent = |world: &World| {
        let mine = settings_of(&tailnet, world, 1);
        let theirs = settings_of(&tailnet, world, 2);
        let records = mine["ExtraRecords"].as_array().unwrap().len();
        let resolver = mine["Resolvers"][0]["Addr"].as_str().unwrap().to_owned();
        let is_ruled = theirs["Domains"].to_string().contains("ruled.example");
        (
            resolver,
            records,
            is_ruled,
            tailnet.is_wildcard(world.node(id(2))),
        )
    };
    assert_eq!(sent(&world), ("9.9.9.9".to_owned(), 1, false, false));
    let alias = record("git", "host2");
    assert!(addresses_of(&alias, BASE, &world.snapshot()).is_empty());
    world.confirm_name(id(2));
    assert_eq!(sent(&world), (v4(&world, 2), 3, true, true));
    assert_eq!(addresses_of(&alias, BASE, &world.snapshot()).len(), 2);
}

#[test]
fn a_router_may_be_named_by_its_number() {
    let (mut world, _) = World::with_user();
    for number in [1, 2] {
        let node = world.node_number(number);
        world.open_stream(node);
    }
    let tailnet = tailnet(|_, settings| {
        settings.usual.use_router = true;
        settings.router = "2".parse().unwrap();
    });
    let sent = settings_of(&tailnet, &world, 1);
    assert_eq!(sent["Resolvers"][0]["Addr"], json!(v4(&world, 2)));
}

#[test]
fn records_of_all_files_with_the_name_of_a_device_are_named() {
    let (mut world, _) = World::with_user();
    let id = world.node_number(1);
    world.apply(Command::RenameNode(id, "nas".into())).unwrap();
    let record = |name: &str, value: &str| DnsRecord::parse(name, "", value).unwrap();
    let settings = DnsSettings {
        records: vec![
            record("NAS", "192.168.1.2"),
            record("nas", "fd00::2"),
            record("printer", "192.168.1.3"),
            record("nas", "nas.t.net"),
            record("nas.example.org", "192.168.1.2"),
        ],
        ..DnsSettings::default()
    };
    let sources = |settings: DnsSettings| DnsSources {
        settings: Arc::new(settings),
        file_records: [record("nas.t.net", "192.168.1.4")].into(),
        ..DnsSources::default()
    };
    world.set_policy(
        r#"{"extraDNSRecords": [{"Name": "nas.t.net", "Type": "A", "Value": "192.168.1.5"}]}"#,
    );
    let shared = SharedMapData::new("t.net".into(), &Default::default());
    let found = taken_names(&world.snapshot(), &shared.with_dns(sources(settings)));
    let sources: Vec<&str> = found
        .iter()
        .filter_map(|line| {
            assert!(line.contains(&format!("(node {id})")), "{line}");
            line.strip_prefix("the DNS record nas (")?.split(')').next()
        })
        .collect();
    assert_eq!(sources, ["configuration", "policy", "records file"]);
    let alone = taken_names(&world.snapshot(), &shared);
    assert_eq!(alone.len(), 1, "{alone:?}");
}
