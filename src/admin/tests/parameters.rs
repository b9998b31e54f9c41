//! Parameters in all their spellings, names that may mean two things, and requests of pages from elsewhere.

use super::*;
use crate::routes::route::{Access, Verb};
use crate::routes::table::ROUTES;
use hyper::header::{ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN};

const YEAR_ONE: &str = "0001-01-01T00:00:00Z";

impl Server {
    /// A node of anna's, whose key never expires.
    async fn with_device() -> Self {
        let server = server();
        server.good("POST", "user", json!({"name": "anna"})).await;
        let id = server.knock("laptop").await;
        let body = json!({"user": "anna", "auth_id": id});
        server.good("POST", "auth/register", body).await;
        server
    }

    async fn expiry(&self) -> Value {
        let node = self.good("GET", "node/1", Value::Null).await;
        node["node"]["expiry"].clone()
    }
}

#[tokio::test]
async fn no_spelling_of_disable_expiry_expires_the_node() {
    let server = Server::with_device().await;
    for path in [
        "node/1/expire?disable_expiry=true",
        "node/1/expire?disableExpiry=1",
        "node/1/expire?disableExpiry=True",
        "node/1/expire?disable_expiry=t",
        "node/1/expire?expiry=never",
        "node/1/expire?expiry=0001-01-01T00:00:00Z",
    ] {
        server.good("POST", path, Value::Null).await;
        assert_eq!(server.expiry().await, Value::Null, "{path}");
    }
    for body in [
        json!({"disable_expiry": true}),
        json!({"disableExpiry": "true", "expiry": null}),
        json!({"expiry": YEAR_ONE}),
        json!({"expiry": "never"}),
        json!({"node_id": "1", "disable_expiry": true}),
    ] {
        server.good("POST", "node/1/expire", body.clone()).await;
        assert_eq!(server.expiry().await, Value::Null, "{body}");
    }
    for (path, body) in [
        ("node/1/expire?disableExpire=true", Value::Null),
        ("node/1/expire?disableExpiry=yes", Value::Null),
        ("node/1/expire?disableExpiry=", Value::Null),
        ("node/1/expire", json!({"disable-expiry": true})),
        (
            "node/1/expire",
            json!({"disableExpiry": true, "expiry": "1d"}),
        ),
        ("node/1/expire", json!({"expiry": "9999y"})),
        ("node/1/expire", json!({"expiry": ""})),
        ("node/1/expire", json!({"expiry": "soon"})),
        ("node/1/expire", json!([])),
    ] {
        let refused = server.refused("POST", path, body.clone()).await;
        assert_eq!(refused.0, 400, "{path} {body}");
        assert_eq!(server.expiry().await, Value::Null, "{path} {body}");
    }
    let day = json!({"expiry": "2999-01-31"});
    server.good("POST", "node/1/expire", day).await;
    assert_eq!(server.expiry().await, "2999-01-31T23:59:59Z");
}

#[tokio::test]
async fn every_request_that_changes_something_refuses_a_parameter_it_does_not_know() {
    let server = server();
    let mut tried = 0;
    for route in ROUTES {
        let method = match route.verb {
            Verb::Post => "POST",
            Verb::Put => "PUT",
            Verb::Delete => "DELETE",
            _ => continue,
        };
        let reads = route.summary.contains("Check a policy") || route.path.ends_with("/preview");
        if !matches!(route.access, Access::Scope(_)) || reads {
            continue;
        }
        let parts = route.path.split('/');
        let parts = parts.map(|part| if part.starts_with('{') { "1" } else { part });
        let path = parts
            .collect::<Vec<_>>()
            .join("/")
            .replace("/tailnet/1/", "/tailnet/-/");
        let is_v2 = path.starts_with("/api/v2/");
        for (query, body) in [("?nonsense=1", "{}"), ("", r#"{"nonsense": 1}"#)] {
            if is_v2 && query.is_empty() {
                continue;
            }
            let request = Request::builder()
                .method(method)
                .uri(format!("{path}{query}"))
                .body(Full::new(Bytes::from_static(body.as_bytes())))
                .unwrap();
            let (status, answer) = server.raw(Origin::Local, request).await;
            let text = String::from_utf8(answer.to_vec()).unwrap();
            assert_eq!(
                status,
                StatusCode::BAD_REQUEST,
                "{method} {path}{query}: {text}"
            );
            assert!(text.contains("nonsense"), "{method} {path}{query}: {text}");
        }
        tried += 1;
    }
    assert!(tried > 30, "{tried}");
}

#[tokio::test]
async fn preauth_keys_keep_their_tags_and_ends_in_every_spelling() {
    let server = server();
    server.good("POST", "user", json!({"name": "anna"})).await;
    let body = json!({"user": 1, "acl_tags": ["tag:a"], "expiration": null, "reusable": "1"});
    let key = server.good("POST", "preauthkey", body).await["preAuthKey"].clone();
    assert_eq!(key["aclTags"], json!(["tag:a"]));
    assert_eq!(key["reusable"], true);
    assert!(key["expiration"].is_string(), "null is the default: {key}");
    for never in [YEAR_ONE, "never", "9999-12-31T00:00:00Z"] {
        let body = json!({"user": "1", "expiration": never});
        let key = server.good("POST", "preauthkey", body).await;
        assert_eq!(key["preAuthKey"]["expiration"], Value::Null, "{never}");
    }
    let misspelt = json!({"user": "1", "aclTag": ["tag:a"]});
    let (status, message) = server.refused("POST", "preauthkey", misspelt).await;
    assert!(status == 400 && message.contains("\"aclTag\""), "{message}");
    let listed = server
        .good("GET", "preauthkey?user=anna", Value::Null)
        .await;
    assert_eq!(listed["preAuthKeys"].as_array().unwrap().len(), 4);
    // As interfaces for older versions of Headscale do it.
    let by_text = json!({"user": "1", "key": key["key"]});
    server.good("POST", "preauthkey/expire", by_text).await;
    let masked = json!({"user": "1", "key": listed["preAuthKeys"][1]["key"]});
    server.good("POST", "preauthkey/expire", masked).await;
    let unknown = json!({"key": "hskey-auth-abcdefghijkl-***"});
    assert_eq!(
        server.refused("POST", "preauthkey/expire", unknown).await.0,
        404
    );
}

#[tokio::test]
async fn users_are_found_in_any_case_and_have_names_of_people() {
    let server = server();
    for name in ["J\u{fc}rgen", "anna+home@example.com"] {
        let made = server.good("POST", "user", json!({"name": name})).await;
        assert_eq!(made["user"]["name"], name);
    }
    let id = server.knock("laptop").await;
    let body = json!({"user": "j\u{dc}RGEN", "authId": id});
    let node = server.good("POST", "auth/register", body).await["node"].clone();
    assert_eq!(node["user"]["id"], "1");
    assert_eq!(server.refused("GET", "node/+1", Value::Null).await.0, 400);
}

#[tokio::test]
async fn a_record_does_not_take_the_name_of_a_node() {
    let server = Server::with_device().await;
    for name in ["laptop", "Laptop", "laptop.hearth.internal."] {
        let body = json!({"name": name, "value": "192.168.1.2"});
        let (status, message) = server.refused("POST", "dns/records", body).await;
        assert_eq!(status, 409, "{message}");
        assert!(
            message.contains("`hearth nodes rename laptop NEW_NAME`"),
            "{message}"
        );
    }
    let body = json!({"name": "laptop.example.org", "value": "192.168.1.2"});
    server.good("POST", "dns/records", body).await;
}

#[tokio::test]
async fn a_pending_device_has_the_short_form_of_its_key() {
    let server = server();
    server.knock("abc").await;
    let list = server.good("GET", "hearth/pending", Value::Null).await;
    assert_eq!(list["pending"][0]["shortKey"], "03030-30303");
}

#[tokio::test]
async fn browsers_may_ask_from_elsewhere_with_a_key_only() {
    let server = server();
    let ask = async |method: &str, headers: &[(&str, &str)]| {
        let mut request = Request::builder().method(method).uri("/api/v1/user");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::<Bytes>::default()).unwrap();
        let answer = answer_api(&server.admin, &server.counters, network(), request).await;
        let header = |name| {
            answer
                .headers()
                .get(&name)
                .map(|value| value.to_str().unwrap().to_owned())
        };
        let allowed = (
            header(ACCESS_CONTROL_ALLOW_ORIGIN),
            header(ACCESS_CONTROL_ALLOW_METHODS),
        );
        assert!(
            !answer
                .headers()
                .contains_key("access-control-allow-credentials")
        );
        assert!(
            !answer
                .headers()
                .contains_key("access-control-allow-private-network")
        );
        (answer.status().as_u16(), allowed)
    };
    let origin = ("Origin", "https://ui.example.org");
    let wanted = ("Access-Control-Request-Method", "POST");
    let any = Some("*".to_owned());
    let methods = Some("GET, POST, PUT, DELETE".to_owned());
    assert_eq!(
        ask("OPTIONS", &[origin, wanted]).await,
        (204, (any.clone(), methods))
    );
    // Not a preflight request.
    assert_eq!(ask("OPTIONS", &[origin]).await, (401, (any.clone(), None)));
    assert_eq!(ask("OPTIONS", &[wanted]).await, (401, (None, None)));
    assert_eq!(ask("GET", &[origin]).await, (401, (any.clone(), None)));
    let key = server.good("POST", "apikey", Value::Null).await["apiKey"].clone();
    let bearer = format!("Bearer {}", key.as_str().unwrap());
    let with_key = ("Authorization", bearer.as_str());
    assert_eq!(ask("GET", &[origin, with_key]).await, (200, (any, None)));
    assert_eq!(ask("GET", &[with_key]).await, (200, (None, None)));
}
