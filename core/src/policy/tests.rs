//! Small tailnets, and what policies make of them.

mod names;
mod properties;

use std::sync::Arc;

use ipnet::IpNet;
use serde_json::{Value, json};

use super::*;
use crate::id::{NodeId, UserId};

/// A node number that is one.
fn id(number: u64) -> NodeId {
    NodeId::new(number).unwrap()
}

fn user(number: u64, login: &str, role: Role) -> User {
    User {
        id: UserId::new(number).unwrap(),
        login: login.into(),
        email: format!("{login}@example.com").into(),
        role,
        groups: Arc::default(),
    }
}

/// A node at 100.64.0.N and fd7a:115c:a1e0::N. `owner` is `tag:a,tag:b` or the number of a user; all routes
/// are served by it.
fn node(number: u64, owner: &str, routes: &[&str]) -> Node {
    let mut routes: Vec<IpNet> = routes.iter().map(|route| route.parse().unwrap()).collect();
    routes.sort();
    let primary = routes
        .iter()
        .copied()
        .filter(|route| route.prefix_len() != 0);
    let primary = primary.collect();
    Node {
        id: id(number),
        owner: match owner.parse() {
            Ok(user) => Owner::User(UserId::new(user).unwrap()),
            Err(_) => Owner::Tags(owner.split(',').map(Into::into).collect()),
        },
        ipv4: Some([100, 64, 0, u8::try_from(number).unwrap()].into()),
        ipv6: Some(format!("fd7a:115c:a1e0::{number:x}").parse().unwrap()),
        primary,
        routes: routes.into(),
        posture: Arc::default(),
    }
}

/// anna owns the tailnet, ben administers it, cleo does not.
fn directory(nodes: Vec<Node>) -> Directory {
    Directory {
        users: vec![
            user(1, "anna", Role::Owner),
            user(2, "ben", Role::Admin),
            user(3, "cleo", Role::Member),
        ],
        nodes,
    }
}

/// anna has 1 and 2, ben 3, cleo 4; 5 is a server, 6 a router of 10.1.0.0/16, 7 an exit node.
fn home() -> Directory {
    directory(vec![
        node(1, "1", &[]),
        node(2, "1", &[]),
        node(3, "2", &[]),
        node(4, "3", &[]),
        node(5, "tag:server", &[]),
        node(6, "tag:router", &["10.1.0.0/16"]),
        node(7, "tag:exit", &["0.0.0.0/0", "::/0"]),
    ])
}

const TAGS: &str = r#""tagOwners": {"tag:server": ["ben@"], "tag:router": ["tag:server"], "tag:exit": [],
    "tag:other": []}, "groups": {"group:pair": ["anna@example.com", "cleo@"]},"#;

fn policy(text: &str) -> Arc<Policy> {
    let text = format!("{{{TAGS} {text}}}");
    Arc::new(Policy::parse(&text).unwrap_or_else(|faults| panic!("{}", faults[0])))
}

fn compiled(text: &str) -> Compiled {
    Compiled::compile(&policy(text), &home())
}

/// Whom a node sees.
fn seen(compiled: &Compiled, viewer: u64) -> Vec<u64> {
    (1..=7)
        .filter(|peer| compiled.are_peers(id(viewer), id(*peer)))
        .collect()
}

fn filter(compiled: &Compiled, of: u64) -> Value {
    serde_json::from_str(&compiled.filter(id(of))).unwrap()
}

fn texts(nets: &[IpNet]) -> Vec<String> {
    nets.iter().map(ToString::to_string).collect()
}

#[test]
fn without_a_policy_everyone_reaches_everyone() {
    let open = Compiled::allow_all(&home());
    assert_eq!(seen(&open, 4), [1, 2, 3, 5, 6, 7]);
    assert_eq!(filter(&open, 1)[0]["SrcIPs"], json!(["*"]));
    assert!(Arc::ptr_eq(&open.filter(id(1)), &open.filter(id(6))));
    assert!((1..=7).all(|viewer| open.view_class(id(viewer)) == 0));
    assert_eq!(texts(&open.routes(id(1), id(6)).primary), ["10.1.0.0/16"]);
    assert_eq!(
        texts(&open.routes(id(1), id(7)).allowed),
        ["0.0.0.0/0", "::/0"]
    );
    assert!(!open.may_tag(&Owner::User(UserId::FIRST), "tag:server"));
    assert!(open.ssh(id(5)).is_none() && open.policy().is_none());
}

#[test]
fn an_empty_list_of_rules_blocks_everything() {
    let closed = compiled(r#""acls": []"#);
    assert_eq!(seen(&closed, 1), [0; 0]);
    assert_eq!(&*closed.filter(id(1)), "[]");
}

#[test]
fn a_rule_opens_one_direction_and_shows_both_ends() {
    let one = compiled(
        r#""acls": [{"action": "accept", "proto": "tcp", "src": ["group:pair"], "dst": ["tag:server:22"]}]"#,
    );
    assert_eq!(seen(&one, 5), [1, 2, 4]);
    assert_eq!(seen(&one, 1), [5]);
    assert_eq!(&*one.filter(id(1)), "[]");
    let ports = json!({"First": 22, "Last": 22});
    let wanted = json!([{
        "SrcIPs": ["100.64.0.1-100.64.0.2", "100.64.0.4", "fd7a:115c:a1e0::1-fd7a:115c:a1e0::2", "fd7a:115c:a1e0::4"],
        "DstPorts": [{"IP": "100.64.0.5", "Ports": ports}, {"IP": "fd7a:115c:a1e0::5", "Ports": ports}],
        "IPProto": [6],
    }]);
    assert_eq!(filter(&one, 5), wanted);
}

#[test]
fn those_who_see_everything_are_of_one_class() {
    let all = compiled(
        r#""acls": [{"action": "accept", "src": ["autogroup:member"], "dst": ["*:*"]},
            {"action": "accept", "src": ["anna@"], "dst": ["tag:server:22"]}]"#,
    );
    let class = |number| all.view_class(id(number));
    assert_eq!([class(1), class(2), class(3), class(4)], [class(1); 4]);
    assert_ne!(class(1), class(5));
}

#[test]
fn own_devices_reach_each_other_only() {
    let own =
        compiled(r#""acls": [{"action": "accept", "src": ["*"], "dst": ["autogroup:self:*"]}]"#);
    assert_eq!(seen(&own, 1), [2]);
    assert_eq!(seen(&own, 3), [0; 0]);
    assert_eq!(seen(&own, 5), [0; 0]);
    assert_eq!(own.view_class(id(1)), own.view_class(id(2)));
    assert_ne!(own.view_class(id(1)), own.view_class(id(3)));
    let sources = json!([
        "100.64.0.1-100.64.0.2",
        "fd7a:115c:a1e0::1-fd7a:115c:a1e0::2"
    ]);
    assert_eq!(filter(&own, 2)[0]["SrcIPs"], sources);
}

#[test]
fn everyone_stands_for_approved_subnets_too() {
    let all = compiled(r#""grants": [{"src": ["*"], "dst": ["tag:server"], "ip": ["443"]}]"#);
    let sources = &filter(&all, 5)[0]["SrcIPs"];
    assert_eq!(sources[0], "100.64.0.0-100.115.91.255");
    assert_eq!(sources[3], "10.1.0.0/16");
    // The server must be able to answer the hosts behind the router.
    assert_eq!(texts(&all.routes(id(5), id(6)).allowed), ["10.1.0.0/16"]);
    assert_eq!(all.routes(id(6), id(5)), RouteView::default());
    assert_eq!(all.routes(id(1), id(6)), RouteView::default());
}

#[test]
fn a_subnet_is_seen_by_those_who_may_use_it() {
    let one =
        compiled(r#""acls": [{"action": "accept", "src": ["anna@"], "dst": ["10.1.2.0/24:*"]}]"#);
    assert_eq!(seen(&one, 6), [1, 2]);
    assert_eq!(texts(&one.routes(id(1), id(6)).primary), ["10.1.0.0/16"]);
    assert_eq!(filter(&one, 6)[0]["DstPorts"][0]["IP"], "10.1.2.0/24");
    assert_eq!(&*one.filter(id(5)), "[]");
}

#[test]
fn exit_nodes_serve_those_who_are_let_out() {
    let one = compiled(
        r#""acls": [{"action": "accept", "src": ["cleo@"], "dst": ["autogroup:internet:*"]},
        {"action": "accept", "src": ["ben@"], "dst": ["tag:exit:*"]}]"#,
    );
    assert_eq!(seen(&one, 7), [3, 4]);
    assert_eq!(
        texts(&one.routes(id(4), id(7)).allowed),
        ["0.0.0.0/0", "::/0"]
    );
    assert_eq!(one.routes(id(3), id(7)), RouteView::default());
    let ports = filter(&one, 7)[0]["DstPorts"].as_array().unwrap().len();
    assert!(ports > 5, "{ports}");
    assert!(!filter(&one, 7).to_string().contains("10.0.0.0/8"));
}

#[test]
fn rules_choose_their_routers() {
    let nodes = vec![
        node(1, "1", &[]),
        node(3, "2", &[]),
        node(5, "tag:server", &["10.1.0.0/16"]),
        Node {
            primary: Arc::default(),
            ..node(6, "tag:router", &["10.1.0.0/16"])
        },
        Node {
            primary: Arc::default(),
            ..node(7, "tag:router", &["10.1.0.0/16"])
        },
    ];
    let policy = policy(
        r#""grants": [
        {"src": ["anna@"], "dst": ["10.1.0.0/16"], "ip": ["*"], "via": ["tag:router"]},
        {"src": ["ben@"], "dst": ["10.1.0.0/16"], "ip": ["*"]}]"#,
    );
    let via = Compiled::compile(&policy, &directory(nodes.clone()));
    assert_eq!(texts(&via.routes(id(1), id(6)).primary), ["10.1.0.0/16"]);
    assert_eq!(via.routes(id(1), id(7)), RouteView::default());
    assert!(!via.are_peers(id(1), id(5)));
    assert_eq!(texts(&via.routes(id(3), id(5)).primary), ["10.1.0.0/16"]);
    assert_eq!(via.routes(id(3), id(6)), RouteView::default());
    assert_eq!(filter(&via, 7).as_array().unwrap().len(), 2);
    assert_eq!(filter(&via, 5).as_array().unwrap().len(), 1);
    // When the chosen router goes, the other one takes over, and that touches it.
    let later = via.with_nodes(&[], &[id(6)]);
    assert_eq!(texts(&later.routes(id(1), id(7)).primary), ["10.1.0.0/16"]);
    assert_eq!(
        later.touched_since(&via),
        Touched::Nodes(vec![id(6), id(7)])
    );
}

#[test]
fn routers_in_via_get_a_filter_for_what_they_route_themselves() {
    // The rules treat all three alike: each is a source and a router of the only rule.
    let nodes = vec![
        node(1, "1", &[]),
        node(5, "tag:router", &["10.1.0.0/16"]),
        node(6, "tag:router", &["::/0"]),
        node(7, "tag:router", &["10.1.4.0/24", "0.0.0.0/0", "::/0"]),
    ];
    let policy = policy(
        r#""grants": [{"src": ["*"], "dst": ["*", "10.1.0.0/16", "autogroup:internet"],
        "ip": ["443"], "via": ["tag:router"]}]"#,
    );
    let compiled = Compiled::compile(&policy, &directory(nodes));
    let lets_in = |of: u64| {
        let filter = filter(&compiled, of);
        let rules = filter.as_array().unwrap().iter();
        let to = rules.flat_map(|rule| rule["DstPorts"].as_array().unwrap());
        let to: Vec<&Value> = to.map(|to| &to["IP"]).collect();
        ["*", "10.1.0.0/16", "2000::/3"].map(|net| to.contains(&&json!(net)))
    };
    let wanted = [
        (1, [false, false, false]),
        (5, [false, true, false]),
        (6, [false, false, true]),
        (7, [false, true, true]),
    ];
    // Whichever node asks first.
    for (of, wanted) in wanted.into_iter().chain(wanted.into_iter().rev()) {
        assert_eq!(lets_in(of), wanted, "node {of}");
    }
}

#[test]
fn two_routers_of_a_subnet_know_of_each_other() {
    let nodes = vec![
        node(5, "tag:router", &["10.1.0.0/16"]),
        Node {
            primary: Arc::default(),
            ..node(6, "tag:router", &["10.1.0.0/16"])
        },
    ];
    let policy =
        policy(r#""grants": [{"src": ["tag:router"], "dst": ["tag:router"], "ip": ["*"]}]"#);
    let two = Compiled::compile(&policy, &directory(nodes));
    assert_eq!(texts(&two.routes(id(6), id(5)).primary), ["10.1.0.0/16"]);
    assert_eq!(two.routes(id(5), id(6)), RouteView::default());
}

#[test]
fn capabilities_come_with_their_other_side() {
    let drive = compiled(
        r#""grants": [{"src": ["ben@"], "dst": ["tag:server"],
        "app": {"tailscale.com/cap/drive": [{"shares": ["*"]}]}}]"#,
    );
    let wanted = json!([{
        "SrcIPs": ["100.64.0.3", "fd7a:115c:a1e0::3"],
        "CapGrant": [{
            "Dsts": ["100.64.0.5/32", "fd7a:115c:a1e0::5/128"],
            "CapMap": {"tailscale.com/cap/drive": [{"shares": ["*"]}]},
        }],
    }]);
    assert_eq!(filter(&drive, 5), wanted);
    let back = &filter(&drive, 3)[0];
    assert_eq!(back["SrcIPs"], json!(["100.64.0.5", "fd7a:115c:a1e0::5"]));
    assert_eq!(
        back["CapGrant"][0]["CapMap"],
        json!({"tailscale.com/cap/drive-sharer": null})
    );
    assert_eq!(seen(&drive, 5), [3]);
}

#[test]
fn only_machines_in_the_right_posture_are_sources() {
    let mut directory = home();
    directory.nodes[0].posture = Arc::new(Posture {
        os: "linux".into(),
        ..Posture::default()
    });
    let policy = policy(
        r#""postures": {"posture:linux": ["node:os == 'linux'"]},
        "grants": [{"src": ["*"], "dst": ["tag:server"], "ip": ["*"], "srcPosture": ["posture:linux"]}]"#,
    );
    let one = Compiled::compile(&policy, &directory);
    assert_eq!(seen(&one, 5), [1]);
    assert_eq!(
        filter(&one, 5)[0]["SrcIPs"],
        json!(["100.64.0.1", "fd7a:115c:a1e0::1"])
    );
}

#[test]
fn groups_and_roles_come_from_the_directory() {
    let mut directory = home();
    directory.users[2].groups = ["group:staff".into()].into();
    let text = r#""acls": [
        {"action": "accept", "src": ["group:staff"], "dst": ["tag:server:1"]},
        {"action": "accept", "src": ["autogroup:owner"], "dst": ["tag:router:1"]},
        {"action": "accept", "src": ["autogroup:admin"], "dst": ["tag:exit:1"]},
        {"action": "accept", "src": ["user:*@example.com"], "dst": ["tag:other:1"]}]"#;
    let staff = Compiled::compile(&policy(text), &directory);
    assert_eq!(staff.check(), Ok(()));
    assert_eq!(
        (seen(&staff, 5), seen(&staff, 6), seen(&staff, 7)),
        (vec![4], vec![1, 2], vec![1, 2, 3])
    );
    let faults = compiled(text).check().unwrap_err();
    assert_eq!(
        faults[0].message,
        "group not found: \"group:staff\"; define it in \"groups\""
    );
}

#[test]
fn ssh_rules_go_to_their_destinations() {
    let ssh = compiled(
        r#""ssh": [
        {"action": "accept", "src": ["cleo@"], "dst": ["tag:server"], "users": ["autogroup:nonroot"], "acceptEnv": ["LC_*"]},
        {"action": "check", "checkPeriod": "1h", "src": ["autogroup:member"], "dst": ["autogroup:self", "tag:server"], "users": ["root"]}]"#,
    );
    let rules = |of| -> Value { serde_json::from_str(&ssh.ssh(id(of)).unwrap()).unwrap() };
    let own = &rules(3)["rules"];
    assert_eq!(own.as_array().unwrap().len(), 1);
    assert_eq!(
        own[0]["principals"],
        json!([{"nodeIP": "100.64.0.3"}, {"nodeIP": "fd7a:115c:a1e0::3"}])
    );
    assert_eq!(own[0]["sshUsers"], json!({"root": "root"}));
    let server = &rules(5)["rules"];
    assert!(
        server[0]["action"]["holdAndDelegate"]
            .as_str()
            .unwrap()
            .starts_with("https://unused/machine/ssh/action/$SRC_NODE_ID/")
    );
    assert_eq!(server[1]["action"]["accept"], true);
    assert_eq!(server[1]["sshUsers"], json!({"*": "=", "root": ""}));
    assert_eq!(server[1]["acceptEnv"], json!(["LC_*"]));
    assert!(ssh.ssh(id(6)).is_none());
    let hour = CheckPeriod::Every(std::time::Duration::from_secs(3600));
    assert_eq!(ssh.ssh_check(id(1), id(2), "root"), Some(hour));
    assert_eq!(ssh.ssh_check(id(1), id(3), "root"), None);
    assert_eq!(ssh.ssh_check(id(4), id(5), "cleo"), None);
    assert_eq!(ssh.ssh_check(id(4), id(99), "root"), None);
}

#[test]
fn local_names_come_from_mail_addresses() {
    let ssh = compiled(
        r#""ssh": [{"action": "accept", "src": ["autogroup:member"], "dst": ["tag:server"], "users": ["localpart:*@example.com"]}]"#,
    );
    let rules: Value = serde_json::from_str(&ssh.ssh(id(5)).unwrap()).unwrap();
    let users: Vec<&Value> = rules["rules"]
        .as_array()
        .unwrap()
        .iter()
        .map(|rule| &rule["sshUsers"])
        .collect();
    assert_eq!(users[..2], [&json!({"root": ""}), &json!({"anna": "anna"})]);
    assert_eq!(users.len(), 6);
    let foreign = compiled(
        r#""ssh": [{"action": "accept", "src": ["anna@"], "dst": ["tag:server"], "users": ["localpart:*@other.org"]}]"#,
    );
    assert!(
        foreign.check().unwrap_err()[0]
            .message
            .starts_with("other.org is not associated")
    );
}

#[test]
fn attributes_are_merged() {
    let attrs = compiled(
        r#""randomizeClientPort": true, "nodeAttrs": [
        {"target": ["tag:server"], "attr": ["funnel", "disable-ipv4"], "ipPool": ["100.80.0.0/16"]},
        {"target": ["*"], "app": {"example.com/x": [{"a": 1}]}},
        {"target": ["100.64.0.5"], "app": {"example.com/x": [{"a": 1}, 2]}}]"#,
    );
    let of = |number| serde_json::to_value(&*attrs.attributes(id(number))).unwrap();
    assert_eq!(
        of(1),
        json!({"example.com/x": [{"a": 1}], "randomize-client-port": []})
    );
    assert_eq!(of(5)["example.com/x"], json!([{"a": 1}, 2]));
    assert!(
        of(5)["funnel"].is_array()
            && of(5)["https://tailscale.com/cap/funnel-ports?ports=443,8443,10000"].is_array()
    );
    assert!(
        attrs.without_ipv4(id(1), id(5))
            && attrs.without_ipv4(id(5), id(1))
            && !attrs.without_ipv4(id(1), id(2))
    );
    assert_eq!(
        attrs.ip_pool(&home().nodes[4]).unwrap().to_string(),
        "100.80.0.0/16"
    );
    assert_eq!(attrs.ip_pool(&home().nodes[0]), None);
}

#[test]
fn approvers_and_owners_are_asked() {
    let some = compiled(
        r#""autoApprovers": {"routes": {"10.0.0.0/8": ["tag:router"], "0.0.0.0/0": ["ben@"]}, "exitNode": ["tag:exit"]}"#,
    );
    let approves = |number: usize, route: &str| {
        some.auto_approves(&home().nodes[number - 1], &route.parse().unwrap())
    };
    assert!(approves(6, "10.1.0.0/16") && approves(6, "10.0.0.0/8") && !approves(6, "11.0.0.0/8"));
    assert!(approves(3, "11.0.0.0/8") && !approves(3, "0.0.0.0/0"));
    assert!(approves(7, "::/0") && !approves(6, "0.0.0.0/0"));
    let person = |number| Owner::User(UserId::new(number).unwrap());
    let tags = |tag: &str| Owner::Tags([tag.into()].into());
    // ben by name; anna as the owner of the tailnet; cleo not at all.
    assert!(some.may_tag(&person(2), "tag:server") && some.may_tag(&person(1), "tag:exit"));
    assert!(!some.may_tag(&person(3), "tag:server") && !some.may_tag(&person(1), "tag:unknown"));
    assert!(
        some.may_tag(&tags("tag:server"), "tag:router")
            && !some.may_tag(&tags("tag:router"), "tag:server")
    );
}

#[test]
fn selectors_find_nodes() {
    let some = compiled("");
    for (selector, wanted) in [
        ("*", vec![1, 2, 3, 4, 5, 6, 7]),
        ("anna@", vec![1, 2]),
        ("group:pair", vec![1, 2, 4]),
        ("tag:server", vec![5]),
        ("autogroup:tagged", vec![5, 6, 7]),
        ("autogroup:owner", vec![1, 2]),
        ("100.64.0.2/31", vec![2, 3]),
        ("autogroup:self", vec![]),
    ] {
        let found: Vec<u64> = (1..=7)
            .filter(|node| some.selects(selector, id(*node)) == Some(true))
            .collect();
        assert_eq!(found, wanted, "{selector}");
    }
    assert_eq!(some.selects("tag:unknown", id(1)), Some(false));
    assert_eq!(some.selects("nobody knows", id(1)), None);
}

#[test]
fn tests_of_a_policy_say_what_does_not_hold() {
    let acls = r#""hosts": {"lan": "10.1.0.0/16"}, "acls": [
        {"action": "accept", "src": ["anna@"], "dst": ["tag:server:22", "autogroup:self:80"]},
        {"action": "accept", "proto": "udp", "src": ["cleo@"], "dst": ["10.1.0.9:53"]}],"#;
    let run = |tests: &str| compiled(&format!("{acls} \"tests\": [{tests}]")).run_tests();
    assert_eq!(
        run(
            r#"{"src": "anna@", "accept": ["tag:server:22", "anna@:80"], "deny": ["tag:server:23", "cleo@:80"]}"#
        ),
        Ok(())
    );
    assert_eq!(
        run(r#"{"src": "cleo@", "accept": ["10.1.0.9:53"], "proto": "udp"}"#),
        Ok(())
    );
    let faults = run(r#"{"src": "group:pair", "accept": ["tag:server:22"]}"#).unwrap_err();
    assert_eq!(faults[0].message, "test(s) failed");
    assert_eq!(
        faults[1].message,
        "group:pair: -> tag:server:22: expected ALLOWED, got DENIED"
    );
    let open = compiled(
        r#""tests": [{"src": "10.1.0.9", "accept": ["anna@:1"]}, {"src": "10.2.0.9", "deny": ["anna@:1"]}]"#,
    );
    assert_eq!(open.run_tests(), Ok(()));
    for wrong in [
        r#"{"src": "anna@", "accept": ["lan:80"]}"#,
        r#"{"src": "anna@", "accept": ["tag:server:22-23"]}"#,
        r#"{"src": "anna@", "deny": ["tag:server:22"]}"#,
        r#"{"src": "anna@"}"#,
        r#"{"src": "dora@", "accept": ["tag:server:22"]}"#,
        r#"{"src": "cleo@", "accept": ["10.1.0.9:53"], "proto": "tcp"}"#,
    ] {
        assert!(run(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn tests_of_ssh_rules_say_what_does_not_hold() {
    let rules = r#""ssh": [
        {"action": "check", "src": ["anna@"], "dst": ["tag:server"], "users": ["root"]},
        {"action": "accept", "src": ["anna@"], "dst": ["tag:server"], "users": ["web"]}],"#;
    let run = |tests: &str| compiled(&format!("{rules} \"sshTests\": [{tests}]")).run_tests();
    assert_eq!(
        run(
            r#"{"src": "anna@", "dst": ["tag:server"], "accept": ["web", "root"], "check": ["root"], "deny": ["x"]}"#
        ),
        Ok(())
    );
    let faults = run(r#"{"src": "anna@", "dst": ["tag:server"], "check": ["web"]}"#).unwrap_err();
    assert_eq!(
        faults[1].message,
        "anna@: -> \"web\" at tag:server: expected ALLOWED after a check, got something else"
    );
    let faults = run(r#"{"src": "anna@", "dst": ["tag:no"], "accept": ["web"]}"#).unwrap_err();
    assert_eq!(
        faults[0].message,
        "SSH tests dst contains unknown tag \"tag:no\""
    );
}

#[test]
fn the_reason_is_explained() {
    let some = compiled(
        r#""acls": [
        {"action": "accept", "src": ["anna@"], "dst": ["tag:server:22", "10.1.0.0/16:80"]},
        {"action": "accept", "src": ["cleo@"], "dst": ["10.9.0.0/16:80"]}]"#,
    );
    let why = |src: &str, dst: &str, port| {
        some.why(src.parse().unwrap(), dst.parse().unwrap(), port, 6)
            .to_string()
    };
    assert_eq!(
        why("100.64.0.1", "100.64.0.5", 22),
        "allowed by acls[0] (line 3)"
    );
    assert_eq!(
        why("100.64.0.1", "10.1.0.7", 80),
        "allowed by acls[0] (line 3), routed by node 6"
    );
    assert!(why("100.64.0.1", "100.64.0.5", 23).contains("not this protocol and port"));
    assert!(
        why("100.64.0.1", "100.64.0.6", 22)
            .contains("no rule allows this destination for this source")
    );
    assert_eq!(
        why("100.64.0.3", "100.64.0.5", 22),
        "denied: no rule has this source"
    );
    assert_eq!(
        why("100.64.0.4", "10.9.0.1", 80),
        "denied: no approved route to the destination"
    );
    let open = Compiled::allow_all(&home());
    let answer = open.why(
        "100.64.0.1".parse().unwrap(),
        "100.64.0.2".parse().unwrap(),
        1,
        17,
    );
    assert_eq!(
        answer.to_string(),
        "allowed: no policy: everyone may reach everyone"
    );
}

#[test]
fn a_rule_counts_where_the_router_of_the_destination_lets_it_through() {
    let nodes = vec![
        node(1, "1", &[]),
        node(5, "tag:server", &["10.1.0.0/16"]),
        Node {
            primary: Arc::default(),
            ..node(6, "tag:router", &["10.1.0.0/16", "10.1.4.0/24"])
        },
        node(7, "tag:exit", &["0.0.0.0/0", "::/0"]),
    ];
    let policy = policy(
        r#""grants": [
        {"src": ["anna@"], "dst": ["10.1.0.0/16"], "ip": ["80"]},
        {"src": ["anna@"], "dst": ["10.1.0.0/16"], "ip": ["443"], "via": ["tag:router"]},
        {"src": ["anna@"], "dst": ["autogroup:internet"], "ip": ["80"]},
        {"src": ["anna@"], "dst": ["8.8.8.0/24"], "ip": ["443"]}]"#,
    );
    let compiled = Compiled::compile(&policy, &directory(nodes));
    let why = |dst: &str, port| {
        let src = "100.64.0.1".parse().unwrap();
        compiled.why(src, dst.parse().unwrap(), port, 6).to_string()
    };
    // The rule without `via` makes the primary router the way to the subnet for all rules.
    let primary = "allowed by grants[0] (line 3), routed by node 5";
    assert_eq!(why("10.1.0.7", 80), primary);
    assert_eq!(
        why("10.1.0.7", 443),
        "denied: the rule does not reach the subnet router of the destination; compare its via with the tags of the router"
    );
    let out = "allowed by grants[2] (line 5), routed by node 7";
    assert_eq!(why("8.8.8.8", 80), out);
    assert_eq!(
        why("8.8.8.8", 443),
        "denied: the rule reaches no exit node that the device may use; add autogroup:internet to its dst, or compare its via with their tags"
    );
}

#[test]
fn a_prefix_with_via_holds_the_address_of_a_router_within_it() {
    let nodes = vec![
        node(1, "1", &[]),
        node(5, "tag:router", &[]),
        node(6, "tag:router", &["fd7a:115c:a1e0:b1a::/64"]),
    ];
    let policy = policy(
        r#""grants": [{"src": ["anna@"], "dst": ["fd7a:115c:a1e0::/48"], "ip": ["443"], "via": ["tag:router"]}]"#,
    );
    let compiled = Compiled::compile(&policy, &directory(nodes));
    let allowed = |dst: &str| {
        let src = "fd7a:115c:a1e0::1".parse().unwrap();
        compiled.why(src, dst.parse().unwrap(), 443, 6).allowed()
    };
    assert_eq!(
        filter(&compiled, 6)[0]["DstPorts"][0]["IP"],
        "fd7a:115c:a1e0::/48"
    );
    assert!(allowed("fd7a:115c:a1e0:b1a:0:7:a01:203") && allowed("fd7a:115c:a1e0::6"));
    assert_eq!(&*compiled.filter(id(5)), "[]");
    assert!(!allowed("fd7a:115c:a1e0::5"));
}

#[test]
fn a_rule_with_via_does_not_open_a_users_own_devices() {
    let text = |via: &str| {
        format!(
            r#""grants": [{{"src": ["autogroup:member"], "dst": ["autogroup:self"], "ip": ["*"],
            "app": {{"example.com/x": []}}, "via": [{via}]}}]"#
        )
    };
    let (open, closed) = (compiled(&text("")), compiled(&text(r#""tag:router""#)));
    assert_eq!((seen(&open, 1), seen(&closed, 1)), (vec![2], vec![]));
    assert_eq!(filter(&open, 1).as_array().unwrap().len(), 2);
    assert_eq!(&*closed.filter(id(1)), "[]");
}

#[test]
fn tests_of_a_rule_with_via_count_what_is_behind_its_routers_only() {
    let tests = |accept: &str| {
        let text = format!(
            r#""grants": [{{"src": ["anna@"], "dst": ["*", "tag:server", "100.64.0.0/29", "10.1.0.0/16"],
            "ip": ["443"], "via": ["tag:router"]}}],
            "tests": [{{"src": "anna@", "accept": ["{accept}"]}}]"#
        );
        compiled(&text).check()
    };
    assert_eq!(tests("10.1.0.7:443"), Ok(()));
    for closed in ["tag:server:443", "100.64.0.5:443", "100.64.0.6:443"] {
        let faults = tests(closed).unwrap_err();
        let failed = &faults[1].message;
        assert!(failed.contains("got DENIED"), "{failed}");
    }
}
