//! Converts state to the JSON of API v1.

use ipnet::IpNet;

use crate::admin::problem::ApiError;
use crate::api;
use crate::config::moment::{self, End};
use crate::config::value::show_duration;
use crate::status::names::tag_approvers;
use hearth_core::clock::{Now, Timestamp};
use hearth_core::id::{TAGGED_DEVICES, TAGGED_DEVICES_NAME};
use hearth_core::keys::DiscoKey;
use hearth_core::state::model::{
    ApiKey, KeyLifetime, Node, Owner, PendingRegistration, PendingState, PreAuthKey, RegisteredBy,
    Role, User, is_exit_route,
};
use hearth_core::state::secret::SecretKind;
use hearth_core::state::snapshot::Snapshot;

/// A user.
pub fn user(user: &User) -> api::User {
    api::User {
        id: user.id.to_string(),
        name: user.name.to_string(),
        created_at: user.created,
        display_name: user.display_name.to_string(),
        email: user.email.to_string(),
        provider_id: String::new(),
        provider: String::new(),
        profile_pic_url: user.picture_url.to_string(),
        role: match user.role {
            Role::Owner => "owner",
            Role::Admin => "admin",
            Role::Member => "member",
        }
        .into(),
        node_expiry: match user.node_expiry {
            None => "default".into(),
            Some(KeyLifetime::Unlimited) => "never".into(),
            Some(KeyLifetime::For(life)) => show_duration(life),
        },
    }
}

/// The user that lists show for tagged nodes.
fn tagged_devices() -> api::User {
    api::User {
        id: TAGGED_DEVICES.to_string(),
        name: TAGGED_DEVICES_NAME.into(),
        created_at: Timestamp::GO_ZERO,
        display_name: "Tagged Devices".into(),
        email: String::new(),
        provider_id: String::new(),
        provider: String::new(),
        profile_pic_url: String::new(),
        role: "member".into(),
        node_expiry: "never".into(),
    }
}

/// A node. Online nodes were last seen now.
pub fn node(node: &Node, snapshot: &Snapshot, now: Now) -> api::Node {
    let owner = match &node.owner {
        Owner::User(id) => snapshot.users().get(id).map(|owner| user(owner)),
        Owner::Tags(_) => Some(tagged_devices()),
    };
    let online = node.is_online();
    let pre_auth_key = match node.registered_by {
        RegisteredBy::PreAuthKey(id) => snapshot.preauth_keys().get(&id),
        RegisteredBy::Approval | RegisteredBy::Hand => None,
    };
    let register_method = match node.registered_by {
        RegisteredBy::PreAuthKey(_) => "REGISTER_METHOD_AUTH_KEY",
        RegisteredBy::Approval | RegisteredBy::Hand => "REGISTER_METHOD_CLI",
    };
    let texts = |list: &[Box<str>]| list.iter().map(ToString::to_string).collect();
    let routes = |list: &[IpNet]| list.iter().map(ToString::to_string).collect();
    let exit = node.served_routes().filter(is_exit_route);
    let serving: Vec<IpNet> = node.primary_routes.iter().copied().chain(exit).collect();
    api::Node {
        id: node.id.to_string(),
        machine_key: node.machine.to_string(),
        node_key: node.key.to_string(),
        disco_key: node.disco.unwrap_or(DiscoKey::ZERO).to_string(),
        ip_addresses: vec![node.ipv4.to_string(), node.ipv6.to_string()],
        name: node.hostinfo.hostname.to_string(),
        user: owner,
        last_seen: if online {
            Some(now.wall)
        } else {
            node.last_seen()
        },
        expiry: node.expiry,
        pre_auth_key: pre_auth_key.map(|key| preauth_key(key, snapshot)),
        created_at: node.created,
        register_method: register_method.into(),
        given_name: node.label.to_string(),
        online,
        approved_routes: routes(&node.approved_routes),
        available_routes: routes(&node.hostinfo.routable_ips),
        subnet_routes: routes(&serving),
        tags: texts(node.tags()),
        health: Vec::new(),
        authorized: node.authorized,
        ephemeral: node.ephemeral,
        requested_tags: texts(node.tags_without_login()),
        unhealthy: node.unhealthy,
        wireguard: node.wireguard.as_ref().map(|details| api::WireGuard {
            endpoints: node.endpoints.iter().map(ToString::to_string).collect(),
            masquerade_v4: details.masquerade_v4.map(|address| address.to_string()),
            masquerade_v6: details.masquerade_v6.map(|address| address.to_string()),
            exit_dns: texts(&details.exit_dns),
        }),
    }
}

/// ID and name of a node.
pub fn node_name(node: &Node) -> api::NodeName {
    api::NodeName {
        id: node.id.to_string(),
        given_name: node.label.to_string(),
    }
}

/// A preauth key with a masked secret.
pub fn preauth_key(key: &PreAuthKey, snapshot: &Snapshot) -> api::PreAuthKey {
    let owner = key.user.and_then(|id| snapshot.users().get(&id));
    api::PreAuthKey {
        user: owner.map(|owner| user(owner)),
        id: key.id.to_string(),
        key: masked(SecretKind::PreAuth, &key.prefix),
        reusable: key.reusable,
        ephemeral: key.ephemeral,
        used: key.used,
        expiration: key.expiry,
        created_at: Some(key.created),
        acl_tags: key.tags.iter().map(ToString::to_string).collect(),
        preauthorized: key.preauthorized,
    }
}

/// An API key with a masked secret.
pub fn api_key(key: &ApiKey) -> api::ApiKey {
    api::ApiKey {
        id: key.id.to_string(),
        prefix: masked(SecretKind::Api, &key.prefix),
        scopes: key
            .scopes
            .to_vec()
            .iter()
            .map(ToString::to_string)
            .collect(),
        expiration: key.expiry,
        created_at: Some(key.created),
        last_seen: None,
    }
}

fn masked(kind: SecretKind, prefix: &str) -> String {
    format!("{}{prefix}-***", kind.lead())
}

/// Prefix in a masked key, or the text itself.
pub fn unmasked(text: &str) -> &str {
    let text = text.strip_prefix(SecretKind::Api.lead()).unwrap_or(text);
    text.strip_suffix("-***").unwrap_or(text)
}

/// A pending registration, or one that was decided recently.
pub fn pending(login: &PendingRegistration, snapshot: &Snapshot) -> api::Pending {
    let (state, node_id) = match login.state {
        PendingState::Waiting => ("waiting", None),
        PendingState::Rejected => ("rejected", None),
        PendingState::Approved(id) => ("approved", Some(id.to_string())),
    };
    let tags = login.hostinfo.request_tags.iter();
    api::Pending {
        auth_id: login.id.to_string(),
        state: state.into(),
        name: login.hostinfo.hostname.to_string(),
        os: login.hostinfo.os.to_string(),
        machine_key: login.machine.to_string(),
        short_key: login.machine.short(),
        node_key: login.key.to_string(),
        ephemeral: login.ephemeral,
        request_tags: tags.map(ToString::to_string).collect(),
        tag_approvers: (!login.hostinfo.request_tags.is_empty()).then(|| {
            let users = tag_approvers(login, snapshot);
            users.map(|user| user.name.to_string()).collect()
        }),
        created_at: login.created,
        node_id,
    }
}

/// Expiry of a key. Without `text` the key lives as long as `default`.
///
/// # Errors
/// When the text is invalid or the time has passed, because such a key would never work.
pub fn expiry(text: Option<&str>, default: std::time::Duration, now: Now) -> Result<End, ApiError> {
    let Some(text) = text else {
        return Ok(End::In(default));
    };
    let end = end(text, "expiration")?;
    match end.time(now.wall) {
        Some(time) if time <= now.wall => Err(ApiError::invalid("the expiration is in the past")),
        _ => Ok(end),
    }
}

/// Reads the end that a parameter gives.
///
/// # Errors
/// Names the parameter.
pub fn end(text: &str, parameter: &str) -> Result<End, ApiError> {
    let read = moment::end(text);
    read.map_err(|fault| ApiError::invalid(&format!("invalid {parameter}: {fault}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hearth_core::clock::PLAUSIBLE_FROM;
    use std::time::Duration;

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    #[test]
    fn a_duration_stays_one_until_the_state_makes_an_end_of_it() {
        let now = Now {
            wall: PLAUSIBLE_FROM.plus(DAY),
            mono: Duration::ZERO,
        };
        let read = |text: Option<&str>| expiry(text, DAY * 90, now).ok();
        assert_eq!(read(None), Some(End::In(DAY * 90)));
        assert_eq!(read(Some("2d")), Some(End::In(DAY * 2)));
        assert_eq!(read(Some("never")), Some(End::Never));
        let date = now.wall.plus(DAY);
        assert_eq!(read(Some(&date.to_string())), Some(End::At(date)));
        for over in ["now", &PLAUSIBLE_FROM.to_string()] {
            assert_eq!(read(Some(over)), None, "{over}");
        }
    }
}
