//! `/ssh/<id>`: an SSH connection that waits for approval, and how the owner approves it.

use hyper::StatusCode;

use crate::status::ssh_checks::{Check, Verdict};
use crate::web::html::{Builder, Page, Piece};
use crate::web::register::{minutes, shown};
use hearth_core::id::NodeId;
use hearth_core::state::snapshot::Snapshot;

/// Reload interval of a pending page, in seconds.
const RELOAD_SECONDS: u32 = 3;

/// The page of an SSH connection; `None` for one that is unknown or expired.
pub fn page(check: Option<&Check>, snapshot: &Snapshot) -> Page {
    let Some(check) = check else {
        return gone();
    };
    let page = match check.verdict {
        Verdict::Waiting => Builder::new(StatusCode::OK, "An SSH connection needs approval")
            .refresh(RELOAD_SECONDS)
            .paragraph(&[Piece::Text("It is waiting for approval by the owner.")]),
        Verdict::Approved => {
            Builder::new(StatusCode::OK, "SSH connection approved").paragraph(&[Piece::Text(
                "It continues automatically; you can close this page.",
            )])
        }
        Verdict::Rejected => Builder::new(StatusCode::OK, "SSH connection rejected")
            .paragraph(&[Piece::Text("The owner rejected this connection.")]),
    };
    let name = |id: NodeId| {
        let node = snapshot.node(id);
        shown(node.map(|node| &*node.label).unwrap_or_default())
    };
    let (source, target) = (name(check.attempt.source), name(check.attempt.target));
    let user = shown(&check.attempt.local_user);
    let since = minutes(check.since);
    let page = page.facts(&[
        ("From", &source),
        ("To", &target),
        ("As user", &user),
        ("Requested at", &since),
    ]);
    if check.verdict != Verdict::Waiting {
        return page.finish();
    }
    page.heading("If you are the owner")
        .paragraph(&[Piece::Text(
            "Check that you or someone you trust is connecting. Then approve or reject the connection in LuCI \
             (Services › hearth › Devices), or on the server:",
        )])
        .command(&[Piece::Text(&format!("hearth ssh approve {}", check.id))])
        .command(&[Piece::Text(&format!("hearth ssh reject {}", check.id))])
        .heading("If you are not the owner")
        .paragraph(&[Piece::Text("Send the owner the URL of this page.")])
        .finish()
}

/// Also shown for IDs that never existed, so that guessing reveals nothing.
fn gone() -> Page {
    Builder::new(
        StatusCode::NOT_FOUND,
        "No SSH connection is waiting for approval",
    )
    .paragraph(&[Piece::Text(
        "It was approved or rejected, or it has expired. Connect again to get a new page.",
    )])
    .finish()
}
