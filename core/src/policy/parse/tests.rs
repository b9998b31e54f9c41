use super::*;
use crate::policy::ast::{Access, Autogroup, CheckPeriod, Ports};

fn policy(text: &str) -> Policy {
    Policy::parse(text).unwrap_or_else(|faults| panic!("{}", faults[0]))
}

fn fault(text: &str) -> String {
    Policy::parse(text).unwrap_err()[0].message.clone()
}

/// A policy with some names and one more section.
fn with(section: &str) -> String {
    format!(
        r#"{{
            "groups": {{"group:a": ["anna@"]}},
            "hosts": {{"printer": "192.168.1.9", "lan": "192.168.1.0/24"}},
            "tagOwners": {{"tag:server": ["group:a"], "tag:router": ["tag:server"]}},
            "postures": {{"posture:mac": ["node:os == 'macos'"]}},
            {section}
        }}"#
    )
}

#[test]
fn an_empty_object_is_an_open_policy_and_a_text_without_one_is_none() {
    assert!(policy("{}").open);
    for text in [
        "",
        " \n",
        "null",
        " null\n",
        "// nothing\n",
        "null // nothing",
    ] {
        assert!(Policy::parse(text).is_err(), "{text:?}");
    }
    assert!(!policy(r#"{"acls": []}"#).open);
    assert!(!policy(r#"{"Grants": []}"#).open);
}

#[test]
fn rules_that_are_null_allow_nothing_and_a_note_says_so() {
    for (text, name) in [
        (r#"{"acls": null}"#, "acls"),
        (r#"{"ACLs": null, "ssh": []}"#, "ACLs"),
        (r#"{"grants": null}"#, "grants"),
        (r#"{"acls": null, "grants": null}"#, "acls"),
    ] {
        let policy = policy(text);
        assert!(!policy.open && policy.rules.is_empty(), "{text}");
        let notes: Vec<&str> = policy.notes.iter().map(|note| &*note.message).collect();
        let expected = format!("{name:?} is null, which allows nothing, like []");
        assert!(
            notes.len() == 1 && notes[0].starts_with(&expected),
            "{notes:?}"
        );
    }
    // A program writes the list that it does not use.
    for text in [
        r#"{"acls": null, "grants": [{"src": ["*"], "dst": ["*"], "ip": ["*"]}]}"#,
        r#"{"acls": [], "grants": null}"#,
        r#"{"acls": [], "ssh": null}"#,
    ] {
        let policy = policy(text);
        assert!(!policy.open && policy.notes.is_empty(), "{text}");
    }
}

#[test]
fn acls_become_rules_by_their_ports() {
    let read = policy(&with(
        r##""acls": [{"action": "accept", "#note": 1, "proto": "tcp", "src": [" group:a "],
            "dst": ["tag:server:22", "printer:22", "lan:80-81,443"]}]"##,
    ));
    let [ssh, web] = read.rules.as_slice() else {
        panic!("{:?}", read.rules)
    };
    assert_eq!(ssh.sources, [Selector::Group("group:a".into())]);
    assert_eq!(ssh.destinations.len(), 2);
    let ports = |first, last| Ports { first, last };
    let access = Access {
        proto: Some(6),
        ports: vec![ports(80, 81), ports(443, 443)],
    };
    assert_eq!(web.access, [access]);
    assert_eq!((&*web.name, web.at.line), ("acls[0]", 6));
}

#[test]
fn old_names_of_acls_are_read() {
    let read = policy(r#"{"acls": [{"action": "accept", "users": ["*"], "ports": ["*:*"]}]}"#);
    assert_eq!(read.rules[0].destinations, [Selector::Any]);
}

#[test]
fn faults_speak_as_the_official_service_does() {
    for (section, wanted) in [
        (
            r#""acls": [{"action": "deny", "src": ["*"], "dst": ["*:*"]}]"#,
            r#"action="deny" is not supported"#,
        ),
        (
            r#""acls": [{"action": "accept", "src": ["tag:no"], "dst": ["*:*"]}]"#,
            r#"src=tag not found: "tag:no""#,
        ),
        (
            r#""acls": [{"action": "accept", "src": ["*"], "dst": ["tag:no:1"]}]"#,
            r#"dst="tag:no": tag not found: "tag:no""#,
        ),
        (
            r#""acls": [{"action": "accept", "src": ["*"], "dst": ["*:ssh"]}]"#,
            r#"dst="*:ssh": port range "ssh": invalid first integer"#,
        ),
        (
            r#""acls": [{"action": "accept", "src": ["tag:server"], "dst": ["autogroup:self:*"]}]"#,
            SELF,
        ),
        (
            r#""acls": [{"action": "accept", "proto": "icmp", "src": ["*"], "dst": ["*:80"]}]"#,
            r#"protocol number 1 does not support specific ports, only "*" is allowed"#,
        ),
        (
            r#""grants": [{"src": ["*"], "dst": ["*"]}]"#,
            "ip and app can not both be empty",
        ),
        (
            r#""grants": [{"src": ["*"], "dst": ["autogroup:self"], "ip": ["*"]}]"#,
            SELF,
        ),
        (
            r#""grants": [{"src": ["autogroup:self"], "dst": ["*"], "ip": ["*"]}]"#,
            r#""autogroup:self" not valid on the src side of a rule"#,
        ),
        (
            r#""grants": [{"src": ["*"], "dst": ["::/0"], "ip": ["*"]}]"#,
            r#"dst "::/0": to allow all IP addresses, use "*" or "autogroup:internet""#,
        ),
        (
            r#""grants": [{"src": ["*"], "dst": ["*"], "ip": ["icmp"]}]"#,
            r#"port range "icmp": invalid first integer"#,
        ),
        (
            r#""grants": [{"src": ["*"], "dst": ["*"], "via": ["lan"], "ip": ["*"]}]"#,
            "via can only be a tag",
        ),
        (
            r#""grants": [{"src": ["*"], "dst": ["*"], "app": {"cap": []}}]"#,
            "capability name must have the form {domain}/{path}",
        ),
        (
            r#""grants": [{"src": ["*"], "dst": ["*"], "srcPosture": ["posture:no"], "ip": ["*"]}]"#,
            r#"posture not found: "posture:no""#,
        ),
        (
            r#""ssh": [{"action": "accept", "src": ["*"], "dst": ["tag:server"], "users": ["root"]}]"#,
            r#"invalid src "*""#,
        ),
        (
            r#""ssh": [{"action": "accept", "src": ["anna@"], "dst": ["lan"], "users": ["root"]}]"#,
            r#"invalid dst "lan""#,
        ),
        (
            r#""ssh": [{"action": "accept", "src": ["anna@"], "dst": ["tag:server"]}]"#,
            "users must be specified",
        ),
        (
            r#""ssh": [{"action": "check", "checkPeriod": "169h", "src": [], "dst": [], "users": ["x"]}]"#,
            "checkPeriod 169h0m0s is above the max (168h)",
        ),
        (
            r#""nodeAttrs": [{"target": ["autogroup:self"], "attr": ["x"]}]"#,
            r#"nodeAttrs target does not support "autogroup:self""#,
        ),
        (
            r#""nodeAttrs": [{"target": ["no"], "attr": ["x"]}]"#,
            r#""no": invalid address"#,
        ),
        (
            r#""nodeAttrs": [{"target": ["*"], "ipPool": ["100.100.0.0/16"]}]"#,
            r#"ipPool "100.100.0.0/16" must not overlap reserved ranges"#,
        ),
        (r#""rules": []"#, r#"unknown field: "rules""#),
        (r#""acls": {}"#, "expected a list, found an object"),
    ] {
        // What follows is a valid form.
        let found = fault(&with(section));
        assert!(found.starts_with(wanted), "{section}: {found}");
    }
}

const SELF: &str = "autogroup:self can only be used with users, groups, or supported autogroups";

#[test]
fn every_fault_is_told_with_its_place() {
    let text = "{\n  \"groups\": {\"group:a\": [\"group:b\"]},\n  \"acls\": [\n    7\n  ]\n}";
    let faults = Policy::parse(text).unwrap_err();
    let shown: Vec<String> = faults.iter().map(ToString::to_string).collect();
    assert_eq!(
        shown,
        [
            "line 2, column 26: groups[\"group:a\"]: \"group:b\": group members cannot be recursive",
            "line 4, column 5: expected an object, found a number",
            "line 4, column 5: action must be specified",
        ]
    );
}

#[test]
fn ssh_rules_keep_their_period() {
    let read = policy(&with(
        r#""ssh": [
            {"action": " check", "src": ["autogroup:member"], "dst": ["autogroup:self"], "users": ["root"]},
            {"action": "check", "checkPeriod": "always", "src": ["anna@"], "dst": ["anna@"], "users": [" x"]},
        ]"#,
    ));
    assert_eq!(read.ssh[0].check, Some(CheckPeriod::DEFAULT));
    assert_eq!(
        read.ssh[0].destinations,
        [Selector::Autogroup(Autogroup::Owned)]
    );
    assert_eq!(read.ssh[1].check, Some(CheckPeriod::Always));
    assert_eq!(*read.ssh[1].users, ["x".into()]);
}

#[test]
fn sets_of_addresses_are_built_from_parts() {
    let read = policy(&with(
        r#""ipsets": {
            "ipset:all": ["10.0.0.0/8", "remove ipset:hole", "add host:printer"],
            "ipset:hole": ["10.1.0.0-10.1.255.255"],
        }, "acls": [{"action": "accept", "src": ["ipset:all"], "dst": ["*:*"]}]"#,
    ));
    let Selector::Addresses(sets) = &read.rules[0].sources[0] else {
        panic!()
    };
    let inside = |text: &str| sets[0].contains(text.parse().unwrap());
    assert!(inside("10.2.0.1") && inside("192.168.1.9") && !inside("10.1.0.1"));
    let circle = r#"{"ipsets": {"ipset:a": ["ipset:b"], "ipset:b": ["ipset:a"]}}"#;
    assert!(fault(circle).contains("cannot be recursive"));
}

#[test]
fn keys_of_the_official_service_that_map_to_something_are_kept() {
    let read = policy(
        r#"{"disableIPv4": true, "randomizeClientPort": true, "OneCGNATRoute": "mac-always",
            "derpMap": {"OmitDefaultRegions": true},
            "extraDNSRecords": [{"name": "nas.home", "type": "A", "value": "192.168.1.2"}]}"#,
    );
    assert!(read.disable_ipv4 && read.randomize_client_port);
    assert_eq!(read.one_cgnat, Some(true));
    assert_eq!(
        read.derp_map_json().unwrap(),
        r#"{"OmitDefaultRegions":true}"#
    );
    assert_eq!(&*read.extra_records()[0].name, "nas.home");
    assert!(
        fault(r#"{"extraDNSRecords": [{"name": "x", "type": "A", "value": "::1"}]}"#)
            .contains("a record needs")
    );
}
