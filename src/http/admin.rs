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

mod auth;
mod contact;
mod convert;
mod dns;
mod doctor;
mod fault;
mod keys;
mod logins;
mod nodes;
mod own;
mod policy;
mod target;
mod users;
mod v2;
mod wan;
mod why;
mod wireguard;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Body as HttpBody;
use hyper::header::{HeaderValue, RETRY_AFTER};
use hyper::{Method, Request, Response, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::{Mutex, watch};

use crate::api::BoardStatus;
use crate::clock::{self, Now};
use crate::config::Limits;
use crate::engine::Handle;
use crate::http::app::Addresses;
use crate::http::body::{self, Body};
use crate::http::contact::Contact;
use crate::http::numbers::Numbers;
use crate::http::policy::PolicyPlace;
use crate::http::wan::WanPlace;
use crate::netmap::Tailnet;
use crate::tls::CertResolver;
use auth::Gate;
use fault::{Code, Fault};
use target::Target;

/// What all paths of the interface begin with.
pub const ROOT: &str = "/api/v1/";

/// Why a request is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// It came over the Unix socket, which only those may open whom the owner lets.
    Socket,
    /// It came over the network and must show an API key.
    Bearer,
}

/// What the answers are made of, besides the state.
pub struct Admin {
    engine: Handle,
    contact: Arc<Contact>,
    gate: Gate,
    about: About,
    limits: Limits,
    /// Held while a policy is compared and set, so that nobody's is overwritten unseen.
    policy_turn: Mutex<()>,
    body_max: usize,
    body_timeout: Duration,
}

/// What the answers tell about the server itself.
pub struct About {
    /// Where the server is reached.
    pub addresses: Addresses,
    /// Domain of the nodes' names.
    pub base_domain: String,
    /// What all maps have in common: the DNS settings are in it.
    pub tailnet: watch::Receiver<Arc<Tailnet>>,
    /// What is wrong with the configuration.
    pub warnings: Vec<String>,
    /// The board that hearth runs on.
    pub board: BoardStatus,
    /// Where the policy comes from.
    pub policy_place: watch::Receiver<PolicyPlace>,
    /// Where the addresses outside are known.
    pub wan: WanPlace,
    /// The certificate that is served.
    pub served: Arc<CertResolver>,
    /// Whether it is one that hearth made.
    pub certificate_is_own: bool,
    /// What the program should take of memory at most, in bytes, where that is known.
    pub memory_budget: Option<usize>,
    /// The relay, unless it is off, and its numbers.
    pub relay: Numbers,
}

/// A handler's answer: JSON, or why there is none.
type Answer = Result<Value, Fault>;

impl Admin {
    /// The interface to this engine.
    pub fn new(engine: Handle, contact: Arc<Contact>, about: About, limits: &Limits) -> Self {
        Self {
            engine,
            contact,
            gate: Gate::new(),
            about,
            limits: limits.clone(),
            policy_turn: Mutex::new(()),
            body_max: limits.admin_body,
            body_timeout: limits.request_timeout,
        }
    }

    /// Answers a request below [`ROOT`], or below `/api/v2/`.
    pub async fn handle<B: HttpBody>(&self, trust: Trust, request: Request<B>) -> Response<Body> {
        let now = clock::now();
        if trust == Trust::Bearer {
            let shown = request.headers().get(hyper::header::AUTHORIZATION);
            let snapshot = self.engine.snapshot();
            if let Err(refusal) = self.gate.admit(shown, snapshot.api_keys(), now) {
                return refusal.response();
            }
        }
        let (parts, body) = request.into_parts();
        let is_v2 = parts.uri.path().starts_with(v2::ROOT);
        let read = body::read_limited(body, self.body_max(&parts.uri), self.body_timeout);
        let answer = match read.await {
            Ok(body) if is_v2 => return v2::handle(self, &parts, &body).await,
            Ok(body) => self.answer(&parts.method, &parts.uri, &body, now).await,
            Err(fault) => {
                return body::json(
                    fault.status(),
                    &Fault::new(Code::InvalidArgument, fault.to_string()).answer(),
                );
            }
        };
        match answer {
            Ok(json) => body::json(StatusCode::OK, &json),
            Err(fault) => fault.response(),
        }
    }

    /// Policies are longer than anything else, and escaped within JSON longer still.
    fn body_max(&self, uri: &hyper::Uri) -> usize {
        let path = uri.path();
        let has_policy = path.starts_with(v2::ROOT) || path.starts_with(policy::PATH);
        match has_policy {
            true => self.body_max.max(policy::BODY_MAX),
            false => self.body_max,
        }
    }

    async fn answer(&self, method: &Method, uri: &hyper::Uri, body: &Bytes, now: Now) -> Answer {
        let target = Target::of(uri).ok_or_else(|| Fault::invalid("the path is not readable"))?;
        let call = Call {
            admin: self,
            target: &target,
            body,
            now,
        };
        let parts: Vec<&str> = target.parts().collect();
        match (method.as_str(), parts.as_slice()) {
            ("GET", ["health"]) => call.health().await,

            ("POST", ["user"]) => call.create_user().await,
            ("GET", ["user"]) => call.list_users(),
            ("POST", ["user", id, "rename", name]) => call.rename_user(id, name).await,
            ("POST", ["user", id, "role"]) => call.set_role(id).await,
            ("POST", ["user", id, "expiry"]) => call.set_user_expiry(id).await,
            ("DELETE", ["user", id]) => call.delete_user(id).await,

            ("POST", ["preauthkey"]) => call.create_preauth_key().await,
            ("GET", ["preauthkey"]) => call.list_preauth_keys(),
            ("POST", ["preauthkey", "expire"]) => call.expire_preauth_key().await,
            ("DELETE", ["preauthkey"]) => call.delete_preauth_key().await,

            ("POST", ["apikey"]) => call.create_api_key().await,
            ("GET", ["apikey"]) => call.list_api_keys(),
            ("POST", ["apikey", "expire"]) => call.expire_api_key().await,
            ("DELETE", ["apikey", prefix]) => call.delete_api_key(prefix).await,

            ("GET", ["node"]) => call.list_nodes(),
            ("POST", ["node", "register"]) => call.register_node().await,
            ("POST", ["node", "backfillips"]) => call.backfill_addresses().await,
            ("POST", ["node", "wireguard"]) => call.add_wireguard().await,
            ("GET", ["node", id]) => call.show_node(id),
            ("DELETE", ["node", id]) => call.delete_node(id).await,
            ("POST", ["node", id, "expire"]) => call.expire_node(id).await,
            ("POST", ["node", id, "rename", name]) => call.rename_node(id, name).await,
            ("POST", ["node", id, "tags"]) => call.set_tags(id).await,
            ("POST", ["node", id, "approve_routes"]) => call.approve_routes(id).await,
            ("POST", ["node", id, "user"]) => call.move_node(id).await,
            ("POST", ["node", id, "ip"]) => call.set_addresses(id).await,
            ("POST", ["node", id, "approve"]) => call.authorize(id, true).await,
            ("POST", ["node", id, "disapprove"]) => call.authorize(id, false).await,
            ("POST", ["node", id, "c2n"]) => call.ask_node(id).await,
            ("POST", ["node", id, "ping"]) => call.ping_node(id).await,
            ("POST", ["node", id, "open"]) => call.open_page(id),
            ("GET", ["node", id, "attributes"]) => call.show_attributes(id),
            ("POST", ["node", id, "attributes"]) => call.set_attributes(id).await,

            ("POST", ["auth", "register"]) => call.approve_for_user().await,
            ("POST", ["auth", "approve"]) => call.approve().await,
            ("POST", ["auth", "reject"]) => call.reject().await,

            ("GET", ["dns", "records"]) => call.list_dns_records(),
            ("POST", ["dns", "records"]) => call.add_dns_record().await,
            ("DELETE", ["dns", "records"]) => call.delete_dns_records().await,

            ("GET", ["policy"]) => call.show_policy(),
            ("PUT", ["policy"]) => call.set_policy().await,
            ("POST", ["policy", "check"]) => call.check_policy(),

            ("GET", ["hearth", "policy", "history"]) => call.list_policies(),
            ("GET", ["hearth", "policy", "history", version]) => call.show_policy_version(version),
            ("POST", ["hearth", "policy", "rollback"]) => call.roll_back_policy().await,
            ("GET", ["hearth", "policy", "why"]) => call.why(),
            ("GET", ["hearth", "status"]) => call.status(),
            ("GET", ["hearth", "doctor"]) => call.diagnose(),
            ("GET", ["hearth", "wan"]) => call.show_wan(),
            ("POST", ["hearth", "wan"]) => call.refresh_wan().await,
            ("GET", ["hearth", "relay"]) => json(&self.about.relay.report()),
            ("GET", ["hearth", "pending"]) => call.list_pending(),
            ("GET", ["hearth", "audit"]) => call.audit(),
            ("GET", ["hearth", "ssh"]) => call.list_ssh_checks(),
            ("POST", ["hearth", "ssh", "approve"]) => call.decide_ssh_check(true),
            ("POST", ["hearth", "ssh", "reject"]) => call.decide_ssh_check(false),
            ("POST", ["hearth", "invite"]) => call.invite().await,

            (_, ["debug", ..]) => Err(Fault::missing("debug")),
            _ => Err(Fault::new(Code::NotFound, "Not Found")),
        }
    }
}

/// One authenticated request.
struct Call<'a> {
    admin: &'a Admin,
    target: &'a Target,
    body: &'a [u8],
    now: Now,
}

impl Call<'_> {
    /// The body as JSON; an empty one is an object without fields.
    fn read<T: DeserializeOwned + Default>(&self) -> Result<T, Fault> {
        // `null` is what clients send that always send a body.
        if matches!(self.body.trim_ascii(), b"" | b"null") {
            return Ok(T::default());
        }
        serde_json::from_slice(self.body)
            .map_err(|error| Fault::invalid(&format!("the body is not as expected: {error}")))
    }
}

fn json(answer: &impl Serialize) -> Answer {
    serde_json::to_value(answer).map_err(|error| {
        tracing::error!(%error, "an answer cannot be written as JSON");
        Fault::new(Code::Internal, "internal error")
    })
}

/// A refusal that tells when to come again.
fn later(mut response: Response<Body>, seconds: u32) -> Response<Body> {
    response
        .headers_mut()
        .insert(RETRY_AFTER, HeaderValue::from(seconds));
    response
}

#[cfg(test)]
mod tests;
