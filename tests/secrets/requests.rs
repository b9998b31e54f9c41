//! Every route, as its clients ask for it.

use std::collections::BTreeSet;

use hearth::routes::route::Access;
use hearth::routes::table::ROUTES;

use crate::device::Devices;
use crate::secret::{Answers, Secrets, keys_in};
use crate::server::{Auth, Server, http};

/// The audit log, as long as one answer may be.
pub const AUDIT: &str = "/api/v1/hearth/audit?limit=1000";

/// Routes that the devices use all the time.
const BY_DEVICES: &[&str] = &[
    "any /ts2021",
    "HEAD /machine/ping-response",
    "POST /machine/register",
    "POST /machine/map",
    "POST /machine/c2n/{call}",
];

/// Method, route, path (empty: the route itself) and body, in an order in which they succeed. In the body of a request
/// of a device `{node_key}` is its key.
const REQUESTS: &[(&str, &str, &str, &str)] = &[
    ("GET, HEAD", "/key", "/key?v=130", ""),
    ("any", "/derp", "", ""),
    ("GET, HEAD", "/derp/probe", "", ""),
    ("GET, HEAD", "/derp/latency-check", "", ""),
    (
        "POST",
        "/verify",
        "",
        r#"{"NodePublic": "nodekey:0101010101010101010101010101010101010101010101010101010101010101"}"#,
    ),
    ("GET, HEAD", "/generate_204", "", ""),
    (
        "GET, HEAD",
        "/bootstrap-dns",
        "/bootstrap-dns?q=localhost",
        "",
    ),
    ("GET, HEAD", "/robots.txt", "", ""),
    ("GET, HEAD", "/version", "", ""),
    ("GET, HEAD", "/health", "", ""),
    ("GET", "/metrics", "", ""),
    ("GET, HEAD", "/", "", ""),
    ("GET, HEAD", "/join", "", ""),
    ("GET, HEAD", "/join/", "", ""),
    ("GET, HEAD", "/apple", "", ""),
    ("GET, HEAD", "/apple/{variant}", "/apple/ios", ""),
    ("GET, HEAD", "/windows", "", ""),
    ("GET, HEAD", "/register/{id}", "/register/{pending}", ""),
    (
        "POST",
        "/register/{id}",
        "/register/{pending}",
        "key={preauth}",
    ),
    ("GET, HEAD", "/ssh/{id}", "/ssh/{ssh}", ""),
    ("GET, HEAD", "/openapi.json", "", ""),
    (
        "POST",
        "/machine/update-health",
        "",
        r#"{"NodeKey": "{node_key}", "Subsys": "dns", "Error": "slow"}"#,
    ),
    (
        "POST",
        "/machine/audit-log",
        "",
        r#"{"NodeKey": "{node_key}", "Action": "DISCONNECT", "Details": "why"}"#,
    ),
    (
        "PATCH",
        "/machine/set-device-attr",
        "",
        r#"{"NodeKey": "{node_key}", "Update": {"custom:b": "c"}}"#,
    ),
    (
        "POST",
        "/machine/feature/query",
        "",
        r#"{"NodeKey": "{node_key}", "Feature": "serve"}"#,
    ),
    (
        "POST",
        "/machine/set-dns",
        "",
        r#"{"NodeKey": "{node_key}", "Name": "a", "Type": "TXT", "Value": "b"}"#,
    ),
    (
        "POST",
        "/machine/id-token",
        "",
        r#"{"NodeKey": "{node_key}", "Audience": "a"}"#,
    ),
    (
        "POST",
        "/machine/ssh/notify",
        "",
        r#"{"NodeKey": "{node_key}", "EventType": 1, "SrcNode": 1, "LocalUser": "root"}"#,
    ),
    (
        "GET",
        "/machine/ssh/action/{*nodes}",
        "/machine/ssh/action/1/to/2?local_user=root&auth_id={decided}",
        "",
    ),
    ("GET", "/machine/whoami", "", ""),
    ("any", "/machine/tka/{*rest}", "/machine/tka/init/begin", ""),
    (
        "any",
        "/machine/webclient/{*rest}",
        "/machine/webclient/action",
        "",
    ),
    ("GET", "/api/v1/health", "", ""),
    ("POST", "/api/v1/user", "", r#"{"name": "rest"}"#),
    ("GET", "/api/v1/user", "", ""),
    (
        "POST",
        "/api/v1/user/{id}/rename/{name}",
        "/api/v1/user/2/rename/soap",
        "",
    ),
    (
        "POST",
        "/api/v1/user/{id}/role",
        "/api/v1/user/2/role",
        r#"{"role": "admin"}"#,
    ),
    (
        "POST",
        "/api/v1/user/{id}/expiry",
        "/api/v1/user/2/expiry",
        r#"{"expiry": "90d"}"#,
    ),
    (
        "POST",
        "/api/v1/preauthkey",
        "",
        r#"{"user": "1", "reusable": true}"#,
    ),
    ("GET", "/api/v1/preauthkey", "", ""),
    ("POST", "/api/v1/preauthkey/expire", "", r#"{"id": "2"}"#),
    (
        "DELETE",
        "/api/v1/preauthkey",
        "/api/v1/preauthkey?id=2",
        "",
    ),
    (
        "POST",
        "/api/v1/apikey",
        "",
        r#"{"scopes": ["devices:core:read"]}"#,
    ),
    ("GET", "/api/v1/apikey", "", ""),
    ("POST", "/api/v1/apikey/expire", "", r#"{"id": "3"}"#),
    (
        "DELETE",
        "/api/v1/apikey/{prefix}",
        "/api/v1/apikey/?id=3",
        "",
    ),
    ("GET", "/api/v1/node", "", ""),
    (
        "POST",
        "/api/v1/node/register",
        "/api/v1/node/register?user=home&key={pending}",
        "",
    ),
    (
        "POST",
        "/api/v1/node/backfillips",
        "/api/v1/node/backfillips?confirmed=true",
        "",
    ),
    (
        "POST",
        "/api/v1/node/wireguard",
        "",
        r#"{"name": "berlin", "key": "YWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWE=", "endpoints": ["203.0.113.5:1"], "user": "home"}"#,
    ),
    ("GET", "/api/v1/node/{id}", "/api/v1/node/1", ""),
    (
        "POST",
        "/api/v1/node/{id}/expire",
        "/api/v1/node/{new}/expire",
        "{}",
    ),
    (
        "POST",
        "/api/v1/node/{id}/rename/{name}",
        "/api/v1/node/{new}/rename/paris",
        "",
    ),
    (
        "POST",
        "/api/v1/node/{id}/tags",
        "/api/v1/node/{new}/tags",
        r#"{"tags": ["tag:a"]}"#,
    ),
    (
        "POST",
        "/api/v1/node/{id}/approve_routes",
        "/api/v1/node/{new}/approve_routes",
        r#"{"routes": ["10.8.0.0/16"]}"#,
    ),
    (
        "POST",
        "/api/v1/node/{id}/user",
        "/api/v1/node/{new}/user",
        r#"{"user": "1"}"#,
    ),
    (
        "POST",
        "/api/v1/node/{id}/ip",
        "/api/v1/node/{new}/ip",
        r#"{"ipv4": "100.99.1.1"}"#,
    ),
    (
        "POST",
        "/api/v1/node/{id}/disapprove",
        "/api/v1/node/{new}/disapprove",
        "",
    ),
    (
        "POST",
        "/api/v1/node/{id}/approve",
        "/api/v1/node/{new}/approve",
        "",
    ),
    (
        "POST",
        "/api/v1/node/{id}/c2n",
        "/api/v1/node/1/c2n",
        r#"{"path": "/echo"}"#,
    ),
    (
        "POST",
        "/api/v1/node/{id}/ping",
        "/api/v1/node/1/ping",
        r#"{"target": "100.64.0.2"}"#,
    ),
    (
        "POST",
        "/api/v1/node/{id}/open",
        "/api/v1/node/1/open",
        r#"{"url": "https://example.org/"}"#,
    ),
    (
        "POST",
        "/api/v1/node/{id}/attributes",
        "/api/v1/node/1/attributes",
        r#"{"attributes": {"custom:c": 1}}"#,
    ),
    (
        "GET",
        "/api/v1/node/{id}/attributes",
        "/api/v1/node/1/attributes",
        "",
    ),
    ("DELETE", "/api/v1/node/{id}", "/api/v1/node/{new}", ""),
    (
        "POST",
        "/api/v1/auth/register",
        "",
        r#"{"user": "home", "authId": "{pending}"}"#,
    ),
    ("POST", "/api/v1/auth/approve", "", r#"{"authId": "{ssh}"}"#),
    (
        "POST",
        "/api/v1/auth/reject",
        "",
        r#"{"authId": "{pending}"}"#,
    ),
    ("GET", "/api/v1/dns/records", "", ""),
    (
        "POST",
        "/api/v1/dns/records",
        "",
        r#"{"name": "cam", "value": "192.168.1.9"}"#,
    ),
    (
        "DELETE",
        "/api/v1/dns/records",
        "/api/v1/dns/records?name=cam",
        "",
    ),
    ("GET", "/api/v1/policy", "", ""),
    ("PUT", "/api/v1/policy", "", r#"{"policy": "{policy}"}"#),
    (
        "POST",
        "/api/v1/policy/check",
        "",
        r#"{"policy": "{policy}"}"#,
    ),
    ("GET", "/api/v1/hearth/policy/history", "", ""),
    (
        "GET",
        "/api/v1/hearth/policy/history/{version}",
        "/api/v1/hearth/policy/history/1",
        "",
    ),
    (
        "POST",
        "/api/v1/hearth/policy/rollback",
        "",
        r#"{"version": "1"}"#,
    ),
    (
        "GET",
        "/api/v1/hearth/policy/why",
        "/api/v1/hearth/policy/why?src=100.64.0.1&dst=100.64.0.2&port=22&proto=tcp",
        "",
    ),
    ("GET", "/api/v1/hearth/status", "", ""),
    ("GET", "/api/v1/hearth/doctor", "", ""),
    ("GET", "/api/v1/hearth/wan", "", ""),
    ("POST", "/api/v1/hearth/wan", "", ""),
    ("GET", "/api/v1/hearth/relay", "", ""),
    ("GET", "/api/v1/hearth/pending", "", ""),
    ("GET", "/api/v1/hearth/audit", AUDIT, ""),
    ("GET", "/api/v1/hearth/backup", "", ""),
    ("GET", "/api/v1/hearth/ssh", "", ""),
    (
        "POST",
        "/api/v1/hearth/ssh/approve",
        "",
        r#"{"id": "{ssh}"}"#,
    ),
    (
        "POST",
        "/api/v1/hearth/ssh/reject",
        "",
        r#"{"id": "{ssh}"}"#,
    ),
    ("POST", "/api/v1/hearth/invite", "", r#"{"user": "home"}"#),
    (
        "GET",
        "/api/v2/tailnet/{tailnet}/acl",
        "/api/v2/tailnet/-/acl",
        "",
    ),
    (
        "POST",
        "/api/v2/tailnet/{tailnet}/acl",
        "/api/v2/tailnet/-/acl",
        "{plain_policy}",
    ),
    (
        "POST",
        "/api/v2/tailnet/{tailnet}/acl/validate",
        "/api/v2/tailnet/-/acl/validate",
        "{plain_policy}",
    ),
    (
        "POST",
        "/api/v2/tailnet/{tailnet}/acl/preview",
        "/api/v2/tailnet/-/acl/preview?type=user&previewFor=home@",
        "{plain_policy}",
    ),
    ("DELETE", "/api/v1/user/{id}", "/api/v1/user/2", ""),
];

/// Asks for all of them.
pub async fn run(
    server: &Server,
    devices: &mut Devices,
    answers: &mut Answers,
    secrets: &mut Secrets,
) {
    assert_every_route_has_a_request();
    let made = server.good("apikeys create").await;
    let key = secrets.key(answers.add("apikeys create", &made));
    let mut new = String::new();
    for (method, route, path, body) in REQUESTS {
        let path = if path.is_empty() { route } else { path };
        let mut text = format!("{path}\n{body}")
            .replace("{new}", &new)
            .replace("{node_key}", &devices.nodes[1].node_key)
            .replace("{plain_policy}", &crate::policy(7))
            .replace("{policy}", &escaped(&crate::policy(8)));
        if text.contains("{pending}") {
            text = text.replace("{pending}", &devices.pending(secrets).await);
        }
        if text.contains("{preauth}") {
            let made = server.good("preauthkeys create --user home").await;
            let made = secrets.key(answers.add("preauthkeys create", &made));
            text = text.replace("{preauth}", &made);
        }
        if text.contains("{ssh}") {
            text = text.replace("{ssh}", &devices.ssh_check(secrets).await);
        }
        if text.contains("{decided}") {
            let id = devices.ssh_check(secrets).await;
            server.good(&format!("ssh approve {id}")).await;
            text = text.replace("{decided}", &id);
        }
        let (path, body) = text.split_once('\n').unwrap();
        let name = format!("{} {route}", method.split(',').next().unwrap());
        let verb = match *method {
            "any" => "POST",
            method => method.split(',').next().unwrap(),
        };
        let access = ROUTES
            .iter()
            .find(|known| known.path == *route)
            .unwrap()
            .access;
        let (status, answer) = match access {
            Access::Noise => devices.nodes[1].request(verb, path, body).await,
            _ => {
                let (address, auth) = match access {
                    Access::Metrics => (server.metrics(), Auth::None),
                    Access::Public => (server.address, Auth::None),
                    _ => (server.address, Auth::Bearer(&key)),
                };
                let answer = http(address, verb, path, &auth, body).await;
                (answer.status, answer.body)
            }
        };
        // The answer with all private keys is for the socket: `hearth backup` asks for it.
        let is_refused = access == Access::Socket && status == 403;
        let is_asked = !matches!(status, 401 | 403 | 405 | 429 | 503);
        assert!(
            is_asked != (access == Access::Socket) && is_asked != is_refused,
            "{name}: {status} {answer}"
        );
        if matches!(access, Access::Key | Access::Scope(_)) && !route.ends_with("/expire") {
            assert_eq!(status, 200, "{name}: {answer}");
        }
        if *route == "/api/v1/node/wireguard" {
            let (_, json) = answer.split_once("\r\n\r\n").unwrap();
            let node: serde_json::Value = serde_json::from_str(json).unwrap();
            new = node["node"]["id"].as_str().unwrap().to_owned();
        }
        let made = answers.add(&name, &answer);
        if !keys_in(&answer).is_empty() {
            secrets.key(made);
        }
    }
}

fn assert_every_route_has_a_request() {
    let all = ROUTES.iter();
    let all: BTreeSet<String> = all
        .map(|route| format!("{} {}", route.verb.name(), route.path))
        .collect();
    let asked = REQUESTS
        .iter()
        .map(|(method, route, ..)| format!("{method} {route}"));
    let asked: BTreeSet<String> = asked
        .chain(BY_DEVICES.iter().map(|route| (*route).to_owned()))
        .collect();
    assert!(all.len() > 80, "{all:?}");
    assert_eq!(
        all.difference(&asked).collect::<Vec<_>>(),
        [""; 0],
        "have no request here"
    );
}

/// A text within a text of JSON.
fn escaped(text: &str) -> String {
    let quoted = serde_json::to_string(text).unwrap();
    quoted.trim_matches('"').to_owned()
}
