//! The REST interface: Headscale's `/api/v1` for what hearth has of it, and hearth's own part.
//!
//! Source: headscale, `hscontrol/api/v1/*.go` (paths, fields) and the gRPC gateway of its 0.29
//! (errors). On the Unix socket the file's permissions are the authentication; on TCP an API key is.
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
use crate::net::params::Params;
use crate::net::query::pairs;
use crate::net::tls::CertResolver;
use crate::status::addresses::Addresses;
use crate::status::client_reports::ClientReports;
use crate::status::policy::PolicyStatus;
use crate::status::relay::Numbers;
use crate::status::ssh_checks::SshChecks;
use crate::status::wan::WanStatus;
use authenticate::{Gate, Refusal};
use hearth_core::clock::Now;
use hearth_core::netmap::SharedMapData;
use hearth_core::state::principal::Principal;
use problem::Fault;

/// What the API's answers are made of.
pub struct AdminContext {
    /// Where commands go and states come from.
    pub engine: Handle,
    /// The bounds.
    pub limits: Limits,
    /// Requests to nodes.
    pub calls: Arc<NodeCalls>,
    /// What nodes report about themselves.
    pub reports: Arc<ClientReports>,
    /// SSH connections that wait for a person.
    pub ssh_checks: Arc<SshChecks>,
    /// Facts about the server itself.
    pub about: About,
    /// Held while a policy is compared and set, so that nobody's is overwritten unseen.
    pub policy_turn: Mutex<()>,
    /// Who may ask over the network.
    pub gate: Gate,
}

/// Facts about the server itself, for status, doctor and health.
pub struct About {
    /// Where the server is reached.
    pub addresses: Addresses,
    /// Domain of the nodes' names.
    pub base_domain: String,
    /// What all maps have in common: the DNS settings are in it.
    pub tailnet: watch::Receiver<Arc<SharedMapData>>,
    /// What is wrong with the configuration.
    pub warnings: Vec<String>,
    /// The board that hearth runs on.
    pub board: BoardStatus,
    /// Where the policy comes from.
    pub policy_status: watch::Receiver<PolicyStatus>,
    /// The public addresses.
    pub wan: WanStatus,
    /// The certificate that is served.
    pub served: Arc<CertResolver>,
    /// Whether it is one that hearth made.
    pub certificate_is_own: bool,
    /// The memory budget, in bytes, where it is known.
    pub memory_budget: Option<usize>,
    /// Counters of the relay and of STUN.
    pub relay: Numbers,
}

/// A handler's answer.
pub type Answer = Result<Response<Body>, Fault>;

impl AdminContext {
    /// Who makes a request: the owner of the socket, or of an API key.
    ///
    /// # Errors
    /// When the key is missing or wrong, or too many tried.
    pub fn authenticate(
        &self,
        origin: Origin,
        headers: &HeaderMap,
        now: Now,
    ) -> Result<Principal, Refusal> {
        if origin == Origin::Local {
            return Ok(Principal::Socket);
        }
        let shown = headers.get(hyper::header::AUTHORIZATION);
        let snapshot = self.engine.snapshot();
        self.gate.admit(shown, snapshot.api_keys(), now)
    }

    /// Whether changes can be stored.
    pub fn is_writable(&self) -> bool {
        self.engine.snapshot().is_writable()
    }
}

/// The form of refusals, which depends on the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Headscale's, and hearth's own part.
    V1,
    /// The official API's.
    V2,
}

impl Style {
    /// The form for a path.
    pub fn of(path: &str) -> Self {
        match path.starts_with(v2::ROOT) {
            true => Self::V2,
            false => Self::V1,
        }
    }

    /// The response to a request that is refused.
    pub fn refuse(self, fault: &Fault) -> Response<Body> {
        match self {
            Self::V1 => fault.response(),
            Self::V2 => v2::refuse(fault),
        }
    }
}

/// One authenticated request.
pub struct Call<'a> {
    /// What answers are made of.
    pub admin: &'a AdminContext,
    /// Who asks.
    pub principal: Principal,
    /// The names in the path.
    pub params: Params,
    parts: &'a Parts,
    query: Vec<(String, String)>,
    body: &'a [u8],
    now: Now,
}

impl<'a> Call<'a> {
    /// A request with its body; `None` when the query's escapes are not UTF-8.
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

    /// The value of a key of the query; empty when it is not there.
    fn query(&self, key: &str) -> &str {
        let pair = self.query.iter().find(|(name, _)| name == key);
        pair.map_or("", |(_, value)| value)
    }

    /// The body as JSON; an empty one is an object without fields.
    fn read<T: DeserializeOwned + Default>(&self) -> Result<T, Fault> {
        // `null` is what clients send that always send a body.
        if matches!(self.body.trim_ascii(), b"" | b"null") {
            return Ok(T::default());
        }
        serde_json::from_slice(self.body)
            .map_err(|error| Fault::invalid(&format!("invalid body: {error}")))
    }

    /// `GET /api/v1/hearth/relay`.
    pub fn relay(&self) -> Answer {
        json(&self.admin.about.relay.report())
    }
}

fn json(answer: &impl Serialize) -> Answer {
    Ok(body::json(StatusCode::OK, answer))
}

/// A refusal that says when to try again.
fn later(mut response: Response<Body>, seconds: u32) -> Response<Body> {
    response
        .headers_mut()
        .insert(RETRY_AFTER, HeaderValue::from(seconds));
    response
}

#[cfg(test)]
mod tests;
