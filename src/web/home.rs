//! `/`: what this is and where to go.

use hyper::StatusCode;

use crate::status::policy::PolicyStatus;
use crate::web::html::{Builder, Page, Piece};
use hearth_core::state::snapshot::Snapshot;

/// The page. It tells nothing about the tailnet to strangers.
pub fn page(url: &str, snapshot: &Snapshot, place: &PolicyStatus) -> Page {
    let state = if !snapshot.is_writable() {
        "It is running, but cannot store changes at the moment: see its log."
    } else if !place.fault.is_empty() {
        "It is running, but its new policy has a fault and does not apply: see its status."
    } else {
        "It is running."
    };
    Builder::new(StatusCode::OK, "A tailnet at home")
        .paragraph(&[
            Piece::Text("This is the control server of a private network for Tailscale clients. "),
            Piece::Text(state),
        ])
        .heading("Add a device")
        .paragraph(&[
            Piece::Link("/join", "Steps for each system"),
            Piece::Text(", or on a computer that has the client:"),
        ])
        .command(&[
            Piece::Text("tailscale up --login-server="),
            Piece::Text(url),
        ])
        .heading("For the owner")
        .paragraph(&[
            Piece::Text("On the machine that runs hearth, "),
            Piece::Code("hearth invite"),
            Piece::Text(" lets one device in without asking back, and "),
            Piece::Code("hearth status"),
            Piece::Text(" shows how things are."),
        ])
        .finish()
}
