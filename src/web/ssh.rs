//! `/ssh/<id>`: which SSH connection has to be confirmed, and what its owner does about it.

use hyper::StatusCode;

use crate::status::ssh_checks::{Check, Verdict};
use crate::web::html::{Builder, Page, Piece};
use crate::web::register::{minutes, shown};
use hearth_core::id::NodeId;
use hearth_core::state::snapshot::Snapshot;

/// How often a page that waits looks again, in seconds.
const LOOK_AGAIN: u32 = 3;

/// The page of an SSH connection; `None` is one that is not known, or not any more.
pub fn page(check: Option<&Check>, snapshot: &Snapshot) -> Page {
    let Some(check) = check else {
        return gone();
    };
    let page = match check.verdict {
        Verdict::Waiting => Builder::new(StatusCode::OK, "An SSH connection asks to be let in")
            .refresh(LOOK_AGAIN)
            .paragraph(&[Piece::Text(
                "It waits until the owner of this network confirms it.",
            )]),
        Verdict::Approved => Builder::new(StatusCode::OK, "The SSH connection was confirmed")
            .paragraph(&[Piece::Text(
                "It goes on by itself. You can close this page.",
            )]),
        Verdict::Rejected => Builder::new(StatusCode::OK, "The SSH connection was turned away")
            .paragraph(&[Piece::Text("The owner of this network said no.")]),
    };
    let name = |id: NodeId| {
        let node = snapshot.node(id);
        shown(node.map(|node| &*node.label).unwrap_or_default())
    };
    let (source, target) = (name(check.way.source), name(check.way.target));
    let user = shown(&check.way.local_user);
    let since = minutes(check.since);
    let page = page.facts(&[
        ("From", &source),
        ("To", &target),
        ("As user", &user),
        ("Asked at", &since),
    ]);
    if check.verdict != Verdict::Waiting {
        return page.finish();
    }
    page.heading("If you are the owner")
        .paragraph(&[Piece::Text(
            "Make sure that it is you who connects, or somebody who may. Then, on the machine that runs hearth:",
        )])
        .command(&[Piece::Text(&format!("hearth ssh approve {}", check.id))])
        .paragraph(&[
            Piece::Text("To turn it away: "),
            Piece::Code(&format!("hearth ssh reject {}", check.id)),
        ])
        .heading("If you are not")
        .paragraph(&[Piece::Text("Send the owner the address of this page.")])
        .finish()
}

/// For ids that never were, too: who tries ids learns nothing.
fn gone() -> Page {
    Builder::new(StatusCode::NOT_FOUND, "No SSH connection waits here")
        .paragraph(&[Piece::Text(
            "It was decided a while ago, or it waited too long. Connect again to get a new page.",
        )])
        .finish()
}
