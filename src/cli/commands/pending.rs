//! `hearth pending` and `hearth auth`.

use serde_json::Value;

use crate::api::{self, DecideLogin, Node, NodeAnswer, NumberText, PendingAnswer, User};
use crate::cli::args::{Auth, OnePending, Pending};
use crate::cli::client::{CliError, escaped, read};
use crate::cli::context::Ctx;
use crate::cli::lookup;
use crate::cli::output::{Output, cell, when};

const PATH: &str = "/api/v1/hearth/pending";

/// Most users that a message names.
const NAMED_MAX: usize = 10;

/// State of a registration that nobody has decided about.
const WAITING: &str = "waiting";

/// Carries out a command about devices that wait to join.
pub fn run(ctx: &Ctx, command: Pending) -> Result<Output, CliError> {
    match command {
        Pending::List => list(ctx),
        Pending::Approve { which, user, tags } => {
            let id = find(ctx, &which)?;
            approve_id(ctx, &id, user.as_deref(), tags)
        }
        Pending::Reject { which } => {
            let id = find(ctx, &which)?;
            reject_id(ctx, &id)
        }
    }
}

/// Carries out a command in Headscale's spelling.
pub fn run_auth(ctx: &Ctx, command: Auth) -> Result<Output, CliError> {
    match command {
        Auth::Register {
            user,
            auth_id,
            tags,
        } => approve_id(ctx, &auth_id, Some(&user), tags),
        Auth::Approve { auth_id, tags } => approve_either(ctx, &id_in(&auth_id), tags),
        Auth::Reject { auth_id } => reject_id(ctx, &auth_id),
    }
}

/// Approves a pending registration by its ID or URL, with the tags that the device requests only if `with_tags` says so
/// or a person agrees.
pub fn approve_id(
    ctx: &Ctx,
    id: &str,
    user: Option<&str>,
    with_tags: bool,
) -> Result<Output, CliError> {
    let auth_id = id_in(id);
    let chosen = user.map(|user| lookup::user(&ctx.client, user));
    let chosen = chosen.transpose()?;
    let login = registration(ctx, &auth_id)?;
    if let Some(fault) = login.and_then(|login| tags_fault(&login, chosen.as_ref(), with_tags)) {
        return Err(CliError::Command(fault));
    }
    let user = match chosen {
        Some(user) => user,
        None => lookup::only_user(&ctx.client)?,
    };
    confirm_tags(ctx, &auth_id, Some(&user), with_tags)?;
    let body = DecideLogin {
        user: NumberText(user.name),
        auth_id,
    };
    let answer = ctx.client.post("/api/v1/auth/register", &body)?;
    let NodeAnswer { node, .. } = read(&answer)?;
    Ok(ctx.field(&answer, "node", || became(&node)))
}

/// Approves a pending registration for the only user, or an SSH connection.
fn approve_either(ctx: &Ctx, id: &str, with_tags: bool) -> Result<Output, CliError> {
    confirm_tags(ctx, id, None, with_tags)?;
    let answer = decide(ctx, id, "approve")?;
    // An SSH connection is not among the registrations.
    let approved = registration(ctx, id)?.and_then(|login| login.node_id);
    let text = match approved {
        Some(id) => {
            let path = format!("/api/v1/node/{}", escaped(&id));
            let NodeAnswer { node, .. } = read(&ctx.client.get(&path)?)?;
            became(&node)
        }
        None => "approved".into(),
    };
    Ok(ctx.output(&answer, || text))
}

/// What an approved device became, which is not always what was asked for.
fn became(node: &Node) -> String {
    let (name, id) = (cell(&node.given_name), &node.id);
    let user = node.user.as_ref().map(|user| user.name.as_str());
    let whose = match node.tags.is_empty() {
        true => format!("of {}", cell(user.unwrap_or_default())),
        false => format!("tagged {}, of no user,", cell(&node.tags.join(", "))),
    };
    let addresses = node.ip_addresses.join(" and ");
    format!("approved {name} as node {id} {whose} with {addresses}")
}

/// Why a device that requests tags cannot be approved in this way, and the command that can: `user` may not own them all,
/// or nobody was named and several may.
fn tags_fault(login: &api::Pending, user: Option<&User>, with_tags: bool) -> Option<String> {
    let approvers = login.tag_approvers.as_ref()?;
    let (name, tags) = (cell(&login.name), cell(&login.request_tags.join(", ")));
    let names: Vec<String> = approvers
        .iter()
        .take(NAMED_MAX)
        .map(|name| cell(name))
        .collect();
    let more = if approvers.len() > NAMED_MAX {
        ", …"
    } else {
        ""
    };
    let names = names.join(", ") + more;
    let command = |user: &str| format!("`{}`", approval(&login.auth_id, Some(user), true));
    match (approvers.as_slice(), user) {
        ([], _) => Some(format!(
            "{name} requests {tags}, which no user may own: name an owner in `tagOwners` of the policy (`hearth policy get`), or log in without tags on {name}: `tailscale up --login-server=URL --advertise-tags=`"
        )),
        (_, Some(user)) if !approvers.contains(&user.name) => {
            let (user, first) = (cell(&user.name), approvers.first()?);
            let command = command(first);
            Some(format!(
                "{name} requests {tags}, which {user} may not own (`tagOwners` in the policy); these may: {names}. Approve it with {command}: it then belongs to the tags, not to a user"
            ))
        }
        ([_, _, ..], None) if with_tags => {
            let command = command("NAME");
            Some(format!(
                "{name} requests {tags}; add a user who may own them ({names}): {command}"
            ))
        }
        _ => None,
    }
}

/// The command that approves a registration.
fn approval(id: &str, user: Option<&str>, with_tags: bool) -> String {
    let user = user.map(|user| format!(" --user {}", cell(user)));
    let tags = if with_tags { " --tags" } else { "" };
    format!(
        "hearth pending approve {id}{}{tags}",
        user.unwrap_or_default()
    )
}

/// Refuses to approve a device that requests tags, unless that was asked for.
fn confirm_tags(ctx: &Ctx, id: &str, user: Option<&User>, with_tags: bool) -> Result<(), CliError> {
    let login = registration(ctx, id)?;
    let Some(login) = login.filter(|login| !login.request_tags.is_empty() && !with_tags) else {
        return Ok(());
    };
    let (name, tags) = (cell(&login.name), cell(&login.request_tags.join(", ")));
    let question = format!("make {name} a device with {tags} that belongs to no user");
    match ctx.asked(&question) {
        Some(true) => Ok(()),
        Some(false) => Err(CliError::Declined),
        None => {
            let command = approval(id, user.map(|user| user.name.as_str()), true);
            Err(CliError::Command(format!(
                "{name} requests {tags}; to approve it with these tags: `{command}`"
            )))
        }
    }
}

/// The registration with this ID, if there is one.
fn registration(ctx: &Ctx, id: &str) -> Result<Option<api::Pending>, CliError> {
    let PendingAnswer { pending } = read(&ctx.client.get(PATH)?)?;
    Ok(pending.into_iter().find(|login| login.auth_id == id))
}

fn reject_id(ctx: &Ctx, id: &str) -> Result<Output, CliError> {
    let answer = decide(ctx, id, "reject")?;
    Ok(ctx.output(&answer, || "rejected".into()))
}

/// Approves or rejects a pending registration, or an SSH connection, by its ID or URL.
fn decide(ctx: &Ctx, id: &str, verb: &str) -> Result<Value, CliError> {
    let body = DecideLogin {
        user: NumberText::default(),
        auth_id: id_in(id),
    };
    ctx.client.post(&format!("/api/v1/auth/{verb}"), &body)
}

/// The ID in a text that may be a whole URL.
pub fn id_in(text: &str) -> String {
    let text = text.trim_end_matches('/');
    text.rsplit('/').next().unwrap_or(text).to_owned()
}

fn list(ctx: &Ctx) -> Result<Output, CliError> {
    let answer = ctx.client.get(PATH)?;
    let PendingAnswer { pending } = read(&answer)?;
    Ok(ctx.field(&answer, "pending", || {
        let rows = pending.iter().map(|login| {
            [
                login.auth_id.clone(),
                cell(&login.name),
                cell(&login.os),
                cell(&login.short_key),
                cell(&login.request_tags.join(", ")),
                when(Some(login.created_at)),
                login.state.clone(),
            ]
        });
        let rows: Vec<[String; 7]> = rows.collect();
        let head = [
            "ID",
            "Device",
            "OS",
            "Key",
            "Wants tags",
            "Requested",
            "State",
        ];
        ctx.table(head, &rows)
    }))
}

/// The ID of the registration that a person means.
fn find(ctx: &Ctx, which: &OnePending) -> Result<String, CliError> {
    let PendingAnswer { pending } = read(&ctx.client.get(PATH)?)?;
    match chosen(&pending, which) {
        Ok(Some(id)) => Ok(id),
        Ok(None) => {
            let url = lookup::status(&ctx.client)?.server_url;
            let message = format!(
                "no device is waiting; first run on it: `tailscale login --login-server={url}`"
            );
            Err(CliError::Command(message))
        }
        Err(message) => Err(CliError::Command(message)),
    }
}

/// The ID that is meant; `None` when the last one is and there is none.
fn chosen(pending: &[api::Pending], which: &OnePending) -> Result<Option<String>, String> {
    let waiting = || pending.iter().filter(|login| login.state == WAITING);
    let Some(device) = &which.device else {
        let last = waiting().max_by_key(|login| login.created_at);
        return Ok(last.map(|login| login.auth_id.clone()));
    };
    let id = id_in(device);
    let is_meant = |login: &&api::Pending| {
        login.name.eq_ignore_ascii_case(device)
            || login.short_key.eq_ignore_ascii_case(device)
            || login.auth_id == id
    };
    let named: Vec<&api::Pending> = waiting().filter(is_meant).collect();
    match named.as_slice() {
        // The server knows whether it is an ID, and what is wrong with it.
        [] => Ok(Some(id)),
        [one] => Ok(Some(one.auth_id.clone())),
        several => {
            let ids: Vec<&str> = several.iter().map(|login| &*login.auth_id).collect();
            Err(format!(
                "{} devices named `{}` are waiting; use an ID from `hearth pending list`: {}",
                ids.len(),
                cell(device),
                ids.join(", ")
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(id: &str, name: &str, state: &str, second: u32) -> api::Pending {
        let json = serde_json::json!({
            "authId": id, "state": state, "name": name, "os": "linux", "machineKey": "", "nodeKey": "",
            "ephemeral": false, "requestTags": [], "nodeId": null, "shortKey": format!("{id}{id}"),
            "createdAt": format!("2026-01-01T00:00:0{second}Z"),
        });
        read(&json).unwrap()
    }

    #[test]
    fn the_whole_url_is_as_good_as_the_id() {
        assert_eq!(id_in("http://10.0.0.1:8080/register/aB-_"), "aB-_");
        assert_eq!(id_in("aB-_"), "aB-_");
    }

    #[test]
    fn a_device_is_named_by_name_id_or_as_the_last_one() {
        let pending = [
            login("a", "tablet", "waiting", 1),
            login("b", "phone", "waiting", 3),
            login("c", "phone", "approved", 4),
            login("d", "pc", "waiting", 2),
            login("e", "pc", "waiting", 2),
        ];
        let named = |device: &str| OnePending {
            device: Some(device.into()),
            last: false,
        };
        let last = OnePending {
            device: None,
            last: true,
        };
        let is = |which: &OnePending| chosen(&pending, which).unwrap().unwrap();
        for (name, id) in [
            ("tablet", "a"),
            ("Tablet", "a"),
            ("phone", "b"),
            ("aa", "a"),
            ("https://h/register/x", "x"),
            ("https://h/register/d/", "d"),
        ] {
            assert_eq!(is(&named(name)), id, "{name}");
        }
        assert_eq!(is(&last), "b");
        let ambiguous = chosen(&pending, &named("pc")).unwrap_err();
        assert!(
            ambiguous.ends_with("`hearth pending list`: d, e"),
            "{ambiguous}"
        );
        assert_eq!(chosen(&[], &last), Ok(None));
        // A device may call itself by the ID of another.
        let posing = [
            login("a", "tablet", "waiting", 1),
            login("b", "a", "waiting", 2),
        ];
        assert!(chosen(&posing, &named("a")).is_err());
    }

    #[test]
    fn a_refusal_of_tags_names_who_may_own_them_and_the_whole_command() {
        let user = |name: &str| {
            let user = serde_json::json!({
                "id": "2", "name": name, "createdAt": "2026-01-01T00:00:00Z", "displayName": "", "email": "",
                "providerId": "", "provider": "", "profilePicUrl": "",
            });
            read::<User>(&user).unwrap()
        };
        let mut tablet = login("a", "tablet", "waiting", 1);
        let ben = user("ben");
        assert_eq!(tags_fault(&tablet, Some(&ben), true), None);
        tablet.request_tags = vec!["tag:router".into()];
        let mut fault = |approvers: &[&str], user: Option<&User>| {
            tablet.tag_approvers = Some(approvers.iter().map(|name| name.to_string()).collect());
            tags_fault(&tablet, user, true)
        };
        assert!(fault(&[], Some(&ben)).unwrap().contains("tagOwners"));
        let refused = fault(&["anna"], Some(&ben)).unwrap();
        for part in [
            "requests tag:router, which ben may not own",
            "`hearth pending approve a --user anna --tags`",
        ] {
            assert!(refused.contains(part), "{refused}");
        }
        let open = fault(&["anna", "carl"], None).unwrap();
        assert!(open.ends_with("(anna, carl): `hearth pending approve a --user NAME --tags`"));
        assert_eq!(fault(&["anna", "ben"], Some(&ben)), None);
        assert_eq!(fault(&["anna"], None), None);
    }

    #[test]
    fn an_approval_says_what_the_device_became() {
        let node = |tags: &[&str]| {
            let node = serde_json::json!({
                "id": "3", "machineKey": "", "nodeKey": "", "discoKey": "", "ipAddresses": ["100.64.0.3"],
                "name": "pi", "user": {"id": "1", "name": "anna", "createdAt": "2026-01-01T00:00:00Z",
                    "displayName": "", "email": "", "providerId": "", "provider": "", "profilePicUrl": ""},
                "lastSeen": null, "expiry": null, "preAuthKey": null, "createdAt": "2026-01-01T00:00:00Z",
                "registerMethod": "", "givenName": "pi", "online": true, "approvedRoutes": [],
                "availableRoutes": [], "subnetRoutes": [], "tags": tags,
            });
            read::<Node>(&node).unwrap()
        };
        assert_eq!(
            became(&node(&[])),
            "approved pi as node 3 of anna with 100.64.0.3"
        );
        assert_eq!(
            became(&node(&["tag:server"])),
            "approved pi as node 3 tagged tag:server, of no user, with 100.64.0.3"
        );
    }
}
