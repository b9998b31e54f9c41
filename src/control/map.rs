//! `POST /machine/map`: an endpoint update, a single map, or a stream of maps.

use std::fmt;
use std::pin::pin;
use std::sync::Arc;

use hyper::header::{HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};
use tokio::time::{Instant, sleep};

use crate::control::context::{ControlContext, NoiseRequest};
use crate::control::convert;
use crate::control::map_streams::{MapKind, MapPlace, NoPlace};
use crate::control::node_auth::{NodeAuthError, node_of, refused};
use crate::control::ts2021::Peer;
use crate::engine::Handle;
use crate::net::body;
use crate::net::body::{Body, Sender};
use crate::net::revocation::Revocation;
use crate::system_clock;
use hearth_core::id::NodeId;
use hearth_core::keys::{MachineKey, NodeKey};
use hearth_core::netmap;
use hearth_core::netmap::MapContext;
use hearth_core::netmap::farewell::farewell;
use hearth_core::netmap::frame::frame;
use hearth_core::netmap::full::{Scope, full_map};
use hearth_core::netmap::session::{EndReason, MapSession, Next};
use hearth_core::state::model::{Node, SessionId};
use hearth_core::state::principal::Principal;
use hearth_core::tailcfg::capability::CapabilityVersion;
use hearth_core::tailcfg::map::MapRequest;

/// `Retry-After` for those that find no place, in seconds.
const RETRY_SECONDS: HeaderValue = HeaderValue::from_static("10");

/// `POST /machine/map`: endpoint update, single map, or stream of maps.
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
    let is_update = request.omit_peers && !request.read_only && !request.stream;
    let node = match node_of(&context, &peer, &request.node_key) {
        Ok(node) => node,
        Err(error) => {
            return match matches!(error, NodeAuthError::NoNode) && !is_update {
                true => former(context, peer, &request),
                false => error.answer(),
            };
        }
    };
    if request.stream {
        return stream(context, &node, &mut request).await;
    }
    match is_update {
        true => endpoint_update(&context, &node, &mut request).await,
        false => poll_once(context, &node, &mut request).await,
    }
}

/// Response to a client older than [`CapabilityVersion::OLDEST`].
pub(super) fn too_old(version: CapabilityVersion) -> Response<Body> {
    let oldest = CapabilityVersion::OLDEST;
    let fault = format!(
        "unsupported client version: capability version {version}, the oldest supported is {oldest} (Tailscale 1.64); update the client"
    );
    body::text(StatusCode::BAD_REQUEST, &fault)
}

/// Applies an update of the node; clients ignore the body of the response.
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

/// Answers a client without a node of this key with the map that makes it log in again: its node was deleted, by this hearth
/// or before a restart or a restored backup. Clients that join ask for no map before they have a node. A client that asks
/// for a stream keeps it, as long as a stranger may keep its connection: it would ask again within milliseconds.
fn former(context: Arc<ControlContext>, peer: Peer, request: &MapRequest) -> Response<Body> {
    let zstd = request.zstd;
    let message = farewell(None, request.node_key, peer.machine);
    let message = frame(message.as_bytes(), zstd);
    if !request.stream {
        return as_json(message.into());
    }
    let place = context.streams.enter_former(peer.machine);
    revocable(place.revocation.clone(), |sender| async move {
        let _place = place;
        sender.send(message).await;
        loop {
            tokio::select! {
                biased;
                () = context.shutdown.wait() => return,
                () = sleep(context.keep_alive_interval()) => {}
            }
            let message = netmap::keep_alive(system_clock::now().wall);
            sender.send(frame(message.as_bytes(), zstd)).await;
        }
    })
}

/// Applies an update of the node unless the request is read-only, and answers with a single map.
async fn poll_once(
    context: Arc<ControlContext>,
    node: &Node,
    request: &mut MapRequest,
) -> Response<Body> {
    if let Err(answer) = apply_update(&context, node, request).await {
        return answer;
    }
    let place = match enter(&context, node.id, MapKind::Once) {
        Ok(place) => place,
        Err(fault) => return no_place(fault),
    };
    let scope = match request.omit_peers {
        true => Scope::Itself,
        false => Scope::Everyone,
    };
    let (id, zstd) = (node.id, request.zstd);
    revocable(place.revocation.clone(), move |sender| async move {
        let _place = place;
        // Held while the map is built and sent.
        let _turn = context.full_maps.take(id, &context.tasks).await;
        let pieces = {
            let snapshot = context.engine.snapshot();
            let Some(viewer) = snapshot.node(id) else {
                return;
            };
            let tailnet = context.tailnet.borrow().clone();
            let map_context = MapContext {
                shared: &tailnet,
                snapshot: &snapshot,
                now: system_clock::now().wall,
            };
            full_map(&map_context, &context.map_cache, viewer, scope, zstd, "")
        };
        for piece in pieces {
            sender.send(piece).await;
        }
    })
}

/// A place for a map or a stream of maps of this node.
fn enter(context: &ControlContext, node: NodeId, kind: MapKind) -> Result<MapPlace, NoPlace> {
    let snapshot = context.engine.snapshot();
    let is_approved = |id| snapshot.node(id).is_some_and(|node| !node.is_isolated());
    let now = system_clock::now().mono;
    context.streams.enter(node, kind, now, is_approved)
}

fn no_place(fault: NoPlace) -> Response<Body> {
    let status = match fault {
        NoPlace::TooOften => StatusCode::TOO_MANY_REQUESTS,
        NoPlace::Full => StatusCode::SERVICE_UNAVAILABLE,
    };
    let mut response = body::text(status, &fault.to_string());
    response.headers_mut().insert(RETRY_AFTER, RETRY_SECONDS);
    response
}

/// A streamed response that `revocation` can end.
fn revocable<F>(revocation: Revocation, make: impl FnOnce(Sender) -> F) -> Response<Body>
where
    F: Future<Output = ()> + Send + 'static,
{
    let mut response = as_json(Body::stream(make));
    response.extensions_mut().insert(revocation);
    response
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
    note_health(context, node, request);
    let update = convert::update(node, request, &context.limits);
    let by = Principal::Node { id: node.id };
    let updated = context.engine.update_node(by, update).await;
    updated.map(|_| ()).map_err(|fault| refused(&fault))
}

/// Notes that IP forwarding is off on a node that offers routes, and that it offers more than are kept, which is logged
/// once for each node.
fn note_health(context: &ControlContext, node: &Node, request: &MapRequest) {
    let forwarding = match request.is_forwarding_off {
        true => {
            "off on this device: its subnet routes and exit node do not work; run `sudo sysctl -w net.ipv4.ip_forward=1 \
             net.ipv6.conf.all.forwarding=1` on it, and make it permanent as docs/routes.md shows"
        }
        false => "",
    };
    context
        .reports
        .set_health(node.id, "ip-forwarding", forwarding);
    let Some(hostinfo) = &request.hostinfo else {
        return;
    };
    let dropped = convert::dropped_routes(hostinfo, &context.limits);
    if context.reports.set_dropped_routes(node.id, dropped) {
        tracing::warn!(
            node = &*node.label,
            dropped,
            kept = context.limits.node_routes,
            help = "raise limits.node_routes, or offer larger prefixes",
            "a node offers more routes than are kept"
        );
    }
}

async fn stream(
    context: Arc<ControlContext>,
    node: &Node,
    request: &mut MapRequest,
) -> Response<Body> {
    let place = match enter(&context, node.id, MapKind::Stream) {
        Ok(place) => place,
        Err(fault) => return no_place(fault),
    };
    let session = context.next_session();
    note_health(&context, node, request);
    let fallback = convert::update(node, request, &context.limits);
    // Made before it is open: a client that goes away meanwhile ends it.
    let open = OpenStream {
        engine: context.engine.clone(),
        node: node.id,
        keys: (node.key, node.machine),
        session,
        end: StreamEnd::Gone,
        place,
    };
    if let Err(fault) = context.engine.open_stream(node.id, session, fallback).await {
        return refused(&fault);
    }
    let zstd = request.zstd;
    // Backpressure of a slow client: the next message is made from the newest state once there is room.
    revocable(open.place.revocation.clone(), move |sender| async move {
        let end = drive(&context, &open, zstd, &sender).await;
        open.end(end);
    })
}

/// Map stream that the state counts as open, or soon will. Dropping it records the end of the stream.
struct OpenStream {
    engine: Handle,
    node: NodeId,
    /// Of the client.
    keys: (NodeKey, MachineKey),
    session: SessionId,
    end: StreamEnd,
    place: MapPlace,
}

impl OpenStream {
    fn end(mut self, end: StreamEnd) {
        self.end = end;
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.engine.stream_closed(self.node, self.session);
        tracing::debug!("map stream ended: {}", self.end);
    }
}

/// Why a map stream ended.
enum StreamEnd {
    /// The client disconnected.
    Gone,
    /// hearth shuts down.
    Shutdown,
    /// The map session ended it.
    Ended(EndReason),
}

impl fmt::Display for StreamEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gone => "client disconnected",
            Self::Shutdown => "hearth is shutting down",
            Self::Ended(EndReason::Deleted) => "the node was deleted",
            Self::Ended(EndReason::Superseded) => "the node opened another stream",
            Self::Ended(EndReason::Behind) => "the stream was too far behind",
        })
    }
}

/// Sends the first map, then each change, until the stream ends.
async fn drive(
    context: &ControlContext,
    open: &OpenStream,
    zstd: bool,
    sender: &Sender,
) -> StreamEnd {
    let mut updates = context.updates.clone();
    let mut inbox = context.calls.mailboxes.open(open.node, open.session);
    // Held while the first map is built and sent.
    let mut turn = Some(context.full_maps.take(open.node, &context.tasks).await);
    let mut begun: Option<MapSession> = None;
    let mut keep_alive = pin!(sleep(context.keep_alive_interval()));
    loop {
        let next = {
            // The first map must be made of a snapshot that includes this stream, which the channel may not have yet.
            let newest = updates.borrow_and_update().clone();
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
        let is_data = !matches!(next, Next::Nothing);
        match next {
            Next::Nothing => {}
            Next::Send(message) => sender.send(message.framed(zstd)).await,
            Next::SendMap(pieces) => {
                for piece in pieces {
                    sender.send(piece).await;
                }
            }
            Next::End(reason) => {
                if reason == EndReason::Deleted {
                    let (key, machine) = open.keys;
                    let message = farewell(Some(open.node), key, machine);
                    sender.send(frame(message.as_bytes(), zstd)).await;
                }
                return StreamEnd::Ended(reason);
            }
        }
        drop(turn.take());
        if is_data {
            // Data counts as a keep-alive too.
            keep_alive.as_mut().reset(next_keep_alive(context));
        }
        tokio::select! {
            biased;
            () = open.place.revocation.revoked() => {
                // Goes through only if the client has read what came before; otherwise the stream is reset.
                let message = netmap::keep_alive(system_clock::now().wall);
                sender.send(frame(message.as_bytes(), zstd)).await;
                return StreamEnd::Ended(EndReason::Superseded);
            }
            changed = updates.changed() => if changed.is_err() { return StreamEnd::Shutdown },
            message = inbox.next() => sender.send(frame(message.as_bytes(), zstd)).await,
            () = keep_alive.as_mut() => {
                let message = netmap::keep_alive(system_clock::now().wall);
                sender.send(frame(message.as_bytes(), zstd)).await;
                keep_alive.as_mut().reset(next_keep_alive(context));
            }
        }
    }
}

fn next_keep_alive(context: &ControlContext) -> Instant {
    let now = Instant::now();
    now.checked_add(context.keep_alive_interval())
        .unwrap_or(now)
}
