//! `/register/<id>`: a pending registration, and how the owner approves it.

use hyper::StatusCode;

use crate::web::html::{Builder, Page, Piece};
use hearth_core::clock::Timestamp;
use hearth_core::id::AuthId;
use hearth_core::state::model::{PendingRegistration, PendingState};
use hearth_core::state::snapshot::Snapshot;

/// Reload interval of a pending page, in seconds.
const RELOAD_SECONDS: u32 = 3;
/// Most characters shown of a text from the device.
const SHOWN: usize = 64;

/// The page of a pending registration.
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
        .refresh(RELOAD_SECONDS)
        .paragraph(&[Piece::Text("It is waiting for approval by the owner.")]);
    device(page, login)
        .heading("If you are the owner")
        .paragraph(&[Piece::Text(
            "Check that this is the device you expect. Then run on the server:",
        )])
        .command(&[Piece::Text(&command)])
        .paragraph(&[
            Piece::Text("To reject it: "),
            Piece::Code(&format!("hearth pending reject {}", login.id)),
        ])
        .heading("If you are not the owner")
        .paragraph(&[Piece::Text(
            "Send the owner the URL of this page. This page updates once you are approved.",
        )])
        .finish()
}

fn approved(login: &PendingRegistration, label: Option<&str>) -> Page {
    let page = Builder::new(StatusCode::OK, "Device approved").paragraph(&[
        Piece::Text("It was approved"),
        Piece::Text(if label.is_some() { " as " } else { "" }),
        Piece::Text(label.unwrap_or_default()),
        Piece::Text(". It connects automatically; you can close this page."),
    ]);
    device(page, login).finish()
}

fn rejected(login: &PendingRegistration) -> Page {
    let page = Builder::new(StatusCode::OK, "Device rejected")
        .paragraph(&[Piece::Text("The owner rejected this device.")]);
    device(page, login).finish()
}

/// Also shown for IDs that never existed, so that guessing reveals nothing.
fn gone() -> Page {
    Builder::new(StatusCode::NOT_FOUND, "No pending registration")
        .paragraph(&[Piece::Text(
            "It was approved or rejected, or it has expired. Log in again on the device; you get the URL of a new page.",
        )])
        .paragraph(&[Piece::Link("/join", "Instructions for each system")])
        .finish()
}

fn device(page: Builder, login: &PendingRegistration) -> Builder {
    let tags = login.hostinfo.request_tags.join(", ");
    let name = shown(&login.hostinfo.hostname);
    let system = shown(&login.hostinfo.os);
    let client = shown(&login.hostinfo.client_version);
    let machine = login.machine.short();
    let key = format!("{:?}", login.key);
    let since = minutes(login.created);
    let tags = shown(&tags);
    let mut facts = vec![
        ("Device", name.as_str()),
        ("System", &system),
        ("Client", &client),
        ("Requested at", &since),
        ("Machine key", &machine),
        ("Node key", &key),
    ];
    if !login.hostinfo.request_tags.is_empty() {
        facts.push(("Requested tags", &tags));
    }
    if login.ephemeral {
        facts.push(("Ephemeral", "yes: deleted when it disconnects"));
    }
    page.facts(&facts)
}

pub(super) fn shown(text: &str) -> String {
    if text.is_empty() {
        return "unknown".into();
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
