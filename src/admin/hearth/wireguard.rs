//! WireGuard-only peers.

use std::net::SocketAddr;

use data_encoding::BASE64;

use crate::admin::problem::ApiError;
use crate::admin::v1::nodes::{address, routes};
use crate::admin::v1::users;
use crate::admin::{ApiCall, ApiResult};
use crate::api::AddWireGuard;
use hearth_core::keys::NodeKey;
use hearth_core::state::command::{NewWireGuard, Rejected};
use hearth_core::state::model::{Owner, WireGuard};
use hearth_core::state::scope::{Area, Scope};
use hearth_core::state::snapshot::Snapshot;

impl ApiCall<'_> {
    pub(crate) async fn add_wireguard(&self) -> ApiResult {
        let request: AddWireGuard = self.read()?;
        let owner = owner(&self.admin.engine.snapshot(), &request)?;
        let mut served = routes(&request.routes)?;
        if request.exit_node {
            served.push(ipnet::Ipv4Net::default().into());
            served.push(ipnet::Ipv6Net::default().into());
        }
        let endpoint = |text: &String| {
            let fault = || {
                format!(
                    "invalid endpoint {text:?}: expected address:port, such as 203.0.113.5:51820"
                )
            };
            text.parse::<SocketAddr>()
                .map_err(|_| ApiError::invalid(&fault()))
        };
        if !served.is_empty() {
            self.require(Scope::write(Area::DevicesRoutes))?;
        }
        let new = NewWireGuard {
            label: request.name.into(),
            key: key(&request.key)?,
            owner,
            endpoints: request
                .endpoints
                .iter()
                .map(endpoint)
                .collect::<Result<_, _>>()?,
            ipv4: address(&request.ipv4, "an IPv4 address")?,
            ipv6: address(&request.ipv6, "an IPv6 address")?,
            routes: served,
            details: WireGuard {
                masquerade_v4: address(&request.masquerade_v4, "an IPv4 address")?,
                masquerade_v6: address(&request.masquerade_v6, "an IPv6 address")?,
                exit_dns: request.exit_dns.into_iter().map(Into::into).collect(),
            },
        };
        let engine = &self.admin.engine;
        self.changed_node(&engine.add_wireguard(self.by(), new).await?)
    }
}

fn owner(snapshot: &Snapshot, request: &AddWireGuard) -> Result<Owner, ApiError> {
    match (request.user.0.as_str(), request.tags.as_slice()) {
        ("", []) => match users::only(snapshot)? {
            Some(user) => Ok(Owner::User(user)),
            None => Err(Rejected::NoSuchUser.into()),
        },
        (who, []) => users::find(snapshot, who).map(Owner::User),
        ("", tags) => Ok(Owner::Tags(
            tags.iter().map(|tag| tag.as_str().into()).collect(),
        )),
        _ => Err(ApiError::invalid("a node has an owner or tags, not both")),
    }
}

/// Parses a public key in the format of WireGuard's or Tailscale's tools.
fn key(text: &str) -> Result<NodeKey, ApiError> {
    let from_wireguard = || {
        let bytes = BASE64.decode(text.as_bytes()).ok()?;
        Some(NodeKey::from_bytes(bytes.try_into().ok()?))
    };
    let key = text.parse().ok().or_else(from_wireguard);
    key.and_then(NodeKey::non_zero).ok_or_else(|| {
        ApiError::invalid(&format!(
            "invalid public key {text:?}: expected the 44 characters of `wg show` or `nodekey:` text"
        ))
    })
}
