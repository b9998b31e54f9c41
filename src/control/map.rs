//! `POST /machine/map`: news of a node, its map poll_once, or its map and all that follows.

use std::fmt;
use std::pin::pin;
use std::sync::Arc;

use hyper::{Response, StatusCode};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, sleep};

use crate::control::context::{ControlContext, NoiseRequest};
use crate::control::convert;
use crate::control::node_auth::{node_of, refused};
use crate::engine::Handle;
use crate::net::body;
use crate::net::body::{Body, Sender};
use crate::system_clock;
use hearth_core::id::NodeId;
use hearth_core::netmap;
use hearth_core::netmap::MapContext;
use hearth_core::netmap::frame::frame;
use hearth_core::netmap::full::{Scope, full_map};
use hearth_core::netmap::session::{EndReason, MapSession, Next};
use hearth_core::state::model::{Node, SessionId};
use hearth_core::state::principal::Principal;
use hearth_core::tailcfg::capability::CapabilityVersion;
use hearth_core::tailcfg::map::MapRequest;

/// `POST /machine/map`: endpoint update, one map, or a stream of maps.
pub async fn map(context: Arc<ControlContext>, request: NoiseRequest) -> Response<Body> {
    let NoiseRequest {
        peer, body: bytes, ..
    } = request;
    let mut request = match MapRequest::decode(&bytes, context.limits.endpoints) {
        Ok(request) => request,
        Err(fault) => return body::text(StatusCode::BAD_REQUEST, &fault.to_string()),
    };
    drop(bytes);
    if !request.version.is_served() {
        return too_old(request.version);
    }
    let node = match node_of(&context, &peer, &request.node_key) {
        Ok(node) => node,
        Err(stranger) => return stranger.answer(),
    };
    if request.stream {
        return stream(context, &node, &mut request).await;
    }
    match request.omit_peers && !request.read_only {
        true => endpoint_update(&context, &node, &mut request).await,
        false => poll_once(&context, &node, &mut request).await,
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
async fn endpoint_update(
    context: &ControlContext,
    node: &Node,
    request: &mut MapRequest,
) -> Response<Body> {
    match apply_update(context, node, request).await {
        Ok(()) => body::status(StatusCode::OK),
        Err(answer) => answer,
    }
}

/// Takes news, unless the request says that there is none, and gives the map poll_once.
async fn poll_once(
    context: &ControlContext,
    node: &Node,
    request: &mut MapRequest,
) -> Response<Body> {
    if let Err(answer) = apply_update(context, node, request).await {
        return answer;
    }
    // As long as it is read, it counts like a stream.
    let Ok(permit) = context.streams.clone().try_acquire_owned() else {
        return too_many();
    };
    let turn = context.full_maps.take(&context.tasks).await;
    let snapshot = context.engine.snapshot();
    let Some(viewer) = snapshot.node(node.id) else {
        return body::text(StatusCode::NOT_FOUND, "node not found");
    };
    let scope = match request.omit_peers {
        true => Scope::Itself,
        false => Scope::Everyone,
    };
    let now = system_clock::now().wall;
    let tailnet = context.tailnet.borrow().clone();
    let map_context = MapContext {
        shared: &tailnet,
        snapshot: &snapshot,
        now,
    };
    let pieces = full_map(
        &map_context,
        &context.map_cache,
        viewer,
        scope,
        request.zstd,
        "",
    );
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

async fn apply_update(
    context: &ControlContext,
    node: &Node,
    request: &mut MapRequest,
) -> Result<(), Response<Body>> {
    if request.read_only {
        return Ok(());
    }
    let update = convert::update(node, request, context.limits.hostinfo);
    let by = Principal::Node { id: node.id };
    let told = context.engine.update_node(by, update).await;
    told.map(|_| ()).map_err(|fault| refused(&fault))
}

async fn stream(
    context: Arc<ControlContext>,
    node: &Node,
    request: &mut MapRequest,
) -> Response<Body> {
    let Ok(permit) = context.streams.clone().try_acquire_owned() else {
        return too_many();
    };
    let session = context.next_session();
    let fallback = convert::update(node, request, context.limits.hostinfo);
    if let Err(fault) = context.engine.open_stream(node.id, session, fallback).await {
        return refused(&fault);
    }
    let open = OpenStream {
        engine: context.engine.clone(),
        node: node.id,
        session,
        over: StreamEnd::Gone,
        _permit: permit,
    };
    let zstd = request.zstd;
    // A slow client holds the body back: the next message is made from the newest state when there is room.
    as_json(Body::stream(|sender| async move {
        let over = drive(&context, &open, zstd, &sender).await;
        open.end(over);
    }))
}

/// A stream that the state counts as open; says that it ended however it ends.
struct OpenStream {
    engine: Handle,
    node: NodeId,
    session: SessionId,
    over: StreamEnd,
    _permit: OwnedSemaphorePermit,
}

impl OpenStream {
    fn end(mut self, over: StreamEnd) {
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
enum StreamEnd {
    /// The client is gone.
    Gone,
    /// hearth shuts down.
    Shutdown,
    /// The map says so.
    Ended(EndReason),
}

impl fmt::Display for StreamEnd {
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
async fn drive(
    context: &ControlContext,
    open: &OpenStream,
    zstd: bool,
    sender: &Sender,
) -> StreamEnd {
    let mut news = context.updates.clone();
    let mut inbox = context.calls.mailboxes.open(open.node, open.session);
    // Held while the first map is made and sent.
    let mut turn = Some(context.full_maps.take(&context.tasks).await);
    let mut begun: Option<MapSession> = None;
    let mut keep_alive = pin!(sleep(context.keep_alive_interval()));
    loop {
        let next = {
            // The first map is of the state that knows of this stream, which news may not yet do.
            let newest = news.borrow_and_update().clone();
            let snapshot = match begun {
                Some(_) => newest,
                None => context.engine.snapshot(),
            };
            let tailnet = context.tailnet.borrow().clone();
            let map_context = MapContext {
                shared: &tailnet,
                snapshot: &snapshot,
                now: system_clock::now().wall,
            };
            match &mut begun {
                Some(session) => session.advance(&map_context, &context.map_cache),
                None => {
                    let (session, next) = MapSession::begin(
                        open.node,
                        open.session,
                        zstd,
                        &map_context,
                        &context.map_cache,
                    );
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
            Next::End(reason) => return StreamEnd::Ended(reason),
        }
        drop(turn.take());
        if is_news {
            // What was sent is a sign of life as well.
            keep_alive
                .as_mut()
                .reset(Instant::now() + context.keep_alive_interval());
        }
        tokio::select! {
            biased;
            changed = news.changed() => if changed.is_err() { return StreamEnd::Shutdown },
            message = inbox.next() => sender.send(frame(message.as_bytes(), zstd)).await,
            () = keep_alive.as_mut() => {
                let message = netmap::keep_alive(system_clock::now().wall);
                sender.send(frame(message.as_bytes(), zstd)).await;
                keep_alive.as_mut().reset(Instant::now() + context.keep_alive_interval());
            }
        }
    }
}
