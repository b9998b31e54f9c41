//! What is said about names that stand for nothing, and about texts that are nearly valid.

use super::*;

fn fault(text: &str) -> String {
    Policy::parse(text).unwrap_err()[0].to_string()
}

fn warnings(text: &str, directory: &Directory) -> Vec<String> {
    let policy = Policy::parse(text).unwrap_or_else(|faults| panic!("{}", faults[0]));
    let compiled = Compiled::compile(&Arc::new(policy), directory);
    assert_eq!(compiled.check(), Ok(()));
    compiled
        .warnings()
        .iter()
        .map(ToString::to_string)
        .collect()
}

#[test]
fn names_that_stand_for_nothing_are_warned_of_with_their_places() {
    let text = r#"{
"groups": {
  "group:all": ["anna@", "dora@example.com"],
  "group:none": [],
},
"hosts": {
  "nas": "10.1.0.9",
  "printer": "192.168.9.1",
  "old": "100.64.0.99",
  "phone": "100.64.0.1",
  "dns": "9.9.9.9",
},
"tagOwners": {
  "tag:server": ["ben@"],
  "tag:new": ["bob@"],
  "tag:lost": [],
},
"acls": [
  {"action": "accept", "src": ["group:all", "dora@example.com"], "dst": ["tag:server:22"]},
],
}"#;
    let known = "(users: anna@, ben@, cleo@)";
    assert_eq!(
        warnings(text, &home()),
        [
            format!("line 3, column 26: no user is called \"dora@example.com\" {known}"),
            "line 4, column 3: \"group:none\" has no members".into(),
            "line 8, column 3: hosts[\"printer\"]: no approved route leads to 192.168.9.1/32".into(),
            "line 9, column 3: hosts[\"old\"]: no device has the address 100.64.0.99/32".into(),
            "line 15, column 3: no device has \"tag:new\" yet".into(),
            format!("line 15, column 15: no user is called \"bob@\" {known}"),
            "line 16, column 3: no device has \"tag:lost\" yet; it has no owner, so only administrators can assign it".into(),
        ]
    );
}

#[test]
fn a_name_of_two_users_is_warned_of() {
    let mut directory = home();
    directory.users[2].login = "ANNA@".into();
    let text = r#"{"grants": [{"src": ["anna@"], "dst": ["*"], "ip": ["*"]}]}"#;
    let found = warnings(text, &directory);
    assert!(
        found[0].starts_with(
            "line 1, column 22: \"anna@\" matches user 1 (anna) as well as user 3 (ANNA@)"
        ),
        "{found:?}"
    );
    let compiled = Compiled::allow_all(&directory);
    let pairs = compiled.ambiguous_users();
    assert_eq!(pairs.len(), 1);
    assert_eq!((&*pairs[0].0.login, &*pairs[0].1.login), ("anna", "ANNA@"));
    assert!(Compiled::allow_all(&home()).ambiguous_users().is_empty());
}

#[test]
fn spellings_of_a_user_are_compared_as_a_policy_does() {
    for (one, other, is_shared) in [
        (("lm", ""), ("lm@", ""), true),
        (("lm", ""), ("LM", ""), true),
        (("lm@example.com", ""), ("max", "Lm@Example.com"), true),
        (("a", "x@example.com"), ("b", "x@example.com"), true),
        (("a", ""), ("b", ""), false),
        (("lm", ""), ("lm@example.com", ""), false),
    ] {
        let mut directory = home();
        for (user, (login, email)) in directory.users.iter_mut().zip([one, other]) {
            (user.login, user.email) = (login.into(), email.into());
        }
        let compiled = Compiled::compile(&policy(""), &directory);
        let found = compiled.ambiguous_users();
        assert_eq!(found.is_empty(), !is_shared, "{one:?} {other:?}");
    }
}

#[test]
fn faults_name_a_valid_form() {
    let acl = |src: &str, dst: &str| {
        format!(
            "{{\"hosts\": {{\"nas\": \"10.1.0.9\"}}, \"tagOwners\": {{\"tag:a\": []}},\n\"acls\": [{{\"action\": \"accept\", \"src\": [{src:?}], \"dst\": [{dst:?}]}}]}}"
        )
    };
    for (src, dst, forms) in [
        (
            "alice",
            "*:*",
            &[
                "\"alice@\"",
                "\"group:alice\"",
                "\"tag:alice\"",
                "\"hosts\"",
            ][..],
        ),
        ("grp:a", "*:*", &["group:", "tag:"]),
        ("10.0.0.256", "*:*", &["192.168.1.5"]),
        ("", "*:*", &["192.168.1.5"]),
        ("autogroup:members-of", "*:*", &["member, tagged"]),
        ("tag:none", "*:*", &["\"tagOwners\""]),
        ("ipset:none", "*:*", &["\"ipsets\""]),
        ("*", "alice", &["\"alice@:*\""]),
        ("*", "alice:22", &["\"alice@\""]),
        ("*", "nas", &["\"nas:*\""]),
        ("*", "autogroup:internet", &["\"autogroup:internet:*\""]),
        ("*", "autogroup:self", &["\"autogroup:self:*\""]),
        ("*", "tag:a", &["\"tag:a:*\""]),
        ("*", "group:a", &["\"group:a:*\""]),
        ("*", "alice@example.com", &["\"alice@example.com:*\""]),
        ("*", "*", &["\"*:*\""]),
        ("*", "10.0.0.0/8", &["\"10.0.0.0/8:*\""]),
        ("*", "fd7a:115c:a1e0::1", &["\"[fd7a:115c:a1e0::1]:*\""]),
        (
            "*",
            "2001:db8:0:0:0:0:0:1",
            &["\"[2001:db8:0:0:0:0:0:1]:*\""],
        ),
        ("*", "fd00::/8", &["\"[fd00::]/8:*\""]),
    ] {
        let fault = fault(&acl(src, dst));
        assert!(fault.starts_with("line 2, column "), "{fault}");
        let text = if src == "*" { dst } else { src };
        // Ports are split off, so that only the name may be shown.
        let name = text.split(":22").next().unwrap();
        assert!(fault.contains(name), "{fault}");
        for form in forms {
            assert!(fault.contains(form), "{src} {dst}: {fault}");
        }
    }
    let wrong_ports = fault(&acl("*", "tag:a:ssh"));
    assert!(!wrong_ports.contains("needs ports"), "{wrong_ports}");
    for (text, forms) in [
        (
            r#"{"groups": {"group:a": ["alice"]}}"#,
            &["line 1, column 25", "\"alice@\""][..],
        ),
        (
            r#"{"grants": [{"src": ["*"], "dst": ["100.64.0.1:22"], "ip": ["*"]}]}"#,
            &["\"dst\": [\"100.64.0.1\"], \"ip\": [\"22\"]"],
        ),
        (
            r#"{"ssh": [{"action": "accept", "src": ["*"], "dst": ["autogroup:self"], "users": ["x"]}]}"#,
            &["invalid src \"*\"", "autogroup:member"],
        ),
        (
            r#"{"ssh": [{"action": "accept", "src": ["anna@"], "dst": ["alice"], "users": ["x"]}]}"#,
            &["invalid dst \"alice\"", "autogroup:self", "\"alice@\""],
        ),
    ] {
        let fault = fault(text);
        assert!(forms.iter().all(|form| fault.contains(form)), "{fault}");
    }
}

#[test]
fn an_ipv6_destination_that_reads_two_ways_is_warned_of() {
    let text = r#"{"acls": [{"action": "accept", "src": ["*"],
        "dst": ["fd00::1:22", "[fd00::2]:22", "fd00::3:41641", "fd00::4:*"]}]}"#;
    let found = warnings(text, &home());
    assert_eq!(
        found,
        [
            "line 2, column 17: \"fd00::1:22\" is taken for the address fd00::1 with port 22; \
             write \"[fd00::1]:22\" or \"[fd00::1:22]:*\""
        ]
    );
}

#[test]
fn a_domain_that_no_user_has_is_refused_where_it_stands() {
    for text in [
        r#"{"grants": [{"src": ["*"], "dst": ["*"], "ip": ["*"]},
{"src": ["user:*@other.org"], "dst": ["*"], "ip": ["*"]}]}"#,
        r#"{"ssh": [{"action": "accept", "src": ["anna@"], "dst": ["autogroup:self"],
"users": ["localpart:*@other.org"]}]}"#,
    ] {
        let policy = Arc::new(Policy::parse(text).unwrap());
        let faults = Compiled::compile(&policy, &home()).check().unwrap_err();
        let fault = faults[0].to_string();
        assert!(fault.starts_with("line 2, column "), "{fault}");
        let message = "other.org is not associated with this Tailnet";
        assert!(
            fault.contains(message) && fault.contains("example.com"),
            "{fault}"
        );
    }
}

#[test]
fn failed_tests_say_what_is_missing_and_what_to_do() {
    let mut directory = home();
    directory.nodes.retain(|node| node.id != id(4));
    for (test, what) in [
        (
            r#"{"src": "dora@", "accept": ["*:1"]}"#,
            "no user is called \"dora@\"",
        ),
        (
            r#"{"src": "cleo@", "accept": ["*:1"]}"#,
            "user \"cleo@\" has no devices",
        ),
        (
            r#"{"src": "anna@", "accept": ["tag:other:1"]}"#,
            "no device has \"tag:other\"",
        ),
    ] {
        let policy = policy(&format!("\"tests\": [{test}]"));
        let faults = Compiled::compile(&policy, &directory).check().unwrap_err();
        assert!(faults[1].message.contains(what), "{faults:?}");
    }
    let tests = r#"{"src": "anna@", "accept": ["10.9.9.9:1"]},"#.repeat(4000);
    let closed = compiled(&format!("\"acls\": [], \"tests\": [{tests}]"));
    let faults = closed.check().unwrap_err();
    assert_eq!(faults.len(), 102);
    assert_eq!(faults[101].message, "and 3900 more failed assertions");
}
