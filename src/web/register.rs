//! `/register/<id>`: a pending registration, how the owner approves it, and how an invitation does.

use std::sync::Arc;

use hyper::StatusCode;

use crate::status::names;
use crate::web::html::{Builder, Page, Piece};
use hearth_core::clock::Timestamp;
use hearth_core::id::AuthId;
use hearth_core::state::model::{Node, PendingRegistration, PendingState};
use hearth_core::state::snapshot::Snapshot;

/// Reload interval of a pending page, in seconds; and in browsers that run no scripts, where a reload loses what is
/// being typed.
const RELOAD_SECONDS: u32 = 3;
const RELOAD_SECONDS_WITHOUT_SCRIPT: u32 = 60;
/// The same after a refused key, so that the reason can be read.
const RELOAD_SECONDS_REFUSED: u32 = 30;
/// Most characters shown of a text from the device.
const SHOWN: usize = 64;

/// Fills in the invitation that this browser opened within the last hour (`join.rs`) until the device is decided.
/// Reloads the page, but not while somebody types.
const SCRIPT: &str = "\
(function(){\
var f=document.getElementById('key'),n=document.documentElement.dataset.reload,filled='';\
try{\
if(!f)localStorage.removeItem('hearth-invitation');\
var i=JSON.parse(localStorage.getItem('hearth-invitation'));\
if(f&&i&&i.until>Date.now()&&/^hskey-auth-[A-Za-z0-9_-]{70,90}$/.test(i.key))f.value=filled=i.key\
}catch(e){}\
if(n)setInterval(function(){\
if(!f||(f.value===filled&&document.activeElement!==f))location.replace(location.pathname)\
},n*1000)\
})()";

/// The page of a pending registration. `refusal` says why the key that was entered is not accepted, and with which
/// status.
pub fn page(id: &str, snapshot: &Snapshot, refusal: Option<(StatusCode, &str)>) -> Page {
    let login = id
        .parse::<AuthId>()
        .ok()
        .and_then(|id| snapshot.pending().get(&id));
    match login {
        None => gone(),
        Some(login) => match login.state {
            PendingState::Waiting => waiting(login, snapshot, refusal),
            PendingState::Rejected => rejected(login),
            PendingState::Approved(node) => approved(login, snapshot.node(node)),
        },
    }
}

fn waiting(
    login: &PendingRegistration,
    snapshot: &Snapshot,
    refusal: Option<(StatusCode, &str)>,
) -> Page {
    // The only user who can be meant; without tags `tag_approvers` are all.
    let mut users = names::tag_approvers(login, snapshot);
    let user = match (users.next(), users.next()) {
        (Some(only), None) => &only.name,
        _ => "NAME",
    };
    let tags = match login.hostinfo.request_tags.is_empty() {
        true => "",
        false => " --tags",
    };
    let command = format!("hearth pending approve {} --user {user}{tags}", login.id);
    let status = refusal.map_or(StatusCode::OK, |(status, _)| status);
    let seconds = refusal.map_or(RELOAD_SECONDS, |_| RELOAD_SECONDS_REFUSED);
    let mut page = Builder::new(status, "A device asks to join")
        .script(SCRIPT)
        .refresh_by_script(seconds, RELOAD_SECONDS_WITHOUT_SCRIPT);
    if let Some((_, reason)) = refusal {
        page = page.alert(reason);
    }
    device(page, login)
        .heading("If this is your device and you have an invitation")
        .key_form("Invitation", "Join")
        .heading("If you have no invitation")
        .paragraph(&[Piece::Text(
            "Send the owner of the network the address of this page. It updates once the device is approved.",
        )])
        .heading("If you are the owner")
        .paragraph(&[
            Piece::Text("Compare the machine key. Then approve or reject the device in LuCI ("),
            Piece::Text("Services › hearth › Devices"),
            Piece::Text("), or on the server:"),
        ])
        .command(&[Piece::Text(&command)])
        .command(&[Piece::Text(&format!("hearth pending reject {}", login.id))])
        .finish()
}

fn approved(login: &PendingRegistration, node: Option<&Arc<Node>>) -> Page {
    let name = node.map(|node| &*node.label);
    let page = Builder::new(StatusCode::OK, "Device approved")
        .script(SCRIPT)
        .paragraph(&[
            Piece::Text("It joins"),
            Piece::Text(if name.is_some() { " as " } else { "" }),
            Piece::Text(name.unwrap_or_default()),
            Piece::Text(match node {
                Some(node) if !node.authorized => {
                    ", and can connect to others once the owner approves the device."
                }
                _ => ". It connects automatically; you can close this page.",
            }),
        ]);
    device(page, login).finish()
}

fn rejected(login: &PendingRegistration) -> Page {
    let page = Builder::new(StatusCode::OK, "Device rejected")
        .script(SCRIPT)
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
    let since = minutes(login.created);
    let tags = shown(&tags);
    let mut facts = vec![
        ("Device", name.as_str()),
        ("System", &system),
        ("Client", &client),
        ("Requested at", &since),
        ("Machine key", &machine),
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
