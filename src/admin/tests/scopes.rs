//! API keys with scopes, and the audit log of what they did.

use super::*;

impl Server {
    async fn with_key(&self, key: &str, method: &str, path: &str, body: Value) -> (u16, Value) {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("Authorization", format!("Bearer {key}"))
            .body(Full::new(body.to_string().into()))
            .unwrap();
        let (status, body) = self.raw(network(), request).await;
        let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
        (status.as_u16(), body)
    }

    async fn key(&self, scopes: &[&str]) -> String {
        let made = self.good("POST", "apikey", json!({"scopes": scopes})).await;
        made["apiKey"].as_str().unwrap().to_owned()
    }
}

#[tokio::test]
async fn a_key_opens_what_its_scopes_name_and_nothing_else() {
    let server = server();
    let key = server.key(&["users", "devices:core:read"]).await;
    let anna = json!({"name": "anna"});
    for (method, path, status) in [
        ("POST", "/api/v1/user", 200),
        ("GET", "/api/v1/user", 200),
        ("GET", "/api/v1/node", 200),
        ("GET", "/api/v1/health", 200),
        ("POST", "/api/v1/node/1/tags", 403),
        ("GET", "/api/v1/preauthkey", 403),
        ("GET", "/api/v1/policy", 403),
        ("GET", "/api/v2/tailnet/-/acl", 403),
        ("GET", "/api/v1/hearth/audit", 403),
        ("POST", "/api/v1/apikey", 403),
        ("GET", "/api/v1/nothing", 404),
        ("PUT", "/api/v1/user", 405),
    ] {
        let (got, answer) = server.with_key(&key, method, path, anna.clone()).await;
        assert_eq!(got, status, "{method} {path}: {answer}");
    }
    let (_, answer) = server
        .with_key(&key, "GET", "/api/v1/policy", Value::Null)
        .await;
    let message = answer["message"].as_str().unwrap();
    assert!(
        message.ends_with("lacks the scope policy_file:read"),
        "{message}"
    );
    let list = server.good("GET", "apikey", Value::Null).await;
    assert_eq!(
        list["apiKeys"][0]["scopes"],
        json!(["devices:core:read", "users"])
    );
}

#[tokio::test]
async fn nobody_gives_a_key_more_than_they_have() {
    let server = server();
    let key = server.key(&["api_access_tokens", "dns:read"]).await;
    for (body, status) in [
        (json!({}), 403),
        (json!({"scopes": ["all"]}), 403),
        (json!({"scopes": ["dns"]}), 403),
        (json!({"scopes": ["no_such_scope"]}), 400),
        (json!({"scopes": ["dns:read"]}), 200),
    ] {
        let (got, answer) = server
            .with_key(&key, "POST", "/api/v1/apikey", body.clone())
            .await;
        assert_eq!(got, status, "{body}: {answer}");
    }
}

#[tokio::test]
async fn a_request_that_does_more_than_its_route_needs_the_scope_of_that_too() {
    let server = server();
    let invites = server.key(&["auth_keys"]).await;
    let (status, answer) = server
        .with_key(&invites, "POST", "/api/v1/hearth/invite", json!({}))
        .await;
    assert_eq!(status, 403, "it would create the first user: {answer}");
    server.good("POST", "user", json!({"name": "anna"})).await;
    let (status, answer) = server
        .with_key(&invites, "POST", "/api/v1/hearth/invite", json!({}))
        .await;
    assert_eq!(status, 200, "{answer}");
    let devices = server.key(&["devices:core"]).await;
    let both = server.key(&["devices:core", "devices:routes"]).await;
    let peer = |name: &str, byte: u8| {
        let key = data_encoding::BASE64.encode(&[byte; 32]);
        json!({"name": name, "key": key, "endpoints": ["203.0.113.5:51820"], "user": "anna"})
    };
    let with = |mut peer: Value, field: &str, value: Value| {
        peer[field] = value;
        peer
    };
    let (exit, routes) = (json!(true), json!(["192.168.7.0/24"]));
    for (key, body, expected) in [
        (&devices, with(peer("a", 1), "exitNode", exit.clone()), 403),
        (&devices, with(peer("b", 2), "routes", routes.clone()), 403),
        (&devices, peer("c", 3), 200),
        (&both, with(peer("d", 4), "exitNode", exit), 200),
        (&both, with(peer("e", 5), "routes", routes), 200),
    ] {
        let path = "/api/v1/node/wireguard";
        let (status, answer) = server.with_key(key, "POST", path, body.clone()).await;
        assert_eq!(status, expected, "{body}: {answer}");
    }
}

#[tokio::test]
async fn the_audit_log_says_who_did_what() {
    let server = server();
    let key = server.key(&["users"]).await;
    let anna = json!({"name": "anna"});
    server.with_key(&key, "POST", "/api/v1/user", anna).await;
    server
        .with_key(&key, "POST", "/api/v1/user/1/rename/berta", Value::Null)
        .await;
    let answer = server.good("GET", "hearth/audit", Value::Null).await;
    let logs = answer["logs"].as_array().unwrap();
    let short: Vec<_> = logs
        .iter()
        .map(|entry| {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            (
                text(&entry["actor"]["type"]),
                text(&entry["action"]),
                text(&entry["target"]["type"]),
            )
        })
        .collect();
    let row = |actor: &str, action: &str, target: &str| {
        (actor.to_owned(), action.to_owned(), target.to_owned())
    };
    assert_eq!(
        short,
        [
            row("SOCKET", "CREATE", "API_KEY"),
            row("API_KEY", "CREATE", "USER"),
            row("API_KEY", "UPDATE", "USER"),
        ]
    );
    let renamed = &logs[2];
    assert_eq!(renamed["origin"], "CONFIG_API");
    assert_eq!(
        (&renamed["old"], &renamed["new"]),
        (&json!("anna"), &json!("berta"))
    );
    let newest = server
        .good("GET", "hearth/audit?limit=1", Value::Null)
        .await;
    assert_eq!(newest["logs"].as_array().unwrap().len(), 1);
    assert_eq!(newest["logs"][0]["id"], renamed["id"]);
    let older = format!("hearth/audit?before={}", renamed["id"].as_str().unwrap());
    let older = server.good("GET", &older, Value::Null).await;
    assert_eq!(older["logs"].as_array().unwrap().len(), 2);
    assert_eq!(
        server
            .refused("GET", "hearth/audit?limit=x", Value::Null)
            .await
            .0,
        400
    );
}

#[tokio::test]
async fn a_backup_is_for_the_socket_alone_whatever_a_key_may_do() {
    const PATH: &str = "/api/v1/hearth/backup";
    let server = server();
    let key = server.key(&["all"]).await;
    let (status, answer) = server.with_key(&key, "GET", PATH, Value::Null).await;
    assert_eq!(status, 403, "{answer}");
    let message = answer["message"].as_str().unwrap();
    assert!(message.contains("only the admin socket may"), "{message}");

    let request = Request::get(PATH).body(Full::default()).unwrap();
    let (status, archive) = server.raw(Origin::Local, request).await;
    assert_eq!(status, StatusCode::OK);
    let begin = archive.get(..hearth_core::backup::KIND_BYTES).unwrap();
    let kind = hearth_core::backup::Kind::of(begin);
    assert_eq!(kind, hearth_core::backup::Kind::Archive);
    let left = std::fs::read_dir(server._directory.path()).unwrap();
    let left = left.map(|entry| entry.unwrap().file_name());
    assert!(
        !left
            .into_iter()
            .any(|name| name == "backup-in-progress.redb")
    );
}
