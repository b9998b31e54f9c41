//! `/`: the start page.

use hyper::StatusCode;

use crate::status::policy::PolicyStatus;
use crate::web::html::{Builder, Page, Piece};
use hearth_core::state::snapshot::Snapshot;

/// The start page. It reveals nothing about the tailnet.
pub fn page(url: &str, snapshot: &Snapshot, policy: &PolicyStatus) -> Page {
    let fault = snapshot.disk_fault().map(|fault| {
        format!(
            "It is running, but changes are rejected: {fault}. Devices stay connected. See the status."
        )
    });
    let state = if let Some(fault) = &fault {
        fault
    } else if policy.is_closed(snapshot) {
        "It is running, but no device can reach another: the policy cannot be read. See the status."
    } else if !policy.fault.is_empty() {
        "It is running, but the new policy has an error and was not applied. See the status."
    } else {
        "It is running."
    };
    Builder::new(StatusCode::OK, "A tailnet at home")
        .paragraph(&[
            Piece::Text(
                "This is the control server of a private network (tailnet) for Tailscale clients. ",
            ),
            Piece::Text(state),
        ])
        .heading("Add a device")
        .paragraph(&[
            Piece::Link("/join", "Instructions for each system"),
            Piece::Text(", or, on a computer with the client installed:"),
        ])
        .command(&[
            Piece::Text("tailscale login --login-server="),
            Piece::Text(url),
        ])
        .heading("For the owner")
        .paragraph(&[
            Piece::Text("On the server, run "),
            Piece::Code("hearth invite"),
            Piece::Text(" to add one device without approval, or "),
            Piece::Code("hearth status"),
            Piece::Text(" to show the server status."),
        ])
        .finish()
}
