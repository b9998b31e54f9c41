//! REST API: Headscale's `/api/v1` where hearth supports it, policies of API v2, and hearth's own endpoints.
//!
//! Source: headscale, `hscontrol/api/v1/*.go` (paths, fields) and the gRPC gateway of its 0.29
//! (errors). The Unix socket is authenticated by its file permissions, TCP by an API key.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

pub mod authenticate;
pub mod backups;
mod fields;
mod hearth;
pub mod problem;
pub mod v1;
mod v2;

use std::sync::Arc;

use hyper::header::{HeaderValue, RETRY_AFTER};
use hyper::http::request::Parts;
use hyper::{HeaderMap, Response, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{Mutex, watch};

use crate::api::BoardStatus;
use crate::config::Limits;
use crate::control::c2n::NodeCalls;
use crate::engine::Handle;
use crate::net::body::{self, Body};
use crate::net::connection::Origin;
use crate::net::json_size;
use crate::net::params::Params;
use crate::net::proxies::Proxies;
use crate::net::query::pairs;
use crate::net::tls::CertResolver;
use crate::status::addresses::Addresses;
use crate::status::client_reports::ClientReports;
use crate::status::copies::CopyStatus;
use crate::status::policy::PolicyStatus;
use crate::status::public_url::{DroppedUpgrades, PublicUrlStatus};
use crate::status::relay::Metrics;
use crate::status::ssh_checks::SshChecks;
use crate::status::wan::WanStatus;
use authenticate::{ApiKeyGate, AuthError};
use backups::Backups;
use hearth_core::clock::Now;
use hearth_core::id::NodeId;
use hearth_core::netmap::SharedMapData;
use hearth_core::state::principal::Principal;
use hearth_core::state::scope::Scope;
use problem::ApiError;

/// Shared state of the API handlers.
pub struct AdminContext {
    /// The state engine.
    pub engine: Handle,
    /// Limits.
    pub limits: Limits,
    /// Requests to nodes.
    pub calls: Arc<NodeCalls>,
    /// Health warnings and audit messages of clients.
    pub reports: Arc<ClientReports>,
    /// SSH connections that wait for approval.
    pub ssh_checks: Arc<SshChecks>,
    /// Backups.
    pub backups: Arc<Backups>,
    /// Facts about the server itself.
    pub about: ServerInfo,
    /// Held while a policy is compared and set, so that a concurrent change is not overwritten.
    pub policy_lock: Mutex<()>,
    /// Authentication of requests over the network.
    pub gate: ApiKeyGate,
}

/// Facts about the server itself, for status, doctor and health.
pub struct ServerInfo {
    /// Addresses of the server.
    pub addresses: Addresses,
    /// MagicDNS base domain.
    pub base_domain: String,
    /// Data that is the same in every map, with the DNS settings.
    pub tailnet: watch::Receiver<Arc<SharedMapData>>,
    /// Warnings about the configuration.
    pub warnings: Vec<String>,
    /// What happened to a damaged or lost database at this start; `None` if it was whole.
    pub opening: Option<String>,
    /// Whether settings that cannot be read count as restrictive.
    pub is_closed: bool,
    /// The board that hearth runs on.
    pub board: BoardStatus,
    /// Source of the policy, and its errors.
    pub policy_status: watch::Receiver<PolicyStatus>,
    /// The public addresses.
    pub wan: WanStatus,
    /// What a client meets at `server_url`.
    pub public_url: PublicUrlStatus,
    /// Upgrade requests that a proxy has spoilt.
    pub dropped_upgrades: Arc<DroppedUpgrades>,
    /// The certificate resolver.
    pub served: Arc<CertResolver>,
    /// Whether the certificate is self-signed.
    pub certificate_is_own: bool,
    /// Memory budget in bytes, if known.
    pub memory_budget: Option<usize>,
    /// Counters of the relay and of STUN.
    pub relay: Metrics,
    /// Automatic copies of the database.
    pub copies: watch::Receiver<CopyStatus>,
    /// The trusted proxies.
    pub proxies: Arc<Proxies>,
}

/// Path prefix of the requests about one node.
const NODE: &str = "/api/v1/node/";

/// Response of a handler.
pub type ApiResult = Result<Response<Body>, ApiError>;

impl AdminContext {
    /// Principal of a request: the admin socket, or an API key.
    ///
    /// # Errors
    /// When the key is missing, invalid or expired, or the rate limit is reached.
    pub fn authenticate(
        &self,
        origin: Origin,
        headers: &HeaderMap,
        now: Now,
    ) -> Result<Principal, AuthError> {
        let Origin::Network { source, .. } = origin else {
            return Ok(Principal::Socket);
        };
        let shown = headers.get(hyper::header::AUTHORIZATION);
        let snapshot = self.engine.snapshot();
        self.gate
            .admit(source.ip(), shown, snapshot.api_keys(), now)
    }

    /// What to say of routes of a node that are dropped, if any are.
    fn dropped_routes(&self, node: NodeId) -> Option<String> {
        let most = self.limits.node_routes;
        match self.reports.dropped_routes(node) {
            0 => None,
            dropped => Some(format!(
                "{dropped} offered routes are dropped; {most} are kept (limits.node_routes)"
            )),
        }
    }

    /// Why the database is read-only, if it is.
    pub fn database_fault(&self) -> Option<String> {
        self.engine.snapshot().disk_fault().map(ToString::to_string)
    }
}

/// Format of errors, by API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Headscale's, also for hearth's own endpoints.
    V1,
    /// That of API v2.
    V2,
}

impl Style {
    /// The format for a path.
    pub fn of(path: &str) -> Self {
        match path.starts_with(v2::ROOT) {
            true => Self::V2,
            false => Self::V1,
        }
    }

    /// The error as a response.
    pub fn refuse(self, fault: &ApiError) -> Response<Body> {
        match self {
            Self::V1 => fault.response(),
            Self::V2 => v2::refuse(fault),
        }
    }
}

/// One authenticated API request.
pub struct ApiCall<'a> {
    /// Shared state.
    pub admin: &'a AdminContext,
    /// Principal of the request.
    pub principal: Principal,
    /// Path parameters.
    pub params: Params,
    parts: &'a Parts,
    query: Vec<(String, String)>,
    body: &'a [u8],
    now: Now,
}

impl<'a> ApiCall<'a> {
    /// A request with its body; `None` when the escapes in the query are not UTF-8.
    pub fn new(
        admin: &'a AdminContext,
        principal: Principal,
        parts: &'a Parts,
        params: Params,
        body: &'a [u8],
        now: Now,
    ) -> Option<Self> {
        Some(Self {
            admin,
            principal,
            params,
            query: pairs(parts.uri.query().unwrap_or_default())?,
            parts,
            body,
            now,
        })
    }

    /// The principal, for a command.
    fn by(&self) -> Principal {
        self.principal.clone()
    }

    /// Checks a scope beyond that of the route, for requests that do more than the route is for.
    fn require(&self, scope: Scope) -> Result<(), ApiError> {
        match self.principal.scopes().allow(scope) {
            true => Ok(()),
            false => Err(ApiError::lacks(&self.principal, scope)),
        }
    }

    /// Value of a query parameter of a request that changes nothing; empty when missing.
    fn query(&self, key: &str) -> &str {
        let is_it = |name: &str| fields::canonical(name) == key;
        let pair = self.query.iter().find(|(name, _)| is_it(name));
        pair.map_or("", |(_, value)| value)
    }

    /// The parameters in the body and the query. Handlers read them first of all, those that have none as well, so that
    /// a request with a mistyped parameter changes nothing.
    fn read<T: DeserializeOwned + Default>(&self) -> Result<T, ApiError> {
        self.read_with(self.body)
    }

    /// The parameters of a request whose body is something else.
    fn read_query<T: DeserializeOwned + Default>(&self) -> Result<T, ApiError> {
        self.read_with(b"")
    }

    fn read_with<T: DeserializeOwned + Default>(&self, body: &[u8]) -> Result<T, ApiError> {
        if !json_size::is_modest(body) {
            return Err(ApiError::invalid(json_size::TOO_MANY));
        }
        let is_of_node = self.parts.uri.path().starts_with(NODE);
        let node = if is_of_node {
            self.params.get("id")
        } else {
            ""
        };
        fields::read(body, &self.query, node)
    }

    /// `GET /api/v1/hearth/relay`.
    pub fn relay(&self) -> ApiResult {
        json(&self.admin.about.relay.report())
    }
}

fn json(answer: &impl Serialize) -> ApiResult {
    Ok(body::json(StatusCode::OK, answer))
}

/// An error response with `Retry-After`.
fn later(mut response: Response<Body>, seconds: u32) -> Response<Body> {
    response
        .headers_mut()
        .insert(RETRY_AFTER, HeaderValue::from(seconds));
    response
}

#[cfg(test)]
mod tests;
