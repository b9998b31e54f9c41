//! Routes, tags, owners, addresses, approval, roles and WireGuard-only peers.

use super::*;
use hearth_core::state::command::NodeUpdate;
use hearth_core::state::principal::Principal;

impl Server {
    /// A node of anna's that advertises this route.
    async fn with_node(route: &str) -> Self {
        let server = server();
        server.good("POST", "user", json!({"name": "anna"})).await;
        let id = server.knock("laptop").await;
        let body = json!({"user": "anna", "authId": id});
        server.good("POST", "auth/register", body).await;
        let snapshot = server.admin.engine.snapshot();
        let node = snapshot.nodes().first().unwrap();
        let hostinfo = Hostinfo {
            routable_ips: vec![route.parse().unwrap()].into(),
            ..(*node.hostinfo).clone()
        };
        let update = NodeUpdate {
            node: Some(node.id),
            hostinfo: Some(Arc::new(hostinfo)),
            ..NodeUpdate::default()
        };
        let by = Principal::Node { id: node.id };
        server.admin.engine.update_node(by, update).await.unwrap();
        server
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        self.good("POST", path, body).await["node"].clone()
    }
}

#[tokio::test]
async fn advertised_routes_are_approved_as_a_list() {
    let server = Server::with_node("10.0.0.0/8").await;
    let node = server.good("GET", "node/1", Value::Null).await["node"].clone();
    assert_eq!(node["availableRoutes"], json!(["10.0.0.0/8"]));
    assert_eq!(node["approvedRoutes"], json!([]));
    let status = server.good("GET", "hearth/status", Value::Null).await;
    assert_eq!(
        status["waitingRoutes"],
        json!([{"id": "1", "givenName": "laptop"}])
    );

    let body = json!({"routes": ["10.0.0.0/8", "0.0.0.0/0"]});
    let node = server.post("node/1/approve_routes", body).await;
    let approved = json!(["0.0.0.0/0", "10.0.0.0/8", "::/0"]);
    assert_eq!(node["approvedRoutes"], approved);
    assert_eq!(node["subnetRoutes"], json!([]), "it was never there");
    let status = server.good("GET", "hearth/status", Value::Null).await;
    assert_eq!(status["waitingRoutes"], json!([]));
    let node = server.post("node/1/approve_routes", Value::Null).await;
    assert_eq!(node["approvedRoutes"], json!([]));

    let bad = json!({"routes": ["10.0.0.1"]});
    let (status, message) = server.refused("POST", "node/1/approve_routes", bad).await;
    assert_eq!(status, 400);
    assert!(message.contains("10.0.0.1"), "{message}");
    let refused = server.refused("POST", "node/9/approve_routes", Value::Null);
    assert_eq!(refused.await.0, 404);
}

#[tokio::test]
async fn a_tag_that_the_policy_does_not_declare_is_given_with_a_warning() {
    let server = Server::with_node("10.0.0.0/8").await;
    let tags = |tags: Value| server.good("POST", "node/1/tags", json!({ "tags": tags }));
    // Without a policy there is nothing to declare it.
    let free = tags(json!(["tag:first"])).await;
    assert_eq!(free["warnings"], Value::Null);
    let policy = r#"{"tagOwners": {"tag:web": []}, "acls": []}"#;
    let set = server.good("PUT", "policy", json!({ "policy": policy }));
    set.await;
    let warned = tags(json!(["tag:nosuch", "tag:web"])).await;
    assert_eq!(warned["node"]["tags"], json!(["tag:nosuch", "tag:web"]));
    let warnings = warned["warnings"].as_array().unwrap();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    let text = warnings[0].as_str().unwrap();
    assert!(
        text.starts_with("tag not found in the policy: \"tag:nosuch\""),
        "{text}"
    );
    assert_eq!(tags(json!(["tag:web"])).await["warnings"], Value::Null);
}

#[tokio::test]
async fn a_node_is_tagged_and_given_back_to_a_user() {
    let server = Server::with_node("10.0.0.0/8").await;
    let none = server.refused("POST", "node/1/tags", json!({"tags": []}));
    assert_eq!(none.await.0, 400);
    let body = json!({"tags": ["tag:web", "tag:db"]});
    let node = server.post("node/1/tags", body).await;
    assert_eq!(node["tags"], json!(["tag:db", "tag:web"]));
    assert_eq!(node["user"]["name"], "tagged-devices");
    let node = server.post("node/1/user?user=anna", Value::Null).await;
    assert_eq!(
        (&node["user"]["id"], &node["tags"]),
        (&json!("1"), &json!([]))
    );
    for user in [json!("anna"), json!("1"), json!(1)] {
        let node = server.post("node/1/user", json!({"user": user})).await;
        assert_eq!(node["user"]["name"], "anna");
    }
    let nobody = server.refused("POST", "node/1/user", json!({"user": "bob"}));
    assert_eq!(nobody.await.0, 404);
}

#[tokio::test]
async fn addresses_are_set_and_backfilled() {
    let server = Server::with_node("10.0.0.0/8").await;
    let body = json!({"ipv4": "100.99.0.7", "ipv6": "fd7a:115c:a1e0::99"});
    let node = server.post("node/1/ip", body).await;
    assert_eq!(
        node["ipAddresses"],
        json!(["100.99.0.7", "fd7a:115c:a1e0::99"])
    );
    for bad in [json!({}), json!({"ipv4": "x"}), json!({"ipv4": "10.0.0.1"})] {
        let refused = server.refused("POST", "node/1/ip", bad.clone()).await;
        assert_eq!(refused.0, 400, "{bad}");
    }
    let path = "node/backfillips";
    assert_eq!(server.refused("POST", path, Value::Null).await.0, 400);
    let path = "node/backfillips?confirmed=true";
    let answer = server.good("POST", path, Value::Null).await;
    assert_eq!(answer, json!({"changes": []}));
}

#[tokio::test]
async fn the_approval_of_a_device_is_revoked_and_granted_again() {
    let server = Server::with_node("10.0.0.0/8").await;
    let node = server.post("node/1/disapprove", Value::Null).await;
    assert_eq!(node["authorized"], false);
    let status = server.good("GET", "hearth/status", Value::Null).await;
    assert_eq!(status["unauthorized"][0]["id"], "1");
    let node = server.post("node/1/approve", Value::Null).await;
    assert_eq!(node["authorized"], true);
}

#[tokio::test]
async fn preauth_keys_approve_their_devices_by_default() {
    let server = server();
    server.good("POST", "user", json!({"name": "anna"})).await;
    for (wish, is) in [
        (Value::Null, true),
        (json!(true), true),
        (json!(false), false),
    ] {
        let body = json!({"user": "1", "preauthorized": wish});
        let made = server.good("POST", "preauthkey", body).await;
        assert_eq!(made["preAuthKey"]["preauthorized"], is);
    }
}

#[tokio::test]
async fn users_have_a_role_and_an_expiry() {
    let server = server();
    let made = server.good("POST", "user", json!({"name": "anna"})).await;
    assert_eq!(made["user"]["role"], "owner");
    assert_eq!(made["user"]["nodeExpiry"], "default");
    let body = json!({"role": "admin"});
    let changed = server.good("POST", "user/1/role", body).await;
    assert_eq!(changed["user"]["role"], "admin");
    for expiry in ["90d", "never", "default"] {
        let body = json!({"expiry": expiry});
        let changed = server.good("POST", "user/1/expiry", body).await;
        assert_eq!(changed["user"]["nodeExpiry"], expiry);
    }
    for (path, body) in [
        ("user/1/role", json!({"role": "king"})),
        ("user/1/role", json!({})),
        ("user/1/expiry", json!({"expiry": "0"})),
        ("user/1/expiry", json!({"expiry": "soon"})),
        ("user/1/expiry", json!({})),
    ] {
        assert_eq!(server.refused("POST", path, body).await.0, 400);
    }
    let body = json!({"role": "admin"});
    assert_eq!(server.refused("POST", "user/9/role", body).await.0, 404);
}

#[tokio::test]
async fn a_wireguard_peer_is_described_and_listed() {
    let server = server();
    server.good("POST", "user", json!({"name": "anna"})).await;
    let body = json!({
        "name": "berlin", "key": "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=",
        "endpoints": ["203.0.113.5:51820"], "routes": ["10.9.0.0/16"], "exitNode": true,
        "exitDns": ["10.9.0.1"], "masqueradeV4": "10.9.0.2",
    });
    let node = server.post("node/wireguard", body.clone()).await;
    assert_eq!(node["nodeKey"], format!("nodekey:{}", "01".repeat(32)));
    assert_eq!(node["user"]["name"], "anna");
    assert_eq!(
        node["subnetRoutes"],
        json!(["10.9.0.0/16", "0.0.0.0/0", "::/0"])
    );
    assert_eq!(
        node["wireguard"],
        json!({
            "endpoints": ["203.0.113.5:51820"], "masqueradeV4": "10.9.0.2",
            "masqueradeV6": null, "exitDns": ["10.9.0.1"],
        })
    );
    assert_eq!(
        server
            .refused("POST", "node/wireguard", body.clone())
            .await
            .0,
        400
    );
    for (field, bad) in [
        ("key", json!("AQEB")),
        ("key", json!("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")),
        ("endpoints", json!(["nas:51820"])),
        ("endpoints", json!([])),
        ("exitDns", json!(["dns.example"])),
        ("routes", json!(["lan"])),
        ("ipv4", json!("100.100.100.100")),
        ("tags", json!(["web"])),
        ("name", json!("Berlin!")),
    ] {
        let mut body = body.clone();
        body["name"] = json!("other");
        body["key"] = json!("AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=");
        body[field] = bad;
        let refused = server.refused("POST", "node/wireguard", body).await;
        assert_eq!(refused.0, 400, "{field}: {}", refused.1);
    }
}
