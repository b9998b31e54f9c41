//! Which node, route and end a person means, and what the command line says of it.

use super::*;

#[test]
fn a_node_is_found_by_name_in_any_case_full_name_id_and_address() {
    let server = Server::start();
    server.good("users create anna");
    let add = "nodes add-wireguard berlin --ip 100.99.0.7 --endpoint 203.0.113.5:51820 --key";
    server.good(&format!("{add} {WIREGUARD_KEY}"));
    for which in [
        "berlin",
        "Berlin",
        "1",
        "01",
        "100.99.0.7",
        "berlin.hearth.internal",
    ] {
        let card = server.good(&format!("nodes show {which}"));
        assert!(card.contains("100.99.0.7"), "{which}: {card}");
    }
    for number in ["13", "1", "007"] {
        let said = server.refused(&format!("nodes rename berlin {number}"));
        assert!(said.contains("not digits only"), "{said}");
    }
    let said = server.refused("dns add Berlin 192.168.1.20");
    assert!(said.contains("is already the name of node 1"), "{said}");
    server.good("nodes tag berlin -t tag:a,tag:b");
    let list = server.good("nodes list --tags");
    assert!(
        list.contains("Tags") && list.contains("tag:a, tag:b"),
        "{list}"
    );
}

#[test]
fn approving_routes_says_what_is_not_offered_and_what_is_approved_no_longer() {
    let server = Server::start();
    server.good("users create anna");
    let add = "nodes add-wireguard nas --routes 10.1.0.0/16,10.2.0.0/16 --endpoint 203.0.113.5:51820 --key";
    server.good(&format!("{add} {WIREGUARD_KEY}"));
    let said = server.good("nodes approve-routes nas -r 10.0.0.0/8");
    assert!(said.contains("not offered by nas: 10.0.0.0/8"), "{said}");
    assert!(
        said.contains("no longer: 10.1.0.0/16, 10.2.0.0/16"),
        "{said}"
    );
    let said = server.good("nodes approve-routes nas --add -r 10.1.0.0/16");
    assert!(
        said.contains("approved routes of nas: 10.0.0.0/8, 10.1.0.0/16\n"),
        "{said}"
    );
    assert!(!said.contains("no longer"), "{said}");
    let said = server.good("nodes approve-routes nas --all-offered");
    assert!(
        said.contains("10.0.0.0/8, 10.1.0.0/16, 10.2.0.0/16\n"),
        "{said}"
    );
    let said = server.good("nodes approve-routes nas -r 10.1.0.0/16,10.2.0.0/16");
    assert!(!said.contains("not offered"), "{said}");
}

#[test]
fn ends_are_words_dates_and_durations_that_make_sense() {
    let server = Server::start();
    server.good("users create anna");
    let made = |end: &str| {
        let key = server.good(&format!("preauthkeys create -u anna -e {end} -o json"));
        json(&key)["expiration"].clone()
    };
    assert_eq!(made("never"), serde_json::Value::Null);
    assert_eq!(made("0"), serde_json::Value::Null);
    assert_eq!(made("2999-01-31"), "2999-01-31T23:59:59Z");
    assert!(made("100y").as_str().unwrap() > "2120");
    for line in [
        "preauthkeys create -u anna -e 9999y",
        "apikeys create -e 99999y",
        "users set-expiry anna 9999y",
    ] {
        let output = server.hearth(line);
        let said = words(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{line}: {said}");
        assert!(
            said.contains("to set no end, use `never`"),
            "{line}: {said}"
        );
    }
    server.good("users set-expiry anna never");
    server.good("preauthkeys create -u anna --tags tag:web");
    let list = server.good("preauthkeys list");
    let row = list.lines().find(|line| line.contains("tag:web")).unwrap();
    assert!(
        row.contains("anna"),
        "a key with a user has tags, too: {list}"
    );
}

#[test]
fn check_refuses_a_public_url_without_tls() {
    let check = |url: &str| {
        let line = format!("check --config /dev/null --server-url {url}");
        let output = hearth(Path::new("/s"), &line);
        (output.status.code(), words(&output.stdout))
    };
    for url in ["http://203.0.113.5:8080", "http://hearth.example.org"] {
        let (code, said) = check(url);
        assert_eq!(code, Some(1), "{url}: {said}");
        assert!(
            said.contains("plain HTTP with a public host"),
            "{url}: {said}"
        );
    }
    for url in ["http://192.168.1.1:8080", "https://hearth.example.org"] {
        let (_, said) = check(url);
        assert!(!said.contains("plain HTTP"), "{url}: {said}");
    }
}
