//! `/register/<id>`: which device asks to join, and what its owner does about it.

use hyper::StatusCode;

use crate::web::html::{Builder, Page, Piece};
use hearth_core::clock::Timestamp;
use hearth_core::id::AuthId;
use hearth_core::state::model::{PendingRegistration, PendingState};
use hearth_core::state::snapshot::Snapshot;

/// How often a page that waits looks again, in seconds.
const LOOK_AGAIN: u32 = 3;
/// Most characters of a text of the device that are shown.
const SHOWN: usize = 64;

/// The page of a login.
pub fn page(id: &str, snapshot: &Snapshot) -> Page {
    let login = id
        .parse::<AuthId>()
        .ok()
        .and_then(|id| snapshot.pending().get(&id));
    match login {
        None => gone(),
        Some(login) => match login.state {
            PendingState::Waiting => waiting(login, snapshot),
            PendingState::Rejected => rejected(login),
            PendingState::Approved(node) => {
                let node = snapshot.node(node);
                approved(login, node.map(|node| &*node.label))
            }
        },
    }
}

fn waiting(login: &PendingRegistration, snapshot: &Snapshot) -> Page {
    let mut users = snapshot.users().values();
    let user = match (users.next(), users.next()) {
        (Some(only), None) => &only.name,
        _ => "NAME",
    };
    let command = format!("hearth pending approve {} --user {user}", login.id);
    let page = Builder::new(StatusCode::OK, "A device asks to join")
        .refresh(LOOK_AGAIN)
        .paragraph(&[Piece::Text(
            "It waits until the owner of this network lets it in.",
        )]);
    device(page, login)
        .heading("If you are the owner")
        .paragraph(&[Piece::Text(
            "Make sure that this is the device you expect. Then, on the machine that runs hearth:",
        )])
        .command(&[Piece::Text(&command)])
        .paragraph(&[
            Piece::Text("To turn it away: "),
            Piece::Code(&format!("hearth pending reject {}", login.id)),
        ])
        .heading("If you are not")
        .paragraph(&[Piece::Text(
            "Send the owner the address of this page. It shows by itself when you are in.",
        )])
        .finish()
}

fn approved(login: &PendingRegistration, label: Option<&str>) -> Page {
    let page = Builder::new(StatusCode::OK, "The device is in").paragraph(&[
        Piece::Text("It was approved"),
        Piece::Text(if label.is_some() { " as " } else { "" }),
        Piece::Text(label.unwrap_or_default()),
        Piece::Text(" and connects by itself. You can close this page."),
    ]);
    device(page, login).finish()
}

fn rejected(login: &PendingRegistration) -> Page {
    let page = Builder::new(StatusCode::OK, "The device was turned away")
        .paragraph(&[Piece::Text("The owner of this network said no.")]);
    device(page, login).finish()
}

/// For ids that never were, too: who tries ids learns nothing.
fn gone() -> Page {
    Builder::new(StatusCode::NOT_FOUND, "No login waits here")
        .paragraph(&[Piece::Text(
            "It was decided a while ago, or it waited too long. To ask again, run on the device:",
        )])
        .command(&[Piece::Text("tailscale up")])
        .paragraph(&[Piece::Text(
            "In an app, log in again. Either shows the address of a new page.",
        )])
        .finish()
}

fn device(page: Builder, login: &PendingRegistration) -> Builder {
    let tags = login.hostinfo.request_tags.join(", ");
    let name = shown(&login.hostinfo.hostname);
    let system = shown(&login.hostinfo.os);
    let client = shown(&login.hostinfo.client_version);
    let machine = format!("{:?}", login.machine);
    let key = format!("{:?}", login.key);
    let since = minutes(login.created);
    let tags = shown(&tags);
    let mut facts = vec![
        ("Device", name.as_str()),
        ("System", &system),
        ("Client", &client),
        ("Asked at", &since),
        ("Machine key", &machine),
        ("Node key", &key),
    ];
    if !login.hostinfo.request_tags.is_empty() {
        facts.push(("Asks for tags", &tags));
    }
    if login.ephemeral {
        facts.push(("Ephemeral", "yes: forgotten when it leaves"));
    }
    page.facts(&facts)
}

pub(super) fn shown(text: &str) -> String {
    if text.is_empty() {
        return "not said".into();
    }
    let mut shown: String = text.chars().take(SHOWN).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
}

pub(super) fn minutes(time: Timestamp) -> String {
    let text = time.to_string();
    let minutes = text.get(..16).unwrap_or(&text);
    format!("{} UTC", minutes.replace('T', " "))
}
