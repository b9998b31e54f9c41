//! What the handlers of the control protocol share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use hyper::http::request::Parts;
use hyper::{Response, StatusCode};
use tokio::sync::{Semaphore, watch};

use super::c2n::NodeCalls;
use super::c2n::calls::ReplyChannel;
use super::full_map_slots::FullMapSlots;
use super::ts2021::{NoiseServer, Peer};
use crate::config::Limits;
use crate::engine::Handle;
use crate::net::body::{self, Body};
use crate::net::body_budget::BodyBudget;
use crate::net::query;
use crate::shutdown::Shutdown;
use crate::status::client_reports::ClientReports;
use crate::status::http_counters::HttpCounters;
use crate::status::ssh_checks::SshChecks;
use crate::supervise::Tasks;
use bytes::Bytes;
use hearth_core::id::AuthId;
use hearth_core::netmap::SharedMapData;
use hearth_core::netmap::cache::MapCache;
use hearth_core::state::model::SessionId;
use hearth_core::state::snapshot::Snapshot;
use hearth_derp::bucket::SharedTokenBucket;

/// Keep-alives of different streams are spread over this much time.
/// Source: headscale `hscontrol/poll.go`, `keepAliveInterval` with its jitter.
const KEEP_ALIVE_JITTER: Duration = Duration::from_secs(9);

/// Registrations of unknown machines that are taken at once; one more each [`NEWCOMER_INTERVAL`].
const NEWCOMER_BURST: u32 = 256;
/// See [`NEWCOMER_BURST`].
const NEWCOMER_INTERVAL: Duration = Duration::from_millis(250);

/// What the handlers of the control protocol share.
pub struct ControlContext {
    /// Where commands go and states come from.
    pub engine: Handle,
    /// The states that map streams send. It also changes when `tailnet` does, and ends when hearth shuts down.
    pub updates: watch::Receiver<Arc<Snapshot>>,
    /// What is the same in every map; the relays in it can change.
    pub tailnet: watch::Receiver<Arc<SharedMapData>>,
    /// The shared parts of maps.
    pub map_cache: MapCache,
    /// The bounds.
    pub limits: Limits,
    /// The URL that clients connect to, without a slash at the end.
    pub server_url: String,
    /// The server's end of Noise sessions.
    pub noise: Arc<NoiseServer>,
    /// Requests to nodes.
    pub calls: Arc<NodeCalls>,
    /// What nodes report about themselves.
    pub reports: Arc<ClientReports>,
    /// SSH connections that wait for a person.
    pub ssh_checks: Arc<SshChecks>,
    /// Owner of all tasks.
    pub tasks: Tasks,
    /// The request to stop.
    pub shutdown: Shutdown,
    /// Map streams that may still be opened.
    pub streams: Arc<Semaphore>,
    /// The memory for request bodies that are arriving.
    pub bodies: BodyBudget,
    /// Full maps that may be built at the same time.
    pub full_maps: FullMapSlots,
    /// How fast unknown machines may register.
    pub newcomers: SharedTokenBucket,
    /// Requests by route and status.
    pub counters: Arc<HttpCounters>,
    /// Numbers of map streams; unique as long as a stream lives.
    sessions: AtomicU32,
}

/// What a [`ControlContext`] is made of; see there.
pub struct ControlParts {
    /// Where commands go and states come from.
    pub engine: Handle,
    /// The states that map streams send.
    pub updates: watch::Receiver<Arc<Snapshot>>,
    /// What is the same in every map.
    pub tailnet: watch::Receiver<Arc<SharedMapData>>,
    /// The bounds.
    pub limits: Limits,
    /// The URL that clients connect to.
    pub server_url: String,
    /// The server's end of Noise sessions.
    pub noise: Arc<NoiseServer>,
    /// Requests to nodes.
    pub calls: Arc<NodeCalls>,
    /// What nodes report about themselves.
    pub reports: Arc<ClientReports>,
    /// SSH connections that wait for a person.
    pub ssh_checks: Arc<SshChecks>,
    /// Owner of all tasks.
    pub tasks: Tasks,
    /// The request to stop.
    pub shutdown: Shutdown,
    /// Requests by route and status.
    pub counters: Arc<HttpCounters>,
}

impl ControlContext {
    /// Joins the parts.
    pub fn new(parts: ControlParts) -> Arc<Self> {
        let limits = parts.limits;
        Arc::new(Self {
            engine: parts.engine,
            updates: parts.updates,
            tailnet: parts.tailnet,
            map_cache: MapCache::default(),
            server_url: parts.server_url,
            noise: parts.noise,
            calls: parts.calls,
            reports: parts.reports,
            ssh_checks: parts.ssh_checks,
            tasks: parts.tasks,
            shutdown: parts.shutdown,
            counters: parts.counters,
            streams: Arc::new(Semaphore::new(limits.map_streams)),
            bodies: BodyBudget::new(limits.request_bodies),
            full_maps: FullMapSlots::new(limits.full_map_builds),
            newcomers: SharedTokenBucket::new(NEWCOMER_BURST, NEWCOMER_INTERVAL),
            sessions: AtomicU32::new(0),
            limits,
        })
    }

    /// The number of a new map stream.
    pub fn next_session(&self) -> SessionId {
        SessionId(self.sessions.fetch_add(1, Ordering::Relaxed).into())
    }

    /// The page of a pending registration.
    pub fn login_url(&self, id: &AuthId) -> String {
        format!("{}/register/{id}", self.server_url)
    }

    /// Time until the next keep-alive on a silent stream.
    pub fn keep_alive_interval(&self) -> Duration {
        // Spread by the running number of streams: no randomness is needed to avoid a common beat.
        let step = self
            .sessions
            .load(Ordering::Relaxed)
            .wrapping_mul(2_654_435_761)
            >> 16;
        let jitter = KEEP_ALIVE_JITTER.saturating_mul(step) / (1 << 16);
        self.limits.keepalive.saturating_add(jitter)
    }

    /// `HEAD /machine/ping-response?id=<call>`: a node shows that it reaches this server.
    pub fn ping_response(&self, request: &Parts) -> Response<Body> {
        let call = query::value(request.uri.query(), "id");
        let claim = self.calls.pending.claim(&call, ReplyChannel::Plain);
        match claim.is_some_and(|claim| claim.give(Bytes::new())) {
            true => body::status(StatusCode::OK),
            false => body::status(StatusCode::NOT_FOUND),
        }
    }
}

/// One request inside a Noise session, its body read.
pub struct NoiseRequest {
    /// The client.
    pub peer: Peer,
    /// Method, path and headers.
    pub parts: Parts,
    /// The body.
    pub body: Bytes,
}
