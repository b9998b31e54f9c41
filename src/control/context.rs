//! ControlContext: what the handlers of the control protocol share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use hyper::http::request::Parts;
use hyper::{Response, StatusCode};
use tokio::sync::watch;

use super::c2n::NodeCalls;
use super::c2n::calls::ReplyChannel;
use super::full_map_turns::FullMapTurns;
use super::map_streams::MapStreams;
use super::newcomers::Newcomers;
use super::ts2021::{NoiseServer, Peer};
use crate::config::Limits;
use crate::engine::Handle;
use crate::net::body::{self, Body};
use crate::net::body_budget::BodyBudget;
use crate::net::query;
use crate::shutdown::Shutdown;
use crate::status::addresses::CurrentUrl;
use crate::status::client_reports::ClientReports;
use crate::status::http_counters::HttpCounters;
use crate::status::ssh_checks::SshChecks;
use crate::supervise::Tasks;
use bytes::Bytes;
use hearth_core::id::AuthId;
use hearth_core::netmap::SharedMapData;
use hearth_core::netmap::cache::MapCache;
use hearth_core::state::model::SessionId;
use hearth_core::state::secret::AuthIds;
use hearth_core::state::snapshot::Snapshot;

/// Most that is added to the keep-alive interval of a stream, to spread the keep-alives. With the default interval
/// that makes at most 45 s: haproxy cuts idle connections after 50 s (`timeout client` in Debian's haproxy.cfg), nginx
/// after 60 s (`proxy_read_timeout`).
const KEEP_ALIVE_JITTER: Duration = Duration::from_secs(5);

/// Shared state of the handlers of the control protocol.
pub struct ControlContext {
    /// The state engine.
    pub engine: Handle,
    /// Snapshots for map streams. It also changes when `tailnet` does, and ends when hearth shuts down.
    pub updates: watch::Receiver<Arc<Snapshot>>,
    /// Data that is the same in every map; its DERP map can change.
    pub tailnet: watch::Receiver<Arc<SharedMapData>>,
    /// Cached fragments of maps.
    pub map_cache: MapCache,
    /// Limits.
    pub limits: Limits,
    /// `server_url`.
    pub server_url: CurrentUrl,
    /// Server side of Noise sessions.
    pub noise: Arc<NoiseServer>,
    /// Makes ids of pending registrations.
    pub auth_ids: AuthIds,
    /// Requests to nodes.
    pub calls: Arc<NodeCalls>,
    /// Health warnings and audit messages of clients.
    pub reports: Arc<ClientReports>,
    /// SSH connections that wait for approval.
    pub ssh_checks: Arc<SshChecks>,
    /// Owner of all tasks.
    pub tasks: Tasks,
    /// The shutdown request.
    pub shutdown: Shutdown,
    /// Who has a map stream open.
    pub streams: Arc<MapStreams>,
    /// Memory budget for request bodies.
    pub bodies: BodyBudget,
    /// Turns for building full maps.
    pub full_maps: FullMapTurns,
    /// Rate limits for registrations of machines without a node.
    pub newcomers: Newcomers,
    /// Request counters by route and status.
    pub counters: Arc<HttpCounters>,
    /// ID of the next map stream; unique as long as a stream lives.
    sessions: AtomicU32,
}

/// Parts of a [`ControlContext`].
pub struct ControlParts {
    /// The state engine.
    pub engine: Handle,
    /// Snapshots for map streams.
    pub updates: watch::Receiver<Arc<Snapshot>>,
    /// Data that is the same in every map.
    pub tailnet: watch::Receiver<Arc<SharedMapData>>,
    /// Limits.
    pub limits: Limits,
    /// `server_url`.
    pub server_url: CurrentUrl,
    /// Server side of Noise sessions.
    pub noise: Arc<NoiseServer>,
    /// Requests to nodes.
    pub calls: Arc<NodeCalls>,
    /// Health warnings and audit messages of clients.
    pub reports: Arc<ClientReports>,
    /// SSH connections that wait for approval.
    pub ssh_checks: Arc<SshChecks>,
    /// Owner of all tasks.
    pub tasks: Tasks,
    /// The shutdown request.
    pub shutdown: Shutdown,
    /// Request counters by route and status.
    pub counters: Arc<HttpCounters>,
}

impl ControlContext {
    /// A context of these parts.
    pub fn new(parts: ControlParts) -> Arc<Self> {
        let limits = parts.limits;
        Arc::new(Self {
            engine: parts.engine,
            updates: parts.updates,
            tailnet: parts.tailnet,
            map_cache: MapCache::default(),
            server_url: parts.server_url,
            auth_ids: parts.noise.auth_ids(),
            noise: parts.noise,
            calls: parts.calls,
            reports: parts.reports,
            ssh_checks: parts.ssh_checks,
            tasks: parts.tasks,
            shutdown: parts.shutdown,
            counters: parts.counters,
            streams: MapStreams::new(limits.map_streams, limits.nodes),
            bodies: BodyBudget::new(limits.request_bodies),
            full_maps: FullMapTurns::new(limits.full_map_builds),
            newcomers: Newcomers::default(),
            sessions: AtomicU32::new(0),
            limits,
        })
    }

    /// A new ID for a map stream.
    pub fn next_session(&self) -> SessionId {
        SessionId(self.sessions.fetch_add(1, Ordering::Relaxed).into())
    }

    /// URL of the page of a pending registration.
    pub fn login_url(&self, id: &AuthId) -> String {
        format!("{}/register/{id}", self.server_url)
    }

    /// Time until the next keep-alive on an idle stream.
    pub fn keep_alive_interval(&self) -> Duration {
        // Spread by the stream counter, so streams do not send at the same time; needs no randomness.
        let step = self
            .sessions
            .load(Ordering::Relaxed)
            .wrapping_mul(2_654_435_761)
            >> 16;
        let jitter = KEEP_ALIVE_JITTER.saturating_mul(step).checked_div(1 << 16);
        self.limits
            .keepalive
            .saturating_add(jitter.unwrap_or_default())
    }

    /// `HEAD /machine/ping-response?id=<call>`: proof that a node reaches this server.
    pub fn ping_response(&self, request: &Parts) -> Response<Body> {
        let call = query::value(request.uri.query(), "id");
        let claim = self.calls.pending.claim(&call, ReplyChannel::Plain);
        match claim.is_some_and(|claim| claim.give(Bytes::new())) {
            true => body::status(StatusCode::OK),
            false => body::status(StatusCode::NOT_FOUND),
        }
    }
}

/// A request inside a Noise session, with its body read.
pub struct NoiseRequest {
    /// The client.
    pub peer: Peer,
    /// Method, path and headers.
    pub parts: Parts,
    /// The body.
    pub body: Bytes,
}
