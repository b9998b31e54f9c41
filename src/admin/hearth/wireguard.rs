//! WireGuard-only peers.

use std::net::SocketAddr;

use data_encoding::BASE64;

use crate::admin::problem::Fault;
use crate::admin::v1::nodes::{address, routes};
use crate::admin::v1::users;
use crate::admin::{Answer, Call};
use crate::api::AddWireGuard;
use hearth_core::keys::NodeKey;
use hearth_core::state::command::{NewWireGuard, Rejected};
use hearth_core::state::model::{Owner, WireGuard};
use hearth_core::state::snapshot::Snapshot;

impl Call<'_> {
    pub(crate) async fn add_wireguard(&self) -> Answer {
        let wish: AddWireGuard = self.read()?;
        let owner = owner(&self.admin.engine.snapshot(), &wish)?;
        let mut served = routes(&wish.routes)?;
        if wish.exit_node {
            served.push(ipnet::Ipv4Net::default().into());
            served.push(ipnet::Ipv6Net::default().into());
        }
        let endpoint = |text: &String| {
            let fault = || {
                format!("{text:?} is no endpoint: expected address:port, such as 203.0.113.5:51820")
            };
            text.parse::<SocketAddr>()
                .map_err(|_| Fault::invalid(&fault()))
        };
        let new = NewWireGuard {
            label: wish.name.into(),
            key: key(&wish.key)?,
            owner,
            endpoints: wish
                .endpoints
                .iter()
                .map(endpoint)
                .collect::<Result<_, _>>()?,
            ipv4: address(&wish.ipv4, "an IPv4 address")?,
            ipv6: address(&wish.ipv6, "an IPv6 address")?,
            routes: served,
            details: WireGuard {
                masquerade_v4: address(&wish.masquerade_v4, "an IPv4 address")?,
                masquerade_v6: address(&wish.masquerade_v6, "an IPv6 address")?,
                exit_dns: wish.exit_dns.into_iter().map(Into::into).collect(),
            },
        };
        let engine = &self.admin.engine;
        self.changed_node(&engine.add_wireguard(self.by(), new).await?)
    }
}

fn owner(snapshot: &Snapshot, wish: &AddWireGuard) -> Result<Owner, Fault> {
    match (wish.user.0.as_str(), wish.tags.as_slice()) {
        ("", []) => match users::only(snapshot)? {
            Some(user) => Ok(Owner::User(user)),
            None => Err(Rejected::NoSuchUser.into()),
        },
        (who, []) => users::find(snapshot, who).map(Owner::User),
        ("", tags) => Ok(Owner::Tags(
            tags.iter().map(|tag| tag.as_str().into()).collect(),
        )),
        _ => Err(Fault::invalid("a node has a user or tags, not both")),
    }
}

/// A public key as WireGuard's tools write it, or as Tailscale's do.
fn key(text: &str) -> Result<NodeKey, Fault> {
    let from_wireguard = || {
        let bytes = BASE64.decode(text.as_bytes()).ok()?;
        Some(NodeKey::from_bytes(bytes.try_into().ok()?))
    };
    let key = text.parse().ok().or_else(from_wireguard);
    key.and_then(NodeKey::non_zero).ok_or_else(|| {
        Fault::invalid(&format!(
            "{text:?} is no public key: expected the 44 characters of `wg show` or `nodekey:` text"
        ))
    })
}
