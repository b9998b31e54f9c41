//! Public addresses, and the findings of the doctor.

use std::path::Path;

use tokio::sync::mpsc;

use super::*;
use crate::net::tls::{CertNames, CertResolver, Identity};
use crate::status::wan::{Refreshed, WanStatus};
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

/// A self-signed certificate.
pub(super) fn served(directory: &Path) -> Arc<CertResolver> {
    let names = CertNames {
        common_name: "hearth".into(),
        addresses: vec!["192.168.1.1".parse().unwrap()],
        ..CertNames::default()
    };
    CertResolver::new(Identity::self_signed(directory, &names).unwrap())
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
        "url.lost-address",
        "memory",
    ] {
        assert!(ids.contains(&id), "{id} not in {ids:?}");
    }
    let problems = findings
        .iter()
        .filter(|one| one["level"] == "problem")
        .count();
    assert_eq!(diagnosis["counts"]["problem"], problems);
    assert_eq!(findings[0]["level"], "problem");
    assert_eq!(diagnosis["wan"]["interface"], "wan");
}
