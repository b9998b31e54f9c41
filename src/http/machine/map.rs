//! `POST /machine/map`: news of a node, its map once, or its map and all that follows.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use tokio::time::Instant;

use crate::clock;
use crate::engine::Handle;
use crate::http::App;
use crate::http::body::{self, Body, Sender};
use crate::http::machine::{convert, node_of, refused};
use crate::http::ts2021::Peer;
use crate::id::NodeId;
use crate::netmap::Source;
use crate::netmap::frame::frame;
use crate::netmap::full::{Scope, full_map};
use crate::netmap::keep_alive;
use crate::netmap::session::{EndReason, MapSession, Next};
use crate::state::command::Command;
use crate::state::model::{Node, SessionId};
use crate::tailcfg::capability::CapabilityVersion;
use crate::tailcfg::map::MapRequest;

/// Messages that wait for a slow client; the next one is made from the newest state when there is room.
const PIECES: usize = 1;

pub(super) async fn map(app: Arc<App>, peer: Peer, request: Request<Incoming>) -> Response<Body> {
    let limits = &app.limits;
    let read = body::read_limited(request.into_body(), limits.map_body, limits.request_timeout);
    let bytes = match read.await {
        Ok(bytes) => bytes,
        Err(fault) => return body::text(fault.status(), &fault.to_string()),
    };
    let mut request = match MapRequest::decode(&bytes, limits.endpoints) {
        Ok(request) => request,
        Err(fault) => return body::text(StatusCode::BAD_REQUEST, &fault.to_string()),
    };
    if !request.version.is_served() {
        return too_old(request.version);
    }
    let node = match node_of(&app, &peer, &request.node_key) {
        Ok(node) => node,
        Err(stranger) => return stranger.answer(),
    };
    if request.stream {
        return stream(app, &node, &mut request).await;
    }
    match request.omit_peers && !request.read_only {
        true => lite(&app, &node, &mut request).await,
        false => once(&app, &node, &mut request).await,
    }
}

/// The answer to a client from before [`CapabilityVersion::OLDEST`].
pub(super) fn too_old(version: CapabilityVersion) -> Response<Body> {
    let oldest = CapabilityVersion::OLDEST;
    let fault = format!(
        "unsupported client version: capability version {version}, the oldest supported is {oldest} (Tailscale 1.64); update the client"
    );
    body::text(StatusCode::BAD_REQUEST, &fault)
}

/// Takes news; the client throws the answer's body away.
async fn lite(app: &App, node: &Node, request: &mut MapRequest) -> Response<Body> {
    match tell(app, node, request).await {
        Ok(()) => body::status(StatusCode::OK),
        Err(answer) => answer,
    }
}

/// Takes news, unless the request says that there is none, and gives the map once.
async fn once(app: &App, node: &Node, request: &mut MapRequest) -> Response<Body> {
    if let Err(answer) = tell(app, node, request).await {
        return answer;
    }
    let snapshot = app.engine.snapshot();
    let Some(viewer) = snapshot.node(node.id) else {
        return body::text(StatusCode::NOT_FOUND, "node not found");
    };
    let scope = match request.omit_peers {
        true => Scope::Itself,
        false => Scope::Everyone,
    };
    let now = clock::now().wall;
    let tailnet = app.tailnet.borrow().clone();
    let source = Source {
        tailnet: &tailnet,
        fragments: &app.fragments,
        snapshot: &snapshot,
        now,
    };
    let pieces = full_map(&source, viewer, scope, request.zstd, &BTreeSet::new());
    body::typed(StatusCode::OK, "application/json", pieces.concat())
}

async fn tell(app: &App, node: &Node, request: &mut MapRequest) -> Result<(), Response<Body>> {
    if request.read_only {
        return Ok(());
    }
    let update = convert::update(node, request, app.limits.hostinfo);
    let told = app
        .engine
        .apply(Command::UpdateNode(Box::new(update)))
        .await;
    told.map(|_| ()).map_err(|fault| refused(&fault))
}

async fn stream(app: Arc<App>, node: &Node, request: &mut MapRequest) -> Response<Body> {
    let Ok(permit) = app.streams.clone().try_acquire_owned() else {
        let fault = "too many map streams (limits.map_streams)";
        return body::text(StatusCode::SERVICE_UNAVAILABLE, fault);
    };
    let session = app.next_session();
    let fallback = Box::new(convert::update(node, request, app.limits.hostinfo));
    let open = Command::OpenStream {
        node: node.id,
        session,
        fallback,
    };
    if let Err(fault) = app.engine.apply(open).await {
        return refused(&fault);
    }
    let open = OpenStream {
        engine: app.engine.clone(),
        node: node.id,
        session,
    };
    let (sender, response_body) = Body::stream(PIECES);
    let zstd = request.zstd;
    let driven = app.clone();
    app.tasks.spawn("map stream", async move {
        let _permit = permit;
        let over = drive(&driven, open, zstd, sender).await;
        tracing::debug!("map stream ended: {over}");
    });
    let mut response = Response::new(response_body);
    let json = hyper::header::HeaderValue::from_static("application/json");
    response
        .headers_mut()
        .insert(hyper::header::CONTENT_TYPE, json);
    response
}

/// A stream that the state counts as open; says that it ended however it ends.
struct OpenStream {
    engine: Handle,
    node: NodeId,
    session: SessionId,
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.engine.stream_closed(self.node, self.session);
    }
}

/// Why a stream was over.
enum Over {
    /// The client is gone.
    Gone,
    /// hearth shuts down.
    Shutdown,
    /// The map says so.
    Ended(EndReason),
}

impl fmt::Display for Over {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gone => "the client is gone",
            Self::Shutdown => "hearth is shutting down",
            Self::Ended(EndReason::Deleted) => "the node was deleted",
            Self::Ended(EndReason::Superseded) => "the node opened another stream",
            Self::Ended(EndReason::Behind) => "the stream was too far behind",
        })
    }
}

/// Sends the map, then each change of it, until somebody ends that.
async fn drive(app: &App, open: OpenStream, zstd: bool, sender: Sender) -> Over {
    let mut news = app.news.clone();
    let mut tailnets = app.tailnet.clone();
    let mut inbox = app.contact.inboxes.open(open.node, open.session);
    // Held while the first map is made and sent.
    let mut permit = Some(app.full_maps.acquire().await);
    let mut begun: Option<MapSession> = None;
    let mut keep_alive_at = Instant::now();
    loop {
        let next = {
            // The first map is of the state that knows of this stream, which news may not yet do.
            let newest = news.borrow_and_update().clone();
            let snapshot = match begun {
                Some(_) => newest,
                None => app.engine.snapshot(),
            };
            let tailnet = tailnets.borrow_and_update().clone();
            let source = Source {
                tailnet: &tailnet,
                fragments: &app.fragments,
                snapshot: &snapshot,
                now: clock::now().wall,
            };
            match &mut begun {
                Some(session) => session.advance(&source),
                None => {
                    let (session, next) = MapSession::begin(open.node, open.session, zstd, &source);
                    begun = Some(session);
                    next
                }
            }
        };
        let pieces = match next {
            Next::Nothing => Vec::new(),
            Next::Send(message) => vec![message.framed(zstd)],
            Next::SendMap(pieces) => pieces,
            Next::End(reason) => return Over::Ended(reason),
        };
        if !pieces.is_empty() {
            keep_alive_at = Instant::now() + app.keep_alive_interval();
        }
        for piece in pieces {
            if sender.send(piece).await.is_err() {
                return Over::Gone;
            }
        }
        drop(permit.take());
        tokio::select! {
            biased;
            () = app.shutdown.wait() => return Over::Shutdown,
            () = sender.gone() => return Over::Gone,
            changed = news.changed() => if changed.is_err() { return Over::Shutdown },
            changed = tailnets.changed() => if changed.is_err() { return Over::Shutdown },
            Some(message) = inbox.next() => {
                if sender.send(frame(message.as_bytes(), zstd)).await.is_err() {
                    return Over::Gone;
                }
            }
            () = tokio::time::sleep_until(keep_alive_at) => {
                let message = keep_alive(clock::now().wall);
                if sender.send(frame(message.as_bytes(), zstd)).await.is_err() {
                    return Over::Gone;
                }
                keep_alive_at = Instant::now() + app.keep_alive_interval();
            }
        }
    }
}
