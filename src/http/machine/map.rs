//! `POST /machine/map`: news of a node, its map once, or its map and all that follows.

use std::fmt;
use std::pin::pin;
use std::sync::Arc;

use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, sleep};

use crate::engine::Handle;
use crate::http::App;
use crate::http::body::{self, Body, Sender};
use crate::http::machine::{convert, node_of, refused};
use crate::http::ts2021::Peer;
use crate::id::NodeId;
use crate::netmap::frame::frame;
use crate::netmap::full::{Scope, full_map};
use crate::netmap::session::{EndReason, MapSession, Next};
use crate::netmap::{self, MapContext};
use crate::state::command::Command;
use crate::state::model::{Node, SessionId};
use crate::system_clock;
use crate::tailcfg::capability::CapabilityVersion;
use crate::tailcfg::map::MapRequest;

pub(super) async fn map(app: Arc<App>, peer: Peer, request: Request<Incoming>) -> Response<Body> {
    let limits = &app.limits;
    let read = app
        .bodies
        .read(request.into_body(), limits.map_body, limits.request_timeout);
    let bytes = match read.await {
        Ok(bytes) => bytes,
        Err(fault) => return body::text(fault.status(), &fault.to_string()),
    };
    let mut request = match MapRequest::decode(&bytes, limits.endpoints) {
        Ok(request) => request,
        Err(fault) => return body::text(StatusCode::BAD_REQUEST, &fault.to_string()),
    };
    // What follows may wait, and the room for the body is given back already.
    drop(bytes);
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
    // As long as it is read, it counts like a stream.
    let Ok(permit) = app.streams.clone().try_acquire_owned() else {
        return too_many();
    };
    let turn = app.full_maps.take(&app.tasks).await;
    let snapshot = app.engine.snapshot();
    let Some(viewer) = snapshot.node(node.id) else {
        return body::text(StatusCode::NOT_FOUND, "node not found");
    };
    let scope = match request.omit_peers {
        true => Scope::Itself,
        false => Scope::Everyone,
    };
    let now = system_clock::now().wall;
    let tailnet = app.tailnet.borrow().clone();
    let context = MapContext {
        shared: &tailnet,
        snapshot: &snapshot,
        now,
    };
    let pieces = full_map(&context, &app.map_cache, viewer, scope, request.zstd, "");
    as_json(Body::stream(|sender| async move {
        let _held = (permit, turn);
        for piece in pieces {
            sender.send(piece).await;
        }
    }))
}

fn too_many() -> Response<Body> {
    let fault = "too many map streams (limits.map_streams)";
    body::text(StatusCode::SERVICE_UNAVAILABLE, fault)
}

fn as_json(body: Body) -> Response<Body> {
    body::typed(StatusCode::OK, "application/json", body)
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
        return too_many();
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
        over: Over::Gone,
        _permit: permit,
    };
    let zstd = request.zstd;
    // A slow client holds the body back: the next message is made from the newest state when there is room.
    as_json(Body::stream(|sender| async move {
        let over = drive(&app, &open, zstd, &sender).await;
        open.end(over);
    }))
}

/// A stream that the state counts as open; says that it ended however it ends.
struct OpenStream {
    engine: Handle,
    node: NodeId,
    session: SessionId,
    over: Over,
    _permit: OwnedSemaphorePermit,
}

impl OpenStream {
    fn end(mut self, over: Over) {
        self.over = over;
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.engine.stream_closed(self.node, self.session);
        tracing::debug!("map stream ended: {}", self.over);
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
async fn drive(app: &App, open: &OpenStream, zstd: bool, sender: &Sender) -> Over {
    let mut news = app.news.clone();
    let mut inbox = app.contact.inboxes.open(open.node, open.session);
    // Held while the first map is made and sent.
    let mut turn = Some(app.full_maps.take(&app.tasks).await);
    let mut begun: Option<MapSession> = None;
    let mut keep_alive = pin!(sleep(app.keep_alive_interval()));
    loop {
        let next = {
            // The first map is of the state that knows of this stream, which news may not yet do.
            let newest = news.borrow_and_update().clone();
            let snapshot = match begun {
                Some(_) => newest,
                None => app.engine.snapshot(),
            };
            let tailnet = app.tailnet.borrow().clone();
            let context = MapContext {
                shared: &tailnet,
                snapshot: &snapshot,
                now: system_clock::now().wall,
            };
            match &mut begun {
                Some(session) => session.advance(&context, &app.map_cache),
                None => {
                    let (session, next) =
                        MapSession::begin(open.node, open.session, zstd, &context, &app.map_cache);
                    begun = Some(session);
                    next
                }
            }
        };
        let is_news = !matches!(next, Next::Nothing);
        match next {
            Next::Nothing => {}
            Next::Send(message) => sender.send(message.framed(zstd)).await,
            Next::SendMap(pieces) => {
                for piece in pieces {
                    sender.send(piece).await;
                }
            }
            Next::End(reason) => return Over::Ended(reason),
        }
        drop(turn.take());
        if is_news {
            // What was sent is a sign of life as well.
            keep_alive
                .as_mut()
                .reset(Instant::now() + app.keep_alive_interval());
        }
        tokio::select! {
            biased;
            changed = news.changed() => if changed.is_err() { return Over::Shutdown },
            message = inbox.next() => sender.send(frame(message.as_bytes(), zstd)).await,
            () = keep_alive.as_mut() => {
                let message = netmap::keep_alive(system_clock::now().wall);
                sender.send(frame(message.as_bytes(), zstd)).await;
                keep_alive.as_mut().reset(Instant::now() + app.keep_alive_interval());
            }
        }
    }
}
