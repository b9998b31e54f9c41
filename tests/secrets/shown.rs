//! What an administrator is shown of devices: by the commands, by REST and in the log.

use hearth::supervise::Tasks;
use serde_json::{Value, json};

use crate::device::{Device, Devices};
use crate::secret::keys_in;
use crate::server::{Auth, Server};

const LISTEN: &str =
    "listen.http = \"127.0.0.1:0\"\nlisten.https = \"off\"\nlisten.stun = \"off\"\n";

const POLICY: &str = r#"{"acls": [{"action": "accept", "src": ["*"], "dst": ["*:*"]}],
    "ssh": [{"action": "check", "src": ["autogroup:member"], "dst": ["autogroup:self"], "users": ["root"]}],
    "extraDNSRecords": [{"Name": "pi.hearth.internal", "Type": "A", "Value": "192.168.1.3"}]}"#;

/// A server with the devices `names`, which have one owner.
async fn household(names: &[&str]) -> (Server, Devices) {
    household_with("", names).await
}

/// The same with more settings.
async fn household_with(settings: &str, names: &[&str]) -> (Server, Devices) {
    let server = Server::start("serve", |_| format!("{LISTEN}{settings}")).await;
    server.good("users create home").await;
    let made = server
        .good("preauthkeys create --user home --reusable")
        .await;
    let key = keys_in(&made).pop().unwrap();
    let mut devices = Devices::new(&server, &Tasks::new()).await;
    for name in names {
        devices.join(name, &key).await;
    }
    (server, devices)
}

/// The node of this number, as REST has it.
async fn node(server: &Server, number: usize) -> Value {
    let shown = server.good(&format!("nodes show {number} -o json")).await;
    serde_json::from_str(&shown).unwrap()
}

async fn online(server: &Server) -> u64 {
    let status = server.good("status -o json").await;
    let status: Value = serde_json::from_str(&status).unwrap();
    status["online"].as_u64().unwrap()
}

/// What a client reports beside its map stream.
async fn report(device: &mut Device, more: Value) {
    let mut request = json!({
        "Version": 130, "NodeKey": device.node_key, "OmitPeers": true,
        "DiscoKey": device.node_key.replace("nodekey", "discokey"),
    });
    let fields = more.as_object().unwrap().clone();
    request.as_object_mut().unwrap().extend(fields);
    let (status, body) = device
        .request("POST", "/machine/map", &request.to_string())
        .await;
    assert_eq!(status, 200, "{body}");
}

#[tokio::test]
async fn what_a_client_reports_is_shown_by_the_commands() {
    let (server, mut devices) = household_with("limits.node_routes = 8\n", &["nas", "pi"]).await;
    // Tags without a login, and more routes than are kept without IP forwarding.
    let routes: Vec<String> = (0..11).map(|n| format!("10.0.{n}.0/24")).collect();
    let hostinfo = json!({
        "Hostname": "nas", "OS": "linux", "RequestTags": ["tag:web"], "RoutableIPs": routes,
    });
    let flags = json!(["warn-ip-forwarding-off"]);
    let said = json!({"Hostinfo": hostinfo, "DebugFlags": flags});
    report(&mut devices.nodes[0], said).await;

    let shown = server.good("nodes show nas").await;
    let status = server.good("status -o json").await;
    let status: Value = serde_json::from_str(&status).unwrap();
    let url = status["serverUrl"].as_str().unwrap();
    let command =
        format!("tailscale up --force-reauth --login-server={url} --advertise-tags=tag:web");
    for words in [
        command.as_str(),
        "ip-forwarding: off on this device",
        "3 offered routes are dropped; 8 are kept (limits.node_routes)",
    ] {
        assert!(shown.contains(words), "{words}: {shown}");
    }
    let status = server.good("status").await;
    for words in [
        "nas requests other tags, which take a new login: `hearth nodes show 1`",
        "nas: 3 offered routes are dropped",
        "routes of nas need approval",
    ] {
        assert!(status.contains(words), "{words}: {status}");
    }
    let listed = server.hearth("nodes list-routes").await;
    let notes = String::from_utf8([listed.stdout, listed.stderr].concat()).unwrap();
    for words in ["nas: routes: 3 offered", "nas: ip-forwarding: off"] {
        assert!(notes.contains(words), "{words}: {notes}");
    }
    let (log, _) = server.stop();
    let dropped = log.lines();
    let dropped = dropped.filter(|line| line.contains("a node offers more routes than are kept"));
    let [line] = dropped.collect::<Vec<_>>()[..] else {
        panic!("{log}")
    };
    assert!(
        line.contains("dropped=3") && line.contains("limits.node_routes"),
        "{line}"
    );
}

#[tokio::test]
async fn a_key_that_ends_takes_the_device_offline_at_once() {
    let (server, mut devices) = household(&["nas", "pi"]).await;
    assert_eq!(online(&server).await, 2);
    // Its stream stays open.
    server.good("nodes expire nas").await;
    assert_eq!(online(&server).await, 1);
    assert_eq!(node(&server, 1).await["online"], false);
    let listed = server.good("nodes list").await;
    let line = listed.lines().find(|line| line.contains("nas")).unwrap();
    assert!(line.contains("expired"), "{line}");

    let logout = json!({"Expiry": "1970-01-01T00:02:03Z"});
    let answer = devices.nodes[1].register("pi", logout).await;
    assert_eq!(answer["NodeKeyExpired"], true, "{answer}");
    assert_eq!(online(&server).await, 0);
    assert_eq!(node(&server, 2).await["online"], false);
}

#[tokio::test]
async fn an_ephemeral_node_is_marked() {
    let (server, mut devices) = household(&["nas"]).await;
    let made = server
        .good("preauthkeys create --user home --ephemeral")
        .await;
    devices.join("runner", &keys_in(&made).pop().unwrap()).await;
    let listed = server.good("nodes list").await;
    let line = |name: &str| listed.lines().find(|line| line.contains(name)).unwrap();
    assert!(line("runner").contains("online, ephemeral"), "{listed}");
    assert!(!line("nas").contains("ephemeral"), "{listed}");
    let shown = server.good("nodes show runner").await;
    assert!(
        shown.contains("Ephemeral") && shown.contains("deleted when it logs out"),
        "{shown}"
    );
    assert_eq!(node(&server, 2).await["ephemeral"], true);
    assert_ne!(node(&server, 1).await["ephemeral"], true);
}

#[tokio::test]
async fn a_pending_device_is_listed_with_its_key_and_the_tags_that_it_requests() {
    let (server, mut devices) = household(&[]).await;
    let (mut tablet, url) = devices.ask_to_join("tablet").await;
    let listed = server.good("pending list").await;
    let page = server
        .get(&url[url.find("/register/").unwrap()..], &Auth::None)
        .await;
    // The same short form on the page, which the device shows.
    let (_, key) = page.body.split_once("<dt>Machine key</dt><dd>").unwrap();
    let key = &key[..11];
    assert_eq!(key.find('-'), Some(5), "{key}");
    let line = listed.lines().find(|line| line.contains("tablet")).unwrap();
    assert!(line.contains(key), "{key}: {listed}");

    // With another key: what the same key asks for stays as it was.
    tablet.node_key = format!("nodekey:{}", "ab".repeat(32));
    let wanted = json!({"Hostinfo": {"Hostname": "tablet", "RequestTags": ["tag:web"]}});
    tablet.register("tablet", wanted).await;
    let listed = server.good("pending list").await;
    assert!(listed.contains("tag:web"), "{listed}");
}

#[tokio::test]
async fn an_ssh_connection_that_waits_is_shown_and_unknown_nodes_look_like_others() {
    let (server, mut devices) = household(&["nas", "pi"]).await;
    let policy = server.path("policy");
    hearth::files::replace(&policy, POLICY.as_bytes()).unwrap();
    server
        .good(&format!("policy set --file {}", policy.display()))
        .await;
    let path = |source: u8, target: u8| {
        format!("/machine/ssh/action/{source}/to/{target}?local_user=root")
    };
    let (status, held) = devices.nodes[1].request("GET", &path(1, 2), "").await;
    assert_eq!(status, 200, "{held}");
    let (_, id) = held.rsplit_once("auth_id=").unwrap();
    let id = id.trim_end_matches(['"', '}']);
    let status = server.good("status").await;
    let words = "1 SSH connection wants approval: see `hearth ssh list`";
    assert!(status.contains(words), "{status}");
    let page = server.get(&format!("/ssh/{id}"), &Auth::None).await;
    assert_eq!(page.status, 200, "{}", page.body);
    for words in [
        "<dt>From</dt><dd>nas</dd>",
        "<dt>To</dt><dd>pi</dd>",
        "<dt>As user</dt><dd>root</dd>",
        "Services › hearth › Devices",
    ] {
        assert!(page.body.contains(words), "{words}: {}", page.body);
    }
    for verb in ["approve", "reject"] {
        let command = format!("hearth ssh {verb} {id}");
        assert!(page.body.contains(&command), "{command}: {}", page.body);
    }
    let unknown = server.get("/ssh/abc", &Auth::None).await;
    assert_eq!(unknown.status, 404);

    // Nobody sees anybody now: a node that exists and one that does not get the same answer, byte for byte.
    hearth::files::replace(&policy, b"{\"acls\": []}").unwrap();
    server
        .good(&format!("policy set --file {}", policy.display()))
        .await;
    let pi = &mut devices.nodes[1];
    let invisible = pi.request("GET", &path(1, 2), "").await;
    assert_eq!(invisible.0, 200, "{invisible:?}");
    let unknown = pi.request("GET", &path(99, 2), "").await;
    assert_eq!(unknown, invisible, "as a source");
    let invisible = pi.request("GET", &path(2, 1), "").await;
    assert_eq!(invisible.0, 401, "{invisible:?}");
    let unknown = pi.request("GET", &path(2, 99), "").await;
    assert_eq!(unknown, invisible, "as a target");
}

#[tokio::test]
async fn records_with_the_name_of_a_device_are_warned_of() {
    let record = "dns.records = [{ name = \"nas\", value = \"192.168.1.2\" }]\n";
    let (server, _devices) = household_with(record, &["pi"]).await;
    server.good("nodes rename pi nas --force").await;
    let status = server.good("status").await;
    let words = "the DNS record nas (configuration) has the name of a device (node 1)";
    assert!(status.contains(words), "{status}");
    let doctor = server.hearth("doctor").await;
    let doctor = String::from_utf8(doctor.stdout).unwrap();
    assert!(
        doctor.contains("DNS records with the name of a device"),
        "{doctor}"
    );

    server.good("nodes rename nas pi --force").await;
    assert!(!server.good("status").await.contains("the DNS record"));
    let policy = server.path("policy");
    hearth::files::replace(&policy, POLICY.as_bytes()).unwrap();
    server
        .good(&format!("policy set --file {}", policy.display()))
        .await;
    let words = "the DNS record pi (policy) has the name of a device (node 1)";
    assert!(server.good("status").await.contains(words));
    for _ in 0..1200 {
        if server.log().contains(words) {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(25)).await;
    }
    panic!("{}", server.log());
}

#[tokio::test]
async fn a_policy_that_was_never_valid_is_said_everywhere() {
    let config = |directory: &std::path::Path| {
        let file = directory.join("missing.hujson");
        format!("policy.file = {file:?}\n{LISTEN}")
    };
    let server = Server::start("serve", config).await;
    let status = server.good("status").await;
    for words in [
        "none is valid; no device can reach another",
        "there is no previous policy, so no device can reach another",
    ] {
        assert!(status.contains(words), "{words}: {status}");
    }
    let page = server.get("/", &Auth::None).await;
    assert!(
        page.body.contains("no device can reach another"),
        "{}",
        page.body
    );
    let (log, _) = server.stop();
    let mut lines = log.lines();
    let line = lines.find(|line| line.contains("no device can reach another"));
    assert!(line.is_some_and(|line| line.contains("ERROR")), "{log}");
}
