//! What all requests share, and where each of them goes.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use hearth_derp::relay::Relay;
use hearth_derp::udp::StunCounters;
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};
use tokio::sync::{Semaphore, watch};

use crate::api::BoardStatus;
use crate::bucket::TokenBucket;
use crate::config::{Limits, ServerUrl};
use crate::engine::Handle;
use crate::http::admin::{About, Admin, Trust};
use crate::http::bodies::Bodies;
use crate::http::body::{self, Body};
use crate::http::bootstrap::BootstrapDns;
use crate::http::connection::{Answer, Next, Origin, Service};
use crate::http::contact::calls::Way;
use crate::http::contact::{Contact, ping};
use crate::http::front::RelayUpgrade;
use crate::http::numbers::Numbers;
use crate::http::pace::pace;
use crate::http::policy::PolicyPlace;
use crate::http::stream::Stream;
use crate::http::ts2021::Peer;
use crate::http::turns::Turns;
use crate::http::wan::WanPlace;
use crate::http::{derp, machine, pages, public, query, relay, ts2021};
use crate::keys::{MachineKey, NodeKey};
use crate::netmap::Tailnet;
use crate::netmap::fragment::Fragments;
use crate::shutdown::Shutdown;
use crate::state::model::{AuthId, SessionId};
use crate::state::snapshot::Snapshot;
use crate::supervise::Tasks;
use crate::tls::CertResolver;

/// Keep-alives of different streams are spread over this much time.
/// Source: headscale `hscontrol/poll.go`, `keepAliveInterval` with its jitter.
const KEEP_ALIVE_JITTER: Duration = Duration::from_secs(9);

/// So many strangers may come at once, and one more each [`NEWCOMER_INTERVAL`].
const NEWCOMER_BURST: u32 = 256;
/// See [`NEWCOMER_BURST`].
const NEWCOMER_INTERVAL: Duration = Duration::from_millis(250);

/// Where the server is reached.
#[derive(Debug, Clone)]
pub struct Addresses {
    /// What clients are told to connect to, without a slash at the end.
    pub server_url: String,
    /// The same in its parts.
    pub url: ServerUrl,
    /// Plain HTTP.
    pub http: Option<SocketAddr>,
    /// HTTPS.
    pub https: Option<SocketAddr>,
    /// STUN.
    pub stun: Option<SocketAddr>,
    /// The socket of the command line.
    pub socket: PathBuf,
}

/// Everything that requests need.
pub struct App {
    /// Where changes go and states come from.
    pub engine: Handle,
    /// The states of which map streams tell. It also changes when `tailnet` does, and ends when hearth shuts down.
    pub news: watch::Receiver<Arc<Snapshot>>,
    /// What is the same in every map; the relays in it can change.
    pub tailnet: watch::Receiver<Arc<Tailnet>>,
    /// The shared parts of maps.
    pub fragments: Fragments,
    /// The bounds.
    pub limits: Limits,
    /// Where the server is reached.
    pub addresses: Addresses,
    /// The public Noise key.
    pub noise: MachineKey,
    /// The relay, unless it is off.
    pub relay: Option<Relay>,
    /// The names of this server, for clients without DNS.
    pub names: BootstrapDns,
    /// What hearth and its nodes say to each other beside maps.
    pub contact: Arc<Contact>,
    /// Where the policy comes from.
    pub policy_place: watch::Receiver<PolicyPlace>,
    /// Owner of all tasks.
    pub tasks: Tasks,
    /// The wish to stop.
    pub shutdown: Shutdown,
    /// Map streams that may still be opened.
    pub streams: Arc<Semaphore>,
    /// The memory for request bodies that are arriving.
    pub bodies: Bodies,
    /// First maps that may be made at the same time.
    pub full_maps: Turns,
    /// How fast strangers may come.
    pub newcomers: TokenBucket,
    admin: Admin,
    /// Numbers of map streams; unique as long as a stream lives.
    sessions: AtomicU32,
}

impl App {
    /// Joins the parts.
    pub fn new(parts: Parts) -> Arc<Self> {
        let Parts {
            engine,
            tailnet,
            limits,
            addresses,
            warnings,
            board,
            policy_place,
            noise,
            relay,
            stun,
            names,
            wan,
            served,
            certificate_is_own,
            memory_budget,
            tasks,
            shutdown,
        } = parts;
        let contact = Arc::new(Contact::new(&addresses.server_url, &limits));
        let about = About {
            addresses: addresses.clone(),
            base_domain: tailnet.borrow().base_domain.clone(),
            tailnet: tailnet.clone(),
            warnings,
            board,
            policy_place: policy_place.clone(),
            wan,
            served,
            certificate_is_own,
            memory_budget,
            relay: Numbers {
                relay: relay.clone(),
                stun,
            },
        };
        let (sender, news) = watch::channel(engine.snapshot());
        let paced = pace(engine.watch(), tailnet.clone(), sender, shutdown.clone());
        tasks.spawn("pace of the map streams", paced);
        Arc::new(Self {
            news,
            admin: Admin::new(engine.clone(), contact.clone(), about, &limits),
            engine,
            tailnet,
            fragments: Fragments::default(),
            addresses,
            noise,
            relay,
            names,
            contact,
            policy_place,
            tasks,
            shutdown,
            streams: Arc::new(Semaphore::new(limits.map_streams)),
            bodies: Bodies::new(limits.request_bodies),
            full_maps: Turns::new(limits.full_map_builds),
            newcomers: TokenBucket::new(NEWCOMER_BURST, NEWCOMER_INTERVAL),
            sessions: AtomicU32::new(0),
            limits,
        })
    }

    /// The number of a new map stream.
    pub fn next_session(&self) -> SessionId {
        SessionId(self.sessions.fetch_add(1, Ordering::Relaxed).into())
    }

    /// Where a person lets a waiting machine in.
    pub fn login_url(&self, id: &AuthId) -> String {
        format!("{}/register/{id}", self.addresses.server_url)
    }

    /// Time until the next sign of life on a silent stream.
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
    fn reached(&self, request: &hyper::http::request::Parts) -> Response<Body> {
        if request.method != Method::HEAD {
            return body::text(StatusCode::METHOD_NOT_ALLOWED, "method not allowed");
        }
        let call = query::value(request.uri.query(), "id");
        let claim = self.contact.calls.claim(&call, Way::Plain);
        match claim.is_some_and(|claim| claim.give(Bytes::new())) {
            true => body::status(StatusCode::OK),
            false => body::status(StatusCode::NOT_FOUND),
        }
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>, origin: Origin) -> Response<Body> {
        let path = request.uri().path();
        if path.starts_with("/api/") {
            let trust = match origin {
                Origin::Local => Trust::Socket,
                Origin::Network { .. } => Trust::Bearer,
            };
            return self.admin.handle(trust, request).await;
        }
        let Origin::Network { .. } = origin else {
            return body::text(StatusCode::NOT_FOUND, "the socket serves /api/ only");
        };
        if path == derp::VERIFY {
            let (parts, content) = request.into_parts();
            let is_admitted = |key: &NodeKey| self.engine.snapshot().admits(key);
            let patience = self.limits.request_timeout;
            return derp::verify(&parts, content, patience, is_admitted).await;
        }
        let (parts, _) = request.into_parts();
        match parts.uri.path() {
            "/key" => public::key(&parts, &self.noise),
            ts2021::PATH => ts2021::upgrade(&parts),
            ping::REACHED => self.reached(&parts),
            "/health" => public::health(self.engine.snapshot().is_writable()),
            _ => match relay::around_relay(&parts, self.relay.as_ref(), &self.names) {
                Some(answer) => answer,
                None => pages::handle(&self, &parts),
            },
        }
    }
}

/// What an [`App`] is made of.
pub struct Parts {
    /// Where changes go and states come from.
    pub engine: Handle,
    /// What is the same in every map.
    pub tailnet: watch::Receiver<Arc<Tailnet>>,
    /// The bounds.
    pub limits: Limits,
    /// Where the server is reached.
    pub addresses: Addresses,
    /// What is wrong with the configuration.
    pub warnings: Vec<String>,
    /// The board that hearth runs on.
    pub board: BoardStatus,
    /// Where the policy comes from.
    pub policy_place: watch::Receiver<PolicyPlace>,
    /// The public Noise key.
    pub noise: MachineKey,
    /// The relay, unless it is off.
    pub relay: Option<Relay>,
    /// What the STUN responder counts.
    pub stun: StunCounters,
    /// The names of this server, for clients without DNS.
    pub names: BootstrapDns,
    /// Where the addresses outside are known.
    pub wan: WanPlace,
    /// The certificate that is served.
    pub served: Arc<CertResolver>,
    /// Whether it is one that hearth made.
    pub certificate_is_own: bool,
    /// What the program should take of memory at most, in bytes, where that is known.
    pub memory_budget: Option<usize>,
    /// Owner of all tasks.
    pub tasks: Tasks,
    /// The wish to stop.
    pub shutdown: Shutdown,
}

impl Service for App {
    fn plain(self: Arc<Self>, request: Request<Incoming>, origin: Origin) -> Answer {
        Box::pin(self.answer(request, origin))
    }

    fn machine(self: Arc<Self>, request: Request<Incoming>, peer: Peer) -> Answer {
        Box::pin(machine::handle(self, peer, request))
    }

    fn relay(
        self: Arc<Self>,
        stream: Stream,
        received: Bytes,
        source: SocketAddr,
        upgrade: RelayUpgrade,
    ) -> Next {
        relay::serve_relay(self.relay.clone(), stream, received, source, upgrade)
    }
}
