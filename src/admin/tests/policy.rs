//! The policy: set, compared, rolled back, and explained.

use super::*;
use crate::status::policy::PolicyStatus;

const CLOSED: &str = "{\n\t// Nobody.\n\t\"acls\": [],\n}";
const OPEN: &str = r#"{"acls": [{"action": "accept", "src": ["*"], "dst": ["*:*"]}]}"#;
const FAILING: &str =
    "{\n\"acls\": [],\n\"tests\": [{\"src\": \"100.64.0.1\", \"accept\": [\"100.64.0.2:22\"]}],\n}";

impl Server {
    async fn set(&self, text: &str) -> Value {
        self.good("PUT", "policy", json!({ "policy": text })).await
    }

    /// A request to API v2: its status, ETag and body.
    async fn v2(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> (u16, String, String) {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("/api/v2/tailnet/{path}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request
            .body(Full::new(Bytes::from(body.to_owned())))
            .unwrap();
        let answer = answer_api(&self.admin, &self.counters, Origin::Local, request).await;
        let status = answer.status().as_u16();
        let tag = answer.headers().get("etag");
        let tag = tag.map(|tag| tag.to_str().unwrap().to_owned());
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        let body = String::from_utf8(body.to_vec()).unwrap();
        (status, tag.unwrap_or_default(), body)
    }
}

#[tokio::test]
async fn a_policy_is_set_kept_and_rolled_back() {
    let server = server();
    let (status, message) = server.refused("GET", "policy", Value::Null).await;
    assert_eq!(status, 500);
    assert!(message.contains("acl policy not found"), "{message}");
    let rollback = json!({"version": ""});
    let path = "hearth/policy/rollback";
    assert_eq!(server.refused("POST", path, rollback.clone()).await.0, 404);

    assert_eq!(server.set(CLOSED).await["version"], "1");
    assert_eq!(server.set(OPEN).await["version"], "2");
    // Setting the same text again makes no new version.
    assert_eq!(server.set(OPEN).await["version"], "2");
    let now = server.good("GET", "policy", Value::Null).await;
    assert_eq!(
        (&now["policy"], &now["trouble"]),
        (&json!(OPEN), &json!(""))
    );
    assert!(now["updatedAt"].is_string() && now["file"] == "");

    let back = server.good("POST", path, rollback).await;
    assert_eq!(
        (&back["version"], &back["policy"]),
        (&json!("3"), &json!(CLOSED))
    );
    let history = server
        .good("GET", "hearth/policy/history", Value::Null)
        .await;
    let versions: Vec<_> = history["versions"].as_array().unwrap().iter().collect();
    assert_eq!(versions.len(), 3);
    assert_eq!(versions[0]["bytes"], CLOSED.len());
    let second = server
        .good("GET", "hearth/policy/history/2", Value::Null)
        .await;
    assert_eq!(second["policy"], OPEN);
    for missing in ["9", "0", "x"] {
        let path = format!("hearth/policy/history/{missing}");
        assert_eq!(server.refused("GET", &path, Value::Null).await.0, 404);
    }
}

#[tokio::test]
async fn errors_have_their_position_and_change_nothing() {
    let server = server();
    server.set(CLOSED).await;
    for (text, fault) in [
        (
            "{\n\"acls\": 5,\n\"x\": 1}",
            "line 3, column 1: unknown field: \"x\"\nline 2, column 9: expected",
        ),
        (
            FAILING,
            "line 3, column 1: test(s) failed\nline 3, column 11: 100.64.0.1: ",
        ),
        (" ", "the policy is empty; "),
        ("", "the policy is empty; "),
    ] {
        let body = json!({ "policy": text });
        for (method, path) in [("PUT", "policy"), ("POST", "policy/check")] {
            let (status, message) = server.refused(method, path, body.clone()).await;
            assert_eq!(status, 400);
            assert!(message.starts_with(fault), "{message}");
        }
    }
    let checked = server.good("POST", "policy/check", json!({ "policy": OPEN }));
    assert_eq!(checked.await, json!({}));
    let now = server.good("GET", "policy", Value::Null).await;
    assert_eq!(
        (&now["policy"], &now["version"]),
        (&json!(CLOSED), &json!("1"))
    );
}

#[tokio::test]
async fn warnings_come_with_the_answer_and_do_not_block() {
    let server = server();
    let text = "{\n\"groups\": {\"group:a\": [\"nobody@\"]},\n\"acls\": []}";
    let body = json!({ "policy": text });
    let warning = "line 2, column 24: no user is called \"nobody@\"";
    for (method, path) in [("POST", "policy/check"), ("PUT", "policy")] {
        let answer = server.good(method, path, body.clone()).await;
        let found = answer["warnings"][0].as_str().unwrap();
        assert!(found.starts_with(warning), "{found}");
    }
    // They are about a policy that is set, not about the one that is shown.
    let now = server.good("GET", "policy", Value::Null).await;
    assert_eq!(
        (&now["policy"], &now["warnings"]),
        (&json!(text), &Value::Null)
    );
}

#[tokio::test]
async fn a_policy_file_excludes_other_ways_to_set_the_policy() {
    let mut server = server();
    server.set(CLOSED).await;
    let status = PolicyStatus {
        file: Some("/etc/hearth/policy.hujson".into()),
        fault: "line 1, column 2: x".into(),
        ..PolicyStatus::default()
    };
    server.admin.about.policy_status = watch::channel(status).1;
    for (method, path, body) in [
        ("PUT", "policy", json!({"policy": OPEN})),
        ("POST", "hearth/policy/rollback", json!({"version": "1"})),
    ] {
        let (status, message) = server.refused(method, path, body).await;
        assert_eq!(status, 400);
        assert!(message.starts_with("update is disabled for modes other than 'database'"));
        assert!(message.contains("/etc/hearth/policy.hujson"), "{message}");
    }
    assert_eq!(server.v2("POST", "-/acl", &[], OPEN).await.0, 400);
    let shown = server.good("GET", "policy", Value::Null).await;
    assert_eq!(shown["file"], "/etc/hearth/policy.hujson");
    let status = server.good("GET", "hearth/status", Value::Null).await;
    for trouble in [&shown["trouble"], &status["warnings"][1]] {
        let trouble = trouble.as_str().unwrap();
        assert!(
            trouble.ends_with("the previous policy stays in effect: line 1, column 2: x"),
            "{trouble}"
        );
    }
}

#[tokio::test]
async fn a_long_policy_fits_and_a_longer_one_does_not() {
    let server = server();
    let long = |bytes: usize| format!("{{\"acls\": []}}{}", "\n".repeat(bytes - 12));
    server.set(&long(256 * 1024)).await;
    let (status, message) = server
        .refused("PUT", "policy", json!({ "policy": long(256 * 1024 + 1) }))
        .await;
    assert_eq!(
        (status, message.contains("longer than 262144 bytes")),
        (400, true)
    );
    let body = json!({ "policy": long(1 << 20) });
    assert_eq!(server.refused("PUT", "policy", body).await.0, 413);
    // The limit of other requests stays the same.
    let body = json!({ "name": "x".repeat(100_000) });
    assert_eq!(server.refused("POST", "user", body).await.0, 413);
}

#[tokio::test]
async fn tools_for_api_v2_read_compare_and_set() {
    let server = server();
    let hujson = [("accept", "application/hujson")];
    let (status, untouched, text) = server.v2("GET", "-/acl", &hujson, "").await;
    assert_eq!(status, 200);
    assert!(text.contains("There is no policy yet") && untouched.len() == 66);
    let by_default = [("if-match", "\"ts-default\"")];
    let (status, first, json) = server.v2("POST", "-/acl", &by_default, CLOSED).await;
    assert_eq!((status, json.as_str()), (200, r#"{"acls":[]}"#));
    assert_eq!(server.v2("POST", "-/acl", &by_default, OPEN).await.0, 412);

    let (status, tag, text) = server.v2("GET", "hearth.internal/acl", &hujson, "").await;
    assert_eq!((status, text.as_str()), (200, CLOSED));
    assert_eq!((&tag, tag.len()), (&first, 66));
    let (_, same, text) = server
        .v2("GET", "-/acl", &[("accept", "application/json")], "")
        .await;
    assert_eq!((same, text.as_str()), (tag.clone(), r#"{"acls":[]}"#));
    let (_, _, text) = server.v2("GET", "-/acl?details=1", &hujson, "").await;
    let details: Value = serde_json::from_str(&text).unwrap();
    let encoded = data_encoding::BASE64.encode(CLOSED.as_bytes());
    assert_eq!(details["acl"], encoded);

    let matching = [("if-match", tag.as_str()), ("accept", "application/hujson")];
    let (status, second, text) = server.v2("POST", "-/acl", &matching, OPEN).await;
    assert_eq!((status, text.as_str()), (200, OPEN));
    assert_ne!(second, tag);
    let (status, _, text) = server.v2("POST", "-/acl", &matching, CLOSED).await;
    assert_eq!(status, 412);
    assert!(
        text.contains("precondition failed, invalid old hash"),
        "{text}"
    );
    assert_eq!(server.v2("GET", "other/acl", &[], "").await.0, 404);
    assert_eq!(server.v2("DELETE", "-/acl", &[], "").await.0, 405);
}

#[tokio::test]
async fn errors_have_the_format_that_tools_read() {
    let server = server();
    let failed = json!({
        "message": "line 3, column 1: test(s) failed",
        "data": [{"user": "100.64.0.1", "errors": ["-> 100.64.0.2:22: expected ALLOWED, got DENIED"]}],
    });
    for (path, wanted) in [("-/acl", 400), ("-/acl/validate", 200)] {
        let (status, _, text) = server.v2("POST", path, &[], FAILING).await;
        let answer: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((status, answer), (wanted, failed.clone()));
        let (status, _, text) = server.v2("POST", path, &[], "{\n\"acls\": 5}").await;
        let answer: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(status, wanted);
        let message = answer["message"].as_str().unwrap();
        assert!(
            message.starts_with("line 2, column 9: expected a list"),
            "{message}"
        );
    }
    let validated = |body: &'static str| server.v2("POST", "-/acl/validate", &[], body);
    assert_eq!(validated(OPEN).await, (200, String::new(), "{}".into()));
    // A list has tests for the current policy: none, so everything is allowed.
    let tests = r#"[{"src": "100.64.0.1", "accept": ["100.64.0.2:22"]}]"#;
    assert_eq!(validated(tests).await.2, "{}");
    server.set(CLOSED).await;
    assert!(validated(tests).await.2.contains("test(s) failed"));
}

#[tokio::test]
async fn a_preview_lists_the_rules_that_apply() {
    let server = server();
    let text = r#"{
        "ACLs": [{"action": "accept", "src": ["*"], "dst": ["100.64.0.1:22,80"]}],
        "grants": [{"src": ["*"], "dst": ["10.0.0.0/8"], "ip": ["tcp:443", "udp:53"]}],
    }"#;
    let about = |kind: &str, about: &str| format!("-/acl/preview?type={kind}&previewFor={about}");
    let (status, _, answer) = server
        .v2("POST", &about("ipport", "10.1.1.1:53"), &[], text)
        .await;
    assert_eq!(status, 200);
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(
        answer,
        json!({"matches": [{"users": ["*"], "ports": ["10.0.0.0/8:tcp:443", "10.0.0.0/8:udp:53"],
            "lineNumber": 3, "postures": []}], "type": "ipport", "previewFor": "10.1.1.1:53"})
    );
    server.good("POST", "user", json!({"name": "anna"})).await;
    let (_, _, answer) = server.v2("POST", &about("user", "anna@"), &[], text).await;
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(answer["matches"].as_array().unwrap().len(), 2);
    assert_eq!(answer["matches"][0]["ports"], json!(["100.64.0.1:22,80"]));
    for path in [about("ipport", "x"), about("x", "x")] {
        assert_eq!(server.v2("POST", &path, &[], text).await.0, 400);
    }
}

#[tokio::test]
async fn why_names_the_rule_or_the_missing_condition() {
    let server = server();
    server.good("POST", "user", json!({"name": "anna"})).await;
    let id = server.knock("laptop").await;
    let body = json!({"authId": id, "user": "anna"});
    server.good("POST", "auth/register", body).await;
    server
        .set("{\"acls\": [\n{\"action\": \"accept\", \"src\": [\"*\"], \"dst\": [\"100.64.9.9:80\"]}]}")
        .await;
    let why = async |query: &str| {
        let path = format!("hearth/policy/why?{query}");
        let (status, answer) = server.ask("GET", &path, Value::Null).await;
        (status.as_u16(), answer)
    };
    let (status, answer) = why("src=100.64.9.8&dst=100.64.9.9&port=80").await;
    assert_eq!(status, 200, "{answer}");
    let pair = &answer["pairs"][0];
    assert_eq!(pair["source"], "100.64.9.8");
    let (_, answer) = why("src=anna@&dst=laptop&port=22").await;
    let pair = &answer["pairs"][0];
    assert_eq!(pair["allowed"], false);
    assert_eq!(
        pair["reason"],
        "denied: laptop is isolated: it has never connected"
    );
    for (query, fault) in [
        ("src=laptop&dst=laptop", "missing port"),
        ("src=laptop&dst=laptop&port=99999", "port must be from"),
        ("src=laptop&dst=laptop&port=1&proto=x", "x"),
        ("src=laptop&port=1", "missing src or dst"),
        ("src=nobody&dst=laptop&port=1", "not found: \"nobody\""),
    ] {
        let (status, answer) = why(query).await;
        assert_eq!(status, 400);
        let message = answer["message"].as_str().unwrap();
        assert!(message.contains(fault), "{message}");
    }
    assert_eq!(why("src=laptop&dst=laptop&proto=icmp").await.0, 200);
}
