//! Converts requests of clients to commands, and replies to responses other than maps.

use std::collections::BTreeSet;
use std::sync::Arc;

use ipnet::IpNet;

use crate::config::Limits;
use crate::control::ts2021::Peer;
use hearth_core::clock::Timestamp;
use hearth_core::id::AuthId;
use hearth_core::netmap::{owner_number, owner_profile};
use hearth_core::state::command::{NodeUpdate, PresentedKey, Register, RequestedExpiry};
use hearth_core::state::model::{Hostinfo, Node, is_exit_route};
use hearth_core::state::snapshot::Snapshot;
use hearth_core::tailcfg::hostinfo as wire;
use hearth_core::tailcfg::map::MapRequest;
use hearth_core::tailcfg::register::{Login, RegisterRequest, RegisterResponse, User};

/// Longest hostname (the limit of DNS), and longest name or version of an operating system or a client,
/// in bytes.
const TEXT_MAX: usize = 255;

/// Converts the `Hostinfo` of a client.
///
/// Of an object longer than `limits.hostinfo` only the fields for peers are kept, and none of it when those
/// are too long as well. Tags are truncated to as many bytes, routes to `limits.node_routes`.
pub(super) fn hostinfo(wire: wire::Hostinfo, limits: &Limits) -> Arc<Hostinfo> {
    let limit = limits.hostinfo;
    let empty = || Box::from("{}");
    let shared = if wire.shared.len() <= limit {
        wire.shared
    } else {
        empty()
    };
    let raw = if wire.raw.len() <= limit {
        wire.raw
    } else {
        shared.clone()
    };
    Arc::new(Hostinfo {
        raw,
        shared,
        hostname: cut(wire.hostname),
        os: cut(wire.os),
        os_version: cut(wire.os_version),
        client_version: cut(wire.client_version),
        routable_ips: routes(&wire.routable_ips, limits.node_routes),
        request_tags: tags(wire.request_tags, limit),
    })
}

/// The text, truncated to [`TEXT_MAX`].
fn cut(text: Box<str>) -> Box<str> {
    let mut text = text.into_string();
    let end = (0..=TEXT_MAX).rev().find(|end| text.is_char_boundary(*end));
    text.truncate(end.unwrap_or(0));
    text.into()
}

/// The tags, truncated to `limit` bytes in total.
fn tags(requested: Box<[Box<str>]>, limit: usize) -> Box<[Box<str>]> {
    let mut left = limit;
    let mut kept = Vec::new();
    for tag in requested {
        let cost = tag.len().saturating_add(size_of::<Box<str>>());
        let Some(rest) = left.checked_sub(cost) else {
            break;
        };
        left = rest;
        kept.push(tag);
    }
    kept.into()
}

/// At most so many of the advertised routes, sorted: exit routes before the others, and these as the client orders them.
/// Invalid prefixes are skipped.
fn routes(offered: &[Box<str>], most: usize) -> Box<[IpNet]> {
    let valid = || {
        let prefixes = offered.iter().filter_map(|text| text.parse().ok());
        prefixes.map(|route: IpNet| route.trunc())
    };
    let exit = valid().filter(is_exit_route);
    let others = valid().filter(|route| !is_exit_route(route));
    let mut kept = BTreeSet::new();
    for route in exit.chain(others) {
        if kept.len() >= most {
            break;
        }
        kept.insert(route);
    }
    kept.into_iter().collect()
}

/// How many of the advertised routes are not kept.
pub(super) fn dropped_routes(hostinfo: &wire::Hostinfo, limits: &Limits) -> usize {
    let offered = &hostinfo.routable_ips;
    if offered.len() <= limits.node_routes {
        return 0;
    }
    let all = routes(offered, usize::MAX).len();
    all.saturating_sub(limits.node_routes)
}

/// The command of a registration request.
pub(super) fn register(
    request: RegisterRequest,
    peer: &Peer,
    fresh_id: AuthId,
    limits: &Limits,
) -> Register {
    let auth_key = (!request.auth_key.is_empty()).then(|| PresentedKey::read(&request.auth_key));
    Register {
        machine: peer.machine,
        source: peer.source.ip(),
        key: request.node_key,
        lock: request.lock_key,
        auth_key,
        expiry: requested(request.expiry),
        followup: followup(&request.followup),
        ephemeral: request.ephemeral,
        hostinfo: hostinfo(request.hostinfo, limits),
        capability: request.version.number(),
        fresh_id,
    }
}

/// The expiry that a client requests. One that logs out sends a time in 1970 (`doLogin` in tailscale
/// `control/controlclient/direct.go`). A later one that has passed expires the key, without the consequences of a logout: the
/// clock may be ahead.
fn requested(expiry: Option<Timestamp>) -> RequestedExpiry {
    match expiry {
        None => RequestedExpiry::None,
        Some(at) if at.is_plausible() => RequestedExpiry::At(at),
        Some(_) => RequestedExpiry::Logout,
    }
}

/// ID of the pending registration in a followup URL.
pub(super) fn followup(url: &str) -> Option<AuthId> {
    let (_, id) = url.rsplit_once("/register/")?;
    id.parse().ok()
}

/// Changes to the node in a map request.
pub(super) fn update(node: &Node, request: &mut MapRequest, limits: &Limits) -> NodeUpdate {
    let hostinfo = request.hostinfo.take();
    let home_derp = hostinfo.as_ref().and_then(|info| info.preferred_derp);
    NodeUpdate {
        node: Some(node.id),
        endpoints: Some(request.endpoints.as_slice().into()),
        disco: request.disco_key,
        lock: None,
        hostinfo: hostinfo.map(|info| self::hostinfo(info, limits)),
        home_derp,
        capability: Some(request.version.number()),
        forwarding_off: Some(request.is_forwarding_off),
    }
}

/// Response to a registered client, or to one whose key has expired.
pub(super) fn registered(snapshot: &Snapshot, node: &Node) -> RegisterResponse {
    let profile = owner_profile(snapshot, &node.owner);
    let picture = profile.profile_pic_url.to_owned();
    let shown = profile.display_name.to_owned();
    RegisterResponse {
        user: User {
            id: owner_number(node),
            display_name: shown.clone(),
            profile_pic_url: picture.clone(),
        },
        login: Login {
            id: owner_number(node),
            provider: "hearth".to_owned(),
            login_name: profile.login_name.to_owned(),
            display_name: shown,
            profile_pic_url: picture,
        },
        node_key_expired: node.expired,
        machine_authorized: node.authorized,
        ..RegisterResponse::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_followup_url_has_the_id_of_its_registration() {
        let id = followup("http://192.168.1.1:8080/register/abc_DEF-1");
        assert_eq!(id.as_ref().map(AuthId::as_str), Some("abc_DEF-1"));
        assert_eq!(followup("http://192.168.1.1:8080/register/../etc"), None);
        assert_eq!(followup(""), None);
    }

    #[test]
    fn a_client_that_logs_out_sends_a_time_in_1970() {
        let read = |text| requested(Timestamp::parse(text));
        assert_eq!(requested(None), RequestedExpiry::None);
        assert_eq!(read("1970-01-01T00:02:03Z"), RequestedExpiry::Logout);
        let date = Timestamp::parse("2026-11-28T10:00:00Z").unwrap();
        assert_eq!(read(&date.to_string()), RequestedExpiry::At(date));
    }

    #[test]
    fn no_part_of_a_hostinfo_is_kept_beyond_its_limit() {
        let text = |length: usize| Box::from("x".repeat(length).as_str());
        let wire = wire::Hostinfo {
            os: text(40_000),
            os_version: text(40_000),
            client_version: text(40_000),
            request_tags: (0..100).map(|_| text(100)).collect(),
            routable_ips: (0..200)
                .map(|last| format!("10.0.0.{last}/32").into())
                .collect(),
            ..wire::Hostinfo::default()
        };
        let limits = Limits {
            hostinfo: 1800,
            node_routes: 100,
            ..Limits::default()
        };
        let kept = hostinfo(wire, &limits);
        let texts = [&kept.os, &kept.os_version, &kept.client_version];
        assert_eq!(texts.map(|text| text.len()), [TEXT_MAX; 3]);
        assert_eq!(kept.routable_ips.len(), 100);
        let tags: usize = kept.request_tags.iter().map(|tag| tag.len()).sum();
        assert!((1200..=1800).contains(&tags), "{tags}");
    }

    #[test]
    fn a_long_host_name_is_cut_between_letters() {
        let wire = wire::Hostinfo {
            hostname: "é".repeat(200).into(),
            ..Default::default()
        };
        assert_eq!(hostinfo(wire, &Limits::default()).hostname.len(), 254);
    }

    #[test]
    fn exit_routes_are_kept_before_all_others() {
        let subnets = (0..20).map(|number| Box::from(format!("10.{number}.0.0/16").as_str()));
        let exit = ["0.0.0.0/0", "::/0"].map(Box::from);
        let offered: Vec<Box<str>> = subnets.chain(["x".into()]).chain(exit).collect();
        let kept = routes(&offered, 5);
        let texts: Vec<String> = kept.iter().map(ToString::to_string).collect();
        let expected = [
            "0.0.0.0/0",
            "10.0.0.0/16",
            "10.1.0.0/16",
            "10.2.0.0/16",
            "::/0",
        ];
        assert_eq!(texts, expected);
        assert_eq!(routes(&offered, 100).len(), 22);
        let limits = Limits {
            node_routes: 5,
            ..Limits::default()
        };
        let hostinfo = wire::Hostinfo {
            routable_ips: offered.into(),
            ..wire::Hostinfo::default()
        };
        assert_eq!(dropped_routes(&hostinfo, &limits), 17);
        assert_eq!(dropped_routes(&hostinfo, &Limits::default()), 0);
    }
}
