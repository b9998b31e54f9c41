//! Web pages as a browser gets them.

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::status::policy::PolicyStatus;
use hearth_core::clock::PLAUSIBLE_FROM;
use hearth_core::disk::{Cause, DiskFault};
use hearth_core::id::NodeId;
use hearth_core::keys::{MachineKey, NodeKey};
use hearth_core::state::model::{Hostinfo, Model, PendingRegistration, PendingState};
use hearth_core::state::snapshot::Snapshot;
use hearth_core::state::testing::World;
use hearth_shares::Source;
use hyper::StatusCode;

const URL: &str = "http://192.168.1.1:8080";

fn with_login(hostname: &str, state: PendingState) -> Model {
    let (mut world, _) = World::with_user();
    let login = PendingRegistration {
        id: "abc-DEF_1".parse().unwrap(),
        machine: MachineKey::from_bytes([1; 32]),
        key: NodeKey::from_bytes([2; 32]),
        lock: None,
        hostinfo: Arc::new(Hostinfo {
            hostname: hostname.into(),
            os: "linux".into(),
            ..Hostinfo::default()
        }),
        ephemeral: false,
        expiry: None,
        capability: 130,
        source: Source::of([192, 0, 2, 1].into()),
        created: PLAUSIBLE_FROM,
        asked: Duration::ZERO,
        state,
    };
    Arc::make_mut(&mut world.model.pending).insert(login.id.clone(), Arc::new(login));
    world.model
}

fn register(hostname: &str, state: PendingState) -> Page {
    let snapshot = Snapshot::of(&with_login(hostname, state), None);
    register::page("abc-DEF_1", &snapshot, None)
}

#[test]
fn a_pending_device_is_shown_with_the_commands_of_the_owner() {
    let page = register("laptop", PendingState::Waiting);
    assert_eq!(page.status, StatusCode::OK);
    for part in [
        "<dd>laptop</dd>",
        "<dd>linux</dd>",
        "<dd>2026-01-01 00:00 UTC</dd>",
        "hearth pending approve abc-DEF_1 --user ",
        "hearth pending reject abc-DEF_1",
        "Services › hearth › Devices",
        "<dd>01010-10101</dd>",
        "<form method=\"post\"",
        "http-equiv=\"refresh\"",
    ] {
        assert!(page.text.contains(part), "{part}: {}", page.text);
    }
    assert!(!page.text.contains("--user NAME"), "the only user is named");
}

#[test]
fn a_decided_registration_is_shown_and_reloads_no_more() {
    let approved = register("laptop", PendingState::Approved(NodeId::FIRST));
    assert!(approved.text.contains("Device approved"));
    let rejected = register("laptop", PendingState::Rejected);
    assert!(rejected.text.contains("The owner rejected this device."));
    for page in [approved, rejected] {
        assert!(!page.text.contains("refresh") && !page.text.contains("pending approve"));
    }
}

#[test]
fn an_unknown_registration_shows_how_to_register_again() {
    let snapshot = Snapshot::of(&with_login("laptop", PendingState::Waiting), None);
    for id in ["other", "", "a/b", "<script>", "abc-DEF_1/"] {
        let page = register::page(id, &snapshot, None);
        assert_eq!(page.status, StatusCode::NOT_FOUND, "{id}");
        assert!(page.text.contains("href=\"/join\""));
        assert!(!page.text.contains("laptop") && !page.text.contains("<script"));
    }
}

#[test]
fn a_device_cannot_name_itself_into_the_page() {
    let name = format!("</dd><script>alert(1)</script>{}", "x".repeat(10_000));
    let page = register(&name, PendingState::Waiting);
    assert!(!page.text.contains("<script>alert"), "{}", page.text);
    assert_eq!(page.text.matches("<script").count(), 1, "its own");
    assert!(page.text.len() < 9000, "{}", page.text.len());
}

#[test]
fn a_refused_key_is_explained_and_can_be_entered_again() {
    let snapshot = Snapshot::of(&with_login("laptop", PendingState::Waiting), None);
    let refusal = Some((StatusCode::FORBIDDEN, "This key <is> not valid."));
    let page = register::page("abc-DEF_1", &snapshot, refusal);
    assert_eq!(page.status, StatusCode::FORBIDDEN);
    let alert = page.text.find("This key &lt;is&gt; not valid.").unwrap();
    assert!(alert < page.text.find("<form").unwrap());
}

#[test]
fn only_a_page_with_a_form_may_send_one_and_only_to_this_server() {
    let waiting = register("laptop", PendingState::Waiting);
    assert!(waiting.policy().contains("form-action 'self'"));
    for page in [
        register("laptop", PendingState::Rejected),
        register("laptop", PendingState::Approved(NodeId::FIRST)),
        join::page(URL, ""),
    ] {
        assert!(page.policy().contains("form-action 'none'"));
        assert!(!page.text.contains("<form"));
    }
}

#[test]
fn the_join_page_has_the_server_and_a_place_for_the_key() {
    let page = join::page(URL, "");
    assert!(page.text.contains(&format!("--login-server={URL}")));
    assert!(page.text.matches("<span data-key>KEY</span>").count() >= 2);
    for system in ["Linux", "macOS", "Windows", "Android", "iPhone", "Apple TV"] {
        assert!(page.text.contains(system), "{system}");
    }
    assert!(page.policy().contains("script-src 'sha256-"));
}

#[test]
fn the_start_page_says_why_nothing_can_be_changed_and_since_when() {
    let fault = DiskFault {
        cause: Cause::ReadOnly,
        detail: "in /var/lib/hearth".into(),
        since: PLAUSIBLE_FROM,
    };
    let snapshot = Snapshot::of(&World::new().model, Some(Arc::new(fault)));
    let page = home::page(URL, &snapshot, &PolicyStatus::default());
    let since = PLAUSIBLE_FROM.to_string();
    for part in [
        "changes are rejected",
        "the file system is read-only",
        &since,
    ] {
        assert!(page.text.contains(part), "{}", page.text);
    }
    // Anyone can open it.
    assert!(!page.text.contains("/var/lib"));
}

#[test]
fn the_start_page_says_that_a_policy_that_was_never_valid_closes_the_tailnet() {
    let mut world = World::new();
    let said = |world: &World, status: &PolicyStatus| {
        let page = home::page(URL, &Snapshot::of(&world.model, None), status);
        page.text.contains("no device can reach another")
    };
    let fault = PolicyStatus {
        file: Some("/etc/hearth/policy.hujson".into()),
        fault: "line 1, column 1: x".into(),
        ..PolicyStatus::default()
    };
    assert!(!said(&world, &fault));
    Arc::make_mut(&mut world.model.settings).policy_is_configured = true;
    assert!(said(&world, &fault));
    // One that applied once stays in effect.
    world.set_policy("{}");
    assert!(!said(&world, &fault));
    let page = home::page(URL, &Snapshot::of(&world.model, None), &fault);
    assert!(page.text.contains("the new policy has an error"));
    assert!(!page.text.contains("/etc/hearth"), "anyone can open it");
}

#[test]
fn no_page_loads_anything_from_elsewhere() {
    let snapshot = Snapshot::of(&with_login("laptop", PendingState::Waiting), None);
    let pages = [
        home::page(URL, &snapshot, &PolicyStatus::default()),
        join::page(URL, ""),
        register("laptop", PendingState::Waiting),
    ];
    for page in pages {
        for loader in [
            "src=", "<link", "@import", "url(", "<img", "<iframe", "style=",
        ] {
            assert!(!page.text.contains(loader), "{loader}");
        }
        assert_eq!(page.text.matches("<main>").count(), 1);
        assert!(page.text.ends_with("</html>\n"));
    }
}

#[test]
fn answers_carry_the_policy() {
    let answer = answer(join::page(URL, ""));
    let header = |name: &str| answer.headers()[name].to_str().unwrap().to_owned();
    assert_eq!(header("referrer-policy"), "no-referrer");
    assert_eq!(header("cache-control"), "no-store");
    assert!(
        header("content-security-policy").starts_with("default-src 'none'; style-src 'sha256-")
    );
}
