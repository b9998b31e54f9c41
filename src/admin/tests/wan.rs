//! Public addresses, and the findings of the doctor.

use std::path::Path;

use tokio::sync::mpsc;

use super::*;
use crate::net::tls::{CertNames, CertResolver, Identity};
use crate::status::wan::{Refreshed, WanStatus};
use hearth_core::doctor::public_url::{Answer, PublicCheck};
use hearth_core::wan::{Addresses, Report};

fn report() -> Report {
    let own = Addresses {
        v4: "100.71.2.3".parse().ok(),
        v6: None,
    };
    Report {
        interface: "wan".into(),
        own,
        has_route: true,
        ..Report::default()
    }
}

/// A status with [`report`], which answers the first refresh with a change.
pub(super) fn wan_status() -> WanStatus {
    let (asking, mut refreshes) = mpsc::channel::<tokio::sync::oneshot::Sender<Refreshed>>(1);
    let report = Arc::new(report());
    let (_, known) = watch::channel(report.clone());
    #[expect(clippy::disallowed_methods, reason = "it ends with the test's runtime")]
    tokio::spawn(async move {
        if let Some(asker) = refreshes.recv().await {
            let changed = true;
            let _ = asker.send(Refreshed { changed, report });
        }
    });
    WanStatus::new(known, asking)
}

/// The last check of `server_url`; another one cannot be made.
pub(super) fn public_url(last: Option<PublicCheck>) -> PublicUrlStatus {
    let (_, last) = watch::channel(last.map(Arc::new));
    PublicUrlStatus::new(last, mpsc::channel(1).0)
}

/// A self-signed certificate.
pub(super) fn served(directory: &Path) -> Arc<CertResolver> {
    let names = CertNames {
        common_name: "hearth".into(),
        addresses: vec!["192.168.1.1".parse().unwrap()],
        ..CertNames::default()
    };
    CertResolver::new(
        Identity::self_signed(
            directory,
            &names,
            hearth_core::clock::Timestamp::from_unix_ms(0),
        )
        .unwrap(),
    )
}

#[tokio::test]
async fn a_refresh_reports_a_change_and_fails_when_no_task_answers() {
    let server = server();
    let (status, wan) = server.ask("GET", "hearth/wan", Value::Null).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(
        (&wan["changed"], &wan["kind"]),
        (&json!(false), &json!("carrier"))
    );
    let (status, wan) = server.ask("POST", "hearth/wan", Value::Null).await;
    assert_eq!((status, &wan["changed"]), (StatusCode::OK, &json!(true)));
    let (status, _) = server.ask("POST", "hearth/wan", Value::Null).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn the_doctor_names_what_is_wrong_first() {
    let server = server();
    let (status, diagnosis) = server.ask("GET", "hearth/doctor", Value::Null).await;
    assert_eq!(status, StatusCode::OK);
    let findings = diagnosis["findings"].as_array().unwrap();
    let ids: Vec<&str> = findings
        .iter()
        .map(|one| one["id"].as_str().unwrap())
        .collect();
    assert_eq!(diagnosis["worst"], "problem");
    for id in [
        "wan.carrier-nat",
        "wan.prefix-collision",
        "relay.none",
        "memory",
    ] {
        assert!(ids.contains(&id), "{id} not in {ids:?}");
    }
    // An emulator may not say which addresses this machine has; then the URL is only a private one.
    let of_url = ["url.lost-address", "url.private"];
    assert!(of_url.iter().any(|id| ids.contains(id)), "{ids:?}");
    let problems = findings
        .iter()
        .filter(|one| one["level"] == "problem")
        .count();
    assert_eq!(diagnosis["counts"]["problem"], problems);
    assert_eq!(findings[0]["level"], "problem");
    assert_eq!(diagnosis["wan"]["interface"], "wan");
}

#[tokio::test]
async fn status_and_doctor_report_a_proxy_that_drops_upgrades() {
    let mut server = server();
    let status = server.good("GET", "hearth/status", Value::Null).await;
    assert_eq!(status["warnings"], json!(["a warning"]));
    let source = [127, 0, 0, 1].into();
    let dropped = &server.admin.about.dropped_upgrades;
    dropped.dropped(source, "/ts2021", system_clock::now());
    let status = server.good("GET", "hearth/status", Value::Null).await;
    let text = "A proxy removes the Upgrade header of clients; see `hearth doctor`";
    assert_eq!(status["warnings"], json!(["a warning", text]));
    let first = |doctor: &Value| {
        let findings = doctor["findings"].as_array().unwrap().iter();
        let mut ours = findings.filter(|finding| {
            let id = finding["id"].as_str().unwrap();
            id.starts_with("proxy.") || id.starts_with("public.")
        });
        let finding = ours.next().unwrap();
        assert!(ours.next().is_none());
        assert!(
            finding["advice"]
                .as_str()
                .unwrap()
                .contains("$http_upgrade")
        );
        finding["id"].as_str().unwrap().to_owned()
    };
    let doctor = server.good("GET", "hearth/doctor", Value::Null).await;
    assert_eq!(first(&doctor), "proxy.upgrade");
    server.admin.about.dropped_upgrades.passed(source);
    server.admin.about.public_url = public_url(Some(PublicCheck {
        url: "https://home.example".into(),
        certificate: None,
        key: Answer::Good,
        control: Answer::Status(400),
        relay: None,
        stun: None,
    }));
    let doctor = server.good("GET", "hearth/doctor", Value::Null).await;
    assert_eq!(first(&doctor), "public.upgrade");
    let status = server.good("GET", "hearth/status", Value::Null).await;
    let text = "A proxy does not pass upgrades to hearth; see `hearth doctor`";
    assert_eq!(status["warnings"], json!(["a warning", text]));
}
