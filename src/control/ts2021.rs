//! Control connections (TS2021): the upgrade request, the Noise handshake, and HTTP/2 inside.
//!
//! Source: tailscale `control/controlhttp/controlhttpserver/controlhttpserver.go`.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use data_encoding::BASE64;
use hearth_derp::websocket::WebSocket;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderValue, UPGRADE};
use hyper::http::request::Parts;
use hyper::{Request, Response, StatusCode, Version};
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use crate::control::activity::Activity;
use crate::control::noise_stream::NoiseStream;
use crate::net::body::{self, Body};
use crate::net::gate::Ticket;
use crate::net::http2::{self, Http2Error};
use crate::net::limits::Limits;
use crate::net::stream::Stream;
use crate::net::upgrade::{PendingResponse, Upgrade};
use crate::net::{query, websocket};
use crate::shutdown::Shutdown;
use hearth_core::keys::{ChallengeKey, MachineKey, MachineSecret};
use hearth_core::noise::handshake::{self, Accepted, HandshakeError};
use hearth_core::noise::{EARLY_PAYLOAD_FROM, early_payload};
use hearth_core::state::secret::AuthIds;

/// Path of the upgrade request.
pub const PATH: &str = "/ts2021";

/// Value of the `Upgrade` header. Source: `UpgradeHeaderValue` in tailscale
/// `control/controlhttp/controlhttpcommon`.
pub const PROTOCOL: &str = "tailscale-control-protocol";

/// Header with the handshake message of the client, in base64. Source: `HandshakeHeaderName` in tailscale `control/controlhttp/controlhttpcommon`.
pub const HANDSHAKE_HEADER: &str = "x-tailscale-handshake";

/// The same as a query parameter of a WebSocket request.
const HANDSHAKE_PARAMETER: &str = "X-Tailscale-Handshake";

/// Close code of a WebSocket that violates the protocol. Source: RFC 6455 section 7.4.1.
const POLICY_VIOLATION: u16 = 1008;

/// How a control connection starts; the bytes are the handshake message of the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ControlUpgrade {
    /// Directly on the connection.
    Plain(Vec<u8>),
    /// Inside WebSocket messages.
    WebSocket(Vec<u8>),
    /// Inside WebSocket messages, but invalid: the WebSocket is closed.
    Misused,
}

/// Any method on [`PATH`]: 101, or 400 with the texts of the reference.
///
/// `take_over` makes the upgrade in the response.
pub fn upgrade(
    request: &Parts,
    take_over: impl FnOnce(ControlUpgrade) -> Upgrade,
) -> Response<Body> {
    let protocol = header(request, UPGRADE.as_str());
    if protocol.eq_ignore_ascii_case(b"websocket") {
        return web_socket(request, take_over);
    }
    match check(request, protocol) {
        Ok(initiation) => {
            let mut response = body::status(StatusCode::SWITCHING_PROTOCOLS);
            let upgrade = take_over(ControlUpgrade::Plain(initiation));
            response.extensions_mut().insert(upgrade);
            let headers = response.headers_mut();
            headers.insert(UPGRADE, HeaderValue::from_static(PROTOCOL));
            headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
            response
        }
        Err(fault) => body::text(StatusCode::BAD_REQUEST, fault),
    }
}

fn header<'a>(request: &'a Parts, name: &str) -> &'a [u8] {
    let value = request.headers.get(name);
    value.map(HeaderValue::as_bytes).unwrap_or_default()
}

fn check(request: &Parts, protocol: &[u8]) -> Result<Vec<u8>, &'static str> {
    if protocol.is_empty() {
        return Err("missing next protocol");
    }
    if !protocol.eq_ignore_ascii_case(PROTOCOL.as_bytes()) {
        return Err("unknown next protocol");
    }
    let initiation = header(request, HANDSHAKE_HEADER);
    if initiation.is_empty() {
        return Err("missing Tailscale handshake header");
    }
    let initiation = BASE64
        .decode(initiation)
        .map_err(|_| "invalid tailscale handshake header")?;
    if request.version > Version::HTTP_11 {
        return Err("make request over HTTP/1");
    }
    Ok(initiation)
}

/// Clients in a browser cannot set headers: their handshake is in the query. A missing handshake or an
/// unknown subprotocol is reported by closing the WebSocket.
/// Source: `acceptWebsocket` in tailscale `control/controlhttp/controlhttpserver/controlhttpserver.go`.
fn web_socket(
    request: &Parts,
    take_over: impl FnOnce(ControlUpgrade) -> Upgrade,
) -> Response<Body> {
    let is_ours = websocket::speaks(&request.headers, PROTOCOL);
    let initiation = query::value(request.uri.query(), HANDSHAKE_PARAMETER);
    let upgrade = match BASE64.decode(initiation.as_bytes()) {
        Ok(initiation) if is_ours && !initiation.is_empty() => {
            ControlUpgrade::WebSocket(initiation)
        }
        _ => ControlUpgrade::Misused,
    };
    let mut response = websocket::accept(&request.headers, is_ours.then_some(PROTOCOL));
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        response.extensions_mut().insert(take_over(upgrade));
    }
    response
}

/// Client of a control connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Machine key, proven by the handshake. The only trusted identity.
    pub machine: MachineKey,
    /// Capability version of the client.
    pub version: u16,
    /// Address of the client.
    pub source: SocketAddr,
}

/// Why a control connection ended.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The handshake was refused.
    #[error("noise: {0}")]
    Handshake(#[from] HandshakeError),
    /// The machine key of the client is all zero, which means no key.
    #[error("noise: machine key is zero")]
    NoMachine,
    /// The handshake timed out.
    #[error("noise: handshake timed out")]
    Timeout,
    /// The transport failed.
    #[error("transport: {0}")]
    Transport(#[from] io::Error),
    /// The client has not proven that it has a node, and sends no requests.
    #[error("no request before the timeout")]
    Idle,
    /// HTTP/2 failed.
    #[error(transparent)]
    Http2(#[from] Http2Error),
}

/// Server side of all Noise sessions.
#[derive(Debug)]
pub struct NoiseServer {
    secret: MachineSecret,
    challenge: ChallengeKey,
    limits: Limits,
    shutdown: Shutdown,
}

impl NoiseServer {
    /// A server with this key.
    ///
    /// `challenge` goes into the early payload; current clients ignore it.
    pub fn new(
        secret: MachineSecret,
        challenge: ChallengeKey,
        limits: Limits,
        shutdown: Shutdown,
    ) -> Self {
        Self {
            secret,
            challenge,
            limits,
            shutdown,
        }
    }

    /// Public key of the server.
    pub fn public_key(&self) -> MachineKey {
        self.secret.public()
    }

    /// Makes ids of pending registrations, with a key from the server's.
    pub fn auth_ids(&self) -> AuthIds {
        AuthIds::new(&self.secret.to_bytes())
    }

    /// The upgrade of a control connection after its 101 response. `answer` handles the requests inside, which have the
    /// [`Ticket`] of the connection in their extensions.
    pub fn take_over<F>(self: &Arc<Self>, begin: ControlUpgrade, answer: F) -> Upgrade
    where
        F: Fn(Request<Incoming>, Peer) -> PendingResponse + Send + Sync + 'static,
    {
        let server = Arc::clone(self);
        Upgrade::new(PROTOCOL, move |stream, received, ticket| {
            let source = ticket.source();
            let log = move |ended: Result<(), ControlError>| {
                if let Err(error) = ended {
                    tracing::debug!(%source, %error, "control connection ended");
                }
            };
            // Each kind is a future of its own, so a connection uses the memory of its kind only.
            match begin {
                ControlUpgrade::Plain(initiation) => Box::pin(async move {
                    log(server
                        .serve(stream, received, initiation, ticket, true, answer)
                        .await);
                }),
                // Clients in a browser get no early payload.
                ControlUpgrade::WebSocket(initiation) => Box::pin(async move {
                    let stream: Stream = Box::new(WebSocket::new(stream, received));
                    log(server
                        .serve(stream, Bytes::new(), initiation, ticket, false, answer)
                        .await);
                }),
                ControlUpgrade::Misused => Box::pin(async move {
                    log(server.refuse_web_socket(stream, received).await);
                }),
            }
        })
    }

    /// Serves one connection until it ends or the server stops. `received` are bytes that the client sent
    /// after its upgrade request.
    async fn serve<F>(
        &self,
        stream: Stream,
        received: Bytes,
        initiation: Vec<u8>,
        ticket: Ticket,
        early: bool,
        answer: F,
    ) -> Result<(), ControlError>
    where
        F: Fn(Request<Incoming>, Peer) -> PendingResponse + Send + Sync + 'static,
    {
        let source = ticket.source();
        let handshake = Box::pin(self.handshake(stream, received, initiation, source, early));
        let (stream, peer) = timeout(self.limits.noise_handshake, handshake)
            .await
            .map_err(|_| ControlError::Timeout)??;
        let activity = Activity::default();
        let (begun, of_connection) = (activity.clone(), ticket.clone());
        let answer = move |mut request: Request<Incoming>| -> PendingResponse {
            request.extensions_mut().insert(of_connection.clone());
            let answering = answer(request, peer);
            if of_connection.is_proven() {
                return answering;
            }
            let running = begun.begin();
            Box::pin(async move {
                let response = answering.await;
                drop(running);
                response
            })
        };
        let idle = self.limits.idle.min(self.limits.first_request);
        let serving = http2::serve(stream, &self.limits, &self.shutdown, answer);
        tokio::select! {
            biased;
            served = serving => Ok(served?),
            () = activity.ceased(&ticket, idle) => Err(ControlError::Idle),
        }
    }

    /// Closes an invalid WebSocket.
    async fn refuse_web_socket(&self, stream: Stream, received: Bytes) -> Result<(), ControlError> {
        let mut stream = WebSocket::new(stream, received);
        stream.close(POLICY_VIOLATION);
        timeout(self.limits.noise_handshake, stream.shutdown())
            .await
            .map_err(|_| ControlError::Timeout)?
            .map_err(ControlError::from)
    }

    async fn handshake(
        &self,
        mut stream: Stream,
        received: Bytes,
        initiation: Vec<u8>,
        source: SocketAddr,
        early: bool,
    ) -> Result<(NoiseStream<Stream>, Peer), ControlError> {
        let Accepted {
            version,
            peer: machine,
            response,
            seal,
            open,
        } = match handshake::respond(&self.secret, &initiation) {
            Ok(accepted) => accepted,
            Err(error) => {
                if let Some(frame) = error.frame() {
                    stream.write_all(&frame).await?;
                    stream.shutdown().await?;
                }
                return Err(error.into());
            }
        };
        if machine.is_zero() {
            return Err(ControlError::NoMachine);
        }
        let mut stream = NoiseStream::new(stream, seal, open, &response, &received);
        if early && version >= EARLY_PAYLOAD_FROM {
            stream.write_all(&early_payload(&self.challenge)).await?;
        }
        // Yields between two handshakes, which take long on a slow processor.
        tokio::task::yield_now().await;
        stream.flush().await?;
        let peer = Peer {
            machine,
            version,
            source,
        };
        Ok((stream, peer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::http1::{self, Http1End};
    use crate::supervise::Tasks;
    use hearth_core::noise::handshake::testing::Initiator;
    use hearth_core::noise::record::{Open, Seal};
    use http_body_util::{BodyExt, Empty};
    use hyper::client::conn::http2::SendRequest;
    use hyper_util::rt::TokioIo;
    use std::future::Future;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt, DuplexStream, duplex};
    use tokio::time::sleep;

    fn parts(headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().uri(PATH).method("POST");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    /// The response, and its upgrade.
    fn upgraded(request: &Parts) -> (Response<Body>, Option<ControlUpgrade>) {
        let mut begin = None;
        let response = upgrade(request, |asked| {
            begin = Some(asked);
            Upgrade::new(PROTOCOL, |_, _, _| Box::pin(std::future::ready(())))
        });
        (response, begin)
    }

    #[tokio::test]
    async fn the_checks_of_the_reference_are_made_in_its_order() {
        let protocol = ("Upgrade", "Tailscale-Control-Protocol");
        for (headers, text) in [
            (vec![], "missing next protocol\n"),
            (vec![("Upgrade", "h2c")], "unknown next protocol\n"),
            (vec![protocol], "missing Tailscale handshake header\n"),
            (
                vec![protocol, ("X-Tailscale-Handshake", "AA=")],
                "invalid tailscale handshake header\n",
            ),
        ] {
            let (answer, _) = upgraded(&parts(&headers));
            assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
            let bytes = answer.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(bytes, text);
        }
        let (answer, _) = upgraded(&parts(&[("Upgrade", "WebSocket")]));
        assert_eq!(answer.status(), StatusCode::UPGRADE_REQUIRED);
        let (answer, begin) = upgraded(&parts(&[protocol, ("X-Tailscale-Handshake", "AAE=")]));
        assert_eq!(answer.status(), StatusCode::SWITCHING_PROTOCOLS);
        assert_eq!(answer.headers()["upgrade"], PROTOCOL);
        assert_eq!(answer.headers()["connection"], "upgrade");
        assert_eq!(begin, Some(ControlUpgrade::Plain(vec![0, 1])));
        let upgrade = answer.extensions().get::<Upgrade>();
        assert_eq!(upgrade.map(Upgrade::protocol), Some(PROTOCOL));
    }

    #[test]
    fn in_a_web_socket_the_handshake_is_in_the_query_and_misuse_closes_it() {
        for (query, protocols, expected) in [
            (
                "X-Tailscale-Handshake=%2BAE%3D",
                "x, tailscale-control-protocol",
                ControlUpgrade::WebSocket(vec![0xf8, 1]),
            ),
            (
                "X-Tailscale-Handshake=%2BAE%3D",
                "derp",
                ControlUpgrade::Misused,
            ),
            ("x=1", PROTOCOL, ControlUpgrade::Misused),
            (
                "X-Tailscale-Handshake=%21",
                PROTOCOL,
                ControlUpgrade::Misused,
            ),
        ] {
            let mut request = parts(&[
                ("Upgrade", "websocket"),
                ("Sec-WebSocket-Version", "13"),
                ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
                ("Sec-WebSocket-Protocol", protocols),
            ]);
            request.uri = format!("{PATH}?{query}").parse().unwrap();
            let (answer, begin) = upgraded(&request);
            assert_eq!(answer.status(), StatusCode::SWITCHING_PROTOCOLS);
            let named = answer.headers().contains_key("sec-websocket-protocol");
            assert_eq!(named, protocols != "derp");
            assert_eq!(begin, Some(expected));
        }
    }

    /// Ticket of the fake clients.
    fn ticket() -> Ticket {
        Ticket::detached(([192, 0, 2, 1], 1234).into())
    }

    struct Setup {
        control: Arc<NoiseServer>,
        shutdown: Shutdown,
        tasks: Tasks,
    }

    fn setup() -> Setup {
        let (shutdown, tasks) = (Shutdown::new(), Tasks::new());
        let control = NoiseServer::new(
            MachineSecret::from_bytes([0x11; 32]),
            ChallengeKey::from_bytes([0xcc; 32]),
            Limits::default(),
            shutdown.clone(),
        );
        Setup {
            control: Arc::new(control),
            shutdown,
            tasks,
        }
    }

    fn answer(request: Request<Incoming>, peer: Peer) -> PendingResponse {
        Box::pin(answered(request, peer))
    }

    async fn answered(request: Request<Incoming>, peer: Peer) -> Response<Body> {
        if request.uri().path() == "/wait" {
            std::future::pending::<()>().await;
        }
        let body = body::read_limited(request, 1024, Duration::from_secs(5)).await;
        let text = format!("{} {} {body:?}", peer.version, peer.machine);
        body::text(StatusCode::OK, &text)
    }

    fn serve(setup: &Setup, initiation: Vec<u8>) -> DuplexStream {
        let (client, server) = duplex(64 * 1024);
        let control = Arc::clone(&setup.control);
        setup.tasks.spawn("control", async move {
            let upgrade = control.take_over(ControlUpgrade::Plain(initiation), answer);
            upgrade
                .start(Box::new(server), Bytes::new(), ticket())
                .await;
        });
        client
    }

    async fn connect(setup: &Setup, version: u16) -> NoiseStream<DuplexStream> {
        let secret = MachineSecret::from_bytes([0x22; 32]);
        let server = MachineSecret::from_bytes([0x11; 32]).public();
        let initiator = Initiator::new(&secret, server, version);
        let mut stream = serve(setup, initiator.initiation.clone());
        let mut response = [0; handshake::RESPONSE_BYTES];
        stream.read_exact(&mut response).await.unwrap();
        let (seal, open): (Seal, Open) = initiator.finish(&response);
        NoiseStream::new(stream, seal, open, &[], &[])
    }

    /// Runs the client side of a connection.
    #[derive(Clone)]
    struct OnTasks(Tasks);

    impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for OnTasks {
        fn execute(&self, future: F) {
            self.0.spawn("client request", future);
        }
    }

    async fn http2(setup: &Setup, stream: NoiseStream<DuplexStream>) -> SendRequest<Empty<Bytes>> {
        let executor = OnTasks(setup.tasks.clone());
        let io = TokioIo::new(stream);
        let handshake = hyper::client::conn::http2::handshake(executor, io);
        let (requests, connection) = handshake.await.unwrap();
        setup.tasks.spawn("client", async {
            let _ = connection.await;
        });
        requests
    }

    fn get(path: &str) -> Request<Empty<Bytes>> {
        let uri = format!("https://unused{path}");
        Request::get(uri).body(Empty::new()).unwrap()
    }

    #[tokio::test]
    async fn a_control_connection_starts_after_its_upgrade() {
        let setup = setup();
        let (mut stream, server) = duplex(64 * 1024);
        let (control, stop) = (setup.control.clone(), setup.shutdown.clone());
        setup.tasks.spawn("connection", async move {
            let serve = |request: Request<Incoming>| -> PendingResponse {
                let (head, _) = request.into_parts();
                let upgraded = upgrade(&head, |begin| control.take_over(begin, answer));
                Box::pin(std::future::ready(upgraded))
            };
            let limits = Limits::default();
            let ended = http1::serve(
                Box::new(server) as Stream,
                &limits,
                &stop,
                &serve,
                &|_, _| None,
            );
            if let Ok(Http1End::Upgraded {
                stream,
                received,
                upgrade,
            }) = ended.await
            {
                upgrade.start(stream, received, ticket()).await;
            }
        });
        let secret = MachineSecret::from_bytes([0x22; 32]);
        let key = MachineSecret::from_bytes([0x11; 32]).public();
        let client = Initiator::new(&secret, key, 137);
        let request = format!(
            "POST /ts2021 HTTP/1.1\r\nContent-Length: 0\r\nUpgrade: tailscale-control-protocol\r\n\
             Connection: upgrade\r\nX-Tailscale-Handshake: {}\r\n\r\n",
            BASE64.encode(&client.initiation)
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap();
        assert!(head.starts_with("HTTP/1.1 101 Switching Protocols\r\n"));
        assert!(head.contains("\r\nupgrade: tailscale-control-protocol\r\n"));
        let mut response = [0; handshake::RESPONSE_BYTES];
        stream.read_exact(&mut response).await.unwrap();
        let (seal, open) = client.finish(&response);
        let mut stream = NoiseStream::new(stream, seal, open, &[], &[]);
        let expected = early_payload(&ChallengeKey::from_bytes([0xcc; 32]));
        let mut early = vec![0; expected.len()];
        stream.read_exact(&mut early).await.unwrap();
        assert_eq!(early, expected);
        drop(stream);
    }

    #[tokio::test]
    async fn requests_are_answered_and_know_their_machine() {
        let setup = setup();
        let mut stream = connect(&setup, 137).await;
        let mut early = vec![0; early_payload(&setup.control.challenge).len()];
        stream.read_exact(&mut early).await.unwrap();
        assert_eq!(early, early_payload(&setup.control.challenge));
        let mut requests = http2(&setup, stream).await;
        let machine = MachineSecret::from_bytes([0x22; 32]).public();
        for _ in 0..3 {
            let response = requests.send_request(get("/")).await.unwrap();
            let bytes = response.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(bytes, format!("137 {machine} Ok(b\"\")\n"));
        }
    }

    #[tokio::test]
    async fn old_clients_get_no_early_payload() {
        let setup = setup();
        let stream = connect(&setup, EARLY_PAYLOAD_FROM - 1).await;
        let mut requests = http2(&setup, stream).await;
        let response = requests.send_request(get("/")).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
    }

    #[tokio::test]
    async fn a_bad_initiation_gets_an_error() {
        let setup = setup();
        let mut stream = serve(&setup, vec![0; 100]);
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        let expected = handshake::error_frame("wrong handshake initiation size");
        assert_eq!(answer, expected);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_never_sends_a_request_is_disconnected() {
        let setup = setup();
        let mut stream = connect(&setup, 40).await;
        let mut rest = Vec::new();
        let left = stream.read_to_end(&mut rest);
        assert!(timeout(Duration::from_secs(61), left).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn an_unknown_client_may_wait_for_a_response_but_not_idle() {
        let setup = setup();
        let stream = connect(&setup, 40).await;
        let mut requests = http2(&setup, stream).await;
        {
            let waiting = requests.send_request(get("/wait"));
            let waited = timeout(Duration::from_secs(500), waiting).await;
            assert!(waited.is_err());
        }
        sleep(Limits::default().idle * 2 + Duration::from_secs(2)).await;
        assert!(requests.send_request(get("/")).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_shutdown_ends_idle_connections() {
        let setup = setup();
        let stream = connect(&setup, 40).await;
        let mut idle = http2(&setup, stream).await;
        assert!(idle.send_request(get("/")).await.is_ok());
        setup.shutdown.trigger();
        assert!(setup.tasks.finish(Duration::from_secs(4)).await.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_cancelled_request_is_dropped() {
        let setup = setup();
        let stream = connect(&setup, 40).await;
        let mut requests = http2(&setup, stream).await;
        let before = setup.tasks.count();
        {
            let waiting = requests.send_request(get("/wait"));
            let waited = timeout(Duration::from_secs(1), waiting).await;
            assert!(waited.is_err());
        }
        drop(requests);
        sleep(Duration::from_secs(1)).await;
        setup.tasks.spawn("notice", std::future::ready(()));
        assert!(setup.tasks.count() <= before);
    }
}
