//! The API as its clients see it: requests in, responses of a real engine out.

mod lifecycle;
mod parameters;
mod policy;
mod scopes;
mod wan;

use crate::system_clock;
use std::sync::Arc;

use http_body_util::{BodyExt as _, Full};
use serde_json::json;

use super::*;
use crate::api::BoardStatus;
use crate::backup::whole::Source;
use crate::engine::Engine;
use crate::routes::answer_api;
use crate::status::addresses::{Addresses, CurrentUrl};
use crate::status::http_counters::HttpCounters;
use crate::store::{Disk, Loaded, Mood, Store};
use bytes::Bytes;
use hearth_core::keys::{MachineKey, NodeKey};
use hearth_core::netmap::DnsSources;
use hearth_core::state::command::{Register, RegisterReply, RequestedExpiry};
use hearth_core::state::dns::{DnsRecord, DnsSettings};
use hearth_core::state::model::{Hostinfo, Settings};
use hearth_core::state::secret::new_auth_id;
use hearth_core::state::testing::settings;
use hearth_core::tailcfg::derpmap::DerpMap;
use hyper::Request;
use serde_json::Value;

struct Server {
    admin: AdminContext,
    counters: HttpCounters,
    engine: Option<Engine>,
    _directory: tempfile::TempDir,
}

fn network() -> Origin {
    Origin::Network {
        source: ([192, 0, 2, 1], 1234).into(),
        tls: true,
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(engine) = self.engine.take() {
            engine.stop();
        }
    }
}

fn server() -> Server {
    let directory = tempfile::tempdir().unwrap();
    let opened = Store::open(directory.path(), 1 << 20).unwrap();
    server_with(directory, opened)
}

fn server_with(directory: tempfile::TempDir, (store, loaded): (Store, Loaded)) -> Server {
    let settings = Settings {
        max_users: 3,
        ..settings()
    };
    let (engine, handle) = Engine::start(store, loaded, settings, 16, 16).unwrap();
    let server_url = CurrentUrl::new("http://192.168.1.1:8080".parse().unwrap());
    let of_configuration = DnsRecord::parse("a.example", "A", "10.0.0.1").unwrap();
    let dns = DnsSettings {
        records: vec![of_configuration],
        ..DnsSettings::default()
    };
    let tailnet = SharedMapData::new("hearth.internal".into(), &DerpMap::default());
    let tailnet = tailnet.with_dns(DnsSources {
        settings: Arc::new(dns),
        ..DnsSources::default()
    });
    let limits = Limits::default();
    let source = Source {
        data_dir: directory.path().to_owned(),
        server_url: String::new(),
        settings: Vec::new(),
        recipients: Vec::new(),
    };
    let keys = ("mkey:00".to_owned(), "nodekey:00".to_owned());
    let backups = Backups::new(
        handle.clone(),
        source,
        server_url.clone(),
        keys,
        directory.path(),
    );
    let about = ServerInfo {
        addresses: Addresses {
            server_url: server_url.clone(),
            http: "[::]:8080".parse().ok(),
            https: None,
            stun: None,
            socket: "/s".into(),
        },
        base_domain: "hearth.internal".into(),
        tailnet: watch::channel(Arc::new(tailnet)).1,
        opening: None,
        is_closed: false,
        warnings: vec!["a warning".into()],
        board: BoardStatus::default(),
        policy_status: watch::channel(PolicyStatus::default()).1,
        wan: wan::wan_status(),
        public_url: wan::public_url(None),
        dropped_upgrades: Arc::default(),
        served: wan::served(directory.path()),
        certificate_is_own: true,
        memory_budget: Some(1 << 30),
        copies: watch::channel(CopyStatus::default()).1,
        relay: Metrics {
            relay: None,
            stun: hearth_derp::udp::StunCounters::default(),
            http: None,
            states: None,
        },
        proxies: Arc::default(),
    };
    Server {
        admin: AdminContext {
            engine: handle,
            calls: Arc::new(NodeCalls::new(server_url, &limits)),
            reports: Arc::new(ClientReports::new(limits.audit_entries)),
            ssh_checks: Arc::new(SshChecks::new(limits.ssh_checks)),
            backups: Arc::new(backups),
            limits,
            about,
            policy_lock: Mutex::default(),
            gate: ApiKeyGate::default(),
        },
        counters: HttpCounters::new(std::iter::empty()),
        engine: Some(engine),
        _directory: directory,
    }
}

impl Server {
    async fn raw(&self, origin: Origin, request: Request<Full<Bytes>>) -> (StatusCode, Bytes) {
        let answer = answer_api(&self.admin, &self.counters, origin, request).await;
        let status = answer.status();
        (
            status,
            answer.into_body().collect().await.unwrap().to_bytes(),
        )
    }

    async fn ask(&self, method: &str, path: &str, body: Value) -> (StatusCode, Value) {
        let body = match body {
            Value::Null => Bytes::new(),
            body => body.to_string().into(),
        };
        let request = Request::builder()
            .method(method)
            .uri(format!("/api/v1/{path}"))
            .body(Full::new(body))
            .unwrap();
        let (status, body) = self.raw(Origin::Local, request).await;
        (status, serde_json::from_slice(&body).unwrap())
    }

    async fn good(&self, method: &str, path: &str, body: Value) -> Value {
        let (status, answer) = self.ask(method, path, body).await;
        assert_eq!(status, StatusCode::OK, "{method} {path}: {answer}");
        answer
    }

    async fn refused(&self, method: &str, path: &str, body: Value) -> (u16, String) {
        let (status, answer) = self.ask(method, path, body).await;
        assert!(!status.is_success(), "{method} {path}: {answer}");
        assert!(
            answer["code"].is_u64() && answer["details"] == json!([]),
            "{answer}"
        );
        (status.as_u16(), answer["message"].as_str().unwrap().into())
    }

    async fn knock(&self, name: &str) -> String {
        let number = u8::try_from(name.len()).unwrap();
        let register = Register {
            machine: MachineKey::from_bytes([number; 32]),
            source: [192, 0, 2, number].into(),
            key: NodeKey::from_bytes([number; 32]),
            lock: None,
            auth_key: None,
            expiry: RequestedExpiry::None,
            followup: None,
            ephemeral: false,
            hostinfo: Arc::new(Hostinfo {
                hostname: name.into(),
                os: "linux".into(),
                ..Hostinfo::default()
            }),
            capability: 130,
            fresh_id: new_auth_id().unwrap(),
        };
        match self.admin.engine.register(register).await.unwrap().value {
            RegisterReply::NeedsLogin(id) => id.to_string(),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn users_are_created_listed_renamed_and_deleted() {
    let server = server();
    let body = json!({"name": "anna", "displayName": "Anna", "email": "a@example.org"});
    let made = server.good("POST", "user", body.clone()).await;
    let user = &made["user"];
    assert_eq!(user["id"], "1");
    let fields: Vec<&String> = user.as_object().unwrap().keys().collect();
    assert_eq!(
        fields,
        [
            "createdAt",
            "displayName",
            "email",
            "id",
            "name",
            "nodeExpiry",
            "profilePicUrl",
            "provider",
            "providerId",
            "role"
        ]
    );
    assert_eq!(server.refused("POST", "user", body).await.0, 409);
    assert_eq!(server.refused("POST", "user", json!({})).await.0, 400);
    let renamed = server
        .good("POST", "user/1/rename/b%40c", Value::Null)
        .await;
    assert_eq!(renamed["user"]["name"], "b@c");
    for (query, count) in [
        ("", 1),
        ("?name=b%40c", 1),
        ("?name=x", 0),
        ("?email=a@example.org", 1),
        ("?id=1", 1),
        ("?id=2", 0),
        ("?id=0", 1),
    ] {
        let list = server
            .good("GET", &format!("user{query}"), Value::Null)
            .await;
        assert_eq!(list["users"].as_array().unwrap().len(), count, "{query}");
    }
    assert_eq!(server.refused("GET", "user?id=x", Value::Null).await.0, 400);
    assert_eq!(
        server.good("DELETE", "user/1", Value::Null).await,
        json!({})
    );
    assert_eq!(
        server.refused("DELETE", "user/1", Value::Null).await,
        (404, "user not found".into())
    );
}

#[tokio::test]
async fn the_text_of_preauth_keys_is_shown_once() {
    let server = server();
    server.good("POST", "user", json!({"name": "anna"})).await;
    let body = json!({"user": "1", "reusable": true, "expiration": "2999-01-01T00:00:00Z"});
    let made = server.good("POST", "preauthkey", body).await;
    let text = made["preAuthKey"]["key"].as_str().unwrap().to_owned();
    assert!(
        text.starts_with("hskey-auth-") && text.len() == 88,
        "{text}"
    );
    assert_eq!(made["preAuthKey"]["user"]["name"], "anna");
    let list = server.good("GET", "preauthkey", Value::Null).await;
    let key = &list["preAuthKeys"][0];
    assert_eq!(key["key"], format!("{}-***", &text[..23]));
    assert_eq!(key["aclTags"], json!([]));
    assert_eq!(key["expiration"], "2999-01-01T00:00:00Z");
    server
        .good("POST", "preauthkey/expire", json!({"id": 1}))
        .await;
    server.good("DELETE", "preauthkey?id=1", Value::Null).await;
    assert_eq!(
        server
            .refused("DELETE", "preauthkey?id=1", Value::Null)
            .await
            .0,
        404
    );
    assert_eq!(server.refused("POST", "preauthkey", json!({})).await.0, 400);
    let past = json!({"user": "1", "expiration": "2001-01-01T00:00:00Z"});
    assert_eq!(server.refused("POST", "preauthkey", past).await.0, 400);
    let tagged = json!({"aclTags": ["tag:web"], "expiration": "9999-12-31T23:59:59Z"});
    let made = server.good("POST", "preauthkey", tagged).await;
    assert_eq!(made["preAuthKey"]["user"], Value::Null);
    assert_eq!(made["preAuthKey"]["expiration"], Value::Null);
}

#[tokio::test]
async fn an_api_key_is_valid_until_it_is_deleted() {
    let server = server();
    let made = server.good("POST", "apikey", Value::Null).await;
    let key = made["apiKey"].as_str().unwrap().to_owned();
    let ask = async |key: &str| {
        let request = Request::builder()
            .uri("/api/v1/user")
            .header("Authorization", format!("Bearer {key}"))
            .body(Full::default())
            .unwrap();
        server.raw(network(), request).await
    };
    assert_eq!(ask(&key).await.0, StatusCode::OK);
    assert_eq!(
        ask("hskey-api-x").await,
        (StatusCode::UNAUTHORIZED, "Unauthorized".into())
    );
    let list = server.good("GET", "apikey", Value::Null).await;
    let prefix = list["apiKeys"][0]["prefix"].as_str().unwrap().to_owned();
    assert_eq!(prefix, format!("{}-***", &key[..22]));
    assert_eq!(list["apiKeys"][0]["lastSeen"], Value::Null);
    assert_eq!(
        server.refused("DELETE", "apikey/", Value::Null).await.0,
        400
    );
    let both = json!({"id": "1", "prefix": "x"});
    assert_eq!(server.refused("POST", "apikey/expire", both).await.0, 400);
    let path = format!("apikey/{}", &key[10..22]);
    server.good("DELETE", &path, Value::Null).await;
    assert_eq!(ask(&key).await.0, StatusCode::UNAUTHORIZED);
    server.good("POST", "apikey", json!({})).await;
    server
        .good("POST", "apikey/expire", json!({"id": "2"}))
        .await;
    server.good("DELETE", "apikey/?id=2", Value::Null).await;
}

#[tokio::test]
async fn an_approved_registration_becomes_a_node() {
    let server = server();
    server.good("POST", "user", json!({"name": "anna"})).await;
    let id = server.knock("laptop").await;
    let list = server.good("GET", "hearth/pending", Value::Null).await;
    assert_eq!(list["pending"][0]["authId"], id);
    assert_eq!(list["pending"][0]["state"], "waiting");
    let body = json!({"user": "nobody", "authId": id});
    assert_eq!(server.refused("POST", "auth/register", body).await.0, 404);
    let body = json!({"user": "anna", "authId": id});
    let node = server.good("POST", "auth/register", body.clone()).await["node"].clone();
    assert_eq!(node["givenName"], "laptop");
    assert_eq!(node["registerMethod"], "REGISTER_METHOD_CLI");
    assert_eq!(node["user"]["name"], "anna");
    assert_eq!(node["preAuthKey"], Value::Null);
    assert_eq!(node["tags"], json!([]));
    assert_eq!(server.refused("POST", "auth/register", body).await.0, 400);

    let listed = server.good("GET", "node?user=anna", Value::Null).await;
    assert_eq!(
        listed["nodes"][0],
        server.good("GET", "node/1", Value::Null).await["node"]
    );
    assert_eq!(
        server.refused("GET", "node?user=bob", Value::Null).await.0,
        404
    );
    assert_eq!(
        server.refused("DELETE", "user/1", Value::Null).await.0,
        400,
        "a user with nodes stays"
    );
    let renamed = server.good("POST", "node/1/rename/nas", Value::Null).await;
    assert_eq!(renamed["node"]["givenName"], "nas");
    let never = json!({"disableExpiry": true});
    let kept = server.good("POST", "node/1/expire", never).await;
    assert_eq!(kept["node"]["expiry"], Value::Null);
    let at = json!({"expiry": "2999-01-01T00:00:00Z"});
    let later = server.good("POST", "node/1/expire", at).await;
    assert_eq!(later["node"]["expiry"], "2999-01-01T00:00:00Z");
    let now = server.good("POST", "node/1/expire", Value::Null).await;
    assert!(now["node"]["expiry"].as_str().unwrap() < "2999");
    assert_eq!(
        server.good("DELETE", "node/1", Value::Null).await,
        json!({})
    );
    for (method, path) in [("GET", "node/1"), ("DELETE", "node/1")] {
        let refused = server.refused(method, path, Value::Null).await;
        assert_eq!(refused, (404, "node not found".into()));
    }
    assert_eq!(server.refused("GET", "node/x", Value::Null).await.0, 400);
}

#[tokio::test]
async fn a_registration_is_rejected_or_approved_for_the_only_user() {
    let server = server();
    server.good("POST", "user", json!({"name": "anna"})).await;
    let id = server.knock("a").await;
    server
        .good("POST", "auth/reject", json!({"authId": id}))
        .await;
    let list = server.good("GET", "hearth/pending", Value::Null).await;
    assert_eq!(list["pending"][0]["state"], "rejected");
    let id = server.knock("ab").await;
    server
        .good("POST", "auth/approve", json!({"authId": id}))
        .await;
    let id = server.knock("abc").await;
    let path = format!("node/register?user=anna&key={id}");
    server.good("POST", &path, Value::Null).await;
    for id in ["", "a b", "unknown"] {
        let refused = server
            .refused("POST", "auth/reject", json!({"authId": id}))
            .await;
        assert!(matches!(refused.0, 400 | 404), "{refused:?}");
    }
}

#[tokio::test]
async fn an_invitation_creates_the_first_user_and_shows_the_command() {
    let server = server();
    let invite = server.good("POST", "hearth/invite", Value::Null).await;
    assert_eq!(invite["user"]["name"], "home");
    let key = invite["key"].as_str().unwrap();
    assert_eq!(
        invite["command"],
        format!("tailscale login --login-server=http://192.168.1.1:8080 --auth-key={key}")
    );
    assert_eq!(
        invite["joinUrl"],
        format!("http://192.168.1.1:8080/join#{key}")
    );
    let rows = crate::qr::rows(invite["joinUrl"].as_str().unwrap()).unwrap();
    assert_eq!(invite["qr"], json!(rows), "the code is that of the page");
    let again = server.good("POST", "hearth/invite", json!({})).await;
    assert_eq!(again["user"]["id"], invite["user"]["id"]);
    server.good("POST", "user", json!({"name": "anna"})).await;
    let (status, message) = server.refused("POST", "hearth/invite", Value::Null).await;
    assert_eq!(
        (status, message.as_str()),
        (400, "missing user: choose one of home (1), anna (2)")
    );
    let named = server
        .good("POST", "hearth/invite", json!({"user": "2"}))
        .await;
    assert_eq!(named["user"]["name"], "anna");
}

#[tokio::test]
async fn the_status_counts_and_the_server_is_healthy() {
    let server = server();
    server.knock("a").await;
    let status = server.good("GET", "hearth/status", Value::Null).await;
    assert_eq!(
        (&status["pending"], &status["nodes"]),
        (&json!(1), &json!(0))
    );
    assert_eq!(status["warnings"], json!(["a warning"]));
    let health = server.good("GET", "health", Value::Null).await;
    assert_eq!(health, json!({"databaseConnectivity": true}));
}

#[tokio::test]
async fn a_server_that_cannot_write_says_why_and_since_when() {
    let (directory, disk) = (tempfile::tempdir().unwrap(), Disk::default());
    let opened = Store::failing(directory.path(), disk.clone());
    let server = server_with(directory, opened);
    server.good("POST", "user", json!({"name": "anna"})).await;
    disk.set(Mood::Fails);
    let new = json!({"name": "ben"});
    let (status, refused) = server.ask("POST", "user", new).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    let text = refused["message"].as_str().unwrap();
    for part in ["nothing was changed", "no space left", "`df -h`"] {
        assert!(text.contains(part), "{text}");
    }
    let status = server.good("GET", "hearth/status", Value::Null).await;
    assert_eq!(status["databaseIsWritable"], json!(false));
    let fault = &status["databaseFault"];
    assert_eq!(fault["cause"], json!("full"));
    let since = fault["since"].as_str().unwrap();
    let (status, health) = server.ask("GET", "health", Value::Null).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    let text = health["message"].as_str().unwrap();
    assert!(
        text.contains(since) && text.contains("no space left"),
        "{text}"
    );
    // A service manager must not restart it.
    let alive = server.good("GET", "health?alive=true", Value::Null).await;
    assert_eq!(alive, json!({"databaseConnectivity": false}));
    let public = server.admin.database_fault().unwrap();
    assert!(public.contains(since), "{public}");
    let found = server.good("GET", "hearth/doctor", Value::Null).await;
    let findings = found["findings"].as_array().unwrap();
    let found = findings.iter().find(|found| found["id"] == "database");
    assert_eq!(found.unwrap()["level"], "problem");
    disk.set(Mood::Works);
}

#[tokio::test]
async fn unknown_paths_and_other_methods_are_refused() {
    let server = server();
    for (method, path, status) in [
        ("GET", "nothing", 404),
        ("PATCH", "user", 405),
        ("GET", "", 404),
    ] {
        assert_eq!(
            server.refused(method, path, Value::Null).await.0,
            status,
            "{path}"
        );
    }
}

#[tokio::test]
async fn bodies_that_are_too_long_or_not_json_are_refused() {
    let server = server();
    let ask = async |body: Vec<u8>| {
        let request = Request::post("/api/v1/user").body(Full::new(body.into()));
        server.raw(Origin::Local, request.unwrap()).await.0
    };
    let too_long = Limits::default().admin_body + 1;
    assert_eq!(
        ask(vec![b' '; too_long]).await,
        StatusCode::PAYLOAD_TOO_LARGE
    );
    for body in ["{", "[]", "{\"name\": 1}", "\u{fffd}"] {
        assert_eq!(ask(body.into()).await, StatusCode::BAD_REQUEST, "{body}");
    }
}

#[tokio::test]
async fn the_limit_of_users_is_kept() {
    let server = server();
    for name in ["a", "b", "c"] {
        server.good("POST", "user", json!({"name": name})).await;
    }
    let refused = server.refused("POST", "user", json!({"name": "d"})).await;
    assert_eq!(refused.0, 429);
}

#[tokio::test]
async fn dns_records_are_added_listed_and_removed() {
    let server = server();
    let path = "dns/records";
    let body = json!({"name": "Printer", "value": "192.168.1.20"});
    let made = server.good("POST", path, body.clone()).await;
    let printer = json!({
        "name": "printer.hearth.internal", "type": "A", "value": "192.168.1.20",
        "addresses": ["192.168.1.20"], "source": "api",
    });
    assert_eq!(made["record"], printer);
    assert_eq!(server.refused("POST", path, body).await.0, 409);
    let alias = json!({"name": "printer", "type": "ALIAS", "value": "nobody"});
    let made = server.good("POST", path, alias).await;
    assert_eq!(made["record"]["addresses"], json!([]));
    let slip = json!({"name": "x", "type": "TXT", "value": "y"});
    let (status, message) = server.refused("POST", path, slip).await;
    assert!(status == 400 && message.contains("TXT"), "{message}");
    let list = server.good("GET", path, Value::Null).await;
    let sources = list["records"].as_array().unwrap().iter();
    let sources: Vec<_> = sources.map(|record| record["source"].clone()).collect();
    assert_eq!(sources, ["configuration", "api", "api"]);
    let gone = server
        .good(
            "DELETE",
            "dns/records?name=printer.hearth.internal&type=a",
            Value::Null,
        )
        .await;
    assert_eq!(gone["records"], json!([printer]));
    let gone = server
        .good("DELETE", "dns/records?name=printer", Value::Null)
        .await;
    assert_eq!(gone["records"].as_array().unwrap().len(), 1);
    for (query, status) in [("name=printer", 404), ("name=a.example", 404), ("", 400)] {
        let path = format!("dns/records?{query}");
        let refused = server.refused("DELETE", &path, Value::Null).await;
        assert_eq!(refused.0, status, "{query}");
    }
}

/// A connected node, with the receiving end of its mailbox.
async fn node_with_stream(server: &Server) -> crate::control::c2n::mailbox::Inbox {
    server.good("POST", "user", json!({"name": "anna"})).await;
    let id = server.knock("laptop").await;
    let body = json!({"user": "anna", "authId": id});
    server.good("POST", "auth/register", body).await;
    let inboxes = &server.admin.calls.mailboxes;
    inboxes.open(NodeId::FIRST, hearth_core::state::model::SessionId(1))
}

/// The ping request in a message.
async fn request_in(inbox: &mut crate::control::c2n::mailbox::Inbox) -> Value {
    let message: Value = serde_json::from_str(&inbox.next().await).unwrap();
    assert_eq!(message["KeepAlive"], true);
    message["PingRequest"].clone()
}

fn call_in(request: &Value) -> String {
    let url = request["URL"].as_str().unwrap();
    url.rsplit(['/', '=']).next().unwrap().to_owned()
}

#[tokio::test]
async fn a_request_reaches_the_node_and_its_response_is_returned() {
    use crate::control::c2n::calls::ReplyChannel;
    let server = server();
    let mut inbox = node_with_stream(&server).await;
    let machine = ReplyChannel::Noise(MachineKey::from_bytes([6; 32]));
    let calls = &server.admin.calls.pending;
    let answer = |request: &Value, channel, answer| {
        let claim = calls.claim(&call_in(request), channel);
        claim.is_some_and(|claim| claim.give(answer))
    };
    let node = async {
        let request = request_in(&mut inbox).await;
        assert_eq!(request["Types"], "c2n");
        assert_eq!(request["URLIsNoise"], true);
        let text = &b"HTTP/1.1 418 X\r\nContent-Type: text/x\r\n\r\nno"[..];
        assert!(answer(&request, machine, Bytes::from_static(text)));
        let request = request_in(&mut inbox).await;
        assert_eq!(request["Types"], "disco,TSMP");
        assert_eq!(request["IP"], "100.64.0.9");
        for kind in ["disco", "TSMP"] {
            let result = json!({"Type": kind}).to_string();
            assert!(answer(&request, machine, result.into()));
        }
        let request = request_in(&mut inbox).await;
        assert!(
            request["URL"]
                .as_str()
                .unwrap()
                .starts_with("http://192.168.1.1:8080/machine/ping-response?id=")
        );
        assert!(answer(&request, ReplyChannel::Plain, Bytes::new()));
    };
    let admin = async {
        let asked = server
            .good("POST", "node/1/c2n", json!({"path": "/x"}))
            .await;
        let expected = json!({"status": 418, "contentType": "text/x", "body": "no"});
        assert_eq!(asked, expected);
        let body = json!({"target": "100.64.0.9", "types": ["disco", "TSMP"]});
        let pinged = server.good("POST", "node/1/ping", body).await;
        assert_eq!(
            pinged["pings"],
            json!([{"Type": "disco"}, {"Type": "TSMP"}])
        );
        let reached = server.good("POST", "node/1/ping", Value::Null).await;
        assert!(reached["reachedAfterSeconds"].is_f64());
    };
    tokio::join!(node, admin);
}

#[tokio::test(start_paused = true)]
async fn a_request_to_a_node_without_a_stream_fails_at_once() {
    let server = server();
    let inbox = node_with_stream(&server).await;
    let ask = |body: Value| server.refused("POST", "node/1/c2n", body);
    let (status, fault) = ask(json!({"path": "/x"})).await;
    assert_eq!(
        (status, fault.as_str()),
        (504, "the node did not reply within 20 s")
    );
    for body in [
        json!({}),
        json!({"path": "/a b"}),
        json!({"path": "/", "method": "get"}),
    ] {
        assert_eq!(ask(body).await.0, 400);
    }
    let body = json!({"target": "nowhere"});
    assert_eq!(server.refused("POST", "node/1/ping", body).await.0, 400);
    let body = json!({"target": "1", "types": ["smoke"]});
    assert_eq!(server.refused("POST", "node/1/ping", body).await.0, 400);
    for url in ["", "javascript:alert(1)", "https://a b"] {
        let body = json!({"url": url});
        assert_eq!(server.refused("POST", "node/1/open", body).await.0, 400);
    }
    drop(inbox);
    let (status, fault) = ask(json!({"path": "/x"})).await;
    assert_eq!((status, fault.as_str()), (400, "the node is not connected"));
    assert_eq!(
        server
            .refused("POST", "node/2/c2n", json!({"path": "/x"}))
            .await
            .0,
        404
    );
}

#[tokio::test]
async fn ssh_connections_are_decided_in_both_ways() {
    use crate::status::ssh_checks::SshAttempt;
    use hearth_core::id::NodeId;
    let server = server();
    let _inbox = node_with_stream(&server).await;
    let checks = &server.admin.ssh_checks;
    let begin = || {
        let id = new_auth_id().unwrap();
        let attempt = SshAttempt {
            source: NodeId::FIRST,
            target: NodeId::FIRST,
            local_user: "root".into(),
        };
        checks.begin(id.clone(), attempt, system_clock::now());
        id.to_string()
    };
    let (first, second) = (begin(), begin());
    let body = json!({"id": first});
    server
        .good("POST", "hearth/ssh/approve", body.clone())
        .await;
    assert_eq!(
        server.refused("POST", "hearth/ssh/reject", body).await.0,
        400
    );
    server
        .good("POST", "auth/reject", json!({"authId": second}))
        .await;
    let list = server.good("GET", "hearth/ssh", Value::Null).await;
    let states: Vec<_> = [0, 1]
        .map(|place| list["checks"][place]["state"].clone())
        .into();
    assert_eq!(states, ["approved", "rejected"]);
    assert_eq!(list["checks"][0]["localUser"], "root");
    assert_eq!(list["checks"][0]["source"], "laptop");
    let unknown = json!({"id": "x"});
    assert_eq!(
        server
            .refused("POST", "hearth/ssh/approve", unknown)
            .await
            .0,
        404
    );
}

#[tokio::test]
async fn attributes_and_health_are_shown() {
    let server = server();
    let _inbox = node_with_stream(&server).await;
    let body = json!({"attributes": {"custom:a": "x", "custom:n": 5, "custom:f": false}});
    let set = server.good("POST", "node/1/attributes", body.clone()).await;
    assert_eq!(set, body);
    let body = json!({"attributes": {"custom:a": null}});
    server.good("POST", "node/1/attributes", body).await;
    let left = server.good("GET", "node/1/attributes", Value::Null).await;
    assert_eq!(
        left,
        json!({"attributes": {"custom:n": 5, "custom:f": false}})
    );
    let body = json!({"attributes": {"custom:a": 1.5}});
    assert_eq!(
        server.refused("POST", "node/1/attributes", body).await.0,
        400
    );
    let reports = &server.admin.reports;
    reports.set_health(NodeId::FIRST, "dns", "none");
    reports.audit(system_clock::now(), NodeId::FIRST, "X", "why");
    let node = server.good("GET", "node/1", Value::Null).await;
    assert_eq!(node["node"]["health"], json!(["dns: none"]));
    let audit = server.good("GET", "hearth/audit", Value::Null).await;
    assert_eq!(audit["reports"][0]["node"], "laptop");
}

#[tokio::test]
async fn the_status_names_an_alias_that_means_no_device_yet() {
    let mut server = server();
    drop(node_with_stream(&server).await);
    let dns = DnsSettings {
        records: vec![DnsRecord::parse("git", "", "laptop").unwrap()],
        ..DnsSettings::default()
    };
    let tailnet = SharedMapData::new("hearth.internal".into(), &DerpMap::default());
    let tailnet = tailnet.with_dns(DnsSources {
        settings: Arc::new(dns),
        ..DnsSources::default()
    });
    server.admin.about.tailnet = watch::channel(Arc::new(tailnet)).1;
    let named = |status: &Value| status["warnings"].to_string().contains("the alias git");
    let status = server.good("GET", "hearth/status", Value::Null).await;
    assert!(named(&status), "{status}");
    assert!(
        status["warnings"]
            .to_string()
            .contains("`hearth nodes rename -i 1 laptop`")
    );
    server
        .good("POST", "node/1/rename/laptop", Value::Null)
        .await;
    let status = server.good("GET", "hearth/status", Value::Null).await;
    assert!(!named(&status), "{status}");
}
